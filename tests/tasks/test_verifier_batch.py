"""`r1v0 verify`: explanations, and files of answers."""

import io
import json
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.config import RewardConfig
from r1v0.tasks.grading.verify import Summary, completion, explain, verify_batch

MATH = RewardConfig(name="math", timeout_s=1.0)


def said(lines: list[str]) -> dict[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_explain_an_answer_that_is_equal() -> None:
    found = said(explain(r"It is $\boxed{\frac{1}{2}}$", "so <answer>0.50</answer>", MATH))
    assert found["gold"] == r"\frac{1}{2}"
    assert found["answer"] == "0.50 (found in the text)"
    assert found["strict"] == "not equal"
    assert found["symbolic"].startswith("equal: equal symbolically, 0.")
    assert found["cleaned"] == r"\frac{1}{2} | 0.50"
    assert found["parsed"] == "1/2 | 0.500000000000000"
    assert found["verdict"].startswith("correct, reward 1, ")


@pytest.mark.parametrize(
    ("answer", "extracted", "symbolic", "verdict"),
    [
        ("\\boxed{6}", "6 (found in the text)", "not equal: not equal symbolically", "wrong"),
        ("\\boxed{}", "empty (found in the text)", "not asked", "wrong"),
        ("", "empty (the whole text)", "not asked", "wrong"),
        ("\\frac{\x1b\ud800" + "\n7" * 300, "\\frac{\\x1b\\ud800\\n7\\n7", "not equal: the answer cannot be parsed", "wrong"),
        ("9^{9^{9^9}}", "9^{9^{9^9}} (the whole text)", "timeout after 1.0", "no verdict: timeout"),
    ],
)  # fmt: skip
def test_explain_what_it_saw(answer: str, extracted: str, symbolic: str, verdict: str) -> None:
    found = said(explain("5", answer, MATH))
    assert found["answer"].startswith(extracted)
    assert found["symbolic"].startswith(symbolic)
    assert found["verdict"].startswith(verdict)
    assert all(value.isprintable() for value in found.values())


def test_explain_other_rewards() -> None:
    assert said(explain("72", "so #### 72.0", RewardConfig(name="gsm8k")))["answer"] == "72.0 (found in the text)"
    assert said(explain("72", "72", RewardConfig(name="gsm8k")))["verdict"].startswith("correct")
    assert said(explain("17 from 3 7 4", "\\boxed{3*7-4}", RewardConfig(name="countdown")))["verdict"].startswith(
        "correct"
    )
    with pytest.raises(UserError, match="the gold answer is empty"):
        explain(" ", "5", MATH)
    with pytest.raises(UserError, match="unknown reward 'maht'"):
        explain("5", "5", RewardConfig(name="maht"))


def test_an_answer_given_bare_is_put_into_marks() -> None:
    assert completion("{5", "math") == "<answer>{5</answer>"
    assert completion("\\boxed{5}", "math") == "\\boxed{5}"
    assert completion("5", "gsm8k") == "#### 5"
    assert completion("5", "format") == "5"


def test_explain_what_training_sees_in_an_answer_given_bare() -> None:
    bare = said(explain("5", "so it is 5", MATH))
    assert bare["answer"] == "so it is 5 (the whole text)"
    assert bare["verdict"].startswith("wrong, 0.")
    assert bare["training"] == (
        'reward 0 for this text: no \\boxed{...} and no <answer> tags; 1 with reward.extraction = "last"'
    )
    assert said(explain("5", "5.0", MATH))["verdict"].startswith("correct, 0.")
    assert said(explain("5", "5.0", MATH))["training"].startswith("reward 0")
    assert "training" not in said(explain("5", "\\boxed{5}", MATH))
    assert "no ####; 0 with" in said(explain("72", "27", RewardConfig(name="gsm8k")))["training"]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_is_graded_in_order(tmp_path: Path) -> None:
    rows = [
        ("1/2", "0.5"),
        ("1/2", "so \\boxed{1/2}"),
        ("5", "\\boxed{6}"),
        ("5", ""),
        ("x", "\ud800"),
        ("7", "7^{9^{9^{9}}}"),
    ]
    path = write(
        tmp_path / "in.jsonl", [json.dumps({"gold": gold, "completion": pred, "id": 1}) for gold, pred in rows]
    )
    out = io.StringIO()
    summary = verify_batch(path, out, MATH)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["correct"] for line in lines] == [True, True, False, False, False, False]
    assert [line["strict"] for line in lines] == [False, True, False, False, False, False]
    assert [line["extracted"] for line in lines] == ["0.5", "1/2", "6", "", "\ud800", "7^{9^{9^{9}}}"]
    assert [line.get("failure") for line in lines] == [None] * 5 + ["timeout"]
    assert all(line["seconds"] >= 0 for line in lines)
    assert lines[5]["seconds"] == pytest.approx(1.0, abs=0.5)
    assert (summary.lines, summary.equal, summary.strict, summary.disagreements, summary.timeouts) == (6, 2, 1, 1, 1)
    assert str(summary).startswith("6 lines, 2 equal (33.3%), 1 of them by strict match, 1 timeouts, 0 crashes")


def test_a_file_longer_than_a_chunk_keeps_its_order(tmp_path: Path) -> None:
    rows = [{"gold": str(i % 7), "completion": f"#### {i % 5}"} for i in range(4100)]
    out = io.StringIO()
    summary = verify_batch(
        write(tmp_path / "in.jsonl", [json.dumps(row) for row in rows]), out, RewardConfig(name="gsm8k")
    )
    equal = [json.loads(line)["correct"] for line in out.getvalue().splitlines()]
    assert equal == [i % 7 == i % 5 for i in range(4100)]
    assert summary.equal == sum(equal)


def test_an_empty_file_is_graded(tmp_path: Path) -> None:
    assert verify_batch(write(tmp_path / "in.jsonl", []), io.StringIO(), RewardConfig(name="gsm8k")) == Summary()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "line 2 is not JSON"),
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ("[1]", "line 2 is a JSON list: expected an object"),
        ('{"completion": "5"}', "line 2: has no 'gold': expected a text"),
        ('{"gold": 5, "completion": "5"}', "line 2: 'gold' is 5: expected a text"),
        ('{"gold": "5", "completion": null}', "line 2: 'completion' is null: expected a text"),
        ('{"gold": " ", "completion": "5"}', "line 2: 'gold' is empty"),
    ],
)
def test_a_malformed_line_is_told_and_nothing_is_written(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "in.jsonl", ['{"gold": "5", "completion": "5"}', line])
    out = io.StringIO()
    with pytest.raises(UserError, match=message):
        verify_batch(path, out, MATH)
    assert out.getvalue() == ""


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        verify_batch(tmp_path / "none.jsonl", io.StringIO(), MATH)
    (tmp_path / "latin.jsonl").write_bytes(b'{"gold": "\xe9"}\n')
    with pytest.raises(UserError, match="cannot be read"):
        verify_batch(tmp_path / "latin.jsonl", io.StringIO(), MATH)
    with pytest.raises(UserError, match="cannot be read"):
        verify_batch(tmp_path, io.StringIO(), MATH)

"""`r1v0 check`: what can be trained is called trainable, and what cannot, by its cause."""

import json
from pathlib import Path
from typing import cast

import pytest

from r1v0.cli import main
from r1v0.jobs import check
from r1v0.jobs.new import create
from r1v0.models.loading import Policy
from r1v0.runs.progress import Progress
from r1v0.runs.settings import settle
from r1v0.tasks.datasets import Problems
from tests.helpers import random_groups

SMALL = ["threads=1", "sampling.max_new_tokens=64", "eval.on=[]"]


def sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems_of(*items: str) -> dict[str, str]:
    findings = check.preflight(settle(sets=[*SMALL, *items]).config, Progress())
    return {finding.topic: finding.text for finding in findings if finding.mark == "problem"}


def test_the_demo_is_trainable(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text('eval.on = ["countdown"]\n')
    assert main(["check", "run.toml", *sets("threads=1")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "trainable"
    topics = [line.split()[1] for line in lines if line.startswith("  ok")]
    assert topics == ["data", "held", "reward", "words", "the", "cut", "mixed", "cost"]
    assert any("of 40 answers are right" in line for line in lines)
    assert not any(path.name == "runs" for path in Path().iterdir())


def test_a_first_own_run_with_the_embedded_model_is_told_to_take_a_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    create(Path("first"))
    own = [
        "data.name=mine",
        "data.path=first/data.jsonl",
        "reward.name=first/reward.py:reward",
        "prompt.template=plain",
    ]
    assert main(["check", *sets(*SMALL, "model=tiny", *own)]) == 1
    out = capsys.readouterr().out
    assert "unknown to the model, which knows 82" in " ".join(out.split())
    assert "SmolLM2-135M-Instruct" in out
    assert out.splitlines()[-1].startswith("not trainable yet: words")


def test_a_reward_that_never_pays_is_the_cause() -> None:
    Path("mine.py").write_text("def never(problem, text, finished):\n    return 0.0\n")
    found = problems_of("reward.name=mine.py:never")
    assert set(found) == {"reward", "mixed groups"}
    assert "gives 0 to" in found["reward"]
    assert "8 of 8 problems" in found["reward"]
    assert "0 of 5 groups have better and worse answers" in found["mixed groups"]


def test_a_reward_that_always_pays_says_the_problems_are_solved() -> None:
    Path("mine.py").write_text("def always(problem, text, finished):\n    return 1.0\n")
    found = problems_of("reward.name=mine.py:always")
    assert "to an empty answer" in found["reward"]
    assert "take harder problems" in found["mixed groups"]


def test_answers_that_are_cut_off_are_the_cause() -> None:
    assert "are worth 0: raise sampling.max_new_tokens" in problems_of("sampling.max_new_tokens=4")["cut off"]


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text("")
    for words in (
        ["check", "nowhere.toml"],
        ["check", "a.toml", "--config", "a.toml"],
        ["check", *sets("model=no/where/at")],
    ):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_training_warns_of_words_that_the_model_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(9)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = sets(*SMALL, "steps=0", "data.name=mine", "data.path=mine.jsonl", "prompt.template=plain", "reward.name=math")
    assert main(["train", *own]) == 0
    assert "unknown to the model, which knows 82" in capsys.readouterr().err
    few = sets("threads=1", "eval.max_new_tokens=2", "reward.name=math", "prompt.template=plain")
    assert main(["eval", "tiny", "--on", "mine=mine.jsonl", *few]) == 0
    assert "warning: mine (plain): " in capsys.readouterr().out
    assert main(["train", *sets(*SMALL, "steps=0")]) == 0
    assert "unknown to the model" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "mark", "words"), [(1, "warning", "make it faster"), (2, "ok", "learns from"), (5, "ok", "5 of 5")]
)
def test_few_mixed_groups_are_a_warning(count: int, mark: str, words: str) -> None:
    groups = random_groups(0, count=5, flat=5 - count)
    (found,) = check.mixed(check.Tried(settle().config, cast(Policy, None), cast(Problems, None), groups))
    assert found.mark == mark
    assert f"{count} of 5 groups" in found.text
    assert words in found.text

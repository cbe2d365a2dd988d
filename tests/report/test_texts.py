"""Texts in lines, and the pair at a run's end: found by rule, cut, and never a run's undoing."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from r1v0.config import Config
from r1v0.report import texts
from r1v0.report.live import Live
from r1v0.report.progress import Plain
from r1v0.report.status import Status, closing_lines
from r1v0.report.texts import Entry, closing_texts, lines_of, plain, telling_pair, verdict
from r1v0.runs import runlog
from r1v0.runs.written import Answer
from tests.run_folders import answer, evals, metrics_row, write_run


def test_an_entry_in_lines() -> None:
    text = answer(completion="a\n\nb ", extracted="", reward=0.25, tokens=1)
    lines = lines_of(Entry("t\x1b", "one\ntwo", "g", [("step 1", text)], [0.25, None]))
    assert plain(lines) == (
        "t\\x1b\nquestion  one\n          two\ngold      g\nrewards   0.25  not finite\n\n"
        "step 1: wrong, read as nothing, reward 0.25, 1 token\n    a\n\n    b"
    )
    assert [line.style for line in lines if line.style] == ["bold", "red"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"correct": True, "reward": 1.0, "extracted": "17"}, "right, read as 17, 9 tokens"),
        ({"reward": 1.0}, "wrong, no answer found, reward 1, 9 tokens"),
        ({"cut_off": True, "completion": "wait, no"}, "wrong, no answer found, 9 tokens, cut off, reflects"),
        ({"failure": "timeout", "why": "too\nlong"}, "not graded (timeout: too\\nlong), no answer found, 9 tokens"),
        ({"failure": "crash", "extracted": "\x1b"}, "not graded (crash), read as \\x1b, 9 tokens"),
    ],
)
def test_a_verdict_says_what_matters(changes: dict[str, Any], words: str) -> None:
    assert verdict(answer(**changes)) == words


def test_a_reward_is_told_always_where_it_is_asked_for() -> None:
    assert verdict(answer(), always=True) == "wrong, no answer found, reward 0, 9 tokens"


def run_with(folder: Path, before: Sequence[Answer], after: Sequence[Answer]) -> Path:
    run = write_run(folder / "demo", [metrics_row(step) for step in range(1, 11)], evals())
    for step, answers in ((0, before), (5, before), (10, after)):
        runlog.RunLog(run).write_answers(step, map(asdict, answers))
    return run


def wrong(problem: str, dataset: str = "countdown", **changes: Any) -> Answer:
    row: dict[str, Any] = {"problem": problem, "dataset": dataset, "completion": "no idea"}
    return answer(**(row | changes))


def right(problem: str, tokens: int, **changes: Any) -> Answer:
    row: dict[str, Any] = {"correct": True, "tokens": tokens, "completion": "17"}
    return wrong(problem, **(row | changes))


def status_of(run: Path) -> Status:
    status = Status()
    status.start(Config(), 10, run)
    return status


def test_the_pair_is_the_shortest_newly_right_one_that_reflects(tmp_path: Path) -> None:
    before = [wrong(f"p{i}") for i in range(6)] + [right("p6", 1), wrong("p7", cut_off=True)]
    after = [
        right("p0", 3),
        right("p1", 9, completion="wait, 17"),
        right("p2", 8, completion="hold on, 17"),
        right("p3", 2, completion="wait, 17", cut_off=True),
        wrong("p4", completion="wait, 3", tokens=1),
        right("p5", 8, completion="hmm 17"),
        right("p6", 1, completion="wait, 17"),  # right before, too
        right("p8", 1, completion="wait, 17"),  # nothing before
    ]
    pair = telling_pair(run_with(tmp_path, before, after), ["countdown", "other"])
    assert pair is not None
    assert pair.before == before[2]
    assert pair.after == after[2]


def test_without_a_reflecting_one_it_is_the_shortest_and_the_first_dataset_goes_first(tmp_path: Path) -> None:
    before = [wrong("p0"), wrong("p1"), wrong("p0", "hard")]
    after = [right("p0", 3), right("p1", 2), right("p0", 1, dataset="hard", completion="wait, 17")]
    run = run_with(tmp_path, before, after)
    for datasets, place in ((["countdown", "hard"], 1), (["hard"], 2), (["none", "countdown"], 1)):
        pair = telling_pair(run, datasets)
        assert pair is not None
        assert pair.after == after[place]
    assert telling_pair(run, []) is None


def test_a_run_ends_with_the_pair_in_both_displays(tmp_path: Path) -> None:
    question = "Q " * 400 + "end"
    before = [wrong("p0", question=question, completion="\x1b[2J\n  1")]
    run = run_with(tmp_path, before, [right("p0", 3, question=question, completion="÷ 17")])
    stream = io.StringIO()
    display = Plain(stream)
    display.start(Config(), 10, run)
    display.finish({"checkpoint": "here"})
    lines = stream.getvalue().splitlines()
    assert lines[-9:-7] == ["checkpoint      here", f"answers         r1v0 read {run}"]
    assert lines[-7] == "question        " + "Q " * 41 + "Q"  # 240 and 160 characters of 803, 84 columns wide
    assert lines[-3].endswith("Q Q end")
    assert lines[-2:] == ["before          \\x1b[2J 1 (wrong)", "after           \\xf7 17 (right)"]
    assert all(len(line) <= 100 for line in lines[-7:])
    terminal = Terminal()
    live = Live(terminal)
    live.start(Config(), 10, run)
    live.finish({"checkpoint": "here"})
    assert "after           ÷ 17 (right)" in terminal.getvalue()


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_run_without_a_pair_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(tmp_path, [wrong("p0")], [wrong("p0")])
    assert closing_texts(status_of(run)) == {}
    assert closing_texts(Status()) == {}
    assert "answers" not in "\n".join(closing_lines(status_of(run), {"checkpoint": "c"}, "->", {}, 100))
    other = run_with(tmp_path / "other", [wrong("p0")], [right("p0", 1)])
    assert closing_texts(status_of(other)) == {"question": "3 7 4 target 17", "before": "no idea (wrong)",
                                               "after": "17 (right)"}  # fmt: skip
    monkeypatch.setattr(texts, "MOST_BYTES", 10)  # a file too large to be read for one pair
    assert closing_texts(status_of(other)) == {}


def test_damaged_answers_do_not_undo_a_run(tmp_path: Path) -> None:
    run = run_with(tmp_path, [wrong("p0")], [right("p0", 1)])
    (run / "answers" / "step-00010.jsonl.gz").write_bytes(b"torn")
    stream = io.StringIO()
    display = Plain(stream)
    display.start(Config(), 10, run)
    display.finish({"checkpoint": "here"})
    assert stream.getvalue().splitlines()[-1] == "checkpoint      here"

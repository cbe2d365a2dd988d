"""`r1v0 read`: the same lines in a pipe and on a terminal; keys; and a terminal that is always given back."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.jobs.read import Asked, another, check, opened, read
from r1v0.jobs.read.keys import Keyboard, interactive, split
from r1v0.jobs.read.screen import Reader, frame
from r1v0.jobs.read.shelf import of_evaluation, of_run, of_training
from r1v0.runs import runlog
from r1v0.runs.written import Answer, TrainingRollout
from tests.run_folders import answer, write_run

REPLIES = {0: ("no", "no", "6"), 10: ("wait, 17", "no", "wait, 5"), 20: ("17", "no, no", "6")}
"""of three problems, by step: the second is never right, the third right but at step 10"""


def reply(step: int, problem: int, **changes: Any) -> Answer:
    text = REPLIES[step][problem]
    right = text.endswith(("17", "6"))
    return answer(
        problem=f"p{problem}", question=f"Q{problem}?\nwhy", gold="17" if problem < 2 else "6", completion=text,
        extracted=text.split()[-1] if right else None, correct=right, reward=float(right), tokens=10 * problem + 5,
        cut_off=problem == 1, dataset="hard" if problem == 2 else "countdown", **changes,
    )  # fmt: skip


def rollout(group: int, sample: int, text: str, reward: float | None) -> TrainingRollout:
    return TrainingRollout(
        dataset="train", problem=f"t{group}", sample=sample, question=f"T{group}", gold="1", completion=text,
        extracted=text, correct=reward == 1.0, strict=False, reward=reward if reward is not None else float("nan"),
        tokens=len(text), cut_off=False, group=group, prompt="Q",
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "demo", [], [])
    log = runlog.RunLog(folder)
    for step in REPLIES:
        log.write_answers(step, [asdict(reply(step, problem)) for problem in range(3)])
    log.write_rollouts(
        19, [asdict(rollout(g, s, f"{g}{s}", r)) for g, s, r in [(0, 0, 0.0), (0, 1, 1.0), (1, 0, 0.5), (1, 1, None)]]
    )
    return folder


def evaluation(folder: Path, *answers: Answer) -> Path:
    folder.mkdir()
    (folder / "eval.json").write_text("{}")
    (folder / "answers.jsonl").write_bytes(b"".join(runlog.json_line(asdict(found)) for found in answers))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["read", *map(str, arguments)]) == 0
    return capsys.readouterr().out


# Plain lines


def test_a_pipe_gets_the_last_evaluation_beside_the_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, run, "--filter", "newly right") == (
        f"{run}: step 20 beside step 0, 3 answers\n"
        "newly right 1, newly wrong 0, right 2, wrong 1, cut off 1, reflects 0, not graded 0\n"
        "1 of them: newly right\n"
        "\n"
        "[1/1] countdown  p0\n"
        "question  Q0?\n"
        "          why\n"
        "gold      17\n"
        "\n"
        "step 0: wrong, no answer found, 5 tokens\n"
        "    no\n"
        "\n"
        "step 20: right, read as 17, 5 tokens\n"
        "    17\n"
    )


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ([], ["p0", "p1", "p2"]),
        (["--longest"], ["p2", "p1", "p0"]),
        (["--longest", "--limit", "1"], ["p2"]),
        (["--on", "hard, countdown"], ["p0", "p1", "p2"]),
        (["--on", "hard"], ["p2"]),
        (["--search", "q1"], ["p1"]),
        (["--search", "nothing like it"], []),
        (["--filter", "cut-off", "--filter", "wrong"], ["p1"]),
        (["--step", "10", "--filter", "newly wrong"], ["p2"]),
        (["--step", "10", "--filter", "reflects"], ["p0", "p2"]),
        (["--against", "10", "--filter", "newly right"], ["p2"]),
    ],
)
def test_what_is_shown_and_in_which_order(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], problems: Sequence[str]
) -> None:
    out = printed(capsys, run, *arguments)
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("[")] == problems


def test_step_by_step(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, run, "--steps", "--on", "hard").splitlines()
    assert [line for line in lines if line.startswith("step")] == [
        "step 0: right, read as 6, 25 tokens",
        "step 10: wrong, no answer found, 25 tokens, reflects",
        "step 20: right, read as 6, 25 tokens",
    ]
    assert lines[-2:] == ["step 20: right, read as 6, 25 tokens", "    6"]
    assert "    wait, 5" in lines


def test_training_rollouts_stand_in_their_groups(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, run, "--training", "--filter", "wrong").splitlines()
    assert lines[0] == f"{run}: training step 19, 4 training rollouts"
    assert lines[1] == "right 1, wrong 3, cut off 0, reflects 0, not graded 0"
    assert lines[2] == "3 of them: wrong"
    assert lines[4:9] == [
        "[1/2] train  t0  group 0, 1 of 2 right",
        "question  T0",
        "gold      1",
        "rewards   0  1",
        "",
    ]
    assert lines[9] == "sample 0: wrong, read as 00, reward 0, 2 tokens"
    assert "rewards   0.50  not finite" in lines
    assert [line.strip() for line in lines if line.startswith("    ")] == ["00", "10", "11"]


def test_two_evaluations_are_compared_by_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = evaluation(
        tmp_path / "base",
        answer(template="a", completion="a before"),
        answer(template="b", completion="b before", correct=True),
    )
    later = evaluation(
        tmp_path / "later", answer(template="b", completion="b after"), answer(template="c", completion="c after")
    )
    found = of_evaluation(later, str(base)).texts
    assert [(pair.before and pair.before.completion, pair.after.completion) for pair in found] == [
        ("b before", "b after"),
        (None, "c after"),  # two templates before, neither of them this one
    ]
    out = printed(capsys, later, "--against", base)
    assert f"\n{base}: right," in out
    assert "  template c\n" in out
    assert "newly" not in printed(capsys, later)


def test_a_run_is_compared_with_another_run_or_an_evaluation(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [], [])
    runlog.RunLog(other).write_answers(5, [asdict(answer(problem="p0", completion="other"))])
    base = evaluation(tmp_path / "base", answer(problem="p0", completion="base", dataset="countdown"))
    for against, title, text in ((other, f"{other} step 5", "other"), (base, str(base), "base")):
        shelf = of_run(run, against=str(against))
        assert shelf.before == title
        assert shelf.texts[0].before is not None
        assert shelf.texts[0].before.completion == text
        assert [pair.before for pair in shelf.texts[1:]] == [None, None]


def test_hostile_text_stays_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b]0;title\x07\r\nstep 20: right\n\u202eb\ttab\ud800"
    hostile = answer(
        completion=text, extracted="\x1b[2J", question="q\x9b2J", dataset="d\x1b", why="\x1b", failure="\n"
    )
    runlog.RunLog(run).write_answers(30, [asdict(hostile)])
    out = printed(capsys, run)
    assert set(out) - {"\n", "\t"} == {char for char in out if char.isprintable()}
    assert "\n    a\\x1b]0;title\\x07\\r\n    step 20: right\n    \\u202eb\ttab\\ud800\n" in out
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    runlog.RunLog(run).write_answers(30, [asdict(answer(completion="÷"))])
    read(Asked(folder=run), narrow)
    narrow.seek(0)
    assert "    \\xf7\n" in narrow.read()


# Mistakes


def fails(capsys: pytest.CaptureFixture[str], arguments: Sequence[object], *words: str) -> None:
    assert main(["read", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--filter", "newly good"], ["'newly good'", "newly right, newly wrong, right, wrong, cut off, reflects"]),
        (["--step", "15"], ["no answers of step 15", "0, 10, 20"]),
        (["--against", "7"], ["no answers of step 7"]),
        (["--against", "nowhere"], ["nowhere is neither"]),
        (["--against", " "], ["--against is empty"]),
        (["--on", "math500"], ["'math500'", "countdown, hard"]),
        (["--training", "--step", "20"], ["no rollouts of step 20", "19"]),
        (["--training", "--against", "0"], ["--training and --against"]),
        (["--training", "--steps"], ["--training and --steps"]),
        (["--training", "--filter", "newly right"], ["'newly right' compares", "training step 19"]),
        (["--step", "0", "--filter", "newly right"], ["'newly right' compares", "--against"]),
        (["--limit", "0"], ["--limit is 0"]),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], words: Sequence[str]
) -> None:
    fails(capsys, [run, *arguments], *words)


def test_folders_that_cannot_be_read(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, [tmp_path / "nowhere"], "does not exist")
    fails(capsys, [tmp_path], "is neither")
    bare = write_run(tmp_path / "bare", [], [])
    fails(capsys, [bare], "holds no answers yet", "--training")
    fails(capsys, [bare, "--training"], "holds no rollouts yet")
    fails(capsys, [evaluation(tmp_path / "none")], "holds no answers yet")
    one = evaluation(tmp_path / "one", answer())
    for flag in (["--step", "1"], ["--steps"], ["--training"]):
        fails(capsys, [one, *flag], "is one evaluation", flag[0])
    (run / "answers" / "step-00020.jsonl.gz").write_bytes(b"torn")
    fails(capsys, [run], "step-00020.jsonl.gz is damaged")
    assert "step 10 beside step 0" in printed(capsys, run, "--step", "10")


# On a terminal


def reader(run: Path, **asked: Any) -> Reader:
    wanted = Asked(folder=run, **asked)
    check(wanted)
    return Reader(
        shelf=opened(wanted), another=lambda training, step: another(wanted, training, step), steps=wanted.steps,
        filters=wanted.filters, search=wanted.search, longest=wanted.longest,
    )  # fmt: skip


def shown(reader: Reader, width: int = 80, height: int = 24) -> list[str]:
    rows = [row.plain for row in frame(reader, Console(width=width, color_system=None), width, height)]
    assert len(rows) == height
    return rows


def press(reader: Reader, keys: str) -> list[str]:
    for key in split(keys):
        assert reader.press(key), key
    return shown(reader)


def test_the_screen_has_a_place_the_texts_counts_and_keys(run: Path) -> None:
    rows = shown(reader(run))
    assert rows[0] == " 1/3  step 20 beside step 0 "
    assert rows[1:5] == ["countdown  p0", "question  Q0?", "          why", "gold      17"]
    assert rows[6:11] == [
        "step 0: wrong, no answer found, 5 tokens",
        "    no",
        "",
        "step 20: right, read as 17, 5 tokens",
        "    17",
    ]
    assert rows[20].startswith("all 3  newly right 1  newly wrong 0  right 2  wrong 1  cut off 1")
    assert rows[22].startswith("n next  p previous  f filter  / search")
    assert rows[23].endswith("q quit")


def test_keys_move_filter_search_and_sort(run: Path) -> None:
    page = reader(run)
    assert press(page, "n")[1] == "countdown  p1"
    assert press(page, "\x1b[C\x1b[C\x1b[C")[:2] == [" 3/3  step 20 beside step 0 ", "hard  p2"]  # the last stays
    assert press(page, "f")[:2] == [" 1/1  step 20 beside step 0 ", "countdown  p0"]  # newly right
    assert press(page, "f")[:2] == [" 1/2  step 20 beside step 0 ", "countdown  p0"]  # right: nothing is newly wrong
    assert page.filters == ["right"]
    assert press(page, "nF")[1] == "countdown  p0"
    assert press(page, "F")[0].startswith(" 1/3")
    assert press(page, "l")[0].startswith(" 3/3")  # the same problem, now the last
    assert press(page, "g")[1] == "hard  p2"
    assert press(page, "lp/Q1x")[-3] == "search: Q1x_  enter: go  escape: leave it"
    assert press(page, "\x7f\r")[:2] == [" 1/1  step 20 beside step 0 ", "countdown  p1"]
    assert press(page, "/Q2\x1b")[0].startswith(" 1/1")  # left as it was
    assert press(page, "/q zz\r")[1].startswith("nothing passes here")
    assert press(page, "np/\r")[0].startswith(" 1/3")
    assert not page.press("q")


def test_keys_go_through_steps_and_training(run: Path) -> None:
    page = reader(run, filters=["right"])
    assert "step 10: right, read as 17, 5 tokens, reflects" in press(page, "s")
    assert "step 10: right, read as 17, 5 tokens, reflects" not in press(page, "s")
    assert press(page, "[")[:2] == [" 1/1  step 10 beside step 0 ", "countdown  p0"]
    assert press(page, "[")[:2] == [" 1/1  step 0 ", "hard  p2"]
    assert press(page, "[")[-3] == "there is no earlier step"
    assert press(page, "]]t")[:2] == [" 1/1  training step 19 ", "train  t0  group 0, 1 of 2 right"]
    assert press(page, "s")[-3] == "only a run's answers have steps to go through"
    assert press(page, "]")[-3] == "there is no later step"
    assert press(page, "t")[0] == " 1/2  step 20 beside step 0 "


def test_another_step_keeps_what_was_asked_for(run: Path) -> None:
    page = reader(run, on=["hard"], against="10")
    assert press(page, "[")[:2] == [" 1/1  step 10 beside step 10 ", "hard  p2"]
    assert press(page, "t")[0] == " 1/2  training step 19 "  # which has other datasets
    assert press(page, "t")[:2] == [" 1/1  step 20 beside step 10 ", "hard  p2"]


def test_an_evaluation_has_no_steps(tmp_path: Path) -> None:
    page = reader(evaluation(tmp_path / "one", answer()))
    assert press(page, "s")[-3] == "only a run's answers have steps to go through"
    assert press(page, "t")[-3] == "an evaluation has no training rollouts"
    assert press(page, "]")[-3] == "there is no later step"


def test_a_damaged_file_is_told_and_nothing_is_lost(run: Path) -> None:
    page = reader(run)
    (run / "answers" / "step-00010.jsonl.gz").write_bytes(b"torn")
    for keys in ("s", "["):
        rows = press(page, keys)
        assert rows[0] == " 1/3  step 20 beside step 0 "
        assert "step-00010.jsonl.gz is" in " ".join(map(str.strip, rows[-5:]))


def test_long_texts_are_folded_and_scroll(run: Path) -> None:
    text = "\n".join(f"line {i}" for i in range(100)) + " " + "x" * 100
    runlog.RunLog(run).write_answers(40, [asdict(answer(problem="p0", completion=text))])
    page = reader(run)
    assert shown(page)[0] == " 1/1  step 40 beside step 0  rows 1-19 of 110 "
    rows = press(page, " " * 50)
    assert rows[0] == " 1/1  step 40 beside step 0  rows 92-110 of 110 "
    assert [row.strip() for row in rows[17:20]] == ["line 99", "x" * 76, "x" * 24]
    assert press(page, "b")[0] == " 1/1  step 40 beside step 0  rows 73-91 of 110 "
    assert press(page, "k")[0].endswith("rows 72-90 of 110 ")
    for size in ((1, 1), (5, 3), (20, 8), (300, 100)):
        shown(page, *size)


def test_what_is_typed_is_split_into_keys() -> None:
    assert split("nÄ \x1b[A\x1bOB\x1b[6~\r\x7f\x1b") == ["n", "Ä", " ", "up", "down", "page down", "enter", "backspace",
                                                       "escape"]  # fmt: skip
    assert split("\x1b[1;5Zq\x00\x07") == ["q"]  # keys that are not known, bytes that are none


def test_an_escape_waits_for_its_sequence_and_a_closed_terminal_ends_it() -> None:
    source, sink = os.pipe()
    keys = Keyboard(source)
    assert keys.read(0.0) == []
    os.write(sink, b"\x1b")
    assert keys.read(1.0) == ["escape"]
    os.write(sink, "/é\x1b[B".encode())
    assert keys.read(1.0) == ["/", "é", "down"]
    assert not keys.ended
    os.close(sink)
    assert keys.read(1.0) == []
    assert keys.ended
    os.close(source)


def test_only_a_terminal_is_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not interactive(io.StringIO())
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert interactive(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not interactive(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "termios", None)  # as on a system that has none
    assert not interactive(Terminal())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Session:
    """`r1v0 read` on a terminal of its own."""

    def __init__(self, *arguments: object, rows: int = 24) -> None:
        import fcntl
        import struct
        import termios

        self.near, self.far = os.openpty()
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        self.before = termios.tcgetattr(self.far)
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "r1v0", "read", *map(str, arguments)],
            stdin=self.far, stdout=self.far, stderr=self.far, env=environment | {"TERM": "xterm"},
        )  # fmt: skip
        self.seen = ""

    def until(self, text: str) -> None:
        """Read the screen until it has shown `text`."""
        import select

        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.near], [], [], 0.1)[0]:
                self.seen += os.read(self.near, 65536).decode()

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.near, text.encode())

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.near)
        os.close(self.far)

    def ends(self, code: int) -> None:
        """It ends, and the terminal is as it was: modes, screen and cursor."""
        import termios

        self.until("\x1b[?1049l")
        self.until("\x1b[?25h")
        assert self.process.wait(60) == code
        assert termios.tcgetattr(self.far) == self.before


def test_a_session_on_a_terminal(run: Path) -> None:
    import fcntl
    import struct
    import termios

    with Session(run) as session:
        session.until("\x1b[?1049h")
        session.until("1/3")
        session.until("q quit")
        session.type("n")
        session.until("2/3")
        session.type("\x1a\x1b[C")  # Ctrl-Z does nothing
        session.until("3/3")
        session.seen = ""
        fcntl.ioctl(session.far, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
        session.until("rows 1-6")
        session.type("q")
        session.ends(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_terminal_back(run: Path, number: signal.Signals) -> None:
    with Session(run) as session:
        session.until("1/3")
        session.process.send_signal(number)
        session.ends(130)


def test_a_failure_gives_the_terminal_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised while the screen is drawn."""
    import termios

    from r1v0.jobs.read import screen

    def broken(*_: object) -> None:
        raise RuntimeError("drawn wrongly")

    near, far = os.openpty()
    before = termios.tcgetattr(far)
    monkeypatch.setattr(screen, "frame", broken)
    with open(far, closefd=False) as typed, open(far, "w", closefd=False) as out:
        monkeypatch.setattr(sys, "stdin", typed)
        with pytest.raises(RuntimeError, match="drawn wrongly"):
            screen.browse(reader(run), out)
    assert termios.tcgetattr(far) == before
    seen = b""
    while not seen.endswith(b"\x1b[?1049l\x1b[?25h"):  # the test's time limit ends it otherwise
        seen += os.read(near, 65536)
    os.close(near)
    os.close(far)


def test_a_shelf_of_training_has_nothing_before(run: Path) -> None:
    shelf = of_training(run)
    assert shelf.filters == ["right", "wrong", "cut off", "reflects", "not graded"]
    assert [[pair.after.completion for pair in group] for group in shelf.entries([], "", longest=False)] == [
        ["00", "01"],
        ["10", "11"],
    ]
    with pytest.raises(UserError, match="no rollouts of step 3: expected one of 19"):
        of_training(run, 3)

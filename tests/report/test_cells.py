"""A sweep on the terminal: what is told of its runs."""

import io
from pathlib import Path

import pytest

from r1v0.report import cells
from r1v0.report.cells import Board, Watched
from tests.run_folders import evals_row, metrics_row, write_run


def watched(folder: Path, name: str, steps: int, **changes: object) -> Watched:
    run = Watched(name, folder / name, steps, eval_every=5)
    for key, value in changes.items():
        setattr(run, key, value)
    run.read()
    return run


@pytest.fixture
def half(tmp_path: Path) -> Watched:
    """10 of 30 steps, each 1.75 s; the last evaluation of both datasets took 2 x 2 s, so .8 s a step."""
    rows = [evals_row(5, name) for name in ("countdown", "countdown-hard")]
    write_run(tmp_path / "half", [metrics_row(step) for step in range(1, 11)], rows)
    return watched(tmp_path, "half", 30, state="running")


def test_a_row_tells_step_accuracy_length_and_time_left(half: Watched) -> None:
    """20 steps of 2.55 s are 51 s; accuracy is .2 + 5/40."""
    assert half.cells() == ["half", "running", "10/30", "32 % [28, 38]", "35", "0:51"]


def test_a_run_that_has_not_begun_has_dashes(tmp_path: Path) -> None:
    assert watched(tmp_path, "new", 30).cells() == ["new", "waiting", "0/30", "-", "-", "-"]


def test_the_whole_takes_as_long_as_its_jobs_let_it(half: Watched, tmp_path: Path) -> None:
    """51 s are left of one run and 30 x 2.55 s of each of two others: 204 s one at a time, and two at a time 102; with
    three the longest counts."""
    others = [watched(tmp_path, name, 30) for name in ("a", "b")]
    for jobs, seconds in ((1, 204), (2, 102), (3, 76.5)):
        assert Board([half, *others], jobs, io.StringIO()).seconds_left() == pytest.approx(seconds)
    assert Board([half, *others], 2, io.StringIO()).summary() == "0 of 3 done, 1 running, about 1:42 left"
    assert Board(others, 2, io.StringIO()).seconds_left() is None


def test_plain_lines_tell_each_end_once(half: Watched, tmp_path: Path) -> None:
    stream = io.StringIO()
    other = watched(tmp_path, "bad", 30, state="failed", line="no such model")
    with Board([half, other], 2, stream) as board:
        for _ in range(3):
            board.show()
        half.state = "done"
        for _ in range(3):
            board.show()
    assert stream.getvalue().splitlines() == [
        "bad  failed: no such model",
        "half  done: step 10/30  accuracy 32 % [28, 38]  length 35",
    ]


def test_now_and_then_a_line_tells_of_the_whole(half: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(cells, "QUIET_SECONDS", 0.0)
    with Board([half], 1, stream) as board:
        board.show()
    assert stream.getvalue() == "0 of 1 done, 1 running, about 0:51 left; half 10/30\n"


def test_watching_never_ends_a_sweep(half: Watched) -> None:
    stream = io.StringIO()
    half.state = "done"
    with Board([half], 1, stream) as board:
        stream.close()
        board.show()
        board.show()
    assert board.stream is None


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_table(half: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    many = [watched(tmp_path, f"cell-{i}", 30) for i in range(200)]
    with Board([*many, half], 1, stream) as board:
        board.show()
    shown = stream.getvalue()
    assert shown.index("run ") < shown.index("half") < shown.index("cell-0")  # where all have no room, running ones do
    assert "cell-199" not in shown
    assert "0 of 201 done, 1 running" in shown

"""Progress: what is shown is what was logged, and showing it never ends a run."""

import io
import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from r1v0.config import Config
from r1v0.report import open_progress, progress
from r1v0.report.live import Live, render
from r1v0.report.progress import Plain, Watched
from r1v0.report.status import BARS, Status, amount, clock, share, sparkline
from r1v0.runs.progress import Progress
from tests.run_folders import evals, evals_row, metrics_row, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "demo", [metrics_row(step) for step in range(1, 11)], evals())


class Clock:
    """A time that only tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock_hand(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock()
    monkeypatch.setattr(time, "monotonic", hand)
    return hand


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def show(display: Progress, out: Path, hand: Clock, steps: int = 4) -> None:
    """A short run as the trainer tells it."""
    display.start(Config(), 8, out)
    display.evaluation([evals_row(0), evals_row(0, "countdown-hard")])
    for step in range(1, steps + 1):
        for tokens in (100, 200):
            display.phase("sampling", tokens, 0)
        hand.now += 2
        display.step(metrics_row(step))
    display.note("checkpoint [bold]step-00004")
    display.evaluation([evals_row(4), evals_row(4, "countdown-hard")])


def test_plain_lines_say_what_was_logged(tmp_path: Path, clock_hand: Clock) -> None:
    stream = io.StringIO()
    with open_progress(stream, figures=False) as display:
        show(display, tmp_path, clock_hand)
        display.finish({"checkpoint": tmp_path / "step-00004"})
    lines = stream.getvalue().splitlines()
    assert stream.getvalue().isascii()
    assert lines[0] == f"training tiny on countdown-train, 8 steps -> {tmp_path}"
    assert lines[1] == "eval 0/8  countdown  accuracy 20 % [15, 25]  length 30  cut off 0 %"
    assert lines[2].startswith("eval 0/8  countdown-hard  accuracy 20 % [15, 25]")
    steps = [line for line in lines if line.startswith("step ")]
    assert steps[3] == (
        "step 4/8  reward 0.20  length    44  cut off 2.0 %  flat  25 %  entropy 0.80   2286 tok/s  1.75 s  0:08 left"
    )
    assert {len(line) for line in steps} == {len(steps[0])}
    assert "checkpoint [bold]step-00004" in lines
    assert lines[-4:] == [
        "steps           4 of 8, 0:08 in this session",
        "countdown       20 % -> 30 % [25, 35], length 30 -> 34 tokens",
        "countdown-hard  20 % -> 30 % [25, 35], length 30 -> 34 tokens",
        f"checkpoint      {tmp_path / 'step-00004'}",
    ]


def test_time_left_follows_the_last_steps(tmp_path: Path, clock_hand: Clock) -> None:
    status = Status()
    status.start(Config(), 100, tmp_path)
    assert status.seconds_left is None
    clock_hand.now += 50
    status.add_step(metrics_row(1))
    assert status.seconds_left == pytest.approx(1.75 * 99)  # one step: what it says itself
    for step in range(2, 51):
        clock_hand.now += 1 if step <= 30 else 3
        status.add_step(metrics_row(step))
    assert status.seconds_left == pytest.approx(150)
    clock_hand.now += 2
    assert status.seconds_left == pytest.approx(148)


def test_a_resumed_run_shows_its_history(run: Path, clock_hand: Clock) -> None:
    stream = io.StringIO()
    display = Plain(stream)
    display.start(Config(), 20, run)
    assert display.status.curve("reward/mean") == [step / 20 for step in range(1, 11)]
    assert stream.getvalue().endswith("going on after step 10\n")
    display.step(metrics_row(11))
    assert "step 11/20" in stream.getvalue()


def test_plain_lines_of_another_job_are_few(clock_hand: Clock) -> None:
    stream = io.StringIO()
    display = Plain(stream)
    for done in range(1, 101):
        clock_hand.now += 0.3
        display.phase("pretraining", done, 100, loss=2.0, rule="muon")
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 9
    assert lines[-1] == "pretraining 100/100, 0:29 elapsed, 0:00 left, loss 2, rule muon"
    display.phase("evaluating countdown", 5000, 0)
    assert stream.getvalue().splitlines()[-1] == "evaluating countdown 5000 tokens"


def test_plain_lines_of_an_evaluation_get_rarer(clock_hand: Clock) -> None:
    """A second each for 1000 answers of which 200 were there: time left is by the new ones alone."""
    stream = io.StringIO()
    display = Plain(stream)
    display.phase("evaluating math500 (r1): answers", 200, 1000, tokens=0)
    for done in range(201, 1001):
        clock_hand.now += 1
        display.phase("evaluating math500 (r1): answers", done, 1000, **{"accuracy so far": "50 % [45, 55]"}, tokens=1)
        display.phase("evaluating math500 (r1): answers", done, 1000, tokens=1)  # the same count is the same line
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "evaluating math500 (r1): answers 200/1000, 0:00 elapsed, - left, tokens 0",
        "evaluating math500 (r1): answers 205/1000, 0:05 elapsed, 13:15 left, accuracy so far 50 % [45, 55], tokens 1",
    ]
    assert lines[-1].startswith("evaluating math500 (r1): answers 1000/1000, 13:20 elapsed, 0:00 left, accuracy so far")
    elapsed = [int(done) - 200 for done in (line.split("/")[0].split()[-1] for line in lines)]
    assert elapsed[1:6] == [5, 10, 15, 20, 25]
    assert all(later - now >= later / 5 for now, later in pairwise(elapsed[5:-1]))
    assert 15 <= len(lines) <= 30


def test_an_evaluation_before_its_first_answer_shows_that_it_lives(clock_hand: Clock) -> None:
    stream = io.StringIO()
    display = Plain(stream)
    for step in range(60):
        display.phase("evaluating math500 (r1): answers", 0, 500, tokens=256 * step)
        clock_hand.now += 0.1
    assert stream.getvalue() == "evaluating math500 (r1): answers 0/500, 0:05 elapsed, - left, tokens 12.8k\n"


def test_long_evaluations_inside_training_are_told_rarely(tmp_path: Path, clock_hand: Clock) -> None:
    stream = io.StringIO()
    display = Plain(stream)
    display.start(Config(), 8, tmp_path)
    began = stream.getvalue()
    for done in range(100):  # 25 s: the row that follows tells enough
        clock_hand.now += 0.25
        display.phase("evaluating countdown (r1): answers", done + 1, 100, tokens=done)
        display.phase("sampling", 100 * done + 1, 0)
    assert stream.getvalue() == began
    for done in range(100):  # 100 s
        clock_hand.now += 1
        display.phase("evaluating countdown-hard (r1): answers", done + 1, 100, tokens=done)
    lines = stream.getvalue().removeprefix(began).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"evaluating countdown-hard (r1): answers {done}/100" for done in (31, 61, 91)
    ]


def test_the_live_display_shows_all_of_an_evaluation(clock_hand: Clock) -> None:
    """On as many lines as a narrow terminal needs; time left is of this session's answers."""
    display = Live(Terminal())
    fields: dict[str, float | str] = {"accuracy so far": "31 % [25, 38]", "tokens": 20_000}
    display.phase("evaluating countdown (r1): answers", 100, 300, **fields)
    clock_hand.now += 60
    display.phase("evaluating countdown (r1): answers", 200, 300, **fields)
    for width in (50, 80, 120):
        shown = " · ".join(line.plain for line in render(display.status, width)[1:])
        assert shown == (
            "evaluating countdown (r1): answers 200/300 · 1:00 elapsed · 1:00 left · accuracy so far 31 % [25, 38] "
            "· tokens 20.0k"
        )
    display.close()


@pytest.mark.parametrize(
    ("kind", "term", "encoding", "expected"),
    [
        (Terminal, "xterm-256color", "utf-8", Live),
        (Terminal, "dumb", "utf-8", Plain),
        (Terminal, "", "utf-8", Plain),
        (Terminal, "xterm", "ascii", Plain),
        (io.StringIO, "xterm", "utf-8", Plain),
    ],
)
def test_the_display_suits_the_stream(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], term: str, encoding: str, expected: type[Progress]
) -> None:
    monkeypatch.setenv("TERM", term)
    if kind is Terminal:
        monkeypatch.setattr(Terminal, "encoding", encoding)
    display = open_progress(kind())
    assert isinstance(display, Watched)
    assert type(display.display) is expected


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Live, Terminal]]:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    display = Live(stream)
    yield display, stream
    display.close()


def test_the_live_display_shows_the_run(live: tuple[Live, Terminal], tmp_path: Path, clock_hand: Clock) -> None:
    display, stream = live
    show(display, tmp_path, clock_hand)
    display.phase("sampling", 12_345, 0)
    for width in (30, 80, 120, 200):
        console = Console(file=io.StringIO(), width=width)
        assert all(len(console.render_lines(line, pad=False)) == 1 for line in render(display.status, width))
    shown = "\n".join(line.plain for line in render(display.status, 120))
    for part in (
        "step 4/8",
        "0:08 elapsed, 0:08 left",
        "training reward  0.20",
        "44 tokens",
        "after step 4",
        "30 % [25, 35]",
    ):
        assert part in shown
    for part in ("sampling 8000 tok/s", "training 3000 tok/s", "flat groups 25 %", "sampling 12.3k tokens", "▃▅▆█"):
        assert part in shown
    display.finish({"checkpoint": "here [red]"})
    assert display.live is None
    assert "checkpoint [bold]step-00004" in stream.getvalue()  # names are no markup
    assert "checkpoint      here [red]" in stream.getvalue()
    assert "countdown       20 % → 30 % [25, 35]" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("here [red]")


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock_hand: Clock) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    seen = {}
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        stream = Terminal()
        with Live(stream) as display:
            show(display, tmp_path, clock_hand)
        seen[no_color] = stream.getvalue()
    colours = [f"\x1b[{code}m" for code in (33, 34, 36)]
    assert any(colour in seen[""] for colour in colours)
    assert not any(colour in seen["1"] for colour in colours)


def test_the_live_display_of_another_job(live: tuple[Live, Terminal], clock_hand: Clock) -> None:
    display, stream = live
    display.phase("pretraining", 30, 60, loss=1.5)
    clock_hand.now += 30
    assert render(display.status, 40)[0].plain == "━" * 20 + "─" * 20
    display.phase("pretraining", 60, 60, loss=1.25)
    display.phase("evaluating countdown", 100, 0)
    display.evaluation([evals_row(0)])
    display.close()
    assert "pretraining 60/60, 0:30 elapsed, 0:00 left, loss 1.25" in stream.getvalue()
    assert "countdown  accuracy 20 % [15, 25]  length 30" in stream.getvalue()


class Broken(Progress):
    """Fails at everything."""

    def _fail(self, *_: Any, **__: Any) -> NoReturn:
        raise BrokenPipeError("closed")

    start = phase = step = evaluation = note = finish = close = _fail


def test_a_display_that_fails_does_not_end_the_run(
    run: Path, clock_hand: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Sequence[Path]] = []
    monkeypatch.setattr(progress, "plot", drawn.append)
    for name in ("start", "phase", "step", "evaluation", "note", "finish", "close"):
        display = Watched(type("Once", (Plain,), {name: Broken._fail})(io.StringIO()), figures=False)
        with display:
            show(display, run, clock_hand)
            display.finish({})
    with Watched(Broken(), figures=True) as broken:
        show(broken, run, clock_hand)
    assert drawn == [[run], [run]]  # at an evaluation, and at the end


def test_a_closed_stream_does_not_end_the_run(tmp_path: Path, clock_hand: Clock) -> None:
    stream = io.StringIO()
    with open_progress(stream, figures=False) as display:
        stream.close()
        show(display, tmp_path, clock_hand)
        display.finish({})


def test_an_interruption_is_no_failure_of_the_display() -> None:
    class Interrupting(Progress):
        def note(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Watched(Interrupting(), figures=False).note("x")


def test_figures_are_kept_drawn_within_their_share_of_time(
    run: Path, clock_hand: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []

    def slow(runs: Sequence[Path]) -> list[Path]:
        assert runs == [run]
        times.append(clock_hand.now)
        clock_hand.now += 3
        (run / "figures").mkdir(exist_ok=True)
        return []

    monkeypatch.setattr(progress, "plot", slow)
    stream = io.StringIO()
    with open_progress(stream) as display:
        display.start(Config(), 1000, run)
        for _ in range(1000):
            clock_hand.now += 1
            display.evaluation([evals_row(0)])
    gaps = [b - a - 3 for a, b in pairwise(times)]
    assert times[0] == pytest.approx(1000 + 6)
    assert all(150 <= gap <= 152 for gap in gaps[:-1])
    assert times[-1] == clock_hand.now - 3  # once more at the end
    display.finish({"checkpoint": "c"})
    assert stream.getvalue().splitlines()[-2:] == [f"figures         {run / 'figures'}", "checkpoint      c"]


def test_figures_that_cannot_be_drawn_are_given_up_with_a_note(
    run: Path, clock_hand: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(runs: Sequence[Path]) -> NoReturn:
        calls.append(runs)
        raise OSError("disk full")

    monkeypatch.setattr(progress, "plot", fail)
    stream = io.StringIO()
    with open_progress(stream) as display:
        display.start(Config(), 10, run)
        for _ in range(3):
            clock_hand.now += 1000
            display.evaluation([evals_row(0)])
    assert len(calls) == 1
    assert stream.getvalue().count("figures are not drawn any more: disk full") == 1


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, BARS),
        ([7.0], 5, "█"),
        ([0, 0], 5, "▁▁"),
        ([1, 1, 3, 3], 2, "▃█"),
        ([-7, 0], 9, "▁█"),
        ([], 4, ""),
    ],
)
def test_sparklines(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


@given(st.lists(st.floats(-1e9, 1e9), max_size=300), st.integers(1, 60))
def test_a_sparkline_keeps_its_width(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0:00"), (41, "0:41"), (725, "12:05"), (11050, "3:04:10")]
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.534, "0.53"),
        (41.4, "41"),
        (9999, "9999"),
        (24_600, "24.6k"),
        (8.25e6, "8.2M"),
        (1, "1"),
    ],
)
def test_amount(value: float | None, text: str) -> None:
    assert amount(value) == text
    assert share(None) == "-"
    assert math.isclose(float(share(0.5).split()[0]), 50)


def test_the_report_is_written_beside_the_figures_and_its_failure_leaves_them(
    run: Path, clock_hand: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Sequence[Path]] = []
    written: list[Path] = []

    def write(folder: Path) -> None:
        written.append(folder)
        if len(written) == 3:
            raise OSError("disk full")
        (folder / "report.html").write_text("")

    monkeypatch.setattr(progress, "plot", drawn.append)
    stream = io.StringIO()
    with open_progress(stream, page=write) as display:
        display.start(Config(), 10, run)
        for _ in range(4):
            clock_hand.now += 1000
            display.evaluation([evals_row(0)])
    assert written == [run] * 3
    assert drawn == [[run]] * 5
    display.finish({"checkpoint": "c"})
    assert stream.getvalue().count("report.html is not written any more: disk full") == 1


def test_a_run_ends_with_where_its_report_is(run: Path, clock_hand: Clock) -> None:
    stream = io.StringIO()
    with open_progress(stream, figures=False, page=lambda folder: (folder / "report.html").write_text("")) as display:
        display.start(Config(), 10, run)
    display.finish({"checkpoint": "c"})
    assert stream.getvalue().splitlines()[-2:] == [f"report          {run / 'report.html'}", "checkpoint      c"]

"""Progress on the terminal: a live display on a terminal, plain lines anywhere else.

Decides: watching must not change or end a run. Whatever goes wrong while showing (a closed pipe, a terminal of no
width, a disk too full for a figure) turns the display off and the run goes on. The figures are redrawn, and the report
is written again, after an evaluation a few seconds after the start, then when fifty times the cost of it has passed, so
they take about 2 % of a run, and once when it ends. The report is made by a function that is handed in, because it
holds findings of the doctor, who stands above this room.
"""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from r1v0.base.shown import fitting
from r1v0.base.stats import number
from r1v0.report.figures import plot
from r1v0.report.status import (
    Row,
    Status,
    accuracy,
    amount,
    clock,
    closing_lines,
    other_reading,
    phase_text,
    share,
)
from r1v0.report.texts import closing_texts
from r1v0.runs.progress import Progress
from r1v0.runs.runlog import FIGURES, REPORT

if TYPE_CHECKING:
    from r1v0.config import Config

QUIET_SECONDS, QUIET_IN_TRAINING = 5.0, 30.0
"""at least, between plain lines inside a job: one that is not training, and an evaluation in a training run"""
RARER = 5
"""between two plain lines passes at least a fifth of the time since the job began: half an hour makes about 30"""
PATIENCE = 50
"""seconds of run for each second of drawing"""
FIRST = 5.0
"""seconds of run before the first drawing"""
WIDTH = 100
"""columns of a text in plain lines, which know no terminal"""
Page = Callable[[Path], object]
"""writes the report of a run folder"""


def open_progress(stream: TextIO | None = None, figures: bool = True, page: Page | None = None) -> Progress:
    """The progress display for a stream (standard output): live if it is a terminal that can show it, else plain.

    Use it as a context manager. `figures` also keeps those of a training run drawn, until it is closed, and `page`,
    which writes a run's report, is called beside them.
    """
    stream = stream or sys.stdout
    display: Progress
    if is_live(stream):
        from r1v0.report.live import Live

        display = Live(stream)
    else:
        display = Plain(stream)
    return Watched(display, figures, page)


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a display can be drawn in place."""
    utf = "utf" in (stream.encoding or "").lower()
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and utf


def give_memory_back() -> None:
    """Drop what Python holds in cycles, and let the C library return what is free in its heap to the system (glibc)."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.malloc_trim(0)


class Plain(Progress):
    """One line a step and one an evaluation, in ASCII; a model's words in what the stream can write."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.status = Status()
        self.said = 0.0

    def start(self, config: "Config", total_steps: int, out: Path) -> None:
        self.status.start(config, total_steps, out)
        since = f", going on after step {self.status.step}" if self.status.step else ""
        self._say(f"training {config.model} on {config.data.name}, {total_steps} steps -> {out}{since}")

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        training, before, now = self.status.started is not None, self.status.phase, time.monotonic()
        if training and not total:
            return
        new = self.status.set_phase(name, done, total, fields)
        phase = self.status.phase
        assert phase is not None
        if new:
            self.said = now
        ends = done >= total > 0 and (new or before is None or before.done < total)
        quiet = max(QUIET_IN_TRAINING if training else QUIET_SECONDS, (now - phase.started) / RARER)
        if now - self.said >= quiet or (not training and (ends or (new and done))):
            self.said = now
            self._say(phase_text(phase))

    def step(self, metrics: Row) -> None:
        self.status.add_step(metrics)
        status, wide = self.status, len(str(self.status.total))
        speed, seconds = number(metrics.get("tokens/sampled")), number(metrics.get("time/step_s"))
        self._say(
            f"step {status.step:>{wide}}/{status.total}"
            f"  reward {amount(status.value('reward/mean')):>4}"
            f"  length {amount(status.value('length/mean')):>5}"
            f"  cut off {share(status.value('length/truncated_frac')):>5}"
            f"  flat {share(status.value('groups/flat_frac')):>5}"
            f"  entropy {amount(status.value('policy/entropy')):>4}"
            f"  {amount(speed / seconds) if speed is not None and seconds else '-':>5} tok/s"
            f"  {amount(seconds):>4} s"
            f"  {clock(status.seconds_left)} left"
        )

    def evaluation(self, records: Sequence[Row]) -> None:
        self.status.evals += records
        for row in records:
            at = f"eval {row.get('step', 0)}/{self.status.total}" if self.status.started is not None else "eval"
            self._say(
                f"{at}  {row.get('dataset')}  accuracy {accuracy(row)}{other_reading(row)}  length "
                f"{amount(number(row.get('length')))}"
                f"  cut off {share(number(row.get('truncated_frac')))}"
            )

    def note(self, text: str) -> None:
        self._say(text)

    def finish(self, summary: Mapping[str, object]) -> None:
        self.close()
        for line in closing_lines(self.status, summary, "->", closing_texts(self.status), WIDTH):
            self._say(fitting(line, self.stream))

    def close(self) -> None:
        self.status.end()

    def _say(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()


class Watched(Progress):
    """Passes everything on to a display, survives its failures, and keeps figures and report of a run up to date."""

    def __init__(self, display: Progress, figures: bool, page: Page | None = None) -> None:
        self.display = display
        self.kept: dict[str, Page] = {}  # what is made again and again, by its name in the run folder
        if figures:
            self.kept[FIGURES] = lambda run: plot([run])
        if page is not None:
            self.kept[REPORT] = page
        self.out: Path | None = None  # the run that they are of
        self.left: dict[str, object] = {}
        self.cost = FIRST / PATIENCE
        self.drawn = 0.0

    def start(self, config: "Config", total_steps: int, out: Path) -> None:
        self.out, self.drawn = out, time.monotonic()
        self._safely(lambda: self.display.start(config, total_steps, out))

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        self._safely(lambda: self.display.phase(name, done, total, **fields))

    def step(self, metrics: Row) -> None:
        self._safely(lambda: self.display.step(metrics))

    def evaluation(self, records: Sequence[Row]) -> None:
        self._safely(lambda: self.display.evaluation(records))
        if time.monotonic() - self.drawn > PATIENCE * self.cost:
            self._draw()

    def note(self, text: str) -> None:
        self._safely(lambda: self.display.note(text))

    def finish(self, summary: Mapping[str, object]) -> None:
        self.close()
        self._safely(lambda: self.display.finish({**self.left, **summary}))

    def close(self) -> None:
        self._safely(self.display.close)
        self._draw()
        if self.out is not None:
            names = {FIGURES: "figures", REPORT: "report"}
            self.left |= {names[name]: self.out / name for name in self.kept if (self.out / name).exists()}
        self.out = None

    def _draw(self) -> None:
        if self.out is None or not self.kept:
            return
        begin = time.monotonic()
        for name, make in list(self.kept.items()):
            try:
                make(self.out)
            except Exception as error:
                del self.kept[name]
                reason = str(error) or error.__class__.__name__
                gone = "are not drawn" if name == FIGURES else "is not written"
                self._safely(partial(self.display.note, f"{name} {gone} any more: {reason}"))
        give_memory_back()  # figures are cycles of some 40 MB, which Python would drop at some later time
        self.drawn = time.monotonic()
        self.cost = self.drawn - begin

    def _safely(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception:
            broken, self.display = self.display, Progress()
            try:
                broken.close()
            except Exception:
                return

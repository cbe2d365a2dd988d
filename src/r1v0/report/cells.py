"""A sweep on the terminal: one table of its runs, drawn in place on a terminal, plain lines anywhere else.

Decides: what is shown is read from the run folders, so a run that another process trains shows too. Watching never
ends a sweep: whatever goes wrong while showing turns the display off.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from r1v0.base.errors import UserError
from r1v0.base.stats import number, numbers
from r1v0.report.progress import is_live
from r1v0.report.status import (
    accuracy,
    amount,
    clock,
)
from r1v0.report.table import text_table
from r1v0.runs import records, runlog

if TYPE_CHECKING:
    from rich.live import Live

State = Literal["waiting", "in use", "running", "done", "failed"]
HEADS = ("run", "", "step", "accuracy", "length", "left")
QUIET_SECONDS = 60.0
"""at least, between two plain lines of the whole"""
RECENT = 20
"""steps that the time left goes by"""


@dataclass
class Watched:
    """A run of the sweep as it is shown. `line` says what went wrong with it."""

    name: str
    folder: Path
    steps: int
    eval_every: int
    state: State = "waiting"
    line: str = ""
    size: tuple[int, int] = (-1, -1)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Look at the run's logs again, if they have grown."""
        size = _size(self.folder / runlog.METRICS), _size(self.folder / runlog.EVALS)
        if size == self.size or not runlog.is_run(self.folder):
            return
        try:
            self.metrics, self.evals = records.read_metrics(self.folder), records.read_evals(self.folder)
        except UserError:
            return
        self.size = size

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def step_seconds(self) -> float | None:
        """A step, its share of the evaluations included; None before the first."""
        steps = numbers(self.metrics[-RECENT:], "time/step_s")
        evaluations: dict[int, float] = {}
        for row in self.evals:
            evaluations[row["step"]] = evaluations.get(row["step"], 0.0) + (number(row.get("time_s")) or 0.0)
        last = evaluations[max(evaluations)] if evaluations else 0.0
        return sum(steps) / len(steps) + last / self.eval_every if steps else None

    def cells(self) -> list[str]:
        """The row of the table."""
        first = self.evals[0].get("dataset") if self.evals else None
        row: Mapping[str, Any] = next((row for row in reversed(self.evals) if row.get("dataset") == first), {})
        length = number(self.metrics[-1].get("length/mean")) if self.metrics else None
        left = self.step_seconds if self.state == "running" else None
        return [
            self.name, self.state, f"{self.step}/{self.steps}", accuracy(row) if row else "-",
            amount(number(row.get("length")) if row else length),
            clock(left * (self.steps - self.step)) if left is not None else "-",
        ]  # fmt: skip


class Board:
    """Shows the runs of a sweep of which `jobs` go at a time. Use as a context manager."""

    def __init__(self, runs: Sequence[Watched], jobs: int, stream: TextIO | None = None) -> None:
        self.runs, self.jobs = runs, jobs
        self.stream: TextIO | None = stream or sys.stdout
        self.live: Live | None = None
        self.told: dict[str, tuple[State, str]] = {}
        self.said = time.monotonic()

    def __enter__(self) -> "Board":
        if self.stream is not None and is_live(self.stream):
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(file=self.stream, highlight=False), auto_refresh=False)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            try:
                self.live.stop()
            except Exception:
                self.stream = None

    def show(self) -> None:
        """Draw the runs as they are now."""
        if self.stream is None:
            return
        try:
            for run in self.runs:
                if run.state != "waiting" or run.size == (-1, -1):
                    run.read()
            if self.live is not None:
                self._draw(self.live)
            else:
                self._tell(self.stream)
        except Exception:
            self.stream = None

    def _draw(self, live: "Live") -> None:
        from rich.text import Text

        room = max(4, live.console.height - 4)
        shown = sorted(self.runs, key=lambda run: run.state != "running") if len(self.runs) > room else self.runs
        text = text_table(HEADS, [run.cells() for run in shown[:room]])
        failures = [f"{run.name}: {run.line}" for run in self.runs if run.line]
        live.update(Text("\n".join([text, "", self.summary(), *failures[-3:]]), overflow="ellipsis", no_wrap=True),
                    refresh=True)  # fmt: skip

    def _tell(self, stream: TextIO) -> None:
        """A line for each run that has ended or waits for another process, and now and then one of the whole."""
        for run in self.runs:
            if run.state not in ("waiting", "running") and self.told.get(run.name) != (run.state, run.line):
                self.told[run.name] = run.state, run.line
                _, state, step, right, length, _ = run.cells()
                what = run.line or f"step {step}  accuracy {right}  length {length}"
                print(f"{run.name}  {state}: {what}", file=stream, flush=True)
        if time.monotonic() - self.said >= QUIET_SECONDS:
            self.said = time.monotonic()
            going = [f"{run.name} {run.step}/{run.steps}" for run in self.runs if run.state == "running"]
            print("; ".join([self.summary(), *going]), file=stream, flush=True)

    def summary(self) -> str:
        """2 of 6 done, 1 failed, 2 running, about 12:05 left"""
        counts = {state: sum(run.state == state for run in self.runs) for state in ("done", "failed", "running")}
        parts = [f"{counts['done']} of {len(self.runs)} done"]
        parts += [f"{counts[state]} {state}" for state in ("failed", "running") if counts[state]]
        left = self.seconds_left()
        return ", ".join([*parts, *([f"about {clock(left)} left"] if left is not None and left >= 1 else [])])

    def seconds_left(self) -> float | None:
        """Until the last run ends; a run that has not begun is as fast as the others. None while nothing is known."""
        known = [seconds for run in self.runs if (seconds := run.step_seconds) is not None]
        if not known:
            return None
        usual = sum(known) / len(known)
        going = [run for run in self.runs if run.state not in ("done", "failed")]
        each = [(usual if run.step_seconds is None else run.step_seconds) * (run.steps - run.step) for run in going]
        return max([sum(each) / self.jobs, *each]) if each else 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

"""What the terminal shows of a run: its state so far, and the state in words.

Decides: time left comes from the last twenty steps, evaluations between them included, because steps grow as
responses do. A resumed run's curves begin where the run began: they are read back from its folder.
"""

import textwrap
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1v0.base.command import typed
from r1v0.base.stats import number, numbers
from r1v0.runs import records, runlog

if TYPE_CHECKING:
    from r1v0.config import Config

Row = Mapping[str, Any]

BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class Phase:
    """A piece of work under way; `total` 0 means that `done` counts tokens. `first` were done before it `started`."""

    name: str
    done: int
    total: int
    fields: dict[str, float | str]
    started: float
    first: int


@dataclass(slots=True)
class Status:
    """A run so far. Nothing is `started` while a job other than training reports."""

    started: float | None = None
    ended: float | None = None
    config: "Config | None" = None
    out: Path | None = None
    total: int = 0
    rows: list[Row] = field(default_factory=list)
    evals: list[Row] = field(default_factory=list)
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=21))
    phase: Phase | None = None

    def start(self, config: "Config", total: int, out: Path) -> None:
        """Training begins or goes on in `out`."""
        self.started, self.config, self.total, self.out = time.monotonic(), config, total, out
        self.rows = list(records.read_metrics(out)) if runlog.is_run(out) else []
        self.evals = list(records.read_evals(out)) if runlog.is_run(out) else []

    def set_phase(self, name: str, done: int, total: int, fields: dict[str, float | str]) -> bool:
        """Note how far a phase is; whether it is a new one."""
        new = self.phase is None or self.phase.name != name or done < self.phase.done
        begun = (time.monotonic(), done) if new or self.phase is None else (self.phase.started, self.phase.first)
        self.phase = Phase(name, done, total, fields, *begun)
        return new

    def add_step(self, row: Row) -> None:
        """A step is done."""
        self.rows.append(row)
        self.ends.append(time.monotonic())

    def end(self) -> None:
        """Training is over, or broken off; the clock stops."""
        if self.started is not None and self.ended is None:
            self.ended, self.phase = time.monotonic(), None

    @property
    def elapsed(self) -> float:
        """Seconds of this session's training."""
        end = time.monotonic() if self.ended is None else self.ended
        return end - (end if self.started is None else self.started)

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds_left(self) -> float | None:
        """Until the last step; None before the first."""
        remaining = self.total - self.step
        if len(self.ends) > 1:
            each = (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)
        elif self.ends:
            each = self.value("time/step_s") or 0.0
        else:
            return None
        return max(0.0, each * remaining - (time.monotonic() - self.ends[-1]))

    def value(self, key: str) -> float | None:
        """A metric of the last step."""
        return number(self.rows[-1].get(key)) if self.rows else None

    def curve(self, key: str) -> list[float]:
        """A metric over the steps."""
        return numbers(self.rows, key)

    def datasets(self) -> list[str]:
        """Evaluated datasets in the order of eval.on."""
        return list(dict.fromkeys(str(row.get("dataset")) for row in self.evals))

    def evaluations(self, dataset: str) -> list[Row]:
        """The rows of a dataset, oldest first."""
        return [row for row in self.evals if row.get("dataset") == dataset]


def share(value: float | None) -> str:
    """74 %, 3.1 %; a dash for nothing."""
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if value >= 0.0995 or value == 0 else f"{100 * value:.1f} %"


def amount(value: float | None) -> str:
    """0.53, 41, 24.6k, 8.2M; a dash for nothing."""
    if value is None:
        return "-"
    for size, mark in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if mark == 'k' else size):.1f}{mark}"
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2f}"


def clock(seconds: float | None) -> str:
    """0:41, 12:05, 3:04:10; a dash for nothing."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def accuracy(row: Row) -> str:
    """55 % [49, 61]: an evaluation's accuracy with its 95 % interval."""
    low, high = number(row.get("ci_low")), number(row.get("ci_high"))
    interval = f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None and high is not None else ""
    return share(number(row.get("accuracy"))) + interval


def other_reading(row: Row) -> str:
    """ "  boxed 20 %" or "  last 31 %": the accuracy under the other of reward.extraction's choices, where it is
    another."""
    return "".join(
        f"  {name} {share(value)}"
        for name in ("boxed", "last")
        if (value := number(row.get(f"accuracy_{name}"))) is not None and value != row.get("accuracy")
    )


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of at most `width` characters, from 0 (or the lowest value, if that is less) to its highest value."""
    if len(values) > width:
        cuts = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    span = high - low or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in values)


def rates(status: Status) -> list[str]:
    """The last step's speed and state of health, in short pieces."""
    pieces = []
    for verb, tokens, seconds in (
        ("sampling", "tokens/sampled", "time/sample_s"),
        ("training", "tokens/trained", "time/train_s"),
    ):
        count, spent = status.value(tokens), status.value(seconds)
        if count is not None and spent:
            pieces.append(f"{verb} {amount(count / spent)} tok/s")
    pieces.append(f"flat groups {share(status.value('groups/flat_frac'))}")
    pieces.append(f"cut off {share(status.value('length/truncated_frac'))}")
    pieces.append(f"entropy {amount(status.value('policy/entropy'))}")
    return pieces


def phase_text(phase: Phase) -> str:
    """sampling 12.3k tokens, 3.1k tok/s  |  pretraining 330/3300, 0:22 elapsed, 3:20 left, loss 1.23"""
    return ", ".join(phase_pieces(phase))


def phase_pieces(phase: Phase) -> list[str]:
    """The parts of `phase_text`. Time left is by what was done since the phase started, at the speed so far."""
    elapsed = time.monotonic() - phase.started
    if phase.total:
        new = phase.done - phase.first
        left = elapsed / new * (phase.total - phase.done) if new else None
        pieces = [f"{phase.name} {phase.done}/{phase.total}", f"{clock(elapsed)} elapsed", f"{clock(left)} left"]
    else:
        pieces = [f"{phase.name} {amount(phase.done)} tokens"]
        if elapsed > 0.5:
            pieces.append(f"{amount(phase.done / elapsed)} tok/s")
    return pieces + [
        f"{name} {value if isinstance(value, str) else amount(value)}" for name, value in phase.fields.items()
    ]


def closing_lines(
    status: Status, summary: Mapping[str, object], arrow: str, texts: Mapping[str, str], width: int
) -> list[str]:
    """The end of a job: what changed from the first evaluation to the last, what `summary` names, and `texts` folded
    to lines of at most `width`."""
    pairs: list[tuple[str, str]] = []
    if status.started is not None:
        pairs.append(("steps", f"{status.step} of {status.total}, {clock(status.elapsed)} in this session"))
        for name in status.datasets():
            rows = status.evaluations(name)
            length = [number(row.get("length")) for row in (rows[0], rows[-1])]
            pairs.append((name, f"{share(number(rows[0].get('accuracy')))} {arrow} {accuracy(rows[-1])}, "
                                f"length {amount(length[0])} {arrow} {amount(length[1])} tokens"))  # fmt: skip
    pairs += [(name, str(value)) for name, value in summary.items()]
    if texts:
        pairs.append(("answers", typed("read", status.out)))
    wide = max((len(name) for name in [*dict(pairs), *texts]), default=0)
    for name, text in texts.items():
        folded = textwrap.wrap(text, max(30, width - wide - 2), break_on_hyphens=False) or [""]
        pairs += zip([name, *[""] * (len(folded) - 1)], folded, strict=True)
    return [f"{name:<{wide}}  {text}" for name, text in pairs]


def span(numbers: Sequence[int]) -> str:
    """One number where all are the same, else the least and the most."""
    return f"{numbers[0]:,}" if numbers[0] == numbers[-1] else f"{numbers[0]:,} to {numbers[-1]:,}"

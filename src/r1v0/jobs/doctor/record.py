"""A run folder as the doctor reads it: whatever is there, whatever is broken.

Decides: nothing here refuses a run. A damaged line or file is counted and left out, a missing one is empty, and sizes
are bounded, because a folder that somebody sends is not to be trusted.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1v0.base import reading
from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.means import mean
from r1v0.base.stats import number, numbers
from r1v0.config import Config, parse
from r1v0.runs import runlog
from r1v0.runs.written import file_of

Row = Mapping[str, Any]

SPAN = 8
"""steps of "at the start" and "now" """
MOST_ROLLOUTS = 4096
"""lines read of a step's rollouts"""


@dataclass(frozen=True)
class Record:
    """What could be read of a run. `damaged` names files that hold something unreadable; a torn last line is no
    damage."""

    folder: Path
    config: Config
    metrics: list[Row]
    evals: list[Row]
    health: list[Row]
    env: Mapping[str, Any]
    damaged: list[str]

    def first(self, key: str) -> float | None:
        """A metric's mean over the first SPAN steps."""
        return _mean(self.metrics[:SPAN], key)

    def last(self, key: str) -> float | None:
        """A metric's mean over the last SPAN steps."""
        return _mean(self.metrics[-SPAN:], key)

    def total(self, key: str) -> float:
        """A metric's sum over the run."""
        return math.fsum(numbers(self.metrics, key))

    def held_out(self) -> list[Row]:
        """The evaluations of the first dataset, in order of steps."""
        names = [str(row.get("dataset")) for row in self.evals]
        rows = [row for row in self.evals if str(row.get("dataset")) == names[0]]
        return [row for row in rows if number(row.get("accuracy")) is not None]

    @property
    def graded(self) -> float:
        """Rollouts sampled, roughly: tokens over their mean length."""
        pairs = [(number(row.get("tokens/sampled")), number(row.get("length/mean"))) for row in self.metrics]
        return math.fsum(tokens / length for tokens, length in pairs if tokens is not None and length)

    def rollouts(self, step: int) -> list[Row]:
        """Some of a step's rollouts; empty if the file is missing or damaged."""
        path = file_of(self.folder, runlog.ROLLOUTS, step)
        found: list[Row] = []
        try:
            for line in islice(reading.lines(path), MOST_ROLLOUTS):
                row = json.loads(line)
                found += [row] if isinstance(row, dict) else []
        except (OSError, EOFError, ValueError, RecursionError, zlib.error):
            return []
        return found


def read(folder: Path) -> Record:
    """Read a run folder. Raises UserError only if it is none."""
    if runlog.is_evaluation(folder):
        raise UserError(
            f"{folder} holds an evaluation of `{typed('eval')}`, not a run: draw it by "
            f"`{typed('plot', folder)}`, or give the folder of a run"
        )
    runlog.need_run(folder)
    damaged: list[str] = []
    config = Config()
    try:
        config = parse(reading.read(folder / runlog.CONFIG, reading.MAX_LINE).decode("utf-8"), runlog.CONFIG)
    except (OSError, ValueError, UserError):
        damaged.append(runlog.CONFIG)
    env: Any = {}
    try:
        env = json.loads(reading.read(folder / runlog.ENV, reading.MAX_LINE))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError):
        damaged.append(runlog.ENV)
    metrics, evals, health = (_rows(folder / name, damaged) for name in (runlog.METRICS, runlog.EVALS, runlog.HEALTH))
    return Record(folder, config, metrics, evals, health, env if isinstance(env, dict) else {}, damaged)


def _rows(path: Path, damaged: list[str]) -> list[Row]:
    """The rows that can be read; the name of a file with another in it goes into `damaged`."""
    try:
        lines = [line for line in reading.lines(path) if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, reading.TooLarge):
        damaged.append(path.name)
        return []
    rows: list[Row] = []
    for index, line in enumerate(lines):
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif index < len(lines) - 1 and path.name not in damaged:
            damaged.append(path.name)
    return rows


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = numbers(rows, key)
    return mean(values) if values else None

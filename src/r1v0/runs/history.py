"""What the watchers of collapse look back on: the rows of metrics.jsonl so far, as means over windows."""

import math
from collections.abc import Mapping
from typing import Any

from r1v0.base.means import mean
from r1v0.base.stats import numbers
from r1v0.config import Config

Row = Mapping[str, Any]

WINDOW = 8
"""steps of every mean"""
START = 5
"""steps that a run's own start is the mean of; fewer than it takes to collapse"""
PAST = 50
"""steps before the window that a usual gradient norm is the median of"""
SPIKES = 3
"""this many of a window's steps must be spikes: a single one is clipped and does no harm"""
EARLY_ENTROPY, EARLY_LENGTH, EARLY_GROUPS = 0.5, 10.0, 8.0
"""marks of the first steps, against the very first: entropy under a half, length over ten times, and no right answer
where eight groups with one are to be expected"""
SIGMA = 4.0
"""a reward has fallen if it fell by this many standard errors: the best of many means is a lucky one"""


class History:
    """The rows of a run so far."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rows: list[Row] = []
        self.since = 0  # rows before it are of weights that were given up
        self.best = -math.inf, 0.0, 0  # of the windows before this one: mean reward, its variance, step
        self.skipped = 0  # steps in a row

    def window(self, key: str) -> list[float]:
        """A metric's values in the last WINDOW steps; empty while there are fewer, or where half of them have none."""
        values = numbers(self.rows[max(self.since, len(self.rows) - WINDOW) :], key)
        return values if len(self.rows) - self.since >= WINDOW and 2 * len(values) >= WINDOW else []

    def recent(self, key: str) -> float | None:
        """The mean of `window`; None where that is empty."""
        values = self.window(key)
        return mean(values) if values else None

    def start(self, key: str) -> float | None:
        """A metric's mean over the run's first steps; None where they have none, or while they are part of `recent`."""
        values = numbers(self.rows[:START], key)
        return mean(values) if len(self.rows) >= WINDOW + START and values else None

"""The mean of some values, and whether they are equal but for rounding."""

import math
from collections.abc import Iterable, Sequence

FLAT = 1e-9  # share of the largest value that a difference must exceed to be more than rounding
LEAST = 1e-6  # values below it count as this large: 0.1 + 0.2 - 0.3 is 5.6e-17 and means 0


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; NaN of nothing."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def rounding(values: Sequence[float]) -> float:
    """The largest difference between such values that says nothing: sums of the same parts differ by less."""
    return FLAT * max(LEAST, *map(abs, values))


def is_flat(values: Sequence[float]) -> bool:
    """Whether all values are equal but for rounding: 0.1 + 0.2 and 0.3 are."""
    return max(values) - min(values) <= rounding(values)

"""A value axis: its limits, its ticks, and how a value is written beside a line.

Decides: shares are percent; an axis starts at 0 unless some values are negative, and a logarithmic one shows whole
decades.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Unit = Literal["share", "number", "log"]

SMALLEST = 1e-30
"""less is 0"""
MOST_DECADES = 6
"""ticks of a logarithmic axis"""


@dataclass(frozen=True)
class Scale:
    """The limits of an axis, and its ticks with their texts."""

    bottom: float
    top: float
    ticks: Mapping[float, str]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands: 0 at the bottom, 1 at the top, and on the border where it is beyond it."""
        if self.log:
            low, high, at = math.log10(self.bottom), math.log10(self.top), math.log10(max(value, self.bottom))
        else:
            low, high, at = self.bottom, self.top, value
        return min(1.0, max(0.0, (at - low) / (high - low)))


def scale_of(values: Sequence[float], unit: Unit) -> Scale:
    """The axis for these values. One that is to be logarithmic and has no positive value becomes a plain one."""
    positive = [value for value in values if value > SMALLEST]
    if unit == "log" and positive:
        first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive) * 1.01))
        each = math.ceil((last - first + 1) / MOST_DECADES)
        decades = [10.0**power for power in range(first, last + 1, each)]
        return Scale(10.0**first, 10.0**last, {value: value_text(value, "log") for value in decades}, log=True)
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    if high - low < SMALLEST:
        high = 0.05 if unit == "share" else 1.0
    room = 0.06 * (high - low)
    top = min(high + room, 1.0) if unit == "share" and high <= 1 else high + room
    bottom = low - room if low < 0 else 0.0
    gap = nice_gap(top - bottom)
    ticks = [k * gap for k in range(math.ceil(bottom / gap), math.floor(top / gap + 1e-9) + 1)]
    return Scale(bottom, top, {tick: _tick_text(tick, gap, unit) for tick in ticks})


def finish_axes(axes: "Axes", last_step: int, unit: Unit, values: Sequence[float]) -> None:
    """Limits and ticks of a figure's axes for the values shown: steps are whole; `scale_of` says the rest."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axes.set_xlim(0, max(1, last_step))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=2))
    scale = scale_of(values, unit)
    if scale.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(scale.bottom, scale.top)
    axes.set_yticks(list(scale.ticks), list(scale.ticks.values()))


def step_ticks(last: int) -> list[int]:
    """Whole steps from 0 to `last`, at most six of them, at round numbers."""
    return list(range(0, last + 1, max(1, round(nice_gap(last)))))


def value_text(value: float, unit: Unit) -> str:
    """A value as read beside a line: 74 %, 3.1 %, 14.7k, 2,310, 118, 0.42, 3e-4."""
    size = abs(value)
    if unit == "share":
        return f"{100 * value:.0f} %" if size >= 0.0995 or value == 0 else f"{100 * value:.1f} %"
    if value == 0:
        return "0"
    if unit == "log" or size < 0.001:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    if size >= 999_500:
        return f"{value:.1e}".replace("e+0", "e")
    if size >= 9999.5:
        return f"{value / 1000:,.{1 if size < 99_950 else 0}f}k"
    digits = 0 if size >= 19.95 else 1 if size >= 9.95 else 2 if size >= 0.0995 else 4
    return f"{value:,.{digits}f}"


def nice_gap(span: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides `span` into at most five parts."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * step for step in (1, 2, 5, 10) if power * step * 5.0001 >= span)


def _tick_text(tick: float, gap: float, unit: Unit) -> str:
    if abs(tick) >= 1e6 or gap < 1e-4:
        return value_text(tick, "number")
    if unit == "share":
        scale, mark = 100.0, " %"
    else:
        scale, mark = (0.001, "k" if tick else "") if gap >= 1000 else (1.0, "")
    digits = max(0, -math.floor(math.log10(gap * scale) + 1e-9)) if tick else 0
    return f"{tick * scale:,.{digits}f}{mark}"


def push_apart(wanted: list[float], gap: float) -> list[float]:
    """Positions in 0..1 at least `gap` apart, in the same order, each near the wanted one."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(50):
        for k in range(1, len(placed)):
            lack = gap - (placed[k] - placed[k - 1])
            if lack > 1e-9:
                placed[k - 1] -= lack / 2
                placed[k] += lack / 2
    if placed and placed[0] < 0:
        for k, value in enumerate(placed):
            placed[k] = max(value, k * gap)
    if placed and placed[-1] > 1.05:
        for k in range(len(placed)):
            placed[-1 - k] = min(placed[-1 - k], 1.05 - k * gap)
    result = [0.0] * len(wanted)
    for i, value in zip(order, placed, strict=True):
        result[i] = value
    return result

"""The scales of axes, and values as text: steps are whole, shares are percent, ticks are round."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Unit = Literal["share", "number", "log"]
SMALLEST = 1e-30
"""less is 0"""


def finish_axes(axes: "Axes", last_step: int, unit: Unit, values: Sequence[float]) -> None:
    """Limits and ticks for the values shown: steps are whole, shares are percent, an axis starts at 0 unless some
    values are negative; a logarithmic one shows whole decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xlim(0, max(1, last_step))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=2))
    positive = [value for value in values if value > SMALLEST]
    if unit == "log" and positive:
        axes.set_yscale("log")
        axes.set_ylim(
            10.0 ** math.floor(math.log10(min(positive))), 10.0 ** math.ceil(math.log10(max(positive) * 1.01))
        )
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: value_text(value, "log")))
        return
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    if high - low < SMALLEST:
        high = 0.05 if unit == "share" else 1.0
    room = 0.06 * (high - low)
    top = min(high + room, 1.0) if unit == "share" and high <= 1 else high + room
    bottom = low - room if low < 0 else 0.0
    gap = _nice_gap(top - bottom)
    ticks = [k * gap for k in range(math.ceil(bottom / gap), math.floor(top / gap + 1e-9) + 1)]
    axes.set_ylim(bottom, top)
    axes.set_yticks(ticks, [_tick_text(tick, gap, unit) for tick in ticks])


def value_text(value: float, unit: Unit) -> str:
    """A value as read beside a line: 74 %, 3.1 %, 14.7k, 2,310, 118, 0.42, 3e-4."""
    size = abs(value)
    if unit == "share":
        return f"{100 * value:.0f} %" if size >= 0.0995 or value == 0 else f"{100 * value:.1f} %"
    if value == 0:
        return "0"
    if unit == "log" or size < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    if size >= 999_500:
        return f"{value:.1e}".replace("e+0", "e")
    if size >= 9999.5:
        return f"{value / 1000:,.{1 if size < 99_950 else 0}f}k"
    digits = 0 if size >= 19.95 else 1 if size >= 9.95 else 2 if size >= 0.0995 else 4
    return f"{value:,.{digits}f}"


def _nice_gap(span: float) -> float:
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

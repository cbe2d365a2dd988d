"""A panel of curves as geometry: paths, ticks, labels and the values that are read off under the pointer.

Decides: a long curve is thinned to what a chart of this width can show; of each stretch the lowest and the highest
value stay, so no spike is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from r1v0.report import style
from r1v0.report.panels import Panel, Shown, how, last_step, lines_of, title_of, values_of
from r1v0.report.scale import Scale, push_apart, scale_of, step_ticks, value_text
from r1v0.report.series import Entry, Points

WIDTH, HEIGHT = 400, 216
LEFT, RIGHT, TOP, BOTTOM = 62, 290, 12, 180
"""the borders of the axes; beside them stand the ticks, and the last values"""
FRAME = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
MOST_POINTS = 1200
"""of all lines of a chart together"""
MOST_DOTS = 60
APART = 13
"""between two labels"""
COLOURS = {
    style.BLUE: "blue",
    style.ORANGE: "orange",
    style.GREEN: "green",
    style.RED: "red",
    style.PURPLE: "purple",
    style.SKY: "sky",
    style.GREY: "grey",
    style.INK: "ink",
}
"""the names of the figures' colours in page.css, which has others for dark pages"""


@dataclass(frozen=True)
class Stroke:
    """A line to draw, in coordinates of the chart. `path` and the others are empty where there is none."""

    colour: str
    dash: str
    path: str
    band: str = ""
    raw: str = ""
    dots: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Label:
    """A text at a height."""

    y: float
    text: str
    colour: str


@dataclass(frozen=True)
class Chart:
    """A panel, ready to draw. `hover` is what its script reads: for each line a name, a colour and [step, text]."""

    title: str
    about: str
    axis: str
    summary: str
    last: int
    strokes: Sequence[Stroke]
    ends: Sequence[Label]
    ticks: Sequence[tuple[float, str]]
    steps: Sequence[tuple[float, int]]
    hover: Sequence[dict[str, Any]] = field(default=(), repr=False)


def chart_of(panel: Panel, entries: Sequence[Entry]) -> Chart:
    """A panel that has data."""
    lines, last = lines_of(panel, entries), max(1, last_step(entries))
    scale = scale_of(values_of(lines), panel.unit)
    names = [entry.label for entry in entries for _ in panel.lines] if len(entries) > 1 else []
    named = [line.label or (names[i] if len(names) == len(lines) else "") for i, line in enumerate(lines)]
    most = max(20, MOST_POINTS // sum(1 + bool(line.raw) + 2 * line.band for line in lines))
    return Chart(
        title_of(panel),
        how(panel, entries),
        panel.y,
        _summary(panel, lines, named),
        last,
        [_stroke(line, scale, last, most) for line in lines],
        _ends(panel, lines, scale),
        [(round(_y(scale, value), 1), text) for value, text in scale.ticks.items()],
        [(round(_x(step, last), 1), step) for step in step_ticks(last)],
        [row for line, name in zip(lines, named, strict=True) for row in _hover(panel, line, name, most)],
    )


def thinned(points: Points, most: int) -> Points:
    """At most about `most` points: of each stretch the first of the lowest and of the highest values."""
    if len(points) <= most:
        return points
    steps, stretches = list(points), max(1, most // 2)
    kept = {steps[0], steps[-1]}
    for i in range(stretches):
        part = steps[i * len(steps) // stretches : (i + 1) * len(steps) // stretches]
        kept |= {min(part, key=points.__getitem__), max(part, key=points.__getitem__)}
    return {step: points[step] for step in steps if step in kept}


def path(points: Points, scale: Scale, last: int) -> str:
    """The d attribute of a line; of a single point, a short dash."""
    spots = [f"{_x(step, last):.1f} {_y(scale, value):.1f}" for step, value in points.items()]
    return f"M{spots[0]}h.1" if len(spots) == 1 else "M" + "L".join(spots) if spots else ""


def dashes(dash: Any) -> str:
    """A figure's dash, which is in widths of its line, as stroke-dasharray of a line two wide."""
    return "" if dash == "-" else " ".join(f"{2 * part:g}" for part in dash[1])


def _stroke(line: Shown, scale: Scale, last: int, most: int) -> Stroke:
    colour, dash = line.look
    low, high = thinned(line.curve.low, most), thinned(line.curve.high, most)
    back = dict(reversed(high.items()))
    band = f"{path(low, scale, last)}L{path(back, scale, last)[1:]}Z" if line.band and len(low) > 1 else ""
    few = line.dots and len(line.curve.mean) <= MOST_DOTS
    dots = [(round(_x(s, last), 1), round(_y(scale, v), 1)) for s, v in line.curve.mean.items()] if few else []
    return Stroke(
        COLOURS[colour],
        dashes(dash),
        path(thinned(line.curve.mean, most), scale, last),
        band,
        path(thinned(line.raw, most), scale, last),
        dots,
    )


def _ends(panel: Panel, lines: Sequence[Shown], scale: Scale) -> list[Label]:
    """The last values, beside the ends of their lines, pushed apart; none where there is no room for all."""
    last = [list(line.curve.mean.values())[-1] for line in lines]
    gap = APART / (BOTTOM - TOP)
    if len(lines) * gap > 1.1:
        return []
    places = push_apart([scale.place(value) for value in last], gap)
    return [
        Label(
            round(BOTTOM - place * (BOTTOM - TOP) + 4, 1),
            f"{line.label} {value_text(value, panel.unit)}".strip(),
            COLOURS[line.look[0]],
        )
        for line, value, place in zip(lines, last, places, strict=True)
    ]


def _hover(panel: Panel, line: Shown, name: str, most: int) -> list[dict[str, Any]]:
    def text(step: int, value: float) -> str:
        written = value_text(value, panel.unit)
        if step in line.curve.low and step in line.curve.high:
            low, high = (value_text(points[step], panel.unit) for points in (line.curve.low, line.curve.high))
            written += f" [{low.removesuffix(' %')}, {high.removesuffix(' %')}]"
        return written

    colour = COLOURS[line.look[0]]
    bold = thinned(line.curve.mean, most)
    found = [{"name": name, "colour": colour, "points": [[step, text(step, value)] for step, value in bold.items()]}]
    if line.raw and line.raw != line.curve.mean:
        raw = [[step, value_text(value, panel.unit)] for step, value in thinned(line.raw, most).items()]
        found.append({"name": f"{name} in the batch".strip(), "colour": colour, "points": raw})
    return found


def _summary(panel: Panel, lines: Sequence[Shown], names: Sequence[str]) -> str:
    """A chart in words, for who does not see it."""
    told = []
    for line, name in zip(lines, names, strict=True):
        (first, before), *_, (last, after) = [*line.curve.mean.items()] * (1 + (len(line.curve.mean) == 1))
        ends = f"{value_text(before, panel.unit)} at step {first}, {value_text(after, panel.unit)} at step {last}"
        told.append(f"{name} {ends}".strip())
    return f"{title_of(panel)}: {'; '.join(told)}"


def _x(step: int, last: int) -> float:
    return LEFT + (RIGHT - LEFT) * step / last


def _y(scale: Scale, value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * scale.place(value)

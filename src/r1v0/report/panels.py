"""How a panel is drawn, for one run, for runs over one another, or for the seeds of several settings.

Decides: held-out values are bold lines with dots (fixed problems), training batches are noise around them: thin lines,
smoothed where nothing held out is measured. Accuracies carry their 95 % interval; several runs under one label carry
the band from the lowest to the highest. A panel without data is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from r1v0.report import style
from r1v0.report.scale import Unit, finish_axes, value_text
from r1v0.report.series import Curve, Entry, Points, Run, aggregate, datasets, smooth, smoothing_width
from r1v0.report.status import span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """What to draw: an evaluation key (`held`, the bold line), a metric key (`train`, thin behind it), or one of
    them."""

    colour: str
    train: str = ""
    held: str = ""
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `{data}` in the title stands for the name of the evaluated dataset number `dataset`."""

    title: str
    lines: tuple[Line, ...]
    unit: Unit = "number"
    dataset: int = 0
    data: str = ""
    """that dataset's name, once the runs are known"""
    y: str = ""
    """name of the vertical axis"""
    about: str = ""
    """begins the grey line under the title"""
    hide_zero: bool = False
    """leave the panel out where there are only zeros: with one update per batch nothing can be clipped"""


@dataclass(frozen=True)
class Shown:
    """A line of a panel as it is drawn: the bold curve, its band if it has one, and the thin values behind it."""

    label: str
    look: style.Look
    curve: Curve
    band: bool
    raw: Points
    dots: bool
    """whether each value is an evaluation"""


def with_data(panels: Sequence[Panel], entries: Sequence[Entry]) -> list[Panel]:
    """The panels that have data, `data` filled in. With several entries every line has a panel of its own."""
    if len(entries) > 1:
        panels = [alone for panel in panels for alone in _split(panel)]
    names = datasets(entries)
    panels = [replace(panel, data=names[panel.dataset]) if panel.dataset < len(names) else panel for panel in panels]
    return [panel for panel in panels if _has_data(panel, entries)]


def title_of(panel: Panel) -> str:
    """A panel's title with the name of its dataset."""
    return panel.title.format(data=style.shorten(panel.data))


def last_step(entries: Sequence[Entry]) -> int:
    """The last step that any of the runs has logged."""
    return max(
        (row["step"] for entry in entries for run in entry.runs for row in (*run.metrics, *run.evals)), default=0
    )


def lines_of(panel: Panel, entries: Sequence[Entry]) -> list[Shown]:
    """What is drawn in a panel, entry by entry; `label` tells a panel's lines apart, not the entries."""
    found = []
    for number, entry in enumerate(entries):
        for line in panel.lines:
            curve = _curve(entry, panel, line)
            if curve.mean:
                look = (line.colour, "-") if len(entries) == 1 else style.look(number)
                alone = len(entries) == len(entry.runs) == 1 and line.train
                raw = _train(entry.runs[0], panel, line) if alone else {}
                band = bool(curve.low) and len(panel.lines) == 1
                found.append(Shown(line.label, look, curve, band, raw, _is_held(entry, panel, line)))
    return found


def values_of(lines: Sequence[Shown]) -> list[float]:
    """All values that an axis has to hold."""
    parts = (points for line in lines for points in (line.curve.mean, line.curve.low, line.curve.high, line.raw))
    return [value for points in parts for value in points.values()]


def draw_panels(panels: Sequence[Panel], entries: Sequence[Entry], columns: int) -> "Figure | None":
    """The panels that have data, on a grid. With several entries every line gets a panel, and every entry a colour."""
    panels = with_data(panels, entries)
    if not panels:
        return None
    columns, scale = style.columns_of(columns)
    rows = -(-len(panels) // columns)
    names = [entry.label for entry in entries]
    figure = style.new_figure((0.15 + style.ROW * rows) * scale + style.legend_height(names))
    told = [style.fold(how(panel, entries), columns) for panel in panels]
    most = max(text.count("\n") for text in told) + 1
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i >= len(panels):
            axes.remove()
            continue
        style.heading(axes, title_of(panels[i]), told[i], most)
        _draw(axes, panels[i], entries)
        if i + columns >= len(panels):
            axes.set_xlabel("RL step")
    if len(entries) > 1:
        style.legend(figure, [(entry.label, style.look(i)) for i, entry in enumerate(entries)])
    return figure


def _split(panel: Panel) -> list[Panel]:
    if len(panel.lines) == 1:
        return [panel]
    return [
        replace(panel, title=f"{panel.title}: {line.label}", lines=(replace(line, label=""),)) for line in panel.lines
    ]


def _has_data(panel: Panel, entries: Sequence[Entry]) -> bool:
    values = [value for entry in entries for line in panel.lines for value in _curve(entry, panel, line).mean.values()]
    return any(values) if panel.hide_zero else bool(values)


def _draw(axes: "Axes", panel: Panel, entries: Sequence[Entry]) -> None:
    labels, lines = [], lines_of(panel, entries)
    for line in lines:
        colour, dash = line.look
        style.line(axes, line.curve.mean, colour, dots=line.dots, dash=dash)
        if line.band:
            style.band(axes, line.curve.low, line.curve.high, colour)
        if line.raw:
            style.thin_line(axes, line.raw, colour)
        end = list(line.curve.mean.values())[-1]
        labels.append((end, f"{line.label} {value_text(end, panel.unit)}".strip(), colour))
    axes.set_ylabel(panel.y)
    finish_axes(axes, last_step(entries), panel.unit, values_of(lines))
    style.end_labels(axes, labels)


def _is_held(entry: Entry, panel: Panel, line: Line) -> bool:
    return bool(line.held) and any(run.held_out(panel.data, line.held) for run in entry.runs)


def _train(run: Run, panel: Panel, line: Line) -> Points:
    """A line's values of the training steps. A logarithm has no place for 0 or for rounding noise below it."""
    points = run.train(line.train) if line.train else {}
    return {step: value for step, value in points.items() if panel.unit != "log" or value > 0}


def _curve(entry: Entry, panel: Panel, line: Line) -> Curve:
    """The bold line of an entry with its band: over its runs, or of one run's accuracy the 95 % interval."""
    if not _is_held(entry, panel, line):
        train = [_train(run, panel, line) for run in entry.runs]
        return aggregate([smooth(points, smoothing_width(len(points))) for points in train])
    curve = aggregate([run.held_out(panel.data, line.held) for run in entry.runs])
    if line.held == "accuracy" and len(entry.runs) == 1:
        run = entry.runs[0]
        return Curve(curve.mean, run.held_out(panel.data, "ci_low"), run.held_out(panel.data, "ci_high"))
    return curve


def how(panel: Panel, entries: Sequence[Entry]) -> str:
    """The subtitle: what was measured and what the band and the thin lines are."""
    first = panel.lines[0]
    held = any(_is_held(entry, panel, line) for entry in entries for line in panel.lines)
    counts = sorted(len(entry.runs) for entry in entries)
    most = counts[-1]
    smoothed = any(smoothing_width(len(run.metrics)) > 1 for entry in entries for run in entry.runs)
    alone = len(entries) == most == 1
    band = ""
    if held and first.held == "accuracy":
        what = _sizes(panel.data, entries)
        if len(panel.lines) == 1 and any(_curve(entry, panel, first).low for entry in entries):
            band = "band: 95 % interval"
    elif held:
        what = "bold: held-out; thin: training batches" if alone and first.train else "held-out problems"
    elif smoothed:
        what = "bold: smoothed; thin: each training batch" if alone else "training batches, smoothed"
    else:
        what = "training batches"
    if most > 1:
        band = f"mean and range of {span(counts)} runs"
    return "; ".join(part for part in (panel.about, what, band) if part)


def _sizes(data: str, entries: Sequence[Entry]) -> str:
    rows = [row for entry in entries for run in entry.runs for row in run.evals if row.get("dataset") == data]
    problems, samples = (
        sorted({row[key] for row in rows if isinstance(row.get(key), int)}) for key in ("problems", "samples")
    )
    if not problems:
        return "held-out problems"
    count = f"{span(problems)} held-out problems"
    return f"{count}, {span(samples)} samples each" if samples and samples[-1] > 1 else count

"""The figure of an evaluation: a bar for each dataset and template, with its interval.

Decides: all bars share one axis from 0 to 100 %,
so that templates are compared by eye within a dataset and datasets among
each other; pass@k, where there are several samples, is a mark beyond the bar.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1v0.base.errors import UserError
from r1v0.report import style
from r1v0.report.series import datasets, load
from r1v0.report.status import share, span
from r1v0.runs import runlog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "evaluation.png"
ROOM = 0.2
"""the part of the axis that the text beside a bar takes"""
Row = Mapping[str, Any]


def plot_evaluations(
    groups: Mapping[str, Sequence[Path]], out: Path | None = None, width: float | None = None
) -> list[Path]:
    """Draw label -> evaluation folders as bars, `width` inches wide in print; the files written. Without `out` one evaluation's figure goes to its
    figures/ folder and several ones' to ./compare.png; without a suffix `out` is a folder. Raises UserError as
    `plot` does."""
    folders = [folder for found in groups.values() for folder in found]
    many = next((label for label, found in groups.items() if len(found) > 1), None)
    if many is not None:
        raise UserError(f"'{many}' names {len(groups[many])} evaluations: each of them needs a label of its own")
    if out is None:
        out = folders[0] / runlog.FIGURES / FILE if len(folders) == 1 else Path("compare.png")
    path = out if out.suffix else out / FILE
    labels = list(groups)

    def draw(entries: Sequence[Any]) -> "Figure | None":
        names = datasets(entries)
        rows = [(label, row) for label, entry in zip(labels, entries, strict=True) for row in entry.runs[0].evals]
        return _draw(sorted(rows, key=lambda pair: names.index(str(pair[1].get("dataset")))), len(labels) > 1)

    return [path] if style.drawn(draw, load(groups), path, width) else []


def _draw(rows: Sequence[tuple[str, Row]], several: bool) -> "Figure | None":
    rows = [(label, row) for label, row in rows if isinstance(row.get("accuracy"), int | float)]
    if not rows:
        return None
    templates = list(dict.fromkeys(str(row.get("template", "")) for _, row in rows))
    keys = list(dict.fromkeys(_key(label, row, several, templates) for label, row in rows))
    names = list(dict.fromkeys(str(row.get("dataset")) for _, row in rows))
    places, titles = _places(rows)
    figure = style.new_figure(0.75 + 0.3 * len(rows) + 0.34 * len(names) + (0.3 if len(keys) > 1 else 0))
    axes = figure.subplots()
    highest = max(max(float(row.get(name) or 0) for name in ("ci_high", "accuracy", _pass(row))) for _, row in rows)
    for (label, row), y in zip(rows, places, strict=True):
        colour, _ = style.look(keys.index(_key(label, row, several, templates)))
        value, low, high = (float(row.get(name, row["accuracy"])) for name in ("accuracy", "ci_low", "ci_high"))
        axes.barh(y, value, height=0.72, color=colour, alpha=0.85, linewidth=0)
        axes.plot([low, high], [y, y], color=style.INK, linewidth=1.4, solid_capstyle="butt")
        k = str(row.get("samples", 1))
        above = row.get(_pass(row)) if k != "1" else None
        end = max(value, high)
        cut = row.get("truncated_frac") or 0
        texts = {end: share(value) + (f", {share(cut)} cut off" if cut else "")}
        if above is not None:
            axes.plot([above], [y], marker="|", markersize=11, markeredgewidth=2, color=colour)
            apart = above - end > ROOM * highest
            texts = (texts if apart else {}) | {
                above: ("" if apart else f"{texts[end]}; ") + f"pass@{k} {share(above)}"
            }
        for x, text in texts.items():
            axes.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=style.size(9),
                          color=style.INK, annotation_clip=False)  # fmt: skip
    for y, name in zip(titles, names, strict=True):
        some = [row for _, row in rows if str(row.get("dataset")) == name]
        axes.annotate(f"{style.shorten(name)}  ({_sizes(some)})", (0, y), xytext=(0, 0),
                      textcoords="offset points", va="center",
                      fontsize=style.size(9.5), fontweight="bold", annotation_clip=False)  # fmt: skip
    axes.set_xlim(0, min(1.0, max(0.05, 1.2 * highest)))
    axes.set_ylim(max(places) + 0.7, min(titles) - 0.6)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{100 * value:.0f} %" if value >= 0.01 or not value else f"{100 * value:.1f} %"
    )
    axes.set_xlabel(
        "accuracy; line: 95 % interval"
        + ("; mark: pass@k" if any(row.get("samples", 1) != 1 for _, row in rows) else "")
    )
    if len(keys) > 1:
        style.legend(figure, [(key, (style.look(i)[0], "-")) for i, key in enumerate(keys)])
    return figure


def _pass(row: Row) -> str:
    return f"pass_at_k/{row.get('samples', 1)}"


def _key(label: str, row: Row, several: bool, templates: Sequence[str]) -> str:
    """What a colour stands for: the template, the evaluation, or both."""
    template = str(row.get("template", ""))
    if not several:
        return template
    return f"{label}, {template}" if len(templates) > 1 else label


def _places(rows: Sequence[tuple[str, Row]]) -> tuple[list[float], list[float]]:
    """Where the bars are, and where the datasets' names; downwards."""
    places, titles = list[float](), list[float]()
    at, before = 0.0, None
    for _, row in rows:
        name = str(row.get("dataset"))
        if name != before:
            at += 0.35 if places else 0
            titles.append(at)
            at, before = at + 0.85, name
        places.append(at)
        at += 1
    return places, titles


def _sizes(rows: Sequence[Row]) -> str:
    problems = sorted({int(row.get("problems", 0)) for row in rows})
    samples = sorted({int(row.get("samples", 1)) for row in rows})
    return f"{span(problems)} problems" + (f", {span(samples)} samples each" if samples[-1] > 1 else "")

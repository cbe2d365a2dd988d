"""How every figure looks: palette, type, and the few marks they are made of.

Decides: colours from Okabe and Ito's palette (told apart by colour-blind readers), darkened where a thin line on white
needs it; white background, so a page in dark mode stays readable; values and names written beside the lines rather
than in a legend. Sizes suit a page that shows a figure 900 pixels wide. Figures are made without pyplot: no global
state, no window, safe beside a running trainer.
"""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic
from r1v0.report.scale import Unit, push_apart, scale_of
from r1v0.report.series import Entry, Points

# It tells of folders for its caches that it cannot write, and of building its list of fonts: both are nobody's
# concern here.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#D07C00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, INK = "#A3528A", "#56B4E9", "#8A8A8A", "#222222"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, INK)
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
Look = tuple[str, Any]
"""a colour and a dash"""

WIDTH = 9.0
"""inches; 100 displayed pixels each at a width of 900"""
PANEL_HEIGHT = 2.0
"""inches of a panel's own axes, roughly: how close labels may come depends on it"""
DPI = 180

RC = {
    "figure.figsize": (WIDTH, 4.0),
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "ps.fonttype": 42,
    "font.size": 9.5,
    "text.parse_math": False,  # a dataset's or run's name may hold a dollar sign
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 20,
    "axes.edgecolor": "#BBBBBB",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#555555",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": "#BBBBBB",
    "ytick.color": "#BBBBBB",
    "xtick.labelcolor": "#555555",
    "ytick.labelcolor": "#555555",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


PRINTED = {
    "figure.figsize": (6.5, 4.0),
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlepad": 17,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}
"""What differs in a file for print: 6.5 inches are the text width of a paper, so that the type is as large as it
says."""


def look(number: int) -> Look:
    """How run number `number` is drawn where there are several: a colour each, then the colours again with dashes."""
    return CYCLE[number % len(CYCLE)], DASHES[number // len(CYCLE) % len(DASHES)]


def size(points: float) -> float:
    """A size of type on the screen, as it is in the figure that is drawn."""
    import matplotlib

    return points * float(matplotlib.rcParams["font.size"]) / float(RC["font.size"])  # type: ignore[arg-type]


def new_figure(height: float) -> "Figure":
    """An empty figure of the standard width; `height` in inches of it."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.06)
    width = float(matplotlib.rcParams["figure.figsize"][0])
    return Figure(figsize=(width, height * width / WIDTH), layout=layout)


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure aside and rename it. The suffix decides the format."""
    kinds = set(figure.canvas.get_supported_filetypes())
    kind = path.suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise UserError(f"cannot draw a figure as '{path.name}': expected a name that ends in .png, .svg or .pdf")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; one without end is cut off. Neither is worth a warning.
        warnings.filterwarnings("ignore", message="Glyph|constrained_layout not applied")
        figure.savefig(buffer, format=kind, dpi=DPI)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"figure {path} cannot be written ({error.strerror}): choose another --out") from None
    return path


def heading(axes: "Axes", title: str, subtitle: str) -> None:
    """A bold title that says what one sees, and a grey line under it that says how it was measured."""
    axes.set_title(title)
    axes.annotate(subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 7), textcoords="offset points",
                  fontsize=size(8.5), color="#6A6A6A")  # fmt: skip


def line(axes: "Axes", points: Points, colour: str, dots: bool = False, dash: Any = "-") -> None:
    """A bold line, with a dot for each value where values are few."""
    mark: dict[str, Any] = (
        {"marker": "o", "markersize": 3.8, "markeredgecolor": "white", "markeredgewidth": 0.7} if dots else {}
    )
    if len(points) == 1:
        mark = {"marker": "o", "markersize": 5}
    axes.plot(
        list(points), list(points.values()), color=colour, linewidth=2, linestyle=dash, zorder=3, clip_on=False, **mark
    )


def thin_line(axes: "Axes", points: Points, colour: str) -> None:
    """Raw values behind a smoothed or a held-out line."""
    axes.plot(list(points), list(points.values()), color=colour, linewidth=0.8, alpha=0.45, zorder=2,
              marker="." if len(points) == 1 else None)  # fmt: skip


def band(axes: "Axes", low: Points, high: Points, colour: str) -> None:
    """The area between two curves, on the steps that both have."""
    steps = [step for step in low if step in high]
    axes.fill_between(
        steps, [low[s] for s in steps], [high[s] for s in steps], color=colour, alpha=0.16, linewidth=0, zorder=1
    )


def end_labels(axes: "Axes", labels: Sequence[tuple[float, str, str]]) -> None:
    """Texts (y, text, colour) to the right of the axes, each beside the end of its line, pushed apart where they
    would overlap. Call after the axes' limits are set."""
    to_axes = axes.transAxes.inverted()
    where = [float(to_axes.transform(axes.transData.transform((0, y)))[1]) for y, _, _ in labels]
    apart = 11.5 / (PANEL_HEIGHT * 72)
    gap = min(apart, 1.1 / max(1, len(labels)))  # of very many the type gets smaller, down to a half
    points = size(9) * max(0.5, gap / apart)
    for at, (_, text, colour) in zip(push_apart(where, gap), labels, strict=True):
        axes.annotate(text, (1, at), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
                      va="center", fontsize=points, fontweight="bold", color=colour, annotation_clip=False)  # fmt: skip


def finish_axes(axes: "Axes", last_step: int, unit: Unit, values: Sequence[float]) -> None:
    """Limits and ticks for the values shown: steps are whole; `scale_of` says the rest."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axes.set_xlim(0, max(1, last_step))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=2))
    scale = scale_of(values, unit)
    if scale.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(scale.bottom, scale.top)
    axes.set_yticks(list(scale.ticks), list(scale.ticks.values()))


def drawn(draw: Callable[[Sequence[Entry]], "Figure | None"], entries: Sequence[Entry], path: Path) -> bool:
    """Draw and save under this module's settings, leaving matplotlib's own as they were; False if nothing was drawn."""
    import matplotlib

    printed = PRINTED if path.suffix.lower() in (".pdf", ".eps", ".ps") else {}
    with matplotlib.rc_context(RC | printed):  # type: ignore[arg-type]
        figure = draw(entries)
        if figure is None:
            return False
        save(figure, path)
    return True


def shorten(name: str) -> str:
    """A name cut to what a title or legend has room for."""
    return name if len(name) <= 32 else name[:31] + "…"


def legend(figure: "Figure", labels: Sequence[tuple[str, Look]]) -> None:
    """Names, each with its colour and dash, in rows at the top of the figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linewidth=3 if dash == "-" else 2, linestyle=dash) for _, (colour, dash) in labels
    ]
    figure.legend(handles, [shorten(label) for label, _ in labels], loc="outside upper left", ncols=min(4, len(labels)),
                  fontsize=size(10), handlelength=1.1 if len(labels) <= len(CYCLE) else 2.2, columnspacing=1.6,
                  borderpad=0.2)  # fmt: skip

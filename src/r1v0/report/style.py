"""How every figure looks: palette, type, and the few marks they are made of.

Decides: colours from Okabe and Ito's palette (told apart by colour-blind readers), darkened where a thin line on white
needs it; white background, so a page in dark mode stays readable; values and names written beside the lines rather
than in a legend. Sizes suit a page that shows a figure 900 pixels wide. Figures are made without pyplot: no global
state, no window, safe beside a running trainer.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic
from r1v0.report.scale import push_apart
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
ROW, LEAST_ROW = 2.75, 1.95
"""inches of a row of panels with their titles: at WIDTH, and at least"""
PANEL_HEIGHT = 2.0
"""inches of a panel's own axes, roughly: how close labels may come depends on it"""
SUBTITLE, LETTER, MARGIN = 8.5, 0.53, 0.6
"""points of a subtitle; the mean width of a letter, in its size; inches beside a panel's axes"""
DPI = 180
PRINTED_DPI = 300
NARROW, WIDEST = 4.5, 40.0
"""inches of a printed figure: below the first it has one column, the second is the most"""

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
    "lines.linewidth": 2.0,
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
    "lines.linewidth": 1.4,
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


def columns_of(wanted: int) -> tuple[int, float]:
    """How many of `wanted` panels stand side by side (one, where the figure is too narrow for more), and how many times
    higher than the screen's rows are, for the width, those that have room for titles and curves."""
    width = page_width()
    columns = wanted if width >= NARROW else 1
    return columns, max(wanted / columns, LEAST_ROW / (ROW * width / WIDTH))


def page_width() -> float:
    """Inches of the figures that are drawn now."""
    import matplotlib

    return float(matplotlib.rcParams["figure.figsize"][0])


def new_figure(height: float) -> "Figure":
    """An empty figure of the standard width; `height` in inches of it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.06)
    return Figure(figsize=(page_width(), height * page_width() / WIDTH), layout=layout)


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
        figure.savefig(buffer, format=kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"figure {path} cannot be written ({error.strerror}): choose another --out") from None
    return path


def fold(text: str, columns: int) -> str:
    """A subtitle on as many lines as a panel's width needs, broken behind semicolons and commas."""
    room = int((page_width() / columns - MARGIN) * 72 / (LETTER * size(SUBTITLE)))
    lines = [""]
    for piece in re.split(r"(?<=[;,]) ", text):
        if lines[-1] and len(lines[-1]) + 1 + len(piece) > room:
            lines.append(piece)
        else:
            lines[-1] += f" {piece}" if lines[-1] else piece
    return "\n".join(lines)


def heading(axes: "Axes", title: str, subtitle: str, lines: int = 1) -> None:
    """A bold title that says what one sees, and a grey text under it that says how it was measured; `lines` are those
    of the longest subtitle of the figure, so that titles stand at one height."""
    import matplotlib

    line = 1.2 * size(SUBTITLE)
    axes.set_title(title, pad=float(matplotlib.rcParams["axes.titlepad"]) + (lines - 1) * line)
    axes.annotate(subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 5.5 + lines * line), va="top",
                  textcoords="offset points", fontsize=size(SUBTITLE), color="#6A6A6A", linespacing=1.2,
                  in_layout=False)  # fmt: skip


def line(axes: "Axes", points: Points, colour: str, dots: bool = False, dash: Any = "-") -> None:
    """A bold line, with a dot for each value where values are few."""
    import matplotlib

    wide = float(matplotlib.rcParams["lines.linewidth"])
    mark: dict[str, Any] = (
        {"marker": "o", "markersize": 1.9 * wide, "markeredgecolor": "white", "markeredgewidth": 0.35 * wide}
        if dots
        else {}
    )
    if len(points) == 1:
        mark = {"marker": "o", "markersize": 2.5 * wide}
    axes.plot(list(points), list(points.values()), color=colour, linestyle=dash, zorder=3, clip_on=False, **mark)


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
    apart = 1.28 * size(9) / (_height(axes) * 72)
    gap = min(apart, 1.1 / max(1, len(labels)))  # of very many the type gets smaller, down to a half
    points = size(9) * max(0.5, gap / apart)
    for at, (_, text, colour) in zip(push_apart(where, gap), labels, strict=True):
        axes.annotate(text, (1, at), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
                      va="center", fontsize=points, fontweight="bold", color=colour, annotation_clip=False)  # fmt: skip


def _height(axes: "Axes") -> float:
    """Inches of the axes, roughly: before a figure is drawn, its layout is not known."""
    from matplotlib.figure import Figure

    place, figure = axes.get_subplotspec(), axes.get_figure()
    width = figure.get_figwidth() if isinstance(figure, Figure) else WIDTH
    return PANEL_HEIGHT * width / WIDTH * 2 / (place.get_gridspec().ncols if place is not None else 1)


def drawn(
    draw: Callable[[Sequence[Entry]], "Figure | None"], entries: Sequence[Entry], path: Path, width: float | None = None
) -> bool:
    """Draw and save under this module's settings, leaving matplotlib's own as they were; False if nothing was drawn.
    `width` in inches is that of a printed page, whatever the file's kind. Raises UserError for one that has no room."""
    import matplotlib

    if width is not None and not 2 <= width <= WIDEST:
        raise UserError(f"--width is {width:g}: expected inches, at least 2 and at most {WIDEST:g}")
    printed = PRINTED if width is not None or path.suffix.lower() in (".pdf", ".eps", ".ps") else {}
    sized = {"figure.figsize": (width, 4.0), "savefig.dpi": PRINTED_DPI} if width is not None else {}
    with matplotlib.rc_context({"savefig.dpi": DPI} | RC | printed | sized):  # type: ignore[arg-type]
        figure = draw(entries)
        if figure is None:
            return False
        save(figure, path)
    return True


def shorten(name: str) -> str:
    """A name cut to what a title or legend has room for."""
    return name if len(name) <= 32 else name[:31] + "…"


def legend_columns(labels: Sequence[str]) -> int:
    """How many names of a legend stand side by side."""
    each = (1.1 * LETTER * max(len(shorten(label)) for label in labels) + 5) * size(10) / 72
    return max(1, min(4, len(labels), int(page_width() / each)))


def legend_height(labels: Sequence[str]) -> float:
    """Inches that a legend takes, of a figure of the standard width; nothing for one name."""
    rows = -(-len(labels) // legend_columns(labels))
    return (0.13 + 0.22 * rows) * size(10) / 10 * WIDTH / page_width() if len(labels) > 1 else 0.0


def legend(figure: "Figure", labels: Sequence[tuple[str, Look]]) -> None:
    """Names, each with its colour and dash, in rows at the top of the figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linewidth=3 if dash == "-" else 2, linestyle=dash) for _, (colour, dash) in labels
    ]
    names = [shorten(label) for label, _ in labels]
    figure.legend(handles, names, loc="outside upper left", ncols=legend_columns(names),
                  fontsize=size(10), handlelength=1.1 if len(labels) <= len(CYCLE) else 2.2, columnspacing=1.6,
                  borderpad=0.2)  # fmt: skip

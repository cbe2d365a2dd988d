"""Which figures there are, drawn from metrics.jsonl and evals.jsonl alone.

A new plot is a `Panel` in a row of these tables, or a function, and a line in `FIGURES`. A figure without data is not
written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from r1v0.base.errors import UserError, unknown
from r1v0.report import compute, style
from r1v0.report.bars import plot_evaluations
from r1v0.report.panel_names import NAMES
from r1v0.report.panels import Line, Panel, draw_panels
from r1v0.report.series import Entry, datasets, load, parse_groups
from r1v0.report.style import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY
from r1v0.runs import runlog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = Panel("Accuracy on {data}", (Line(BLUE, held="accuracy"),), "share", y="accuracy")
REFLECTION = Panel(
    "Reflection words on {data}",
    (Line(BLUE, "reflection/frac", "reflection_frac"),),
    "share",
    y="responses",
    about="share of responses",
)

CURVES = (
    ACCURACY,
    Panel("Accuracy on {data}", (Line(PURPLE, held="accuracy"),), "share", dataset=1, y="accuracy"),
    Panel(
        "Response length",
        (Line(GREEN, "length/mean", "length", "all"), Line(SKY, "length/finished", "length_finished", "finished")),
        y="tokens",
    ),
    Panel("Training reward", (Line(ORANGE, "reward/mean"),), y="reward"),
)
LENGTH = (
    Panel(
        "Length by verdict",
        (Line(GREEN, "length/correct", "length_correct", "right"), Line(RED, "length/wrong", "length_wrong", "wrong")),
        y="tokens",
    ),
    Panel(
        "Cut off at the length limit",
        (Line(INK, "length/truncated_frac", "truncated_frac"),),
        "share",
        y="responses",
        about="share of responses",
    ),
)
HEALTH = (
    Panel("Entropy", (Line(BLUE, "policy/entropy"),), y="nats per token"),
    Panel(
        "Sampler against trainer (KL)", (Line(PURPLE, "policy/mismatch_kl"),), "log", y="nats per token", hide_zero=True
    ),
    Panel("Gradient norm", (Line(ORANGE, "policy/grad_norm"),), y="norm"),
    Panel(
        "Flat groups (no gradient)",
        (
            Line(INK, "groups/flat_frac", label="flat"),
            Line(GREEN, "groups/all_correct_frac", label="all right"),
            Line(RED, "groups/all_wrong_frac", label="all wrong"),
        ),
        "share",
        y="groups",
        about="share of groups",
    ),
    Panel(
        "Tokens clipped", (Line(SKY, "policy/clip_frac"),), "share", y="tokens", about="share of tokens", hide_zero=True
    ),
    Panel("KL to the starting model", (Line(GREEN, "policy/kl"),), y="nats per token", hide_zero=True),
)
WORDS = (REFLECTION, replace(REFLECTION, lines=(Line(PURPLE, held="reflection_frac"),), dataset=1))
PANELS = dict(zip(NAMES, (*CURVES, *LENGTH, *HEALTH, *WORDS), strict=True))
COMPARED = (*CURVES, LENGTH[0], HEALTH[0])
"""panels of the one picture that several runs get: length by verdict and entropy beside the curves"""


def _curves(entries: Sequence[Entry]) -> "Figure | None":
    return draw_panels(CURVES, entries, columns=2)


def _evals(entries: Sequence[Entry]) -> "Figure | None":
    return draw_panels(measured(entries), entries, columns=2)


def measured(entries: Sequence[Entry]) -> list[Panel]:
    """Accuracy on every dataset, with pass@k and maj@k; nothing that `curves` does not show when there are neither."""
    names = datasets(entries)
    panels = [replace(ACCURACY, lines=_sampled_lines(name, entries), dataset=i) for i, name in enumerate(names)]
    return [] if len(panels) < 3 and all(len(panel.lines) == 1 for panel in panels) else panels


def _sampled_lines(data: str, entries: Sequence[Entry]) -> tuple[Line, ...]:
    rows = [row for entry in entries for run in entry.runs for row in run.evals if row.get("dataset") == data]
    ks = {
        int(name)
        for row in rows
        for key in row
        if (name := key.removeprefix("pass_at_k/")).isdecimal() and len(name) < 6
    }
    mean = Line(BLUE, held="accuracy", label="mean")
    if max(ks, default=1) == 1:
        return (replace(mean, label=""),)
    return (
        mean,
        Line(GREEN, held=f"pass_at_k/{max(ks)}", label=f"pass@{max(ks)}"),
        Line(ORANGE, held="maj_at_k", label="majority"),
    )


FIGURES: dict[str, Callable[[Sequence[Entry]], "Figure | None"]] = {
    "curves": _curves,
    "length": lambda entries: draw_panels(LENGTH, entries, columns=2),
    "reflection": lambda entries: draw_panels(WORDS, entries, columns=2),
    "health": lambda entries: draw_panels(HEALTH, entries, columns=2),
    "evals": _evals,
    "compute": compute.draw,
}


def plot(runs: Sequence[Path], out: Path | None = None, labels: Sequence[str] | None = None) -> list[Path]:
    """Draw runs over one another, each under its folder's name or the label given. Returns the files written.

    Without `out` one run's figures go to its figures/ folder, and several runs' curves to ./compare.png. An `out` with
    a suffix is a file that gets the curves; without one it is a folder that gets every figure. Nothing logged yet
    draws nothing. Raises UserError for a folder that is no run, a damaged log, or a file that cannot be written.
    """
    if labels is None:
        return plot_groups(parse_groups(map(str, runs)), out)
    if len(labels) != len(runs) or len(set(labels)) != len(labels):
        raise UserError(f"{len(labels)} labels for {len(runs)} runs: expected one label of its own for each run")
    return plot_groups({label: [run] for label, run in zip(labels, runs, strict=True)}, out)


def plot_groups(
    groups: Mapping[str, Sequence[Path]],
    out: Path | None = None,
    panels: Sequence[str] = (),
    width: float | None = None,
) -> list[Path]:
    """Draw label -> runs; several runs under a label are drawn as their mean and range. `out` and errors as in `plot`.

    `panels` draws those of `PANELS` alone, in this order, as one picture (panels.png). `width` is that of the printed
    page, in inches: the type is then as large as on paper, and a column that is too narrow for two panels has one.
    """
    folders = [folder for runs in groups.values() for folder in runs]
    if not folders:
        raise UserError("no run to plot: give one or more run folders")
    evaluations = list(map(runlog.is_evaluation, folders))
    if all(evaluations):
        if panels:
            raise UserError(f"{folders[0]} is an evaluation, which has one figure: leave out --panels")
        return plot_evaluations(groups, out, width)
    if any(evaluations):
        one, other = folders[evaluations.index(True)], folders[evaluations.index(False)]
        raise UserError(f"{one} is an evaluation and {other} a run: draw them apart")
    entries = load(groups)
    if out is None:
        out = folders[0] / runlog.FIGURES if len(folders) == 1 else Path("compare.png")
    wanted = _wanted(out, panels, len(groups))
    return [path for path, draw in wanted.items() if style.drawn(draw, entries, path, width)]


def _wanted(out: Path, names: Sequence[str], entries: int) -> "dict[Path, Callable[[Sequence[Entry]], Figure | None]]":
    """File -> what draws it."""
    for name in names:
        if name not in PANELS:
            raise unknown("panel", name, PANELS)
    if not names and not out.suffix:
        return {out / f"{name}.png": draw for name, draw in FIGURES.items()}
    shown = [PANELS[name] for name in names] or (CURVES if entries == 1 else COMPARED)
    return {out if out.suffix else out / "panels.png": lambda found: draw_panels(shown, found, columns=2)}

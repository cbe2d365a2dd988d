"""Where the compute went: seconds by stage and tokens, per step and in all.

Decides: grading is the time that sampling did not hide; "other" is what a step's wall time holds beyond the stages.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1v0.report import style
from r1v0.report.scale import finish_axes, value_text
from r1v0.report.series import Entry, Run, aggregate, smooth, smoothing_width
from r1v0.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = {"training": ORANGE, "sampling": BLUE, "grading": PURPLE, "other": "#C4C4C4", "evaluation": GREEN}
_KEYS = {"training": "time/train_s", "sampling": "time/sample_s", "grading": "time/verify_s"}


def draw(entries: Sequence[Entry]) -> "Figure | None":
    """Seconds per step by stage, tokens sampled and trained, and the totals as one bar an entry."""
    totals = [_mean_totals(entry) for entry in entries]
    if not any(run.train("time/step_s") for entry in entries for run in entry.runs):
        return None
    figure = style.new_figure(3.9 + 0.34 * len(entries) + (0.35 if len(entries) > 1 else 0))
    grid = figure.add_gridspec(2, 2, height_ratios=[2.3, 0.5 + 0.34 * len(entries)])
    time, tokens, bars = (figure.add_subplot(spot) for spot in (grid[0, 0], grid[0, 1], grid[1, :]))
    if len(entries) == 1 and len(entries[0].runs) == 1:
        _stack(time, entries[0].runs[0])
        _tokens(tokens, entries[0].runs[0])
    else:
        _lines(time, entries, "time/step_s", "Seconds per step")
        _lines(tokens, entries, "tokens/trained", "Tokens trained per step")
    time.set_xlabel("RL step")
    tokens.set_xlabel("RL step")
    _bars(bars, entries, totals)
    return figure


def totals(run: Run) -> dict[str, float]:
    """Seconds of a run by stage."""
    found = {stage: sum(run.train(key).values()) for stage, key in _KEYS.items()}
    found["other"] = max(0.0, sum(run.train("time/step_s").values()) - sum(found.values()))
    names = dict.fromkeys(str(row.get("dataset")) for row in run.evals)
    found["evaluation"] = sum(sum(run.held_out(name, "time_s").values()) for name in names)
    return {stage: found[stage] for stage in STAGES}


def _mean_totals(entry: Entry) -> dict[str, float]:
    each = [totals(run) for run in entry.runs]
    return {stage: sum(total[stage] for total in each) / len(each) for stage in STAGES}


def _stack(axes: "Axes", run: Run) -> None:
    whole = run.train("time/step_s")
    steps = list(whole)
    parts = {stage: run.train(key) for stage, key in _KEYS.items()}
    layers = {stage: [points.get(step, 0.0) for step in steps] for stage, points in parts.items()}
    layers["other"] = [max(0.0, whole[s] - sum(points.get(s, 0.0) for points in parts.values())) for s in steps]
    used = [stage for stage in STAGES if stage in layers]
    if len(steps) == 1:
        bottom = 0.0
        for stage in used:
            axes.bar(steps, layers[stage], bottom=bottom, color=STAGES[stage], width=0.3)
            bottom += layers[stage][0]
    elif steps:
        axes.stackplot(steps, [layers[stage] for stage in used], colors=[STAGES[stage] for stage in used], linewidth=0)
    axes.set_ylabel("seconds")
    about = style.fold("colours as in the bar below; evaluations not included", 2)
    style.heading(axes, "Seconds per step", about, about.count("\n") + 1)
    finish_axes(axes, max(steps, default=1), "number", list(whole.values()))


def _tokens(axes: "Axes", run: Run) -> None:
    raw = {"sampled": run.train("tokens/sampled"), "trained": run.train("tokens/trained")}
    bold = {name: smooth(points, smoothing_width(len(points))) for name, points in raw.items()}
    colours = {"sampled": STAGES["sampling"], "trained": STAGES["training"]}
    labels = []
    for name, points in bold.items():
        style.thin_line(axes, raw[name], colours[name])
        style.line(axes, points, colours[name])
        if points:
            end = list(points.values())[-1]
            labels.append((end, f"{name} {value_text(end, 'number')}", colours[name]))
    if bold["trained"]:
        style.band(axes, bold["trained"], bold["sampled"], GREY)
    sampled, trained = (sum(raw[name].values()) for name in ("sampled", "trained"))
    about = "all were trained on"
    if trained > 1.005 * sampled:
        about = f"each was trained on {trained / sampled:.1f} times" if sampled else ""
    elif trained < 0.995 * sampled:
        about = f"{100 * (1 - trained / sampled):.0f} % of the sampled ones were not trained on"
    axes.set_ylabel("tokens")
    about = style.fold(about, 2)
    style.heading(axes, "Completion tokens per step", about, about.count("\n") + 1)
    values = [value for points in raw.values() for value in points.values()]
    finish_axes(axes, max(raw["sampled"], default=1), "number", values)
    style.end_labels(axes, labels)


def _lines(axes: "Axes", entries: Sequence[Entry], key: str, title: str) -> None:
    last, labels = 1, []
    values: list[float] = []
    for number, entry in enumerate(entries):
        colour, dash = style.look(number)
        curve = aggregate(
            [smooth(points, smoothing_width(len(points))) for points in (run.train(key) for run in entry.runs)]
        )
        if not curve.mean:
            continue
        style.line(axes, curve.mean, colour, dash=dash)
        style.band(axes, curve.low, curve.high, colour)
        end = list(curve.mean.values())[-1]
        labels.append((end, value_text(end, "number"), colour))
        last = max(last, *curve.mean)
        values += [*curve.mean.values(), *curve.high.values()]
    most = max(len(entry.runs) for entry in entries)
    axes.set_ylabel("seconds" if key.startswith("time") else "tokens")
    style.heading(axes, title, "smoothed" + (f"; mean and range of {most} runs" if most > 1 else ""))
    finish_axes(axes, last, "number", values)
    style.end_labels(axes, labels)


def _bars(axes: "Axes", entries: Sequence[Entry], totals: Sequence[dict[str, float]]) -> None:
    from matplotlib.patches import Patch

    longest = max(sum(total.values()) for total in totals)
    rows = range(len(entries), 0, -1)
    for row, total in zip(rows, totals, strict=True):
        left = 0.0
        for stage, colour in STAGES.items():
            width = total[stage]
            axes.barh(row, width, left=left, height=0.62, color=colour, edgecolor="white", linewidth=1)
            if width > 0.075 * longest:
                axes.annotate(duration(width), (left + width / 2, row), ha="center", va="center",
                              fontsize=style.size(9),
                              color="white" if stage != "other" else style.INK, fontweight="bold")  # fmt: skip
            left += width
        axes.annotate(duration(left), (left, row), xytext=(5, 0), textcoords="offset points", va="center",
                      fontsize=style.size(9),
                      annotation_clip=False)  # fmt: skip
    axes.set_yticks(list(rows), [style.shorten(entry.label) if len(entries) > 1 else "" for entry in entries])
    axes.set_xlim(0, longest)
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    # On a narrow page the legend, to the right of the title, needs the line below it.
    axes.set_title("Where the time went", pad=10 if style.page_width() >= 6.5 else 24)
    names = [stage for stage in STAGES if any(total[stage] > 0 for total in totals)]
    axes.legend([Patch(color=STAGES[stage]) for stage in names], names, loc="lower right", bbox_to_anchor=(1,
                  1), ncols=5,
                borderpad=0.4, handlelength=1, columnspacing=1.4)  # fmt: skip


def duration(seconds: float) -> str:
    """1.3 s, 41 s, 2.2 min, 12 min, 3.4 h."""
    number, unit = (
        (seconds, "s") if seconds < 99.5 else (seconds / 60, "min") if seconds < 5970 else (seconds / 3600, "h")
    )
    return f"{number:.{1 if number < 9.95 else 0}f} {unit}"

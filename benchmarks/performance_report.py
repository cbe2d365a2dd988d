"""CASE.json files become README.md and performance.png beside them. Reads only; a case that is missing is left out."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1v0.base.writing import write_atomic
from r1v0.jobs.bench.cases import OWN
from r1v0.jobs.bench.table import HEADS, cells, lines
from r1v0.report import style
from r1v0.report.table import markdown_table

MIB = 1 << 20
Rows = list[dict[str, Any]]


def write(folder: Path) -> str:
    """Write both; the page as text."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    parts = [heading(found)]
    for name, section in SECTIONS.items():
        if name in found and (text := section(found[name]["rows"])):
            parts.append(text + left_out(found[name]["rows"]))
    page = "\n\n".join(parts) + "\n"
    write_atomic(folder / "README.md", page.encode())
    plot({name: value["rows"] for name, value in found.items()}, folder / "performance.png")
    return page


def heading(found: dict[str, Any]) -> str:
    """What it was measured on; every case has its own, in its file."""
    lines_ = [
        "# Speed and memory",
        "",
        "Written by `make bench` (benchmarks/performance.py); docs/performance.md says what each case is.",
        "",
    ]
    seen = []
    for name, value in found.items():
        about = value["about"]
        peers = ", ".join(f"{peer} {version}" for peer, version in about["peers"].items() if version)
        text = (
            f"{about['cpu']}, up to {about['threads']} of {about['cpu_count']} cores, torch "
            f"{about['packages']['torch']}, "
            f"{peers or 'no peers'}, commit {(about['git_commit'] or 'unknown')[:12]}, {value['rounds']} rounds"
            + (" (a quick run: toy sizes, the figures mean nothing)" if value["quick"] else "")
        )
        if seen and seen[-1][1] == text:
            seen[-1][0].append(name)
        else:
            seen.append(([name], text))
    return "\n".join([*lines_, *(f"- {', '.join(names)}: {text}" for names, text in seen)])


def left_out(rows: Rows) -> str:
    """Contenders that could not run."""
    gone = sorted({f"{row['contender']}: {row['skipped']}" for row in rows if "skipped" in row})
    return "".join(f"\n\nLeft out: {text}." for text in gone)


def compared(title: str, text: str) -> Callable[[Rows], str]:
    """A section with a line for each contender."""

    def section(rows: Rows) -> str:
        table = markdown_table(HEADS, [cells(line) for line in lines(rows)])
        return f"## {title}\n\n{text}\n\n{table}"

    return section


def layout(rows: Rows) -> str:
    table, ratios = [], dict[str, list[float]]()
    for setting in dict.fromkeys(row["setting"] for row in rows):
        found = by_contender([row for row in rows if row["setting"] == setting])
        base = median(found["packed (r1v0)"], "seconds")
        for name, mine in found.items():
            seconds = median(mine, "seconds")
            ratios.setdefault(name, []).append(seconds / base)
            filled = mine[0]["positions"] / mine[0]["tokens"]
            cells_ = f"{seconds:.2f}", f"{filled:.2f}", f"{seconds / base:.2f}x", f"{mine[0]['gradient_error']:.0e}"
            table.append((setting, name, *cells_))
    heads = ("lengths", "layout", "seconds", "positions / tokens", "time", "gradient apart")
    note = (
        "Forward and backward of the same completions; gradients against the packed one's, largest "
        "difference over largest "
        "entry. Draw 733 has the tokens and the padding of the first comparison (11,582; 3.89). Median of "
        "the draws (least to greatest): "
        + ", ".join(f"{name} {statistics.median(x):.2f}x ({min(x):.2f} to {max(x):.2f})" for name, x in ratios.items())
        + "."
    )
    return f"## Packed training\n\n{note}\n\n{markdown_table(heads, table, 2)}"


def sparse(rows: Rows) -> str:
    table = []
    for flat in sorted({row["flat"] for row in rows}):
        mine = by_contender([row for row in rows if row["flat"] == flat])
        s, d = median(mine["sparse (r1v0)"], "seconds"), median(mine["dense"], "seconds")
        table.append((f"{flat:.0%}", f"{s:.2f}", f"{d:.2f}", f"{d / s:.2f}x"))
    heads = ("flat groups", "sparse", "dense", "dense / sparse")
    return f"## Flat groups\n\nSeconds of a training step on made-up groups.\n\n{markdown_table(heads, table, 1)}"


def head(rows: Rows) -> str:
    found = by_contender(rows)
    base = median(found["naive"], "bytes")
    table = [
        (
            name,
            f"{median(mine, 'bytes') / MIB:,.0f}",
            f"{median(mine, 'gradients') / MIB:,.0f}",
            f"{median(mine, 'bytes') / base:.2f}",
        )
        for name, mine in found.items()
    ]
    heads = ("head", "peak above inputs, MiB", "of it gradients, MiB", "of naive")
    return f"## Logprob head ({rows[0]['setting']})\n\n{markdown_table(heads, table, 1)}"


def growth(title: str, x: str) -> Callable[[Rows], str]:
    """A section of seconds against one size."""

    def section(rows: Rows) -> str:
        table = []
        for size in sorted({row["x"] for row in rows}):
            mine = [row for row in rows if row["x"] == size]
            each = statistics.median(row["seconds"] / row["tokens"] for row in mine)
            table.append(
                (
                    f"{size:,}",
                    str(len(mine)),
                    f"{median(mine, 'seconds'):.2f}",
                    f"{1 / each:,.0f}",
                    f"{1e6 * each:,.0f}",
                )
            )
        return f"## {title}\n\n{rows[0]['setting']}.\n\n" + markdown_table(
            (x, "rounds", "seconds", "tokens/s", "µs a token"), table, 1
        )

    return section


def memory(rows: Rows) -> str:
    parts = []
    for kind in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == kind]
        slope, start = line_through([(row["x"], row["bytes"] / MIB) for row in mine])
        table = [(f"{row['x']:,}", f"{row['bytes'] / MIB:,.0f}", f"{start + slope * row['x']:,.0f}") for row in mine]
        what = "tokens per completion, 16 at a time" if kind == "sampling" else "tokens a micro-batch"
        parts.append(f"{kind}\n\n{markdown_table((what, 'peak above the model, MiB', 'straight line'), table, 1)}")
    return "## Memory against tokens\n\n" + "\n\n".join(parts)


def by_contender(rows: Rows) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        found.setdefault(row["contender"], []).append(row)
    return found


def median(rows: Rows, key: str) -> float:
    return statistics.median(row[key] for row in rows)


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and start of the straight line of least squares."""
    if len({x for x, _ in points}) < 2:
        return 0.0, points[0][1]
    fit = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return fit.slope, fit.intercept


SECTIONS: dict[str, Callable[[Rows], str]] = {
    "sampling": compared(
        "Sampling",
        "Same prompts; on the random model the same length of every completion. `time a token` is relative to r1v0's, "
        "`range` that of the rounds.",
    ),
    "step": compared(
        "A whole GRPO step",
        "Sampling, rewards, gradient, update: 128 completions, micro-batches of 16 in TRL. bfloat16 is TRL's " "default, as "
        "autocast on float32 weights; in r1v0 it is bfloat16 weights beside float32 masters.",
    ),
    "layout": layout,
    "sparse": sparse,
    "head": head,
    "lengths": growth("Longer completions", "tokens per completion"),
    "groups": growth("Larger groups", "completions a group"),
    "rows": growth("More rows", "rows"),
    "memory": memory,
}  # fmt: skip


def plot(found: dict[str, Rows], path: Path) -> None:
    """Four panels: times beside the peers', and the three curves of growth."""
    import matplotlib

    with matplotlib.rc_context(style.RC):
        figure = style.new_figure(6.4)
        axes = figure.subplots(2, 2)
        compared_ = [line for name in ("step", "sampling") for line in lines(found.get(name, []))]
        bars(axes[0][0], [line for line in compared_ if ", 1 thread" not in line.setting] or compared_)
        curve(
            axes[0][1],
            found.get("lengths", []),
            "Longer completions",
            "µs a sampled token, by tokens per completion",
            lambda row: 1e6 * row["seconds"] / row["tokens"],
        )
        curve(
            axes[1][0],
            found.get("rows", []),
            "More rows",
            "sampled tokens per second, by completions at a time",
            lambda row: row["tokens"] / row["seconds"],
        )
        train = [row for row in found.get("memory", []) if row["setting"] == "training"]
        curve(
            axes[1][1],
            train,
            "Memory",
            "MiB above the model, by tokens of a micro-batch",
            lambda row: row["bytes"] / MIB,
            linear=True,
        )
        style.save(figure, path)


def bars(axes: Any, found: Sequence[Any]) -> None:
    """The best setting of each peer, as times r1v0's."""
    best: dict[tuple[str, str], Any] = {}
    for line in found:
        key = line.setting, line.contender.partition(",")[0]
        if line.contender != OWN and (key not in best or line.ratio < best[key].ratio):
            best[key] = line
    style.heading(axes, "Beside others", "time a token over r1v0's; the line at 1 is r1v0")
    names = [f"{peer}, {setting}" for setting, peer in best]
    places = range(len(best), 0, -1)
    axes.barh(places, [line.ratio for line in best.values()], color=style.BLUE, height=0.62)
    for place, line in zip(places, best.values(), strict=True):
        axes.annotate(
            f"{line.ratio:.1f}x",
            (line.ratio, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.axvline(1, color=style.INK, linewidth=1)
    axes.set_yticks(list(places), names, fontsize=7)
    axes.grid(visible=False)
    axes.set_xlim(0, 1.15 * max([line.ratio for line in best.values()], default=1))


def curve(
    axes: Any, rows: Rows, title: str, subtitle: str, value: Callable[[dict[str, Any]], float], linear: bool = False
) -> None:
    """Medians against x, with a dot each."""
    style.heading(axes, title, subtitle)
    sizes = sorted({row["x"] for row in rows})
    medians = {size: statistics.median(value(row) for row in rows if row["x"] == size) for size in sizes}
    if not medians:
        axes.set_axis_off()
        axes.text(0, 0.9, "not measured", transform=axes.transAxes, fontsize=9)
        return
    style.line(axes, medians, style.BLUE, dots=True)
    if not linear:
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
    apart = [size for size in sizes if not linear or size >= sizes[-1] / 10]  # smaller ones would overlap
    axes.set_xticks(apart, [f"{size:,}" for size in apart], rotation=0, fontsize=7.5)
    axes.set_ylim(0, 1.12 * max(medians.values()))

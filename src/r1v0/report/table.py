"""The table that `r1v0 eval` ends with."""

from collections.abc import Mapping, Sequence
from typing import Any

from r1v0.report.status import share

Row = Mapping[str, Any]


def evaluation_table(rows: Sequence[Row]) -> str:
    """Lines of aligned columns, one a dataset and template, as in evals.jsonl. Intervals are at 95 %."""
    lines = [_cells(row, rows) for row in rows]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    heads = {name: name for name in widths}
    return "\n".join(
        "  ".join(_aligned(name, line[name], widths[name]) for name in widths).rstrip() for line in [heads, *lines]
    )


def _aligned(name: str, text: str, width: int) -> str:
    return text.ljust(width) if name in ("dataset", "template") else text.rjust(width)


def _cells(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """Column -> text. A column that would say the same in every table is left out."""
    k = str(row["samples"])
    cells = {"dataset": str(row["dataset"])}
    if len({other["template"] for other in rows}) > 1:
        cells["template"] = str(row["template"])
    cells["answers"] = f"{row['problems']} x {k}"
    cells["accuracy"] = f"{row['accuracy']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    cells["strict"] = f"{row['strict_accuracy']:.3f}"
    if k != "1":
        cells[f"pass@{k}"] = f"{row['pass_at_k'][k]:.3f}"
        cells[f"maj@{k}"] = f"{row['maj_at_k']:.3f}"
    cells |= {
        "length": f"{row['length']:.0f}",
        "cut off": share(row["truncated_frac"]),
        "reflects": share(row["reflection_frac"]),
    }
    if any("gain" in other for other in rows):
        cells["gain"] = (
            f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]" if "gain" in row else "-"
        )
    return cells

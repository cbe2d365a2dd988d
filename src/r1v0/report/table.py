"""Rows of text as aligned columns: for a terminal, as Markdown and LaTeX, and the table that `r1v0 eval` ends with."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from r1v0.report.status import share

Row = Mapping[str, Any]


def evaluation_table(rows: Sequence[Row]) -> str:
    """Lines of aligned columns, one a dataset and template, as in evals.jsonl. Intervals are at 95 %."""
    lines = [_cells(row, rows) for row in rows]
    left = sum(name in ("dataset", "template") for name in lines[0])
    return text_table(list(lines[0]), [list(line.values()) for line in lines], left)


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Aligned columns for a terminal, the first `left` of them to the left."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = enumerate(zip(row, widths, strict=True))
        return "  ".join(cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in cells).rstrip()

    return "\n".join(map(line, (heads, *rows)))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """The same as Markdown."""
    rule = ["---" if i < left else "---:" for i in range(len(heads))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, rule, *rows))


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
         ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\char34}", "[": "{[}", "]": "{]}"}  # fmt: skip
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def latex_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """The same as LaTeX's own tabular, which needs no package."""
    columns = "".join("l" if i < left else "r" for i in range(len(heads)))
    lines = [" & ".join(map(latex_text, row)) + r" \\" for row in (heads, *rows)]
    body = [r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"])


def latex_text(text: str) -> str:
    """A text as LaTeX prints it. A bracket at the start of a row would be read as an option of the row before, and the
    minus of a number is longer than a hyphen."""
    escaped = "".join(LATEX.get(character, character) for character in text if character.isprintable())
    return re.sub(r"(?<![\w.)-])-(?=[\d.])", "$-$", escaped)


def _cells(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """Column -> text. A column that would say the same in every table is left out."""
    k = str(row["samples"])
    cells = {"dataset": str(row["dataset"])}
    if len({other["template"] for other in rows}) > 1:
        cells["template"] = str(row["template"])
    cells["answers"] = f"{row['problems']} x {k}"
    cells["accuracy"] = f"{row['accuracy']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    for name in ("boxed", "last"):  # the accuracy under either of reward.extraction's choices, beside the run's own
        values = [other.get(f"accuracy_{name}") for other in rows]
        own = name == "boxed" and values == [other["accuracy"] for other in rows]
        if not own and any(value is not None for value in values):
            value = row.get(f"accuracy_{name}")
            cells[name] = "-" if value is None else f"{value:.3f}"
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

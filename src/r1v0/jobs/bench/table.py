"""Rows of measurements become a table: medians of seconds a token, and ratios to r1v0.

Decides: only medians of the same run are compared, and of a peer's settings the best one. A ratio is of medians; its
range is that of the rounds, contender against r1v0 in the same round.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1v0.jobs.bench.cases import OWN


@dataclass(frozen=True)
class Line:
    """One contender in one setting. Seconds and tokens are medians; `ratio` is its seconds a token over r1v0's, `low`
    and `high` the least and the greatest of the rounds."""

    setting: str
    contender: str
    rounds: int
    seconds: float
    tokens: float
    tokens_per_s: float
    ratio: float
    low: float
    high: float


def lines(rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    """A line for each (setting, contender), in the order of first appearance."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "seconds" in row:
            groups.setdefault((setting_of(row), row["contender"]), []).append(row)
    return [_line(setting, name, mine, groups.get((setting, OWN), [])) for (setting, name), mine in groups.items()]


def setting_of(row: Mapping[str, Any]) -> str:
    """The row's setting, with its share of flat groups where it has one."""
    return str(row["setting"]) + (f", {row['flat']:.0%} flat" if "flat" in row else "")


def _line(setting: str, name: str, rows: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> Line:
    cost = {row["round"]: row["seconds"] / row["tokens"] for row in rows}
    own = {row["round"]: row["seconds"] / row["tokens"] for row in base}
    each = [cost[number] / own[number] for number in cost if number in own] or [float("nan")]
    ratio = statistics.median(cost.values()) / statistics.median(own.values()) if own else float("nan")
    return Line(
        setting, name, len(rows),
        statistics.median(row["seconds"] for row in rows), statistics.median(row["tokens"] for row in rows),
        1 / statistics.median(cost.values()), ratio, min(each), max(each),
    )  # fmt: skip


HEADS = ("setting", "contender", "rounds", "seconds", "tokens", "tokens/s", "time a token", "range")


def cells(line: Line) -> tuple[str, ...]:
    """The line as texts, under HEADS."""
    ratio = ("", "") if math.isnan(line.ratio) else (f"{line.ratio:.1f}x", f"{line.low:.1f} to {line.high:.1f}")
    numbers = (str(line.rounds), f"{line.seconds:.2f}", f"{line.tokens:,.0f}", f"{line.tokens_per_s:,.0f}")
    return (line.setting, line.contender, *numbers, *ratio)

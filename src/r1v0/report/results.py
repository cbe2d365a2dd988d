"""What runs reached, setting by setting: the rows of `r1v0 table`, as Markdown, LaTeX or CSV.

Decides: several seeds give a mean with Student's interval over the seeds: how much another seed would differ, on these
problems. One seed gives its evaluation's own interval over problems, and the row says so. Seeds are compared at one
step, the furthest that any of them was evaluated at; those that are not there yet are left out and told.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1v0.base.errors import UserError, unknown
from r1v0.base.means import mean
from r1v0.base.stats import mean_interval
from r1v0.report.compute import totals
from r1v0.report.series import Entry, Run, datasets
from r1v0.report.status import amount, share
from r1v0.report.table import latex_table, markdown_table

Interval = tuple[float, float, float]
"""a value, and the bounds of its 95 % interval"""
NOTHING = "-"


@dataclass(frozen=True)
class Result:
    """One row: a setting on a dataset after `step`. Length in tokens of an answer; tokens sampled in training, and
    hours of training and evaluations, are means per run."""

    setting: str
    dataset: str
    seeds: int
    step: int
    accuracy: Interval | None
    gain: Interval | None
    over: str
    """what the intervals are over: "seeds" or "problems" """
    length: float | None
    cut_off: float | None
    tokens: float
    hours: float


def results(entries: Sequence[Entry], wanted: Sequence[str] = ()) -> tuple[list[Result], list[str]]:
    """The rows of all entries on each dataset (those `wanted`, else all), and lines about what was left out.

    Raises UserError for a dataset that nobody evaluated, and where nothing is evaluated at all.
    """
    known = datasets(entries)
    if not known:
        raise UserError("these runs have no evaluation yet (eval.on may be []): a table compares evaluations")
    for name in wanted:
        if name not in known:
            raise unknown("dataset", name, known)
    rows, notes = list[Result](), dict[str, None]()
    for name in wanted or known:
        for entry in entries:
            steps = [max(run.held_out(name, "accuracy"), default=-1) for run in entry.runs]
            furthest = max(steps)
            runs = [run for run, step in zip(entry.runs, steps, strict=True) if step == furthest]
            if furthest < 0:
                notes[f"{entry.label}: no evaluation on {name} yet, left out"] = None
                continue
            if behind := [step for step in steps if step < furthest]:
                notes[
                    f"{entry.label}: {len(behind)} of {len(steps)} runs have no evaluation at step {furthest} yet, left out"
                ] = None
            rows.append(_result(entry.label, name, runs, furthest))
    return rows, list(notes)


def _result(setting: str, dataset: str, runs: Sequence[Run], step: int) -> Result:
    def at(run: Run, key: str) -> float | None:
        return run.held_out(dataset, key).get(step)

    def average(values: Sequence[float | None]) -> float | None:
        found = [value for value in values if value is not None]
        return mean(found) if found else None

    curves = [run.held_out(dataset, "accuracy") for run in runs]
    gains = [curve[step] - curve[min(curve)] for curve in curves]
    alone = len(runs) == 1
    if alone:
        accuracy = _own(at(runs[0], "accuracy"), at(runs[0], "ci_low"), at(runs[0], "ci_high"))
        gain = _own(at(runs[0], "gain"), at(runs[0], "gain_low"), at(runs[0], "gain_high"))
    else:
        value, low, high = mean_interval([curve[step] for curve in curves])
        accuracy, gain = (value, max(0.0, low), min(1.0, high)), mean_interval(gains)
    return Result(
        setting, dataset, len(runs), step, accuracy, gain if step else None, "problems" if alone else "seeds",
        average([at(run, "length") for run in runs]), average([at(run, "truncated_frac") for run in runs]),
        mean(sum(run.train("tokens/sampled").values()) for run in runs),
        mean(sum(totals(run).values()) / 3600 for run in runs),
    )  # fmt: skip


def _own(value: float | None, low: float | None, high: float | None) -> Interval | None:
    return None if value is None or low is None or high is None else (value, low, high)


HEADS = (
    "setting", "dataset", "seeds", "step", "accuracy [95 %]", "gain [95 %]", "interval over", "length", "cut off",
    "tokens", "hours",
)  # fmt: skip
NUMBERS = (
    "setting", "dataset", "seeds", "step", "accuracy", "accuracy_low", "accuracy_high", "gain", "gain_low",
    "gain_high", "interval_over", "length", "cut_off", "tokens", "hours",
)  # fmt: skip


def written(rows: Sequence[Result], form: str) -> str:
    """The rows as "markdown", "latex" or "csv", which has every number in full; with its last line break."""
    if form == "csv":
        return _csv(rows)
    table: Callable[..., str] = latex_table if form == "latex" else markdown_table
    return table(HEADS, [_texts(row) for row in rows]) + "\n"


def _texts(row: Result) -> list[str]:
    return [
        row.setting, row.dataset, str(row.seeds), str(row.step), _interval(row.accuracy, ""), _interval(row.gain, "+"),
        row.over, amount(row.length), share(row.cut_off), amount(row.tokens),
        f"{row.hours:.2f}" if row.hours >= 0.1 else f"{row.hours:.2g}",
    ]  # fmt: skip


def _interval(found: Interval | None, sign: str) -> str:
    if found is None:
        return NOTHING
    value, low, high = (f"{number:{sign}.3f}" for number in found)
    return f"{value} [{low}, {high}]"


def _csv(rows: Sequence[Result]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NUMBERS)
    for row in rows:
        writer.writerow([
            row.setting, row.dataset, row.seeds, row.step, *(row.accuracy or [None] * 3), *(row.gain or [None] * 3),
            row.over, row.length, row.cut_off, row.tokens, row.hours,
        ])  # fmt: skip
    return text.getvalue()

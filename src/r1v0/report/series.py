"""Numbers of finished or running runs, as the figures need them.

Decides: a curve is a dict from step to value; what is missing or null is simply not in it. Several runs under one
label (seeds) become their mean with the lowest and highest of them, on the steps that all of them have.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError
from r1v0.report.groups import by_settings, model_and_data
from r1v0.runs import records, runlog

Points = dict[int, float]
LARGEST = 1e300  # so that sums and differences of some are numbers too


@dataclass(frozen=True)
class Run:
    """One run's logs. Nested evaluation values are flat here: pass_at_k/8."""

    metrics: list[dict[str, Any]]
    evals: list[dict[str, Any]]

    def train(self, key: str) -> Points:
        """A metric by step; of a step logged twice the later row counts."""
        return _points(self.metrics, key)

    def held_out(self, dataset: str, key: str) -> Points:
        """An evaluation value of one dataset by step."""
        return _points([row for row in self.evals if row.get("dataset") == dataset], key)


@dataclass(frozen=True)
class Entry:
    """What one colour stands for: a label and its runs (several: seeds of the same run)."""

    label: str
    runs: list[Run]


@dataclass(frozen=True)
class Curve:
    """A line with its band; `low` and `high` are empty where there is none."""

    mean: Points
    low: Points
    high: Points


def parse_groups(arguments: Iterable[str]) -> dict[str, list[Path]]:
    """`RUN`, `label=RUN` or `label=RUN,RUN` (seeds) of the command line as label -> run folders.

    A folder that holds run folders stands for all of them: under a label as one group, else as a group for each of
    their settings. Without a label the folder's name is taken, with as much of the path before it as tells it from the
    others. Raises UserError for a folder without a run.
    """
    named = _named(arguments)
    plain = iter(_short_names([Path(argument) for given, argument, _ in named if given is None]))
    groups: dict[str, list[Path]] = {}
    for given, _, runs in named:
        name = next(plain) if given is None else given
        split = by_settings(runs) if given is None and not any(map(runlog.is_evaluation, runs)) else {"": runs}
        for setting, found in split.items():
            _add(groups, ": ".join(part for part in (name if len(named) > 1 else "", setting) if part) or name, found)
    return groups


def parse_settings(arguments: Iterable[str]) -> dict[str, list[Path]]:
    """The same arguments, but all runs without a label are grouped together, by their settings alone: where those of
    all are the same, under their model and data. Raises UserError as `parse_groups`, and for a run given twice."""
    named = _named(arguments)
    runs = [run for given, _, found in named if given is None for run in found]
    places = [run.resolve() for _, _, found in named for run in found]
    if twice := next((run for run in places if places.count(run) > 1), None):
        raise UserError(f"{twice} is given twice: its figures would count as those of two seeds; give each run once")
    groups: dict[str, list[Path]] = {}
    for setting, found in by_settings(runs).items():
        _add(groups, setting or model_and_data(found[0]), found)
    for given, _, found in named:
        if given is not None:
            _add(groups, given, found)
    return groups


def _add(groups: dict[str, list[Path]], label: str, runs: list[Path]) -> None:
    if label in groups:
        raise UserError(f"the label '{label}' is given twice: expected each label once, its runs joined by commas")
    groups[label] = runs


def _named(arguments: Iterable[str]) -> list[tuple[str | None, str, list[Path]]]:
    """The label, if there is one, the argument and its run folders."""
    named: list[tuple[str | None, str, list[Path]]] = []
    for argument in arguments:
        label, equals, rest = argument.partition("=")
        if not equals or Path(argument).exists():
            named.append((None, argument, _runs_in(Path(argument))))
            continue
        folders = [Path(part) for part in rest.split(",") if part.strip()]
        if not label.strip() or not folders:
            raise UserError(f"'{argument}' names no runs: expected RUN or label=RUN[,RUN...]")
        named.append((label.strip(), argument, [run for folder in folders for run in _runs_in(folder)]))
    return named


def load(groups: Mapping[str, Sequence[Path]]) -> list[Entry]:
    """Read the logs of label -> run folders."""
    return [Entry(label, [_load(folder) for folder in folders]) for label, folders in groups.items()]


def datasets(entries: Sequence[Entry]) -> list[str]:
    """Evaluated datasets in the order of eval.on: the first is "accuracy", the second "hard accuracy"."""
    rows = (row for entry in entries for run in entry.runs for row in run.evals)
    return list(dict.fromkeys(str(row.get("dataset")) for row in rows))


def aggregate(curves: Sequence[Points]) -> Curve:
    """Mean, lowest and highest of several curves on the steps they share; one curve is its own mean, without a band."""
    curves = [curve for curve in curves if curve]
    if len(curves) < 2:
        return Curve(curves[0] if curves else {}, {}, {})
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))

    def across(fold: Callable[[list[float]], float]) -> Points:
        return {step: fold([curve[step] for curve in curves]) for step in steps}

    return Curve(across(lambda values: sum(values) / len(values)), across(min), across(max))


def smooth(points: Points, width: int) -> Points:
    """Centred running mean with weights that fall linearly to 0 at `width` points away, shortened at both ends."""
    values = list(points.values())
    smoothed = {}
    for i, step in enumerate(points):
        near = range(max(0, i - width + 1), min(len(values), i + width))
        weights = [width - abs(i - j) for j in near]
        smoothed[step] = sum(w * values[j] for w, j in zip(weights, near, strict=True)) / sum(weights)
    return smoothed


def smoothing_width(count: int) -> int:
    """How far `smooth` reaches for a curve of this many points: a tenth of it, but 1 (nothing) for a short one."""
    return max(1, min(25, count // 10))


def _points(rows: list[dict[str, Any]], key: str) -> Points:
    found = {row["step"]: _number(row.get(key)) for row in rows}
    return {step: found[step] for step in sorted(found) if math.isfinite(found[step])}


def _number(value: Any) -> float:
    """NaN, which is not drawn, for what is not a number and for those whose differences no float can hold."""
    return float(value) if isinstance(value, int | float) and abs(value) <= LARGEST else math.nan


def _load(folder: Path) -> Run:
    return Run(records.read_metrics(folder), [_flat(row) for row in records.read_evals(folder)])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}/{name}": entry for name, entry in value.items()})
        else:
            flat[key] = value
    return flat


def _runs_in(folder: Path) -> list[Path]:
    if folder.is_dir() and not runlog.is_run(folder):
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and runlog.is_run(path))
        if inside:
            return inside
    runlog.need_run(folder)
    return [folder]


def _short_names(folders: list[Path]) -> list[str]:
    """The shortest ends of the paths that differ from one another."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while depth < max((len(p) for p in parts), default=0) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]

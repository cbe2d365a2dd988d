"""What a record says about the machinery: whether the log is whole, where the time went, what is on the disk."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from r1v0.base.stats import numbers
from r1v0.base.writing import amount_of, free_bytes
from r1v0.jobs.doctor.checks import Finding, ok, problem, warning
from r1v0.jobs.doctor.record import Record
from r1v0.report.status import clock, share
from r1v0.runs import runlog
from r1v0.runs.manifest import checkpoints_in, damage

SAME = ("r1v0", "git_commit", "python", "cpu", "threads", "device", "platform")
"""what should be equal in all parts of a resumed run, beside the packages' versions"""


def files(record: Record) -> Iterator[Finding]:
    """Files that cannot be read, and a run that has not begun."""
    for name in record.damaged:
        yield problem("damaged file", f"{name} holds something unreadable; it was left out here")
    if not record.metrics:
        yield warning("progress", "no training step is logged yet")


def steps(record: Record) -> Iterator[Finding]:
    """Steps that are missing or stand twice, and how far the run is."""
    if not record.metrics:
        return
    found = Counter(int(row["step"]) for row in record.metrics)
    last, total = max(found), record.config.steps
    count = last - sum(step > 0 for step in found)
    missing = list(
        islice((step for step in range(1, last + 1) if step not in found), 9)
    )  # the first: a step may be 999999999
    doubled = [step for step, count in sorted(found.items()) if count > 1]
    if missing:
        yield problem(
            "resume gap",
            f"{count} steps are missing in {runlog.METRICS}: {_some(missing)}. The curves have holes; "
            "somebody cut the file, or two runs wrote to it",
        )
    if doubled:
        yield problem(
            "resume gap",
            f"{len(doubled)} steps stand twice in {runlog.METRICS}: {_some(doubled)}. "
            "Two runs wrote to this folder, or a release before 0.2 resumed it",
        )
    at_evals = [(row["step"], str(row.get("dataset"))) for row in record.evals]
    if len(at_evals) != len(set(at_evals)):
        yield problem("resume gap", f"evaluations stand twice in {runlog.EVALS}")
    if last < total:
        newest = _newest(record.folder)
        how = f"go on by --resume {record.folder}" if newest else "there is no checkpoint to go on from"
        yield warning("progress", f"{last} of {total} steps are done; {how}")
    elif not missing and not doubled:
        yield ok("progress", f"all {total} steps are there, each once")


def parts(record: Record) -> Iterator[Finding]:
    """On what the parts of a resumed run ran."""
    resumed = record.env.get("resumed")
    later = [part for part in resumed if isinstance(part, Mapping)] if isinstance(resumed, list) else []
    if not later:
        return
    first = record.env
    differ: dict[str, str] = {}
    for part in later:
        for name, (was, now) in _differences(first, part).items():
            differ[name] = f"{name}: {was} to {now} after step {part.get('after_step')}"
    at = ", ".join(str(part.get("after_step")) for part in later[:6]) + (", ..." if len(later) > 6 else "")
    if differ:
        yield warning(
            "resumed",
            f"{len(later)} times (after step {at}), not always on the same machine: {'; '.join(differ.values())}. "
            "Do not expect the numbers of an uninterrupted run to the last digit",
        )
    else:
        yield ok("resumed", f"{len(later)} times (after step {at}), on the same machine with the same versions")


def checkpoints(record: Record) -> Iterator[Finding]:
    """Whether the newest checkpoint is whole."""
    newest = _newest(record.folder)
    if newest is None:
        return
    wrong = damage(newest)
    if wrong:
        yield problem(
            "checkpoint",
            f"the newest, {newest.name}, is damaged ({wrong}): --resume takes the one before it. Look at the disk",
        )
    else:
        yield ok("checkpoint", f"the newest, {newest.name}, is whole")


def time_split(record: Record) -> Iterator[Finding]:
    """Where the seconds went, and what would save some."""
    sampling, verifying, training, whole = (
        record.total(f"time/{name}_s") for name in ("sample", "verify", "train", "step")
    )
    evaluating = sum(numbers(record.evals, "time_s"))
    if not whole:
        return
    spent = whole + evaluating
    other = max(0.0, whole - sampling - verifying - training)
    text = (
        f"{clock(spent)}: sampling {share(sampling / spent)}, grading {share(verifying / spent)}, training "
        f"{share(training / spent)}, "
        f"evaluating {share(evaluating / spent)}, other {share(other / spent)}"
    )
    advice = [
        words
        for wrong, words in (
            (verifying > 0.1 * sampling, "grading holds sampling up: more reward.workers"),
            (evaluating > 0.4 * spent, "evaluate less: a larger eval.every, or eval.max_problems"),
            (other > 0.2 * whole, "much time is spent outside of sampling and training: is the disk slow?"),
        )
        if wrong
    ]
    yield Finding("warning" if advice else "ok", "time", "; ".join([text, *advice]))


def disk(record: Record) -> Iterator[Finding]:
    """What the run takes on the disk, and whether another checkpoint fits."""
    sizes = {name: _size(record.folder / name) for name in (runlog.CHECKPOINTS, runlog.ROLLOUTS)}
    count = len(checkpoints_in(record.folder))
    each, free = sizes[runlog.CHECKPOINTS] // max(1, count), free_bytes(record.folder / runlog.METRICS)
    text = (
        f"{amount_of(sizes[runlog.CHECKPOINTS])} in {count} checkpoints, {amount_of(sizes[runlog.ROLLOUTS])} of "
        "rollouts"
    )
    unfinished = not record.metrics or int(record.metrics[-1]["step"]) < record.config.steps
    if unfinished and 0 <= free < 2 * each:
        yield problem("disk", f"{text}; {amount_of(free)} are free, less than two checkpoints need: make room")
    else:
        yield ok("disk", text)


def _newest(folder: Path) -> Path | None:
    found = checkpoints_in(folder)
    return found[-1] if found else None


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def _differences(first: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What two environments differ in: name -> (was, now)."""
    pairs = {name: (first.get(name), part.get(name)) for name in SAME if name in part}
    was, now = first.get("packages"), part.get("packages")
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        pairs |= {str(name): (was.get(name), now[name]) for name in now}
    return {name: (_short(a), _short(b)) for name, (a, b) in pairs.items() if a != b}


def _short(value: Any) -> str:
    return value[:24] if isinstance(value, str) else json.dumps(value)[:24]


OPERATIONS: tuple[Callable[[Record], Iterator[Finding]], ...] = (
    files,
    steps,
    parts,
    checkpoints,
    time_split,
    disk,
)

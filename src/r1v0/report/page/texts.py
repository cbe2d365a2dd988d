"""What a model wrote, chosen to fit on a page: answers before and after training, and rollouts of the training steps.

Decides: held-out problems are chosen evenly and keep all their samples; of the training steps at most MOST_STEPS are
read, chosen evenly, and of each step whole groups, evenly again, because a rollout is read beside those of its group.
A very long text loses its middle. Whatever is left out is told.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError
from r1v0.base.stats import number
from r1v0.runs import runlog
from r1v0.runs.written import (
    FILTERS,
    Pair,
    TrainingRollout,
    Written,
    answers_at,
    marks,
    pairs,
    rollouts_at,
    written_steps,
)

MOST_STEPS = 40
HEAD, TAIL = 4000, 2000
"""characters that stay of a text longer than both"""
NAMES = list(FILTERS)
_HIDDEN = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
Item = dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """Items for the page's script, problem by problem, and what to say of them."""

    items: list[Item]
    notes: list[str]


def inline_json(value: Any) -> str:
    """JSON that may stand inside a <script>: no character that a page would read as markup or a script as a new line,
    no half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_HIDDEN)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def texts_of(runs: Sequence[tuple[str, Path]], room: int) -> Texts:
    """Texts of (name, run folder), in about `room` bytes of JSON at most, the same for each run."""
    items: list[Item] = []
    notes = []
    for i, (name, folder) in enumerate(runs):
        share = max(0, room) // len(runs)
        held, told = _held_out(i, folder, share // 2)
        trained, more = _training(i, folder, share - sum(map(_size, held)))
        items += held + trained
        said = "; ".join(told + more) or "no texts in the run's folder"
        notes.append(f"{name}: {said}" if len(runs) > 1 else said)
    if any(_cut_in(item) for item in items):
        notes.append(
            f"texts of more than {HEAD + TAIL:,} characters are shown without their middle, and searched without it"
        )
    return Texts(items, notes)


def evenly(things: Sequence[Any], count: int) -> list[Any]:
    """`count` of the things at equal distances, the first and the last among them (of one, the last)."""
    if count >= len(things):
        return list(things)
    if count < 2:
        return list(things[-1:]) * count
    return [things[round(i * (len(things) - 1) / (count - 1))] for i in range(count)]


def fitting(items: Sequence[Item], room: int) -> list[Item]:
    """As many of the items, chosen evenly, as fit into `room` bytes of JSON."""
    sizes = list(map(_size, items))
    count = len(items)
    chosen = range(count)
    while count and sum(sizes[i] for i in chosen) > room:
        count = min(count - 1, count * room // max(1, sum(sizes[i] for i in chosen)))
        chosen = evenly(range(len(items)), max(0, count))  # type: ignore[assignment]
    return [items[i] for i in chosen]


def _held_out(run: int, folder: Path, room: int) -> tuple[list[Item], list[str]]:
    """The last evaluation's answers beside those of the first."""
    steps = written_steps(folder, runlog.ANSWERS)
    if not steps:
        return [], []
    first, last = steps[0], steps[-1]
    try:
        after = answers_at(folder, last)
        before = answers_at(folder, first) if first < last else []
    except UserError as error:
        return [], [str(error)]
    grouped: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs(before, after):
        grouped.setdefault((pair.after.dataset, pair.after.problem), []).append(pair)
    items = [_item(run, "held out", last, first if before else None, found) for found in grouped.values()]
    chosen = fitting(items, room)
    return chosen, [_told(len(chosen), len(items), "held-out problems", runlog.ANSWERS)]


def _training(run: int, folder: Path, room: int) -> tuple[list[Item], list[str]]:
    """Groups of rollouts of training steps."""
    steps = written_steps(folder, runlog.ROLLOUTS)
    read = evenly(steps, MOST_STEPS)
    items: list[Item] = []
    there, problems = 0, []
    for i, step in enumerate(read):
        share = (room - sum(map(_size, items))) // (len(read) - i)
        try:
            found = rollouts_at(folder, step)
        except UserError as error:
            problems.append(str(error))
            continue
        there += len(found)
        items += _groups(run, step, found, share)
    if not steps:
        return [], []
    count = sum(len(item["texts"]) for item in items)
    of = f"rollouts of all {len(steps):,} training steps"
    if len(read) < len(steps):
        of = f"rollouts of {len(read)} of the {len(steps):,} training steps"
    return items, [_told(count, there, of, runlog.ROLLOUTS, len(read) < len(steps)), *problems]


def _told(shown: int, there: int, what: str, folder: str, more: bool = False) -> str:
    """What is shown of what is there; `more`: of that is a choice too."""
    if shown < there:
        return f"{shown:,} of the {there:,} {what}, as many as fit on this page (the rest is in {folder}/)"
    return f"all {there:,} {what}" + (f" (the rest is in {folder}/)" if more else "")


def _groups(run: int, step: int, found: Sequence[TrainingRollout], room: int) -> list[Item]:
    grouped: dict[int, list[Pair]] = {}
    for rollout in found:
        grouped.setdefault(rollout.group, []).append(Pair(None, rollout))
    items = [_item(run, "training", step, None, group) for group in grouped.values()]
    chosen = fitting(items, room)
    if chosen or not items:
        return chosen
    # Not even one group fits: some of the last one's rollouts.
    group = items[-1]
    per = max(1, _size(group) // len(group["texts"]))
    texts = evenly(group["texts"], room // per)
    return [{**group, "texts": texts}] if texts else []


def _item(run: int, kind: str, step: int, before: int | None, found: Sequence[Pair]) -> Item:
    """A problem with its texts, in the names that page.js reads."""
    first = found[0].after
    return {
        "run": run,
        "kind": kind,
        "step": step,
        "since": before,
        "dataset": first.dataset,
        "question": _shortened(first.question),
        "gold": _shortened(first.gold),
        "texts": [
            {
                "marks": [NAMES.index(name) for name in marks(pair)],
                "before": None if pair.before is None else _text(pair.before),
                "after": _text(pair.after),
            }
            for pair in found
        ],
    }


def _text(text: Written) -> dict[str, Any]:
    return {
        "text": _shortened(text.completion),
        "read": None if text.extracted is None else _shortened(text.extracted),
        "right": text.correct,
        "reward": number(text.reward),
        "tokens": text.tokens,
        "cut": text.cut_off,
        "why": text.why[:HEAD] or text.failure[:HEAD],
    }


def _shortened(text: str) -> str | list[Any]:
    """The text, or [its head, how many characters are left out, its tail]."""
    return text if len(text) <= HEAD + TAIL else [text[:HEAD], len(text) - HEAD - TAIL, text[-TAIL:]]


def _cut_in(item: Item) -> bool:
    parts = [part for text in item["texts"] for part in (text["before"], text["after"]) if part]
    return any(isinstance(part["text"], list) for part in parts)


def _size(item: Item) -> int:
    return len(inline_json(item).encode("utf-8")) + 1

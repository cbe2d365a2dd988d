"""What a model wrote, in lines: for `r1v0 read`, and one pair at the end of a run.

Decides: a model's text is never trusted: what does not print is escaped, and the text is indented, so that it can
neither steer a terminal nor pass for a line of ours. The pair at a run's end is found by rule, not by chance: of the
problems that are newly right with a finished answer, one that reflects if there is any, and of those the shortest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from r1v0.base.errors import UserError
from r1v0.base.shown import shown
from r1v0.report.status import Status, amount
from r1v0.runs import runlog
from r1v0.runs.written import FILTERS, Answer, Pair, Written, answers_at, file_of, pairs, written_steps

TEXT = "    "
"""before each line of a model's text"""
LOOKED_AT = 50
"""short answers that are searched for one that reflects, at a run's end"""
MOST_BYTES = 16 << 20
"""of a packed file of answers that is read at a run's end"""
HEAD, TAIL = 240, 160
"""characters that stay of a long text at a run's end"""


class Line(NamedTuple):
    """A line to show: `head` stands before its first row, and as many columns stay empty before the others. `written`:
    a model's words, where a search is marked."""

    head: str
    text: str
    style: str = ""
    written: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What is read at once: texts to one problem, each under its heading, the oldest first."""

    title: str
    question: str
    gold: str
    texts: Sequence[tuple[str, Written]]
    rewards: Sequence[float | None] = ()


def lines_of(entry: Entry) -> list[Line]:
    """The entry in lines, every text whole."""
    lines = [
        Line("", shown(entry.title), "bold"),
        *_field("question  ", entry.question),
        *_field("gold      ", entry.gold),
    ]
    if entry.rewards:
        lines.append(Line("rewards   ", "  ".join(map(reward, entry.rewards))))
    for heading, text in entry.texts:
        style = "yellow" if text.failure else "green" if text.correct else "red"
        lines += [Line("", ""), Line("", f"{shown(heading)}: {verdict(text, always=bool(entry.rewards))}", style)]
        lines += [Line(TEXT, row, written=True) for row in _rows(text.completion)]
    return lines


def plain(lines: Sequence[Line]) -> str:
    """Lines as text, none folded."""
    return "\n".join((line.head + line.text).rstrip() for line in lines)


def verdict(text: Written, always: bool = False) -> str:
    """right, read as 17, 24 tokens, reflects. The reward is told where it is another number than the verdict, or
    `always`."""
    pieces = ["right" if text.correct else "wrong"]
    if text.failure:
        pieces = [f"not graded ({shown(text.failure)}{': ' if text.why else ''}{shown(text.why)})"]
    pieces.append("no answer found" if text.extracted is None else f"read as {shown(text.extracted) or 'nothing'}")
    if always or text.reward != text.correct:
        pieces.append(f"reward {reward(text.reward)}")
    pieces.append(f"{text.tokens} token{'' if text.tokens == 1 else 's'}")
    pieces += [name for name in ("cut off", "reflects") if FILTERS[name](Pair(None, text))]
    return ", ".join(pieces)


def reward(value: float | None) -> str:
    """A reward in a word; one that was not finite is null in the file."""
    return "not finite" if value is None else amount(value)


def telling_pair(folder: Path, datasets: Sequence[str]) -> Pair | None:
    """The pair that a run's end shows, of the first of `datasets` that has any; None where none has. Raises UserError
    for damaged files."""
    steps = written_steps(folder, runlog.ANSWERS)
    if len(steps) < 2 or any(_size(folder, step) > MOST_BYTES for step in (steps[0], steps[-1])):
        return None
    before, after = answers_at(folder, steps[0]), answers_at(folder, steps[-1])
    return next((pair for name in datasets if (pair := _telling(_of(before, name), _of(after, name)))), None)


def closing_texts(status: Status) -> dict[str, str]:
    """What a run's end shows of a problem before and after; nothing where there is no such problem, or anything is
    wrong with the files: a run that has ended well ends well."""
    try:
        pair = telling_pair(status.out, status.datasets()) if status.started is not None and status.out else None
    except (UserError, OSError):
        return {}
    if pair is None or pair.before is None:
        return {}
    return {
        "question": _short(pair.after.question),
        "before": f"{_short(pair.before.completion)} (wrong)",
        "after": f"{_short(pair.after.completion)} (right)",
    }


def _telling(before: Sequence[Answer], after: Sequence[Answer]) -> Pair | None:
    found = [pair for pair in pairs(before, after) if FILTERS["newly right"](pair) and not pair.after.cut_off]
    short = sorted(found, key=lambda pair: (pair.after.tokens, pair.after.problem, pair.after.sample))[:LOOKED_AT]
    return next((pair for pair in short if pair.after.reflects), short[0] if short else None)


def _of(answers: Sequence[Answer], dataset: str) -> list[Answer]:
    return [answer for answer in answers if answer.dataset == dataset]


def _size(folder: Path, step: int) -> int:
    return file_of(folder, runlog.ANSWERS, step).stat().st_size


def _short(text: str) -> str:
    """A text on one line, its middle left out where it is long."""
    line = shown(" ".join(text.split()))
    return line if len(line) <= HEAD + TAIL + 5 else f"{line[:HEAD]} ... {line[-TAIL:]}"


def _field(head: str, text: str) -> list[Line]:
    rows = _rows(text)
    return [Line(head if i == 0 else " " * len(head), row, written=True) for i, row in enumerate(rows)]


def _rows(text: str) -> list[str]:
    """Lines of an untrusted text."""
    return [shown(row, keep="\t") for row in text.split("\n")]

"""Rows -> problems: what is left out and said so, and in which order the rest comes.

Decides: one scan at the start looks at every row (1 to 3 s for 395k rows), and after that rows become problems only
when they are drawn. A malformed row (no question, no answer to be found) is left out and reported with its place; from
1 % of the rows on, the run stops. A problem that is in an evaluation set is dropped, by equality of `normal`.

The order is a fresh shuffle each epoch, keyed by (seed, epoch): problem number `index` is the same whenever it is asked
for, so a resumed run needs no state of the data.
"""

import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import accumulate

from r1v0.base import keys
from r1v0.base.errors import UserError
from r1v0.tasks.math import gold
from r1v0.tasks.reading.source import ID_COLUMNS, LEVEL_COLUMN, Columns
from r1v0.tasks.reading.tables import Table
from r1v0.types import Problem

TOLERATED = 0.01
MAX_TEXT = 100_000
"""Longest question or answer, in characters: one row must not decide how much memory sampling takes."""
_SHOWN = 3

# What does not change a problem: line breaks, spaces and spacing macros, math delimiters, sizes of brackets and styles.
_SPACING = re.compile(
    r"\s+|\\\\|[$~]|\\[][(),;:!> "
    r"]|\\(?:left|right|quad|qquad|displaystyle|textstyle|limits|bigg?[lr]?|Bigg?[lr]?)(?![A-Za-z])"
)
_NO_DIGITS = bytes(code for code in range(256) if not 48 <= code < 58)
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")


@dataclass(frozen=True)
class Problems:
    """Training problems without end: `at(0), at(1), ...` goes through `size` problems, reshuffled each time; `size`
    0 means that no two are meant to be the same. `malformed` rows and `dropped` problems (by evaluation set) are
    left out.
    """

    name: str
    size: int
    seed: int
    fetch: Callable[[int], Problem]
    malformed: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def at(self, index: int) -> Problem:
        """Problem number `index` of the run, from 0: a pure function of (seed, index)."""
        if not self.size:
            return self.fetch(index)
        epoch, place = divmod(index, self.size)
        return self.fetch(_order(self.size, keys.key(self.seed, "data", self.name, epoch))[place])

    def draw(self, start: int, count: int) -> list[Problem]:
        """Problems number `start` to `start + count - 1`."""
        return [self.at(index) for index in range(start, start + count)]


@dataclass(frozen=True)
class Rows:
    """The usable rows of a table, as problems: `rows[i]`. What was left out is counted."""

    name: str
    table: Table
    columns: Columns
    kept: Sequence[int]
    malformed: int
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Problem:
        row = self.kept[index]
        cells = self.table.data[row]
        question, answer = _parse(cells[self.columns.question], cells[self.columns.answer], self.columns)
        marks = [gold.text(cells[name]) for name in _id_columns(self.table)] or [str(row + 1)]
        mark = marks[0] or f"row {row + 1}"
        return Problem(f"{self.name}/{mark}", question, answer or "", self.name)

    def __iter__(self) -> Iterator[Problem]:
        return (self[index] for index in range(len(self)))


def choose_columns(table: Table, name: str, forms: Sequence[Columns], question: str = "", answer: str = "") -> Columns:
    """The columns to use: the user's where named, else the first form of the dataset that the table has."""
    for key, given in (("data.question_column", question), ("data.answer_column", answer)):
        if given and given not in table.columns:
            close = get_close_matches(given, table.columns, n=1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UserError(
                f"{key} '{given}' is not a column of {table.where}, which has {', '.join(table.columns)}{hint}"
            )
    for form in forms:
        picked = Columns(question or form.question, answer or form.answer, gold.either if answer else form.gold)
        if {picked.question, picked.answer} <= set(table.columns):
            return _readable(table, picked)
    expected = " or ".join(f"{form.question} + {form.answer}" for form in forms[:3])
    raise UserError(
        f"{table.where} has the columns {', '.join(table.columns)}, but {name} needs {expected}: "
        "name them by data.question_column and data.answer_column"
    )


def _readable(table: Table, picked: Columns) -> Columns:
    """The columns themselves. Raises UserError if one is of a type that is neither text nor numbers."""
    for key, name in (("data.question_column", picked.question), ("data.answer_column", picked.answer)):
        if name in table.types:
            raise UserError(
                f"column '{name}' of {table.where} is of the type {table.types[name]:.60}: expected text or numbers; "
                f"write it so, or name another column by {key}"
            )
    return picked


def scan(
    name: str,
    table: Table,
    columns: Columns,
    note: Callable[[str], None],
    levels: Sequence[int] = (),
    avoid: Mapping[str, str] | None = None,
) -> Rows:
    """Look at every row once. `avoid` maps normalised questions to the evaluation set that has them.

    Raises UserError if too many rows are malformed, ids are not unique, or nothing is left; `note` gets one line about
    what was left out.
    """
    if levels and LEVEL_COLUMN not in table.columns:
        raise UserError(
            f"data.levels is {list(levels)}, but {table.where} has no column '{LEVEL_COLUMN}': leave data.levels out"
        )
    marks = _id_columns(table)[:1]
    avoided = dict(avoid or {})
    digits = {_digits(question) for question in avoided}
    kept, malformed, dropped, off_level = array("Q"), [], Counter[str](), 0
    first_with: dict[str, int] = {}
    row = -1
    for batch in table.batches([columns.question, columns.answer, *([LEVEL_COLUMN] if levels else []), *marks]):
        for row, (question_cell, answer_cell, *rest) in enumerate(batch, row + 1):  # noqa: B020
            question, answer = _parse(question_cell, answer_cell, columns)
            why = _told(table, row, columns, answer is not None) or ("" if answer is not None else question)
            if why or answer is None:
                malformed.append(f"{table.place(row)} {why}")
                continue
            mark = gold.text(rest[-1]) if marks else None
            if mark is not None and (other := first_with.setdefault(mark, row)) != row:
                places = f"{table.place(other)} and {table.place(row)}"
                raise UserError(
                    f"column '{marks[0]}' must tell rows apart, but {mark!r} is at {places}: rename or remove one"
                )
            if levels and gold.level(rest[0]) not in levels:
                off_level += 1
            elif _digits(question) in digits and (found := avoided.get(normal(question))):
                dropped[found] += 1
            else:
                kept.append(row)
    _report(name, table, row + 1, malformed, dropped, note)
    if not kept:
        why = f"{off_level} are not of the levels {list(levels)}, " if levels else ""
        raise UserError(
            f"no problem is left of the {row + 1} of {table.where}: {why}{dropped.total()} are in evaluation sets"
        )
    needed = {columns.question, columns.answer, *_id_columns(table)}
    slim = replace(table, data=table.data.select_columns(sorted(needed)))  # what else a row holds is not decoded again
    return Rows(name, slim, columns, kept, len(malformed), dropped)


def joined(parts: Sequence[Rows], max_problems: int, seed: int) -> Problems:
    """The rows of all parts as one set, named by their names; `max_problems` of them (0: all), by `seed`."""
    name = "+".join(part.name for part in parts)
    starts = list(accumulate(map(len, parts), initial=0))
    picked = subset(starts[-1], max_problems, keys.key(seed, "subset", name))

    def fetch(place: int) -> Problem:
        part = bisect_right(starts, picked[place]) - 1
        return parts[part][picked[place] - starts[part]]

    dropped = Counter[str]()
    for part in parts:
        dropped.update(part.dropped)
    return Problems(name, len(picked), seed, fetch, sum(part.malformed for part in parts), dropped)


def normal(question: str) -> str:
    """A question without what does not change it: case, white space, LaTeX spacing and delimiters, kinds of \\frac.

    Two questions that differ in a single digit or letter stay different; a reworded one is not recognised.
    """
    return _FRACTION.sub(r"\\frac", _SPACING.sub("", question)).casefold()


def subset(count: int, size: int, seed_key: int) -> list[int]:
    """Which `size` of `count` are kept (0: all): ascending, and the same for the same key."""
    return sorted(keys.shuffled(count, seed_key)[:size]) if 0 < size < count else list(range(count))


def _digits(question: str) -> bytes:
    """The digits of a question. `normal` keeps them, and is too slow (20 us) to be tried on every question."""
    return question.encode().translate(None, _NO_DIGITS)


@lru_cache(maxsize=2)
def _order(size: int, seed_key: int) -> list[int]:
    return keys.shuffled(size, seed_key)


def _id_columns(table: Table) -> list[str]:
    return [name for name in ID_COLUMNS if name in table.columns]


def _parse(question_cell: object, answer_cell: object, columns: Columns) -> tuple[str, str | None]:
    """(question, answer), or (what is wrong, None)."""
    question = None if isinstance(question_cell, list) else gold.text(question_cell)  # several texts are no problem
    answer = gold.text(answer_cell)
    if question is None:
        return f"{gold.unfit(question_cell)} in column '{columns.question}'", None
    if answer is None:
        return f"{gold.unfit(answer_cell)} in column '{columns.answer}'", None
    if len(question) > MAX_TEXT or len(answer) > MAX_TEXT:
        return f"has a text of more than {MAX_TEXT} characters", None
    found = columns.gold(answer)
    if found is None:
        return f"has no answer of the form '{columns.gold.__name__}' in column '{columns.answer}'", None
    return question, found


def _told(table: Table, row: int, columns: Columns, answered: bool) -> str:
    """What the reader of the file found wrong with a row; in the answer a list is fine, if it made a text."""
    if row in table.broken:
        return table.broken[row]
    for name in (columns.question,) if answered else (columns.question, columns.answer):
        if row in table.odd.get(name, {}):
            return f"{table.odd[name][row]} in column '{name}'"
    return ""


def _report(
    name: str, table: Table, total: int, malformed: list[str], dropped: Counter[str], note: Callable[[str], None]
) -> None:
    if malformed:
        shown = "; ".join(malformed[:_SHOWN]) + ("; ..." if len(malformed) > _SHOWN else "")
        what = f"{len(malformed)} of {total} rows of {table.where} are malformed ({shown})"
        if len(malformed) >= TOLERATED * total:
            raise UserError(f"{what}: fix or remove them; fewer than {TOLERATED:.0%} would be left out")
        note(f"{what}: left out")
    if dropped:
        places = ", ".join(f"{count} in {found}" for found, count in sorted(dropped.items()))
        note(f"{dropped.total()} of {total} problems of {name} are also in evaluation sets and are dropped ({places})")

"""Gold answers: how the right answer is taken out of a dataset's answer column.

Decides: an extractor is a function `text -> answer | None`; None means that the row is malformed. The answer is kept
as the dataset writes it (LaTeX and all): whether two answers are equal is the reward's business. Only what is certain
to be typography is taken off: outer white space and `$`, the thousands commas and the ".0" of numbers.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal

Extractor = Callable[[str], str | None]

_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WHOLE = re.compile(r"(-?)0*(\d+)(?:\.0+)?")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOXES = 32  # this many last boxes are tried: a row from anywhere must not take long
_LONGEST_NUMBER = 400  # digits: 1e999999999 must not be written out
_BARE_BOX = re.compile(r"\\boxed\s+([^\s${}]+)")


def text(value: object) -> str | None:
    """A cell as text without outer white space: 27.0 is "27", a list is joined by ", ". None if it holds no text;
    `unfit` says why."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal):
        number = Decimal(repr(value)) if isinstance(value, float) else value
        return _digits(number) if number.is_finite() else None
    if isinstance(value, list):
        parts = [None if isinstance(item, list) else text(item) for item in value]
        return ", ".join(_undollared(part) for part in parts if part) if parts and all(parts) else None
    return None


def unfit(value: object) -> str:
    """What a cell holds that `text` makes nothing of, or that is not a question: the middle of a sentence."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "has no text"
    if isinstance(value, bool):
        return f"holds {str(value).lower()}, which is neither text nor a number,"
    if isinstance(value, float | Decimal):
        return f"holds {value}, which is not a finite number,"
    named = {"list": "a list", "dict": "an object"}
    return f"holds {named.get(type(value).__name__, type(value).__name__)}"


def plain(cell: str) -> str | None:
    """The whole cell is the answer."""
    return _undollared(cell) or None


def number(cell: str) -> str | None:
    """A whole number: AIME's "073" and AMC's "73.0" are "73". None if it is anything else."""
    found = _WHOLE.fullmatch(_undollared(cell))
    return found[1] + found[2] if found else None


def boxed(cell: str) -> str | None:
    """What the last \\boxed{...} (or \\fbox{...}) holds; braces are matched, escaped ones do not count."""
    for found in list(_BOX.finditer(cell))[: -_BOXES - 1 : -1]:
        end = _closing_brace(cell, found.end())
        if end is not None:
            return cell[found.end() : end].strip() or None
    bare = _BARE_BOX.findall(cell)
    return bare[-1] if bare else None


def hashes(cell: str) -> str | None:
    """GSM8K: what follows the last "####"."""
    _, mark, tail = cell.rpartition("####")
    return _without_commas(tail.strip()) or None if mark else None


def answer_is(cell: str) -> str | None:
    """MetaMathQA: what follows the last "The answer is:"; failing that, the last "####"."""
    _, mark, tail = cell.rpartition("The answer is:")
    return _without_commas(_undollared(tail.strip())) or None if mark else hashes(cell)


def marked(cell: str) -> str | None:
    """A worked solution of unknown style: "The answer is:", "####" or \\boxed{...}, the first of these that is
    there."""
    return answer_is(cell) or boxed(cell)


def either(cell: str) -> str | None:
    """A column of unknown style: a marked answer if there is one, else the whole cell."""
    return marked(cell) or plain(cell)


def level(value: object) -> int | None:
    """5 of 5, 5.0, "5" or MATH's "Level 5"; None of "Level ?"."""
    if isinstance(value, float | Decimal):
        return int(value) if math.isfinite(value) and value == int(value) else None
    found = re.search(r"\d{1,6}", value) if isinstance(value, str) else None
    return value if isinstance(value, int) else int(found[0]) if found else None


def _closing_brace(cell: str, start: int) -> int | None:
    depth = 1
    for found in _BRACE.finditer(cell, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return None


def _digits(value: Decimal) -> str:
    """All digits of a finite number, without an exponent unless it is a long one, and without zeros at the end."""
    if abs(value.adjusted()) > _LONGEST_NUMBER:
        return str(value)
    written = format(value, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def _undollared(cell: str) -> str:
    inner = cell[1:-1] if len(cell) > 2 and cell[0] == cell[-1] == "$" else ""
    return inner.strip() if inner and "$" not in inner else cell


def _without_commas(cell: str) -> str:
    return cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell

"""JSON lines and JSON arrays, read row by row: the careful reader, for files that `datasets` refuses or would bend.

Decides: a bad row costs that row, and is told with its line. Cells become text as gold.py writes it, so "007" and 0.50
stay what they are in text. Only the wanted columns are held, in memory.
"""

import gzip
import json
import re
import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from r1v0 import bounded
from r1v0.data import gold
from r1v0.errors import UserError

Row = dict[str, object] | str  # a text says what is wrong with the row
MAX_ARRAY = 2 << 30
"""Longest JSON array, in bytes after unpacking: it is decoded in memory. MetaMathQA's has 396 MB."""

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class JsonRows:
    """`cells` of the wanted columns that exist; `columns` are all columns, in order of appearance. `lines[row]` is the
    line in the file where a row begins. `broken[row]` says why a row, or a cell of it, is not there."""

    cells: dict[str, list[str | None]]
    columns: list[str]
    lines: Sequence[int]
    broken: dict[int, str]


def read(path: Path, wanted: Collection[str]) -> JsonRows:
    """All rows of a .json, .jsonl or .gz file. Raises UserError if the file as a whole cannot be read."""
    cells: dict[str, list[str | None]] = {}
    columns: dict[str, None] = {}
    broken: dict[int, str] = {}
    lines = array("Q")
    try:
        for row, (line, record) in enumerate(_records(path)):
            lines.append(line)
            if isinstance(record, str):
                broken[row] = record
            fields = record if isinstance(record, dict) else {}
            for name in fields.keys() - columns.keys():
                if name in wanted:
                    cells[name] = [None] * row
            columns.update(dict.fromkeys(fields))
            for name, column in cells.items():
                try:
                    column.append(_valid(gold.text(fields.get(name))))
                except (ValueError, RecursionError):  # a lone surrogate, or a list in a list in a list ...
                    column.append(None)
                    broken[row] = f"has no valid text in column '{name}'"
    except (OSError, EOFError, zlib.error, bounded.TooLarge) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    return JsonRows(cells, list(columns), lines, broken)


def is_array(path: Path) -> bool:
    """Whether the file is one JSON array, not lines. Raises UserError if it cannot be read."""
    try:
        with _open(path) as handle:
            return handle.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def check_bounds(path: Path) -> None:
    """Raise UserError for a file that nothing should unpack or hold: a gzip bomb, or a line without an end."""
    try:
        for _ in bounded.lines(path):
            pass
    except (OSError, EOFError, zlib.error, bounded.TooLarge) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The innermost cause of an error, on one line."""
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__


def _records(path: Path) -> Iterator[tuple[int, Row]]:
    return _array(path) if is_array(path) else _lines(path)


def _lines(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(bounded.lines(path), 1):
        if not line.strip():
            continue
        try:
            row = _object(json.loads(line))
        except (ValueError, RecursionError) as error:
            row = f"is not JSON ({reason(error)})"
        yield number, row


def _array(path: Path) -> Iterator[tuple[int, Row]]:
    """One object at a time: all 395k of MetaMathQA at once would take 2 GB."""
    try:
        text = bounded.read(path, MAX_ARRAY).decode("utf-8-sig")
        decode = json.JSONDecoder().raw_decode
        line, counted, place = 1, 0, _skip(text, text.index("[") + 1)
        while text[place : place + 1] != "]":
            line, counted = line + text.count("\n", counted, place), place
            row, place = decode(text, place)
            yield line, _object(row)
            place = _skip(text, place)
            if text[place : place + 1] == ",":
                place = _skip(text, place + 1)
    except bounded.TooLarge:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {reason(error)}") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _object(value: object) -> Row:
    return value if isinstance(value, dict) else "is not a JSON object"


def _skip(text: str, place: int) -> int:
    """The next place that is not white space."""
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _valid(cell: str | None) -> str | None:
    """The text itself. Raises ValueError if it holds a lone surrogate, which no file can hold."""
    if cell and not cell.isascii():
        cell.encode()
    return cell

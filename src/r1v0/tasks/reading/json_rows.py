"""JSON lines and JSON arrays, read row by row: the careful reader, for files that `datasets` refuses or would bend.

Decides: a bad row costs that row, and is told with its line; bytes that are not UTF-8 cost theirs. A file in another
encoding, or one object that holds whole columns, is refused by name. Cells become text as gold.py writes it, so "007"
stays what it is, and a number keeps its digits however many they are. Only the wanted columns are held, in memory.
"""

import gzip
import json
import re
import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Literal

from r1v0.base import reading
from r1v0.base.errors import UserError, reason
from r1v0.tasks.math import gold
from r1v0.tasks.reading import csv_rows
from r1v0.tasks.reading.source import ID_COLUMNS, LEVEL_COLUMN

Row = dict[str, object] | str  # a text says what is wrong with the row
MAX_ARRAY = 2 << 30
"""Longest JSON array, in bytes after unpacking: it is decoded in memory. MetaMathQA's has 396 MB."""

_SPACE = re.compile(r"[ \t\r\n]*")
_MAX_DIGITS = 4000  # longer whole numbers stay text: Python does not convert them
_DECODER = json.JSONDecoder(
    parse_float=Decimal, parse_int=lambda digits: int(digits) if len(digits) <= _MAX_DIGITS else digits
)
_STRAY = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte
_LINES_HELP = (
    "write each problem as one object on a line of its own (pandas: df.to_json(FILE, orient='records', lines=True))"
)


@dataclass(frozen=True)
class JsonRows:
    """`cells` of the wanted columns that exist; `columns` are all columns, in order of appearance. `lines[row]` is the
    line in the file where a row begins. `broken[row]` says why a row is not there, `odd[column][row]` what a cell holds
    that is neither text nor a number: it has no text here, or that of a list."""

    cells: dict[str, list[str | None]]
    columns: list[str]
    lines: Sequence[int]
    broken: dict[int, str]
    odd: dict[str, dict[int, str]] = field(default_factory=dict)


def read(path: Path, wanted: Collection[str]) -> JsonRows:
    """All rows of a .json, .jsonl or .csv file, also .gz. Raises UserError if the file as a whole cannot be read."""
    cells: dict[str, list[str | None]] = {}
    columns: dict[str, None] = {}
    broken: dict[int, str] = {}
    odd: dict[str, dict[int, str]] = {}
    lines, record = array("Q"), None
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
                cell = fields.get(name)
                text = gold.text(cell)
                if text and not _writable(text):
                    text, odd.setdefault(name, {})[row] = None, "has no valid text"
                elif cell is not None and (text is None or isinstance(cell, list)):
                    odd.setdefault(name, {})[row] = gold.unfit(cell)
                column.append(text)
    except (OSError, EOFError, zlib.error, reading.TooLarge) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    if len(lines) == 1 and isinstance(record, dict):
        _need_rows(path, record, wanted)
    return JsonRows(cells, list(columns), lines, broken, odd)


def layout(path: Path) -> Literal["lines", "array", "objects"]:
    """How a file holds its rows: one a line, in one JSON array, or as objects over several lines each (.json only).

    Raises UserError if it cannot be read, or is written in another encoding than UTF-8.
    """
    try:
        with _open(path) as handle:
            head = handle.read(4096)
        if encoding := _other_encoding(head):
            raise UserError(
                f"{path} is not UTF-8 but {encoding}: convert it (iconv -f {encoding} -t UTF-8 FILE > NEW-FILE)"
            )
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if start[:1] == b"[":
            return "array"
        if start[:1] == b"{" and path.with_suffix("" if path.suffix == ".gz" else path.suffix).suffix == ".json":
            first = next(line for line in reading.lines(path) if line.strip())
            return "lines" if _decodes(first) or not _decodes(reading.read(path, MAX_ARRAY)) else "objects"
        return "lines"
    except (OSError, EOFError, zlib.error, reading.TooLarge) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def is_plain(path: Path) -> bool:
    """Whether every line is UTF-8. Raises UserError for a file that nothing should unpack or hold: a gzip bomb, or a
    line without an end."""
    plain = True
    try:
        for line in reading.lines(path):
            plain = plain and (line.isascii() or _is_utf8(line))
    except (OSError, EOFError, zlib.error, reading.TooLarge) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    return plain


def _records(path: Path) -> Iterator[tuple[int, Row]]:
    if path.with_suffix("" if path.suffix == ".gz" else path.suffix).suffix == ".csv":
        return csv_rows.records(path)
    kind = layout(path)
    return _lines(path) if kind == "lines" else _values(path, kind == "array")


def _lines(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(reading.lines(path), 1):
        if not line.strip():
            continue
        try:
            row = _object(_DECODER.decode(line.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            row = f"is not UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x})"
        except (ValueError, RecursionError) as error:
            row = f"is not JSON ({reason(error)})"
        yield number, row


def _values(path: Path, array: bool) -> Iterator[tuple[int, Row]]:
    """The values of an array, or one after another, each decoded by itself: all 395k of MetaMathQA would take 2 GB."""
    try:
        # A byte that is not UTF-8 becomes a surrogate, which the value it stands in is then told by.
        text = reading.read(path, MAX_ARRAY).decode("utf-8-sig", "surrogateescape")
        line, counted, objects = 1, 0, 0
        place = _skip(text, text.index("[") + 1 if array else 0)
        while text[place : place + 1] != ("]" if array else ""):
            line, counted = line + text.count("\n", counted, place), place
            row, end = _DECODER.raw_decode(text, place)
            bad = None if _writable(text[place:end]) else _STRAY.search(text, place)
            yield line, f"is not UTF-8 (it holds the byte 0x{ord(bad[0]) - 0xDC00:02x})" if bad else _object(row)
            objects += isinstance(row, dict)
            place = _skip(text, end)
            if array and text[place : place + 1] == ",":
                place = _skip(text, place + 1)
        if array and objects and (rest := _skip(text, place + 1)) < len(text):
            line += text.count("\n", counted, rest)
            raise UserError(f"{path} goes on after the end of its array, at line {line}: write all rows in one array")
    except reading.TooLarge:
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


def _writable(text: str) -> bool:
    """Whether a text can stand in a file: it holds no lone surrogate."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decodes(data: bytes) -> bool:
    """Whether the data begin with a whole JSON value, to the end of its line."""
    try:
        text = data.decode("utf-8-sig", "surrogateescape")
        _, end = _DECODER.raw_decode(text, _skip(text, 0))
    except (ValueError, RecursionError):
        return False
    return not text[end:].partition("\n")[0].strip()


def _other_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32, with or without a byte order mark, if that is what JSON is written in; else nothing."""
    encoding = json.detect_encoding(head).replace("-sig", "")
    begin = head[: len(head) // 4 * 4].decode(encoding, "ignore").lstrip("\ufeff \t\r\n")[:1]
    return encoding.upper() if encoding != "utf-8" and begin and begin in "{[" else ""


def _need_rows(path: Path, record: dict[str, object], wanted: Collection[str]) -> None:
    """Raise UserError if a file's only object holds whole columns, or all the rows, instead of being a row."""
    cells = {name: cell for name, cell in record.items() if name in wanted and name not in (*ID_COLUMNS, LEVEL_COLUMN)}
    text = any(isinstance(cell, str) for cell in cells.values())
    for name, cell in record.items():
        held = list(cell.values()) if isinstance(cell, dict) else cell if isinstance(cell, list) else []
        rows = any(isinstance(value, dict | list) for value in held)
        if not text and held and (rows or name in cells):
            raise UserError(f"{path} is one JSON object whose '{name}' holds {len(held)} values: {_LINES_HELP}")

"""CSV, row by row and as text: a reader of tables would make 7 of 007, 1000.0 of 1e3 and nothing of NA."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

from r1v0.base import reading
from r1v0.base.errors import UserError


def records(path: Path) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Each row's last line in the file, and its cells by column, or what is wrong with it. Raises UserError as a
    whole file fails, and what `reading.lines` raises."""
    # A byte that is not UTF-8 becomes a surrogate, which the row it stands in is then told by.
    text = (line.decode("utf-8-sig", "surrogateescape") for line in reading.lines(path))
    first = next(reading.lines(path), b"")
    for name, marks in (
        ("UTF-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("UTF-16", (codecs.BOM_LE, codecs.BOM_BE)),
    ):
        if first.startswith(marks):
            raise UserError(f"{path} is not UTF-8 but {name}: convert it (iconv -f {name} -t UTF-8 FILE > NEW-FILE)")
    reader = csv.DictReader(text, restkey="", strict=True)
    try:
        for row in reader:
            joined = "".join(str(cell) for cell in row.values())
            if "" in row:
                yield reader.line_num, f"has {len(row[''])} cells more than the first line has names"
            elif any("\udc80" <= character <= "\udcff" for character in joined):
                yield reader.line_num, "is not UTF-8"
            else:
                yield reader.line_num, dict(row)
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}, after line {reader.line_num}") from None

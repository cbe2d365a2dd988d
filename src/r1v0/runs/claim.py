"""A folder for a run that names none: making it is what claims it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from r1v0.base.writing import writing


@contextmanager
def claimed(prefix: str) -> Iterator[Path]:
    """runs/PREFIX-001, or the first number after it that is free, as a new folder: making it is what claims it. One
    that is still empty in the end is removed."""
    parent = Path("runs")
    with writing(parent):
        parent.mkdir(exist_ok=True)
        for number in itertools.count(1):
            folder = parent / f"{prefix}-{number:03d}"
            with suppress(FileExistsError):
                folder.mkdir(parents=True)  # another one's end may have removed an empty runs/ just now
                break
    try:
        yield folder
    finally:
        with suppress(OSError):  # there is something in it
            folder.rmdir()
            parent.rmdir()

"""Reading files that strangers wrote: never more than a bound, whatever the file says or expands to.

Decides: one line is at most MAX_LINE bytes, a file at most MAX_FILE after unpacking, so that neither a line of a
gigabyte nor a gzip bomb can fill the memory. Only regular files are read line by line: a pipe or a device could keep
us waiting forever. `TooLarge` is a ValueError, which is what a damaged file raises anyway.
"""

import gzip
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError

MAX_LINE = 16 << 20
MAX_FILE = 8 << 30
MAX_JSON_BYTES = 64 << 20


class TooLarge(ValueError):
    """A file, or a line of it, that is past its bound. The message says which."""


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked if its name ends in .gz, each with its line break.

    Raises TooLarge; OSError (also for what is not a regular file), EOFError or zlib.error where it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is not a regular file")
    total = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        while line := file.readline(MAX_LINE + 1):
            total += len(line)
            if len(line) > MAX_LINE:
                raise TooLarge(f"a line of more than {MAX_LINE} bytes")
            if total > MAX_FILE:
                raise TooLarge(f"more than {MAX_FILE} bytes")
            yield line


def read(path: Path, limit: int) -> bytes:
    """The whole file, unpacked if its name ends in .gz. Raises TooLarge past `limit` bytes, and as `lines` does; but a
    pipe is read, which is how a shell hands over a file that it makes."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"more than {limit} bytes")
    return data


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON object from an untrusted file of at most `limit` bytes. Raises UserError."""
    try:
        value = json.loads(read(path, limit).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: expected a Hugging Face model folder that holds it") from None
    except TooLarge:
        raise UserError(f"{path} is too large: expected a JSON file of at most {limit} bytes") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error.__class__.__name__}): download or save the model again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}: expected a JSON object")
    return value

"""Writing so that a crash, a power cut or a full disk leaves the old or the new, and says so.

Decides: a whole file is written aside, flushed and renamed; a line is appended whole or not at all. A write that fails
is a UserError of one line (which path, how much is free, what to do): the run ends there, and what was saved before it
is whole.
"""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from r1v0.base.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around a write to `path`: a failure becomes a UserError that says what is wrong with the disk and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or error.__class__.__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = (
                f"{amount_of(free_bytes(path))} are free there; remove what you can spare (old checkpoints take most)"
            )
        else:
            hint = "fix the folder's permissions or its disk"
        raise UserError(f"{path} cannot be written ({reason}): {hint}. What was saved before is whole") from None


def free_bytes(path: Path) -> int:
    """The free bytes of the disk that `path` is to be written on; -1 where the system does not say."""
    there = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return -1


def amount_of(size: int) -> str:
    """Bytes for people: 21.6 GB, 640 KB."""
    value, unit = float(max(size, 0)), "B"
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file aside, then rename it: a reader sees the old file or the new one, never a half, also after a
    power cut. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        # Windows cannot open a folder.
        if sys.platform != "win32":
            flush(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder. Raises OSError."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(number)


def append_whole(path: Path, data: bytes) -> None:
    """Put `data` at the end of a file, all of it or nothing. Raises UserError."""
    with writing(path), open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            left = data
            while left:  # the last bytes of a disk may be given for a part; the next call then fails
                left = left[file.write(left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise

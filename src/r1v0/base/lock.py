"""One process at a time may write a folder.

Decides: the lock is filelock's, the kernel's own on a hidden file: it is gone when its process is, however that ended,
and no clock is asked. The file names the holder for whoever is turned away. Where a file system has no such locks (some
network mounts), the file alone is the lock; one that a dead process of this machine left is recognised as stale, and
one of another machine is left to the user. Reading a run needs no lock.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1v0.base import reading
from r1v0.base.errors import UserError, need_unix

if TYPE_CHECKING:
    from filelock import BaseFileLock

NAME, SOFT = ".lock", ".lock.held"
"""the file that is locked; the one that is the lock where there are no locks"""
MAX_BYTES = 4096
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from writing `folder`, which is made if it is not there.

    Raises UserError if another one holds it, it cannot be written, or on Windows.
    """
    need_unix("a run")
    from filelock import Timeout  # not part of the standard library

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _taken(folder)
    except Timeout:
        raise UserError(
            f"{folder} is in use by {_holder(folder)}: let it end or stop it; if you are sure that it is gone, "
            f"remove {folder / (SOFT if (folder / SOFT).exists() else NAME)}"
        ) from None
    except FileExistsError:
        raise UserError(f"{folder} is a file, or lies in one: choose another folder") from None
    except OSError as error:
        raise UserError(
            f"folder {folder} cannot be written ({error.strerror}): choose another one, or fix its permissions"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()  # before the lock is let go, so that nobody's new one is removed
        lock.release()


def _taken(folder: Path) -> "BaseFileLock":
    """The lock, held. Raises filelock's Timeout if another has it, OSError if we cannot write."""
    from filelock import FileLock, SoftFileLock, Timeout

    lock = FileLock(folder / NAME, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        soft = SoftFileLock(folder / SOFT, blocking=False)  # which writes its holder itself
        soft.acquire()
        return soft
    with suppress(OSError):  # a full disk: the kernel's lock holds without a name in it
        (folder / NAME).write_text(json.dumps(_me()), encoding="ascii")
    return lock


def _me() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")  # for people; nothing compares it
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _holder(folder: Path) -> str:
    """The process that the lock names, in words."""
    from filelock import SoftFileLock

    held: Any = None
    with suppress(OSError, ValueError, RecursionError):
        held = json.loads(reading.read(folder / NAME, MAX_BYTES))
    if isinstance(held, dict):
        return f"process {held.get('pid', '?')} on {held.get('host', '?')} since {held.get('since', '?')}"
    return f"process {SoftFileLock(folder / SOFT).pid or '?'}"

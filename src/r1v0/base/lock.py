"""One process at a time may write a folder.

Decides: the lock is the kernel's (flock) on a hidden file, so it is gone when its process is, however that ended,
and no clock is asked. The file names the holder for whoever is turned away. Where a file system has no flock (some
network mounts), the file alone is the lock: one that a dead process or an earlier boot of this machine left is
recognised as stale; one of another machine cannot be judged from here and is left to the user. Reading a run needs
no lock.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError

NAME = ".lock"
MAX_BYTES = 4096
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from writing `folder`, which is made if it is not there.

    Raises UserError if another one holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = _take(folder)
    except FileExistsError:
        raise UserError(f"{folder} is a file, or lies in one: choose another folder") from None
    except OSError as error:
        raise UserError(
            f"folder {folder} cannot be written ({error.strerror}): choose another one, or fix its permissions"
        ) from None
    try:
        with suppress(OSError):  # a full disk: the kernel's lock holds without a name in it
            os.ftruncate(number, 0)
            os.pwrite(number, json.dumps(_me()).encode("ascii"), 0)
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()  # before the lock is let go, so that nobody's new one is removed
        os.close(number)


def _take(folder: Path) -> int:
    """A descriptor of the folder's lock file, locked. Raises UserError if another process has it, OSError if we
    cannot write."""
    while True:
        number = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(number, folder)
            with suppress(FileNotFoundError):  # its last holder may have removed the file since we opened it
                if os.fstat(number).st_ino == os.stat(folder / NAME).st_ino:
                    return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _lock(number: int, folder: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(number)
        if error.errno in UNSUPPORTED:
            if _stale(holder):
                return
        elif not isinstance(error, BlockingIOError):
            raise
        who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')} since {holder.get('since', '?')}"
        raise UserError(
            f"{folder} is in use by {who}: let it end or stop it; if you are sure that it is gone, remove "
            f"{folder / NAME}"
        ) from None


def _me() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")  # for people; nothing compares it
    return {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot(), "since": now}


def _boot() -> str:
    """Another one after each start of the machine; empty where the system tells none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _holder(number: int) -> dict[str, Any]:
    """What the lock file says; empty if nothing that we understand."""
    try:
        held = json.loads(os.pread(number, MAX_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _stale(holder: dict[str, Any]) -> bool:
    """Whether a lock file was left behind: by a process of this machine that is gone. Only asked where flock is
    missing."""
    if not holder:
        return True  # new, or torn by the crash of its writer
    if holder.get("host") != socket.gethostname():
        return False
    if holder.get("boot") != _boot():
        return True
    pid = holder.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # alive, and another user's
        return False
    return False

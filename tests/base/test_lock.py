"""Two processes never write one folder; a lock that its holder left behind stops nobody."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from r1v0.base.errors import UserError
from r1v0.base.lock import NAME, hold

HOLDER = """
import sys, time
from pathlib import Path
from r1v0.base.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, before: str = "") -> "subprocess.Popen[str]":
    """Another process that holds the folder, after the statements `before`."""
    process = subprocess.Popen([sys.executable, "-c", before + HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_turned_away_with_the_name_of_the_holder(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(UserError, match=f"in use by process {process.pid} on .+ since 20") as error,
            hold(tmp_path / "run"),
        ):
            pass
        assert "\n" not in str(error.value)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert (tmp_path / "run" / NAME).exists()  # what a killed process leaves
    with hold(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / NAME).exists()


def test_the_same_process_cannot_hold_it_twice_and_lets_go_after_an_error(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} "), hold(tmp_path):
        pass
    with pytest.raises(ValueError, match="boom"), hold(tmp_path):
        raise ValueError("boom")
    with hold(tmp_path):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff" * 9000, b'{"pid": "x"}', b'{"pid": 1, "host": "elsewhere"}']
)
def test_what_stands_in_a_file_that_nobody_holds_does_not_matter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with hold(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_or_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="choose another"), hold(folder):
            pass

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="Permission denied"), hold(tmp_path):
        pass


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without the kernel's locks."""

    def unsupported(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)


def test_without_kernel_locks_the_file_is_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    with hold(tmp_path), pytest.raises(UserError, match=f"in use by process {os.getpid()}: let it end"), hold(tmp_path):
        pass
    assert not (tmp_path / NAME).exists()
    with hold(tmp_path):
        pass


SOFT = """
import errno, fcntl
def unsupported(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = unsupported
"""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_without_kernel_locks_what_a_killed_process_left_is_stale_and_another_machines_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    host = "import socket\nsocket.gethostname = lambda: 'elsewhere'\n" if elsewhere else ""
    process = holder(tmp_path, SOFT + host)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    without_flock(monkeypatch)
    if elsewhere:
        with (
            pytest.raises(UserError, match=r"in use by process .* if you are sure that it is gone, remove"),
            hold(tmp_path),
        ):
            pass
        return
    with hold(tmp_path):
        pass


def test_a_full_disk_does_not_keep_a_run_from_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with hold(tmp_path), pytest.raises(UserError, match="in use"), hold(tmp_path):
        pass

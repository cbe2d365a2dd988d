"""Two processes never write one folder; a lock that its holder left behind stops nobody."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from r1v0.base import lock
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


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
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
    def unsupported(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)


DEAD = 2**30 + 12345  # above the largest pid of Linux


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({"pid": DEAD}, True),
        ({}, False),  # this process lives
        ({"boot": "another boot"}, True),
        ({"host": "elsewhere"}, False),  # cannot be judged from here
        ({"host": "elsewhere", "pid": DEAD}, False),
        ({"pid": 1}, False),  # lives, and is another user's for most
        ({"pid": 0}, True),
        ({"pid": -1}, True),
        ({"pid": "1"}, True),
        ({"pid": 10**30}, True),
        ({"since": "3000-01-01T00:00:00+00:00"}, False),  # no clock is asked
        ({"since": "1970-01-01T00:00:00+00:00"}, False),
    ],
)
def test_without_flock_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], free: bool
) -> None:
    without_flock(monkeypatch)
    (tmp_path / NAME).write_text(json.dumps({**lock._me(), **changes}))
    if free:
        with hold(tmp_path), pytest.raises(UserError, match="in use"), hold(tmp_path):
            pass
        assert not (tmp_path / NAME).exists()
        return
    with pytest.raises(UserError, match="is gone, remove"), hold(tmp_path):
        pass
    assert (tmp_path / NAME).exists()


def test_a_full_disk_does_not_keep_a_run_from_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with hold(tmp_path), pytest.raises(UserError, match="in use"), hold(tmp_path):
        pass

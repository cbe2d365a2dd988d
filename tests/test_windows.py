"""Windows, without one: what only Unix has is taken away, and the verbs that promise to run there do.

What is not tried: Windows' own paths, consoles and torch.
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1v0.base import writing
from r1v0.base.errors import UserError, need_unix
from r1v0.base.lock import hold
from r1v0.cli import UNIX, parser

# Modules that Windows' Python lacks cannot be imported, and the functions and numbers that it lacks are gone.
# (Not os.statvfs and os.uname: the standard library itself asks them here, and something else on Windows.)
WITHOUT = """
import importlib.abc, os, signal, sys
import subprocess, tempfile, shutil, pathlib, socket, selectors, threading  # as on Windows, they load without these
GONE = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline"}
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in GONE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
for name in GONE:
    sys.modules.pop(name, None)
for name in ("fork", "forkpty", "killpg", "getpgid", "setsid", "sysconf", "pread", "pwrite", "getuid",
             "geteuid", "chown", "mkfifo", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "setitimer", "alarm", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
open_file = os.open
def os_open(path, flags, mode=0o777, *, dir_fd=None):
    if sys.platform == 'win32' and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_file(path, flags, mode, dir_fd=dir_fd)
os.open = os_open
"""


ANSWER = {"dataset": "countdown", "template": "plain", "problem": "countdown/0", "sample": 0, "question": "31 from 4 6 7",
          "gold": "31", "extracted": None, "strict": False, "tokens": 9, "cut_off": False}  # fmt: skip


def as_on_windows(code: str, folder: Path, platform: str = "") -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh Python without Unix, its output in Windows' old encoding; `platform` is what `sys.platform`
    then says (other libraries look there for what only a real Windows has, so only where nothing else is loaded)."""
    said = f"sys.platform = {platform!r}\n" if platform else ""
    return subprocess.run(
        [sys.executable, "-c", f"{WITHOUT}import r1v0.cli\n{said}{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
        encoding="cp1252",
        timeout=120,
    )


def verb(*words: str) -> str:
    return f"sys.exit(r1v0.cli.main({list(words)!r}))"


def a_run(folder: Path) -> None:
    folder.mkdir()
    rows = [{"step": step, "reward/mean": step / 10, "length/mean": 50.0 + step} for step in range(1, 6)]
    evals = [{"step": step, "dataset": "countdown", "accuracy": 0.3 + step / 10, "length": 60.0} for step in (0, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evals))
    (folder / "config.toml").write_text("")
    (folder / "answers").mkdir()
    for step, text in ((0, "4+6=10"), (5, "4*6+7=31")):
        answer = ANSWER | {"completion": text, "correct": step == 5, "reward": float(step == 5)}
        (folder / "answers" / f"step-{step:05d}.jsonl.gz").write_bytes(gzip.compress(json.dumps(answer).encode()))


@pytest.mark.parametrize(
    "words",
    [
        ["plot", "run"],
        ["doctor", "run"],
        ["report", "run"],
        ["read", "run"],
        ["table", "run"],
        ["new", "first"],
        ["config", "--preset", "countdown"],
        ["presets"],
        ["plan", "--preset", "qwen2.5-1.5b-math", "--card", "a100"],
    ],
    ids=lambda words: words[0],
)
def test_what_reads_and_settles_runs_without_unix(words: list[str], tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    done = as_on_windows(verb(*words), tmp_path, platform="win32" if words[0] == "new" else "")
    assert done.returncode == 0, done.stderr
    if words[0] == "plot":
        drawn = done.stdout.split()
        assert drawn
        assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn if name.endswith(".png"))
    if words[0] == "read":
        assert "4*6+7=31" in done.stdout
    if words[0] == "new":
        assert {path.name for path in (tmp_path / "first").iterdir()} == {"data.jsonl", "reward.py", "run.toml"}


def test_modules_that_hold_no_torch_load_without_unix(tmp_path: Path) -> None:
    every = (
        "import importlib, pkgutil, r1v0\n"
        "names = [found.name for found in pkgutil.walk_packages(r1v0.__path__, 'r1v0.')]\n"
        "rooms = ('base', 'config', 'jobs.verbs', 'jobs.doctor', 'jobs.plan', 'jobs.new', 'report', 'runs', 'tasks')\n"
        "names = [name for name in names if name.startswith(tuple('r1v0.' + room for room in rooms))]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    done = as_on_windows(every, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.mark.parametrize("name", sorted(UNIX))
def test_the_other_verbs_say_so_in_one_line(name: str, tmp_path: Path) -> None:
    required = {
        "eval": ["tiny"],
        "export": ["run", "--to", "tensorboard"],
        "sample": ["tiny", "1"],
        "pretrain": ["--out", "base"],
        "verify": ["1", "1"],
        "sweep": ["--out", "s"],
    }
    done = as_on_windows(verb(name, *required.get(name, [])), tmp_path, platform="win32")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"r1v0: r1v0 {name} needs Linux or macOS (Windows: WSL2)\n"
    assert list(tmp_path.iterdir()) == []


def test_the_verbs_that_need_unix_are_verbs() -> None:
    found = next(action.choices for action in parser()._actions if action.dest == "run" or action.metavar == "VERB")
    assert found is not None
    assert set(found) >= UNIX


def test_a_plan_of_this_machine_asks_for_a_gpu(tmp_path: Path) -> None:
    done = as_on_windows(verb("plan"), tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("r1v0: Windows does not say")
    assert done.stderr.count("\n") == 1


def test_the_library_says_so_before_it_makes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_unix("a run")  # nothing to say here
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match=r"^a run needs Linux or macOS \(Windows: WSL2\)$"), hold(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_where_no_folder_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folders(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(writing, "flush", no_folders)
    monkeypatch.setattr(sys, "platform", "win32")
    writing.write_atomic(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"

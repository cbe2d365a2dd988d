"""Faults from outside: a full disk, a folder that cannot be written, clocks, signals, edited settings, a second
process.

Damaged files are in test_checkpoint.py, stops and kills in test_resume.py, grading processes in test_verifier*.py.
"""

import errno
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from r1v0 import cli
from r1v0.base import interrupts, writing
from r1v0.base.errors import Interrupted, UserError
from r1v0.base.lock import hold
from r1v0.config import resolve, to_toml
from r1v0.jobs import pretrain
from r1v0.runs import manifest
from r1v0.runs.manifest import checkpoints_in, damage, newest_whole
from r1v0.trainer import checkpoint
from tests.conftest import ROOT
from tests.faults.test_resume import assert_same_run, begin

TINY = [
    "steps=2",
    "checkpoints.every=1",
    "grpo.groups=2",
    "grpo.group_size=2",
    "sampling.max_new_tokens=24",
    "eval.max_problems=3",
    "eval.every=1",
    "threads=1",
]
CONFIG = resolve("countdown", sets=TINY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        begin(CONFIG, folder, patch)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says of a mistake."""
    error = capsys.readouterr().err
    assert error.startswith("r1v0: ")
    assert "Traceback" not in error
    return error.splitlines()[-1]


# A disk that is full


class Full(io.FileIO):
    """Takes the first half of what is written, and then no more: as the last block of a disk."""

    half = False

    def write(self, data: Any) -> int:
        if self.half or len(data) < 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.half = True
        return super().write(bytes(data)[: len(data) // 2])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("config.toml", 1),
        ("env.json", 1),
        ("answers", 1),
        ("evals.jsonl", 1),
        ("evals.jsonl", 2),
        ("metrics.jsonl", 1),
        ("rollouts", 1),
        ("metrics.jsonl", 2),
    ],
)
def test_a_full_disk_ends_the_run_with_all_that_was_saved(
    name: str, call: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any file; and when there is room again, the run ends as if nothing had happened."""
    part, calls = tmp_path / "run", 0

    def opening(path: Path, mode: str, **named: Any) -> Any:
        nonlocal calls
        hit = name in str(Path(path).relative_to(part)) and "b" in mode and mode != "rb"
        calls += hit
        if not hit or calls != call:
            return open(path, mode, **named)
        return Full(path, mode) if "buffering" in named else io.BufferedWriter(Full(path, mode))

    with monkeypatch.context() as patch:
        patch.setattr(writing, "open", opening, raising=False)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): .+ are free") as error:
            begin(CONFIG, part, patch)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(part.rglob(".*.tmp"))
    for path in part.glob("*.jsonl"):
        assert path.read_bytes().endswith(b"\n") or not path.read_bytes()  # the half line was taken back
    assert all(damage(path) is None for path in checkpoints_in(part))
    if not (part / "config.toml").exists():
        shutil.rmtree(part)
    begin(CONFIG, part, monkeypatch)
    assert_same_run(whole, part)


def test_a_file_that_the_system_limits_ends_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real error of the system's, in safetensors' own writer: no file may grow past 300 kB."""
    shutil.rmtree(run / "checkpoints" / "step-00002")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(
            UserError, match=r"step-00002 cannot be written \(.+ are free there; remove what you can spare"
        ):
            begin(CONFIG, run, monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00001"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_other_failures_of_the_disk_are_named_too(run: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00002")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("r1v0.grpo.saved.write", refuse)
    with pytest.raises(UserError, match=rf"step-00002 cannot be written \({os.strerror(number)}\): fix"):
        begin(CONFIG, run, monkeypatch)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00001"]


def test_a_run_on_a_disk_that_is_read_only_does_not_begin(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, opening = Path.mkdir, os.open

    def mkdir(self: Path, *args: Any, **named: Any) -> None:
        if self.is_relative_to(tmp_path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        make(self, *args, **named)

    def opened(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opening(path, flags, *args, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", opened)
    sets = [word for item in TINY for word in ("--set", item)]
    for words in (["--out", str(tmp_path / "new"), *sets], ["--resume", str(run)]):
        assert cli.main(["train", *words]) == 2
        assert "Read-only file system" in one_line(capsys)
    assert cli.main(["presets"]) == 0


@pytest.mark.slow
def test_a_disk_that_is_really_full(whole: Path, tmp_path: Path) -> None:
    """A small tmpfs, filled up but for one checkpoint; it needs the right to mount one."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        (small / "ballast").write_bytes(b"x" * 3_000_000)
        sets = [word for item in TINY for word in ("--set", item)]
        command = [sys.executable, "-m", "r1v0", "train"]
        first = subprocess.run([*command, "--out", str(small / "run"), *sets], capture_output=True, text=True)
        assert first.returncode == 2, first
        assert "cannot be written" in first.stderr
        assert "are free there; remove what you can spare" in first.stderr
        assert first.stderr.count("\n") == 1
        assert [damage(path) for path in checkpoints_in(small / "run")] == [None]
        (small / "ballast").unlink()
        again = subprocess.run([*command, "--resume", str(small / "run")], capture_output=True, text=True)
        assert again.returncode == 0, again
        shutil.copytree(small / "run", tmp_path / "run")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert_same_run(whole, tmp_path / "run")


# Time


def test_no_clock_decides_anything(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day jumps back and forth, and the files' times are in the wrong order."""
    draw = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(0, 4e9))
    monkeypatch.setattr(time, "time_ns", lambda: draw.randrange(4 * 10**18))
    begin(resolve("countdown", sets=[*TINY, "steps=1"]), tmp_path / "run", monkeypatch)
    for i, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (10**9 - i, 10**9 - i))
    begin(CONFIG, tmp_path / "run", monkeypatch)
    assert_same_run(whole, tmp_path / "run")


# Signals


def test_the_first_signal_is_a_wish_and_the_second_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "SAME_WISH", 0.0)
    before = signal.getsignal(signal.SIGTERM)
    for first in (signal.SIGINT, signal.SIGTERM):
        with interrupts.stoppable() as check:
            check()
            os.kill(os.getpid(), first)
            with pytest.raises(Interrupted):
                check()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_twice_at_once_is_one_wish() -> None:
    """From the terminal and from torchrun."""
    with interrupts.stoppable() as check:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            check()


def test_a_second_signal_while_saving_loses_nothing_that_was_saved(
    run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00002")
    sealed = manifest.seal

    def interrupted(folder: Path) -> None:
        sealed(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "seal", interrupted)
        assert cli.main(["train", "--resume", str(run)]) == 130
    assert newest_whole(run) == run / "checkpoints" / "step-00001"
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert_same_run(whole, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pretraining_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    steps: list[int] = []

    def told(step: int, *_: object) -> None:
        steps.append(step)
        if step == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted):
        pretrain.pretrain(tmp_path / "base", steps=9, on_progress=told)
    assert steps == [1, 2]
    assert list(tmp_path.iterdir()) == []


# What a user does between two starts


def test_settings_edited_by_hand_are_told_by_their_keys(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("groups = 2", "groups = 3").replace("\nlr = ", "\nlr = 1"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert cli.main(["train", "--resume", str(run), "--set", "steps=3"]) == 2
    line = one_line(capsys)
    assert "grpo.groups was 2 in this run and cannot become 3; optimizer.lr was" in line
    assert "config.toml was changed after step-00002" in line
    assert "only steps, " in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    path.write_text(text.replace("steps = 2", "steps = 3", 1).replace("keep_last = 0", "keep_last = 1"))
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert [path.name for path in checkpoints_in(run)] == ["step-00003"]


def test_a_damaged_checkpoint_is_told_and_the_run_goes_on_from_the_one_before(
    run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / "step-00002" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert one_line(capsys).endswith(
        "step-00002 is damaged (model.safetensors is not what was written (SHA-256)): skipped"
    )
    assert_same_run(whole, run)
    for damaged in checkpoints_in(run):
        (damaged / "config.json").unlink()
    assert cli.main(["train", "--resume", str(run)]) == 2
    assert "no whole checkpoint" in one_line(capsys)


def test_a_run_that_died_before_its_first_checkpoint_begins_again(
    run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "env.json").unlink()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "no checkpoint yet: starting at step 0" in one_line(capsys)
    assert_same_run(whole, run)


def test_what_killed_starts_left_is_cleared_and_nothing_else(run: Path) -> None:
    ours = [".config.toml.12.tmp", ".metrics.jsonl.1.tmp", ".report.html.5.tmp", "rollouts/.step-00001.jsonl.gz.9.tmp",
            "checkpoints/.step-00002.03.writing/x", "checkpoints/.step-00001.removed/trainer/x"]  # fmt: skip
    theirs = [".notes.tmp", "mine.tmp", "checkpoints/.mine/x", ".config.toml.swp", "rollouts/notes.12.tmp"]
    for name in [*ours, *theirs]:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert [name for name in ours if (run / name).exists()] == []
    assert [name for name in theirs if not (run / name).exists()] == []


def test_two_processes_are_kept_out_of_one_folder_and_readers_are_not(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = (run / "env.json").read_bytes()
    with hold(run):
        assert cli.main(["train", "--resume", str(run)]) == 2
        assert f"is in use by process {os.getpid()} on " in one_line(capsys)
        assert cli.main(["plot", str(run), "--out", str(tmp_path / "x.png")]) == 0
        assert cli.main(["sample", str(run), "3 7 4 target 17"]) == 0
    assert (run / "env.json").read_bytes() == before


def test_a_checkpoint_with_the_settings_of_another_run_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = resolve("countdown", sets=[*TINY, "seed=5"])
    (run / "config.toml").write_text(to_toml(other))
    assert cli.main(["train", "--resume", str(run)]) == 2
    assert "seed was 0 in this run and cannot become 5" in one_line(capsys)


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """A small one; `make faults` is the whole of it."""
    script = ROOT / "scripts" / "kill_run.py"
    words = ["--kills", "3", "--terms", "2", "--steps", "8", "--seed", "1", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

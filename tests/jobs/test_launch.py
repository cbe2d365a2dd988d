"""`r1v0 train --processes N` and `--requeue`: exit codes, and what is refused before anything begins."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from r1v0 import cli
from r1v0.jobs import launch
from r1v0.runs.records import read_metrics
from tests.conftest import ROOT
from tests.helpers import newest

TINY = ["steps=1", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "eval.on=[]", "threads=1"]
SETS = [word for item in TINY for word in ("--set", item)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--processes", "0"], "--processes is 0: expected at least 1"),
        (["--requeue"], "give --out, and no --resume"),
        (["--requeue", "--resume", "x", "--out", "y"], "give --out, and no --resume"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("r1v0: --")
    assert told in error
    assert error.count("\n") == 1


def test_the_same_command_begins_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", "--out", str(run), "--requeue", *SETS]
    assert cli.main(words) == 0
    assert newest(run).name == "step-00001"
    assert cli.main([*words, "--set", "steps=2"]) == 0
    assert [row["step"] for row in read_metrics(run)] == [1, 2]
    assert newest(run).name == "step-00002"
    assert cli.main([*words, "--set", "steps=2"]) == 0  # nothing is left to do


def torchrun(
    monkeypatch: pytest.MonkeyPatch, what: Callable[[], None], words: list[str] | None = None
) -> tuple[int, list[str]]:
    """What `launch` returns where torchrun does `what`, and what torchrun was asked for."""
    asked: list[str] = []

    def main(arguments: list[str]) -> None:
        asked.extend(arguments)
        what()

    monkeypatch.setattr("torch.distributed.run.main", main)
    monkeypatch.setattr(sys, "argv", ["r1v0", *(words or ["train"])])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(*launch.SHUTDOWN)
    return launch.launch(3), asked


def failed(code: int) -> ChildFailedError:
    return ChildFailedError("r1v0", {2: ProcessFailure(local_rank=2, pid=9, exitcode=code, error_file="<N/A>")})


def test_the_command_is_this_one_in_so_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    code, asked = torchrun(monkeypatch, lambda: None, ["train", "--processes", "3", "--set", "steps=2"])
    assert code == 0
    assert asked == ["--standalone", "--nproc-per-node", "3", "-m", "r1v0",
                     "train", "--processes", "3", "--set", "steps=2"]  # fmt: skip
    assert launch.EXIT not in os.environ


@pytest.mark.parametrize("code", [2, 130])
def test_a_graceful_end_of_the_processes_is_the_exit_code(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left in a file, for torchrun takes all but 0 for a failure."""
    for stopped in (False, True):

        def processes_end(stopped: bool = stopped) -> None:
            assert launch.end(code) == 0
            assert launch.end(1) == 1
            if stopped:
                raise SignalException("Process 9 got signal: 15", signal.SIGTERM)

        assert torchrun(monkeypatch, processes_end)[0] == code
    assert launch.end(code) == code


def test_other_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def what() -> None:
            raise error

        return what

    assert torchrun(monkeypatch, fail(SignalException("Process 9 got signal: 2", signal.SIGINT)))[0] == 130
    assert torchrun(monkeypatch, fail(failed(1)))[0] == 1
    assert capsys.readouterr().err == ""  # the process itself has shown its traceback
    assert torchrun(monkeypatch, fail(failed(-9)))[0] == 1
    assert capsys.readouterr().err == "r1v0: process 2 of the run was ended by SIGKILL\n"

    def told() -> None:
        launch.end(2)
        raise failed(-9)

    assert torchrun(monkeypatch, told)[0] == 2
    assert capsys.readouterr().err == ""


def test_a_mistake_in_two_processes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    words = ["train", "--processes", "2", "--out", str(tmp_path), *SETS]
    done = subprocess.run([sys.executable, "-m", "r1v0", *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert done.stderr.startswith(f"r1v0: {tmp_path} already holds a run (config.toml): ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("only", ["stops", "restarts", "disk"])
def test_a_row_of_the_table_holds(only: str, tmp_path: Path) -> None:
    """A few; `python scripts/ranks.py` is the whole of it."""
    words = ["--only", only, "--kills", "3", "--folder", str(tmp_path), "--record", str(tmp_path / "record.json")]
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "ranks.py"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

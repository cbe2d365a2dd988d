"""Sweeps: real runs in processes of their own, stopped, killed, gone on with; and what a folder remembers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1v0 import config
from r1v0.base.errors import UserError
from r1v0.base.lock import hold
from r1v0.cli import main
from r1v0.jobs.sweep.grid import Cell, make_cells
from r1v0.jobs.sweep.record import recorded
from r1v0.jobs.sweep.work import _reason, _tidy, is_done, shared_threads
from tests.faults.test_resume import assert_same_run
from tests.run_folders import evals_row, write_run
from tests.test_cli import sets

TINY = sets("steps=2", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=24", "eval.on=[]")


def cells(*items: str, seeds: str = "0,1") -> list[Cell]:
    return make_cells(None, None, items, seeds)


# What a folder remembers


def test_the_same_command_goes_on_and_another_one_is_refused(tmp_path: Path) -> None:
    first = recorded(tmp_path, cells("steps=3"), 1)
    written = (tmp_path / "sweep.json").read_bytes()
    assert recorded(tmp_path, cells("steps=3"), 1) == first
    for items, seeds, words in (
        (["steps=4"], "0,1", "steps was 3 and is 4"),
        (["steps=3"], "0,1,2", "this command has seed-2, and it has not"),
        (["steps=3"], "0", "it has seed-1, and this command has not"),
    ):
        with pytest.raises(UserError, match="holds another sweep") as error:
            recorded(tmp_path, cells(*items, seeds=seeds), 1)
        assert words in str(error.value)
    assert (tmp_path / "sweep.json").read_bytes() == written


def test_a_changed_config_file_is_another_sweep(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("steps = 3")
    recorded(tmp_path, make_cells(None, file, [], "0"), 1)
    file.write_text("steps = 3\n[optimizer]\nlr = 1e-5")
    with pytest.raises(UserError, match=r"optimizer.lr was 0.0003 and is 1e-05"):
        recorded(tmp_path, make_cells(None, file, [], "0"), 1)


def test_threads_that_nobody_said_are_chosen_once(tmp_path: Path) -> None:
    items = ["data.name=sums-train", "model=somewhere"]
    for threads in (2, 1):
        made = recorded(tmp_path, cells(*items), threads)
        assert [cell.config.threads for cell in made] == [2, 2]
        assert [cell.sets[-1] for cell in made] == ["threads=2", "threads=2"]
    (tmp_path / "said").mkdir()
    said = recorded(tmp_path / "said", cells("threads=3"), 1)
    assert [cell.config.threads for cell in said] == [3, 3]


def test_runs_that_no_sweep_made_are_not_taken_over(tmp_path: Path) -> None:
    write_run(tmp_path / "seed-1", [], [])
    with pytest.raises(UserError, match="no sweep made"):
        recorded(tmp_path, cells(), 1)
    assert not (tmp_path / "sweep.json").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"cells": {"a": [1]}, "settings": {}}', '{"cells": {}}', "\xff"])
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="damaged"):
        recorded(tmp_path, cells(), 1)


def test_jobs_share_the_cores(tmp_path: Path) -> None:
    free = make_cells(None, None, ["data.name=sums-train", "model=somewhere"], "0")
    assert [shared_threads(free, jobs, 8) for jobs in (1, 2, 3, 8)] == [8, 4, 2, 1]
    for jobs in (0, 9):
        with pytest.raises(UserError, match="at least 1 and at most 8"):
            shared_threads(free, jobs, 8)
    said = cells("threads=3")
    assert shared_threads(said, 2, 8) == 4
    with pytest.raises(UserError, match=r"9 of 8 cores.*at most --jobs 2"):
        shared_threads(said, 3, 8)
    assert shared_threads(cells("threads=0"), 1, 8) == 8
    with pytest.raises(UserError, match="at most --jobs 1"):
        shared_threads(cells("threads=0"), 2, 8)


def test_a_run_is_done_with_its_last_checkpoint_and_its_last_evaluation(tmp_path: Path) -> None:
    settings = config.resolve("countdown", sets=["steps=5", 'eval.on=["countdown"]'])
    run = write_run(tmp_path / "run", [], [evals_row(0), evals_row(5, "another")])
    assert not is_done(run, settings)
    (run / "checkpoints" / "step-00005").mkdir(parents=True)
    assert not is_done(run, settings)
    with open(run / "evals.jsonl", "a") as file:
        file.write(json.dumps(evals_row(5)) + "\n")
    assert is_done(run, settings)
    assert not is_done(tmp_path / "nowhere", settings)
    (run / "evals.jsonl").write_text("damaged\n" + json.dumps(evals_row(5)) + "\n")
    assert not is_done(run, settings)


def test_checkpoints_that_only_an_interruption_made_go_when_the_run_is_done(tmp_path: Path) -> None:
    settings = config.resolve("countdown", sets=["steps=10", "checkpoints.every=4"])
    for name in ("00000", "00000.01", "00003", "00004", "00004.02", "00008", "00009", "00010"):
        (tmp_path / "checkpoints" / f"step-{name}").mkdir(parents=True)
    _tidy(tmp_path, settings)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00004", "step-00008", "step-00010"]


def test_why_a_run_failed_is_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("step 1\nr1v0: first\nr1v0: the model is not there\n\nmore\n")
    assert _reason(2, log) == "the model is not there"
    log.write_text("Traceback\nValueError: x\n")
    assert _reason(1, log) == "ValueError: x"
    log.write_text("")
    assert "exit code 3" in _reason(3, log)
    assert "signal 9" in _reason(-9, log)
    assert "goes on" in _reason(130, log)


# Real runs


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["sweep", "--preset", "countdown", "--out", str(out), *TINY, *sets("model=tiny,/nowhere/model")]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "model-nowhere-model  failed: model '/nowhere/model' does not exist" in said.out
    assert "model-tiny  done: step 2/2" in said.out
    assert said.err.startswith("r1v0: 1 of 2 runs failed (model-nowhere-model)")
    assert said.err.count("\n") == 1
    assert {path.name for path in out.iterdir()} == {"sweep.json", "model-tiny", "model-nowhere-model"}
    before = (out / "model-tiny" / "log.txt").read_bytes()
    assert main(command) == 2  # what is done is not touched
    assert (out / "model-tiny" / "log.txt").read_bytes() == before


def test_a_folder_that_another_sweep_works_in_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(tmp_path):
        assert main(["sweep", "--seeds", "0", "--out", str(tmp_path)]) == 2
    assert "in use" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


GRID = ["--set", "optimizer.lr=1e-4,3e-4", "--seeds", "0,1", *sets("steps=12", "grpo.groups=4", "grpo.group_size=4"),
        *sets("eval.every=4", 'eval.on=["countdown"]', "eval.max_problems=16", "checkpoints.every=4", "sampling.max_new_tokens=64")]  # fmt: skip


def start(out: Path, jobs: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "r1v0", "sweep", *GRID, "--out", str(out), "--jobs", str(jobs)]
    with open(f"{out}.txt", "ab") as said:
        return subprocess.Popen(words, stdout=said, stderr=said)


def until(condition: object, seconds: float = 90.0) -> None:
    """Wait until the callable `condition` holds."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def steps(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/metrics.jsonl"))


def at_rest(out: Path) -> bool:
    """Whether no run of a sweep is at work, told by their locks."""
    for folder in out.glob("*/"):
        try:
            with hold(folder):
                pass
        except UserError:
            return False
    return True


def names(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_killed_and_started_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, out, jobs = tmp_path / "whole", tmp_path / "out", min(2, len(os.sched_getaffinity(0)))
    assert start(whole, jobs).wait(300) == 0

    killed = start(out, jobs)
    until(lambda: steps(out) >= 2)
    killed.kill()
    killed.wait()
    until(lambda: at_rest(out))  # no orphan goes on to its last step
    done = steps(out)
    assert done < 4 * 12
    time.sleep(2)
    assert steps(out) == done

    stopped = start(out, jobs)
    until(lambda: steps(out) >= done + 2)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(120) == 130
    assert "goes on" in Path(f"{out}.txt").read_text().splitlines()[-1]
    assert at_rest(out)
    assert steps(out) < 4 * 12

    again = start(out, 1)
    until(lambda: steps(out) >= 15)
    again.send_signal(signal.SIGTERM)
    assert again.wait(120) == 130

    assert start(out, jobs).wait(300) == 0
    assert names(out) == names(whole)
    for run in whole.glob("*/"):
        assert_same_run(out / run.name, run)

"""The runs of a sweep, each `r1v0 train` in a process of its own, some at a time.

Decides: a run goes on from its own folder (`train --resume`), so a sweep keeps no state but what its runs keep. A run
is done when its last checkpoint and its last evaluation are there. Each child reads standard input from a pipe that
this process alone holds open: when the pipe ends, however this process ended, the child stops as after Ctrl-C, with a
clean checkpoint. Children are in process groups of their own, so that Ctrl-C reaches them once, from here.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from r1v0.base.errors import Interrupted, UserError
from r1v0.base.interrupts import WITH_INPUT, stoppable
from r1v0.base.lock import hold
from r1v0.base.notes import to_stderr
from r1v0.config import Config
from r1v0.jobs.sweep.grid import Cell
from r1v0.report.cells import Board, Watched
from r1v0.runs import records, runlog
from r1v0.runs.manifest import checkpoint_name, checkpoints_in, place
from r1v0.tasks.datasets import eval_name

LOG = "log.txt"
"""in a run's folder: what the run printed"""
EVERY = 0.25
"""seconds between two looks at the children"""


@dataclass
class Job:
    """A cell at work. `process` is there while it runs."""

    cell: Cell
    seen: Watched
    process: subprocess.Popen[bytes] | None = None


def work(cells: Sequence[Cell], out: Path, jobs: int, given: Sequence[str]) -> list[Watched]:
    """Train what is not done yet, at most `jobs` runs at a time; how each ended. `given` are the words of the command
    that every run gets (--preset, --config).

    Raises Interrupted after a signal, when the runs have stopped with a checkpoint each; after a second signal they
    are killed.
    """
    todo = [Job(cell, Watched(cell.name, out / cell.name, cell.config.steps, cell.config.eval.every)) for cell in cells]
    board = Board([job.seen for job in todo], jobs)
    with board, _stopped_in_the_end(todo), stoppable() as check:
        for job in todo:
            if is_done(job.seen.folder, job.cell.config):
                job.seen.state = "done"
        while any(job.seen.state not in ("done", "failed") for job in todo):
            check()
            for job in todo:
                if job.process is not None and job.process.poll() is not None:
                    _end(job)
            for job in todo:
                free = sum(job.process is not None for job in todo) < jobs
                if free and job.seen.state in ("waiting", "in use"):
                    _start(job, given)
            board.show()
            time.sleep(EVERY)
        board.show()
    return [job.seen for job in todo]


def shared_threads(cells: Sequence[Cell], jobs: int, cores: int) -> int:
    """Threads for each of `jobs` runs, where nobody said a number. Raises UserError for more jobs, or more threads of
    those that were said, than there are `cores`."""
    if not 1 <= jobs <= cores:
        raise UserError(f"--jobs is {jobs}: expected at least 1 and at most {cores}, the cores of this machine")
    said = max(
        (cell.config.threads or cores for cell in cells if not cell.own_threads or cell.config.threads), default=1
    )
    if jobs > 1 and jobs * said > cores:
        raise UserError(
            f"--jobs {jobs} with threads={said} takes {jobs * said} of {cores} cores: expected at most --jobs "
            f"{max(1, cores // said)} (the number of threads is part of a run's numbers, so a sweep keeps it)"
        )
    return cores // jobs


def is_done(folder: Path, config: Config) -> bool:
    """Whether a run has its last checkpoint and its last evaluation. A damaged log is not: going on with it says so."""
    if not (folder / runlog.CHECKPOINTS / checkpoint_name(config.steps)).is_dir():
        return False
    try:
        evaluated = {row.get("dataset") for row in records.read_evals(folder) if row["step"] == config.steps}
    except UserError:
        return False
    return {eval_name(spec) for spec in config.eval.on} <= evaluated


def _start(job: Job, given: Sequence[str]) -> None:
    """Begin a run, or go on with it; unless another process is at it, which is waited for."""
    folder, sets = job.seen.folder, [word for item in job.cell.sets for word in ("--set", item)]
    try:
        with hold(folder):
            pass
    except UserError as error:
        job.seen.state, job.seen.line = "in use", str(error)
        return
    words = ["--resume", str(folder)] if runlog.is_run(folder) else ["--out", str(folder), *given, *sets]
    with open(folder / LOG, "ab") as log:
        job.process = subprocess.Popen(
            [sys.executable, "-m", "r1v0", "train", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {WITH_INPUT: "1"},
            process_group=0,
        )
    job.seen.state, job.seen.line = "running", ""


def _end(job: Job) -> None:
    """Note how a run's process ended."""
    assert job.process is not None
    code = job.process.wait()
    if job.process.stdin is not None:
        job.process.stdin.close()
    job.process = None
    job.seen.read()
    if code == 0 and is_done(job.seen.folder, job.cell.config):
        _tidy(job.seen.folder, job.cell.config)
        job.seen.state = "done"
    else:
        job.seen.state, job.seen.line = "failed", _reason(code, job.seen.folder / LOG)


def _reason(code: int, log: Path) -> str:
    """Why a run ended early, in a line."""
    if code < 0:
        return f"killed by signal {-code}; the same command goes on with it (9 often means that memory ran out)"
    if code == 130:
        return "stopped by a signal; the same command goes on with it"
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - 8192))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    said = [line.removeprefix("r1v0: ") for line in lines if line.startswith("r1v0: ")]
    return str(UserError([*lines[-1:], *said][-1])) if lines else f"ended with exit code {code} and said nothing"


def _tidy(folder: Path, config: Config) -> None:
    """Remove the checkpoints of a finished run that only an interruption made, so that it has those of an undisturbed
    one."""
    for path in checkpoints_in(folder):
        step, updates = place(path)
        regular = step == config.steps or (step > 0 and step % config.checkpoints.every == 0)
        if updates >= 0 or not regular:
            gone = path.with_name(f".{path.name}.removed")
            with suppress(OSError):  # a checkpoint too many harms nobody
                path.rename(gone)
                rmtree(gone, ignore_errors=True)


@contextmanager
def _stopped_in_the_end(jobs: Sequence[Job]) -> Iterator[None]:
    """However the block ends, no child goes on: each stops with a checkpoint, or at a second signal is killed."""
    with ExitStack() as stack:
        stack.callback(_stop, jobs)
        yield


def _stop(jobs: Sequence[Job]) -> None:
    running = [job.process for job in jobs if job.process is not None]
    if running:
        to_stderr("stopping what runs, with a checkpoint each; a second signal kills it")
    try:
        with stoppable() as check:
            _signal(running, signal.SIGINT)
            while any(process.poll() is None for process in running):
                check()
                time.sleep(EVERY)
    except (Interrupted, KeyboardInterrupt):
        _signal(running, signal.SIGKILL)
    for process in running:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(number)

"""The rows of scripts/ranks.py in which processes are killed, stopped, or get a full disk."""

import argparse
import os
import random
import resource
import signal
import socket
import statistics
import sys
import time
from pathlib import Path

from rank_jobs import (
    R1V0,
    Job,
    Row,
    alive,
    checkpoints,
    command,
    done,
    in_a_terminal,
    lines_of,
    names,
    rows,
    same,
    shown,
    start,
    train,
    tree,
    whole,
)

SHUTDOWN_S = 30
"""torchrun's own --shutdown-timeout"""
SHORT = ["steps=60", "grpo.groups=4", "grpo.group_size=4", "sampling.max_new_tokens=60", "eval.max_problems=16",
         "eval.every=10", "checkpoints.every=1", "threads=1"]  # fmt: skip
SAMPLING = [*SHORT, "grpo.groups=16", "grpo.group_size=8", "sampling.max_new_tokens=120"]
TRAINING = [*SHORT, "grpo.minibatches=4", "grpo.epochs=4", "optimizer.micro_batch_tokens=60"]
"""settings with which most of a step is the phase that is aimed at"""


def kills(folder: Path, _: argparse.Namespace) -> list[Row]:
    """SIGKILL for one process in each phase, without restarts."""
    found = []
    for phase, sets in (("sampling", SAMPLING), ("training", TRAINING), ("saving", SHORT)):
        for number in (0, -1):
            run = folder / f"{phase}-{'last' if number else 'first'}"
            job = start(command(2, train(run, sets)), run.with_suffix(".log"))
            reach(job, run, phase)
            pids, victim = tree(job.process.pid), job.rank(number)
            os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            job.process.wait()
            took = time.monotonic() - began
            lines = lines_of(job)
            told = len(lines) == 1 and f"process {2 + number if number else 0} of the run is gone" in lines[0]
            told = told and f"train --resume {run}" in lines[0]
            half = sum(1 for _ in run.glob("checkpoints/.step-*.writing"))
            figure = f"gone after {took:.1f} s, {len(lines)} line, {len(checkpoints(run))} whole checkpoints" + (
                ", a hidden half one that a resume clears" if half else ""
            )
            holds = took <= SHUTDOWN_S + 5 and told and whole(run) and not alive(pids)
            what = f"kill -9 of the {'last' if number else 'first'} process in {phase}"
            bound = (
                f"{SHUTDOWN_S + 5} s, one line that names the process and --resume, no half checkpoint, nothing left"
            )
            found.append(Row(what, shown(2, sets), figure, bound, holds))
    return found


def reach(job: Job, run: Path, phase: str) -> None:
    """Wait until a job is in a phase of its third step or a later one, by what the step before took."""
    job.until(lambda: len(rows(run)) >= 2 and checkpoints(run)[-1:] > [run / "checkpoints" / "step-00001"])
    if phase == "saving":
        job.until(lambda: any(run.glob("checkpoints/.step-*.writing")), every=0.0)
        return
    last = rows(run)[-1]
    into = 0.5 * last["time/sample_s"] if phase == "sampling" else last["time/sample_s"] + 0.5 * last["time/train_s"]
    time.sleep(into)


def restarts(folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """Random kills under --max-restarts 3; the fourth of a job ends it, and the same command goes on."""
    rng, sets = random.Random(arguments.seed), [*SHORT, "steps=40", "grpo.minibatches=2", "grpo.epochs=2"]
    undisturbed, run = folder / "undisturbed", folder / "killed"
    done(2, train(undisturbed, sets), folder / "undisturbed.log")
    step_s = statistics.median(row["time/step_s"] for row in rows(undisturbed))
    words = [*train(run, sets), "--requeue"]
    jobs, sent, rejoined = 0, 0, 0
    while True:
        jobs += 1
        job = start(command(2, words, "--max-restarts", "3"), folder / f"job-{jobs}.log")
        for attempt in range(4):
            if sent == arguments.kills or not job.until(lambda n=attempt, job=job: job.text().count("training ") > n):
                break
            if rng.random() < 0.3:
                job.until(lambda: any(run.glob("checkpoints/.step-*.writing")), every=0.001)
            else:
                time.sleep(rng.uniform(0, 2 * step_s))
            victim = job.rank(rng.choice((0, -1)))
            if job.process.poll() is not None or not victim:
                break
            os.kill(victim, signal.SIGKILL)
            sent += 1
            print(f"kill {sent}: job {jobs}, {checkpoints(run)[-1:] and checkpoints(run)[-1].name}", flush=True)
        code = job.process.wait()
        rejoined += job.text().count("training ") - 1
        if code == 0:
            break
        if jobs > arguments.kills:
            raise SystemExit(f"the jobs do not end:\n{job.text()}")
    row = same(f"{sent} random kills under --max-restarts 3 --requeue", shown(2, sets, *words[-1:]), undisturbed, run)
    figure = f"{jobs} jobs, {rejoined} restarts rejoined; {row.figure}"
    holds = row.holds and sent == arguments.kills
    return [Row(row.what, row.command, figure, f"{arguments.kills} kills, {row.bound}", holds)]


def nodes(folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """Two torchruns, as on two machines, of one process each: one is killed, and the two find each other again."""
    rng, sets = random.Random(arguments.seed), [*SHORT, "steps=8"]
    undisturbed, run = folder / "undisturbed", folder / "killed"
    done(2, train(undisturbed, sets), folder / "undisturbed.log")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--max-restarts", "3", "--rdzv-backend",
                "c10d", "--rdzv-endpoint", f"localhost:{port}", "--local-addr", "localhost"]  # fmt: skip
    words = [*torchrun, "-m", *R1V0[2:], *train(run, sets), "--requeue"]
    pair = [start(words, folder / f"{name}.log") for name in "ab"]
    del os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"]
    pair[0].until(lambda: len(checkpoints(run)) >= 2)
    pids = [pid for job in pair for pid in tree(job.process.pid)]
    os.kill(rng.choice(pair).rank(0), signal.SIGKILL)
    for job in pair:
        job.process.wait()
    row = same(
        "2 torchruns of 1 process on one machine, one process killed", "torchrun --nnodes 2 ...", undisturbed, run
    )
    again = sum(job.text().count("training ") for job in pair)
    holds = row.holds and again == 2 and not alive(pids)
    return [Row(row.what, row.command, f"begun {again} times; {row.figure}", f"begun twice; {row.bound}", holds)]


def stops(folder: Path, _: argparse.Namespace) -> list[Row]:
    """A wish to stop, sent to each that can get one."""
    found = []
    sets = [*TRAINING, "checkpoints.every=100"]
    for name in ("torchrun", "first process", "last process", "--processes 2", "Ctrl-C in a terminal"):
        run = folder / name.replace(" ", "-")
        words = train(run, sets)
        if name == "Ctrl-C in a terminal":
            job, terminal = in_a_terminal([*R1V0, *words, "--processes", "2"], run.with_suffix(".log"))
        else:
            whole_command = [*R1V0, *words, "--processes", "2"] if name.startswith("--") else command(2, words)
            job, terminal = start(whole_command, run.with_suffix(".log")), -1
        job.until(lambda run=run: len(rows(run)) >= 2)
        pids = tree(job.process.pid)
        if terminal >= 0:
            os.write(terminal, b"\x03")
        else:
            places = {"first process": 0, "last process": -1}
            os.kill(job.rank(places[name]) if name in places else job.process.pid, signal.SIGTERM)
        began = time.monotonic()
        code = job.process.wait()
        took = time.monotonic() - began
        left, text = alive(pids), job.text()
        figure = f"exit code {code} after {took:.1f} s, {names(run)}, {len(left)} processes left"
        expected = {1} if name in ("torchrun", "first process", "last process") else {130}
        holds = took <= 30 and len(checkpoints(run)) == 1 and whole(run) and not left and code in expected
        holds = holds and "stopped after step" in text and ("Traceback" not in text or expected == {1})
        found.append(
            Row(
                f"{'SIGTERM to ' if terminal < 0 else ''}{name}",
                shown(2, sets),
                figure,
                f"exit code {expected.pop()} within 30 s, one whole checkpoint, 'stopped after step', nothing left",
                holds,
            )
        )
    return found


def disk(folder: Path, _: argparse.Namespace) -> list[Row]:
    """No file of the first process may grow past 300 kB, from its second step on; then it goes on."""
    sets = [*SHORT, "steps=8"]
    undisturbed, run = folder / "undisturbed", folder / "full"
    done(2, train(undisturbed, sets), folder / "undisturbed.log")
    job = start(command(2, train(run, sets)), folder / "full.log")
    job.until(lambda: len(checkpoints(run)) >= 2)
    pids = tree(job.process.pid)
    resource.prlimit(job.rank(0), resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    began = time.monotonic()
    job.process.wait()
    took = time.monotonic() - began
    lines = lines_of(job)
    holds = len(lines) == 1 and "cannot be written" in lines[0] and whole(run) and not alive(pids)
    figure = f"all gone after {took:.1f} s, {len(lines)} line, {names(run)} whole"
    done(2, ["train", "--resume", str(run)], folder / "again.log")
    row = same("a full disk at the first process, then --resume", shown(2, sets), undisturbed, run)
    bound = f"one line, nothing left, checkpoints whole; then {row.bound}"
    return [Row(row.what, row.command, f"{figure}; {row.figure}", bound, row.holds and holds)]

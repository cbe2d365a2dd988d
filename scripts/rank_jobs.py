"""What scripts/ranks.py starts, watches and compares: jobs under torchrun, their processes, the runs that they leave."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kill_run import state
from safetensors.torch import load_file

from r1v0.runs.manifest import damage

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
R1V0 = [sys.executable, "-m", "r1v0"]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    command: str
    figure: str
    bound: str
    holds: bool


@dataclass(frozen=True)
class Job:
    """A command that runs; what it says goes to `log`."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def rank(self, number: int) -> int:
        """The process id of one of torchrun's processes (-1: the last)."""
        found = {environment(pid).get("RANK", ""): pid for pid in children(self.process.pid)}
        ranks = {int(rank): pid for rank, pid in found.items() if rank}
        return ranks[sorted(ranks)[number]] if ranks else 0

    def until(self, there: Callable[[], bool], every: float = 0.01) -> bool:
        """Wait for something; False if the job ends before."""
        while self.process.poll() is None:
            if there():
                return True
            time.sleep(every)
        return False

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> str:
        """Wait for its end, which must be a good one; what it said."""
        if self.process.wait():
            raise SystemExit(f"{self.process.args} ended with {self.process.returncode}:\n{self.text()}")
        return self.text()


def command(processes: int, words: Sequence[str], *more: str) -> list[str]:
    """`r1v0 WORDS` in so many processes; `more` are torchrun's options."""
    if processes == 1:
        return [*R1V0, *words]
    return [*TORCHRUN, "--nproc-per-node", str(processes), *more, "-m", "r1v0", *words]


def train(run: Path, sets: Sequence[str]) -> list[str]:
    return ["train", "--out", str(run), *(word for item in sets for word in ("--set", item))]


def start(words: Sequence[str], log: Path) -> Job:
    with open(log, "wb") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return Job(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment), log)


def done(processes: int, words: Sequence[str], log: Path) -> str:
    return start(command(processes, words), log).end()


def in_a_terminal(words: list[str], log: Path) -> tuple[Job, int]:
    """The command in a terminal of its own, and the terminal's other end."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "160"}
    setting = [sys.executable, "-c", "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
               "os.execv(sys.argv[1], sys.argv[1:])"]  # fmt: skip
    process = subprocess.Popen(
        [*setting, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    subprocess.Popen(["cat"], stdin=ours, stdout=open(log, "wb"), stderr=subprocess.DEVNULL)  # noqa: SIM115
    return Job(process, log), ours


def lines_of(job: Job) -> list[str]:
    """What r1v0 said of an end, and tracebacks of its own: not torchrun's."""
    return [line for line in job.text().splitlines() if line.startswith(("r1v0:", "[rank"))]


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """A process and all that came of it."""
    return [pid, *(each for child in children(pid) for each in tree(child))]


def environment(pid: int) -> dict[str, str]:
    try:
        items = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(item.partition("=")[::2] for item in items if item)


def alive(pids: Sequence[int]) -> list[int]:
    """Those that run still; a zombie is gone."""
    found = []
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found += [pid] if status != "Z" else []
    return found


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def whole(run: Path) -> bool:
    """Whether every checkpoint is."""
    return all(damage(path) is None for path in checkpoints(run))


def files(run: Path, room: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / room).glob("*.gz"))}


def apart(one: Path, other: Path) -> dict[str, float]:
    """How far two runs are apart: rollout files that differ, evaluations, loss, norm (relative), weights."""
    a, b = rows(one), rows(other)
    evals = [
        [{k: v for k, v in row.items() if k != "time_s"} for row in rows(run, "evals.jsonl")] for run in (one, other)
    ]
    left, right = files(one, "rollouts"), files(other, "rollouts")
    weights = [load_file(checkpoints(run)[-1] / "model.safetensors") for run in (one, other)]
    return {
        "rollouts": sum(left.get(name) != right.get(name) for name in left.keys() | right.keys()),
        "evals": sum(x != y for x, y in zip(*evals, strict=True)),
        "loss": max(abs(x["policy/loss"] - y["policy/loss"]) for x, y in zip(a, b, strict=True)),
        "norm": max(abs(x["policy/grad_norm"] / y["policy/grad_norm"] - 1) for x, y in zip(a, b, strict=True)),
        "weights": max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]),
    }


NEAR = {"rollouts": 0, "evals": 0, "loss": 1e-6, "norm": 1e-4, "weights": 5e-6}
BOUND = "0 differ; loss 1e-6, norm 1e-4 relative, weights 5e-6"


def near(what: str, how: str, one: Path, other: Path) -> Row:
    """The row of two runs that are to be near."""
    found = apart(one, other)
    count, evals = len(files(one, "rollouts")), len(rows(one, "evals.jsonl"))
    figure = (
        f"{found['rollouts']:.0f} of {count} files of rollouts and {found['evals']:.0f} of {evals} evaluations differ; "
        f"loss {found['loss']:.1e}, norm {found['norm']:.1e}, weights {found['weights']:.1e}"
    )
    return Row(what, how, figure, BOUND, all(found[key] <= most for key, most in NEAR.items()))


def same(what: str, how: str, one: Path, other: Path) -> Row:
    """The row of two runs that are to be equal bit for bit."""
    left, right = state(one), state(other)
    odd = [name for name in left.keys() | right.keys() if left.get(name) != right.get(name)]
    figure = f"{len(left) - len(odd)} of {len(left)} files and rows equal" + (
        f"; not {', '.join(sorted(odd)[:3])}" if odd else ""
    )
    return Row(what, how, figure, "all, bit for bit", not odd)


def shown(count: int, sets: Sequence[str], *words: str) -> str:
    """A command as the table says it."""
    verb = [] if words and not words[0].startswith("-") else ["train"]
    return " ".join(["r1v0" if count == 1 else f"torchrun --nproc-per-node {count} -m r1v0", *verb, *words, *sets])


def names(run: Path) -> str:
    return ", ".join(path.name for path in checkpoints(run)) or "no checkpoint"


def page(record: dict[str, Any]) -> str:
    """The record as a page for people."""
    lines = ["# Several processes", "", "Made by `python scripts/ranks.py`; what the rows mean is in [docs/distributed.md]"
             "(../docs/distributed.md). The words behind `train` are `--set` items.", ""]  # fmt: skip
    for name, part in record.items():
        load = "the machine's load was {} before and {} after".format(*part["load"])
        lines += [f"## {name}", "", f"{part['date']}, seed {part['seed']}, {part['machine']}; {load}.", ""]
        lines += ["| what | command | figure | bound | holds |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {row['what']} | `{row['command']}` | {row['figure']} | {row['bound']} | {'yes' if row['holds'] else '**no**'} |"
            for row in part["rows"]
        ]
        lines.append("")
    return "\n".join(lines)

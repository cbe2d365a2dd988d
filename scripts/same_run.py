"""Run two commits with the same settings and compare what they leave, byte for byte.

    python scripts/same_run.py OLD [NEW] [--cases plain,half,bfloat16]

A change that claims `numerics: same` shows it here, on one machine, with one thread. Each commit is checked out into a
folder of its own and trains the embedded model by the command line: `plain` is six steps with two evaluations, `half`
is the same with several updates per step, stopped by SIGTERM inside a step and resumed, `bfloat16` computes in it.
Equal must be: metrics and evaluations (times and memory aside), rollouts, answers, weights, optimizer state. Exit code
1 if anything differs. NEW is the working tree where it is left out.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_run import state

ROOT = Path(__file__).resolve().parent.parent
BASE = ["steps=6", "eval.every=3", "eval.max_problems=32", "checkpoints.every=3", "threads=1"]
SLOW = ["grpo.minibatches=4", "grpo.epochs=2", "optimizer.micro_batch_tokens=512"]
"""several updates per step: a stop falls inside a step more often than not"""
CASES = {"plain": BASE, "half": [*BASE, *SLOW], "bfloat16": [*BASE, "compute.dtype=bfloat16"]}
TRIES = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="commit")
    parser.add_argument("new", nargs="?", help="commit (default: the working tree)")
    parser.add_argument("--cases", default=",".join(CASES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        old = checkout(arguments.old, folder / "old")
        new = checkout(arguments.new, folder / "new") if arguments.new else ROOT
        different = 0
        for case in arguments.cases.split(","):
            left = left_by(old, case, folder / f"old-{case}")
            right = left_by(new, case, folder / f"new-{case}")
            names = left.keys() | right.keys()
            wrong = sorted(name for name in names if left.get(name) != right.get(name))
            different += len(wrong)
            print(f"{case}: {len(names) - len(wrong)} equal, {len(wrong)} different", *wrong, flush=True)
    return 1 if different else 0


def checkout(commit: str, folder: Path) -> Path:
    """The files of a commit, without its history."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def left_by(code: Path, case: str, run: Path) -> dict[str, str]:
    """Digests of what a run of `code` leaves."""
    if case == "half":
        stop_inside_a_step(code, run)
        words = ["--resume", str(run)]
    else:
        words = settings(code, case, run)
    process = start(code, words, run.with_suffix(".log"))
    if process.wait():
        raise SystemExit(run.with_suffix(".log").read_text())
    return {name: value for name, value in state(run).items() if not name.endswith(".toml") and name != "checkpoints"}


def stop_inside_a_step(code: Path, run: Path) -> None:
    """Stop and resume a run until a checkpoint inside a step is left behind, before its last step."""
    words = settings(code, "half", run)
    for _ in range(TRIES):
        steps = rows(run)
        process = start(code, words, run.with_suffix(".log"))
        while process.poll() is None and rows(run) <= steps:
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        if process.wait() not in (0, 130):
            raise SystemExit(run.with_suffix(".log").read_text())
        newest = max(run.glob("checkpoints/step-*")).name
        if "." in newest:
            print(f"stopped at {newest}", flush=True)
            return
        words = ["--resume", str(run)]
    raise SystemExit("no stop fell inside a step: run it again")


def rows(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def settings(code: Path, case: str, run: Path) -> list[str]:
    """The words of `r1v0 train`, by the names that the settings have in the code of a folder."""
    text = "".join(path.read_text(encoding="utf-8") for path in (code / "src" / "r1v0").rglob("*.py"))
    items = list(CASES[case])
    if "checkpoint_every: int" in text:
        items = [item.replace("checkpoints.every", "checkpoint_every") for item in items]
    return ["--preset", "countdown", "--out", str(run), *(word for item in items for word in ("--set", item))]


def start(code: Path, words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """`r1v0 train` of the code in a folder; what it says goes to `log`."""
    environment = {**os.environ, "PYTHONPATH": str(code / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "r1v0", "train", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=code,
        )


if __name__ == "__main__":
    sys.exit(main())

"""Several processes of one run held against one, killed, stopped and resumed: the table of docs/distributed.md.

    python scripts/ranks.py [--only equal,twice,...] [--kills 10] [--seed 1] [--folder DIR] [--record FILE]

Every row is made by the real command line, under torchrun with one thread a process, on Linux (/proc names the
processes). What was made goes into the record (results/distributed.json), where the rest stays, and the page beside it
is written from that. Exit code 1 if a bound does not hold. `--only time` is for an idle machine.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from rank_faults import SHORT, TRAINING, disk, kills, nodes, restarts, stops
from rank_jobs import (
    Row,
    checkpoints,
    command,
    done,
    near,
    page,
    rows,
    same,
    shown,
    start,
    train,
)

ROOT = Path(__file__).resolve().parent.parent
DEMO = ["eval.max_problems=32", "threads=1"]


def equal(folder: Path, _: argparse.Namespace) -> list[Row]:
    """Two and four processes against one."""
    found = []
    for count, steps in ((2, 20), (4, 5)):
        one, many = folder / f"one-{steps}", folder / f"many-{count}"
        sets = [f"steps={steps}", *DEMO]
        done(1, train(one, sets), folder / "one.log")
        done(count, train(many, sets), folder / "many.log")
        found.append(near(f"{count} processes against 1, {steps} steps", shown(count, sets), one, many))
    return found


def twice(folder: Path, _: argparse.Namespace) -> list[Row]:
    """Two processes, and once more."""
    sets = ["steps=8", "eval.every=4", *DEMO]
    for name in "ab":
        done(2, train(folder / name, sets), folder / f"{name}.log")
    return [same("2 processes twice", shown(2, sets), folder / "a", folder / "b")]


def resume(folder: Path, _: argparse.Namespace) -> list[Row]:
    """One run in 1, 2, 3 and 1 processes, stopped in between, also half way in a step."""
    sets = [*TRAINING, "steps=8", "grpo.groups=8", "grpo.epochs=1", "checkpoints.every=100"]
    undisturbed, run = folder / "undisturbed", folder / "resumed"
    done(1, train(undisturbed, sets), folder / "undisturbed.log")
    at = []
    for place, count in enumerate((1, 2, 3, 1)):
        words = ["train", "--resume", str(run)] if place else train(run, sets)
        job, steps = start(command(count, words), folder / f"part-{place}.log"), len(rows(run))
        if place < 3 and job.until(lambda steps=steps: len(rows(run)) > steps + 1):
            time.sleep(0.6 * rows(run)[-1]["time/step_s"])
            os.kill(job.process.pid, signal.SIGTERM)
        job.process.wait()
        at.append(checkpoints(run)[-1].name)
    row = near("1, 2, 3, 1 processes, one after the other", shown(1, sets), undisturbed, run)
    half = sum("." in name for name in at)
    figure = f"stopped at {', '.join(at[:3])}; {row.figure}"
    return [Row(row.what, row.command, figure, f"one stop half way in a step; {row.bound}", row.holds and half > 0)]


def evaluate(folder: Path, _: argparse.Namespace) -> list[Row]:
    """`r1v0 eval` in two processes against one, and stopped and gone on with."""
    words = ["eval", "tiny", "--on", "countdown,countdown-hard", "--set", "eval.max_problems=200", "--set", "threads=1"]
    outs = {name: folder / name for name in ("one", "two", "stopped")}
    for count, name in ((1, "one"), (2, "two")):
        done(count, [*words, "--out", str(outs[name])], folder / f"{name}.log")
    job = start(command(2, again := [*words, "--out", str(outs["stopped"])]), folder / "stopped.log")
    kept = outs["stopped"]
    job.until(lambda: sum(path.read_bytes().count(b"\n") for path in kept.glob("answers*.jsonl")) > 60)
    os.kill(job.process.pid, signal.SIGTERM)
    job.process.wait()
    before = sum(path.read_bytes().count(b"\n") for path in kept.glob("answers*.jsonl"))
    done(2, again, folder / "again.log")
    files = ("answers.jsonl", "evals.jsonl", "eval.json")
    figures = [sum((outs["one"] / file).read_bytes() == (outs[name] / file).read_bytes() for file in files)
               for name in ("two", "stopped")]  # fmt: skip
    answers = (outs["one"] / "answers.jsonl").read_bytes().count(b"\n")
    how = shown(2, [], *words)
    return [
        Row("an evaluation, 2 processes against 1", how, f"{figures[0]} of 3 files equal", "3", figures[0] == 3),
        Row(
            "the same, stopped by SIGTERM and gone on with",
            how,
            f"stopped after {before} of {answers} answers; {figures[1]} of 3 files equal",
            "stopped in between; 3",
            figures[1] == 3 and 0 < before < answers,
        ),
    ]


def greps(folder: Path, _: argparse.Namespace) -> list[Row]:
    """What the source and a checkpoint do not hold."""
    done(2, train(folder / "run", [*SHORT, "steps=2"]), folder / "run.log")
    source = "".join(path.read_text() for path in (ROOT / "src" / "r1v0").rglob("*.py"))
    loop = "".join((ROOT / "src" / "r1v0" / name).read_text() for name in ("trainer/loop.py", "grpo/step.py"))
    counts = {
        "`rank == 0` in loop.py and step.py": loop.count("rank == 0") + loop.count("rank() == 0"),
        "pickled collectives (`*_object`, `*_object_list`) in src": sum(
            source.count(f"{name}(") for name in ("gather_object", "object_list")
        ),
        "`.metadata` of a pickling checkpoint writer": sum(1 for _ in (folder / "run").rglob(".metadata")),
    }
    return [Row(what, "grep", str(count), "0", not count) for what, count in counts.items()]


def wall(folder: Path, _: argparse.Namespace) -> list[Row]:
    """The demo's first 30 steps in one and two processes in turns: medians of three rounds."""
    sets, found = ["steps=30", "eval.on=[]", "threads=1"], {1: [], 2: []}  # type: ignore[var-annotated]
    for turn in range(3):
        for count, took in found.items():
            run, began = folder / f"{turn}-{count}", time.monotonic()
            done(count, train(run, sets), run.with_suffix(".log"))
            keys = ("time/sample_s", "time/train_s", "time/sample_wait_s", "time/train_wait_s")
            took.append([time.monotonic() - began, *(sum(row.get(key, 0.0) for row in rows(run)) for key in keys)])
    medians = {
        count: [statistics.median(column) for column in zip(*took, strict=True)] for count, took in found.items()
    }
    figures = [
        f"{count} process{'es' * (count > 1)}: {m[0]:.1f} s with loading, sampling {m[1]:.1f} s, training {m[2]:.1f} s"
        + (f" (waiting {m[3]:.1f} and {m[4]:.1f} s)" if count > 1 else "")
        for count, m in medians.items()
    ]
    return [Row("wall time of 30 steps", shown(2, sets), "; ".join(figures), "none", True)]


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[Row]]] = {
    "equal": equal, "twice": twice, "kills": kills, "restarts": restarts, "nodes": nodes, "stops": stops, "resume": resume,
    "disk": disk, "eval": evaluate, "greps": greps, "time": wall,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=10, help="of `restarts`")
    parser.add_argument("--seed", type=int, default=1, help="of the moments; the training seed is always the default")
    parser.add_argument("--folder", type=Path, help="where the runs go (default: a temporary folder)")
    parser.add_argument("--record", type=Path, default=ROOT / "results" / "distributed.json")
    arguments = parser.parse_args()
    record = json.loads(arguments.record.read_text()) if arguments.record.exists() else {}
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.only.split(","):
            folder = (arguments.folder or Path(temporary)) / name
            folder.mkdir(parents=True)
            load, made = os.getloadavg()[0], PARTS[name](folder, arguments)
            for row in made:
                print("holds" if row.holds else "DOES NOT HOLD", row.what, row.figure, sep="  ", flush=True)
            good = good and all(row.holds for row in made)
            record[name] = {
                "date": datetime.now(UTC).date().isoformat(), "seed": arguments.seed, "machine": machine(),
                "load": [round(load, 1), round(os.getloadavg()[0], 1)], "rows": [asdict(row) for row in made],
            }  # fmt: skip
            record = {part: record[part] for part in PARTS if part in record}
            arguments.record.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            arguments.record.with_suffix(".md").write_text(page(record), encoding="utf-8")
    return 0 if good else 1


def machine() -> str:
    told = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0].lstrip("\t :")
    return f"{told}, {os.cpu_count()} cores, {platform.system()}; torch {torch.__version__}, gloo"


if __name__ == "__main__":
    sys.exit(main())

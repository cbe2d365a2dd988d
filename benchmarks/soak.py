"""A long run, watched from outside: does memory stay flat, are handles and workers constant, does accuracy hold?

    python benchmarks/soak.py run RUN [--steps 300]     about 8 minutes of one thread
    python benchmarks/soak.py report RUN                -> results/soak.json, results/soak.md, results/soak.png

`run` starts `r1v0 train` on countdown in a process of its own, with grading processes beside it, and reads after each
step, from /proc, the resident memory, open file handles and child processes of it. `report` judges what it saw:
resident memory grows by less than 5 % after the first 20 steps (medians of 20 steps, so that one step's peak counts
neither way), handles and workers are as many at the end as after 20 steps, and held-out accuracy at the end lies within
its interval of its best.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from r1v0.report import style
from r1v0.report.table import markdown_table
from r1v0.runs import records, runlog

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
SAMPLES = "soak.jsonl"
WARM = 20  # steps before memory is held against anything
SPAN = 20  # steps of a median
GROWTH = 0.05
# A falling rate: at the constant one of the 80-step preset, accuracy swings by .05 over 300 steps (docs/log.md). And
# the symbolic grader beside the task's own (weight 0), so that there are grading processes to count.
SETTINGS = [
    "optimizer.schedule=cosine",
    "checkpoints.every=50",
    "threads=1",
    "checkpoints.keep_last=2",
    'reward.extra={"math" = 0.0}',
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for soak.json, .md and .png")
    arguments = parser.parse_args()
    if arguments.verb == "run":
        run(arguments.run, arguments.steps)
    failed = report(arguments.run, arguments.out)
    if failed:
        sys.exit(f"soak failed: {', '.join(failed)}")


def run(folder: Path, steps: int) -> None:
    """Train, and write a line of soak.jsonl for each step that the run has logged."""
    if not Path("/proc/self/status").exists():
        sys.exit("soak reads /proc, which this system has not: run it on Linux")
    settings = [word for text in (f"steps={steps}", *SETTINGS) for word in ("--set", text)]
    command = [sys.executable, "-m", "r1v0", "train", *settings, "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        seen = 0
        while child.poll() is None:
            time.sleep(0.05)
            step = lines(folder / runlog.METRICS)
            if step > seen:
                sample = {"step": step, **reading(child.pid)}
                if sample["rss"]:
                    with open(folder / SAMPLES, "a", encoding="utf-8") as file:
                        file.write(json.dumps(sample) + "\n")
                seen = step
    if child.returncode:
        sys.exit(f"the run ended with code {child.returncode}")


def lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def reading(process: int) -> dict[str, int]:
    """Resident bytes of a process and of its children, its open file handles, and its children."""
    children = [int(word) for task in Path(f"/proc/{process}/task").glob("*/children") for word in text(task).split()]
    return {
        "rss": resident(process),
        "children_rss": sum(map(resident, children)),
        "handles": count(f"/proc/{process}/fd"),
        "children": len(children),
        "threads": count(f"/proc/{process}/task"),
    }


def resident(process: int) -> int:
    found = [
        line.split()[1] for line in text(Path(f"/proc/{process}/status")).splitlines() if line.startswith("VmRSS:")
    ]
    return int(found[0]) * 1024 if found else 0


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return ""


def count(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def report(folder: Path, out: Path) -> list[str]:
    """Write soak.json, soak.md and soak.png; the names of the checks that failed."""
    samples = [json.loads(line) for line in (folder / SAMPLES).read_text(encoding="utf-8").splitlines()]
    evals = [row for row in records.read_evals(folder) if row["dataset"] == "countdown"]
    seconds = sum(row["time/step_s"] for row in records.read_metrics(folder))
    found = judge(samples, evals)
    env = json.loads((folder / runlog.ENV).read_text(encoding="utf-8"))
    content = {
        "steps": samples[-1]["step"],
        "seconds": round(seconds),
        "cpu": env["cpu"],
        "torch": env["packages"]["torch"],
        "commit": env["git_commit"],
        "checks": found,
        "samples": samples,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    (out / "soak.md").write_text("\n".join(page(content)) + "\n", encoding="utf-8")
    draw(samples, evals, out / "soak.png")
    print("\n".join(page(content)))
    return [name for name, check in found.items() if not check["ok"]]


def judge(samples: Sequence[dict[str, int]], evals: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """check -> {"ok", "text"}."""
    warm = [sample for sample in samples if sample["step"] > WARM]
    first, last = (median(sample["rss"] for sample in part) for part in (warm[:SPAN], warm[-SPAN:]))
    growth = last / first - 1
    best, end = max(evals, key=lambda row: float(row["accuracy"])), evals[-1]
    found: dict[str, dict[str, Any]] = {
        "resident memory": {
            "ok": growth < GROWTH,
            "text": f"{first / 1e6:.0f} MB after step {WARM}, {last / 1e6:.0f} MB at the end: {growth:+.1%} (limit "
            f"{GROWTH:+.0%})",
        }
    }
    for name, key in (("file handles", "handles"), ("child processes", "children"), ("threads", "threads")):
        values = [sample[key] for sample in warm]  # a file that is being written adds one for a moment: take the lowest
        at_first, at_last = min(values[:SPAN]), min(values[-SPAN:])
        found[name] = {
            "ok": at_first == at_last,
            "text": f"{at_first} after step {WARM}, {at_last} at the end; {min(values)} to {max(values)} at any time "
            "between",
        }
    found["held-out accuracy"] = {
        "ok": end["ci_high"] >= best["accuracy"],
        "text": f"{end['accuracy']:.3f} [{end['ci_low']:.3f}, {end['ci_high']:.3f}] at step {end['step']}, "
        f"best {best['accuracy']:.3f} at step {best['step']}",
    }
    return found


def page(content: dict[str, Any]) -> list[str]:
    """results/soak.md."""
    rows = [(name, check["text"], "yes" if check["ok"] else "**no**") for name, check in content["checks"].items()]
    return [
        f"# Soak: {content['steps']} steps of countdown, watched from outside",
        "",
        "Command: `make soak`, which is `python benchmarks/soak.py run RUN`. Read from /proc after each step.",
        f"Hardware: {content['cpu']}, one thread; torch {content['torch']}; commit {(content['commit'] or '?')[:9]}; "
        f"{content['seconds'] / 60:.1f} minutes of steps.",
        "",
        markdown_table(("what", "seen", "held"), rows, left=3),
        "",
        "![memory, handles and accuracy over the steps](soak.png)",
    ]


def draw(samples: Sequence[dict[str, int]], evals: Sequence[dict[str, Any]], path: Path) -> None:
    """Memory, handles with workers, and accuracy, over the steps."""
    import matplotlib

    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        figure = style.new_figure(3 * style.PANEL_HEIGHT + 1.2)
        memory, counts, accuracy = figure.subplots(3, 1)
        steps = [sample["step"] for sample in samples]
        panels: list[tuple[Any, str, str, dict[str, list[float]]]] = [
            (memory, "Resident memory", "MB, the trainer's process", {"": [s["rss"] / 1e6 for s in samples]}),
            (counts, "Handles and workers", "open file handles; grading processes", {
                "handles": [float(s["handles"]) for s in samples], "processes": [float(s["children"]) for s in samples]}),
        ]  # fmt: skip
        for axes, title, subtitle, curves in panels:
            style.heading(axes, title, subtitle)
            for colour, values in zip(style.CYCLE, curves.values(), strict=False):
                style.line(axes, dict(zip(steps, values, strict=True)), colour)
            style.finish_axes(axes, steps[-1], "number", [value for values in curves.values() for value in values])
            ends = [(values[-1], f"{name} {values[-1]:.0f}".strip()) for name, values in curves.items()]
            labels = [(value, words, colour) for colour, (value, words) in zip(style.CYCLE, ends, strict=False)]
            style.end_labels(axes, labels)
        style.heading(accuracy, "Held-out accuracy", "countdown, with its 95 % interval")
        points = {row["step"]: row["accuracy"] for row in evals}
        low, high = ({row["step"]: row[key] for row in evals} for key in ("ci_low", "ci_high"))
        style.band(accuracy, low, high, style.BLUE)
        style.line(accuracy, points, style.BLUE, dots=len(points) < 40)
        style.finish_axes(accuracy, steps[-1], "share", [*low.values(), *high.values()])
        style.end_labels(
            accuracy, [(evals[-1]["accuracy"], style.value_text(evals[-1]["accuracy"], "share"), style.BLUE)]
        )
        style.save(figure, path)


if __name__ == "__main__":
    main()

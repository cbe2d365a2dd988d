"""r1v0's speed and memory, beside transformers and TRL: the numbers of docs/performance.md.

    python benchmarks/performance.py                    all cases, about 70 minutes on two idle cores -> results/performance/
    python benchmarks/performance.py --only sampling,step --rounds 3
    python benchmarks/performance.py --quick --out DIR  every case in a toy size: does everything run?
    python benchmarks/performance.py --report           table and plot once more, from the measurements that are there

Each case writes CASE.json after every measurement, and replaces what an earlier run of that case left. Nothing else
should run meanwhile: `cpu_s` below `seconds` x threads tells where something did. One process, contenders in turns,
medians.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does: before torch is imported

import peers
import performance_report
import scaling_cases
import torch
import training_cases

from r1v0.base.writing import write_atomic
from r1v0.jobs.bench import cases
from r1v0.jobs.bench.workload import Work, natural_work, random_model_folder, random_work
from r1v0.models.loading import load
from r1v0.runs.provenance import environment

ROOT = Path(__file__).resolve().parent.parent
Case = Callable[[Path, Work, int, cases.Record, bool], None]  # (model folder, work, rounds, record, quick)


def with_threads(run: Callable[[str], None]) -> None:
    """Call it for one thread, and for all; with the words that say so."""
    every = torch.get_num_threads()
    for threads in sorted({1, every}):
        torch.set_num_threads(threads)
        run(f"{threads} thread{'s' * (threads > 1)}")
    torch.set_num_threads(every)


def sampling(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    def run(threads: str) -> None:
        for job in (work, natural_work("tiny", *((2, 2, 8) if quick else ()))):
            peers.sampling(replace(job, name=f"{job.name}, {threads}"), rounds, record)

    with_threads(run)


def step(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    def run(threads: str) -> None:
        for dtype in (torch.float32, torch.bfloat16):
            fresh = replace(work, policy=load(folder), name=f"{work.name}, {threads}")  # a step trains it
            peers.whole_step(fresh, rounds, record, dtype=dtype)
        tiny = natural_work("tiny", *((2, 2, 8) if quick else ()))
        peers.whole_step(replace(tiny, name=f"{tiny.name}, {threads}"), rounds, record)

    with_threads(run)


def layout(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    draws = (training_cases.LIKE_THE_FIRST, *range(5))
    training_cases.layout(work, rounds, record, *((6, 60, (0, 1)) if quick else (40, 2000, draws)))


def sparse(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    training_cases.sparse(work, rounds, record)


def head(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    training_cases.head(1 if quick else min(rounds, 3), record, *((512, 60_000) if quick else (1024, 151_936)))


def lengths(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    scaling_cases.lengths(work, rounds, record, (4, 8) if quick else (128, 200, 500, 1000, 2000, 4000, 8000))


def groups(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    scaling_cases.groups(work, rounds, record, *((4, 16) if quick else (64, 512)))


def rows(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    scaling_cases.rows(work, rounds, record, *(((1, 4), 4) if quick else ((1, 4, 16, 64, 128, 256), 64)))


def memory(folder: Path, work: Work, rounds: int, record: cases.Record, quick: bool) -> None:
    sizes = ((8, 16), (256, 512)) if quick else ((500, 1000, 2000, 4000), (1024, 2048, 4096, 8192, 16384))
    scaling_cases.memory(folder, record, *sizes)


CASES: dict[str, Case] = {
    "sampling": sampling,
    "step": step,
    "layout": layout,
    "sparse": sparse,
    "head": head,
    "lengths": lengths,
    "groups": groups,
    "rows": rows,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="CASE[,CASE]", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="CPU threads of every contender in sampling and step, which are measured with one too (default: all)",
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "performance")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else list(CASES)
    unknown = [name for name in chosen if name not in CASES]
    if unknown or arguments.rounds < 1 or arguments.threads < 1:
        parser.error(
            f"no case {', '.join(unknown)}: expected some of {', '.join(CASES)}" if unknown else "expected at least 1"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        measure(chosen, arguments.out, 1 if arguments.quick else arguments.rounds, arguments.threads, arguments.quick)
    print(performance_report.write(arguments.out))


def measure(chosen: list[str], out: Path, rounds: int, threads: int, quick: bool) -> None:
    """Run the cases one after another; each leaves CASE.json. Those without peers have one thread."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        size = {"layers": 1, "hidden": 64} if quick else {}
        folder = random_model_folder(Path(temporary) / "random", **size)
        for name in chosen:
            own_threads = threads if name in ("sampling", "step") else 1
            torch.set_num_threads(own_threads)
            work = random_work(folder, *((2, 2, 8) if quick else ()))  # anew: an earlier case may have trained it
            CASES[name](folder, work, rounds, recorder(out / f"{name}.json", rounds, own_threads, quick, start), quick)


def recorder(path: Path, rounds: int, threads: int, quick: bool, start: float) -> cases.Record:
    """What a case hands its measurements to: each is written to its file, with those before it, and shown."""
    about = environment("", threads) | {"peers": {name: peers.installed(name) for name in ("transformers", "trl")}}
    about.pop("command")
    rows: list[dict[str, Any]] = []

    def record(row: dict[str, Any]) -> None:
        rows.append(row)
        write_atomic(path, _json({"about": about, "rounds": rounds, "quick": quick, "rows": rows}))
        print(f"{time.perf_counter() - start:6.0f} s  {progress_line(row)}", file=sys.stderr, flush=True)

    return record


def progress_line(row: dict[str, Any]) -> str:
    """A measurement as a line on the screen."""
    parts = [
        row["case"],
        row["setting"],
        f"{row['flat']:.0%} flat" if "flat" in row else "",
        row["contender"],
        str(row.get("x", "")),
    ]
    if "skipped" in row:
        parts.append(f"left out: {row['skipped']}")
    if "seconds" in row:
        parts.append(f"{row['seconds']:.2f} s, {row['tokens'] / row['seconds']:,.0f} tokens/s")
    if "bytes" in row:
        parts.append(f"{row['bytes'] / (1 << 20):,.0f} MiB")
    return "  ".join(part for part in parts if part)


def _json(value: dict[str, Any]) -> bytes:
    head = {key: entry for key, entry in value.items() if key != "rows"}
    rows = ",\n".join("  " + json.dumps(row) for row in value["rows"])
    return (json.dumps(head, indent=1).removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n ]\n}\n").encode()


if __name__ == "__main__":
    main()

"""The README's numbers: countdown and its two controls, three seeds each, and a second base model.

    python benchmarks/countdown.py run RUNS [--base1 FOLDER]   about 15 minutes on two idle cores
    python benchmarks/countdown.py report RUNS                 -> results/countdown/ and results/countdown.md

`run` starts `r1v0 train` once for each setting and seed, two at a time, and measures the first and the last policy
on the splits that nothing was chosen on (countdown-final). `report` only reads what is there.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from r1v0.base.means import mean
from r1v0.report import plot_groups
from r1v0.runs import records, runlog

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
SEEDS = (0, 1, 2)
SETTINGS = {
    "countdown": "countdown",
    "countdown-random": "random reward",
    "countdown-dense": "dense",
    "base1": "second base",
}
KEPT = (runlog.CONFIG, runlog.ENV, runlog.METRICS, runlog.EVALS)
FINAL = "countdown-final,countdown-final-hard"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--base1", type=Path, help="a base model of another pretraining seed (r1v0 pretrain --seed 1)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; each uses one thread (default: 2)")
    arguments = parser.parse_args()
    if arguments.verb == "run":
        run(arguments.runs, arguments.base1, arguments.jobs)
    report(arguments.runs)


def run(runs: Path, base1: Path | None, jobs: int) -> None:
    """Train what is not there yet, `jobs` runs at a time."""
    tasks = []
    for setting in SETTINGS:
        if setting == "base1" and base1 is None:
            continue
        preset = "countdown" if setting == "base1" else setting
        model = ["--set", f"model={base1}"] if setting == "base1" else []
        for seed in SEEDS:
            folder = runs / f"{setting}-seed{seed}"
            if not folder.exists():
                tasks.append(["train", "--preset", preset, "--set", f"seed={seed}", *model, "--out", str(folder)])
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(r1v0, tasks))
    measured = {"final-tiny": "tiny"} | {
        f"final-countdown-seed{seed}": str(runs / f"countdown-seed{seed}") for seed in SEEDS
    }
    missing = {runs / name: model for name, model in measured.items() if not (runs / name / runlog.EVALS).exists()}
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(final, missing.values(), missing))


def final(model: str, out: Path) -> None:
    settings = ["--set", "eval.max_problems=0", "--set", "threads=1", "--samples", "4"]
    r1v0(["eval", model, "--on", FINAL, *settings, "--out", str(out)])


def r1v0(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "r1v0", *arguments], check=True)


def report(runs: Path) -> None:
    """Tables and pictures of all runs that are there."""
    out = RESULTS / "countdown"
    groups = {
        label: folders for setting, label in SETTINGS.items() if (folders := sorted(runs.glob(f"{setting}-seed?")))
    }
    for folder in sorted(folder for folders in groups.values() for folder in folders):
        (out / folder.name).mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(folder / name, out / folder.name / name)
    plot_groups(
        {label: groups[label] for label in ("countdown", "random reward") if label in groups}, RESULTS / "countdown.png"
    )
    plot_groups(
        {label: groups[label] for label in ("countdown", "dense") if label in groups}, RESULTS / "countdown-dense.png"
    )
    plot_groups({"countdown": groups["countdown"][:1]}, out)
    lines = [
        *HEADER.format(**about(groups["countdown"][0])).splitlines(),
        *table(groups),
        "",
        *means(groups),
        "",
        *finals(runs),
    ]
    (RESULTS / "countdown.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


HEADER = """# Countdown: every run behind the README

Command: `python benchmarks/countdown.py run RUNS --base1 BASE1`, BASE1 made by `r1v0 pretrain --seed 1 --out BASE1`.
Hardware: {cpu}, {cpu_count} cores, no GPU; torch {torch}, Python {python}; r1v0 {r1v0}, commit {commit}.
Accuracies are of one sampled answer (T = 1) to each of 256 held-out problems, or 146 hard ones, whose numbers occur
neither in pretraining nor in RL; the 95 % interval of one accuracy is about +-.06 (hard: +-.08). Runs were made two at a
time, one thread each, partly beside other work: their seconds are upper bounds, a run alone is in the README. "RL" is
the training steps, "wall" adds the nine evaluations. The logs of each run are in `countdown/`.

| setting | seed | accuracy | hard accuracy | length | hard length | reflection | groups flat, first/last 5 | tokens trained | RL s | wall s |
|---|---|---|---|---|---|---|---|---|---|---|"""


def about(folder: Path) -> dict[str, Any]:
    env = json.loads((folder / runlog.ENV).read_text(encoding="utf-8"))
    return {**env, "torch": env["packages"]["torch"], "commit": (env["git_commit"] or "?")[:9]}


def table(groups: dict[str, list[Path]]) -> list[str]:
    """A row a run."""
    rows = []
    for label, folders in groups.items():
        for folder in folders:
            metrics, main_set, hard = logs(folder)
            flat = [row["groups/flat_frac"] for row in metrics]
            trained = sum(row["tokens/trained"] for row in metrics) / sum(row["tokens/sampled"] for row in metrics)
            seconds = sum(row["time/step_s"] for row in metrics)
            wall = seconds + sum(row["time_s"] for row in main_set + hard)
            cells = [label, folder.name[-1], *(arrow(rows_, key) for rows_, key in
                     ((main_set, "accuracy"), (hard, "accuracy"), (main_set, "length"), (hard, "length"), (main_set, "reflection_frac"))),
                     f"{mean(flat[:5]):.2f} / {mean(flat[-5:]):.2f}", f"{trained:.2f}", f"{seconds:.0f}", f"{wall:.0f}"]  # fmt: skip
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def logs(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    evals = records.read_evals(folder)
    main_set, hard = ([row for row in evals if row["dataset"] == name] for name in ("countdown", "countdown-hard"))
    return records.read_metrics(folder), main_set, hard


def arrow(rows: Sequence[dict[str, Any]], key: str) -> str:
    digits = 0 if key == "length" else 2
    return f"{rows[0][key]:.{digits}f} -> {rows[-1][key]:.{digits}f}"


def means(groups: dict[str, list[Path]]) -> list[str]:
    """Mean and range over the seeds of each setting."""
    lines = [
        "| setting | accuracy at the end (lowest to highest) | hard | hard, times its start | length, times "
        "its start |",
        "|---|---|---|---|---|",
    ]
    for label, folders in groups.items():
        found = [logs(folder) for folder in folders]
        ends, hard_ends = ([sets[i][-1]["accuracy"] for sets in found] for i in (1, 2))
        times = [
            mean([sets[2][-1]["accuracy"] / sets[2][0]["accuracy"] for sets in found]),
            mean([sets[1][-1]["length"] / sets[1][0]["length"] for sets in found]),
        ]
        lines.append(f"| {label} | {spread(ends)} | {spread(hard_ends)} | {times[0]:.1f} | {times[1]:.1f} |")
    return lines


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def finals(runs: Path) -> list[str]:
    """The splits that nothing was chosen on."""
    lines = ["Splits on which nothing was chosen (all their problems, 4 answers each, 95 % interval over problems):", "",
             "| policy | split | problems | accuracy | pass@4 | length |", "|---|---|---|---|---|---|"]  # fmt: skip
    for folder in sorted(runs.glob("final-*"), reverse=True):
        for row in map(json.loads, (folder / runlog.EVALS).read_text(encoding="utf-8").splitlines()):
            interval = f"{row['accuracy']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            cells = [
                folder.name.removeprefix("final-"),
                row["dataset"],
                str(row["problems"]),
                interval,
                f"{row['pass_at_k']['4']:.3f}",
                f"{row['length']:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()

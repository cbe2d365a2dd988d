"""results/reliability.md from what the long tests recorded.

    python benchmarks/reliability.py        reads results/reliability-kill.json, -fuzz.json, -mutants.json and soak.json

It only writes down what is in those files; a test whose file is not there is named as not run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1v0.report.table import markdown_table

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> None:
    lines = [
        "# Long tests of reliability",
        "",
        "What each fault does to a run, and the short test that shows it, is in "
        "[docs/reliability.md](../docs/reliability.md).",
        "These tests take minutes. Their records are the JSON files beside this page, from which",
        "`python benchmarks/reliability.py` makes it.",
    ]
    for title, verb, name, section in SECTIONS:
        path = RESULTS / name
        body = section(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ["Not run yet."]
        lines += [
            "",
            f"## {title}",
            "",
            f"Command: `{verb}`; record: " + (f"[{name}]({name})." if path.exists() else "none."),
            "",
            *body,
        ]
    (RESULTS / "reliability.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def kills(found: dict[str, Any]) -> list[str]:
    left = ", ".join(f"{name} ({count} times)" for name, count in found["kills_that_left"].items() if count)
    verdict = (
        "equal" if found["equal"] else f"**not equal** ({', '.join(found['different']) or 'kills were left over'})"
    )
    return [
        f"{found['date']}: {found['kills']} SIGKILL and {found['terms']} SIGTERM at random moments of one run "
        f"of {found['steps']} steps",
        f"(seed {found['seed']}), which each time went on by `--resume`. At the end it and a run that nobody "
        f"touched are {verdict}:",
        f"{', '.join(found['compared'])}, times aside. {found['seconds_undisturbed']:.0f} s undisturbed, "
        f"{found['seconds']:.0f} s for both.",
        f"Found in the folder after kills: {left or 'nothing half done'}.",
    ]


def fuzz(found: dict[str, Any]) -> list[str]:
    heads = ("target", "inputs", "accepted", "edges covered", "slowest", "failure")
    rows = [
        (name, f"{target['inputs']:,}", f"{target.get('accepted', 0):,}", f"{target['edges']:,}",
         f"{1000 * target.get('slowest_s', 0.0):.0f} ms", target["failure"] or "none")
        for name, target in found["targets"].items()
    ]  # fmt: skip
    return [
        f"{found['inputs']:,} inputs, {found['failures']} failures (a crash, a hang of 10 s, or a wrong acceptance),",
        f"{found['wall_s']:.0f} s on {found['cpus']} cores; atheris {found['atheris']}, Python {found['python']}.",
        "",
        markdown_table(heads, rows, left=6),
    ]


def mutants(found: dict[str, Any]) -> list[str]:
    rows = [
        (name, *(str(counts[verdict]) for verdict in ("noticed", "timeout", "survived", "equivalent")))
        for name, counts in found["modules"].items()
    ]
    survivors = [
        f"- `{row['module']}.py` line {row['number']}: `{row['line']}` as `{row['becomes']}`"
        for row in found["survivors"]
    ]
    return [
        f"{found['date']}: {found['tried']} of {found['places']} places at which a module's operator, "
        "comparison, number or truth",
        f"value can be changed (seed {found['seed']}), one change at each. **{found['noticed']} of "
        f"{found['tried'] - found['equivalent']} were noticed ({found['share']:.1%})**; {found['equivalent']} more",
        "cannot be told by any test ([mutants-equivalent.toml](../benchmarks/mutants-equivalent.toml) has "
        "the reasons).",
        f"{found['seconds'] / 60:.0f} minutes, {found['machine']}; cosmic-ray {found['cosmic_ray']}, Python "
        f"{found['python']}.",
        "",
        markdown_table(("module", "noticed", "ended by time", "not noticed", "cannot be told"), rows, left=1),
        "",
        "Not noticed:" if survivors else "All were noticed.",
        *(["", *survivors] if survivors else []),
    ]


def soak(found: dict[str, Any]) -> list[str]:
    verdicts = [
        f"{name}: {'held' if check['ok'] else '**not held**'} ({check['text']})"
        for name, check in found["checks"].items()
    ]
    return [
        f"{found['steps']} steps of countdown with two grading processes, read from /proc after each step;",
        f"{found['seconds'] / 60:.1f} minutes of steps on one thread ({found['cpu']}, torch {found['torch']}).",
        "",
        *(f"- {verdict}" for verdict in verdicts),
        "",
        "![memory, handles and accuracy over the steps](soak.png)",
    ]


SECTIONS: tuple[tuple[str, str, str, Callable[[dict[str, Any]], list[str]]], ...] = (
    ("Kills", "make faults", "reliability-kill.json", kills),
    ("Fuzzing", "make fuzz", "reliability-fuzz.json", fuzz),
    ("Changes to the code", "make mutants", "reliability-mutants.json", mutants),
    ("Soak", "make soak", "soak.json", soak),
)


if __name__ == "__main__":
    main()

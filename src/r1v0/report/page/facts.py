"""A run in words: what it is, where it ran, how far it came, its evaluations, and its settings beside their preset.

Decides: a run whose settings or environment cannot be read is shown without them, because its curves are still there.
A setting counts as changed against the preset that config.toml names, or against the built-in defaults if it names
none.
"""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1v0 import config as configs
from r1v0.base.errors import UserError
from r1v0.base.stats import number
from r1v0.config import Config
from r1v0.report import compute
from r1v0.report.page.texts import evenly
from r1v0.report.series import Run
from r1v0.report.status import accuracy, amount, other_reading, share
from r1v0.runs import records, runlog

MOST_ROWS = 60
"""evaluations of a dataset in the table"""
MOST_CHARS = 400
"""of a setting's value or a command"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Changed:
    """A setting that differs: its key, what it would be, and what it is."""

    key: str
    usual: str
    own: str


@dataclass(frozen=True)
class Facts:
    """A run in words; a text that is not known is "-"."""

    name: str
    folder: Path
    model: str
    data: str
    machine: str
    started: str
    hours: str
    tokens: str
    steps: str
    command: str
    version: str
    against: str
    """what `changed` is compared with"""
    changed: Sequence[Changed]
    note: str
    """what could not be read"""


def facts_of(name: str, folder: Path, run: Run) -> Facts:
    """The facts of a run folder whose logs are `run`."""
    env, note, config, text = runlog.environment_of(folder), "", None, ""
    try:
        text = records.config_text(folder)
        config = configs.parse(text, str(folder / runlog.CONFIG))
    except UserError as error:
        note = str(error)
    against, changed = _changes(text, config) if config else ("", [])
    sampled, trained = (sum(run.train(f"tokens/{kind}").values()) for kind in ("sampled", "trained"))
    return Facts(
        name=name,
        folder=folder,
        model=clipped(config.model) if config else "-",
        data=clipped(config.data.name) if config else "-",
        machine=_machine(env),
        started=_word(env.get("started")).replace("T", " ")[:16],
        hours=compute.duration(sum(compute.totals(run).values())),
        tokens=f"{amount(sampled)} sampled, {amount(trained)} trained",
        steps=_steps(run, config, env),
        command=_command(env.get("command")),
        version=_version(env),
        against=against,
        changed=changed,
        note=note,
    )


def together(runs: Sequence[Facts]) -> list[tuple[str, str, list[str]]]:
    """The changed settings of several runs side by side: key, usual value, each run's. Empty where there is one run
    only, or where they are not compared with the same preset."""
    if len(runs) < 2 or len({run.against for run in runs}) > 1:
        return []
    usual = {changed.key: changed.usual for run in runs for changed in run.changed}
    own = [{changed.key: changed.own for changed in run.changed} for run in runs]
    return [(key, value, [changes.get(key, value) for changes in own]) for key, value in usual.items()]


def evaluations(run: Run, most: int = MOST_ROWS) -> list[dict[str, str]]:
    """The rows of the table of evaluations, a column each by its name, in the order of steps; of more than `most` of a
    dataset an even choice. Columns are the same in all rows."""
    names = dict.fromkeys(str(row.get("dataset")) for row in run.evals)
    rows = [
        row for name in names for row in evenly([row for row in run.evals if str(row.get("dataset")) == name], most)
    ]
    rows.sort(key=lambda row: int(row["step"]))
    ks = sorted({int(k) for row in rows for k in _passes(row)})
    return [_cells(row, ks[-1] if ks else 1) for row in rows]


def change(run: Run, dataset: str) -> tuple[str, str]:
    """(accuracy, length) of a dataset from the first evaluation to the last: "20 % → 79 % [73, 83]", "34 → 118"."""
    rows = [row for row in run.evals if str(row.get("dataset")) == dataset]
    if not rows:
        return "-", "-"
    ends = rows[:1] if len(rows) == 1 else [rows[0], rows[-1]]
    first = [share(number(row.get("accuracy"))) for row in ends[:-1]]
    return (
        " → ".join([*first, accuracy(ends[-1])]),
        " → ".join(amount(number(row.get("length"))) for row in ends),
    )


def _cells(row: Row, k: int) -> dict[str, str]:
    def percent(key: str) -> str:
        return share(number(row.get(key)))

    gain = [value for key in ("gain", "gain_low", "gain_high") if (value := number(row.get(key))) is not None]
    cells = {
        "step": f"{row['step']:,}",
        "dataset": clipped(str(row.get("dataset"))),
        "accuracy, 95 %": accuracy(row) + other_reading(row),
        "gain, 95 %": "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gain) if len(gain) == 3 else "-",
        "strict": percent("strict_accuracy"),
    }
    if k > 1:
        found = _passes(row).get(str(k))
        cells |= {f"pass@{k}": share(number(found)), f"maj@{k}": percent("maj_at_k")}
    problems, samples = number(row.get("problems")), number(row.get("samples"))
    return cells | {
        "length": amount(number(row.get("length"))),
        "of finished": amount(number(row.get("length_finished"))),
        "cut off": percent("truncated_frac"),
        "reflects": percent("reflection_frac"),
        "answers": f"{problems:.0f} x {samples:.0f}" if problems is not None and samples is not None else "-",
    }


def _passes(row: Row) -> dict[str, Any]:
    """pass@k by k, out of a row whose nested values are flat."""
    found = {key.removeprefix("pass_at_k/"): value for key, value in row.items() if key.startswith("pass_at_k/")}
    return {k: value for k, value in found.items() if k.isdecimal() and len(k) < 6}


def _changes(text: str, config: Config) -> tuple[str, list[Changed]]:
    labels = [where.split() for where in configs.origins_in(text, config).values() if where.startswith("preset ")]
    usual, against = Config(), "the built-in defaults"
    if labels and len(labels[0]) > 1:
        with suppress(UserError):  # a preset of another version
            usual, against = configs.resolve(labels[0][1]), f"the preset {labels[0][1]}"
    found = configs.differences(usual, config)
    return against, [Changed(key, _value(a), _value(b)) for key, (a, b) in found.items()]


def _steps(run: Run, config: Config | None, env: Row) -> str:
    done = max((row["step"] for row in run.metrics), default=0)
    text = f"{done:,} of {config.steps:,}" if config else f"{done:,}"
    resumed = env.get("resumed")
    if isinstance(resumed, list) and resumed:
        text += f", resumed {len(resumed)} times" if len(resumed) > 1 else ", resumed once"
    return text


def _machine(env: Row) -> str:
    """AMD EPYC (2 cores, 1 thread), Linux-6.1"""
    if not env:
        return "-"
    count, threads = number(env.get("cpu_count")), number(env.get("threads"))
    size = [f"{count:.0f} cores"] if count else []
    size += [f"{threads:.0f} thread{'s' if threads > 1 else ''}"] if threads else []
    processor = _word(env.get("cpu")) + (f" ({', '.join(size)})" if size else "")
    parts = [_word(env.get("device")), processor, _word(env.get("platform"))]
    return ", ".join(part for part in parts if part != "-")


def _version(env: Row) -> str:
    packages = env.get("packages")
    torch = packages.get("torch") if isinstance(packages, dict) else None
    parts = [f"r1v0 {_word(env.get('r1v0'))}", f"commit {_commit(env.get('git_commit'))}"]
    parts += [f"torch {_word(torch)}", f"Python {_word(env.get('python'))}"]
    return ", ".join(part for part in parts if not part.endswith(" -")) or "-"


def _commit(value: Any) -> str:
    """Twelve digits of a commit, and the + of one with changes."""
    word = _word(value)
    return word[:12] + ("+" if len(word) > 12 and word.endswith("+") else "")


def _command(words: Any) -> str:
    return clipped(shlex.join(map(str, words))) if isinstance(words, list) and words else "-"


def _word(value: Any) -> str:
    return clipped(value) if isinstance(value, str) and value else "-"


def _value(value: Any) -> str:
    return clipped(configs.toml_value(value))


def clipped(text: str) -> str:
    """A text cut to what a table has room for."""
    return text if len(text) <= MOST_CHARS else f"{text[: MOST_CHARS - 1]}…"

"""Datasets: name -> problems. Text only; no torch here.

Decides: a dataset is a row of DATASETS, read from its hub copy or from a local file or folder in the same format; the
columns say which form it is. Training problems that occur in an evaluation set are dropped. A local copy is named
NAME=PATH ("math500=data/math500.jsonl"); NAME may be one of yours, with the columns `problem` and `answer`. `data.name`
may join several by "+" ("math+gsm8k"): one set, shuffled together; `levels` then choose from those parts that have any.
Adding a dataset: its line in DATASETS, and a gold-answer extractor in gold.py if none fits.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from r1v0.base import keys
from r1v0.base.errors import UserError, unknown
from r1v0.config import DataConfig
from r1v0.tasks import sums
from r1v0.tasks.countdown import problems
from r1v0.tasks.math import gold
from r1v0.tasks.problems import Problems, choose_columns, joined, normal, scan, subset
from r1v0.tasks.reading.source import ID_COLUMNS, LEVEL_COLUMN, OWN, Columns, Generated, Source
from r1v0.tasks.reading.tables import Table, locate, read
from r1v0.types import Problem

_PLAIN = Columns("problem", "answer", gold.plain)
_WORKED = Columns("problem", "solution", gold.boxed)
_NUMBER = (
    Columns("problem", "answer", gold.number),
    Columns("question", "answer", gold.number),
    Columns("problem", "solution", gold.boxed),
)
_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

_MATH = "qwen2.5-1.5b-math"
_COUNTDOWN: Any = dict(reward="countdown", preset="countdown", tokens=320)

DATASETS: dict[str, Source | Generated] = {
    "metamathqa": Source(
        "meta-math/MetaMathQA", (Columns("query", "response", gold.answer_is), _PLAIN), train="train", preset="r1-v0"
    ),
    # problem, level ("Level 5"), type, solution; 7,500 + 5,000 rows in one subset a subject
    "math": Source(
        "EleutherAI/hendrycks_math", (_PLAIN, _WORKED), train="train", test="test", subsets=_SUBJECTS, preset=_MATH
    ),
    # question, answer (ends in "#### 72"); 7,473 + 1,319 rows
    "gsm8k": Source(
        "openai/gsm8k",
        (Columns("question", "answer", gold.hashes), _PLAIN),
        train="train",
        test="test",
        subsets=("main",),
        preset="qwen2.5-0.5b-gsm8k",
        tokens=1024,
    ),
    # problem, solution, answer, subject, level (5), unique_id; 500 rows
    "math500": Source("HuggingFaceH4/MATH-500", (_PLAIN,), test="test", preset=_MATH),
    # id, problem, solution, answer ("033"), url, year; 30 rows in a split named train. math-ai/aime24: solution only
    "aime24": Source("HuggingFaceH4/aime_2024", _NUMBER, test="train", preset=_MATH, samples=32),
    # problem, answer, id; 30 rows
    "aime25": Source("math-ai/aime25", _NUMBER, test="test", preset=_MATH, samples=32),
    # id, question, answer, url; 40 rows. AI-MO's copy has problem and answer 27.0
    "amc23": Source("math-ai/amc23", _NUMBER, test="test", preset=_MATH, samples=16),
    # id, question, final_answer (a list), ...; 674 rows: open-ended, text only, mathematics, English, competition
    "olympiadbench": Source(
        "Hothan/OlympiadBench",
        (Columns("question", "final_answer", gold.plain), _PLAIN),
        test="train",
        subsets=("OE_TO_maths_en_COMP",),
        preset=_MATH,
    ),
    "countdown-train": Generated(drawn=lambda seed, index, _: problems.train_problem(seed, index), **_COUNTDOWN),
    "countdown": Generated(listed=partial(problems.problems, "countdown"), **_COUNTDOWN),
    "countdown-hard": Generated(listed=partial(problems.problems, "countdown-hard"), **_COUNTDOWN),
    "countdown-final": Generated(listed=partial(problems.problems, "countdown-final"), **_COUNTDOWN),
    "countdown-final-hard": Generated(listed=partial(problems.problems, "countdown-final-hard"), **_COUNTDOWN),
    "sums-train": Generated(drawn=sums.train_problem, levels=tuple(sums.LEVELS), preset="smollm2-135m-sums"),
    "sums-easy": Generated(listed=partial(sums.problems, "sums-easy", 1), preset="smollm2-135m-sums"),
    "sums": Generated(listed=partial(sums.problems, "sums", 2), preset="smollm2-135m-sums"),
    "sums-hard": Generated(listed=partial(sums.problems, "sums-hard", 3), preset="smollm2-135m-sums"),
}

__all__ = ["DATASETS", "Problems", "at_hand", "check", "eval_name", "load_eval", "load_problems", "reward_of"]

Note = Callable[[str], None]
_warn = logging.getLogger("r1v0").warning


def _silent(text: str) -> None:
    """What is said when an evaluation set is loaded for itself need not be said when it is avoided."""


def check(evals: Sequence[str], training: DataConfig | None = None) -> None:
    """Raise UserError for what is wrong with names, paths and settings, before anything is read or downloaded."""
    for part in _parts(training) if training else ():
        source = _training_source(part)
        if isinstance(source, Generated):
            _generated(part, source, 0)
        else:
            locate(part.path or source.hub)
    for spec in [*evals, *(training.avoid if training else ())]:
        if isinstance(source := _eval_source(spec, _path(spec)), Source):
            locate(_path(spec) or source.hub)


def load_problems(config: DataConfig, seed: int, avoid: Sequence[str] = (), note: Note = _warn) -> Problems:
    """The training problems. Those that occur in the datasets of `avoid` (a run gives its eval.on) or of `data.avoid`
    are dropped; generated ones are disjoint from their evaluation sets by construction. `note` gets one line about what
    was left out.

    Raises UserError: unknown name, no such file or hub dataset, wrong columns or split, too many malformed rows,
    nothing left.
    """
    parts = _parts(config)
    sources = [_training_source(part) for part in parts]
    if isinstance(sources[0], Generated):
        return _generated(parts[0], sources[0], seed)
    tables = []
    for part, source in zip(parts, sources, strict=True):
        assert isinstance(source, Source)  # _parts saw to it
        own = (part.question_column, part.answer_column)
        table = _table(source, part.path, part.split, (source.train,), own)
        tables.append((part.name, table, choose_columns(table, part.name, source.columns, *own)))
    avoided = _questions(avoid, _silent) | _questions([spec for spec in config.avoid if spec not in avoid], note)
    some_have_levels = any(LEVEL_COLUMN in table.columns for _, table, _ in tables)
    rows = []
    for name, table, columns in tables:
        levels = config.levels if LEVEL_COLUMN in table.columns or not some_have_levels else []
        rows.append(scan(name, table, columns, note, levels, avoided))
    return joined(rows, config.max_problems, seed)


def load_eval(spec: str, max_problems: int, path: str = "", note: Note = _warn) -> list[Problem]:
    """The problems of an evaluation, NAME or NAME=PATH: at most `max_problems` (0: all), the same ones in the same
    order each time. `path` is another way to give PATH. Raises UserError as `load_problems` does.
    """
    name, path = eval_name(spec), path or _path(spec)
    source = _eval_source(spec, path)
    if isinstance(source, Generated):
        listed = source.listed() if source.listed else []
        return listed[:max_problems] if max_problems else listed
    table = _table(source, path, "", (source.test, "test", "*"), ())
    rows = scan(name, table, choose_columns(table, name, source.columns), note)
    return [rows[place] for place in subset(len(rows), max_problems, keys.key(0, "eval", name))]


def _eval_source(spec: str, path: str) -> Source | Generated:
    """Where an evaluation's problems come from. Raises UserError for a dataset that is for training."""
    name = eval_name(spec)
    source = _find(name, path)
    if isinstance(source, Generated):
        if source.listed is None or path:
            raise UserError(
                f"dataset '{name}' is made, for training: evaluate on another, and give a file a name of its own"
            )
    elif not (source.test or path):
        raise UserError(f"dataset '{name}' is for training: evaluate on another, or on a copy of yours by {name}=PATH")
    return source


def at_hand(spec: str) -> list[Problem]:
    """The problems of an evaluation, NAME or NAME=PATH, if they are generated or in a file here; none of the hub's.
    Raises UserError as `load_eval` does."""
    source, path = DATASETS.get(eval_name(spec)), _path(spec)
    here = (isinstance(source, Generated) and source.listed) or (path and Path(path).expanduser().exists())
    return load_eval(spec, 0, note=_silent) if here else []


def reward_of(name: str) -> str:
    """The reward that a dataset, or a mix of them, is graded by if a run names none. Raises UserError if they
    differ."""
    parts = [part.name for part in _parts(DataConfig(name=name))]
    rewards = {DATASETS[part].reward if part in DATASETS else "math" for part in parts}
    if len(rewards) > 1:
        raise UserError(f"the parts of '{name}' have different rewards ({', '.join(sorted(rewards))}): set reward.name")
    return rewards.pop()


def eval_name(spec: str) -> str:
    """The dataset's name in NAME or NAME=PATH."""
    return spec.partition("=")[0].strip()


def _path(spec: str) -> str:
    return spec.partition("=")[2].strip()


def _parts(config: DataConfig) -> list[DataConfig]:
    """`config` for each of the datasets that `data.name` joins. Raises UserError for what a mix cannot have."""
    specs = config.name.split("+")
    names = [eval_name(spec) for spec in specs]
    if any(map(_path, specs)):
        _refuse(config, ("path",), f"but data.name '{config.name}' names a path: leave one of them out")
    if len(specs) > 1:
        keys = ("path", "split", "question_column", "answer_column")
        _refuse(
            config, keys, f"but data.name '{config.name}' is a mix: leave it out, and give local copies as NAME=PATH"
        )
        for name in names:
            if isinstance(DATASETS.get(name), Generated):
                raise UserError(
                    f"dataset '{name}' is made, not read, and cannot be mixed: leave it out, or train on it alone"
                )
            if names.count(name) > 1:
                raise UserError(f"data.name '{config.name}' has '{name}' twice: give each part a name of its own")
    return [
        replace(config, name=name, path=config.path or _path(spec)) for name, spec in zip(names, specs, strict=True)
    ]


def _refuse(config: DataConfig, keys: Sequence[str], why: str) -> None:
    for key in keys:
        if value := getattr(config, key):
            raise UserError(f"data.{key} is '{value}', {why}")


def _training_source(config: DataConfig) -> Source | Generated:
    source = _find(config.name, config.path)
    if isinstance(source, Source) and not source.train:
        usable = ", ".join(name for name, row in DATASETS.items() if not isinstance(row, Source) or row.train)
        raise UserError(
            f"dataset '{config.name}' is for evaluation: train on another ({usable}), or on yours by data.path"
        )
    return source


def _find(name: str, path: str) -> Source | Generated:
    if name in DATASETS:
        return DATASETS[name]
    if not path or not name:
        raise unknown("dataset", name, DATASETS)
    return OWN


def _generated(config: DataConfig, source: Generated, seed: int) -> Problems:
    drawn, levels = source.drawn, tuple(config.levels)
    if drawn is None:
        raise UserError(f"dataset '{config.name}' is for evaluation: train on '{config.name.partition('-')[0]}-train'")
    keys = ("path", "split", "question_column", "answer_column")
    _refuse(config, keys, f"but '{config.name}' is made, not read: set data.name to a name of your own")
    if not set(levels) <= set(source.levels):
        known = f"its levels are {list(source.levels)}" if source.levels else "it has no levels: leave data.levels out"
        raise UserError(f"data.levels is {list(levels)}, but of '{config.name}' {known}")
    return Problems(config.name, config.max_problems, seed, lambda index: drawn(seed, index, levels))


def _table(source: Source, path: str, split: str, preferred: Sequence[str], columns: Sequence[str]) -> Table:
    wanted = {name for form in source.columns for name in (form.question, form.answer)}
    own_copy = not path or path == source.hub
    subsets = source.subsets if own_copy or Path(path).expanduser().is_dir() else ("",)
    return read(path or source.hub, split, preferred, subsets, {*wanted, *columns, *ID_COLUMNS, LEVEL_COLUMN} - {""})


def _questions(names: Sequence[str], note: Note) -> dict[str, str]:
    """Normalised questions of all problems of these datasets, with the name of the set that has each."""
    sets = {spec: load_eval(spec, 0, note=note) for spec in dict.fromkeys(names)}
    return {normal(problem.question): eval_name(spec) for spec, found in sets.items() for problem in found}

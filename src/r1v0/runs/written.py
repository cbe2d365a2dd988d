"""What a model wrote, as the files of a run and of an evaluation hold it, read back and paired.

Decides: one vocabulary in all files (question, gold, completion, extracted, correct, reward, tokens, cut_off), so that
whoever reads or shows texts needs one shape. Two evaluations of one dataset ask the same problems with the same random
numbers, so a text after training has its text before: the same problem, the same sample.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from r1v0.base import reading
from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.runs import runlog
from r1v0.tasks.reflection import reflects

MOST = 1 << 31
EVALUATION_ANSWERS = "answers.jsonl"
"""where `r1v0 eval` keeps its answers, one a line"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A graded completion: one line of rollouts/ or answers/. `problem` is its id, and `sample` which of its
    completions; `tokens` counts the end token; `cut_off` at the length limit; `extracted` is what the reward read as
    the answer; `why` says in words why a verdict could not be reached (`failure`)."""

    dataset: str
    problem: str
    sample: int
    question: str
    gold: str
    completion: str
    extracted: str | None
    correct: bool
    strict: bool
    reward: float
    tokens: int
    cut_off: bool
    failure: str = ""
    why: str = ""

    @property
    def reflects(self) -> bool:
        """Whether it looks back on itself, told by words (tasks/reflection.py)."""
        return reflects(self.completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Written):
    """One of an evaluation, under a prompt `template`. The last two are `correct` under either reward.extraction."""

    template: str
    correct_boxed: bool | None = None
    correct_last: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRollout(Written):
    """One of a training step: of its `group`-th problem, asked by the text `prompt`; `parts` are the named rewards
    before weighting."""

    group: int
    prompt: str
    parts: dict[str, float] = field(default_factory=dict)


Kind = TypeVar("Kind", bound=Written)
WORDS = ("dataset", "problem", "question", "gold", "completion", "failure", "why", "template", "prompt")
NUMBERS = ("sample", "tokens", "group")


def parse(kind: type[Kind], record: Any) -> Kind:
    """A completion of its JSON object, every field of its type. Raises TypeError for an object that is none."""
    found = kind(**record)
    held = {spec.name: getattr(found, spec.name) for spec in fields(found)}
    good = (
        all(isinstance(held.get(name, ""), str) for name in WORDS)
        and all(type(number := held.get(name, 0)) is int and 0 <= number < MOST for name in NUMBERS)
        and isinstance(found.extracted, str | None)
        and all(isinstance(held[name], bool) for name in ("correct", "strict", "cut_off"))
        and all(isinstance(held.get(name), bool | None) for name in ("correct_boxed", "correct_last"))
        and isinstance(found.reward, int | float | None)  # a reward that was not finite is null
        and isinstance(held.get("parts", {}), dict)
    )
    if not good:
        raise TypeError("a field of another type")
    return found


def parse_all(kind: type[Kind], records: Iterable[Any], where: str) -> list[Kind]:
    """Completions of their JSON objects. Raises UserError for an object that is none."""
    try:
        return [parse(kind, record) for record in records]
    except TypeError:
        raise UserError(f"{where} holds something that is not a graded answer: remove it, or evaluate again") from None


def file_of(folder: Path, part: str, step: int) -> Path:
    """Where a run keeps what was written at a step, in `part` of its folder (runlog.ANSWERS, runlog.ROLLOUTS)."""
    return folder / part / f"{runlog.step_name(step)}.jsonl.gz"


def answers_at(folder: Path, step: int) -> list[Answer]:
    """The answers of a run's evaluation at `step`; empty if there are none. Raises UserError for a damaged file."""
    return _read(Answer, file_of(folder, runlog.ANSWERS, step))


def rollouts_at(folder: Path, step: int) -> list[TrainingRollout]:
    """The rollouts of a run's training step; empty if there are none. Raises UserError for a damaged file."""
    return _read(TrainingRollout, file_of(folder, runlog.ROLLOUTS, step))


def written_steps(folder: Path, part: str) -> list[int]:
    """The steps that have a whole file in `part` of a run folder (runlog.ANSWERS, runlog.ROLLOUTS), in order."""
    names = (path.name for path in (folder / part).glob("step-*.jsonl.gz"))
    found = [runlog.step_of(name.removesuffix(".jsonl.gz")) for name in names]
    return sorted(step for step in found if step is not None)


def evaluation_answers(out: Path) -> list[Answer]:
    """The answers of a folder of `r1v0 eval`; an answer torn by a crash is left out. Raises UserError."""
    if not (out / runlog.EVAL_PLAN).is_file():
        raise UserError(
            f"{out} holds no evaluation (no {runlog.EVAL_PLAN}): give a folder that `{typed('eval', '--out')}` wrote"
        )
    return [answer for path in kept_answers(out) if path.exists() for answer in _answers(path)]


def kept_by(out: Path, process: int) -> Path:
    """Where this process of an evaluation keeps its answers: the first one where all stand in the end."""
    return out / (f"answers-{process}.jsonl" if process else EVALUATION_ANSWERS)


def kept_answers(out: Path) -> list[Path]:
    """The first process's file, whether it is there or not, and those of the others that are."""
    return [out / EVALUATION_ANSWERS, *sorted(out.glob("answers-*.jsonl"))]


def _answers(path: Path) -> list[Answer]:
    try:
        lines = list(reading.lines(path))
    except (OSError, reading.TooLarge) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be read ({reason}): expected a file of graded answers") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(parse(Answer, json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            if number != len(lines):
                raise UserError(
                    f"{path} line {number} is damaged: drop the line, its answer is then sampled again"
                ) from None
    return found


def by_problem(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers of one dataset and template by problem, samples in order."""
    found: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda answer: answer.sample):
        found.setdefault(answer.problem, []).append(answer)
    return found


def matching(answers: Sequence[Answer], dataset: str, template: str) -> list[Answer]:
    """The dataset's answers under the same template, or under the only one there is."""
    of_dataset = [answer for answer in answers if answer.dataset == dataset]
    templates = {answer.template for answer in of_dataset}
    wanted = template if template in templates or len(templates) != 1 else templates.pop()
    return [answer for answer in of_dataset if answer.template == wanted]


@dataclass(frozen=True, slots=True)
class Pair:
    """A text, with what was written to the same problem and sample `before`, if anything was."""

    before: Written | None
    after: Written


FILTERS: Mapping[str, Callable[[Pair], bool]] = {
    "newly right": lambda pair: pair.after.correct and pair.before is not None and not pair.before.correct,
    "newly wrong": lambda pair: not pair.after.correct and pair.before is not None and pair.before.correct,
    "right": lambda pair: pair.after.correct,
    "wrong": lambda pair: not pair.after.correct,
    "cut off": lambda pair: pair.after.cut_off,
    "reflects": lambda pair: pair.after.reflects,
    "not graded": lambda pair: pair.after.failure != "",
}
"""What one may want to see of all pairs, by name."""


def pairs(before: Sequence[Written], after: Sequence[Written]) -> list[Pair]:
    """Each text of `after` with the one before it."""
    known = {(text.dataset, text.problem, text.sample): text for text in before}
    return [Pair(known.get((text.dataset, text.problem, text.sample)), text) for text in after]


def marks(pair: Pair) -> list[str]:
    """The names of the filters that a pair passes."""
    return [name for name, passes in FILTERS.items() if passes(pair)]


def chosen(pairs: Sequence[Pair], filters: Sequence[str] = (), search: str = "", longest: bool = False) -> list[Pair]:
    """The pairs that pass all `filters` and hold the text `search` (in any case) in question or completion, in order,
    or the `longest` first."""
    wanted = search.casefold()
    found = [
        pair
        for pair in pairs
        if all(FILTERS[name](pair) for name in filters)
        and (wanted in pair.after.question.casefold() or wanted in pair.after.completion.casefold())
    ]
    return sorted(found, key=lambda pair: -pair.after.tokens) if longest else found


def _read(kind: type[Kind], path: Path) -> list[Kind]:
    try:
        return parse_all(kind, [json.loads(line) for line in reading.lines(path)], str(path))
    except FileNotFoundError:
        return []
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error.__class__.__name__}): remove it, or evaluate again") from None

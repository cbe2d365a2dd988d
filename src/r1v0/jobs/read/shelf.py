"""The texts that `r1v0 read` shows: found in a run's folder or an evaluation's, and put beside those before them.

Decides: what is beside a text is the same problem and the same sample, under the same prompt template (or the only one
there is): the last evaluation of a run beside its first, unless something else is asked for. Training rollouts have
nothing before them; they stay together in their groups, because a reward means something beside its group's alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.report.texts import Entry
from r1v0.runs import runlog
from r1v0.runs.written import (
    FILTERS,
    Answer,
    Pair,
    TrainingRollout,
    Written,
    answers_at,
    chosen,
    evaluation_answers,
    matching,
    pairs,
    rollouts_at,
    written_steps,
)

COMPARING = ("newly right", "newly wrong")
"""filters that need a text before"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Texts to read. `after` and `before` are the headings of both sides of a pair; `before` is empty where nothing is
    compared. `groups` holds the rollouts of a training step by group. `step` is None for an evaluation's folder."""

    folder: Path
    step: int | None
    after: str
    before: str = ""
    texts: list[Pair]
    groups: Mapping[int, Sequence[TrainingRollout]] | None = None

    @property
    def title(self) -> str:
        """In a few words where the texts are from."""
        return f"{self.after} beside {self.before}" if self.before else self.after

    @property
    def kind(self) -> str:
        """What a text of this shelf is called."""
        return "answers" if self.groups is None else "training rollouts"

    @property
    def filters(self) -> list[str]:
        """The filters that can pass anything here."""
        return [name for name in FILTERS if self.before or name not in COMPARING]

    def counts(self) -> dict[str, int]:
        """How many texts pass each filter."""
        return {name: sum(map(FILTERS[name], self.texts)) for name in self.filters}

    def entries(self, filters: Sequence[str], search: str, longest: bool) -> list[list[Pair]]:
        """The texts that pass all filters and hold `search`; those that are shown at once are together: one pair, or
        what passes of a group."""
        found = chosen(self.texts, filters, search, longest)
        if self.groups is None:
            return [[pair] for pair in found]
        together: dict[int, list[Pair]] = {}
        for pair in found:
            assert isinstance(pair.after, TrainingRollout)
            together.setdefault(pair.after.group, []).append(pair)
        return list(together.values())


def of_run(folder: Path, step: int | None = None, against: str | None = None) -> Shelf:
    """The answers of a run's evaluation after `step` (its last), beside those `against`: the first evaluation, that
    after another step, or those of another folder. Raises UserError."""
    steps = written_steps(folder, runlog.ANSWERS)
    last = _step(folder, runlog.ANSWERS, step, steps)
    label, answers, before = f"step {last}", answers_at(folder, last), list[Answer]()
    if against is None:
        beside = f"step {steps[0]}" if steps[0] < last else ""
        before = answers_at(folder, steps[0]) if beside else []
    elif against.isascii() and against.isdigit():
        other = _step(folder, runlog.ANSWERS, int(against), steps)
        beside, before = f"step {other}", answers_at(folder, other)
    else:
        beside, before = elsewhere(Path(against))
    return Shelf(folder=folder, step=last, after=label, before=beside, texts=_paired(before, answers))


def of_evaluation(folder: Path, against: str | None = None) -> Shelf:
    """The answers that `r1v0 eval` left in a folder, beside those of another. Raises UserError."""
    answers = evaluation_answers(folder)
    if not answers:
        raise UserError(
            f"{folder} holds no answers yet: the same `{typed('eval')}` with --out {folder} goes on with it"
        )
    beside, before = elsewhere(Path(against)) if against is not None else ("", [])
    return Shelf(folder=folder, step=None, after=str(folder), before=beside, texts=_paired(before, answers))


def of_training(folder: Path, step: int | None = None) -> Shelf:
    """The rollouts of a run's training step (its last), in their groups. Raises UserError."""
    found = _step(folder, runlog.ROLLOUTS, step, written_steps(folder, runlog.ROLLOUTS))
    groups: dict[int, list[TrainingRollout]] = {}
    for rollout in rollouts_at(folder, found):
        groups.setdefault(rollout.group, []).append(rollout)
    texts = [Pair(None, rollout) for group in groups.values() for rollout in group]
    return Shelf(folder=folder, step=found, after=f"training step {found}", texts=texts, groups=groups)


def elsewhere(folder: Path) -> tuple[str, list[Answer]]:
    """The answers of another folder to compare with, and what they are called. Raises UserError."""
    if runlog.is_evaluation(folder):
        return str(folder), evaluation_answers(folder)
    if not runlog.is_run(folder):
        raise UserError(
            f"--against {folder} is neither a folder of `{typed('eval')}` nor one of `{typed('train')}`: give one, or a "
            "step of the run"
        )
    last = _step(folder, runlog.ANSWERS, None, written_steps(folder, runlog.ANSWERS))
    return f"{folder} step {last}", answers_at(folder, last)


def only(shelf: Shelf, datasets: Sequence[str]) -> Shelf:
    """The texts of these datasets. Raises UserError for one that is not there."""
    there = list(dict.fromkeys(pair.after.dataset for pair in shelf.texts))
    for name in datasets:
        if name not in there:
            raise UserError(f"--on names '{name}': expected a dataset of {shelf.title}, which has {', '.join(there)}")
    return replace(shelf, texts=[pair for pair in shelf.texts if pair.after.dataset in datasets])


def through_steps(folder: Path, wanted: Sequence[Written]) -> list[list[tuple[str, Written]]]:
    """For each text that of every evaluation of the run, to the same problem and sample, with headings. Raises
    UserError."""
    keys = [(text.dataset, text.problem, text.sample) for text in wanted]
    found: dict[tuple[str, str, int], list[tuple[str, Written]]] = {key: [] for key in keys}
    for step in written_steps(folder, runlog.ANSWERS):
        for answer in answers_at(folder, step):
            if (key := (answer.dataset, answer.problem, answer.sample)) in found:
                found[key].append((f"step {step}", answer))
    return [found[key] for key in keys]


def entry_of(shelf: Shelf, together: Sequence[Pair], steps: Sequence[tuple[str, Written]] = ()) -> Entry:
    """What is shown of texts that stand together; `steps` shows the problem through a run's evaluations instead."""
    first = together[0]
    text, rewards = first.after, list[float | None]()
    title = f"{text.dataset}  {text.problem}"
    if isinstance(text, TrainingRollout) and shelf.groups is not None:
        group = shelf.groups[text.group]
        rewards = [rollout.reward for rollout in group]
        title += f"  group {text.group}, {sum(rollout.correct for rollout in group)} of {len(group)} right"
        texts = [(f"sample {pair.after.sample}", pair.after) for pair in together]
    elif steps:
        texts = list(steps)
    else:
        sides = ((shelf.before, first.before), (shelf.after, text))
        texts = [(name, side) for name, side in sides if side is not None]
    if isinstance(text, Answer):
        title += f"  sample {text.sample}" if any(pair.after.sample for pair in shelf.texts) else ""
        title += f"  template {text.template}" if shelf.step is None else ""
    return Entry(title, text.question, text.gold, texts, rewards)


def _paired(before: Sequence[Answer], after: Sequence[Answer]) -> list[Pair]:
    found: list[Pair] = []
    for dataset, template in dict.fromkeys((answer.dataset, answer.template) for answer in after):
        own = [answer for answer in after if (answer.dataset, answer.template) == (dataset, template)]
        found += pairs(matching(before, dataset, template), own)
    return found


def _step(folder: Path, part: str, step: int | None, steps: Sequence[int]) -> int:
    """The asked step, or the last there is. Raises UserError."""
    if not steps:
        other = f"; --training reads {runlog.ROLLOUTS}/" if part == runlog.ANSWERS else ""
        written = "evaluation" if part == runlog.ANSWERS else "training step"
        raise UserError(f"{folder} holds no {part} yet (no {part}/): they are written after each {written}{other}")
    if step is None:
        return steps[-1]
    if step not in steps:
        raise UserError(f"{folder} has no {part} of step {step}: expected one of {_listed(steps)}")
    return step


def _listed(steps: Sequence[int]) -> str:
    """0, 10, 20; of many the first and the last ones."""
    words = list(map(str, steps))
    return ", ".join(words if len(words) <= 12 else [*words[:6], "...", *words[-3:]])

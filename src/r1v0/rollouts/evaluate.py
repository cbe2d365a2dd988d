"""Evaluation: k sampled answers per problem, graded, with an interval.

Decides: evaluation samples at a temperature, as R1 does (greedy decoding loops forever in small models trained by
RL). The random keys depend on the problem and not on the training step, so two evaluations of one dataset differ only
by the policy, and their difference is paired by problem. An answer is kept as a flat record: the figures are computed
from the records alone, whether they were sampled just now or read back from a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from r1v0.base.keys import key
from r1v0.base.means import mean
from r1v0.base.stats import accuracy_interval, majority_correct, paired_difference, pass_at_k, powers_up_to
from r1v0.config import Config
from r1v0.grpo import parallel
from r1v0.models.loading import Policy
from r1v0.rollouts.collect import own_part, sample_rollouts, sampling_settings
from r1v0.runs.progress import Progress
from r1v0.runs.written import Answer, by_problem
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.prompts import make_prompts
from r1v0.types import EvalResult, Problem, Rollout


def answer_problems(
    policy: Policy,
    dataset: str,
    problems: Sequence[Problem],
    config: Config,
    verifier: Verifier,
    progress: Progress,
    check: Callable[[], None],
    known: Sequence[Answer] = (),
    keep: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """`eval.samples` graded answers to each problem, in order, of all processes; those that are `known` are not sampled
    again.

    `keep` gets each new answer of this process as it is graded. `check` may raise Interrupted between two decoding steps: answers that
    have ended by then are graded and kept first.
    """
    limit = config.eval.max_new_tokens or config.sampling.max_new_tokens
    settings = sampling_settings(policy, config, config.eval.temperature, limit)
    template = config.prompt.template
    answers = {(answer.problem, answer.sample): answer for answer in known}
    samples = {
        problem.id: [s for s in range(config.eval.samples) if (problem.id, s) not in answers] for problem in problems
    }
    own = [(problems[i], row) for i, row in own_part([samples[problem.id] for problem in problems])]
    prompts = make_prompts(config.prompt, [problem for problem, _ in own], policy)
    keys = [[key(config.seed, "eval", dataset, problem.id, s) for s in row] for problem, row in own]
    total = len(known) + sum(len(row) for _, row in own)
    standing = Standing(f"evaluating {dataset} ({template}): answers", total, progress, check)
    for answer in known:
        standing.add(answer)

    def phase() -> list[Answer]:
        found = []
        for i, place, rollout in sample_rollouts(policy, prompts, keys, settings, verifier, standing.poll):
            found.append(_answer(dataset, template, own[i][1][place], rollout))
            keep(found[-1])
            standing.add(found[-1])
        standing.show()
        return found

    for part in parallel.each(
        phase, lambda found: list(map(asdict, found)), lambda raw: [Answer(**row) for row in raw]
    ):
        answers |= {(answer.problem, answer.sample): answer for answer in part}
    return [answers[problem.id, s] for problem in problems for s in range(config.eval.samples)]


@dataclass(slots=True)
class Standing:
    """How far an evaluation is, and what it shows of it: answers done of `total`, their accuracy so far, new tokens."""

    name: str
    total: int
    progress: Progress
    check: Callable[[], None]
    tokens: int = 0
    correct: dict[str, list[bool]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """One more answer is graded."""
        self.correct.setdefault(answer.problem, []).append(answer.correct)
        self.fields = {}

    def poll(self, new: int) -> None:
        """What the sampler calls after its decoding steps: show where it stands, and stop if asked to."""
        self.tokens += new
        self.check()
        self.show()

    def show(self) -> None:
        """Short answers end first, so an accuracy so far is of those; its interval knows nothing of that."""
        if self.correct and not self.fields:
            accuracy, low, high = accuracy_interval(list(self.correct.values()))
            self.fields = {"accuracy so far": f"{100 * accuracy:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"}
        done = sum(map(len, self.correct.values()))
        self.progress.phase(self.name, done, self.total, **self.fields, tokens=self.tokens)


def _answer(dataset: str, template: str, sample: int, rollout: Rollout) -> Answer:
    problem, completion, score = rollout.prompt.problem, rollout.completion, rollout.score
    return Answer(
        dataset=dataset,
        template=template,
        problem=problem.id,
        sample=sample,
        question=problem.question,
        gold=problem.answer,
        completion=rollout.text,
        extracted=score.extracted,
        correct=score.correct,
        strict=score.strict,
        reward=score.reward,
        tokens=len(completion.token_ids),
        cut_off=completion.finish_reason == "length",
        failure=score.failure,
        correct_boxed=score.correct_boxed,
        correct_last=score.correct_last,
        why=score.why,
    )


def summarise(dataset: str, answers: Sequence[Answer]) -> EvalResult:
    """The figures of one dataset, every problem having the same number of answers."""
    groups = list(by_problem(answers).values())
    samples = len(groups[0])
    correct = [[answer.correct for answer in group] for group in groups]
    accuracy, low, high = accuracy_interval(correct)
    return EvalResult(
        dataset=dataset,
        problems=len(groups),
        samples=samples,
        accuracy=accuracy,
        ci_low=low,
        ci_high=high,
        strict_accuracy=mean(answer.strict for answer in answers),
        pass_at_k={str(k): mean(pass_at_k(samples, sum(row), k) for row in correct) for k in powers_up_to(samples)},
        maj_at_k=mean(
            majority_correct([a.extracted for a in group], row) for group, row in zip(groups, correct, strict=True)
        ),
        length=mean(answer.tokens for answer in answers),
        length_finished=mean(answer.tokens for answer in answers if not answer.cut_off),
        length_correct=mean(answer.tokens for answer in answers if answer.correct),
        length_wrong=mean(answer.tokens for answer in answers if not answer.correct),
        truncated_frac=mean(answer.cut_off for answer in answers),
        reflection_frac=mean(answer.reflects for answer in answers),
        accuracy_boxed=_share([answer.correct_boxed for answer in answers]),
        accuracy_last=_share([answer.correct_last for answer in answers]),
    )


def result_of(row: Mapping[str, Any]) -> EvalResult:
    """The figures of a row of evals.jsonl."""
    return EvalResult(**{spec.name: row[spec.name] for spec in fields(EvalResult)})


def _share(verdicts: Sequence[bool | None]) -> float | None:
    """The share of right ones; None where any was not reached for."""
    return None if None in verdicts else mean(bool(verdict) for verdict in verdicts)


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy now less accuracy then, on the problems that both have, with a paired 95 % interval."""

    gain: float
    gain_low: float
    gain_high: float


def gain(before: Sequence[Answer], after: Sequence[Answer]) -> Gain | None:
    """The paired difference of two evaluations of one dataset; None if they share no problem."""
    old, new = by_problem(before), by_problem(after)
    shared = [problem for problem in new if problem in old]
    if not shared:
        return None
    sides = ([[answer.correct for answer in side[problem]] for problem in shared] for side in (old, new))
    return Gain(*paired_difference(*sides))

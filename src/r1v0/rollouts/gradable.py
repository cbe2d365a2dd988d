"""Can a reward read its dataset? Asked before a model is loaded or a folder made.

Decides: the dataset's own first right answers, stated where the reward looks for one, must get 1, and an empty text
0. A user's own reward may pay for something else than the right answer, so of it this is only told.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from r1v0.base.errors import UserError
from r1v0.base.means import mean
from r1v0.config import RewardConfig
from r1v0.models.loading import Policy
from r1v0.rollouts.collect import verifiers
from r1v0.tasks.countdown import problems
from r1v0.tasks.datasets import reward_of
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.rewards import is_users, stated
from r1v0.types import Problem, Prompt

UNKNOWN = 0.05
"""the share of unknown tokens from which a model cannot read its problems"""
SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"

FIRST = 8
"""The problems of a dataset that are tried."""


def need_gradable(
    rewards: Mapping[str, RewardConfig], problems: Mapping[str, Sequence[Problem]], note: Callable[[str], None]
) -> None:
    """Raise UserError for a reward that gives a right answer of its dataset another reward than 1, or an empty text
    another than 0; `note` is told instead where the reward is the user's own."""
    with verifiers(rewards, lambda text: None) as graders:  # what goes wrong here is said below
        for dataset, settings in rewards.items():
            faults = faults_of(settings.name, problems[dataset], graders[dataset])
            if faults and is_users(settings.name):
                note(f"note: {faults[0]}: check that this is meant")
            elif faults:
                raise UserError(f"{faults[0]}; set reward.name to a reward that reads {dataset}, or fix that row")


def faults_of(reward: str, problems: Sequence[Problem], verifier: Verifier) -> list[str]:
    """What is wrong with the verdicts, in the order of the problems."""
    answers = [right_answer(reward, problem) for problem in problems]
    for number, (problem, answer) in enumerate(zip(problems, answers, strict=True)):
        verifier.submit(2 * number, problem, stated(reward, answer), True)
        verifier.submit(2 * number + 1, problem, "", True)
    scores = verifier.collect()
    faults = []
    for number, (problem, answer) in enumerate(zip(problems, answers, strict=True)):
        right, empty = scores[2 * number], scores[2 * number + 1]
        paid, unearned = (score.parts.get(reward, score.reward) for score in (right, empty))
        if paid != 1.0:
            why = f" ({right.failure})" if right.failure else ""
            said = json.dumps(answer, ensure_ascii=False)[:120]
            faults.append(
                f"reward '{reward}' gives {paid:g}{why} to {said}, the right answer of {problem.id}: expected 1"
            )
        elif unearned != 0.0:
            faults.append(f"reward '{reward}' gives {unearned:g} to an empty answer to {problem.id}: expected 0")
    return faults


def right_answer(reward: str, problem: Problem) -> str:
    """What a right completion states: the gold answer itself; in countdown, where that only says how to judge one, an
    expression. Raises UserError for a gold answer that the countdown reward cannot read."""
    if "countdown" not in (reward, reward_of(problem.source)):
        return problem.answer
    try:
        return problems.solution(problem.answer)
    except UserError as error:
        raise UserError(
            f"reward 'countdown' cannot read {problem.id}: {error}, or set reward.name to another"
        ) from None


def unknown_share(policy: Policy, prompts: Sequence[Prompt]) -> float:
    """The share of the prompts' tokens that stand for what the vocabulary has not; 0 where it spells everything."""
    name = getattr(policy.tokenizer.model, "unk_token", None)
    unknown = policy.tokenizer.token_to_id(name) if isinstance(name, str) else None
    return mean(token == unknown for prompt in prompts for token in prompt.token_ids)


def unreadable(policy: Policy, prompts: Sequence[Prompt]) -> str:
    """What is to be said of prompts that a model cannot read; nothing if it can."""
    if (share := unknown_share(policy, prompts)) <= UNKNOWN:
        return ""
    return (
        f"{share:.0%} of the prompts' tokens are unknown to the model, which knows "
        f"{policy.model.config.vocab:,}: it cannot "
        f"read the problems. Take a real small model, for example model={SMALL}"
    )

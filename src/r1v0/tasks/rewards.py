"""Rewards: what decides that a completion is right.

A reward is a function `(problem, text, finished) -> Score`, where `text` is the decoded completion without special
tokens and `finished` says that the policy ended it (a truncated completion is never right). Adding one: write the
function in a module beside this one, and its line in `REWARDS`.

Decides: rewards are added up, the main one (weight 1) decides `correct`. A reward that can hang or eat memory is
`isolated`: `pool.Verifier` grades it in processes that it can kill. A user's own, FILE.py:FUNCTION, always is.
Importing this package imports neither the rewards nor what they need.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError, unknown
from r1v0.config import RewardConfig, is_own_reward
from r1v0.types import Problem, Score

is_custom = is_own_reward
RewardFunction = Callable[[Problem, str, bool], Score]

READINGS = ("math", "gsm8k")
"""The rewards that `reward.extraction` is for."""


@dataclass(frozen=True, slots=True)
class Reward:
    """`function` is "module:function". `isolated` rewards are graded in killable processes. `quick`, where given,
    decides without them what is cheap to decide: it returns a Score, or the `answers.Question` that remains. `form`
    is a completion that states an answer where the reward looks for it. `call` is a function of a program's own, in
    place of the name."""

    function: str
    isolated: bool = False
    quick: str = ""
    form: str = "\\boxed{%s}"
    call: RewardFunction | None = None


REWARDS: dict[str, Reward] = {
    "math": Reward("r1v0.tasks.math.answers:math", isolated=True, quick="r1v0.tasks.math.answers:math_quick"),
    "gsm8k": Reward("r1v0.tasks.math.answers:gsm8k", form="#### %s"),
    "countdown": Reward("r1v0.tasks.countdown.reward:countdown"),
    "format": Reward("r1v0.tasks.math.answers:format_tags", form="<think> So. </think> <answer> %s </answer>"),
    "format_box": Reward("r1v0.tasks.math.answers:format_box"),
}


def stated(reward: str, answer: str) -> str:
    """A completion that states `answer` where the reward looks for it; as it stands, if it is one already."""
    if reward in READINGS and load("r1v0.tasks.math.answers:states")(reward, answer):
        return answer
    return (REWARDS[reward] if reward in REWARDS else Reward("")).form.replace("%s", answer)


def score(config: RewardConfig, problem: Problem, text: str, finished: bool) -> Score:
    """Grade one completion in this process, without a deadline: for cheap rewards, and inside a grading process.

    Raises UserError for an unknown reward, or one of the user's that cannot be loaded or gives something else."""
    return combine(config, {name: function(name)(problem, text, finished) for name in names(config)})


def combine(config: RewardConfig, scores: Mapping[str, Score]) -> Score:
    """One Score of the scores by reward name: the main one's, with the weighted extra ones added to its reward. A part
    whose grading failed makes the whole 0."""
    main = scores[config.name]
    failed = next((part for part in scores.values() if part.failure), main)
    total = main.reward + sum(weight * scores[name].reward for name, weight in config.extra.items())
    return Score(
        reward=0.0 if failed.failure else total,
        correct=main.correct,
        strict=main.strict,
        parts={name: part.reward for name, part in scores.items()},
        extracted=main.extracted,
        failure=failed.failure,
        why=failed.why,
    )


def names(config: RewardConfig) -> list[str]:
    """The rewards of a config, the main one first, each once."""
    return list(dict.fromkeys([config.name, *config.extra]))


def check(config: RewardConfig) -> None:
    """Raise UserError for a name that is in no table, or a file of the user's that is not there."""
    for name in names(config):
        if is_custom(name):
            path, _, attribute = name.rpartition(":")
            if not attribute.isidentifier():
                raise UserError(f"reward '{name}': expected FILE.py:FUNCTION, for example {path}:reward")
            if not Path(path).is_file():
                raise UserError(
                    f"reward '{name}': there is no file {path}: give the path of a Python file, as FILE.py:FUNCTION"
                )
        elif name not in REWARDS:
            raise unknown("reward", name, [*REWARDS, "FILE.py:FUNCTION"])


def is_isolated(name: str) -> bool:
    """Whether a reward must be graded in a process that can be killed."""
    return is_custom(name) or REWARDS[name].isolated


def is_users(name: str) -> bool:
    """Whether a reward is the user's own, as FILE.py:FUNCTION or given by a program."""
    return is_custom(name) or (name in REWARDS and REWARDS[name].call is not None)


def quick(name: str) -> Callable[[Problem, str, bool], Any]:
    """What decides at once: the reward itself, or that part of it that needs no process."""
    row = REWARDS[name]
    return row.call or load(row.quick or row.function)


def function(name: str) -> RewardFunction:
    """The function of a reward, by its name in `REWARDS` or as FILE.py:FUNCTION. Raises UserError."""
    if name in REWARDS and (call := REWARDS[name].call):
        return call
    if is_custom(name):
        custom: RewardFunction = load("r1v0.tasks.grading.custom:load")(name)
        return custom
    if name not in REWARDS:
        raise unknown("reward", name, [*REWARDS, "FILE.py:FUNCTION"])
    found: RewardFunction = load(REWARDS[name].function)
    return found


@cache
def load(path: str) -> Any:
    """The function that "module:function" names."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)

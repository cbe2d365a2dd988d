"""The types that travel, in the order in which a training step makes them.

    Problem -> Prompt -> Completion -> Rollout (+ Score) -> Group -> Batch -> gradient

Decides: one word a thing, one index rule. Entry t of every per-token array is about `token_ids[t]`; a logprob is
log p(token_t | tokens before t). Standard library only: nothing here imports torch at run time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from r1v0.base.means import is_flat

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer, both text. `source` is the dataset's name."""

    id: str
    question: str
    answer: str
    source: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem dressed in a template and tokenised: `token_ids` [P]."""

    problem: Problem
    text: str
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote: `token_ids` [L] with the end token if it ended, `logprobs` [L] under the policy that
    sampled them, at the temperature of sampling. "length" means that it was cut off (truncated)."""

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason

    @property
    def finite(self) -> bool:
        """Whether the model gave numbers at all: from logits that are NaN, garbage is drawn, with NaN logprobs."""
        return math.isfinite(sum(self.logprobs))


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict. `reward` is what GRPO sees; `correct` is what accuracy counts (right answer, by equivalence);
    `strict` is plain string equality, recorded beside it. `parts` are the named rewards before weighting. `failure`
    tells a verdict that grading could not reach ("timeout" | "crash"), and `why` in words; the reward is then 0.
    `correct_boxed` and `correct_last` are `correct` under either `reward.extraction`: in evaluations, for rewards
    that read an answer in both ways; else None."""

    reward: float
    correct: bool
    strict: bool = False
    parts: dict[str, float] = field(default_factory=dict)
    extracted: str | None = None
    failure: Literal["", "timeout", "crash"] = ""
    why: str = ""
    correct_boxed: bool | None = None
    correct_last: bool | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled and graded attempt at a prompt."""

    prompt: Prompt
    completion: Completion
    text: str
    score: Score


@dataclass(frozen=True, slots=True)
class Group:
    """The G rollouts of one prompt."""

    prompt: Prompt
    rollouts: list[Rollout]

    @property
    def flat(self) -> bool:
        """All rewards equal (`is_flat`): the group says nothing about what is better, and its gradient is
        exactly 0 without a KL term."""
        return is_flat([rollout.score.reward for rollout in self.rollouts])


@dataclass(frozen=True, slots=True)
class Batch:
    """S segments packed end to end into T tokens, without padding: prompts, each once, and the completions of each.

    token_ids       [T] int64
    positions       [T] int64    restart at 0 with each prompt; each of its completions goes on from its end
    cu_seqlens      [S+1] int64  segment i is tokens cu_seqlens[i]:cu_seqlens[i+1] (on the CPU, wherever the rest is)
    parents         [S] int64    the prompt that segment i completes; -1: it is a prompt (on the CPU)
    weights         [T] float32  mask and denominator folded; 0 on prompts. The loss is (weights * per_token).sum()
    advantages      [T] float32  the rollout's advantage on each of its completion tokens
    sample_logprobs [T] float32  the sampler's logprobs; 0 on prompts

    Example: a prompt of 2 tokens with completions of 3 and of 1, in a token-mean batch with advantages 0.7 and -0.7:
    positions 0 1 2 3 4 2, cu_seqlens 0 2 5 6, parents -1 0 0, weights 0 0 1/4 1/4 1/4 1/4, advantages 0 0 .7 .7 .7 -.7.
    """

    token_ids: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    parents: Tensor
    weights: Tensor
    advantages: Tensor
    sample_logprobs: Tensor


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One evaluation of one dataset. Lengths in tokens; `ci_low`, `ci_high` bound `accuracy` at 95 %.
    `accuracy_boxed` and `accuracy_last` are accuracies under either `reward.extraction`; None where the reward reads
    answers in one way."""

    dataset: str
    problems: int
    samples: int
    accuracy: float
    ci_low: float
    ci_high: float
    strict_accuracy: float
    pass_at_k: dict[str, float]
    maj_at_k: float
    length: float
    length_finished: float
    length_correct: float
    length_wrong: float
    truncated_frac: float
    reflection_frac: float
    accuracy_boxed: float | None = None
    accuracy_last: float | None = None

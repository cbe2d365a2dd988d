"""The row of metrics.jsonl that a training step leaves, and its rollouts file. docs/metrics.md explains every key.

Decides: rates of correctness, length and reflection are over all rollouts that were sampled, also those of groups
that were replaced or dropped; policy/* are over the tokens that were trained on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1v0.base.stats import mean
from r1v0.rollouts.reflection import reflects
from r1v0.types import Group


@dataclass(frozen=True, slots=True)
class UpdateReadings:
    """What one optimizer update reports: sums over the scored tokens of each of its micro-batches, and the gradient's norm.

    Plain numbers, so that a step that is stopped between two updates can keep them (half_step.py).
    """

    tokens: list[int]
    loss: list[float]
    entropy: list[float]
    mismatch: list[float]
    clipped: list[int]
    kl: list[float]
    grad_norm: float

    @property
    def skipped(self) -> bool:
        """The loss or its gradient was not finite, and nothing was changed."""
        return not math.isfinite(self.grad_norm)


@dataclass(frozen=True, slots=True)
class PolicyReadings:
    """What a step's updates report. Means over trained tokens; loss and gradient norm are means over updates."""

    tokens: int
    loss: float
    entropy: float
    mismatch_kl: float
    clip_frac: float
    kl: float | None
    grad_norm: float
    lr: float
    skipped: int = 0


def policy_readings(updates: Sequence[UpdateReadings], lr: float, with_kl: bool) -> PolicyReadings:
    """The readings of a step's updates together. `with_kl`: there was a reference model."""
    made = [update for update in updates if not update.skipped]
    tokens = sum(sum(update.tokens) for update in made)
    per_token = 1 / tokens if tokens else math.nan
    return PolicyReadings(
        tokens=sum(sum(update.tokens) for update in updates),
        loss=math.fsum(loss for update in made for loss in update.loss) / len(made) if made else math.nan,
        entropy=math.fsum(entropy for update in made for entropy in update.entropy) * per_token,
        mismatch_kl=math.fsum(mismatch for update in made for mismatch in update.mismatch) * per_token,
        clip_frac=sum(sum(update.clipped) for update in made) * per_token,
        kl=math.fsum(kl for update in made for kl in update.kl) * per_token if with_kl else None,
        grad_norm=mean(update.grad_norm for update in made),
        lr=lr,
        skipped=len(updates) - len(made),
    )


def step_row(step: int, sampled: Sequence[Group], policy: PolicyReadings, extra: Mapping[str, float]) -> dict[str, Any]:
    """One step's metrics; `extra` holds the verify/*, time/* and memory/* of the trainer."""
    rollouts = [rollout for group in sampled for rollout in group.rollouts]
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    correct = [rollout.score.correct for rollout in rollouts]
    finished = [rollout.completion.finish_reason == "stop" for rollout in rollouts]
    parts = {
        name: [r.score.parts.get(name, 0.0) for r in rollouts]
        for name in sorted({n for r in rollouts for n in r.score.parts})
    }
    row: dict[str, Any] = {
        "step": step,
        "reward/mean": mean(rollout.score.reward for rollout in rollouts),
        "reward/correct": mean(correct),
        "reward/strict": mean(rollout.score.strict for rollout in rollouts),
        # An own reward's name is a path and a function: its folder says nothing here.
        **{f"reward/{name.rpartition('/')[2]}": mean(values) for name, values in parts.items()},
        "length/mean": mean(lengths),
        "length/finished": mean(length for length, ended in zip(lengths, finished, strict=True) if ended),
        "length/correct": mean(length for length, ok in zip(lengths, correct, strict=True) if ok),
        "length/wrong": mean(length for length, ok in zip(lengths, correct, strict=True) if not ok),
        "length/truncated_frac": mean(not ended for ended in finished),
        "groups/sampled": len(sampled),
        "groups/flat_frac": mean(group.flat for group in sampled),
        "groups/all_correct_frac": mean(all(r.score.correct for r in group.rollouts) for group in sampled),
        "groups/all_wrong_frac": mean(not any(r.score.correct for r in group.rollouts) for group in sampled),
        "tokens/sampled": sum(lengths),
        "tokens/trained": policy.tokens,
        "policy/loss": policy.loss,
        "policy/entropy": policy.entropy,
        "policy/mismatch_kl": policy.mismatch_kl,
        "policy/clip_frac": policy.clip_frac,
        "policy/grad_norm": policy.grad_norm,
        "policy/lr": policy.lr,
        "policy/skipped": policy.skipped,
        "reflection/frac": mean(reflects(rollout.text) for rollout in rollouts),
    }
    if policy.kl is not None:
        row["policy/kl"] = policy.kl
    return row | dict(extra)


def rollout_records(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Each rollout as one JSON object, for rollouts/step-NNNNN.jsonl.gz."""
    for index, group in enumerate(groups):
        for sample, rollout in enumerate(group.rollouts):
            score = rollout.score
            yield {
                "group": index,
                "sample": sample,
                "problem": rollout.prompt.problem.id,
                "source": rollout.prompt.problem.source,
                "prompt": rollout.prompt.text,
                "answer": rollout.prompt.problem.answer,
                "completion": rollout.text,
                "tokens": len(rollout.completion.token_ids),
                "finish_reason": rollout.completion.finish_reason,
                "reward": score.reward,
                "correct": score.correct,
                "strict": score.strict,
                "extracted": score.extracted,
                "parts": score.parts,
                "failure": score.failure,
                "why": score.why,
            }

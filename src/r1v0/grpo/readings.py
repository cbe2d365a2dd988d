"""What the updates of a step report: sums for each micro-batch, and their means for metrics.jsonl.

Plain numbers, so that a step that is stopped between two updates can keep them (trainer/half_step.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1v0.base.means import mean
from r1v0.grpo.losses import LossReadings


@dataclass(frozen=True, slots=True)
class UpdateReadings:
    """One optimizer update: sums over the scored tokens of each of its micro-batches, and the gradient's norm."""

    tokens: list[int]
    loss: list[float]
    entropy: list[float]
    mismatch: list[float]
    clipped: list[int]
    kl: list[float]
    grad_norm: float = math.nan

    @classmethod
    def joined(cls, parts: "Sequence[UpdateReadings]") -> "UpdateReadings":
        """Those of all processes, in order."""
        if len(parts) == 1:
            return parts[0]

        sums: dict[str, Any] = {}
        for name in ("tokens", "loss", "entropy", "mismatch", "clipped", "kl"):
            sums[name] = [value for part in parts for value in getattr(part, name)]
        return cls(**sums)

    @classmethod
    def of(cls, micros: Sequence[LossReadings]) -> "UpdateReadings":
        """The numbers of the micro-batches' tensors; there is no norm yet."""
        return cls(
            tokens=[int(micro.tokens) for micro in micros],
            loss=[float(micro.loss) for micro in micros],
            entropy=[float(micro.entropy) for micro in micros],
            mismatch=[float(micro.mismatch) for micro in micros],
            clipped=[int(micro.clipped) for micro in micros],
            kl=[float(micro.kl) for micro in micros],
        )

    @property
    def skipped(self) -> bool:
        """The loss or its gradient was not finite, and nothing was changed."""
        return not math.isfinite(self.grad_norm)


def policy_metrics(updates: Sequence[UpdateReadings], lr: float, with_kl: bool) -> dict[str, float]:
    """The policy/* of a step's row, and tokens/trained: means over trained tokens; loss and gradient norm are means
    over updates. `with_kl`: there was a reference model."""
    made = [update for update in updates if not update.skipped]
    tokens = sum(sum(update.tokens) for update in made)
    per_token = 1 / tokens if tokens else math.nan
    found = {
        "tokens/trained": sum(sum(update.tokens) for update in updates),
        "policy/loss": math.fsum(loss for update in made for loss in update.loss) / len(made) if made else math.nan,
        "policy/entropy": math.fsum(entropy for update in made for entropy in update.entropy) * per_token,
        "policy/mismatch_kl": math.fsum(mismatch for update in made for mismatch in update.mismatch) * per_token,
        "policy/clip_frac": sum(sum(update.clipped) for update in made) * per_token,
        "policy/grad_norm": mean(update.grad_norm for update in made),
        "policy/lr": lr,
        "policy/skipped": len(updates) - len(made),
    }
    if with_kl:
        found["policy/kl"] = math.fsum(kl for update in made for kl in update.kl) * per_token
    return found

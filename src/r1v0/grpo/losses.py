"""Surrogate losses: pure functions of logprobs, each the equation of its paper.

Decides: a surrogate returns one loss a token, [T]; the total is always (weights * per_token).sum(), because a batch's
weights hold mask and denominator already (batch.py). So no loss knows about averaging, packing or micro-batches.
With one update per step the sampler's logprobs are those of the current policy: the ratio is 1 but for rounding, and
nothing is clipped.
Deviations of other trainers from these equations, and ours from theirs (KL, CISPO's cap, dual clip, Dr. GRPO's 1 / N):
docs/algorithm.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from r1v0.config import GrpoConfig
from r1v0.types import Batch


@dataclass(frozen=True, slots=True)
class LossReadings:
    """Sums over scored tokens, to be added up over micro-batches."""

    loss: Tensor
    tokens: Tensor
    clipped: Tensor
    mismatch: Tensor
    kl: Tensor
    entropy: Tensor | float = 0.0
    """of what was sampled from, which the loss itself does not need"""


def ppo(ratio: Tensor, logprobs: Tensor, batch: Batch, config: GrpoConfig) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A) (PPO, arXiv 1707.06347, eq. 7; low != high: DAPO 2503.14476, eq. 10)."""
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    return -torch.min(ratio * batch.advantages, clipped * batch.advantages)


def cispo(ratio: Tensor, logprobs: Tensor, batch: Batch, config: GrpoConfig) -> Tensor:
    """-sg(clip(r)) A log p: a clipped weight, but every token keeps its gradient (MiniMax-M1, arXiv 2506.13585, eq.
    4)."""
    clipped = ratio.detach().clamp(1 - config.clip_low, 1 + config.clip_high)
    return -clipped * batch.advantages * logprobs


def token_ratio(logprobs: Tensor, batch: Batch) -> Tensor:
    """pi(token) / pi_old(token), [T]."""
    return (logprobs - batch.sample_logprobs).exp()


def sequence_ratio(logprobs: Tensor, batch: Batch) -> Tensor:
    """(pi(y) / pi_old(y)) ** (1 / |y|), on each token of y, with the token's own gradient (GSPO, arXiv 2507.18071,
    sec. 4.1 and 4.3).

    GSPO-token's form, which equals GSPO's value and gradient when a sequence's advantages are equal: it keeps the
    loss a sum over tokens.
    """
    mask = (batch.weights != 0).to(logprobs.dtype)
    sequence = torch.repeat_interleave(batch.cu_seqlens.diff()).to(logprobs.device)  # a completion is one segment
    zeros = logprobs.new_zeros(batch.parents.shape[0])
    totals = zeros.index_add(0, sequence, logprobs.detach() - batch.sample_logprobs)
    lengths = zeros.index_add(0, sequence, mask).clamp(min=1)
    mean_log_ratio = (totals / lengths)[sequence]
    return (mean_log_ratio + logprobs - logprobs.detach()).exp()


Ratio = Callable[[Tensor, Batch], Tensor]
Surrogate = Callable[[Tensor, Tensor, Batch, GrpoConfig], Tensor]

# name -> (ratio of a token or of its whole sequence, surrogate)
SURROGATES: dict[str, tuple[Ratio, Surrogate]] = {
    "ppo": (token_ratio, ppo),
    "cispo": (token_ratio, cispo),
    "gspo": (sequence_ratio, ppo),
}


def policy_loss(
    logprobs: Tensor, batch: Batch, config: GrpoConfig, reference_logprobs: Tensor | None = None
) -> tuple[Tensor, LossReadings]:
    """The loss of a packed batch and what to report of it. logprobs, reference_logprobs [T]."""
    ratio_of, surrogate = SURROGATES[config.surrogate]
    ratio = ratio_of(logprobs, batch)
    per_token = surrogate(ratio, logprobs, batch, config)
    scored = batch.weights != 0
    kl = torch.zeros_like(logprobs)
    if reference_logprobs is not None:
        kl = k3(reference_logprobs - logprobs)
        per_token = per_token + config.kl_coef * kl
    loss = (batch.weights * per_token).sum()
    with torch.no_grad():
        above, below = ratio > 1 + config.clip_high, ratio < 1 - config.clip_low
        if config.surrogate != "cispo":  # min() clips only where the ratio has gone the way the advantage points
            above, below = above & (batch.advantages > 0), below & (batch.advantages < 0)
        readings = LossReadings(
            loss=loss.detach(),
            tokens=scored.sum(),
            clipped=((above | below) & scored).sum(),
            mismatch=(k3(logprobs - batch.sample_logprobs) * scored).sum(),
            kl=(kl.detach() * scored).sum(),
        )
    return loss, readings


def k3(log_ratio: Tensor) -> Tensor:
    """exp(x) - 1 - x with x = log q - log p: an unbiased estimate of KL(p || q) on samples of p that is never negative
    (Schulman, "Approximating KL divergence", 2020; DeepSeekMath, eq. 4)."""
    return log_ratio.expm1() - log_ratio

"""One token from one random number, which is a hash of what it is for.

Decides: inverse CDF over the whole distribution, with one uniform number a token from a counter-based hash of (the
rollout's key, the token's place in its completion). So a draw depends on nothing else: not on the batch, the order or
the number of rows.
"""

import torch
from torch import Tensor


def draw(logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse CDF: the first token whose cumulative probability exceeds u. logits [n, vocab], u [n] in [0, 1)."""
    probabilities = logits.softmax(-1)
    cdf = probabilities.cumsum(-1)
    total = cdf[:, -1:]
    # Rounding can lift u * total to total, past the last token that has any probability.
    threshold = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # NaN is above everything: clamped, a broken model draws garbage with NaN logprobs, which the trainer notices.
    tokens = torch.searchsorted(cdf, threshold, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    return tokens, probabilities.gather(1, tokens[:, None]).squeeze(1).log()


def uniform(keys: Tensor, counters: Tensor) -> Tensor:
    """One number in [0, 1) for each (key, counter), [n] float32 with 24 random bits.

    SplitMix64's finaliser (Steele et al., OOPSLA 2014) over key + (counter + 1) * golden gamma, in wrapping int64.
    """
    x = keys + (counters + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ _shift(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shift(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    x = x ^ _shift(x, 31)
    return _shift(x, 40).float() * 2.0**-24


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of an int64 tensor."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

"""Advantages: how much better a rollout did than the others of its group.

DeepSeekMath (arXiv 2402.03300, sec. 4.1.2): (r - mean) / std over the G rewards of a prompt. Dr. GRPO (2503.20783)
leaves the division out. Deviations: std has n - 1 in its denominator, as in the original r1-v0 and in TRL, and no
epsilon is added. A group whose rewards are all equal gets exactly 0, so that "sparse" can drop it without a rounding
error becoming a gradient; equal is what `is_flat` says, since 0.1 + 0.2 is not 0.3 and a std of 1e-17 would
divide. For the same reason a reward that is the group's mean but for rounding has advantage 0.
"""

import statistics
from collections.abc import Sequence
from typing import Literal

from r1v0.base.means import is_flat, rounding


def group_advantages(rewards: Sequence[float], scale: Literal["std", "none"]) -> list[float]:
    """Advantages [G] of one group's rewards [G]."""
    if is_flat(rewards):
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    divisor = statistics.stdev(rewards) if scale == "std" else 1.0
    least = rounding(rewards)
    return [(reward - mean) / divisor if abs(reward - mean) > least else 0.0 for reward in rewards]

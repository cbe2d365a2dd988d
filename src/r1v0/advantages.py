"""Advantages: how much better a rollout did than the others of its group.

DeepSeekMath (arXiv 2402.03300, sec. 4.1.2): (r - mean) / std over the G rewards of a prompt. Dr. GRPO (2503.20783)
leaves the division out. Deviations: std has n - 1 in its denominator, as in the original r1-v0 and in TRL, and no
epsilon is added: a group whose rewards are all equal gets exactly 0, so that "sparse" can drop it without a rounding
error becoming a gradient.
"""

import statistics
from collections.abc import Sequence
from typing import Literal


def group_advantages(rewards: Sequence[float], scale: Literal["std", "none"]) -> list[float]:
    """Advantages [G] of one group's rewards [G]."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    divisor = statistics.stdev(rewards) if scale == "std" else 1.0
    return [(reward - mean) / divisor for reward in rewards]

"""Statistics of accuracies: intervals that are honest about k samples of the same problem.

Decides: problems are the independent units, samples of one problem are not. A Wilson score interval (Wilson 1927) with
the effective number of samples that the spread between problems implies: with one sample a problem it is the usual
Wilson interval, with k it lies between that of n and that of n k samples. Differences are paired by problem.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

Z95 = 1.959963984540054
FLAT = 1e-9  # share of the largest value that a difference must exceed to be more than rounding
LEAST = 1e-6  # values below it count as this large: 0.1 + 0.2 - 0.3 is 5.6e-17 and means 0


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; NaN of nothing."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def rounding(values: Sequence[float]) -> float:
    """The largest difference between such values that says nothing: sums of the same parts differ by less."""
    return FLAT * max(LEAST, *map(abs, values))


def is_flat(values: Sequence[float]) -> bool:
    """Whether all values are equal but for rounding: 0.1 + 0.2 and 0.3 are."""
    return max(values) - min(values) <= rounding(values)


def accuracy_interval(correct: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """(accuracy, low, high) at 95 % from `correct`[problem][sample], all problems with the same number of samples."""
    problems, samples = len(correct), len(correct[0])
    means = [sum(row) / samples for row in correct]
    p = math.fsum(means) / problems
    variance = math.fsum((mean - p) ** 2 for mean in means) / problems  # of one problem's mean
    largest = problems * samples
    n = largest if variance * largest <= p * (1 - p) * problems else p * (1 - p) * problems / variance
    if p in (0.0, 1.0):
        n = problems  # no spread to learn from: claim no more than one sample a problem
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def paired_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """(mean difference, low, high) at 95 % of per-problem accuracies [problems] in the same order."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    if n < 2:
        return mean, -1.0, 1.0
    half = Z95 * math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    return mean, mean - half, mean + half


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that one of k samples is right, unbiased from `correct` of `samples` (Chen et al., arXiv 2107.03374, eq. 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def powers_up_to(samples: int) -> list[int]:
    """1, 2, 4, ... and `samples` itself: the k of pass@k."""
    return sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples})


def majority_correct(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Whether the commonest answer is right, [0, 1] (self-consistency, arXiv 2203.11171). No answer is no vote; among
    answers that are tied the mean counts."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = [answer for answer, count in votes.items() if count == max(votes.values())]
    right = dict(zip(answers, correct, strict=True))
    return sum(right[answer] for answer in top) / len(top)

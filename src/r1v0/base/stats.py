"""Statistics of accuracies: intervals that are honest about k samples of the same problem.

Decides: problems are the independent units, samples of one problem are not. Score intervals, which keep a width
where nothing was right or nothing changed: Wilson's of an accuracy (1927), Tango's of a paired difference
(Statistics in Medicine 17, 1998), each with the effective number of samples that the spread between problems
implies. With one sample a problem they are the usual intervals of n, with k they lie between those of n and of n k
samples. The spread is that of the problems and of two made-up ones as far apart as can be: from a few problems it is
often estimated too small, and without them 5 problems x 16 samples are covered in 86 % (benchmarks/intervals.py;
docs/intervals.md has the table).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1v0.base.means import mean

Z95 = 1.959963984540054

MADE_UP = 2
"""Problems added to the spread between problems, each with the variance of a single sample."""


def accuracy_interval(correct: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """(accuracy, low, high) at 95 % from `correct`[problem][sample], each problem with at least one sample. Problems
    count alike; while an evaluation goes on, some have fewer samples than others."""
    samples = sum(map(len, correct)) / len(correct)
    means = [sum(row) / len(row) for row in correct]
    p = math.fsum(means) / len(means)
    return p, *wilson(p, effective(means, p * (1 - p), samples))


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's score interval at 95 % of a share `p` of `n` samples."""
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def effective(values: Sequence[float], single: float, samples: float) -> float:
    """How many problems with one sample each would tell as much as these `values` [problems], means of `samples` each.

    `single` is the variance of one sample of one problem. The answer lies between problems and problems x samples.
    """
    problems = len(values)
    if single <= 0:
        return problems  # no spread to learn from: claim no more than one sample a problem
    centre = math.fsum(values) / problems
    spread = math.fsum((value - centre) ** 2 for value in values) + MADE_UP * single
    return max(problems, min(problems * samples, problems * (problems + MADE_UP) * single / spread))


def paired_difference(before: Sequence[Sequence[bool]], after: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """(accuracy after less before, low, high) at 95 % from [problem][sample], the same problems in the same order.

    The two may differ in their number of samples. The interval holds 0 exactly where McNemar's test finds nothing.
    """
    old, new = ([sum(row) / len(row) for row in side] for side in (before, after))
    differences = [b - a for a, b in zip(old, new, strict=True)]
    won, lost = (mean(b * (1 - a) for a, b in zip(*pair, strict=True)) for pair in ((old, new), (new, old)))
    difference = math.fsum(differences) / len(differences)
    samples = 2 / (1 / len(before[0]) + 1 / len(after[0]))
    n = effective(differences, won + lost - difference**2, samples)
    low, high = (_tango(won * n, lost * n, n, edge) for edge in (-1.0, 1.0))
    return difference, min(low, difference), max(high, difference)


def _tango(won: float, lost: float, n: float, edge: float) -> float:
    """The bound towards `edge` of Tango's interval: the furthest difference that a score test does not reject.

    Of n pairs `won` are right only after and `lost` only before; `chance` is the likeliest share of the lost ones if
    the difference were `bound`.
    """
    inside, outside = (won - lost) / n, edge
    for _ in range(50):
        bound = (inside + outside) / 2
        b = (2 * n - won + lost) * bound - won - lost
        chance = (math.sqrt(max(0.0, b * b + 8 * n * lost * bound * (1 - bound))) - b) / (4 * n)
        if (won - lost - n * bound) ** 2 <= Z95**2 * n * (2 * chance + bound * (1 - bound)):
            inside = bound
        else:
            outside = bound
    return inside


def unpaired_difference(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(after less before, low, high) of two accuracies with their intervals (Newcombe, Statistics in Medicine 17, 1998,
    method 10 of independent proportions): each bound takes the distances on its own side."""
    (p, p_low, p_high), (q, q_low, q_high) = before, after
    return q - p, q - p - math.hypot(q - q_low, p_high - p), q - p + math.hypot(q_high - q, p - p_low)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) at 95 % of at least two independent values, by Student's t: mean -+ t s / sqrt(n)."""
    n, centre = len(values), mean(values)
    spread = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
    half = student_t95(n - 1) * spread / math.sqrt(n)
    return centre, centre - half, centre + half


def student_t95(freedom: int) -> float:
    """The t that Student's distribution of so many degrees of freedom stays within, on both sides, at 95 %.

    By bisection of its distribution function, which for whole degrees of freedom is a finite sum (Abramowitz and
    Stegun, 26.7.3 and 26.7.4; t = sqrt(freedom) tan(angle)).
    """

    def inside(angle: float) -> float:
        sine, square = math.sin(angle), math.cos(angle) ** 2
        term = math.cos(angle) if freedom % 2 else 1.0
        total = 0.0
        for power in range(freedom % 2, freedom - 1, 2):
            total += term
            term *= square * (power + 1) / (power + 2)
        return (angle + sine * total) * 2 / math.pi if freedom % 2 else sine * total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < 0.95 else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that one of k samples is right, unbiased from `correct` of `samples` (Chen et al., arXiv 2107.03374,
    eq. 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def powers_up_to(samples: int) -> list[int]:
    """1, 2, 4, ... and `samples` itself: the k of pass@k."""
    return sorted({2**i for i in range(samples.bit_length())} | {samples})


def majority_correct(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Whether the commonest answer is right, [0, 1] (self-consistency, arXiv 2203.11171). No answer is not a vote;
    among answers that are tied the mean counts."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = [answer for answer, count in votes.items() if count == max(votes.values())]
    right = dict(zip(answers, correct, strict=True))
    return sum(right[answer] for answer in top) / len(top)


def number(value: Any) -> float | None:
    """A finite number that sums and differences of some are numbers too; None for anything else, true and false too."""
    if (
        isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300
    ):  # whole ones may be endless
        return None
    return float(value)


def numbers(rows: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """A key's values where there are any."""
    return [value for row in rows if (value := number(row.get(key))) is not None]

"""Intervals and pass@k against textbook values and brute force."""

import itertools
import math
import random

import pytest

from benchmarks import intervals
from r1v0.base.means import mean
from r1v0.base.stats import (
    accuracy_interval,
    majority_correct,
    mean_interval,
    paired_difference,
    pass_at_k,
    powers_up_to,
    student_t95,
    unpaired_difference,
    wilson,
)


def test_wilson_by_a_known_value() -> None:
    """8 of 10: 0.4902 to 0.9433 (Wilson without continuity correction)."""
    p, low, high = accuracy_interval([[True]] * 8 + [[False]] * 2)
    assert (p, low, high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_all_wrong_and_all_right_keep_an_interval() -> None:
    assert accuracy_interval([[False]] * 10) == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert accuracy_interval([[True]] * 10) == pytest.approx((1.0, 0.7225, 1.0), abs=1e-4)
    assert accuracy_interval([[False] * 32] * 30)[2] == pytest.approx(accuracy_interval([[False]] * 30)[2])


def test_samples_of_one_problem_are_not_independent() -> None:
    """Problems that are always right or always wrong teach nothing by more samples; coin-like ones do."""
    one = accuracy_interval([[i < 5] for i in range(10)])
    copies = accuracy_interval([[i < 5] * 16 for i in range(10)])
    assert copies == pytest.approx(one)
    _, low, high = accuracy_interval(
        [[True, False] * 8] * 10
    )  # as 10 x 12 / 2 single samples: two problems are made up
    assert (low, high) == pytest.approx(accuracy_interval([[i % 2 == 0] for i in range(60)])[1:])
    many = accuracy_interval([[True, False] * 2] * 1000)  # no more than as many single samples
    assert many == pytest.approx(accuracy_interval([[i % 2 == 0] for i in range(4000)]))
    _, low, high = accuracy_interval([[True, False]])  # one problem tells as little as 1.5 single samples at most
    assert (low, high) == pytest.approx(wilson(0.5, 1.5))


def test_an_interval_of_problems_with_more_and_fewer_answers() -> None:
    """While an evaluation goes on. Means 1/2, 1 and 0: squares of 1/2 and of two made-up ones 1/2, so 3 (3 + 2) / 4 =
    3.75 samples of the four; Wilson's half width is then z / (2 sqrt(3.75 + z^2))."""
    found = accuracy_interval([[True, False], [True], [False]])
    assert found == pytest.approx((0.5, 0.1443, 0.8557), abs=1e-4)


def test_coverage_is_near_95_percent() -> None:
    """1,000 simulated evaluations of 60 problems x 4 samples with spread difficulties."""
    rng = random.Random(0)
    truth, hits = 0.4, 0
    for _ in range(1000):
        difficulties = [rng.betavariate(0.8, 1.2) for _ in range(60)]  # mean 0.4
        _, low, high = accuracy_interval([[rng.random() < d for _ in range(4)] for d in difficulties])
        hits += low <= truth <= high
    assert 930 <= hits <= 970


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 1), (8, 3, 4), (8, 0, 2), (6, 6, 3), (5, 2, 5), (7, 6, 3)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int, c: int, k: int) -> None:
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_powers() -> None:
    assert powers_up_to(1) == [1]
    assert powers_up_to(8) == [1, 2, 4, 8]
    assert powers_up_to(12) == [1, 2, 4, 8, 12]


def test_majority() -> None:
    assert majority_correct(["4", "4", "5"], [True, True, False]) == 1.0
    assert majority_correct(["5", "4", "5"], [False, True, False]) == 0.0
    assert majority_correct(["4", "5"], [True, False]) == 0.5
    assert majority_correct([None, None, "4"], [False, False, True]) == 1.0
    assert majority_correct([None, None], [False, False]) == 0.0


def pairs(both: int, won: int, lost: int, neither: int) -> tuple[list[list[bool]], list[list[bool]]]:
    """Evaluations with one sample a problem, before and after, of this many problems."""
    table = [(True, True)] * both + [(False, True)] * won + [(True, False)] * lost + [(False, False)] * neither
    return [[before] for before, _ in table], [[after] for _, after in table]


def test_paired_difference_as_published() -> None:
    """Tango's interval of 1, 1, 7 and 12 pairs: -0.517 to -0.026 (Fagerland, Lydersen and Laake, Statistics in Medicine
    33, 2014: airway hyper-responsiveness before and after transplantation)."""
    difference, low, high = paired_difference(*pairs(1, 1, 7, 12))
    assert difference == pytest.approx(-6 / 21)
    assert (low, high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert paired_difference(*pairs(1, 7, 1, 12)) == pytest.approx((6 / 21, -high, -low))


@pytest.mark.parametrize("n", [1, 30, 500])
@pytest.mark.parametrize("right", [True, False])
def test_no_problem_that_changed_leaves_an_interval(n: int, right: bool) -> None:
    """The bound D solves n^2 D^2 = z^2 n (D - D^2) by hand: D = z^2 / (n + z^2)."""
    bound = 1.959964**2 / (n + 1.959964**2)
    for samples in (1, 32):
        same = [[right] * samples] * n
        assert paired_difference(same, same) == pytest.approx((0, -bound, bound))
    assert paired_difference([[False]] * n, [[True]] * n) == pytest.approx((1, 1 - 2 * bound, 1), abs=1e-6)


@pytest.mark.parametrize(("won", "lost"), [(4, 0), (3, 0), (9, 2), (8, 2), (30, 16), (29, 16)])
def test_a_gain_is_shown_where_mcnemars_test_shows_it(won: int, lost: int) -> None:
    """(won - lost)^2 / (won + lost) against 1.96^2, whatever did not change."""
    shown = (won - lost) ** 2 / (won + lost) > 1.959964**2
    for both, neither in ((0, 20), (200, 300)):
        assert (paired_difference(*pairs(both, won, lost, neither))[1] > 0) is shown


def test_samples_of_one_problem_are_not_independent_in_a_difference() -> None:
    before, after = pairs(3, 8, 2, 17)
    copies = paired_difference([row * 16 for row in before], [row * 16 for row in after])
    assert copies == pytest.approx(paired_difference(before, after))
    few, many = [[False] * 4, [True] * 4] * 20, [[True, False] * 16, [True] * 32] * 20
    assert paired_difference(few, many)[0] == pytest.approx(0.25)  # another number of samples
    coins = paired_difference([[True, False, False, False]] * 1000, [[True, False, True, False]] * 1000)
    single = paired_difference(*pairs(500, 1500, 500, 1500))  # 4000 pairs of which .375 and .125 change
    assert coins == pytest.approx(single, abs=1e-6)


def test_unpaired_difference_as_published() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    one, two = (48 / 80, *wilson(48 / 80, 80)), (56 / 70, *wilson(56 / 70, 70))
    assert unpaired_difference(one, two) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_a_rare_gain_on_few_problems_is_held() -> None:
    """Wald's interval is [0, 0] in half of these runs and holds the gain in 0.47 of them."""
    found = intervals.coverage(intervals.CASES[0], 2000, 0)
    assert found.gain >= intervals.LEAST
    assert found.wald < 0.5


@pytest.mark.slow
def test_the_page_of_intervals_is_what_the_benchmark_writes_and_holds_what_it_says() -> None:
    assert intervals.PAGE.read_text(encoding="utf-8") == intervals.page(2000, 0)
    for case in intervals.CASES:
        assert intervals.coverage(case, 2000, 1).gain >= intervals.LEAST, case


def test_mean() -> None:
    assert mean([1, 2]) == 1.5
    assert math.isnan(mean([]))


def test_intervals_stay_between_0_and_1_whatever_is_rounded() -> None:
    """Wilson's bound of none right is 0 and of all right 1, but not in floating point for every n."""
    for n in range(1, 500):
        none, every = accuracy_interval([[False]] * n), accuracy_interval([[True]] * n)
        assert (none[1], every[2]) == (0.0, 1.0), n
        assert 0 < none[2] < 1
        assert 0 < every[1] < 1


def score(won: float, lost: float, n: float, difference: float) -> float:
    """Tango's statistic: the share of lost pairs is the likeliest one by trial, not by its formula."""
    low, high = max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12

    def likelihood(q: float) -> float:
        return won * math.log(q + difference) + lost * math.log(q) + (n - won - lost) * math.log(1 - 2 * q - difference)

    for _ in range(200):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (a, high) if likelihood(a) < likelihood(b) else (low, b)
    return (won - lost - n * difference) / math.sqrt(n * (2 * low + difference * (1 - difference)))


def test_the_paired_interval_of_several_samples_by_hand() -> None:
    """Differences 1, 0, 0, 1/2 of two samples each. Won 7/16 and lost 1/16 of the pairs, so a pair varies by 1/2 -
    9/64 = 23/64; squares of the differences 11/16, with two made-up ones 11/16 + 46/64 = 45/32. That is the spread
    of 4 x 6 x 23/64 / (45/32) = 92/15 pairs, and at both bounds Tango's statistic is the normal's quantile."""
    before = [[False, False], [False, True], [True, True], [False, False]]
    after = [[True, True], [False, True], [True, True], [False, True]]
    difference, low, high = paired_difference(before, after)
    assert difference == 0.375
    n = 92 / 15
    for bound, sign in ((low, 1), (high, -1)):
        assert score(7 / 16 * n, 1 / 16 * n, n, bound) == pytest.approx(sign * 1.959964, abs=1e-5)


def test_a_paired_interval_of_nothing_but_losses_or_gains() -> None:
    """At the edge of what can be; rounding must not ask for the root of a negative number."""
    for n in range(1, 120):
        wrong, right = [[False]] * n, [[True]] * n
        worse, better = paired_difference(right, wrong), paired_difference(wrong, right)
        assert worse[:2] == pytest.approx((-1, -1))
        assert (better[0], better[2]) == pytest.approx((1, 1))
        assert worse[2] == pytest.approx(-better[1])


def test_unpaired_by_hand() -> None:
    """.5 [.2, .7] before and .6 [.25, .95] after: .1 less sqrt(.35^2 + .2^2), and more by sqrt(.35^2 + .3^2)."""
    found = unpaired_difference((0.5, 0.2, 0.7), (0.6, 0.25, 0.95))
    assert found == pytest.approx((0.1, 0.1 - math.sqrt(0.1625), 0.1 + math.sqrt(0.2125)))


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423), (120, 1.9799)],
)
def test_student_by_its_printed_table(freedom: int, t: float) -> None:
    assert student_t95(freedom) == pytest.approx(t, abs=6e-5)


def test_student_of_many_is_the_normal() -> None:
    assert student_t95(100_000) == pytest.approx(1.95996, abs=5e-5)


def test_the_interval_of_a_mean_by_hand() -> None:
    """1, 2, 6: mean 3, s = sqrt(14 / 2), and t(2) = 4.30265."""
    half = 4.302653 * math.sqrt(7 / 3)
    assert mean_interval([1, 2, 6]) == pytest.approx((3, 3 - half, 3 + half), rel=1e-6)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_lists_that_do_not_belong_together_are_no_statistic() -> None:
    with pytest.raises(ValueError, match="shorter"):
        majority_correct(["1", "2"], [True])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([[True]] * 2, [[True]])

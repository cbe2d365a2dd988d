"""Intervals and pass@k against textbook values and brute force."""

import itertools
import math
import random

import pytest

from r1v0.stats import accuracy_interval, majority_correct, mean, paired_difference, pass_at_k, powers_up_to


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
    coins = accuracy_interval([[True, False] * 8] * 10)
    as_if_single = accuracy_interval([[i % 2 == 0] for i in range(160)])
    assert coins == pytest.approx(as_if_single)


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


def test_paired_difference_by_hand() -> None:
    """Differences 1, 0, 0, 1: mean 0.5, standard error sqrt(1/3 / 4)."""
    difference, low, high = paired_difference([0, 1, 0, 0], [1, 1, 0, 1])
    half = 1.959964 * math.sqrt(1 / 12)
    assert (difference, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_mean() -> None:
    assert mean([1, 2]) == 1.5
    assert math.isnan(mean([]))

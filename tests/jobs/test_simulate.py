"""The simulated sampling against cases small enough to follow by hand."""

import math
from collections.abc import Callable
from statistics import NormalDist, mean, stdev, variance

import pytest

from r1v0.jobs.plan.simulate import cut_mean, finish_times, lognormal_lengths


def one_second(rows: int, cached: float) -> float:
    return 1.0


def test_two_cards_with_two_rows_each_by_hand() -> None:
    """Parts (5, 1, 2), (1, 1, 1). The first: 5 and 1 run, 2 follows at second 1; the end is at 5. The second: two of 1,
    then one of 1: the end is at 2."""
    assert finish_times([5, 1, 2, 1, 1, 1], 2, 2, one_second, prompt=0) == [5.0, 2.0]


def test_a_shared_counter_gives_to_whoever_is_free_first() -> None:
    """One row each, parts (4, 3) and (1, 1). Fixed: 7 and 2. Shared: both start with their own first; at second 1 the
    second card takes 3, is done at 4, and so is the first, who takes the last 1: the end is at 5."""
    assert finish_times([4, 3, 1, 1], 2, 1, one_second, prompt=0) == [7.0, 2.0]
    assert finish_times([4, 3, 1, 1], 2, 1, one_second, prompt=0, shared=True) == [5.0, 4.0]


def test_with_as_many_rows_as_completions_nothing_is_shared() -> None:
    lengths = [7, 2, 3, 9, 1, 4, 4]
    fixed, shared = (finish_times(lengths, 3, 3, one_second, 10, way) for way in (False, True))
    assert fixed == shared == [7.0, 9.0, 4.0]


def test_a_step_costs_by_its_rows_and_by_what_they_look_back_on() -> None:
    """Two rows of 2 and 4 tokens after prompts of 10; a step takes the rows plus a tenth of the cache. Two steps with
    two rows: the cache is 20 before, 22 half way: 2 x (2 + 2.2) = 8.4. Then 24 - 12 = 12 are left; two steps with one
    row, 13 half way: 2 x (1 + 1.3) = 4.6."""
    step: Callable[[int, float], float] = lambda rows, cached: rows + cached / 10  # noqa: E731
    assert finish_times([2, 4], 1, 2, step, prompt=10) == [pytest.approx(13.0)]


def test_a_card_without_completions_has_nothing_to_do() -> None:
    assert finish_times([3], 2, 4, one_second, prompt=1) == [0.0, 3.0]


def test_all_at_the_limit() -> None:
    assert set(lognormal_lengths(50, 40, 40, seed=0)) == {40}


def test_the_mean_of_cut_lengths_is_the_mean_asked_for() -> None:
    found = lognormal_lengths(200_000, 1000, 4096, seed=3)
    assert mean(found) == pytest.approx(1000, rel=0.01)
    assert (min(found) >= 1, max(found)) == (True, 4096)
    # Of a lognormal of median 1000 with sigma 1: the half above a limit of 1000 counts as 1000, the half below has
    # the mean e^(1/2) x 1000 x Phi(-1) / (1/2).
    expected = 1000 * (math.exp(0.5) * NormalDist().cdf(-1) + 0.5)
    assert cut_mean(math.log(1000), 1000, 1.0) == pytest.approx(expected)


def test_sigma_is_that_of_the_logarithms_and_a_share_is_between_problems() -> None:
    logs = [math.log(n) for n in lognormal_lengths(80_000, 3000, 10**9, 1, sigma=0.6, group=8, between=0.5)]
    groups = [logs[i : i + 8] for i in range(0, len(logs), 8)]
    assert stdev(logs) == pytest.approx(0.6, rel=0.02)
    assert mean(variance(group) for group in groups) == pytest.approx(0.18, rel=0.03)


def test_a_seed_draws_the_same_lengths() -> None:
    assert lognormal_lengths(9, 100, 400, 5) == lognormal_lengths(9, 100, 400, 5) != lognormal_lengths(9, 100, 400, 6)

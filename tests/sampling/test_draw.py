"""Draws: by the probabilities, from the published hash, and never a token that cannot be."""

import math

import torch

from r1v0.base.keys import key, shuffled, unit
from r1v0.sampling.draw import draw, uniform


def test_frequencies_of_draws_are_the_probabilities() -> None:
    """Chi-squared over 40,000 draws from a known distribution, impossible tokens among them."""
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.125, 0.125, 0.0])
    n = 40_000
    u = uniform(torch.full((n,), key(1, "draws")), torch.arange(n))
    tokens, logprobs = draw(probabilities.log().expand(n, -1), u)
    counts = tokens.bincount(minlength=7)
    assert counts[probabilities == 0].sum() == 0
    possible = probabilities > 0
    chi_squared = ((counts - n * probabilities)[possible] ** 2 / (n * probabilities[possible])).sum()
    assert chi_squared < 16.3  # 99.9 % quantile with 3 degrees of freedom
    assert torch.allclose(logprobs, probabilities.log()[tokens])


def test_the_largest_uniform_never_draws_an_impossible_token() -> None:
    logits = torch.full((50, 1000), -math.inf)
    logits[:, :7] = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 5
    tokens, _ = draw(logits, torch.full((50,), 1 - 2.0**-24))
    assert (tokens < 7).all()


def test_uniform_numbers_are_those_of_splitmix64() -> None:
    """Against plain Python integers; the counter-based stream of key 0 is SplitMix64 seeded with 0."""
    mask = (1 << 64) - 1

    def reference(seed: int, counter: int) -> int:
        x = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    assert reference(0, 0) == 0xE220A8397B1DCDAF  # the published first output of SplitMix64(0)
    keys = [0, 1, -1, key(3, "a"), -(1 << 63), (1 << 63) - 1]
    for counter in (0, 1, 7999):
        drawn = uniform(torch.tensor(keys), torch.full((len(keys),), counter))
        assert drawn.tolist() == [(reference(k & mask, counter) >> 40) / 2**24 for k in keys]


def test_keys_differ_by_every_part_and_are_the_same_for_ever() -> None:
    parts: list[tuple[str | int, ...]] = [("a", 1, 2), ("b", 1, 2), ("a", 2, 2), ("a", 1, 3), ("a", 12)]
    assert len({key(seed, *purpose) for seed in (0, 1) for purpose in parts}) == 2 * len(parts)
    assert key(0, "train", 0, 0) == -5288842487836250991  # a run from last year must still be reproducible
    assert sorted(shuffled(10, 5)) == list(range(10))
    assert 0 <= unit(key(0, "coin")) < 1


def test_a_draw_is_the_first_token_whose_cumulative_probability_exceeds_the_number() -> None:
    """1/4, 0, 1/2, 1/4: exact in binary, so the steps of the cumulative sum are hit exactly."""
    logits = torch.tensor([0.25, 0.0, 0.5, 0.25]).log().expand(6, -1)
    numbers = torch.tensor([0.0, 0.25 - 2.0**-24, 0.25, 0.5, 0.75 - 2.0**-24, 0.75])
    tokens, logprobs = draw(logits, numbers)
    assert tokens.tolist() == [0, 0, 2, 2, 2, 3]
    assert torch.allclose(logprobs, torch.tensor([0.25, 0.25, 0.5, 0.5, 0.5, 0.25]).log())


def test_a_broken_model_draws_a_token_that_exists_with_a_logprob_that_tells() -> None:
    """NaN is above every number: without the clamp the token would be past the vocabulary, and the gather would
    raise."""
    tokens, logprobs = draw(torch.full((2, 5), math.nan), torch.tensor([0.0, 0.9]))
    assert tokens.tolist() == [4, 4]
    assert logprobs.isnan().all()


def test_a_number_above_a_total_that_rounding_left_below_1_draws_the_last_possible_token() -> None:
    """Not the first one: 0.99999994 is past 0.9999998, the sum of these probabilities in float32."""
    logits = torch.full((64, 3000), -math.inf)
    logits[:, 100:2900] = torch.randn(64, 2800, generator=torch.Generator().manual_seed(1))
    u = torch.full((64,), 1 - 2.0**-24)
    totals = logits.softmax(-1).cumsum(-1)[:, -1]
    assert (totals < u).any()
    tokens, _ = draw(logits, u)
    assert ((tokens >= 2800) & (tokens < 2900)).all()

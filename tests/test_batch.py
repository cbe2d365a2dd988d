"""Numerics 3: the gradient is the same for any split, order and packing, sparse or dense."""

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from r1v0.batch import make_updates, pack, split
from r1v0.config import VARIANTS, GrpoConfig
from r1v0.logprobs import token_logprobs
from r1v0.losses import policy_loss
from r1v0.models.transformer import Transformer
from r1v0.types import Group
from tests.helpers import random_groups, rollout, small_model

L_MAX = 32


def config(name: str, **changes: Any) -> GrpoConfig:
    return replace(GrpoConfig(variant=name, **VARIANTS[name]), **changes)


def gradient(model: Transformer, groups: list[Group], chosen: GrpoConfig, max_tokens: int) -> dict[str, Tensor]:
    model.zero_grad()
    for batch in make_updates(groups, chosen, L_MAX, 0):
        for micro in split(batch, max_tokens):
            policy_loss(token_logprobs(model, micro, 1.0).logprobs, micro, chosen)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert a
    scale = max(float(x.abs().max()) for x in a.values())
    for name in a:
        assert (a[name] - b[name]).abs().max() < 1e-5 * scale, name


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_splits_and_order_do_not_change_the_gradient(name: str, tied: bool) -> None:
    model, groups = small_model(scale=4.0, tied=tied), random_groups(1)
    whole = gradient(model, groups, config(name), 10**6)
    for max_tokens in (1, 40, 100):
        assert_equal(gradient(model, groups, config(name), max_tokens), whole)
    shuffled = [Group(g.prompt, g.rollouts[::-1]) for g in groups[::-1]]
    assert_equal(gradient(model, shuffled, config(name), 70), whole)


@pytest.mark.parametrize("name", VARIANTS)
def test_packing_does_not_change_the_gradient(name: str) -> None:
    """Against one sequence at a time, each alone in its forward pass, summed by hand."""
    model, groups = small_model(scale=4.0), random_groups(2)
    whole = gradient(model, groups, config(name), 10**6)
    model.zero_grad()
    (batch,) = make_updates(groups, config(name), L_MAX, 0)
    bounds = batch.cu_seqlens.tolist()
    for one in split(batch, 1):
        assert one.cu_seqlens.shape == (2,)
        policy_loss(token_logprobs(model, one, 1.0).logprobs, one, config(name))[0].backward()
    assert len(bounds) - 1 == len(list(split(batch, 1)))
    assert_equal({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, whole)


@pytest.mark.parametrize("name", VARIANTS)
def test_sparse_is_exact(name: str) -> None:
    model, groups = small_model(scale=4.0), random_groups(3, count=6, flat=3)
    sparse, dense = config(name), config(name, sparse=False)
    (small,), (large,) = make_updates(groups, sparse, L_MAX, 0), make_updates(groups, dense, L_MAX, 0)
    assert small.cu_seqlens.shape[0] - 1 == 12
    assert large.cu_seqlens.shape[0] - 1 == 24
    assert_equal(gradient(model, groups, sparse, 10**6), gradient(model, groups, dense, 10**6))


def test_a_kl_term_keeps_flat_groups() -> None:
    (batch,) = make_updates(random_groups(3, count=6, flat=3), config("grpo", kl_coef=0.1), L_MAX, 0)
    assert batch.cu_seqlens.shape[0] - 1 == 24


def test_nothing_to_learn_is_an_empty_batch() -> None:
    (batch,) = make_updates(random_groups(3, count=2, flat=2), config("grpo"), L_MAX, 0)
    assert batch.token_ids.shape == (0,)
    assert list(split(batch, 100)) == []


def test_keep_per_group_is_random_after_the_advantages() -> None:
    groups = random_groups(5, count=8, size=6, flat=0)
    (all_of_them,) = make_updates(groups, config("grpo"), L_MAX, 0)
    (kept,) = make_updates(groups, config("grpo", keep_per_group=2), L_MAX, 0)
    assert kept.cu_seqlens.shape[0] - 1 == 16
    assert set(kept.advantages.tolist()) <= set(all_of_them.advantages.tolist())  # those of the whole group
    (other,) = make_updates(groups, config("grpo", keep_per_group=2), L_MAX, 1)
    assert kept.token_ids.tolist() != other.token_ids.tolist()


def test_minibatches_partition_and_epochs_repeat() -> None:
    groups = random_groups(6, count=5, size=4, flat=0)
    updates = make_updates(groups, config("grpo", minibatches=3, epochs=2), L_MAX, 0)
    assert [u.cu_seqlens.shape[0] - 1 for u in updates] == [6, 7, 7] * 2
    (whole,) = make_updates(groups, config("grpo"), L_MAX, 0)
    tokens = sorted(whole.token_ids.tolist())
    for epoch in (updates[:3], updates[3:]):
        assert sorted(t for u in epoch for t in u.token_ids.tolist()) == tokens
        for update in epoch:  # each update has its own denominator
            scored = update.weights.reshape(-1)
            assert float(scored.sum()) == pytest.approx(1.0)


def test_layout_of_a_packed_batch() -> None:
    batch = pack(
        [(rollout([7, 8], [5, 1], 1.0, [-0.5, -0.25]), 0.7, 0.1), (rollout([9], [4, 6, 2, 1], 0.0), -0.7, 0.2)]
    )
    assert batch.token_ids.tolist() == [9, 4, 6, 2, 1, 7, 8, 5, 1]  # longest first
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 5, 9]
    assert batch.weights.tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0, 0, 0.1, 0.1])
    assert batch.advantages.tolist() == pytest.approx([0, -0.7, -0.7, -0.7, -0.7, 0, 0, 0.7, 0.7])
    assert batch.sample_logprobs.tolist() == [0, -1, -1, -1, -1, 0, 0, -0.5, -0.25]

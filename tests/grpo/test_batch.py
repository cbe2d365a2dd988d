"""Numerics 3: the gradient is the same for any split, order and packing, sparse or dense."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from r1v0.config import VARIANTS, GrpoConfig
from r1v0.grpo.batch import deal, make_updates, pack, split
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.models.transformer import Transformer
from r1v0.types import Batch, Group
from tests.helpers import group, random_groups, rollout, small_model

pytestmark = pytest.mark.numeric


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


def completions(batch: Batch) -> int:
    return int((batch.parents >= 0).sum())


def test_a_prompt_is_computed_once_where_its_group_stays_together() -> None:
    groups = [group([9] * 5, [[3] * 4, [4] * 2, [5] * 3], [1.0, 0.0, 0.0]), group([8] * 6, [[6] * 2, [7]], [1.0, 0.0])]
    (batch,) = make_updates(groups, config("grpo"), L_MAX, 0)
    assert batch.cu_seqlens.diff().tolist() == [5, 4, 3, 2, 6, 2, 1]
    assert batch.parents.tolist() == [-1, 0, 0, 0, -1, 4, 4]

    def micros(max_tokens: int) -> list[list[int]]:
        parts = list(split(batch, max_tokens))
        assert sum(map(completions, parts)) == 5
        assert all(part.token_ids.shape[0] == part.positions.shape[0] == int(part.cu_seqlens[-1]) for part in parts)
        return [part.cu_seqlens.diff().tolist() for part in parts]

    assert micros(23) == micros(24) == [[5, 4, 3, 2, 6, 2, 1]]
    assert micros(22) == [[5, 4, 3, 2], [6, 2, 1]]  # a group stays together
    assert micros(13) == [[5, 4, 3], [5, 2], [6, 2, 1]]  # unless it is larger than a micro-batch
    assert micros(8) == [[5, 4], [5, 3], [5, 2], [6, 2], [6, 1]]
    assert micros(1) == micros(8)


def filled(max_tokens: int, *groups: list[int]) -> list[list[int]]:
    """How micro-batches of at most `max_tokens` hold groups, each a prompt's length and its completions'."""
    made = [
        group([30 + i] * prompt, [[2] * n for n in sizes], [1.0] * len(sizes))
        for i, (prompt, *sizes) in enumerate(groups)
    ]
    (batch,) = make_updates(made, config("grpo", sparse=False), L_MAX, 0)
    return [part.cu_seqlens.diff().tolist() for part in split(batch, max_tokens)]


def test_micro_batches_are_filled_to_the_last_token() -> None:
    """A group that fills one alone begins a new one; what is counted begins at 0 after each."""
    assert filled(14, [2, 3], [1, 4, 4, 4, 1]) == [[2, 3], [1, 4, 4, 4, 1]]
    assert filled(9, [2, 5], [2, 4], [2, 2]) == [[2, 5], [2, 4], [2, 2]]  # 6 + 4 are one too many
    assert filled(10, [2, 5], [2, 4], [2, 2]) == [[2, 5], [2, 4, 2, 2]]
    assert filled(9, [5, 4, 4, 2, 2]) == [[5, 4], [5, 4], [5, 2, 2]]
    assert filled(9, [5, 4, 4, 2, 2, 1]) == [[5, 4], [5, 4], [5, 2, 2], [5, 1]]


def test_equal_prompts_of_two_groups_are_one() -> None:
    groups = [group([9, 2], [[3], [4, 5]], [1.0, 0.0]) for _ in range(2)]
    (batch,) = make_updates(groups, config("grpo"), L_MAX, 0)
    assert batch.parents.tolist() == [-1, 0, 0, 0, 0]


def test_a_kl_term_keeps_flat_groups() -> None:
    (batch,) = make_updates(random_groups(3, count=6, flat=3), config("grpo", kl_coef=0.1), L_MAX, 0)
    assert completions(batch) == 24


def test_nothing_to_learn_is_an_empty_batch() -> None:
    (batch,) = make_updates(random_groups(3, count=2, flat=2), config("grpo"), L_MAX, 0)
    assert batch.token_ids.shape == (0,)
    assert list(split(batch, 100)) == []


def test_keep_per_group_is_random_after_the_advantages() -> None:
    groups = random_groups(5, count=8, size=6, flat=0)
    (all_of_them,) = make_updates(groups, config("grpo"), L_MAX, 0)
    (kept,) = make_updates(groups, config("grpo", keep_per_group=2), L_MAX, 0)
    assert completions(kept) == 16
    assert set(kept.advantages.tolist()) <= set(all_of_them.advantages.tolist())  # those of the whole group
    (other,) = make_updates(groups, config("grpo", keep_per_group=2), L_MAX, 1)
    assert kept.token_ids.tolist() != other.token_ids.tolist()


def test_minibatches_partition_and_epochs_repeat() -> None:
    groups = random_groups(6, count=5, size=4, flat=0)
    updates = make_updates(groups, config("grpo", minibatches=3, epochs=2), L_MAX, 0)
    assert [completions(u) for u in updates] == [6, 7, 7] * 2
    (whole,) = make_updates(groups, config("grpo"), L_MAX, 0)
    tokens = sorted(whole.token_ids[whole.weights != 0].tolist())
    for epoch in (updates[:3], updates[3:]):
        assert sorted(t for u in epoch for t in u.token_ids[u.weights != 0].tolist()) == tokens
        for update in epoch:  # each update has its own denominator
            scored = update.weights.reshape(-1)
            assert float(scored.sum()) == pytest.approx(1.0)


def test_one_minibatch_keeps_the_order_of_the_groups_and_several_shuffle_each_epoch() -> None:
    """Groups of equal sizes, told by their prompts: nothing but that order decides where they stand."""
    groups = [group([20 + i], [[2, 3], [4, 5]], [1.0, 0.0]) for i in range(8)]

    def prompts(batch: Batch) -> list[int]:
        starts = batch.cu_seqlens[:-1][batch.parents < 0]
        return [token - 20 for token in batch.token_ids[starts].tolist()]

    for whole in make_updates(groups, config("grpo", epochs=2), L_MAX, 0):
        assert prompts(whole) == list(range(8))
    halves = [set(prompts(half)) for half in make_updates(groups, config("grpo", minibatches=2, epochs=2), L_MAX, 0)]
    assert halves[0] != {0, 1, 2, 3}
    assert halves[0] != halves[2]


def test_the_longest_prompt_with_completion_stands_first() -> None:
    """6 + 2, then 1 + 6, then 4 + 2 (a longer prompt) and 3 + 2 (more completions)."""
    groups = [
        group([9] * 3, [[2, 3]] * 5, [1.0, 0.0, 0.0, 0.0, 0.0]),
        group([8] * 4, [[2], [3, 4]], [1.0, 0.0]),
        group([7], [[5] * 6, [4]], [1.0, 0.0]),
        group([6] * 6, [[2, 3], [3]], [1.0, 0.0]),
    ]
    (batch,) = make_updates(groups, config("grpo"), L_MAX, 0)
    roots = batch.cu_seqlens[:-1][batch.parents < 0]
    assert batch.token_ids[roots].tolist() == [6, 7, 8, 9]


def test_layout_of_a_packed_batch() -> None:
    """Two completions of one prompt and one of another: the longest sequence first, its group behind it."""
    batch = pack(
        [
            (rollout([7, 8], [5, 1], 1.0, [-0.5, -0.25]), 0.7, 0.1),
            (rollout([9], [4, 6, 2, 1], 0.0), -0.7, 0.2),
            (rollout([7, 8], [3], 0.0), -0.3, 0.1),
        ]
    )
    assert batch.token_ids.tolist() == [9, 4, 6, 2, 1, 7, 8, 5, 1, 3]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 2]
    assert batch.cu_seqlens.tolist() == [0, 1, 5, 7, 9, 10]
    assert batch.parents.tolist() == [-1, 0, -1, 2, 2]
    assert batch.weights.tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0, 0, 0.1, 0.1, 0.1])
    assert batch.advantages.tolist() == pytest.approx([0, -0.7, -0.7, -0.7, -0.7, 0, 0, 0.7, 0.7, -0.3])
    assert batch.sample_logprobs.tolist() == [0, -1, -1, -1, -1, 0, 0, -0.5, -0.25, -1]


@pytest.mark.parametrize("shares", [2, 3, 5, 7])
@pytest.mark.parametrize("equal_keys", [1, 10, 200])
def test_shares_are_cut_by_the_work_of_each_token(shares: int, equal_keys: int) -> None:
    """A token at position t costs 1 + (t + 1/2) / equal_keys; a completion is of the share that its middle lies in."""
    (batch,) = make_updates(random_groups(4, count=9, flat=0), config("grpo"), L_MAX, 0)
    bounds = batch.cu_seqlens.tolist()
    expected: dict[int, list[list[int]]] = {}
    costs = [
        sum(1 + Fraction(2 * t + 1, 2 * equal_keys) for t in batch.positions[a:b].tolist()) for a, b in pairwise(bounds)
    ]
    for i, parent in enumerate(batch.parents.tolist()):
        if parent >= 0:
            middle = sum(costs[:i]) + costs[i] / 2
            tokens = batch.token_ids[bounds[i] : bounds[i + 1]].tolist()
            expected.setdefault(int(middle * shares // sum(costs)), []).append(tokens)
    parts = [
        [
            part.token_ids[a:b].tolist()
            for (a, b), parent in zip(pairwise(part.cu_seqlens.tolist()), part.parents.tolist(), strict=True)
            if parent >= 0
        ]
        for part in deal(batch, shares, equal_keys)
    ]
    assert parts == list(expected.values())


def test_a_share_holds_each_prompt_once_before_its_completions() -> None:
    (batch,) = make_updates(
        [group([9] * 5, [[3] * 4, [4] * 4, [5] * 4, [6] * 4], [1.0, 0.0, 0.0, 1.0])], config("grpo"), L_MAX, 0
    )
    parts = deal(batch, 2, 1e9)  # no attention to speak of: 5 and 4 x 4 tokens, the first share ends at 10.5
    assert [part.cu_seqlens.diff().tolist() for part in parts] == [[5, 4], [5, 4, 4, 4]]
    assert [part.parents.tolist() for part in parts] == [[-1, 0], [-1, 0, 0, 0]]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_splits_and_order_do_not_change_the_gradient(name: str, tied: bool) -> None:
    model, groups = small_model(scale=4.0, tied=tied), random_groups(1)
    whole = gradient(model, groups, config(name), 10**6)
    for max_tokens in (1, 40, 100):
        assert_equal(gradient(model, groups, config(name), max_tokens), whole)
    shuffled = [Group(g.prompt, g.rollouts[::-1]) for g in groups[::-1]]
    assert_equal(gradient(model, shuffled, config(name), 70), whole)


def one_by_one(batch: Batch) -> Iterator[Batch]:
    """Each sequence alone and whole, its prompt before it in the same segment: nothing shared, nothing packed."""
    bounds = batch.cu_seqlens.tolist()
    for i, parent in enumerate(batch.parents.tolist()):
        if parent >= 0:
            rows = [*range(bounds[parent], bounds[parent + 1]), *range(bounds[i], bounds[i + 1])]
            yield Batch(
                batch.token_ids[rows],
                torch.arange(len(rows)),
                torch.tensor([0, len(rows)]),
                torch.tensor([-1]),
                batch.weights[rows],
                batch.advantages[rows],
                batch.sample_logprobs[rows],
            )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_sharing_prompts_does_not_change_the_gradient(name: str, kl_coef: float, checkpointed: bool) -> None:
    """Against whole sequences, each alone in its forward pass."""
    chosen = config(name, kl_coef=kl_coef)
    model, reference = small_model(scale=4.0), small_model(7, scale=4.0)
    groups = [*random_groups(2), *random_groups(11, count=2, size=3, flat=0)]
    (batch,) = make_updates(groups, chosen, L_MAX, 0)

    def backward(micros: Iterable[Batch]) -> dict[str, Tensor]:
        model.zero_grad()
        for micro in micros:
            with torch.no_grad():
                anchor = token_logprobs(reference, micro, 1.0).logprobs if kl_coef else None
            policy_loss(token_logprobs(model, micro, 1.0).logprobs, micro, chosen, anchor)[0].backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = backward(one_by_one(batch))
    model.checkpoint_activations = checkpointed
    for max_tokens in (1, 30, 10**6):
        assert_equal(backward(split(batch, max_tokens)), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_sparse_is_exact(name: str) -> None:
    model, groups = small_model(scale=4.0), random_groups(3, count=6, flat=3)
    sparse, dense = config(name), config(name, sparse=False)
    (small,), (large,) = make_updates(groups, sparse, L_MAX, 0), make_updates(groups, dense, L_MAX, 0)
    assert completions(small) == 12
    assert completions(large) == 24
    assert_equal(gradient(model, groups, sparse, 10**6), gradient(model, groups, dense, 10**6))

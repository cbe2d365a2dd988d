"""Shared prompts in attention against whole sequences, and the adapter of torch's variable-length kernel."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r1v0.models import attention
from r1v0.models.attention import adapt_varlen, packed
from r1v0.models.kernels import block_attention

pytestmark = pytest.mark.numeric

HEADS, KV_HEADS, DIM = 4, 2, 8
# Segments with their parents: prompts of 5, 1 and 40 tokens, completions short and long, and two that stand alone.
LENGTHS = [5, 3, 9, 30, 1, 7, 7, 12, 40, 2, 1, 90, 6]
PARENTS = [-1, 0, 0, 0, -1, 4, 4, -1, -1, 8, 8, 8, -1]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    total = sum(LENGTHS)
    shapes = [(total, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    q, k, v = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
    return q, k, v


def by_formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v, one token at a time over all that it may see."""
    bounds = [0, *torch.tensor(LENGTHS).cumsum(0).tolist()]
    outputs = []
    for segment, parent in enumerate(PARENTS):
        before = list(range(bounds[parent], bounds[parent + 1])) if parent >= 0 else []
        for token in range(bounds[segment], bounds[segment + 1]):
            seen = [*before, *range(bounds[segment], token + 1)]
            keys, values = (x[seen].repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
            scores = torch.einsum("hd,shd->hs", q[token], keys) / DIM**0.5
            outputs.append(torch.einsum("hs,shd->hd", scores.softmax(-1), values))
    return torch.stack(outputs)


def assert_as_by_formula(attend: attention.Attend) -> None:
    tensors = inputs()
    found, expected = attend(0, *tensors), by_formula(*tensors)
    assert torch.allclose(found, expected, atol=1e-5)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad((out * upstream).sum(), tensors) for out in (found, expected)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))


def cu_seqlens() -> Tensor:
    return torch.tensor([0, *LENGTHS]).cumsum(0)


@pytest.mark.parametrize("full", [0.0, 0.6, 1.0])  # all in one bucket, or hardly any two together
@pytest.mark.parametrize("block", [1, 7, 1000])  # queries at a time
@pytest.mark.parametrize("scores", [1, 3000, 1 << 20])  # one sequence at a time, some, as many as are alike
def test_shared_prompts_give_what_repeated_ones_give(
    full: float, block: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "FULL", full)
    monkeypatch.setitem(block_attention.LIMITS, "cpu", (block, scores))
    assert_as_by_formula(packed(cu_seqlens(), torch.tensor(PARENTS)))


def test_bfloat16_is_rounded_at_the_ends_only() -> None:
    """Scores, probabilities and sums are float32: what is left is the rounding of the output and of each gradient
    (2^-8)."""
    rounded = [x.detach().bfloat16().requires_grad_() for x in inputs()]
    exact = [x.detach().float().requires_grad_() for x in rounded]
    found, expected = packed(cu_seqlens(), torch.tensor(PARENTS))(0, *rounded), by_formula(*exact)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, rtol=2**-8, atol=1e-5)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    grads = zip(
        torch.autograd.grad(found, rounded, upstream),
        torch.autograd.grad(expected, exact, upstream.float()),
        strict=True,
    )
    for a, b in grads:  # a prompt's key gets a rounded part from each of up to four sequences
        assert (a.float() - b).abs().max() <= 2**-7 * b.abs().max()


def test_without_parents_segments_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PARENTS", [-1] * len(LENGTHS))
    assert_as_by_formula(packed(cu_seqlens()))
    assert_as_by_formula(packed(cu_seqlens(), torch.tensor([-1] * len(LENGTHS))))


def flash(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> Tensor:
    """What FlashAttention 2 computes when causal: query i of n sees the first i + 1 + (keys - n) keys."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert max_q == int(cu_q.diff().max())
    assert max_k == int(cu_k.diff().max())
    outputs = []
    for qi, ki, vi in zip(*(x.split(cu.diff().tolist()) for x, cu in ((q, cu_q), (k, cu_k), (v, cu_k))), strict=True):
        hidden = torch.ones(len(qi), len(ki)).triu(1 + len(ki) - len(qi)).bool()
        mask = torch.zeros(len(qi), len(ki)).masked_fill(hidden, float("-inf"))
        a, b, c = (x.transpose(0, 1)[None] for x in (qi, ki, vi))
        outputs.append(F.scaled_dot_product_attention(a, b, c, mask, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(outputs)


def varlen_2_11(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    assert window_size == (-1, 0)
    assert (return_aux, scale) == (None, None)
    return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)


def varlen_2_13(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor | None, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    seqused_k: Tensor | None = None, block_table: Tensor | None = None, num_splits: int | None = None,
) -> Tensor:  # fmt: skip
    assert window_size == (-1, 0)
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert (return_aux, scale, seqused_k, block_table, num_splits) == (None,) * 5
    assert cu_seq_k is not None
    return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)


@pytest.mark.parametrize("function", [varlen_2_11, varlen_2_13])
@pytest.mark.parametrize("shared", [True, False])
def test_the_variable_length_kernel_gets_what_it_needs(
    function: Any, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_varlen_for", lambda q: adapt_varlen(function))
    if shared:
        assert_as_by_formula(packed(cu_seqlens(), torch.tensor(PARENTS)))
    else:
        monkeypatch.setattr(f"{__name__}.PARENTS", [-1] * len(LENGTHS))
        assert_as_by_formula(packed(cu_seqlens()))


def test_this_torch_has_the_kernel_and_a_cpu_does_not_use_it() -> None:
    attention._varlen.cache_clear()
    assert attention._varlen() is not None
    assert attention._varlen_for(torch.zeros(3, HEADS, DIM, dtype=torch.bfloat16)) is None

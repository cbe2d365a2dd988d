"""Causal attention as matrix products, a block of queries at a time: what trains where there is no flash attention
for it.

Decides: in float32 whatever the inputs' type. Scores are computed again in the backward pass, as in FlashAttention
(arXiv 2205.14135, sec. 3.1), which here needs no running softmax, since a block of queries sees all of its keys at
once. On a CPU forward and backward take less time than PyTorch's fused kernel, most of all in bfloat16
(docs/performance.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Queries of a block, and numbers that the scores of several sequences' blocks may have together: on a CPU half a MiB,
# which stays in a core's cache; a GPU (not measured) wants few launches. One sequence alone is always taken.
LIMITS = {"cpu": (64, 1 << 17), "cuda": (1024, 1 << 24)}


@dataclass(frozen=True, slots=True)
class Bucket:
    """n sequences of `keys` tokens each, of which the last `queries` ask."""

    n: int
    queries: int
    keys: int


def fits(bucket: Bucket, heads: int, device: torch.device) -> bool:
    """Whether a block of queries of all its sequences has no more scores than it should."""
    block, scores = LIMITS[device.type]
    return bucket.n * heads * min(block, bucket.queries) * bucket.keys <= scores


class BlockAttention(torch.autograd.Function):
    """Causal attention within each sequence of the buckets, which stand one behind the other: q [sum of n x queries,
    heads, head_dim], k, v [sum of n x keys, kv_heads, head_dim] -> softmax(q k / sqrt(head_dim)) v, like q.

    With P the probabilities and G the output's gradient (FlashAttention, appendix B.2):
    dV = P' G, dS = P (G V' - rowsum(P G V')), dQ = dS K / sqrt(head_dim), dK = dS' Q / sqrt(head_dim).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, buckets: Sequence[Bucket]) -> Tensor:
        outputs = []
        for bucket, queries, keys, values in _by_bucket(buckets, q, k, v):
            out = torch.empty_like(queries)
            for rows, seen, p in _blocks(bucket, queries, keys):
                out[:, rows] = torch.bmm(p, values[:, :seen])
            outputs.append(_by_token(out, bucket.queries, q))
        ctx.save_for_backward(q, k, v)
        ctx.buckets = buckets
        return torch.cat(outputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        grads = []
        above = grad.split([bucket.n * bucket.queries for bucket in ctx.buckets])
        for (bucket, queries, keys, values), g in zip(_by_bucket(ctx.buckets, q, k, v), above, strict=True):
            g = _by_head(g, bucket.n, k.shape[1])
            dq, dk, dv = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
            for rows, seen, p in _blocks(bucket, queries, keys):
                ds = torch.ops.aten._softmax_backward_data(torch.bmm(g[:, rows], values[:, :seen].mT), p, -1, p.dtype)
                dq[:, rows] = torch.bmm(ds, keys[:, :seen])
                dk[:, :seen] += torch.bmm(ds.mT, queries[:, rows])
                dv[:, :seen] += torch.bmm(p.mT, g[:, rows])
            dq.mul_(q.shape[-1] ** -0.5)  # of the queries that come scaled, dk has it
            grads.append([_by_token(dx, length, x) for dx, length, x in
                          ((dq, bucket.queries, q), (dk, bucket.keys, k), (dv, bucket.keys, v))])  # fmt: skip
        dq, dk, dv = (torch.cat(parts) for parts in zip(*grads, strict=True))
        return dq, dk, dv, None


def _by_bucket(
    buckets: Sequence[Bucket], q: Tensor, k: Tensor, v: Tensor
) -> Iterator[tuple[Bucket, Tensor, Tensor, Tensor]]:
    """Each bucket with its scaled queries, its keys and its values, as `_by_head` lays them."""
    sizes = [bucket.n * bucket.queries for bucket in buckets], [bucket.n * bucket.keys for bucket in buckets]
    kv_heads, scale = k.shape[1], q.shape[-1] ** -0.5
    for bucket, qi, ki, vi in zip(buckets, q.split(sizes[0]), k.split(sizes[1]), v.split(sizes[1]), strict=True):
        n = bucket.n
        yield bucket, _by_head(qi, n, kv_heads) * scale, _by_head(ki, n, kv_heads), _by_head(vi, n, kv_heads)


def _blocks(bucket: Bucket, queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
    """Of each block of a bucket's queries: its rows, how many keys they see, and their probabilities [., rows,
    seen]."""
    group = queries.shape[1] // bucket.queries
    step = min(LIMITS[queries.device.type][0], bucket.queries)
    future = torch.full((step, step), float("-inf"), dtype=queries.dtype, device=queries.device).triu_(1)
    for start in range(0, bucket.queries, step):
        end = min(start + step, bucket.queries)
        rows, seen = slice(start * group, end * group), bucket.keys - bucket.queries + end
        scores = torch.bmm(queries[:, rows], keys[:, :seen].mT)
        own = scores.view(scores.shape[0], end - start, group, seen)[..., start - end :]
        own += future[: end - start, None, : end - start]
        yield rows, seen, scores.softmax(-1)


def _by_head(x: Tensor, n: int, kv_heads: int) -> Tensor:
    """[n x length, heads, d] -> [n x kv_heads, length x (heads / kv_heads), d]: what shares keys is together. In
    float32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return (
        x.view(n, -1, kv_heads, x.shape[1] // kv_heads, x.shape[2])
        .transpose(1, 2)
        .reshape(n * kv_heads, -1, x.shape[2])
    )


def _by_token(x: Tensor, length: int, like: Tensor) -> Tensor:
    """The way back: [n x kv_heads, length x group, d] -> [n x length, heads, d], in the type of `like`."""
    heads, d = like.shape[1:]
    group = x.shape[1] // length
    by_token = x.view(-1, heads // group, length, group, d).transpose(1, 2)
    return by_token.to(like.dtype).reshape(-1, heads, d)

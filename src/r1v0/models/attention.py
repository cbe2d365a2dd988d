"""Attention over packed sequences: what the Transformer calls with each layer's queries, keys and values.

Decides: an `Attend` is a plain function (layer, q, k, v) -> output, so the same Transformer trains on packed tokens,
prefills prompts and decodes from a cache without knowing which. A prompt that several completions continue is there
once; only inside `attend` are its keys and values laid before those of each of them. There is never a T x T mask:

    CUDA, 16 bit    torch's variable-length flash attention, whose causal mask is aligned at the end of queries and
                    keys, so a completion's queries see the whole prompt
    shared prompts  elsewhere: matrix products, a block of a segment's queries at a time, in float32: on a CPU 1.4 to 2
                    times as fast as torch's fused kernel, forward and backward, at a few hundred tokens a sequence
    no sharing      elsewhere: `scaled_dot_product_attention`, a run of equal lengths at a time
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# (layer, q [T, heads, head_dim], k [T, kv_heads, head_dim], v like k) -> [T, heads, head_dim]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
# (q, k, v, cu_seq_q, cu_seq_k, max_q, max_k) -> [Tq, heads, head_dim]: causal, aligned at the end, grouped heads
Varlen = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]

BLOCK, LEAST_BLOCK = 128, 16  # queries of a block: as many as measured fastest on a CPU, fewer of long sequences
SCORES = 1 << 20  # numbers that a block's scores should not exceed: they stay in a CPU's caches


def packed(cu_seqlens: Tensor, parents: Tensor | None = None) -> Attend:
    """Causal attention within the segments that `cu_seqlens` [S+1] delimits.

    `parents` [S] names the segment that a segment goes on from (-1: none), one level deep: its tokens see that whole
    segment before their own (a completion its prompt). Both are best left on the CPU: they are read there.
    """
    found: list[Attend] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not found:  # which kernel it is shows in the first queries
            kernel = _varlen_for(q)
            if kernel is not None:
                found.append(_by_varlen(kernel, cu_seqlens, parents, q.device))
            elif parents is None:
                found.append(_by_runs(cu_seqlens))
            else:
                found.append(_by_blocks(cu_seqlens, parents, q))
        return found[0](layer, q, k, v)

    return attend


def _by_runs(cu_seqlens: Tensor) -> Attend:
    """Each run of equal lengths is one kernel call on views."""
    lengths = cu_seqlens.diff().tolist()
    runs = [(length, sum(1 for _ in same)) for length, same in groupby(lengths)]
    sizes = [length * count for length, count in runs]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs = []
        for (length, count), *qkv in zip(runs, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
            qi, ki, vi = (x.view(count, length, x.shape[1], x.shape[2]) for x in qkv)
            outputs.append(_attention(qi, ki, vi))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    return attend


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of n sequences of T / n tokens. q [n, T / n, heads, head_dim], k, v [n, T / n, kv_heads, head_dim] -> [T, heads, head_dim]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of some queries of a segment, of the segment's keys up to the last of them, and of the prompt before it."""

    queries: slice
    own: slice
    prompt: slice


def _by_blocks(cu_seqlens: Tensor, parents: Tensor, like: Tensor) -> Attend:
    """Each segment by itself, a block of its queries at a time, over exactly the keys that they see."""
    spans = [slice(start, end) for start, end in pairwise(cu_seqlens.tolist())]
    blocks = []
    for parent, own in zip(parents.tolist(), spans, strict=True):
        prompt = spans[parent] if parent >= 0 else slice(0, 0)
        keys = own.stop - own.start + prompt.stop - prompt.start
        step = min(BLOCK, max(LEAST_BLOCK, SCORES // max(1, keys * like.shape[1])))
        for start in range(own.start, own.stop, step):
            end = min(start + step, own.stop)
            blocks.append(_Block(slice(start, end), slice(own.start, end), prompt))
    ahead = torch.full((BLOCK, BLOCK), float("-inf"), dtype=_exact(like), device=like.device).triu_(1)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = BlockAttention.apply(q, k, v, blocks, ahead)  # type: ignore[no-untyped-call]
        return out

    return attend


class BlockAttention(torch.autograd.Function):
    """q [T, heads, head_dim], k, v [T, kv_heads, head_dim] -> softmax(q k / sqrt(head_dim)) v, like q, a block at a time.

    In float32 whatever the inputs' type. Scores are computed again in the backward pass, as in FlashAttention (arXiv
    2205.14135, sec. 3.1), which here needs no running softmax: a block sees all of its keys at once. With P the
    probabilities and G the output's gradient (appendix B.2): dv = P' G, dS = P (G v' - rowsum(P G v')), dq = dS k, dk = dS' q.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Sequence[_Block], ahead: Tensor) -> Tensor:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for block in blocks:
            _, _, values, chances = _chances(q, k, v, block, ahead)
            out[block.queries] = _by_token(torch.bmm(chances, values), q.shape[1])
        ctx.save_for_backward(q, k, v.contiguous(), ahead)  # a view of all that qkv gave would keep all of it
        ctx.blocks = blocks
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, ahead = ctx.saved_tensors
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk, dv = (
            torch.zeros_like(x.transpose(0, 1), dtype=_exact(x), memory_format=torch.contiguous_format) for x in (k, v)
        )
        for block in ctx.blocks:
            queries, keys, values, chances = _chances(q, k, v, block, ahead)
            above = _by_kv_head(grad[block.queries], k.shape[1])
            scores = torch.ops.aten._softmax_backward_data(torch.bmm(above, values.mT), chances, -1, above.dtype)
            dq[block.queries] = _by_token(torch.bmm(scores, keys), q.shape[1]).mul_(q.shape[-1] ** -0.5)
            before = block.prompt.stop - block.prompt.start
            for total, part in ((dk, torch.bmm(scores.mT, queries)), (dv, torch.bmm(chances.mT, above))):
                total[:, block.prompt].add_(part[:, :before])
                total[:, block.own].add_(part[:, before:])
        return dq, dk.transpose(0, 1).to(k.dtype), dv.transpose(0, 1).to(v.dtype), None, None


def _chances(q: Tensor, k: Tensor, v: Tensor, block: _Block, ahead: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A block's scaled queries [kv_heads, n x group, head_dim], keys and values [kv_heads, keys, head_dim], and what each
    query makes of the keys, [kv_heads, n x group, keys], after the mask `ahead` over the last n of them."""
    queries = _by_kv_head(q[block.queries], k.shape[1]) * q.shape[-1] ** -0.5
    keys, values = (torch.cat([x[block.prompt], x[block.own]]).transpose(0, 1).to(_exact(x)) for x in (k, v))
    scores = torch.bmm(queries, keys.mT)
    n = block.queries.stop - block.queries.start
    scores.view(scores.shape[0], n, -1, scores.shape[2])[..., -n:].add_(ahead[:n, None, :n])
    return queries, keys, values, scores.softmax(-1)


def _by_kv_head(x: Tensor, kv_heads: int) -> Tensor:
    """[n, heads, head_dim] -> [kv_heads, n x group, head_dim]: the queries of each key, in the type to compute in."""
    by_head = x.view(x.shape[0], kv_heads, -1, x.shape[2]).transpose(0, 1)
    return by_head.to(_exact(x)).reshape(kv_heads, -1, x.shape[2])


def _by_token(x: Tensor, heads: int) -> Tensor:
    """The way back: [kv_heads, n x group, head_dim] -> [n, heads, head_dim]."""
    kv_heads, _, width = x.shape
    return x.view(kv_heads, -1, heads // kv_heads, width).transpose(0, 1).reshape(-1, heads, width)


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _by_varlen(kernel: Varlen, cu_seqlens: Tensor, parents: Tensor | None, device: torch.device) -> Attend:
    """One kernel call: the queries as they are packed, keys and values gathered behind those of each parent."""
    bounds: list[int] = cu_seqlens.tolist()
    spans = [range(start, end) for start, end in pairwise(bounds)]
    seen = [[span] for span in spans]
    if parents is not None:
        seen = [[spans[p], span] if p >= 0 else [span] for p, span in zip(parents.tolist(), spans, strict=True)]
    lengths = [sum(map(len, parts)) for parts in seen]
    cu_q = torch.tensor(bounds, dtype=torch.int32, device=device)
    cu_k = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=device)
    max_q, max_k = max(map(len, spans)), max(lengths)
    rows = None
    if lengths != [len(span) for span in spans]:
        rows = torch.cat([torch.arange(part.start, part.stop) for parts in seen for part in parts]).to(device)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if rows is not None:
            k, v = k.index_select(0, rows), v.index_select(0, rows)
        return kernel(q, k, v, cu_q, cu_k, max_q, max_k)

    return attend


def _varlen_for(q: Tensor) -> Varlen | None:
    """The variable-length kernel, where it can run: 16-bit numbers on an NVIDIA GPU of compute capability 8 or more."""
    if not q.is_cuda or q.dtype not in (torch.bfloat16, torch.float16) or q.shape[-1] % 8 or q.shape[-1] > 256:
        return None
    if torch.version.cuda is None or torch.cuda.get_device_capability(q.device) < (8, 0):
        return None
    return _varlen()


@cache
def _varlen() -> Varlen | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # a torch that has it no longer there
        return None
    return adapt_varlen(varlen_attn)


def adapt_varlen(function: Callable[..., Any]) -> Varlen:
    """`varlen_attn` as a causal one with grouped heads.

    torch 2.11 has no enable_gqa, and its kernel takes fewer key heads as it is; from 2.12 on they are refused without.
    """
    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(function).parameters else {}
    return partial(function, window_size=(-1, 0), **grouped)

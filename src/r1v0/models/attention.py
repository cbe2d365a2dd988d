"""Attention over packed sequences: what the Transformer calls with each layer's queries, keys and values.

Decides: an `Attend` is a plain function (layer, q, k, v) -> output, so the same Transformer trains on packed tokens,
prefills prompts and decodes from a cache without knowing which. A prompt that several completions continue is there
once; only inside `attend` are its keys and values laid before those of each of them. There is never a T x T mask:

    CUDA, 16 bit    torch's variable-length flash attention, whose causal mask is aligned at the end of queries and
                    keys, so a completion's queries see the whole prompt
    elsewhere       `scaled_dot_product_attention`: a run of equal lengths at a time; with shared prompts, sequences of
                    similar lengths, padded at their end, where a causal mask hides the padding from all real tokens
"""

import inspect
from collections.abc import Callable, Iterator
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

FULL = 0.6  # share of real scores (queries x keys) under which a sequence is not padded to those before it
LARGEST_MASK = 1 << 20  # queries x keys of a completion up to which its part of the causal mask is held, as numbers


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
                found.append(_by_buckets(cu_seqlens, parents, q))
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


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Of n sequences. q [n, queries, heads, head_dim], k, v [n, keys, kv_heads, head_dim], mask [n or 1, 1, queries, keys]
    or None (causal from the first key on) -> [n x queries, heads, head_dim]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The tokens of a segment and those of the one that it goes on from, if any."""

    prompt: range
    own: range

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.own)

    @property
    def masked(self) -> bool:
        """Whether its own tokens alone are the queries, under a mask; else the prompt's are computed with them.

        A mask's kernel computes hidden scores too: measured on a CPU, it takes 0.1 to 0.9 of the other's time up to an
        own length of twice the prompt's, and 1.0 to 1.6 from four times on.
        """
        return len(self.own) <= 2 * len(self.prompt) and len(self.own) * self.length <= LARGEST_MASK


def _by_buckets(cu_seqlens: Tensor, parents: Tensor, like: Tensor) -> Attend:
    """Sequences of similar lengths are gathered, padded at their end, attended together, and what is real taken back.

    Padding repeats the last token. It stands behind every real token, so the causal mask hides it, and its rows are not
    taken back: its gradient is 0.
    """
    spans = [range(start, end) for start, end in pairwise(cu_seqlens.tolist())]
    sequences = [
        _Sequence(spans[parent] if parent >= 0 else range(0), span)
        for parent, span in zip(parents.tolist(), spans, strict=True)
    ]
    gathers: list[tuple[Tensor, Tensor, Tensor | None]] = []
    source = torch.empty(int(cu_seqlens[-1]), dtype=torch.int64)  # of each token's output among all padded queries
    offset = 0
    for masked in (False, True):
        for bucket in _similar(sorted((s for s in sequences if s.masked == masked), key=lambda s: -s.length)):
            queries, new, keys, mask = _gather(bucket, masked, like)
            source[queries[new]] = offset + torch.arange(queries.numel()).view_as(queries)[new]
            offset += queries.numel()
            gathers.append((queries.to(like.device), keys.to(like.device), mask))
    source = source.to(like.device)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs = []
        for queries, keys, mask in gathers:
            qi, ki, vi = (
                x.index_select(0, r.flatten()).unflatten(0, r.shape) for x, r in ((q, queries), (k, keys), (v, keys))
            )
            outputs.append(_attention(qi, ki, vi, mask))
        return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]).index_select(0, source)

    return attend


def _gather(bucket: list[_Sequence], masked: bool, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """For n sequences: rows of queries [n, queries], which of them are wanted, rows of keys [n, keys], and the mask."""
    columns = torch.tensor([(s.prompt.start, len(s.prompt), s.own.start, len(s.own)) for s in bucket]).T[:, :, None]
    prompt, before, own, length = columns
    position = torch.arange(bucket[0].length)
    inside = (position - before).minimum(length - 1)
    keys = torch.where(position < before, prompt + position, own + inside)
    if not masked:
        return keys, (position >= before) & (position < before + length), keys, None
    step = torch.arange(int(length.max()))
    ahead = (
        position > (before + step)[: 1 if before.unique().numel() == 1 else None, :, None]
    )  # [n or 1, queries, keys]
    mask = torch.zeros(ahead.shape, dtype=like.dtype).masked_fill_(ahead, float("-inf"))[:, None]
    return own + step.minimum(length - 1), step < length, keys, mask.to(like.device)


def _similar(sequences: list[_Sequence]) -> Iterator[list[_Sequence]]:
    """Cut sequences, longest first, where padding would take too large a share of the scores."""
    bucket: list[_Sequence] = []
    for s in sequences:
        widest = max((len(t.own) if t.masked else t.length for t in [*bucket, s]), default=0)
        real = sum((len(t.own) if t.masked else t.length) * t.length for t in [*bucket, s])
        if bucket and real < FULL * widest * bucket[0].length * (len(bucket) + 1):
            yield bucket
            bucket = []
        bucket.append(s)
    if bucket:
        yield bucket


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

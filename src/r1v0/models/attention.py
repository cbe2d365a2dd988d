"""Attention over packed sequences: what the Transformer calls with each layer's queries, keys and values.

Decides: an `Attend` is a plain function (layer, q, k, v) -> output, so the same Transformer trains on packed tokens,
prefills prompts and decodes from a cache without knowing which. A prompt that several completions continue is there
once; only inside `attend` are its keys and values laid before those of each of them. There is never a T x T mask:

    CUDA, 16 bit    torch's variable-length flash attention, whose causal mask is aligned at the end of queries and
                    keys, so a completion's queries see the whole prompt
    shared prompts  elsewhere: sequences of similar lengths together, padded at their end, where a causal mask hides the
                    padding from all real tokens, a block of their queries at a time (block_attention.py)
    no sharing      elsewhere: `scaled_dot_product_attention`, a run of equal lengths at a time

The first two are tried before they are used (tried.py); where one fails, a later line or `by_sequences` stands in.
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

from r1v0.models.kernels.block_attention import BlockAttention, Bucket, fits
from r1v0.models.tried import Pairs, works

# (layer, q [T, heads, head_dim], k [T, kv_heads, head_dim], v like k) -> [T, heads, head_dim]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
# (q, k, v, cu_seq_q, cu_seq_k, max_q, max_k) -> [Tq, heads, head_dim]: causal, aligned at the end, grouped heads
Varlen = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]

FULL = 0.6  # share of real scores (queries x keys) under which a sequence is not padded to those before it


def packed(cu_seqlens: Tensor, parents: Tensor | None = None) -> Attend:
    """Causal attention within the segments that `cu_seqlens` [S+1] delimits.

    `parents` [S] names the segment that a segment goes on from (-1: none), one level deep: its tokens see that whole
    segment before their own (a completion its prompt). Both are best left on the CPU: they are read there.
    """
    found: list[Attend] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not found:  # which kernel it is shows in the first queries
            found.append(_choose(cu_seqlens, parents, q, k))
        return found[0](layer, q, k, v)

    return attend


def prefilling(
    cu_seqlens: Tensor,
    store: Callable[[int, int, Tensor, Tensor], None],
    kept: Callable[[int, int], tuple[Tensor, Tensor]],
) -> Attend:
    """Causal attention over packed prompts, whose keys and values go to `store(layer, start, k, v)`.

    One prompt alone may come in pieces, a pass of the model for each, in order: then its queries see what is
    `kept(layer, end)`, the keys and values of its first `end` tokens, [end, kv_heads, head_dim] each.
    """
    causal, total = packed(cu_seqlens), int(cu_seqlens[-1])
    done: dict[int, int] = {}  # tokens of each layer so far

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        start = done.get(layer, 0)
        done[layer] = start + q.shape[0]
        store(layer, start, k, v)
        return causal(layer, q, k, v) if q.shape[0] == total else last_queries(q, *kept(layer, done[layer]))

    return attend


def last_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last n tokens of a sequence over all m: q [n, heads, d], k, v [m, kv_heads, d], like
    q."""
    kernel = _working_varlen(q, k)
    if kernel is None:
        return _plain(q, k, v)
    n, m = q.shape[0], k.shape[0]
    cu_q, cu_k = (torch.tensor([0, length], dtype=torch.int32, device=q.device) for length in (n, m))
    return kernel(q, k, v, cu_q, cu_k, n, m)


def _choose(cu_seqlens: Tensor, parents: Tensor | None, q: Tensor, k: Tensor) -> Attend:
    """The fastest that works for such queries and keys."""
    kernel = _working_varlen(q, k)
    if kernel is not None:
        return _by_varlen(kernel, cu_seqlens, parents, q.device)
    if parents is None:
        return _by_runs(cu_seqlens)
    by_buckets = partial(_by_buckets, heads=q.shape[1], device=q.device)
    if works(f"block attention ({_type(q)})", _case(q, k), partial(_trial, by_buckets, q, k)):
        return by_buckets(cu_seqlens, parents)
    return by_sequences(cu_seqlens, parents)


def _working_varlen(q: Tensor, k: Tensor) -> Varlen | None:
    kernel = _varlen_for(q)
    if kernel is None:
        return None
    fast = partial(_by_varlen, kernel, device=q.device)
    return (
        kernel if works(f"variable-length attention ({_type(q)})", _case(q, k), partial(_trial, fast, q, k)) else None
    )


def _case(q: Tensor, k: Tensor) -> tuple[Any, ...]:
    return q.device.type, q.dtype, q.shape[1:], k.shape[1:]


def _type(q: Tensor) -> str:
    return str(q.dtype).removeprefix("torch.")


def _trial(fast: Callable[[Tensor, Tensor], Attend], q: Tensor, k: Tensor) -> Pairs:
    """Output and gradients of a prompt with three completions, of more than one block, for heads like those of q and
    k."""
    cu_seqlens, parents = torch.tensor([0, 20, 120, 150, 231]), torch.tensor([-1, 0, 0, 0])
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        drawn = [torch.randn(231, *x.shape[1:], generator=generator).to(q.dtype).to(q.device) for x in (q, k, k, q)]
        results = []
        for attend, dtype in ((fast(cu_seqlens, parents), q.dtype), (by_sequences(cu_seqlens, parents), torch.float32)):
            inputs = [x.to(dtype).requires_grad_() for x in drawn[:3]]
            out = attend(0, *inputs)
            results.append([out, *torch.autograd.grad(out, inputs, drawn[3].to(dtype))])
    return list(zip(*results, strict=True))


def by_sequences(cu_seqlens: Tensor, parents: Tensor) -> Attend:
    """PyTorch's plain attention, one sequence after the other, with its parent's keys before its own: slow anywhere."""
    spans = [range(start, end) for start, end in pairwise(cu_seqlens.tolist())]
    seen = [[*(spans[p] if p >= 0 else ()), *span] for p, span in zip(parents.tolist(), spans, strict=True)]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([_plain(q[s.start : s.stop], k[keys], v[keys]) for s, keys in zip(spans, seen, strict=True)])

    return attend


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`last_queries` by PyTorch's plain attention: without a backward pass as fast as by blocks (one thread, 2,048
    of 4,096 to 16,000 tokens: 0.7 times as long in float32, 0.9 to 1.3 in bfloat16)."""
    n, m = q.shape[0], k.shape[0]
    visible = torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)[0].transpose(0, 1)


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
    """Of n sequences of m tokens. q [n, m, heads, head_dim], k, v [n, m, kv_heads, head_dim] -> [n x m, heads,
    head_dim]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The tokens of a segment, and those of the one that it goes on from, if any."""

    prompt: range
    own: range

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.own)

    def scores(self, queries: int) -> int:
        """Twice what this many queries behind the prompt see: all of it, and half of each other."""
        return queries * (2 * len(self.prompt) + queries)


def _by_buckets(cu_seqlens: Tensor, parents: Tensor, heads: int, device: torch.device) -> Attend:
    """Sequences of similar lengths, behind prompts of one length, are gathered, padded at their end, attended
    together, and what is real taken back.

    Padding repeats the last token. It stands behind every real token, so the causal mask hides it, and its rows are not
    taken back: its gradient is 0.
    """
    spans = [range(start, end) for start, end in pairwise(cu_seqlens.tolist())]
    sequences = [
        _Sequence(spans[parent] if parent >= 0 else range(0), span)
        for parent, span in zip(parents.tolist(), spans, strict=True)
    ]
    buckets: list[Bucket] = []
    gathers: list[tuple[Tensor, Tensor]] = []  # rows of each bucket's queries and keys
    source = torch.empty(int(cu_seqlens[-1]), dtype=torch.int64)  # of each token's output among all padded queries
    offset = 0
    for alike in _similar(sorted(sequences, key=lambda s: (len(s.prompt), -len(s.own))), heads, device):
        prompt, own, length = torch.tensor([(s.prompt.start, s.own.start, len(s.own)) for s in alike]).T[:, :, None]
        before, step = torch.arange(len(alike[0].prompt)), torch.arange(len(alike[0].own))
        queries, real = own + step.minimum(length - 1), step < length
        gathers.append((queries.flatten(), torch.cat([prompt + before, queries], dim=1).flatten()))
        buckets.append(Bucket(len(alike), len(step), len(before) + len(step)))
        source[queries[real]] = offset + torch.arange(queries.numel()).view_as(queries)[real]
        offset += queries.numel()
    all_queries, all_keys = (torch.cat(parts).to(device) for parts in zip(*gathers, strict=True))
    source = source.to(device)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.index_select(0, all_queries), k.index_select(0, all_keys), v.index_select(0, all_keys)
        out: Tensor = BlockAttention.apply(q, k, v, buckets)  # type: ignore[no-untyped-call]
        return out.index_select(0, source)

    return attend


def _similar(sequences: list[_Sequence], heads: int, device: torch.device) -> Iterator[list[_Sequence]]:
    """Cut sorted sequences where the prompt has another length, padding would take too large a share of the scores,
    or a block of queries of all would have too many."""
    for _, same in groupby(sequences, key=lambda s: len(s.prompt)):
        bucket: list[_Sequence] = []
        real = 0
        for s in same:
            n, longest = len(bucket) + 1, (bucket or [s])[0]
            real += s.scores(len(s.own))
            ragged = real < FULL * n * s.scores(len(longest.own))
            if bucket and (ragged or not fits(Bucket(n, len(longest.own), longest.length), heads, device)):
                yield bucket
                bucket, real = [], s.scores(len(s.own))
            bucket.append(s)
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

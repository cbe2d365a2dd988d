"""Triton kernels for decoding from a paged KV cache: store the new keys and values, attend, reduce.

Decides: flash-decoding (Dao et al., "Flash-Decoding for long-context inference", 2023). A sequence is split over
several programs, so that few long sequences fill the card too; each keeps a running softmax (arXiv 1805.02867) in
float32, and a second kernel weighs the parts by their log-sum-exp. The queries that share a KV head are the rows of
one matrix product, padded to the 16 that tl.dot wants at least; a head dimension that is not a power of two is padded
and masked. A program loads one whole page at a time, so a page's address is one scalar. The number of splits depends
on the shapes alone and the lengths are read on the device: nothing waits for the host, so a CUDA graph can hold all
of it. Offsets into the pool are int64. TRITON_INTERPRET=1 runs the same code on a CPU
(tests/models/test_triton_decode.py).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS_PER_SM = 4  # of the split kernel: enough loads in flight to hide the latency of memory
MAX_SPLITS = 32


def attention(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor, splits: int) -> Tensor:
    """softmax(q K^T / sqrt(head_dim)) V of one query a row over the row's pages; [rows, heads, head_dim] like q.

    q [rows, heads, head_dim], heads and channels side by side; keys, values [pages, page_size, kv_heads, head_dim]
    contiguous, page_size a power of two of at least 16; table [rows, width] int32, the pages of each row in order;
    lengths [rows] int32, each at least 1. `splits` programs share a row's pages.
    """
    rows, heads, dim = q.shape
    _, page_size, kv_heads, _ = keys.shape
    assert (q.stride(1), q.stride(2), keys.is_contiguous(), values.is_contiguous()) == (dim, 1, True, True)
    assert page_size >= 16, "tl.dot wants at least 16"
    group, padded = heads // kv_heads, max(16, triton.next_power_of_2(dim))
    out = torch.empty(rows, heads, dim, device=q.device, dtype=q.dtype)
    parts = torch.empty(rows, heads, splits, dim, device=q.device, dtype=torch.float32)
    lse = torch.empty(rows, heads, splits, device=q.device, dtype=torch.float32)
    _split[(rows, kv_heads, splits)](
        q, keys, values, table, lengths, parts, lse,
        dim**-0.5 * 1.4426950408889634, q.stride(0), table.stride(0),
        PAGE=page_size, GROUP=group, GROUP_PADDED=max(16, triton.next_power_of_2(group)),
        DIM=dim, DIM_PADDED=padded, KV_HEADS=kv_heads, SPLITS=splits, num_warps=4, num_stages=2,
    )  # fmt: skip
    _reduce[(rows, heads)](
        parts, lse, out, HEADS=heads, DIM=dim, DIM_PADDED=padded,
        SPLITS=splits, SPLITS_PADDED=triton.next_power_of_2(splits), num_warps=4,
    )  # fmt: skip
    return out


def store(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, cells: Tensor) -> None:
    """Write row i of k and v [rows, kv_heads, head_dim] to the cell `cells[i]` (page * page_size + place) of the
    pool."""
    rows, width = k.shape[0], k.shape[1] * k.shape[2]
    assert k.stride()[1:] == v.stride()[1:] == (k.shape[2], 1)
    _store[(rows,)](
        k, v, keys, values, cells, k.stride(0), v.stride(0),
        WIDTH=width, PADDED=triton.next_power_of_2(width), num_warps=4 if width > 512 else 1,
    )  # fmt: skip


def splits_for(rows: int, kv_heads: int, width: int, device: torch.device) -> int:
    """How many programs share a row of at most `width` pages, so that all of them together fill the card."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    wanted = -(-processors * PROGRAMS_PER_SM // (rows * kv_heads))
    return max(1, min(wanted, MAX_SPLITS, width))


@triton.jit
def _store(
    k, v, keys, values, cells, k_stride, v_stride,
    WIDTH: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = tl.arange(0, PADDED)
    inside = at < WIDTH
    cell = tl.load(cells + row).to(tl.int64) * WIDTH
    tl.store(keys + cell + at, tl.load(k + row * k_stride + at, mask=inside), mask=inside)
    tl.store(values + cell + at, tl.load(v + row * v_stride + at, mask=inside), mask=inside)


@triton.jit
def _split(
    q, keys, values, table, lengths, parts, lse, scale, q_stride, table_stride,
    PAGE: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr,
    DIM: tl.constexpr, DIM_PADDED: tl.constexpr, KV_HEADS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    pages = tl.cdiv(length, PAGE)
    share = tl.cdiv(pages, SPLITS)
    first = split * share
    last = tl.minimum(first + share, pages)

    group, dim, cell = tl.arange(0, GROUP_PADDED), tl.arange(0, DIM_PADDED), tl.arange(0, PAGE)
    head = kv_head * GROUP + group
    real = (group[:, None] < GROUP) & (dim[None, :] < DIM)
    queries = tl.load(q + row * q_stride + head[:, None] * DIM + dim[None, :], mask=real, other=0.0)
    within = cell[:, None] * (KV_HEADS * DIM) + kv_head * DIM + dim[None, :]

    # Powers of two instead of e: `scale` holds log2(e). A page of this range has at least one valid cell, so `highest`
    # is finite from the first page on; with no page at all the part counts for nothing (lse = -inf).
    highest = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    mean = tl.zeros([GROUP_PADDED, DIM_PADDED], tl.float32)
    for i in range(first, last):
        start = tl.load(table + row * table_stride + i).to(tl.int64) * (PAGE * KV_HEADS * DIM)
        valid = i * PAGE + cell < length
        loaded = valid[:, None] & (dim[None, :] < DIM)
        k = tl.load(keys + start + within, mask=loaded, other=0.0)
        scores = tl.dot(queries, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(valid[None, :], scores, float("-inf"))
        peak = tl.maximum(highest, tl.max(scores, 1))
        decay = tl.exp2(highest - peak)
        p = tl.exp2(scores - peak[:, None])
        v = tl.load(values + start + within, mask=loaded, other=0.0)
        mean = mean * decay[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        total = total * decay + tl.sum(p, 1)
        highest = peak

    at = (row * (KV_HEADS * GROUP) + head) * SPLITS + split
    total = tl.where(last > first, total, 1.0)
    tl.store(lse + at, highest + tl.log2(total), mask=group < GROUP)
    tl.store(parts + at[:, None] * DIM + dim[None, :], mean / total[:, None], mask=real & (last > first))


@triton.jit
def _reduce(
    parts, lse, out,
    HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    SPLITS: tl.constexpr, SPLITS_PADDED: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * HEADS + tl.program_id(1)
    split, dim = tl.arange(0, SPLITS_PADDED), tl.arange(0, DIM_PADDED)
    logs = tl.load(lse + at * SPLITS + split, mask=split < SPLITS, other=float("-inf"))
    weights = tl.exp2(logs - tl.max(logs, 0))  # 0 for a part that saw no page
    there = (weights[:, None] > 0) & (dim[None, :] < DIM)
    values = tl.load(parts + (at * SPLITS + split)[:, None] * DIM + dim[None, :], mask=there, other=0.0)
    mean = tl.sum(values * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out + at * DIM + dim, mean.to(out.dtype.element_ty), mask=dim < DIM)

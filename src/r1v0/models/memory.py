"""How much memory there is for sampling, and what to do with it: arithmetic, and one measurement.

Decides: the number of rows and the size of the page pool come from the memory that is free when sampling starts. At
that moment gradients and activations are gone, and the pool is gone again when training starts, so each has all of
the memory in turn. Kept back: a prefill's activations, logits, and a twentieth of what is free for fragmentation.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from r1v0.base.errors import UserError
from r1v0.models.shape import ModelConfig
from r1v0.models.sizes import CPU_SLOTS, GIB, LIKELY_SHARE, MOST_SLOTS, kv_bytes

if TYPE_CHECKING:
    import torch

PREFILL_TOKENS = 2048  # prompt tokens of one forward pass: on a CPU some seconds, after which a wish to stop is heard
FIXED_BYTES = 1 << 29  # cuBLAS workspaces, graphs, Triton


def workspace_bytes(config: ModelConfig, rows: int, dtype: torch.dtype) -> int:
    """What sampling takes beside weights and cache: the widest layer of a prefill, and logits of `rows` rows.

    A layer holds its input, its normed input and their sum (hidden), gate, up, silu(gate) and the product
    (intermediate); a draw holds the logits and four float32 tensors of their size, twice: eager and in the graphs'
    pool.
    """
    attention = 2 * (config.heads + 2 * config.kv_heads) * config.head_dim
    layer = max(4 * config.intermediate, attention) + 3 * config.hidden
    return PREFILL_TOKENS * layer * dtype.itemsize + 2 * rows * config.vocab * (4 * 4 + dtype.itemsize) + FIXED_BYTES


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken now: of the GPU, within this process's share of it; or of RAM."""
    import torch

    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(index)
        allowed = int(torch.cuda.get_per_process_memory_fraction(index) * total)
        return max(0, min(free, allowed - torch.cuda.memory_reserved(index)))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def automatic_slots(config: ModelConfig, dtype: torch.dtype, free: int, prompt: int, new: int, gpu: bool) -> int:
    """How many rows to decode at a time, for prompts of `prompt` and completions of at most `new` tokens.

    On a CPU a slot has room for its longest sequence, and all of them may take half of what is free. On a GPU rows
    share pages, so what counts is their likely length; with the 256 rows of long completions that do not fit after
    all, the newest wait (sampler.py).
    """
    if not gpu:
        return max(1, min(CPU_SLOTS, free // 2 // ((prompt + new) * kv_bytes(config, dtype.itemsize))))
    likely = (prompt + new / LIKELY_SHARE) * kv_bytes(config, dtype.itemsize)
    return max(1, min(MOST_SLOTS, int((free - workspace_bytes(config, MOST_SLOTS, dtype)) * 0.95 / likely)))


def pool_pages(
    config: ModelConfig, dtype: torch.dtype, free: int, rows: int, prompt: int, new: int, page_size: int
) -> int:
    """Pages for `rows` rows at their longest, or as many as fit into `free` bytes.

    Raises UserError if one completion alone would not fit.
    """
    alone = pages_alone(prompt, new, page_size)
    page = page_size * kv_bytes(config, dtype.itemsize)
    pages = min(rows * alone, int((free - workspace_bytes(config, rows, dtype)) * 0.95 // page) - 1)
    require_room(pages, alone, page, prompt, new)
    return pages


def pages_alone(prompt: int, new: int, page_size: int) -> int:
    """Pages of one completion at its longest: its last token is never stored."""
    return -(-(prompt + new - 1) // page_size)


def require_room(pages: int, alone: int, page: int, prompt: int, new: int) -> None:
    """UserError if `pages` are fewer than the `alone` that one row of prompt + new tokens needs; a page has `page`
    bytes."""
    if pages < alone:
        raise UserError(
            f"sampling: a prompt of {prompt} tokens with sampling.max_new_tokens={new} needs "
            f"{alone * page / GIB:.2f} GiB of KV cache, but {max(0, pages) * page / GIB:.2f} GiB are there: "
            "lower sampling.max_new_tokens or sampling.max_sequences, or free memory (a smaller model, "
            "optimizer.offload=true)"
        )

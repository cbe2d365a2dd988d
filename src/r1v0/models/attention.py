"""Attention over packed sequences: what the Transformer calls with each layer's queries, keys and values.

Decides: an `Attend` is a plain function (layer, q, k, v) -> output, so the same Transformer trains on packed tokens,
prefills prompts and decodes from a cache without knowing which. On a CPU, packed sequences are attended one run of
equal lengths at a time: no padding, no T x T mask, and sequences sorted by length share a kernel call.
"""

from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

# (layer, q [T, heads, head_dim], k [T, kv_heads, head_dim], v like k) -> [T, heads, head_dim]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def packed(cu_seqlens: Tensor) -> Attend:
    """Causal attention within each of the sequences that `cu_seqlens` [N+1] delimits."""
    lengths = cu_seqlens.diff().tolist()
    runs = [(length, sum(1 for _ in same)) for length, same in groupby(lengths)]
    sizes = [length * count for length, count in runs]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs = []
        for (length, count), *qkv in zip(runs, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
            qi, ki, vi = (x.view(count, length, x.shape[1], x.shape[2]).transpose(1, 2) for x in qkv)
            out = F.scaled_dot_product_attention(qi, ki, vi, is_causal=True, enable_gqa=True)
            outputs.append(out.transpose(1, 2).reshape(count * length, out.shape[1], out.shape[3]))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    return attend

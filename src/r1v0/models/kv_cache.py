"""Keys and values of the sequences being decoded: one contiguous slot a sequence.

Decides: on a CPU a slot is a row of one tensor a layer, as long as the longest live sequence needs (it grows by
halves), and decoding attends over that longest prefix with a mask. Queries that share a KV head are laid side by side
as if they were query positions, so grouped-query attention needs no copy of keys and values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from r1v0.models.attention import Attend, packed
from r1v0.models.families import ModelConfig


class SlotCache:
    """`slots` rows of `capacity` positions, `longest` at most. The caller knows which positions of a row are filled."""

    def __init__(self, config: ModelConfig, slots: int, longest: int, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.slots, self.longest, self.capacity = config, slots, longest, 0
        empty = torch.zeros(slots, config.kv_heads, 0, config.head_dim, device=device, dtype=dtype)
        self.keys = [empty] * config.layers
        self.values = [empty] * config.layers

    def reserve(self, length: int) -> None:
        """Make room for `length` positions a slot. New room is zeros: a masked NaN would still poison a sum."""
        if length <= self.capacity:
            return
        grown = min(self.longest, max(length, self.capacity * 3 // 2, 64))
        for tensors in (self.keys, self.values):
            for layer in range(self.config.layers):  # one at a time: old and new are never all there together
                tensors[layer] = F.pad(tensors[layer], (0, 0, 0, grown - self.capacity))
        self.capacity = grown

    def prefill(self, cu_seqlens: Tensor, slots: list[list[int]]) -> Attend:
        """Causal attention over packed prompts that also writes prompt i into each of `slots[i]` from position 0."""
        causal = packed(cu_seqlens)
        spans = list(zip(cu_seqlens.tolist(), cu_seqlens[1:].tolist(), slots, strict=False))
        self.reserve(max(end - start for start, end, _ in spans))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for start, end, rows in spans:
                self.keys[layer][rows, :, : end - start] = k[start:end].transpose(0, 1)
                self.values[layer][rows, :, : end - start] = v[start:end].transpose(0, 1)
            return causal(layer, q, k, v)

        return attend

    def copy(self, source: int, rows: list[int], length: int) -> None:
        """Give `rows` the first `length` positions of the slot `source`."""
        for x in (*self.keys, *self.values):
            x[rows, :, :length] = x[source, :, :length]

    def decode(self, positions: Tensor) -> Attend:
        """Attention of one new token in each of the first rows, row i at `positions[i]`, over its own prefix."""
        rows, longest = positions.shape[0], int(positions.max()) + 1
        self.reserve(longest)
        row = torch.arange(rows, device=positions.device)
        ahead = torch.arange(longest, device=positions.device) > positions[:, None]
        mask = torch.zeros(rows, 1, 1, longest, device=positions.device, dtype=self.keys[0].dtype)
        mask.masked_fill_(ahead[:, None, None, :], float("-inf"))
        group = self.config.heads // self.config.kv_heads

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[row, :, positions] = k
            values[row, :, positions] = v
            q = q.view(rows, self.config.kv_heads, group, self.config.head_dim)
            out = F.scaled_dot_product_attention(
                q, keys[:rows, :, :longest], values[:rows, :, :longest], attn_mask=mask
            )
            return out.view(rows, self.config.heads, self.config.head_dim)

        return attend

    def keep(self, rows: Tensor) -> None:
        """Drop every slot but `rows`, which become 0, 1, ..."""
        for tensors in (self.keys, self.values):
            for layer in range(self.config.layers):
                tensors[layer] = tensors[layer][rows]
        self.slots = rows.shape[0]

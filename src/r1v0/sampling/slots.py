"""Keys and values of the sequences being decoded, on a CPU: each prompt's once, each completion's in a slot.

Decides: a group's completions share their prompt, so its keys and values are kept once and read once a step, by all of
its rows' queries as one matrix; a row's own slot holds only what it wrote itself. Decoding is bound by the bytes it
reads: with 8 completions a prompt this is half of them or less. The two parts of a row's attention are merged by
their log-sum-exp, which is exact (FlashDecoding, Dao et al. 2023; "cascade" attention in Ye et al., arXiv 2501.01005).
The slots of a large cache are as long as the longest live completion needs (they grow by halves), the rest is masked.
Queries that share a KV head lie side by side as if they were query positions, so grouped-query attention copies no keys
or values.
"""

from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from r1v0.models.attention import Attend, prefilling
from r1v0.models.kernels.native import Kernels, kernels
from r1v0.models.shape import ModelConfig
from r1v0.models.sizes import kv_bytes
from r1v0.models.tried import Pairs, works

NEVER = float("-inf")
SMALL = (
    1 << 28
)  # bytes of a cache that is made as long as it may become: growing leaves holes, and a run's memory grows by them


class _Store:
    """Rows of keys and values of every layer, `capacity` positions long and `longest` at most."""

    def __init__(self, config: ModelConfig, rows: int, longest: int, device: torch.device, dtype: torch.dtype) -> None:
        self.rows, self.longest = rows, longest
        self.capacity = longest if 0 < rows * longest * kv_bytes(config, dtype.itemsize) <= SMALL else 0

        def room() -> Tensor:
            return torch.zeros(rows, config.kv_heads, self.capacity, config.head_dim, device=device, dtype=dtype)

        self.keys = [room() for _ in range(config.layers)]
        self.values = [room() for _ in range(config.layers)]

    def reserve(self, length: int, rows: int = 0) -> None:
        """Make room for `length` positions in `rows` rows. New room is zeros: a masked NaN would still poison a sum."""
        if length <= self.capacity and rows <= self.rows:
            return
        grown = self.capacity
        if length > grown:
            grown = min(self.longest, max(length, grown * 3 // 2, 64))
        more = max(rows - self.rows, 0)
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):  # one at a time: old and new are never all there together
                tensors[layer] = F.pad(tensor, (0, 0, 0, grown - self.capacity, 0, 0, 0, more))
        self.capacity, self.rows = grown, self.rows + more

    def keep(self, rows: Tensor) -> None:
        """Drop every row but `rows`, which become 0, 1, ..."""
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = tensor[rows]
        self.rows = rows.shape[0]


class SlotCache:
    """`slots` completions of `longest` positions at most, prompts included. The caller knows which are filled."""

    spare = (
        1 << 60
    )  # what the sampler asks of a cache that can run full (pages.py): here a slot has room for its longest

    def __init__(self, config: ModelConfig, slots: int, longest: int, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device = config, device
        self.own = _Store(config, slots, longest, device, dtype)
        self.prompts = _Store(config, 0, longest, device, dtype)
        self.lengths: list[int] = []  # of the prompts kept
        self.owner = [-1] * slots  # each slot's prompt; -1: it has none, or is dead
        self.native = kernels(config, device, dtype)
        self.plan: _Plan | None = None  # who shares what, for `decode`; None: it has changed

    def prefill(self, cu_seqlens: Tensor, slots: list[list[int]]) -> Attend:
        """Attention (`prefilling`) over packed prompts that also keeps prompt i for each of `slots[i]`."""
        bounds = cu_seqlens.tolist()
        unused = sorted(set(range(len(self.lengths))) - set(self.owner))
        places = [*unused, *range(len(self.lengths), len(self.lengths) + len(slots))][: len(slots)]
        self.lengths += [0] * (max(places) + 1 - len(self.lengths))
        for place, rows, start, end in zip(places, slots, bounds, bounds[1:], strict=False):
            self.lengths[place] = end - start
            for row in rows:
                self.owner[row] = place
        self.prompts.reserve(max(self.lengths), len(self.lengths))
        self.plan = None

        def store(layer: int, start: int, k: Tensor, v: Tensor) -> None:
            for place, first, end in zip(places, bounds, bounds[1:], strict=False):
                begin, stop = max(first, start), min(end, start + k.shape[0])
                for kept, new in ((self.prompts.keys, k), (self.prompts.values, v)):
                    kept[layer][place, :, begin - first : stop - first] = new[begin - start : stop - start].transpose(
                        0, 1
                    )

        def kept(layer: int, end: int) -> tuple[Tensor, Tensor]:
            keys, values = self.prompts.keys[layer], self.prompts.values[layer]
            return keys[places[0], :, :end].transpose(0, 1), values[places[0], :, :end].transpose(0, 1)

        return prefilling(cu_seqlens, store, kept)

    def copy(self, source: int, rows: list[int], length: int) -> None:
        """Let `rows` share the prompt of the slot `source`, of `length` positions."""
        for row in rows:
            self.owner[row] = self.owner[source]
        self.plan = None

    def free(self, rows: list[int]) -> None:
        """These rows are dead."""
        for row in rows:
            self.owner[row] = -1
        self.plan = None

    def keep(self, rows: Tensor) -> None:
        """Drop every slot but `rows`, which become 0, 1, ..., and the prompts that none of them has."""
        self.owner = [self.owner[row] for row in rows.tolist()]
        self.own.keep(rows)
        used = sorted(set(self.owner) - {-1})
        self.prompts.keep(torch.tensor(used, dtype=torch.int64, device=self.device))
        self.lengths = [self.lengths[place] for place in used]
        renamed = {place: i for i, place in enumerate(used)} | {-1: -1}
        self.owner = [renamed[place] for place in self.owner]
        self.plan = None

    def cost(self, length: int, shared: bool) -> int:
        return 0

    def extend(self, lengths: NDArray[np.int64]) -> bool:
        return True

    def decode(self, positions: Tensor) -> Attend:
        """Attention of one new token in each slot, slot i at `positions[i]` of its sequence, over its prompt too."""
        if self.plan is None:
            self.plan = _Plan(self.owner, self.lengths, self.device)
        own = (positions - self.plan.starts).clamp_(min=0)  # a dead row stands at 0
        longest = int(own.max()) + 1
        self.own.reserve(longest)
        if self.native is not None:
            return self._compiled(self.native, self.plan, own, longest)
        return self._in_parts(self.plan, own, longest)

    def _compiled(self, native: Kernels, plan: "_Plan", own: Tensor, longest: int) -> Attend:
        """One call a layer, which goes through the rows."""
        furthest = longest + max(self.lengths, default=0)
        scratch = torch.empty(native.threads(own.shape[0] * furthest), native.queries * furthest)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            prompts = self.prompts.keys[layer], self.prompts.values[layer]
            slots = self.own.keys[layer], self.own.values[layer]
            return native.attend(q, k, v, prompts, plan.owners, plan.starts, slots, own, scratch)

        return attend

    def _in_parts(self, plan: "_Plan", own: Tensor, longest: int) -> Attend:
        """PyTorch's kernel twice a layer: for the rows' own positions, and for each prompt with its rows' queries."""
        shared, rows = plan.shared, own.shape[0]
        row = torch.arange(rows, device=self.device)
        ahead = torch.arange(longest, device=self.device) > own[:, None]
        mask = torch.where(ahead, NEVER, 0.0).to(self.own.keys[0].dtype)[:, None, None, :]
        kv_heads, head_dim = self.config.kv_heads, self.config.head_dim
        group = self.config.heads // kv_heads
        their_mask = shared.mask.to(mask.dtype)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.own.keys[layer], self.own.values[layer]
            keys[row, :, own] = k
            values[row, :, own] = v
            q = q.view(rows, kv_heads, group, head_dim)
            out, lse = attention_part(q, keys[:, :, :longest], values[:, :, :longest], mask)
            if shared.most:
                asked = q[shared.rows].view(-1, shared.most, kv_heads, group, head_dim).transpose(1, 2).flatten(2, 3)
                keys, values = self.prompts.keys[layer], self.prompts.values[layer]
                length = shared.mask.shape[3]
                theirs, their_lse = attention_part(asked, keys[:, :, :length], values[:, :, :length], their_mask)
                theirs = theirs.unflatten(2, (shared.most, group)).transpose(1, 2).flatten(0, 1)[shared.places]
                their_lse = their_lse.unflatten(2, (shared.most, group)).transpose(1, 2).flatten(0, 1)[shared.places]
                share = (lse - their_lse - shared.without).sigmoid().to(out.dtype)
                out = torch.lerp(theirs, out, share[..., None])
            return out.reshape(rows, self.config.heads, head_dim)

        return attend


class _Plan:
    """Which slots share which prompt: owners [slots] is each slot's prompt, starts [slots] its length (0: none)."""

    def __init__(self, owner: list[int], lengths: list[int], device: torch.device) -> None:
        self.owner, self.lengths = owner, lengths
        self.owners = torch.tensor([max(place, 0) for place in owner], device=device)
        self.starts = torch.tensor([lengths[place] if place >= 0 else 0 for place in owner], device=device)

    @cached_property
    def shared(self) -> "_Sharing":
        return _Sharing(self.owner, self.lengths, self.starts.device)


class _Sharing:
    """The indices by which the rows of a prompt are gathered for it. Prompts have up to `most` slots.

    rows [prompts * most] is the slot at each place of a prompt (any slot where there is none), places [slots] its
    inverse; without [slots, 1, 1] is minus infinity where a slot has no prompt, mask [prompts, 1, 1, longest] behind a
    prompt's end.
    """

    def __init__(self, owner: list[int], lengths: list[int], device: torch.device) -> None:
        members: list[list[int]] = [[] for _ in lengths]
        for slot, place in enumerate(owner):
            if place >= 0:
                members[place].append(slot)
        self.most = max(map(len, members), default=0)
        places = [0] * len(owner)
        for place, slots in enumerate(members):
            for i, slot in enumerate(slots):
                places[slot] = place * self.most + i
        padded = [slots + [0] * (self.most - len(slots)) for slots in members]
        self.rows = torch.tensor(padded, dtype=torch.int64, device=device).flatten()
        self.places = torch.tensor(places, device=device)
        alone = torch.tensor([place < 0 for place in owner], device=device)
        self.without = torch.where(alone, NEVER, 0.0)[:, None, None]
        ends = torch.tensor(lengths, dtype=torch.int64, device=device)
        used = torch.arange(max(lengths, default=0), device=device)
        self.mask = torch.where(used >= ends[:, None], NEVER, 0.0)[:, None, None, :]


def attention_part(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d) + mask) v [.., n, d], and the logarithm of the softmax's sum [.., n] in float32.

    q [B, heads, n, d]; k, v [B, heads, L, d]; mask [B, 1, 1, L], never all minus infinity.
    """
    if q.device.type == "cpu" and works(
        f"fused attention on a CPU ({str(q.dtype).removeprefix('torch.')})",
        (q.dtype, q.shape[-1]),
        partial(_trial, q.dtype, q.shape[-1]),
    ):
        return _fused_part(q, k, v, mask)
    return plain_part(q, k, v, mask)


def _fused_part(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What scaled_dot_product_attention calls on a CPU; the public function keeps the sum to itself."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
    return out, lse


def plain_part(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`attention_part` by its formula."""
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5 + mask
    return scores.softmax(-1).to(v.dtype) @ v, scores.logsumexp(-1)


def _trial(dtype: torch.dtype, head_dim: int) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, head_dim, generator=generator).to(dtype) for n in (4, 70, 70))
    mask = torch.where(torch.arange(70) < torch.tensor([70, 1, 33])[:, None], 0.0, NEVER)[:, None, None, :]
    plain = plain_part(q.float(), k.float(), v.float(), mask)
    return list(zip(_fused_part(q, k, v, mask.to(dtype)), plain, strict=True))

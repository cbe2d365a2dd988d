"""Keys and values of the sequences being decoded, in pages: on a GPU memory is what bounds how many are decoded.

Decides: one pool of pages for all layers, [2, layers, pages, page_size, kv_heads, head_dim], and a table of page
numbers a row (PagedAttention, Kwon et al., arXiv 2309.06180). The full pages of a prompt are shared by its G
completions and counted; its last, partly filled page is written once for each of them, so nothing is ever copied on
write. Page 0 belongs to nobody: dead rows and the surplus tokens of ended ones are written there. The books (free
pages, counts, table) are kept by the host in numpy and change between chunks of decoding steps; only rows that cross
a page's edge get a page, all of them by one batched operation and one small copy to the device. What `SlotCache`
offers, this offers too; on a CPU it attends by plain PyTorch (for tests: slots are faster there).
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from r1v0.models.attention import Attend, prefilling
from r1v0.models.shape import ModelConfig
from r1v0.models.tried import Pairs, works

PAGE_SIZE = (
    64  # half a page a row is wasted on average; the kernel loads one page of one head at a time (16 KB + 16 KB)
)


class PagedCache:
    """`slots` rows of at most `longest` positions each, in `pages` pages of `page_size` positions altogether."""

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        longest: int,
        pages: int,
        device: torch.device,
        dtype: torch.dtype,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self.config, self.longest, self.page_size, self.pages = config, longest, page_size, pages
        # Zeros: a masked NaN would still poison a sum.
        shape = (2, config.layers, 1 + pages, page_size, config.kv_heads, config.head_dim)
        self.pool = torch.zeros(shape, device=device, dtype=dtype)
        host = torch.zeros(slots, -(-longest // page_size), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._host, self._books = host, host.numpy()  # the table, its unused entries 0
        self.table = host if device.type == "cpu" else host.to(device)
        self._held: NDArray[np.int64] = np.zeros(slots, np.int64)  # pages of each row
        self._counts: NDArray[np.int32] = np.zeros(1 + pages, np.int32)  # rows that hold each page
        self._free: NDArray[np.int32] = np.arange(pages, 0, -1, dtype=np.int32)  # a stack: its first `spare` are free
        self.spare = pages

    def cost(self, length: int, shared: bool) -> int:
        """Pages to keep ready for a row that enters with `length` positions: its own, and one to grow.

        `shared`: its full pages are there already, a sibling's.
        """
        return (0 if shared else length // self.page_size) + 2

    def extend(self, lengths: NDArray[np.int64]) -> bool:
        """Give every row pages for `lengths[row]` positions, 0 for dead rows; False, and nothing done, if too few
        are left."""
        missing = np.maximum(-(-lengths // self.page_size) - self._held[: len(lengths)], 0)
        total = int(missing.sum())
        if total > self.spare:
            return False
        if total:
            rows = np.repeat(np.arange(len(lengths)), missing)
            places = np.arange(total) - np.repeat(missing.cumsum() - missing, missing) + self._held[rows]
            self._books[rows, places] = self._take(total)
            self._held[: len(lengths)] += missing
        if (
            self.table is not self._host
        ):  # the copy is done before the books change: every chunk of steps ends in a sync
            self.table.copy_(self._host, non_blocking=True)
        return True

    def free(self, rows: list[int]) -> None:
        """Give back the pages of ended rows; a shared page returns with its last holder."""
        for row in rows:
            pages = self._books[row, : self._held[row]]
            self._counts[pages] -= 1
            gone = pages[self._counts[pages] == 0]
            self._free[self.spare : self.spare + len(gone)] = gone
            self.spare += len(gone)
            self._books[row] = 0
            self._held[row] = 0

    def prefill(self, cu_seqlens: Tensor, slots: list[list[int]]) -> Attend:
        """Attention (`prefilling`) over packed prompts that also writes prompt i into the rows `slots[i]` from
        position 0."""
        size = self.page_size
        sources, cells = [], []
        bounds = cu_seqlens.tolist()
        for start, end, rows in zip(bounds, bounds[1:], slots, strict=False):
            full, tail = divmod(end - start, size)
            common = self._take(full, holders=len(rows))
            sources.append(np.arange(start, end - tail))
            cells.append((common[:, None].astype(np.int64) * size + np.arange(size)).ravel())
            for row in rows:
                own = self._take(1 if tail else 0)
                self._hold(row, np.concatenate([common, own]))
                sources.append(np.arange(end - tail, end))
                cells.append((own[:, None].astype(np.int64) * size + np.arange(tail)).ravel())
        device = self.pool.device
        source, cell = (torch.from_numpy(np.concatenate(x)).to(device) for x in (sources, cells))
        first = torch.from_numpy(np.unique(np.concatenate(sources), return_index=True)[1]).to(device)  # of its holders

        def store(layer: int, start: int, k: Tensor, v: Tensor) -> None:
            own, into = source - start, cell
            if k.shape[0] < bounds[-1]:
                here = (own >= 0) & (own < k.shape[0])
                own, into = own[here], cell[here]
            for pool, x in zip(self.pool[:, layer].flatten(1, 2), (k, v), strict=True):
                pool[into] = x[own]

        def kept(layer: int, end: int) -> tuple[Tensor, Tensor]:
            keys, values = self.pool[:, layer].flatten(1, 2)[:, cell[first[:end]]]
            return keys, values

        return prefilling(cu_seqlens, store, kept)

    def copy(self, source: int, rows: list[int], length: int) -> None:
        """Give `rows` the first `length` positions of row `source`: its full pages, and copies of the last one."""
        full, tail = divmod(length, self.page_size)
        common = self._books[source, :full].copy()
        self._counts[common] += len(rows)
        own = self._take(len(rows) if tail else 0)
        for i, row in enumerate(rows):
            self._hold(row, np.concatenate([common, own[i : i + 1]]))
        if tail:
            copies = torch.from_numpy(own.astype(np.int64)).to(self.pool.device)
            self.pool[:, :, copies] = self.pool[:, :, self._books[source, full], None]

    def decode(self, positions: Tensor) -> Attend:
        """Attention of one new token in each of the first rows, row i at `positions[i]`, over its own pages.

        Nothing in it waits for the host on a GPU, so that a CUDA graph can hold it.
        """
        rows, size = positions.shape[0], self.page_size
        table, lengths = self.table[:rows], (positions + 1).int()
        cells = table.gather(1, (positions // size)[:, None]).squeeze(1).long() * size + positions % size
        if self.pool.device.type == "cpu":
            return self._plain(table, lengths, cells)
        from r1v0.models.kernels import triton_decode

        splits = triton_decode.splits_for(rows, self.config.kv_heads, table.shape[1], self.pool.device)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.pool[0, layer], self.pool[1, layer]
            triton_decode.store(k, v, keys, values, cells)
            return triton_decode.attention(q, keys, values, table, lengths, splits)

        return attend

    def _plain(self, table: Tensor, lengths: Tensor, cells: Tensor) -> Attend:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.pool[0, layer], self.pool[1, layer]
            keys.flatten(0, 1)[cells] = k
            values.flatten(0, 1)[cells] = v
            return plain_attention(q, keys, values, table, lengths)

        return attend

    def keep(self, rows: Tensor) -> None:
        """Drop every row but `rows`, which become 0, 1, ...; the dropped ones have given back their pages."""
        order = rows.tolist()
        for books in (self._books, self._held):
            books[: len(order)] = books[order]
            books[len(order) :] = 0

    def _take(self, count: int, holders: int = 1) -> NDArray[np.int32]:
        """`count` free pages, held by this many rows."""
        assert count <= self.spare, f"{count} pages wanted, {self.spare} left: the sampler's books are wrong"
        self.spare -= count
        pages = self._free[self.spare : self.spare + count].copy()
        self._counts[pages] = holders
        return pages

    def _hold(self, row: int, pages: NDArray[np.int32]) -> None:
        self._books[row, : len(pages)] = pages
        self._held[row] = len(pages)


def plain_attention(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor) -> Tensor:
    """What triton_decode.attention computes (its docstring has the shapes), by gathering each row's pages."""
    rows, heads, dim = q.shape
    _, size, kv_heads, _ = keys.shape
    longest = int(lengths.max())
    pages = table[:, : -(-longest // size)].long()
    k, v = (x[pages].flatten(1, 2)[:, :longest].transpose(1, 2) for x in (keys, values))
    ahead = torch.arange(longest, device=q.device) >= lengths[:, None]
    mask = torch.zeros(rows, 1, 1, longest, device=q.device, dtype=q.dtype)
    mask.masked_fill_(ahead[:, None, None, :], float("-inf"))
    out = F.scaled_dot_product_attention(q.view(rows, kv_heads, heads // kv_heads, dim), k, v, attn_mask=mask)
    return out.view(rows, heads, dim)


def triton_works(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's kernels store and attend as plain PyTorch does, for heads like the model's."""
    case = (config.heads, config.kv_heads, config.head_dim, dtype)
    return works("Triton's paged attention", case, partial(_trial, config, device, dtype))


def _trial(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Pairs:
    """Three rows of one, two and three pages."""
    from r1v0.models.kernels import triton_decode

    generator = torch.Generator().manual_seed(0)
    kv_heads, dim = config.kv_heads, config.head_dim
    shapes = [(7, PAGE_SIZE, kv_heads, dim)] * 2 + [(3, heads, dim) for heads in (kv_heads, kv_heads, config.heads)]
    keys, values, k, v, q = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    table = torch.tensor([[4, 0, 0], [2, 6, 0], [5, 1, 3]], dtype=torch.int32, device=device)
    lengths = torch.tensor([1, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 7], dtype=torch.int32, device=device)
    cells = torch.tensor([4 * PAGE_SIZE, 7 * PAGE_SIZE - 1, 3 * PAGE_SIZE + 6], device=device)
    stored = keys.clone(), values.clone()
    for pool, new in zip(stored, (k, v), strict=True):
        pool.flatten(0, 1)[cells] = new
    triton_decode.store(k, v, keys, values, cells)
    plain = plain_attention(q, *stored, table, lengths)
    found = [triton_decode.attention(q, keys, values, table, lengths, splits) for splits in (1, 3)]
    return [(keys, stored[0]), (values, stored[1]), *((out, plain) for out in found)]

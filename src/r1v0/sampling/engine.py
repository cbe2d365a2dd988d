"""How decoding is carried out on a device: which cache, how many rows, graphs or not. It cannot change what is drawn.

Decides: on a CPU contiguous slots, eager steps, the host looks at every token. On a GPU pages (with Triton, tried
first; without it slots), one CUDA graph a bucket of rows, and a look every 8 steps: surplus tokens of rows that ended
meanwhile are dropped. Weights are updated in place, so a graph outlives an optimizer step; but it holds the pool's
address too, and the pool has to go before training needs the memory. So pool and graphs live for one call of the
sampler, unless they take at most a twentieth of the card: then they wait for the model's next call. Capturing anew
costs a bucket one step's launches and the graph's instantiation, for at most six buckets (some tenths of a second by
estimate, not measured), where a step that fills a large pool takes a minute.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from r1v0.models.memory import automatic_slots, free_memory, pages_alone, pool_pages, require_room
from r1v0.models.ops import has_triton
from r1v0.models.sizes import kv_bytes
from r1v0.models.transformer import Transformer
from r1v0.models.tried import is_left_out
from r1v0.sampling.graphs import NAME, Buckets
from r1v0.sampling.pages import PAGE_SIZE, PagedCache, triton_works
from r1v0.sampling.slots import SlotCache

CHECK_EVERY = 8  # a row's end is noticed 4 tokens late on average; each look costs the device a pause
KEPT_SHARE = 1 / 20  # of the card's memory
ROUND = 512  # rows of a pool are rounded up to this many positions, so that a kept one fits the next call's prompts too

Cache = SlotCache | PagedCache
Decode = Callable[[Transformer, Cache, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Engine:
    """`pages` of `page_size` positions are the pool, 0: as memory allows. The host looks at the tokens `check_every`
    steps. `graphs` pads rows to buckets, and on a GPU replays a CUDA graph for each; without `capture` it runs their
    steps eagerly there too, to compare with."""

    paged: bool
    check_every: int
    graphs: bool
    pages: int = 0
    page_size: int = PAGE_SIZE
    capture: bool = True

    @staticmethod
    def of(model: Transformer) -> Engine:
        """The best one that works on the model's device."""
        device = model.norm.device
        paged = device.type == "cuda" and has_triton() and triton_works(model.config, device, model.norm.dtype)
        return Engine(paged, CHECK_EVERY if paged else 1, graphs=paged)


@dataclass(slots=True)
class Deck:
    """Static buffers for `slots` rows: the sampler's state [5, slots] int64, and a cache. `steps` holds the graphs of
    one temperature."""

    slots: int
    state: Tensor
    cache: Cache
    engine: Engine
    steps: dict[float, Callable[[int], Tensor]]
    storage: tuple[int, ...] = ()  # addresses of the parameters: graphs are good for these alone

    def decoder(self, decode: Decode, model: Transformer, temperature: float) -> Callable[[int], Tensor]:
        """`decode` on the deck's first rows: rows -> logprobs [rows, or the bucket's]."""
        if temperature not in self.steps:
            state, cache, source = self.state, self.cache, weakref.ref(model)  # a kept deck must not keep its model

            def step(rows: int) -> Tensor:
                model = source()
                assert model is not None
                return decode(model, cache, state[:, :rows], temperature)

            capture = self.engine.capture and state.device.type == "cuda" and not is_left_out(NAME)
            self.steps.clear()
            self.steps[temperature] = Buckets(step, state, capture) if self.engine.graphs else step
        return self.steps[temperature]


_kept: weakref.WeakKeyDictionary[Transformer, Deck] = weakref.WeakKeyDictionary()


def open_deck(model: Transformer, engine: Engine, slots: int, wanted: int, prompt: int, new: int) -> Deck:
    """Room for `wanted` completions of up to `new` tokens after up to `prompt`, `slots` at a time (0: automatic).

    Raises UserError where not even one fits.
    """
    config, device, dtype = model.config, model.norm.device, model.norm.dtype
    if not engine.paged:
        if slots == 0:
            slots = automatic_slots(config, dtype, free_memory(device), prompt, new, gpu=device.type == "cuda")
        slots = min(slots, wanted)
        cache: Cache = SlotCache(config, slots, prompt + new + engine.check_every, device, dtype)
        return Deck(slots, _new_state(slots, device), cache, engine, {})
    kept = _kept.pop(model, None)
    storage = tuple(parameter.data_ptr() for parameter in model.parameters())
    if (
        kept is not None
        and kept.engine == engine
        and kept.storage == storage
        and _fits(kept, slots, wanted, prompt, new)
    ):
        return kept
    del kept
    size = engine.page_size
    alone = pages_alone(prompt, new, size)
    if engine.pages:
        require_room(engine.pages, alone, size * kv_bytes(config, dtype.itemsize), prompt, new)
    free = 0 if engine.pages and slots else free_memory(device)
    slots = min(slots or automatic_slots(config, dtype, free, prompt, new, gpu=True), wanted)
    pages = engine.pages or pool_pages(config, dtype, free, slots, prompt, new, size)
    longest = -(-(prompt + new + engine.check_every) // ROUND) * ROUND
    paged = PagedCache(config, slots, longest, pages, device, dtype, size)
    return Deck(slots, _new_state(slots, device), paged, engine, {}, storage)


def close_deck(deck: Deck, model: Transformer) -> None:
    """Keep a small pool and its graphs for the model's next call; give back a large one before training begins."""
    device, cache = deck.state.device, deck.cache
    if device.type != "cuda":
        return
    small = KEPT_SHARE * torch.cuda.get_device_properties(device).total_memory
    # spare: no row was left when the sampling ended
    if isinstance(cache, PagedCache) and cache.spare == cache.pages and cache.pool.nbytes <= small:
        _kept[model] = deck
        return
    deck.steps.clear()
    del deck.cache, cache  # nobody else holds the pool
    torch.cuda.empty_cache()  # whole segments: else training's long-lived tensors would nest in them


def _fits(deck: Deck, slots: int, wanted: int, prompt: int, new: int) -> bool:
    """Whether a kept deck serves as well as a fresh one would."""
    cache = deck.cache
    assert isinstance(cache, PagedCache)
    rows = deck.slots if slots == 0 else min(slots, wanted)
    alone = pages_alone(prompt, new, cache.page_size)
    return (
        rows == deck.slots and prompt + new + deck.engine.check_every <= cache.longest and rows * alone <= cache.pages
    )


@torch.inference_mode()
def _new_state(slots: int, device: torch.device) -> Tensor:
    return torch.zeros(5, slots, dtype=torch.int64, device=device)

"""The sampler's books: which completion comes next, which row it has, and how far it has got.

Decides: completions are queued in the requests' order and enter from the queue's front. Slots are refilled when enough
of them are free; the rows left are moved together when the queue is empty and few are alive; where pages run out, the
row with the fewest tokens goes back to the queue's front with them. Nothing here touches a tensor: sampler.py carries
out what is decided, and the cache counts its own pages.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from r1v0.sampling.engine import Cache
from r1v0.types import Completion, FinishReason

COMPACT_BELOW = 0.75  # share of rows alive under which the rest are moved together
ADMIT_SHARE = 16  # slots are refilled when a 16th of them is free: a prefill costs about as much as a decoding step

Seen = Callable[[int, int, Sequence[int]], None]
"""Takes (request index, sample index, tokens so far)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, `token_ids` [P >= 1], and the random keys of the completions wanted of it."""

    token_ids: Sequence[int]
    keys: Sequence[int]


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """`max_new_tokens` counts the end token. `temperature` 0 is greedy. `stops(token_ids)` may end a completion early;
    it is asked only after tokens in `stop_candidates`. `slots` rows are decoded at a time; 0: as memory allows."""

    temperature: float
    max_new_tokens: int
    slots: int
    eos_ids: frozenset[int]
    stop_candidates: frozenset[int] = frozenset()
    stops: Callable[[Sequence[int]], bool] | None = None


@dataclass(slots=True)
class Row:
    """A completion, waiting or being decoded: `token_ids` [T] and `logprobs` [T] so far, after `prompt` [P]."""

    request: int
    sample: int
    prompt: Sequence[int]
    key: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Count its positions in the cache, P + T - 1: the last token is not there yet."""
        return len(self.prompt) + len(self.token_ids) - 1

    @property
    def stored(self) -> list[int]:
        """List the tokens of these positions, [P + T - 1]."""
        return [*self.prompt, *self.token_ids][:-1]

    def append(self, tokens: list[int], logprobs: list[float], settings: SamplingSettings) -> FinishReason | None:
        """Add a chunk's tokens up to the one that ends the completion; the surplus after it is dropped."""
        room = settings.max_new_tokens - len(self.token_ids)
        asks = settings.stops is not None and not settings.stop_candidates.isdisjoint(tokens)
        if len(tokens) < room and not asks and settings.eos_ids.isdisjoint(tokens):
            self.token_ids += tokens
            self.logprobs += logprobs
            return None
        for token, logprob in zip(tokens[:room], logprobs, strict=False):
            self.token_ids.append(token)
            self.logprobs.append(logprob)
            if token in settings.eos_ids:
                return "stop"
            if settings.stops is not None and token in settings.stop_candidates and settings.stops(self.token_ids):
                return "stop"
        return "length" if len(self.token_ids) == settings.max_new_tokens else None


@dataclass(frozen=True, slots=True)
class Admission:
    """The `rows` that enter, by slot. `prefills` are (tokens to compute, the slots that want them), `copies` are (a
    slot that has a prompt, the slots that want it too, its positions)."""

    rows: dict[int, Row]
    prefills: list[tuple[list[int], list[int]]]
    copies: list[tuple[int, list[int], int]]


class Schedule:
    """The `queue` of completions that wait, and the `rows` [slots] that are decoded, None where a slot is free."""

    def __init__(self, requests: Sequence[Request], settings: SamplingSettings, slots: int) -> None:
        self.settings = settings
        self.queue = deque(
            Row(i, s, request.token_ids, key)
            for i, request in enumerate(requests)
            for s, key in enumerate(request.keys)
        )
        self.rows: list[Row | None] = [None] * slots

    def has_work(self) -> bool:
        return bool(self.queue) or any(self.rows)

    def live(self) -> list[tuple[int, Row]]:
        """List the rows that are decoded, with their slots."""
        return [(slot, row) for slot, row in enumerate(self.rows) if row is not None]

    def admit(self, cache: Cache) -> Admission:
        """Move rows from the queue's front into free slots, if enough are free, and as the cache has room.

        A prompt is computed once for all slots that share it, and not at all where a live slot has it already. A row
        that was preempted brings its tokens along.
        """
        free = [slot for slot, row in enumerate(self.rows) if row is None]
        if len(free) * ADMIT_SHARE < len(self.rows) and len(free) < len(self.queue):
            return Admission({}, [], [])
        siblings = {row.request: slot for slot, row in self.live()}
        rows = self._choose(cache, free, set(siblings))
        admission, slots_of = Admission(rows, [], []), dict[int, list[int]]()
        for slot, row in rows.items():
            self.rows[slot] = row
            if row.token_ids:
                admission.prefills.append((row.stored, [slot]))
            else:
                slots_of.setdefault(row.request, []).append(slot)
        for request, slots in slots_of.items():
            prompt = rows[slots[0]].stored
            if request in siblings:
                admission.copies.append((siblings[request], slots, len(prompt)))
            elif prompt:
                admission.prefills.append((prompt, slots))
        return admission

    def _choose(self, cache: Cache, free: list[int], there: set[int]) -> dict[int, Row]:
        """Take rows for the free slots, as many as the cache has room for; a lone one always. `there` are the requests
        whose prompts are in the cache."""
        admitted: dict[int, Row] = {}
        live = len(self.rows) - len(free)
        room = cache.spare - live  # every live row will soon want a page more
        for slot in free[: len(self.queue)]:
            row = self.queue[0]
            room -= cache.cost(row.filled, shared=not row.token_ids and row.request in there)
            if room < 0 and (live or admitted):
                break
            if not row.token_ids:
                there.add(row.request)
            admitted[slot] = self.queue.popleft()
        return admitted

    def compact(self) -> list[int]:
        """Move the live rows together if they are few; the slots that they had, in their new order. Else nothing."""
        live = self.live()
        if len(live) >= COMPACT_BELOW * len(self.rows):
            return []
        self.rows = [row for _, row in live]
        return [slot for slot, _ in live]

    def steps(self, most: int) -> int:
        """Count the steps until the host looks: `most`, or what the row with the fewest tokens may still take."""
        return min(most, self.settings.max_new_tokens - min(len(row.token_ids) for _, row in self.live()))

    def lengths(self, steps: int) -> NDArray[np.int64]:
        """Count the positions that each row wants for this many steps, [slots], 0 for free slots."""
        limit, lengths = self.settings.max_new_tokens, np.zeros(len(self.rows), np.int64)
        for slot, row in self.live():
            lengths[slot] = row.filled + min(steps, limit - len(row.token_ids))
        return lengths

    def preempt(self) -> int:
        """Put the row with the fewest tokens, of these the last, back to the queue's front; the slot that it had."""
        slot, row = min(reversed(self.live()), key=lambda found: len(found[1].token_ids))
        self.queue.appendleft(row)
        self.rows[slot] = None
        return slot

    def append(
        self, tokens: list[list[int]], logprobs: list[list[float]], seen: Seen | None = None
    ) -> tuple[int, dict[int, tuple[int, int, Completion]]]:
        """Add a chunk's tokens and logprobs, both [slots][steps], to the live rows; `seen` is shown those that go on.

        Returns the number of tokens that count, and what ended: (request index, sample index, completion) by slot.
        """
        new, ended = 0, dict[int, tuple[int, int, Completion]]()
        for slot, row in self.live():
            before = len(row.token_ids)
            reason = row.append(tokens[slot], logprobs[slot], self.settings)
            new += len(row.token_ids) - before
            if reason is not None:
                ended[slot] = row.request, row.sample, Completion(row.token_ids, row.logprobs, reason)
                self.rows[slot] = None
            elif seen is not None:
                seen(row.request, row.sample, row.token_ids)
        return new, ended

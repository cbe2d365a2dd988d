"""Continuous batching on the policy's own weights: prompts in, completions out as they finish.

Decides: the sampler knows tokens only, and runs in the trainer's process on the very parameters that are trained, so
there is no second copy, no reload and no drift. A prompt is computed once for all its completions; a finished row's
slot goes to the next completion in the queue; when the queue is empty the rows left are moved together. Every token is
drawn by one uniform number, a hash of (the rollout's key, position in the completion), through the inverse CDF of the
whole distribution: a completion does not depend on its neighbours, and its logprob is the one that training computes.

    admit    fill free slots from the queue (prefill of all but a prompt's last token, some 2,048 tokens at a time)
    compact  move the live rows together
    preempt  where pages run out, the newest row goes back into the queue with its tokens, and is prefilled again later
    decode   one token in every row, or a few before the host looks at them

One loop serves both: slots and eager steps on a CPU; pages, CUDA graphs and a look every 8 steps on a GPU (`Engine`).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r1v0.models.memory import PREFILL_TOKENS
from r1v0.models.packing import packed_weights
from r1v0.models.transformer import Transformer, compiled_steps
from r1v0.models.workers import sampling_threads
from r1v0.sampling.draw import draw, uniform
from r1v0.sampling.engine import Cache, Deck, Engine, close_deck, open_deck
from r1v0.types import Completion, FinishReason

COMPACT_BELOW = 0.75  # share of rows alive under which the rest are moved together
ADMIT_SHARE = 16  # slots are refilled when a 16th of them is free: a prefill costs about as much as a decoding step


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
class _Row:
    request: int
    sample: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def generate(
    model: Transformer,
    requests: Sequence[Request],
    settings: SamplingSettings,
    poll: Callable[[int], None] = lambda tokens: None,
    engine: Engine | None = None,
    seen: Callable[[int, int, Sequence[int]], None] | None = None,
) -> Iterator[tuple[int, int, Completion]]:
    """Yield (request index, sample index, completion) in the order in which completions end.

    `poll` is called with the number of new tokens after every chunk of decoding steps, when the completions that ended in
    it were yielded, and with 0 after every piece of a prefill; it may raise to stop the sampling. `seen` is called for
    each row that goes on, with (request index, sample index, its tokens so far). `engine` is the device's own by default;
    it cannot change which tokens are drawn. Raises UserError, before anything is sampled, where memory cannot hold even
    one completion.
    """
    wanted = sum(len(request.keys) for request in requests)
    if wanted:
        prompt = max(len(request.token_ids) for request in requests)
        engine = engine or Engine.of(model)
        deck = open_deck(model, engine, settings.slots, wanted, prompt, settings.max_new_tokens)
        try:
            with sampling_threads(model), packed_weights(model), compiled_steps(model):
                yield from _sample(model, requests, settings, poll, deck, seen)
        finally:
            close_deck(deck, model)


def _sample(
    model: Transformer,
    requests: Sequence[Request],
    settings: SamplingSettings,
    poll: Callable[[int], None],
    deck: Deck,
    seen: Callable[[int, int, Sequence[int]], None] | None = None,
) -> Iterator[tuple[int, int, Completion]]:
    queue = deque(_Row(i, s) for i, request in enumerate(requests) for s in range(len(request.keys)))
    state, cache, decode = deck.state, deck.cache, deck.decoder(_decode, model, settings.temperature)
    rows: list[_Row | None] = [None] * deck.slots
    spans = np.zeros((2, len(rows)), np.int64)  # positions filled and positions at most of each row; 0 of dead ones
    while queue or any(rows):
        free = [slot for slot, row in enumerate(rows) if row is None]
        if queue and (len(free) * ADMIT_SHARE >= len(rows) or len(free) >= len(queue)):
            siblings = {row.request: slot for slot, row in enumerate(rows) if row is not None}
            admitted = _choose(cache, requests, queue, free, siblings, len(rows))
            for slot, entering in admitted.items():
                rows[slot] = entering
                start = len(requests[entering.request].token_ids) - 1
                spans[:, slot] = start + len(entering.token_ids), start + settings.max_new_tokens
            _admit(model, cache, state, requests, admitted, siblings, poll)
        elif not queue and len(rows) - len(free) < COMPACT_BELOW * len(rows):
            live = [slot for slot, row in enumerate(rows) if row is not None]
            rows, spans = [rows[slot] for slot in live], spans[:, live]
            _compact(cache, state, live)
        steps = min(deck.engine.check_every, int((spans[1] - spans[0]).max()))
        while not cache.extend(np.minimum(spans[0] + steps, spans[1])):
            slot = min((len(row.token_ids), -slot, slot) for slot, row in enumerate(rows) if row is not None)[2]
            queue.extendleft(row for row in [rows[slot]] if row is not None)
            _end(cache, state, rows, spans, [slot])
        tokens, logprobs = _run(decode, state, len(rows), steps)
        spans[0] += steps * (spans[1] > 0)
        new, ended = 0, []
        for slot, row in enumerate(rows):
            if row is not None:
                before = len(row.token_ids)
                reason = _append(row, tokens[slot], logprobs[slot], settings)
                new += len(row.token_ids) - before
                if reason is not None:
                    ended.append((slot, row, reason))
                elif seen is not None:
                    seen(row.request, row.sample, row.token_ids)
        for _, row, reason in ended:
            yield row.request, row.sample, Completion(row.token_ids, row.logprobs, reason)
        _end(cache, state, rows, spans, [slot for slot, _, _ in ended])
        poll(new)


# Rows of the sampler's state, [5, slots] int64: a slot's last token, which is not in the cache yet; the completion's
# tokens so far; the rollout's random key; the position of the last token; and 1 if the row is alive.
TOKEN, COUNT, KEY, POSITION, LIVE = range(5)


def _choose(
    cache: Cache,
    requests: Sequence[Request],
    queue: deque[_Row],
    free: list[int],
    siblings: dict[int, int],
    slots: int,
) -> dict[int, _Row]:
    """Take rows from the queue's front for the free slots, as many as the cache has room for; a lone one always."""
    admitted: dict[int, _Row] = {}
    live = slots - len(free)
    room = cache.spare - live  # every live row will soon want a page more
    there = set(siblings)
    for slot in free:
        if not queue:
            break
        row = queue[0]
        length = len(requests[row.request].token_ids) - 1 + len(row.token_ids)
        room -= cache.cost(length, shared=not row.token_ids and row.request in there)
        if room < 0 and (live or admitted):
            break
        if not row.token_ids:
            there.add(row.request)
        admitted[slot] = queue.popleft()
    return admitted


@torch.inference_mode()
def _admit(
    model: Transformer,
    cache: Cache,
    state: Tensor,
    requests: Sequence[Request],
    admitted: dict[int, _Row],
    siblings: dict[int, int],
    poll: Callable[[int], None],
) -> None:
    """Fill slots with prompts but their last token, which is left to `_decode`.

    A prompt is computed once for all slots that share it, and not at all where a live slot (`siblings`, by request)
    has it already. A row that was preempted brings its tokens along.
    """
    slots_of: dict[int, list[int]] = {}
    fresh: list[tuple[list[int], list[int]]] = []  # tokens to compute, and the slots that want them
    columns = []
    for slot, row in admitted.items():
        request = requests[row.request]
        tokens = [*request.token_ids, *row.token_ids]
        columns.append((tokens[-1], len(row.token_ids), request.keys[row.sample], len(tokens) - 1, 1))
        if row.token_ids:
            fresh.append((tokens[:-1], [slot]))
        else:
            slots_of.setdefault(row.request, []).append(slot)
    if admitted:
        state[:, list(admitted)] = torch.tensor(columns, device=state.device).T
    for i, slots in slots_of.items():
        prompt = list(requests[i].token_ids[:-1])
        if i in siblings:
            cache.copy(siblings[i], slots, len(prompt))
        elif prompt:
            fresh.append((prompt, slots))
    while fresh:
        sizes = list(accumulate(len(tokens) for tokens, _ in fresh))
        count = max(1, sum(size <= PREFILL_TOKENS for size in sizes))
        part, fresh = fresh[:count], fresh[count:]
        token_ids = torch.tensor([token for tokens, _ in part for token in tokens], device=state.device)
        positions = torch.cat([torch.arange(len(tokens), device=state.device) for tokens, _ in part])
        cu_seqlens = torch.tensor([0, *sizes[:count]])  # the host reads it
        attend = cache.prefill(cu_seqlens, [slots for _, slots in part])
        pieces = zip(token_ids.split(PREFILL_TOKENS), positions.split(PREFILL_TOKENS), strict=True)
        for some_ids, their_positions in pieces:  # several of a prompt that is too long alone
            model(some_ids, their_positions, attend)
            poll(0)


@torch.inference_mode()
def _compact(cache: Cache, state: Tensor, live: list[int]) -> None:
    """Move the live rows together, so that the last long completions do not pay for dead ones."""
    rows = torch.tensor(live, device=state.device)
    cache.keep(rows)
    state[:, : len(live)] = state[:, rows]
    state[POSITION:, len(live) :] = 0


@torch.inference_mode()
def _end(
    cache: Cache,
    state: Tensor,
    rows: list[_Row | None],
    spans: NDArray[np.int64],
    slots: list[int],
) -> None:
    """Empty slots. A dead row stands at position 0, so that nobody attends as far as it once reached."""
    if slots:
        for slot in slots:
            rows[slot] = None
        spans[:, slots] = 0
        cache.free(slots)
        state[POSITION:, slots] = 0


def _append(row: _Row, tokens: list[int], logprobs: list[float], settings: SamplingSettings) -> FinishReason | None:
    """Add a chunk's tokens up to the one that ends the completion; the surplus after it is dropped."""
    room = settings.max_new_tokens - len(row.token_ids)
    asks = settings.stops is not None and not settings.stop_candidates.isdisjoint(tokens)
    if len(tokens) < room and not asks and settings.eos_ids.isdisjoint(tokens):
        row.token_ids += tokens
        row.logprobs += logprobs
        return None
    for token, logprob in zip(tokens[:room], logprobs, strict=False):
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        if token in settings.eos_ids:
            return "stop"
        if settings.stops is not None and token in settings.stop_candidates and settings.stops(row.token_ids):
            return "stop"
    return "length" if len(row.token_ids) == settings.max_new_tokens else None


@torch.inference_mode()
def _run(
    decode: Callable[[int], Tensor], state: Tensor, rows: int, steps: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Decode `steps` tokens in the first `rows` rows: their tokens and logprobs, [rows][steps]. The host waits here."""
    tokens = state.new_empty(steps, rows)
    logprobs = torch.empty(steps, rows, device=state.device)
    for step in range(steps):
        logprobs[step] = decode(rows)[:rows]
        tokens[step] = state[TOKEN, :rows]
    return tokens.T.tolist(), logprobs.T.tolist()


@torch.inference_mode()
def _decode(model: Transformer, cache: Cache, state: Tensor, temperature: float) -> Tensor:
    """Draw one more token in each row, in place; its logprobs [slots]. Dead rows stand still, unread.

    Nothing in it waits for the host where the cache does not: on a GPU it is captured (sampling/graphs.py).
    """
    logits = model.head(model(state[TOKEN], state[POSITION], cache.decode(state[POSITION]))).float()
    if temperature == 0:
        tokens = logits.argmax(-1)
        logprobs = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    else:
        tokens, logprobs = draw(logits / temperature, uniform(state[KEY], state[COUNT]))
    state[TOKEN] = tokens
    state[POSITION] += state[LIVE]
    state[COUNT] += 1
    return logprobs

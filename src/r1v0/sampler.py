"""Continuous batching on the policy's own weights: prompts in, completions out as they finish.

Decides: the sampler knows tokens only, and runs in the trainer's process on the very parameters that are trained, so
there is no second copy, no reload and no drift. A prompt is computed once for all its completions; a finished row's
slot goes to the next completion in the queue; when the queue is empty the rows left are moved together. Every token is
drawn by one uniform number, a hash of (the rollout's key, position in the completion), through the inverse CDF of the
whole distribution: a completion does not depend on its neighbours, and its logprob is the one that training computes.

    admit    fill free slots from the queue (prefill of all but a prompt's last token)
    compact  move the live rows together
    decode   one token in every row
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from r1v0.models.kv_cache import SlotCache
from r1v0.models.transformer import Transformer
from r1v0.types import Completion

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
    it is asked only after tokens in `stop_candidates`."""

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
) -> Iterator[tuple[int, int, Completion]]:
    """Yield (request index, sample index, completion) in the order in which completions end.

    `poll` is called with the number of new tokens after every decoding step; it may raise to stop the sampling.
    """
    queue = deque((i, s) for i, request in enumerate(requests) for s in range(len(request.keys)))
    rows: list[_Row | None] = [None] * min(settings.slots, len(queue))
    longest = max((len(request.token_ids) for request in requests), default=0) + settings.max_new_tokens
    with torch.inference_mode():
        cache = SlotCache(model.config, len(rows), longest, model.norm.device, model.norm.dtype)
        state = torch.zeros(4, len(rows), dtype=torch.int64, device=model.norm.device)
    while queue or any(rows):
        free = [slot for slot, row in enumerate(rows) if row is None]
        if queue and (len(free) * ADMIT_SHARE >= len(rows) or len(free) >= len(queue)):
            admitted = {slot: _Row(*queue.popleft()) for slot in free[: len(queue)]}
            siblings = {row.request: slot for slot, row in enumerate(rows) if row is not None}
            _admit(model, cache, state, requests, admitted, siblings)
            rows = [admitted.get(slot, row) for slot, row in enumerate(rows)]
        elif not queue and len(rows) - len(free) < COMPACT_BELOW * len(rows):
            state = _compact(cache, state, [slot for slot, row in enumerate(rows) if row is not None])
            rows = [row for row in rows if row is not None]
        logprobs = _decode(model, cache, state, settings.temperature)
        poll(sum(row is not None for row in rows))
        ended = []
        for slot, (row, token, logprob) in enumerate(zip(rows, state[TOKEN].tolist(), logprobs.tolist(), strict=True)):
            if row is None:
                continue
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            stop = token in settings.eos_ids
            if not stop and settings.stops is not None and token in settings.stop_candidates:
                stop = settings.stops(row.token_ids)
            if stop or len(row.token_ids) == settings.max_new_tokens:
                ended.append(slot)
                yield row.request, row.sample, Completion(row.token_ids, row.logprobs, "stop" if stop else "length")
        for slot in ended:
            rows[slot] = None
        _release(state, ended)


# Rows of the sampler's state, [4, slots] int64: a slot's last token, which is not in the cache yet; its position; the
# completion's tokens so far; and the rollout's random key.
TOKEN, POSITION, COUNT, KEY = range(4)


@torch.inference_mode()
def _admit(
    model: Transformer,
    cache: SlotCache,
    state: Tensor,
    requests: Sequence[Request],
    admitted: dict[int, _Row],
    siblings: dict[int, int],
) -> None:
    """Fill slots with prompts but their last token, which is left to `_decode`.

    A prompt is computed once for all slots that share it, and not at all where a live slot (`siblings`, by request)
    has it already.
    """
    slots_of: dict[int, list[int]] = {}
    columns = []
    for slot, row in admitted.items():
        slots_of.setdefault(row.request, []).append(slot)
        prompt = requests[row.request].token_ids
        columns.append((prompt[-1], len(prompt) - 1, 0, requests[row.request].keys[row.sample]))
    state[:, list(admitted)] = torch.tensor(columns, device=state.device).T
    fresh = []
    for i in slots_of:
        if i in siblings:
            cache.copy(siblings[i], slots_of[i], len(requests[i].token_ids) - 1)
        elif len(requests[i].token_ids) > 1:
            fresh.append(i)
    if not fresh:
        return
    prompts = [list(requests[i].token_ids[:-1]) for i in fresh]
    token_ids = torch.tensor([token for prompt in prompts for token in prompt], device=state.device)
    positions = torch.cat([torch.arange(len(prompt), device=state.device) for prompt in prompts])
    cu_seqlens = torch.tensor(list(accumulate(map(len, prompts), initial=0)), device=state.device)
    model(token_ids, positions, cache.prefill(cu_seqlens, [slots_of[i] for i in fresh]))


@torch.inference_mode()
def _compact(cache: SlotCache, state: Tensor, live: list[int]) -> Tensor:
    """Move the live rows together, so that the last long completions do not pay for dead ones."""
    rows = torch.tensor(live, device=state.device)
    cache.keep(rows)
    return state[:, rows]


@torch.inference_mode()
def _release(state: Tensor, slots: list[int]) -> None:
    """A dead row starts over at position 0, so that nobody attends as far as it once reached."""
    if slots:
        state[POSITION, slots] = 0


@torch.inference_mode()
def _decode(model: Transformer, cache: SlotCache, state: Tensor, temperature: float) -> Tensor:
    """Draw one more token in each row, in place; its logprobs [slots]. Dead rows go on unread until they are replaced."""
    logits = model.head(model(state[TOKEN], state[POSITION], cache.decode(state[POSITION]))).float()
    if temperature == 0:
        tokens = logits.argmax(-1)
        logprobs = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    else:
        tokens, logprobs = draw(logits / temperature, uniform(state[KEY], state[COUNT]))
    state[TOKEN] = tokens
    state[POSITION] += 1
    state[COUNT] += 1
    return logprobs


def draw(logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse CDF: the first token whose cumulative probability exceeds u. logits [n, vocab], u [n] in [0, 1)."""
    logprobs = logits.log_softmax(-1)
    cdf = logprobs.exp().cumsum(-1)
    total = cdf[:, -1:]
    # Rounding can lift u * total to total, past the last token that has any probability.
    threshold = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cdf, threshold, right=True).squeeze(1)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)


def uniform(keys: Tensor, counters: Tensor) -> Tensor:
    """One number in [0, 1) for each (key, counter), [n] float32 with 24 random bits.

    SplitMix64's finaliser (Steele et al., OOPSLA 2014) over key + (counter + 1) * golden gamma, in wrapping int64.
    """
    x = keys + (counters + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ _shift(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shift(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    x = x ^ _shift(x, 31)
    return _shift(x, 40).float() * 2.0**-24


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of an int64 tensor."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

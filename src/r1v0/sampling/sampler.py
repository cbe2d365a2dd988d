"""Continuous batching on the policy's own weights: prompts in, completions out as they finish.

Decides: the sampler knows tokens only, and runs in the trainer's process on the very parameters that are trained, so
there is no second copy (unless `sampling.dtype` asks for a rounded one), no reload and no drift. A prompt is
computed once for all its completions; a finished row's slot goes to the next completion in the queue; when the queue
is empty the rows left are moved together. Every token is drawn by one uniform number, a hash of (the rollout's key,
place in the completion), through the inverse CDF of the whole distribution: a completion does not depend on its
neighbours, and its logprob is the one that training computes.

    admit    fill free slots from the queue (prefill of all but a prompt's last token, some 2,048 tokens at a time)
    compact  move the live rows together
    preempt  where pages run out, the newest row goes back into the queue with its tokens, and is prefilled again later
    decode   one token in every row, or a few before the host looks at them

One loop serves both: slots and eager steps on a CPU; pages, CUDA graphs and a look every 8 steps on a GPU (`Engine`).
Which row, which slot and when is decided in schedule.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor

from r1v0.models.memory import PREFILL_TOKENS
from r1v0.models.packing import packed_weights
from r1v0.models.transformer import Transformer, compiled_steps
from r1v0.models.workers import sampling_threads
from r1v0.sampling.draw import draw, uniform
from r1v0.sampling.engine import Cache, Deck, Engine, close_deck, open_deck
from r1v0.sampling.schedule import Request, SamplingSettings, Schedule, Seen
from r1v0.types import Completion

__all__ = ["Request", "SamplingSettings", "generate"]


def generate(
    model: Transformer,
    requests: Sequence[Request],
    settings: SamplingSettings,
    poll: Callable[[int], None] = lambda tokens: None,
    engine: Engine | None = None,
    seen: Seen | None = None,
) -> Iterator[tuple[int, int, Completion]]:
    """Yield (request index, sample index, completion) in the order in which completions end.

    `poll` is called with the number of new tokens after every chunk of decoding steps, when the completions that ended
    in it were yielded, and with 0 after every piece of a prefill; it may raise to stop the sampling. `seen` is called
    for each row that goes on, with (request index, sample index, its tokens so far). `engine` is the device's own by
    default; it cannot change which tokens are drawn. Raises UserError, before anything is sampled, where memory cannot
    hold even one completion.
    """
    if not any(request.keys for request in requests):
        return
    with _opened(model, requests, settings, engine) as deck:
        schedule = Schedule(requests, settings, deck.slots)
        while schedule.has_work():
            if schedule.queue:
                _admit(model, deck, schedule, poll)
            else:
                _compact(deck, schedule)
            steps = schedule.steps(deck.engine.check_every)
            _preempt(deck, schedule, steps)
            tokens, logprobs = _decode(model, deck, schedule, steps)
            new, ended = schedule.append(tokens, logprobs, seen)
            yield from ended.values()
            _free(deck, list(ended))
            poll(new)


@contextmanager
def _opened(
    model: Transformer, requests: Sequence[Request], settings: SamplingSettings, engine: Engine | None
) -> Iterator[Deck]:
    """Open buffers for the requests, and the model's fast ways to sample; close them however the sampling ends."""
    wanted = sum(len(request.keys) for request in requests)
    prompt = max(len(request.token_ids) for request in requests)
    deck = open_deck(model, engine or Engine.of(model), settings.slots, wanted, prompt, settings.max_new_tokens)
    try:
        with sampling_threads(model), packed_weights(model), compiled_steps(model):
            yield deck
    finally:
        close_deck(deck, model)  # nobody else may hold the deck's cache: no local of `generate` does


# Rows of the sampler's state, [5, slots] int64: a slot's last token, which is not in the cache yet; the completion's
# tokens so far; the rollout's random key; the position of the last token; and 1 if the row is alive.
TOKEN, COUNT, KEY, POSITION, LIVE = range(5)


@torch.inference_mode()
def _admit(model: Transformer, deck: Deck, schedule: Schedule, poll: Callable[[int], None]) -> None:
    """Fill free slots from the queue: all tokens but a row's last go into the cache, the last is left to `_step`."""
    admission = schedule.admit(deck.cache)
    if admission.rows:
        columns = [
            ((row.token_ids or row.prompt)[-1], len(row.token_ids), row.key, row.filled, 1)
            for row in admission.rows.values()
        ]
        deck.state[:, list(admission.rows)] = torch.tensor(columns, device=deck.state.device).T
    for source, slots, length in admission.copies:
        deck.cache.copy(source, slots, length)
    _prefill(model, deck.cache, admission.prefills, poll)


def _prefill(
    model: Transformer, cache: Cache, fresh: list[tuple[list[int], list[int]]], poll: Callable[[int], None]
) -> None:
    """Compute `fresh`, (tokens, the slots that want them), packed: some PREFILL_TOKENS at a time."""
    device = model.norm.device
    while fresh:
        sizes = list(accumulate(len(tokens) for tokens, _ in fresh))
        count = max(1, sum(size <= PREFILL_TOKENS for size in sizes))
        part, fresh = fresh[:count], fresh[count:]
        token_ids = torch.tensor([token for tokens, _ in part for token in tokens], device=device)
        positions = torch.cat([torch.arange(len(tokens), device=device) for tokens, _ in part])
        cu_seqlens = torch.tensor([0, *sizes[:count]])  # the host reads it
        attend = cache.prefill(cu_seqlens, [slots for _, slots in part])
        pieces = zip(token_ids.split(PREFILL_TOKENS), positions.split(PREFILL_TOKENS), strict=True)
        for some_ids, their_positions in pieces:  # several of a prompt that is too long alone
            model(some_ids, their_positions, attend)
            poll(0)


@torch.inference_mode()
def _compact(deck: Deck, schedule: Schedule) -> None:
    """Move the live rows together, so that the last long completions do not pay for dead ones."""
    live = schedule.compact()
    if live:
        state, rows = deck.state, torch.tensor(live, device=deck.state.device)
        deck.cache.keep(rows)
        state[:, : len(live)] = state[:, rows]
        state[POSITION:, len(live) :] = 0


def _preempt(deck: Deck, schedule: Schedule, steps: int) -> None:
    """Put rows back into the queue until the cache has room for `steps` more tokens in each of the others."""
    while not deck.cache.extend(schedule.lengths(steps)):
        _free(deck, [schedule.preempt()])


@torch.inference_mode()
def _decode(
    model: Transformer, deck: Deck, schedule: Schedule, steps: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Decode `steps` tokens in every row: their tokens and logprobs, [rows][steps]. The host waits here."""
    rows, state, step = len(schedule.rows), deck.state, deck.decoder(_step, model, schedule.settings.temperature)
    tokens = state.new_empty(steps, rows)
    logprobs = torch.empty(steps, rows, device=state.device)
    for i in range(steps):
        logprobs[i] = step(rows)[:rows]
        tokens[i] = state[TOKEN, :rows]
    return tokens.T.tolist(), logprobs.T.tolist()


@torch.inference_mode()
def _step(model: Transformer, cache: Cache, state: Tensor, temperature: float) -> Tensor:
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


@torch.inference_mode()
def _free(deck: Deck, slots: list[int]) -> None:
    """Empty slots. A dead row stands at position 0, so that nobody attends as far as it once reached."""
    if slots:
        deck.cache.free(slots)
        deck.state[POSITION:, slots] = 0

"""The comparisons with others: sampling, and a whole GRPO step.

Decides: a case hands each measurement to `record` as it is made, a flat row of names and numbers: {case, setting,
contender, round, seconds, cpu_s, tokens}; a contender that cannot run leaves a row {case, setting, contender,
skipped}. Every contender is warmed up on a little work first. `generate` runs at 64 and at 128 rows, and the better
of the two is what r1v0 is compared with; continuous batching at 32 (8 to 64 made no difference that showed).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from r1v0.jobs.bench import own, peers
from r1v0.jobs.bench.timing import Clock, Run, interleaved
from r1v0.jobs.bench.workload import Work

Row = dict[str, Any]
Record = Callable[[Row], None]

GENERATE_ROWS = (64, 128)
BATCHING_ROWS = (32,)
OWN = "r1v0"


def sampling(work: Work, rounds: int, record: Record, others: bool = True) -> None:
    """r1v0's sampler, and with `others` transformers' two."""
    about = {"case": "sampling", "setting": work.name}
    contenders: dict[str, Run] = {OWN: lambda: own.sample(work)}
    own.sample(work.head(2))
    if others and peers.installed("transformers") is None:
        record({**about, "contender": "transformers", "skipped": "transformers is not installed"})
    elif others:
        contenders |= _transformers(work)
    for row in interleaved(contenders, rounds, **about):
        record(row)


def _transformers(work: Work) -> dict[str, Run]:
    """transformers' contenders, warmed up. Each continuous batching has a model of its own, which keeps its manager."""
    model = peers.load_peer_model(work)
    peers.run_generate(model, work.head(2), 64)
    found: dict[str, Run] = {}
    for rows in GENERATE_ROWS:
        found[f"generate, {rows} rows"] = partial(peers.run_generate, model, work, rows)
    longest = max(len(prompt.token_ids) for prompt in work.prompts) + work.max_new_tokens
    for rows in BATCHING_ROWS:
        own_model = peers.load_peer_model(work)
        peers.run_continuous_batching(own_model, work.head(2), rows, longest)
        found[f"continuous batching, {rows} rows"] = partial(
            peers.run_continuous_batching, own_model, work, rows, longest
        )
    return found


def whole_step(
    work: Work, rounds: int, record: Record, others: bool = True, dtype: torch.dtype = torch.float32
) -> None:
    """A GRPO step, sampling to update: all groups with a gradient, and half of them without. r1v0 takes its turns
    between TRL's steps, of which the first is not counted. Both compute in `dtype` and update float32 weights."""
    about = {"case": "step", "setting": f"{work.name}, {str(dtype).removeprefix('torch.')}"}
    optimizer = own.optimizer_of(work, dtype)
    own.step(work.head(2), optimizer, 0.0)
    turns = [(number, flat) for number in range(rounds) for flat in (0.0, 0.5)]

    def turn(number: int, flat: float) -> None:
        clock = Clock()
        tokens = own.step(work, optimizer, flat)
        record({**about, "contender": OWN, "flat": flat, "round": number, **clock.read(), "tokens": tokens})

    missing = [name for name in ("transformers", "trl") if peers.installed(name) is None]
    if missing or not others:
        if others:
            record({**about, "contender": "TRL", "skipped": f"{missing[0]} is not installed"})
        for number, flat in turns:
            turn(number, flat)
        return

    def between(trl_step: int, reading: Mapping[str, float], tokens: int) -> None:
        if trl_step > 0:
            number, flat = turns[trl_step - 1]
            record({**about, "contender": "TRL", "flat": flat, "round": number, **reading, "tokens": tokens})
            turn(number, flat)

    peers.run_trl(work, [0.0, *(flat for _, flat in turns)], between, dtype)

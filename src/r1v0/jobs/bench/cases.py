"""What `r1v0 bench` measures: sampling, and a whole GRPO step.

Decides: a case hands each measurement to `record` as it is made, a flat row of names and numbers: {case, setting,
contender, round, seconds, cpu_s, tokens}. Everything is warmed up on a little work first. benchmarks/peers.py lets
others do the same work in turns.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from r1v0.jobs.bench import own
from r1v0.jobs.bench.timing import Clock, Run, interleaved
from r1v0.jobs.bench.workload import Work

Row = dict[str, Any]
Record = Callable[[Row], None]

OWN = "r1v0"
FLAT = (0.0, 0.5)
"""shares of groups without a gradient that a step is measured with"""
NOBODY: Mapping[str, Run] = {}


def sampling(work: Work, rounds: int, record: Record, others: Mapping[str, Run] = NOBODY) -> None:
    """r1v0's sampler, and `others` in turns with it."""
    own.sample(work.head(2))
    contenders: dict[str, Run] = {OWN: lambda: own.sample(work), **others}
    for row in interleaved(contenders, rounds, **about_sampling(work)):
        record(row)


def about_sampling(work: Work) -> dict[str, str]:
    """What every row of the case says."""
    return {"case": "sampling", "setting": work.name}


def whole_step(work: Work, rounds: int, record: Record, dtype: torch.dtype = torch.float32) -> None:
    """A GRPO step, sampling to update: all groups with a gradient, and half of them without."""
    take = own_turn(work, record, dtype)
    for number, flat in turns(rounds):
        take(number, flat)


def about_step(work: Work, dtype: torch.dtype) -> dict[str, str]:
    """What every row of the case says."""
    return {"case": "step", "setting": f"{work.name}, {str(dtype).removeprefix('torch.')}"}


def turns(rounds: int) -> list[tuple[int, float]]:
    """(round, share of flat groups) of each step that is measured, in order."""
    return [(number, flat) for number in range(rounds) for flat in FLAT]


def own_turn(work: Work, record: Record, dtype: torch.dtype) -> Callable[[int, float], None]:
    """What measures one of r1v0's own steps, which computes in `dtype` and updates float32 weights."""
    optimizer = own.optimizer_of(work, dtype)
    own.step(work.head(2), optimizer, 0.0)

    def turn(number: int, flat: float) -> None:
        clock = Clock()
        tokens = own.step(work, optimizer, flat)
        about = about_step(work, dtype)
        record({**about, "contender": OWN, "flat": flat, "round": number, **clock.read(), "tokens": tokens})

    return turn

"""When the sampler admits, compacts and preempts. Lengths are planned, so the order of its work is known."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from r1v0.sampling import sampler
from r1v0.sampling.engine import Cache, Engine
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from tests.helpers import EOS, small_model

Trace = list[tuple[str, int]]


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """What is done, with the number of rows it is done to. A completion is as long as its key says."""
    done: Trace = []
    admit, compact = sampler._admit, sampler._compact

    def admitted(*arguments: Any) -> None:
        done.append(("admit", len(arguments[4])))
        admit(*arguments)

    def compacted(cache: Cache, state: Tensor, live: list[int]) -> None:
        done.append(("compact", len(live)))
        compact(cache, state, live)

    @torch.inference_mode()
    def run(decode: object, state: Tensor, rows: int, steps: int) -> tuple[list[list[int]], list[list[float]]]:
        done.append(("decode", rows))
        tokens = [
            [
                EOS if int(state[sampler.COUNT, row]) + step + 1 == int(state[sampler.KEY, row]) else 2
                for step in range(steps)
            ]
            for row in range(rows)
        ]
        state[sampler.COUNT] += steps
        state[sampler.POSITION] += steps * state[sampler.LIVE]
        return tokens, [[-1.0] * steps] * rows

    for name, function in (("_admit", admitted), ("_compact", compacted), ("_run", run)):
        monkeypatch.setattr(sampler, name, function)
    return done


def drawn(lengths: list[int], slots: int, engine: Engine | None = None, prompts: int = 3, limit: int = 50) -> None:
    """Sample completions of these lengths, one a prompt; each must come once, whole and in the order of its end."""
    requests = [Request([2 + i % 30] * prompts, [length]) for i, length in enumerate(lengths)]
    settings = SamplingSettings(1.0, limit, slots, frozenset([EOS]))
    found = [(i, len(c.token_ids)) for i, _, c in generate(small_model(), requests, settings, engine=engine)]
    assert sorted(found) == [(i, min(length, limit)) for i, length in enumerate(lengths)]


def test_free_slots_wait_until_they_are_a_sixteenth(trace: Trace) -> None:
    """Of 17 slots one is less, two are more: the two that end after 1 and 2 tokens are filled together."""
    drawn([1, 2, *[6] * 38], slots=17)
    assert trace[:5] == [("admit", 17), ("decode", 17), ("decode", 17), ("admit", 2), ("decode", 17)]
    trace.clear()
    drawn([1, 1, *[6] * 60], slots=32)
    assert trace[:4] == [("admit", 32), ("decode", 32), ("admit", 2), ("decode", 32)]


def test_the_last_of_the_queue_does_not_wait(trace: Trace) -> None:
    drawn([1, *[6] * 32], slots=32)
    assert trace[:4] == [("admit", 32), ("decode", 32), ("admit", 1), ("decode", 32)]
    trace.clear()
    drawn([1, *[6] * 33], slots=32)  # two are left, and one slot is free
    assert trace[:4] == [("admit", 32), ("decode", 32), ("decode", 32), ("decode", 32)]


def test_rows_are_moved_together_when_less_than_three_quarters_are_alive(trace: Trace) -> None:
    drawn([1, 2, 3, 4, 9, 9, 9, 9], slots=8)
    assert trace == [
        ("admit", 8),
        *[("decode", 8)] * 3,  # 8, 7 and 6 are alive
        ("compact", 5),
        ("decode", 5),
        *[("decode", 5)] * 5,  # 4 of 5 are enough
    ]


def test_steps_are_no_more_than_the_longest_row_may_still_take(trace: Trace) -> None:
    """Looked at every 8 steps, with a limit of 11: 8, and then 3."""
    steps: list[int] = []
    run = sampler._run

    def counted(decode: Callable[[int], Tensor], state: Tensor, rows: int, n: int) -> Any:
        steps.append(n)
        return run(decode, state, rows, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "_run", counted)
        drawn([40, 5], slots=2, engine=Engine(paged=False, check_every=8, graphs=False), limit=11)
    assert steps == [8, 3]


def test_the_newest_rows_wait_where_pages_run_out(trace: Trace) -> None:
    """Prompts of 2, of which 1 is stored, and 12 tokens: a page of 4 at first, a second one for the 4th token, a third for
    the 8th, a fourth for the 12th. Six pages are enough for three rows until the 8th, and for two until the 12th. Then
    the first row ends, the second has one token to go, and the third five: none is drawn again."""
    order: list[tuple[int, int]] = []

    def seen(request: int, sample: int, token_ids: Sequence[int]) -> None:
        order.append((request, len(token_ids)))

    requests = [Request([2 + i] * 2, [12]) for i in range(3)]
    settings = SamplingSettings(1.0, 20, 3, frozenset([EOS]))
    engine = Engine(paged=True, check_every=1, graphs=False, pages=6, page_size=4)
    found = list(generate(small_model(), requests, settings, engine=engine, seen=seen))
    assert [(i, len(c.token_ids)) for i, _, c in found] == [(0, 12), (1, 12), (2, 12)]
    assert [[n for request, n in order if request == i] for i in range(3)] == [list(range(1, 12))] * 3
    admitted = [i for i, (what, rows) in enumerate(trace) if what == "admit" and rows]
    decoded = [sum(what == "decode" for what, _ in trace[a:b]) for a, b in pairwise([*admitted, len(trace)])]
    assert [(trace[i][1], steps) for i, steps in zip(admitted, decoded, strict=True)] == [(3, 12), (1, 1), (1, 5)]


class Pages:
    """A cache with so many spare pages; a row costs its length, or 1 where it shares a prompt."""

    def __init__(self, spare: int) -> None:
        self.spare = spare

    def cost(self, length: int, shared: bool) -> int:
        return 1 if shared else length


def chosen(
    spare: int, queue: list[tuple[int, int]], slots: int, free: list[int], siblings: list[int]
) -> dict[int, int]:
    """Slot -> request of the rows taken from a queue of (request, tokens so far). Prompts have 5 tokens, so 4 to store."""
    rows = deque(sampler._Row(request, 0, [3] * tokens) for request, tokens in queue)
    requests = [Request([2] * 5, [0]) for _ in range(9)]
    there = {request: slot for slot, request in enumerate(siblings)}
    found = sampler._choose(cast(Cache, Pages(spare)), requests, rows, free, there, slots)
    assert len(rows) == len(queue) - len(found)
    return {slot: row.request for slot, row in found.items()}


def test_rows_are_admitted_as_far_as_the_cache_has_room() -> None:
    three = [(0, 0), (1, 0), (2, 0)]
    assert chosen(12, three, 3, [0, 1, 2], []) == {0: 0, 1: 1, 2: 2}
    assert chosen(11, three, 3, [0, 1, 2], []) == {0: 0, 1: 1}
    assert chosen(12, three, 4, [1, 2, 3], [8]) == {1: 0, 2: 1}  # a live row will want a page
    assert chosen(13, three, 4, [1, 2, 3], [8]) == {1: 0, 2: 1, 3: 2}
    assert chosen(99, three, 2, [0, 1], []) == {0: 0, 1: 1}
    assert chosen(99, three[:1], 3, [0, 1, 2], []) == {0: 0}


def test_a_lone_row_is_admitted_whatever_it_takes() -> None:
    assert chosen(0, [(0, 0), (1, 0)], 2, [0, 1], []) == {0: 0}
    assert chosen(0, [(0, 0), (1, 0)], 3, [1, 2], [8]) == {}


def test_a_shared_prompt_costs_less_but_not_for_a_row_with_tokens_of_its_own() -> None:
    assert chosen(5, [(0, 0), (0, 0)], 2, [0, 1], []) == {0: 0, 1: 0}  # 4 and 1
    assert chosen(4, [(0, 0), (0, 0)], 2, [0, 1], []) == {0: 0}
    assert chosen(3, [(0, 0), (0, 0)], 3, [1, 2], [0]) == {1: 0, 2: 0}  # 1 of the live row, and 1 each
    assert chosen(7, [(0, 2), (0, 0)], 2, [0, 1], []) == {0: 0}  # 6, and it has no prompt to give away
    assert chosen(10, [(0, 2), (0, 0)], 2, [0, 1], []) == {0: 0, 1: 0}
    assert chosen(6, [(0, 2)], 3, [1, 2], [0]) == {}
    assert chosen(7, [(0, 2)], 3, [1, 2], [0]) == {1: 0}

"""When rows are admitted, moved together and preempted. Lengths are planned, so the order of the work is known."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import pytest
import torch

from r1v0.models.transformer import Transformer
from r1v0.sampling import sampler
from r1v0.sampling.engine import Cache, Deck, Engine
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.sampling.schedule import Admission, Row, Schedule
from tests.helpers import EOS, small_model

Trace = list[tuple[str, int]]


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """What is done, with the number of rows it is done to. A completion is as long as its key says."""
    done: Trace = []
    admit, compact = Schedule.admit, Schedule.compact

    def admitted(schedule: Schedule, cache: Cache) -> Admission:
        admission = admit(schedule, cache)
        done.extend([("admit", len(admission.rows))] if admission.rows else [])
        return admission

    def compacted(schedule: Schedule) -> list[int]:
        live = compact(schedule)
        done.extend([("compact", len(live))] if live else [])
        return live

    @torch.inference_mode()
    def decode(
        model: Transformer, deck: Deck, schedule: Schedule, steps: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        state, rows = deck.state, len(schedule.rows)
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

    monkeypatch.setattr(Schedule, "admit", admitted)
    monkeypatch.setattr(Schedule, "compact", compacted)
    monkeypatch.setattr(sampler, "_decode", decode)
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
    counts: list[int] = []
    steps = Schedule.steps

    def counted(schedule: Schedule, most: int) -> int:
        counts.append(steps(schedule, most))
        return counts[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "steps", counted)
        drawn([40, 5], slots=2, engine=Engine(paged=False, check_every=8, graphs=False), limit=11)
    assert counts == [8, 3]


def test_the_newest_rows_wait_where_pages_run_out(trace: Trace) -> None:
    """Prompts of 2, of which 1 is stored, and 12 tokens: a page of 4 at first, a second one for the 4th token, a third
    for the 8th, a fourth for the 12th. Six pages are enough for three rows until the 8th, and for two until the 12th.
    Then the first row ends, the second has one token to go, and the third five: none is drawn again."""
    order: list[tuple[int, int]] = []

    def seen(request: int, sample: int, token_ids: Sequence[int]) -> None:
        order.append((request, len(token_ids)))

    requests = [Request([2 + i] * 2, [12]) for i in range(3)]
    settings = SamplingSettings(1.0, 20, 3, frozenset([EOS]))
    engine = Engine(paged=True, check_every=1, graphs=False, pages=6, page_size=4)
    found = list(generate(small_model(), requests, settings, engine=engine, seen=seen))
    assert [(i, len(c.token_ids)) for i, _, c in found] == [(0, 12), (1, 12), (2, 12)]
    assert [[n for request, n in order if request == i] for i in range(3)] == [list(range(1, 12))] * 3
    admitted = [i for i, (what, _) in enumerate(trace) if what == "admit"]
    decoded = [sum(what == "decode" for what, _ in trace[a:b]) for a, b in pairwise([*admitted, len(trace)])]
    assert [(trace[i][1], steps) for i, steps in zip(admitted, decoded, strict=True)] == [(3, 12), (1, 1), (1, 5)]


class Pages:
    """A cache with this many spare pages; a row costs its length, or 1 where it shares a prompt."""

    def __init__(self, spare: int) -> None:
        self.spare = spare

    def cost(self, length: int, shared: bool) -> int:
        return 1 if shared else length


def scheduled(slots: int, queue: Sequence[tuple[int, int]], limit: int = 50) -> Schedule:
    """Free slots, and a queue of (request, tokens so far). Prompts have 5 tokens, so 4 to store."""
    schedule = Schedule([], SamplingSettings(1.0, limit, slots, frozenset([EOS])), slots)
    schedule.queue.extend(Row(request, 0, [2] * 5, 0, [3] * tokens) for request, tokens in queue)
    return schedule


def chosen(
    spare: int, queue: list[tuple[int, int]], slots: int, free: list[int], siblings: list[int]
) -> dict[int, int]:
    """Slot -> request of the rows admitted from a queue of (request, tokens so far), beside live rows of `siblings`."""
    schedule = scheduled(slots, queue)
    for slot, request in zip(sorted(set(range(slots)) - set(free)), siblings, strict=True):
        schedule.rows[slot] = Row(request, 1, [2] * 5, 0)
    found = schedule.admit(cast(Cache, Pages(spare))).rows
    assert len(schedule.queue) == len(queue) - len(found)
    assert all(schedule.rows[slot] is row for slot, row in found.items())
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


def test_a_prompt_is_computed_once_and_copied_from_a_live_slot() -> None:
    """Slot 1 has request 0 already; request 1 has two new rows, and a third that brings two tokens along."""
    schedule = scheduled(5, [(0, 0), (1, 0), (1, 2), (1, 0)])
    schedule.rows[1] = Row(0, 1, [2] * 5, 0, [3] * 9)
    admission = schedule.admit(cast(Cache, Pages(99)))
    assert admission.copies == [(1, [0], 4)]
    assert admission.prefills == [([2] * 5 + [3], [3]), ([2] * 4, [2, 4])]


def test_the_row_with_the_fewest_tokens_and_of_these_the_last_goes_back_first() -> None:
    schedule = scheduled(4, [(9, 0)])
    rows = [Row(i, 0, [2] * 5, 0, [3] * tokens) for i, tokens in enumerate((4, 2, 2))]
    schedule.rows = [*rows[:2], None, rows[2]]
    assert [schedule.preempt() for _ in range(3)] == [3, 1, 0]
    assert [row.request for row in schedule.queue] == [0, 1, 2, 9]
    assert schedule.rows == [None] * 4


def test_a_row_wants_positions_for_the_next_steps_but_not_past_its_limit() -> None:
    """5 of the prompt and 4 or 9 so far, the last of which is not stored: 8 and 13 are. At most 10 tokens."""
    schedule = scheduled(3, [], limit=10)
    schedule.rows = [Row(0, 0, [2] * 5, 0, [3] * 4), None, Row(1, 0, [2] * 5, 0, [3] * 9)]
    assert (schedule.steps(8), schedule.steps(3)) == (6, 3)
    assert schedule.lengths(3).tolist() == [11, 0, 14]
    assert [row and row.request for row in schedule.rows] == [0, None, 1]
    assert schedule.compact() == [0, 2]
    assert schedule.lengths(8).tolist() == [14, 14]
    assert schedule.compact() == []


def test_tokens_after_a_completions_end_are_dropped_and_its_slot_is_free() -> None:
    schedule, shown = scheduled(3, [], limit=4), list[int]()
    schedule.rows = [Row(i, 7, [2], 0, [3] * i) for i in range(3)]
    tokens = [[3, 3, 3], [3, EOS, 3], [3, 3, 3]]
    new, ended = schedule.append(tokens, [[-1.0] * 3] * 3, lambda i, _, token_ids: shown.append(len(token_ids)))
    assert (new, shown) == (3 + 2 + 2, [3])
    assert [(slot, i, s, len(c.token_ids), c.finish_reason) for slot, (i, s, c) in ended.items()] == [
        (1, 1, 7, 3, "stop"),
        (2, 2, 7, 4, "length"),
    ]
    assert [row is None for row in schedule.rows] == [False, True, True]

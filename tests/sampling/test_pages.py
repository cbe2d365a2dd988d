"""Pages, graphs' buckets, looks every few steps and preemption: none of them may change a token."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from r1v0.base.errors import UserError
from r1v0.base.keys import key
from r1v0.config import OptimizerConfig
from r1v0.grpo.optimizer import make_optimizer
from r1v0.models.memory import automatic_slots, free_memory, pool_pages, workspace_bytes
from r1v0.models.shape import ModelConfig
from r1v0.models.sizes import kv_bytes
from r1v0.sampling import engine as engines
from r1v0.sampling.engine import Engine, open_deck
from r1v0.sampling.graphs import Buckets, buckets
from r1v0.sampling.pages import PagedCache, plain_attention
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from tests.helpers import EOS, VOCAB, small_model
from tests.sampling.test_sampler import Samples, full_logprobs, requests, settings

pytestmark = pytest.mark.numeric

QWEN = ModelConfig(151_936, 1536, 8960, 28, 12, 2, 128, 1e-6, 1e6, 131_072, True, True, False)  # Qwen2.5-1.5B
PAGED = Engine(paged=True, check_every=1, graphs=False, pages=200, page_size=16)
ENGINES = [
    PAGED,
    Engine(paged=True, check_every=8, graphs=True, pages=500, page_size=4),
    Engine(paged=True, check_every=5, graphs=True, pages=2000, page_size=1),
    Engine(paged=False, check_every=8, graphs=False),
    Engine(paged=False, check_every=3, graphs=False),
]


class Recorded(PagedCache):
    """A cache that can be looked at after the sampling, with the most pages that were in use at a time."""

    made: "list[Recorded]" = []  # noqa: RUF012

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.most = self.prefilled = 0
        Recorded.made.append(self)

    def extend(self, lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bool:
        done = super().extend(lengths)
        self.most = max(self.most, self.pages - self.spare)
        return done

    def prefill(self, cu_seqlens: torch.Tensor, slots: list[list[int]]) -> object:  # type: ignore[override]
        self.prefilled += int(cu_seqlens[-1])
        return super().prefill(cu_seqlens, slots)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    Recorded.made = []
    monkeypatch.setattr(engines, "PagedCache", Recorded)
    return Recorded.made


MODEL = small_model()


def run(asked: list[Request], chosen: SamplingSettings, engine: Engine | None = None) -> Samples:
    return {(i, s): completion for i, s, completion in generate(MODEL, asked, chosen, engine=engine)}


def assert_same(found: Samples, expected: Samples) -> None:
    assert {place: c.token_ids for place, c in found.items()} == {place: c.token_ids for place, c in expected.items()}
    assert {place: c.finish_reason for place, c in found.items()} == {p: c.finish_reason for p, c in expected.items()}
    for place, completion in found.items():
        assert completion.logprobs == pytest.approx(expected[place].logprobs, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("slots", [6, 28])
def test_every_engine_draws_the_same_completions(engine: Engine, slots: int, recorded: list[Recorded]) -> None:
    asked, chosen = requests(7), settings(slots, limit=30)
    assert_same(run(asked, chosen, engine), run(asked, chosen))
    for cache in recorded:
        assert cache.spare == cache.pages
        assert int(cache._counts.sum()) == int(cache._held.sum()) == int(cache.table.sum()) == 0


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_stops_limits_and_greedy_are_the_same_in_every_engine(engine: Engine) -> None:
    stopping = SamplingSettings(1.0, 23, 7, frozenset([EOS]), frozenset(range(2, 20)), lambda tokens: len(tokens) > 4)
    for chosen in (stopping, settings(4, limit=1), settings(4, limit=8), settings(6, limit=9, temperature=0)):
        assert_same(run(requests(4), chosen, engine), run(requests(4), chosen))


def test_the_surplus_of_a_chunk_is_neither_counted_nor_asked_about() -> None:
    counted: list[int] = []
    asked_about: list[int] = []

    def stops(tokens: object) -> bool:
        assert isinstance(tokens, list)
        asked_about.append(len(tokens))
        return len(tokens) == 3

    chosen = SamplingSettings(1.0, 60, 8, frozenset([EOS]), frozenset(range(VOCAB)), stops)
    done = list(generate(MODEL, requests(), chosen, counted.append, ENGINES[1]))
    assert sum(counted) == sum(len(c.token_ids) for _, _, c in done)
    assert max(asked_about) == 3


def test_sampled_logprobs_equal_one_full_forward_with_preemption(recorded: list[Recorded]) -> None:
    asked, engine = requests(6), Engine(paged=True, check_every=4, graphs=False, pages=40, page_size=4)
    samples = run(asked, settings(24, limit=40), engine)
    assert recorded[0].prefilled > sum(len(request.token_ids) - 1 for request in asked)  # some were prefilled again
    for (i, _), completion in samples.items():
        expected = full_logprobs(MODEL, list(asked[i].token_ids), completion.token_ids, 1.0)
        assert (expected - torch.tensor(completion.logprobs)).abs().max() < 1e-5


@pytest.mark.parametrize(("page_size", "check_every"), [(1, 1), (4, 3), (16, 8)])
def test_a_pool_that_barely_holds_one_completion_draws_the_same(
    page_size: int, check_every: int, recorded: list[Recorded]
) -> None:
    asked, chosen = requests(5), settings(20, limit=30)
    alone = math.ceil((11 - 1 + 30) / page_size)
    engine = Engine(paged=True, check_every=check_every, graphs=True, pages=alone, page_size=page_size)
    assert_same(run(asked, chosen, engine), run(asked, chosen))
    assert alone - 2 <= recorded[0].most <= alone
    polled: list[int] = []
    small = Engine(paged=True, check_every=8, graphs=False, pages=alone - 1, page_size=page_size)
    with pytest.raises(UserError, match=r"needs .* GiB of KV cache, but .* lower sampling.max_new_tokens"):
        list(generate(MODEL, asked, chosen, polled.append, small))
    assert polled == []


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_lengths_and_any_pool_draw_the_same(data: st.DataObject) -> None:
    prompts = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5), label="prompt lengths")
    asked = [
        Request([2 + (3 * i + j) % (VOCAB - 2) for j in range(n)], [key(7, i, s) for s in range(1 + i % 3)])
        for i, n in enumerate(prompts)
    ]
    limit, page_size = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 9))
    pages = math.ceil((max(prompts) + limit) / page_size) + data.draw(st.integers(0, 12))
    engine = Engine(True, data.draw(st.integers(1, 9)), data.draw(st.booleans()), pages, page_size)
    chosen = settings(data.draw(st.integers(1, 12)), limit=limit)
    assert_same(run(asked, chosen, engine), run(asked, chosen))


def test_completions_of_a_prompt_share_its_full_pages(recorded: list[Recorded]) -> None:
    """Prompt of 41, of which 40 are prefilled: 5 pages of 8. One new token each takes a page a row more."""
    request = Request(list(range(2, 39)) + [5, 6, 7, 8], [key(0, s) for s in range(16)])
    run([request], settings(16, limit=1), Engine(True, 1, False, pages=100, page_size=8))
    assert recorded[0].most == 5 + 16
    assert recorded[0].prefilled == 40


def test_late_siblings_share_too_and_get_their_own_last_page(recorded: list[Recorded]) -> None:
    """Four slots for 12 completions of one prompt: it is prefilled once, and its tail page is copied."""
    request = Request(list(range(2, 39)) + [5, 6], [key(0, s) for s in range(12)])
    engine = Engine(True, 1, False, pages=100, page_size=8)
    assert_same(run([request], settings(4), engine), run([request], settings(12)))
    assert recorded[0].prefilled == 38


def test_books_of_pages() -> None:
    cache = PagedCache(small_model().config, 4, 40, 10, torch.device("cpu"), torch.float32, page_size=4)
    cache.prefill(torch.tensor([0, 10]), [[0, 2]])  # 2 shared pages, and a tail of 2 positions each
    assert (cache.spare, cache._counts.max()) == (6, 2)
    assert cache.extend(np.array([11, 0, 12, 0]))  # still within the tails
    assert cache.spare == 6
    assert cache.extend(np.array([13, 0, 17, 1]))  # one, two and one page, in one go
    assert cache.spare == 2
    assert len({int(page) for row in cache.table for page in row if page}) == 8
    before = cache.table.clone()
    assert not cache.extend(np.array([13, 13, 17, 1]))  # 4 are wanted: nothing happens
    assert torch.equal(before, cache.table)
    assert cache.spare == 2
    cache.free([0])
    assert cache.spare == 4  # the shared pages are row 2's still
    cache.free([2, 3])
    assert cache.spare == 10


def test_plain_attention_is_softmax_over_the_rows_own_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 7, 4, 2, 8, generator=generator)
    q = torch.randn(3, 6, 8, generator=generator)
    table = torch.tensor([[3, 1], [5, 0], [2, 6]], dtype=torch.int32)
    lengths = torch.tensor([7, 1, 8], dtype=torch.int32)
    out = plain_attention(q, keys, values, table, lengths)
    for row in range(3):
        k, v = (x[table[row].long()].flatten(0, 1)[: lengths[row]] for x in (keys, values))
        for head in range(6):
            p = (k[:, head // 3] @ q[row, head] / 8**0.5).softmax(0)
            assert torch.allclose(out[row, head], p @ v[:, head // 3], atol=1e-6)


def test_buckets_pad_to_powers_of_two_and_to_the_slots() -> None:
    assert buckets(5) == [5]
    assert buckets(100) == [8, 16, 32, 64, 100]
    assert buckets(256) == [8, 16, 32, 64, 128, 256]
    asked: list[int] = []

    def step(rows: int) -> torch.Tensor:
        asked.append(rows)
        return torch.zeros(rows)

    decode = Buckets(step, torch.zeros(5, 100, dtype=torch.int64), capture=False)
    assert [len(decode(rows)) for rows in (1, 8, 9, 64, 65, 100)] == [8, 8, 16, 64, 100, 100]


def test_parameters_keep_their_storage_in_an_optimizer_step() -> None:
    """A CUDA graph reads the weights at their addresses."""
    for dtype in (torch.float32, torch.bfloat16):
        model = small_model()
        optimizer = make_optimizer(model, OptimizerConfig(lr=0.1), dtype=dtype)
        addresses = [parameter.data_ptr() for parameter in model.parameters()]
        before = model.norm.detach().clone()
        for _ in range(2):
            optimizer.zero_grad()
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step(0.1)
        assert [parameter.data_ptr() for parameter in model.parameters()] == addresses
        assert not torch.equal(before, model.norm)


def test_memory_arithmetic_of_qwen_1_5b() -> None:
    """28 layers x 2 x 2 heads x 128 x 2 bytes per token; 8000 tokens after 500 are 133 pages of 64."""
    bf16 = torch.bfloat16
    assert kv_bytes(QWEN, bf16.itemsize) == 28_672
    page = 64 * 28_672
    layer, logits = 2048 * (4 * 8960 + 3 * 1536) * 2, 2 * 64 * 151_936 * (4 * 4 + 2)
    assert workspace_bytes(QWEN, 64, bf16) == layer + logits + (1 << 29) == 1_052_606_464
    free = workspace_bytes(QWEN, 80, bf16) + 16 * (1 << 30)
    assert pool_pages(QWEN, bf16, free, 80, 500, 8000, 64) == int(16 * (1 << 30) * 0.95 // page) - 1
    assert pool_pages(QWEN, bf16, 1 << 50, 64, 500, 8000, 64) == 64 * 133
    with pytest.raises(UserError, match=r"a prompt of 500 tokens with sampling.max_new_tokens=8000 needs 0\.23 GiB"):
        pool_pages(QWEN, bf16, workspace_bytes(QWEN, 64, bf16) + 100 * page, 64, 500, 8000, 64)
    free = workspace_bytes(QWEN, 256, bf16) + 16 * (1 << 30)
    assert automatic_slots(QWEN, bf16, free, 500, 8000, gpu=True) == int(16 * 0.95 * (1 << 30) / (2500 * 28_672)) == 227
    assert automatic_slots(QWEN, bf16, 1 << 50, 500, 8000, gpu=True) == 256
    assert automatic_slots(QWEN, bf16, 0, 500, 8000, gpu=True) == 1
    assert automatic_slots(QWEN, bf16, 1 << 50, 500, 8000, gpu=False) == 128
    assert automatic_slots(QWEN, bf16, 2 * 10 * 8500 * 28_672, 500, 8000, gpu=False) == 10
    assert 1 << 20 < free_memory(torch.device("cpu")) < 1 << 50


def test_slots_of_0_are_automatic(recorded: list[Recorded]) -> None:
    asked = requests(3)
    for engine in (None, PAGED, Engine(True, 8, True, page_size=16)):
        assert_same(run(asked, settings(0, limit=20), engine), run(asked, settings(9, limit=20)))
    assert open_deck(MODEL, Engine.of(MODEL), 0, 1000, 20, 60).slots == 128
    assert open_deck(MODEL, Engine.of(MODEL), 0, 10, 20, 60).slots == 10
    assert Engine.of(MODEL) == Engine(paged=False, check_every=1, graphs=False)

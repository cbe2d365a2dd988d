"""Numerics 1 and 2: sampled logprobs are those of a full forward, and no completion depends on its neighbours."""

import pytest
import torch

from r1v0.base.keys import key
from r1v0.models import attention
from r1v0.models.attention import packed
from r1v0.models.transformer import Transformer
from r1v0.sampling.engine import Engine
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Completion
from tests.helpers import EOS, VOCAB, small_model
from tests.models.test_attention import varlen_2_13

pytestmark = pytest.mark.numeric

Samples = dict[tuple[int, int], Completion]


def requests(count: int = 9, group: int = 4) -> list[Request]:
    """Ragged prompts of 1 to 13 tokens, the shortest with nothing to prefill."""
    prompts = [[(7 * i + 3 * j) % (VOCAB - 2) + 2 for j in range(1 + (5 * i) % 13)] for i in range(count)]
    return [Request(prompt, [key(0, "test", i, s) for s in range(group)]) for i, prompt in enumerate(prompts)]


def settings(slots: int, limit: int = 60, temperature: float = 1.0) -> SamplingSettings:
    return SamplingSettings(temperature, limit, slots, frozenset([EOS]))


def sample(model: Transformer, asked: list[Request], chosen: SamplingSettings) -> Samples:
    return {(i, s): completion for i, s, completion in generate(model, asked, chosen)}


def full_logprobs(model: Transformer, prompt: list[int], completion: list[int], temperature: float) -> torch.Tensor:
    tokens = torch.tensor(prompt + completion)
    with torch.no_grad():
        hidden = model(tokens, torch.arange(len(tokens)), packed(torch.tensor([0, len(tokens)])))
        logprobs = (model.head(hidden) / temperature).log_softmax(-1)
    return logprobs[len(prompt) - 1 : -1].gather(1, tokens[len(prompt) :, None]).squeeze(1)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("slots", [3, 8, 64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logprobs_equal_one_full_forward(kv_heads: int, slots: int, temperature: float) -> None:
    model, asked = small_model(kv_heads=kv_heads), requests()
    samples = sample(model, asked, settings(slots, temperature=temperature))
    assert len(samples) == 36
    assert len({len(c.token_ids) for c in samples.values()}) > 5  # ragged: rows ended and slots were used again
    for (i, _), completion in samples.items():
        expected = full_logprobs(model, list(asked[i].token_ids), completion.token_ids, temperature)
        assert (expected - torch.tensor(completion.logprobs)).abs().max() < 1e-5


def test_completions_do_not_depend_on_slots_order_or_neighbours() -> None:
    model, asked = small_model(), requests()
    expected = {place: c.token_ids for place, c in sample(model, asked, settings(36)).items()}
    for slots in (1, 5, 17, 100):
        assert {place: c.token_ids for place, c in sample(model, asked, settings(slots)).items()} == expected
    backwards = sample(model, asked[::-1], settings(7))
    assert {(len(asked) - 1 - i, s): c.token_ids for (i, s), c in backwards.items()} == expected
    for i, request in enumerate(asked):
        alone = sample(model, [Request(request.token_ids, request.keys[2:3])], settings(4))
        assert alone[0, 0].token_ids == expected[i, 2]


def test_other_keys_give_other_completions() -> None:
    model, prompt = small_model(), [5, 6, 7]
    samples = sample(model, [Request(prompt, [key(seed, "x") for seed in range(20)])], settings(20))
    assert len({tuple(c.token_ids) for c in samples.values()}) == 20


def test_finish_reasons_and_limit() -> None:
    for completion in sample(small_model(), requests(), settings(8, limit=6)).values():
        assert len(completion.token_ids) == len(completion.logprobs) <= 6
        assert (completion.finish_reason == "stop") == (completion.token_ids[-1] == EOS)
        assert EOS not in completion.token_ids[:-1]
        assert completion.finish_reason == "stop" or len(completion.token_ids) == 6


def test_greedy_takes_the_likeliest_token() -> None:
    model, prompt = small_model(), [9, 4, 30]
    (completion,) = sample(model, [Request(prompt, [0])], settings(1, limit=20, temperature=0)).values()
    tokens = list(prompt)
    for token in completion.token_ids:
        with torch.no_grad():
            hidden = model(torch.tensor(tokens), torch.arange(len(tokens)), packed(torch.tensor([0, len(tokens)])))
            assert int(model.head(hidden[-1:]).argmax()) == token
        tokens.append(token)


def test_a_stop_test_ends_a_completion_only_after_a_candidate() -> None:
    model, asked = small_model(), requests()
    asked_about: list[int] = []

    def stops(token_ids: object) -> bool:
        assert isinstance(token_ids, list)
        asked_about.append(token_ids[-1])
        return len(token_ids) >= 3

    free = sample(model, asked, settings(8))
    candidates = frozenset(range(2, 20))
    stopped = sample(model, asked, SamplingSettings(1.0, 60, 8, frozenset([EOS]), candidates, stops))
    assert set(asked_about) <= candidates
    for place, completion in stopped.items():
        whole = free[place].token_ids
        cut = next((n + 1 for n, token in enumerate(whole) if n >= 2 and token in candidates), len(whole))
        assert completion.token_ids == whole[:cut]


def test_polling_counts_every_token_and_may_stop_the_sampling() -> None:
    counted: list[int] = []
    samples = sample(small_model(), requests(), settings(5))
    for _ in generate(small_model(), requests(), settings(5), counted.append):
        pass
    assert sum(counted) == sum(len(c.token_ids) for c in samples.values())

    def stop(_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        next(generate(small_model(), requests(), settings(5), stop))


def test_no_requests_no_completions() -> None:
    assert sample(small_model(), [], settings(4)) == {}


LONG = [
    [(11 * i + 3 * j) % (VOCAB - 2) + 2 for j in range(length)] for i, length in enumerate((61, 5, 200, 64, 1, 65, 17))
]
ENGINES = [
    None,
    Engine(paged=True, check_every=3, graphs=True, pages=400, page_size=16),
    Engine(paged=True, check_every=1, graphs=False, pages=40, page_size=8),  # rows are preempted and prefilled again
]


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("piece", [1, 16, 21, 64])
def test_a_prefill_in_pieces_changes_no_token(
    engine: Engine | None, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of more than a piece, of exactly one, of less; several completions a prompt; slots that are used
    again."""
    model = small_model()
    asked = [Request(prompt, [key(0, "long", i, s) for s in range(3)]) for i, prompt in enumerate(LONG)]
    whole = sample(model, asked, settings(5, limit=30))
    monkeypatch.setattr("r1v0.sampling.sampler.PREFILL_TOKENS", piece)
    found = {(i, s): completion for i, s, completion in generate(model, asked, settings(5, limit=30), engine=engine)}
    assert found.keys() == whole.keys()
    for (i, s), completion in found.items():
        assert completion.token_ids == whole[i, s].token_ids
        expected = full_logprobs(model, LONG[i], completion.token_ids, 1.0)
        assert (expected - torch.tensor(completion.logprobs)).abs().max() < 1e-5


@pytest.mark.parametrize("engine", ENGINES[:2], ids=str)
def test_sampling_may_be_stopped_between_the_pieces_of_a_prefill(
    engine: Engine | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of 200 tokens, of which 199 are prefilled, 30 at a time: seven pieces before the first token."""
    monkeypatch.setattr("r1v0.sampling.sampler.PREFILL_TOKENS", 30)
    asked, polled, passes = [Request(LONG[2], [1, 2])], list[int](), list[int]()
    model = small_model()
    model.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    list(generate(model, asked, settings(2, limit=2), polled.append, engine))
    assert polled[:8] == [0] * 7 + [4 if engine else 2]
    assert passes[:7] == [30] * 6 + [19]

    def stop(_: int) -> None:
        if len(passes) == 3:
            raise InterruptedError

    passes.clear()
    with pytest.raises(InterruptedError):
        list(generate(model, asked, settings(2, limit=2), stop, engine))
    assert passes == [30] * 3


@pytest.mark.parametrize("n", [1, 5, 70, 90])
def test_the_last_queries_see_the_whole_sequence(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's plain attention, and by a variable-length kernel: the last rows of attention over all 90 tokens."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(90, heads, 8, generator=generator) for heads in (4, 2, 2))
    expected = packed(torch.tensor([0, 90]))(0, q, k, v)[-n:]
    assert (attention.last_queries(q[-n:], k, v) - expected).abs().max() < 1e-6
    monkeypatch.setattr(attention, "_varlen_for", lambda q: attention.adapt_varlen(varlen_2_13))
    assert (attention.last_queries(q[-n:], k, v) - expected).abs().max() < 1e-6

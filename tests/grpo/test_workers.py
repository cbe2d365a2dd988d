"""Threads that train side by side: the same gradient, the same bits each time, and nothing left behind by an error."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from r1v0.base.errors import Interrupted, UserError
from r1v0.config import VARIANTS, GrpoConfig, resolve
from r1v0.grpo import budget as budgets
from r1v0.grpo.batch import deal, make_updates, split
from r1v0.grpo.budget import Budget
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.grpo.optimizer import make_optimizer
from r1v0.models import sizes, workers
from r1v0.models.lora import Lora, add_adapters
from r1v0.models.transformer import Transformer
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Batch, Completion
from tests.helpers import PlainSgd, assert_same_weights, random_groups, small_model, small_policy, trained
from tests.trainer.test_loop import assert_same_run, go_on, small_config, start

pytestmark = pytest.mark.numeric

GRPO = GrpoConfig(variant="grpo", **VARIANTS["grpo"])
THREADS = 3


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small batches are worth dealing out, and PyTorch has three threads."""
    monkeypatch.setattr(sizes, "FEWEST_TOKENS", 20)
    monkeypatch.setattr(budgets, "FEWEST_TOKENS", 20)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def batch_of(seed: int = 1, count: int = 6) -> Batch:
    (batch,) = make_updates(random_groups(seed, count=count, flat=0), GRPO, 32, 0)
    return batch


def loss_of(model: Transformer, micro: Batch) -> tuple[int, int]:
    """Add the gradient; the scored tokens, and the thread that did it."""
    policy_loss(token_logprobs(model, micro, 1.0).logprobs, micro, GRPO)[0].backward()
    return int((micro.weights != 0).sum()), threading.get_ident()


def gradient(
    model: Transformer, tokens: int, batch: Batch, work: Callable[[Transformer, Batch], tuple[int, int]] = loss_of
) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    optimizer = make_optimizer(model, resolve("countdown").optimizer)
    done = Budget(tokens).accumulate(batch, model, optimizer.zero_grad, work)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, done


def alone(model: Transformer, batch: Batch) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    found, _ = gradient(model, 10**6, batch)
    torch.set_num_threads(THREADS)
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 0
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert (one - expected[name]).abs().max() < 1e-6 * scale, name


@pytest.mark.parametrize("tokens", [60, 150, 10**6])
@pytest.mark.parametrize("kind", ["whole", "adapters", "checkpointed"])
def test_three_workers_have_the_gradient_of_one(tokens: int, kind: str) -> None:
    batch, models = batch_of(), [small_model(scale=4.0), small_model(scale=4.0)]
    for model in models:
        model.checkpoint_activations = kind == "checkpointed"
        if kind == "adapters":
            add_adapters(model, Lora(2, 4.0, "base"), seed=0)
    found, done = gradient(models[0], tokens, batch)
    assert_same(found, alone(models[1], batch))
    assert sum(scored for scored, _ in done) == int((batch.weights != 0).sum())  # each completion token once
    assert 1 < len({thread for _, thread in done}) <= THREADS
    assert torch.get_num_threads() == THREADS


def test_the_same_threads_give_the_same_bits() -> None:
    first, second = (gradient(small_model(scale=4.0), 100, batch_of())[0] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_step_updates_as_with_one_thread() -> None:
    sets = ["optimizer.micro_batch_tokens=120", "optimizer.warmup_steps=0", "optimizer.lr=300.0"]
    config = resolve("countdown", sets=sets)
    groups, results = random_groups(3, count=6, flat=1), []
    for threads in (1, THREADS, THREADS):
        torch.set_num_threads(threads)
        policy = small_policy(scale=4.0)
        readings = trained(policy, PlainSgd(policy.model, config.optimizer), groups, config, 1)
        results.append((readings, policy.model))
    (one, model), (three, other), (_, again) = results
    assert three.tokens == one.tokens
    assert three.loss == pytest.approx(one.loss, abs=1e-6)
    assert three.entropy == pytest.approx(one.entropy, rel=1e-5)
    assert three.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert_same_weights(other, model, small_policy(scale=4.0).model)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), again.parameters(), strict=True))


def test_an_update_without_tokens_is_no_work() -> None:
    (empty,) = make_updates(random_groups(1, count=3, flat=3), GRPO, 32, 0)
    found, done = gradient(small_model(), 100, empty)
    assert done == []
    assert all(not grad.any() for grad in found.values())


@pytest.mark.parametrize("error", [Interrupted(), UserError("what to do"), RuntimeError("mat1 and mat2 shapes")])
def test_an_error_in_any_worker_is_raised_when_all_have_ended(error: Exception) -> None:
    main, at_work = threading.get_ident(), threading.active_count()

    def work(model: Transformer, micro: Batch) -> tuple[int, int]:
        if threading.get_ident() != main:
            raise error
        return loss_of(model, micro)

    with pytest.raises(type(error)) as raised:
        gradient(small_model(), 100, batch_of(), work)
    assert raised.value is error
    assert threading.active_count() == at_work
    assert torch.get_num_threads() == THREADS


@pytest.mark.parametrize("backward", [False, True])
def test_out_of_memory_beside_others_does_not_change_the_gradient(backward: bool) -> None:
    """Each worker fails once, at its second micro-batch; the budget is halved and said to be so."""
    batch, seen, notes = batch_of(), dict[int, int](), list[str]()
    model = small_model(scale=4.0)
    optimizer, budget = make_optimizer(model, resolve("countdown").optimizer), Budget(150)
    budget.note = notes.append
    raised = []

    def work(model: Transformer, micro: Batch) -> tuple[int, int]:
        thread = threading.get_ident()
        seen[thread] = seen.get(thread, 0) + 1
        result = loss_of(model, micro) if backward else (0, 0)
        if seen[thread] == 2:
            raised.append(micro.token_ids.shape[0])
            raise torch.OutOfMemoryError("out of memory")
        return result if backward else loss_of(model, micro)

    budget.accumulate(batch, model, optimizer.zero_grad, work)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same(found, alone(small_model(scale=4.0), batch))
    assert len(raised) >= 2
    assert budget.tokens < 150
    assert "same gradient" in notes[-1]
    assert len(set(notes)) == len(notes)


def test_a_completion_that_fits_only_alone_gets_the_memory_for_itself() -> None:
    batch, model = batch_of(), small_model(scale=4.0)
    optimizer, budget = make_optimizer(model, resolve("countdown").optimizer), Budget(90, "set what")
    main = threading.get_ident()
    held: list[int] = []

    def work(model: Transformer, micro: Batch) -> tuple[int, int]:
        if threading.get_ident() != main:
            held.append(1)
            raise MemoryError
        return loss_of(model, micro)

    budget.accumulate(batch, model, optimizer.zero_grad, work)  # in the end with this thread alone
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same(found, alone(small_model(scale=4.0), batch))
    assert held
    assert budget.tokens == 20

    def never(model: Transformer, micro: Batch) -> tuple[int, int]:
        raise MemoryError

    with pytest.raises(UserError, match="out of memory in training on one completion"):
        budget.accumulate(batch, model, optimizer.zero_grad, never)


@pytest.mark.parametrize("share", [0.5, 1.0, 1.9, 2.0, 3.0])
def test_no_more_tokens_are_at_work_than_the_budget_has(share: float) -> None:
    """Unless one sequence is longer, which is then worked on alone."""
    batch, lock, at_work, most = batch_of(), threading.Lock(), list[int](), [0]
    longest = int(batch.positions.max()) + 1
    tokens = int(share * longest)

    def work(model: Transformer, micro: Batch) -> tuple[int, int]:
        size = micro.token_ids.shape[0]
        with lock:
            at_work.append(size)
            most[0] = max(most[0], sum(at_work))
        try:
            return loss_of(model, micro)
        finally:
            with lock:
                at_work.remove(size)

    _, done = gradient(small_model(), tokens, batch, work)
    assert most[0] <= max(tokens, longest)
    assert len({thread for _, thread in done}) == 1 if share < 2 else len(done) > 1


def test_a_twin_has_the_same_memory_and_gradients_of_its_own() -> None:
    model = small_model()
    model.embed.weight.requires_grad_(False)
    other = workers.twin(model)
    for (name, mine), (also, its) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert (name, mine.data_ptr(), mine.requires_grad) == (also, its.data_ptr(), its.requires_grad)
        assert mine is not its
    loss_of(other, batch_of())
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        model.norm.add_(1.0)
    assert torch.equal(other.norm, model.norm)


def test_calls_side_by_side_share_the_threads() -> None:
    def call() -> tuple[int, int]:
        return torch.get_num_threads(), threading.get_ident()

    torch.set_num_threads(4)
    two = workers.side_by_side([call, call])
    assert [threads for threads, _ in two] == [2, 2]
    assert two[0][1] == threading.get_ident() != two[1][1]
    assert workers.side_by_side([call]) == [(4, threading.get_ident())]
    assert [threads for threads, _ in workers.side_by_side([call] * 5)] == [1] * 5
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_completions_are_dealt_out_once_each_and_evenly(shares: int) -> None:
    batch = batch_of(count=8)
    parts = deal(batch, shares, equal_keys=50.0)
    assert len(parts) == shares
    whole = [(b.token_ids.tolist(), b.positions.tolist()) for b in split(batch, 1)]  # one completion with its prompt
    dealt = [(b.token_ids.tolist(), b.positions.tolist()) for part in parts for b in split(part, 1)]
    assert dealt == whole
    work = [float((1 + part.positions[part.weights != 0] / 50).sum()) for part in parts]
    longest = max(float((1 + b.positions[b.weights != 0] / 50).sum()) for b in split(batch, 1))
    prompts = max(int((b.weights == 0).sum()) for b in split(batch, 1)) * 8 / shares  # these cost, too
    assert max(work) - min(work) <= 2 * (longest + prompts)
    for name in ("weights", "advantages", "sample_logprobs"):
        found = sum(float(getattr(part, name).sum()) for part in parts)
        assert found == pytest.approx(float(getattr(batch, name).sum()), abs=1e-4)


def test_fewer_completions_than_workers() -> None:
    batch = next(iter(split(batch_of(), 1)))
    (part,) = [part for part in deal(batch, 5, equal_keys=100.0) if part.token_ids.numel()]
    assert torch.equal(part.token_ids, batch.token_ids)
    assert len(deal(batch, 5, equal_keys=100.0)) == 5


@pytest.mark.parametrize("smallest", [0, 1 << 30])
def test_threads_do_not_change_what_is_sampled(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SMALLEST", smallest)
    requests = [Request(list(range(3, 3 + n)), [10 * n + i for i in range(3)]) for n in (5, 9, 1, 30)]
    settings = SamplingSettings(1.0, 40, 7, frozenset({1}))
    found, seen = list[dict[tuple[int, int], Completion]](), set[int]()
    for threads in (1, THREADS):
        torch.set_num_threads(threads)
        found.append({})
        for i, sample, completion in generate(small_model(scale=4.0), requests, settings):
            found[-1][i, sample] = completion
            seen.add(torch.get_num_threads())
        assert torch.get_num_threads() == threads
    one, several = found
    assert seen == ({1} if smallest else {1, THREADS})
    for place, completion in one.items():
        assert several[place].token_ids == completion.token_ids
        assert several[place].logprobs == pytest.approx(completion.logprobs, abs=2e-5)


def test_the_number_of_threads_returns_when_sampling_is_given_up() -> None:
    drawn = generate(small_model(), [Request([3, 4], [1, 2])], SamplingSettings(1.0, 20, 2, frozenset({1})))
    next(drawn)
    assert torch.get_num_threads() == 1
    drawn.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == THREADS


def test_a_resumed_run_of_several_threads_is_the_uninterrupted_one(tmp_path: Path) -> None:
    sets = ["grpo.groups=3", "sampling.max_new_tokens=32", "eval.on=[]", f"threads={THREADS}", "grpo.minibatches=2"]
    config = small_config("steps=2", "checkpoints.every=1", *sets)
    start(config, tmp_path / "whole")
    start(config, tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "step-00002").rename(tmp_path / "gone")
    go_on(tmp_path / "part")
    assert torch.get_num_threads() == THREADS
    assert_same_run(tmp_path / "whole", tmp_path / "part")

"""Micro-batches that shrink when memory runs out: the same gradient, whatever broke off where."""

import pytest
import torch
from torch import Tensor

from r1v0.base.errors import Interrupted, UserError
from r1v0.config import VARIANTS, GrpoConfig, resolve
from r1v0.grpo import budget as budgets
from r1v0.grpo.batch import make_updates, split
from r1v0.grpo.budget import Budget, first_budget, is_out_of_memory
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.grpo.memory_probe import longest_case, probe
from r1v0.grpo.optimizer import make_optimizer
from r1v0.models.memory import FIXED_BYTES
from r1v0.models.sizes import CPU_TOKENS, HEAD_BYTES, token_bytes
from r1v0.models.transformer import Transformer
from r1v0.types import Batch
from tests.helpers import PlainSgd, assert_same_weights, random_groups, small_model, small_policy, trained

pytestmark = pytest.mark.numeric

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]
GRPO = GrpoConfig(variant="grpo", **VARIANTS["grpo"])


class Failing:
    """A model's hooks that raise out of memory at the n-th visit of a place, and where a pass has more than `room`
    tokens."""

    def __init__(self, model: Transformer, layer: int, backward: bool, visits: set[int], room: int = 10**6) -> None:
        self.visits, self.room, self.seen, self.raised = visits, room, 0, 0
        block = model.layers[layer]
        if backward:
            block.register_full_backward_hook(lambda _, grad, out: self.visit(out[0]))  # type: ignore[index]
        else:
            block.register_forward_pre_hook(lambda _, args: self.visit(args[0]))

    def visit(self, x: Tensor) -> None:
        self.seen += 1
        if self.seen in self.visits or x.shape[0] > self.room:
            self.raised += 1
            raise torch.OutOfMemoryError("CUDA out of memory") if self.raised % 2 else MemoryError


def batch_of(seed: int = 1) -> Batch:
    (batch,) = make_updates(random_groups(seed, count=6, flat=0), GRPO, 32, 0)
    return batch


def gradient(model: Transformer, budget: Budget, batch: Batch) -> tuple[dict[str, Tensor], list[int]]:
    """The gradients, and the tokens of each micro-batch that got through."""
    optimizer = make_optimizer(model, resolve("countdown").optimizer)

    def work(model: Transformer, micro: Batch) -> int:
        policy_loss(token_logprobs(model, micro, 1.0).logprobs, micro, GRPO)[0].backward()
        return int((micro.weights != 0).sum())

    done = budget.accumulate(batch, model, optimizer.zero_grad, work)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, done


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(("tokens", "visits"), [(100, {1}), (100, {2}), (100, {4}), (10**6, {1, 2}), (150, {2, 4})])
def test_an_out_of_memory_error_does_not_change_the_gradient(
    backward: bool, layer: int, tokens: int, visits: set[int]
) -> None:
    """At the first or a later micro-batch, before anything was added to a gradient or after half of it was."""
    batch = batch_of()
    expected, _ = gradient(small_model(scale=4.0), Budget(tokens), batch)
    model, budget = small_model(scale=4.0), Budget(tokens)
    notes: list[str] = []
    budget.note = notes.append
    failing = Failing(model, layer, backward, visits)
    found, done = gradient(model, budget, batch)
    assert failing.raised == len(visits) == len(notes)
    assert sum(done) == int((batch.weights != 0).sum())  # each completion token once
    scale = max(float(g.abs().max()) for g in expected.values())
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert (one - expected[name]).abs().max() < 1e-6 * scale, name
    assert budget.tokens <= tokens // 2


def test_the_budget_stays_smaller_and_says_so_once() -> None:
    model, budget = small_model(), Budget(10**6)
    notes: list[str] = []
    budget.note = notes.append
    failing = Failing(model, 1, False, set(), room=60)
    gradient(model, budget, batch_of())
    assert 30 <= budget.tokens <= 60
    told, raised = len(notes), failing.raised
    assert told == raised
    assert "same gradient" in notes[0]
    gradient(model, budget, batch_of(2))
    assert (len(notes), failing.raised) == (told, raised)


def test_a_failure_in_the_forward_pass_repeats_only_what_failed() -> None:
    model, budget = small_model(), Budget(100)
    parts = [part.token_ids.shape[0] for part in split(batch_of(), 100)]
    assert len(parts) > 2
    failing = Failing(model, 0, False, {2})
    _, done = gradient(model, budget, batch_of())
    assert failing.seen == len(done) + 1


def test_a_completion_that_does_not_fit_alone_is_the_users() -> None:
    model = small_model()
    budget = first_budget(resolve("countdown"), model)
    Failing(model, 0, True, set(), room=3)
    with pytest.raises(
        UserError, match=r"one completion, \d+ tokens.*compute.checkpoint_activations=true.*max_new_tokens"
    ):
        gradient(model, budget, batch_of())


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Interrupted()])
def test_other_errors_are_not_swallowed(error: Exception) -> None:
    def work(model: Transformer, micro: Batch) -> int:
        raise error

    with pytest.raises(type(error)):
        Budget(100).accumulate(batch_of(), small_model(), lambda: None, work)


@pytest.mark.parametrize("error", ERRORS)
def test_what_running_out_of_memory_looks_like(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_cpus_allocator_says_what_is_expected() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_a_failed_attempt_holds_no_memory() -> None:
    held: list[int] = []

    class Activations:
        def __del__(self) -> None:
            held.remove(1)

    def work(micro: Batch) -> int:
        activations = Activations()
        held.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory") if activations else ValueError

    assert budgets.attempt(work, batch_of()) == []
    assert held == []


def test_a_training_step_goes_on_after_an_error() -> None:
    sets = ["optimizer.micro_batch_tokens=120", "optimizer.warmup_steps=0", "optimizer.lr=300.0"]
    config = resolve("countdown", sets=sets)
    groups = random_groups(3, count=6, flat=1)
    results = []
    for visits in (set(), {2}):
        policy = small_policy(scale=4.0)
        failing = Failing(policy.model, 1, True, visits)
        readings = trained(policy, PlainSgd(policy.model, config.optimizer), groups, config, 1)
        assert failing.raised == len(visits)
        results.append((readings, policy.model))
    (undisturbed, one), (disturbed, other) = results
    assert disturbed.tokens == undisturbed.tokens
    assert disturbed.loss == pytest.approx(undisturbed.loss, abs=1e-6)
    assert disturbed.entropy == pytest.approx(undisturbed.entropy, rel=1e-5)
    assert disturbed.grad_norm == pytest.approx(undisturbed.grad_norm, rel=1e-5)
    assert_same_weights(other, one, small_policy(scale=4.0).model)


def test_the_longest_case_is_a_batch_like_any_other() -> None:
    batch = longest_case(prompt=5, completion=30, tokens=100, vocab=40)
    assert batch.cu_seqlens.diff().tolist() == [5, 30, 30, 30, 5]
    assert batch.parents.tolist() == [-1, 0, 0, 0, 0]
    assert batch.positions.tolist() == [*range(5), *[*range(5, 35)] * 3, *range(5, 10)]
    assert longest_case(5, 30, 20, 40).cu_seqlens.diff().tolist() == [5, 30]
    model = small_model()
    found, _ = gradient(model, Budget(10**6), batch)
    assert all(bool(g.isfinite().all()) for g in found.values())


def test_bytes_of_a_token_by_hand() -> None:
    """hidden 32, 3 layers, 4 heads and 2 KV heads of 8, intermediate 48: a layer keeps 4 x 32 + (16 + 10) x 8 + 4 x 48
    = 528."""
    config = small_model().config
    head = 32 * (2 * 4 + 4)
    assert token_bytes(config, 4, False) == (3 * 528 + 528) * 4 + head
    assert token_bytes(config, 4, True) == (3 * 32 + 528 + 528) * 4 + head


@pytest.mark.parametrize(
    ("free", "peak", "expected"),
    [
        (10**9, 10**7, 1 << 15),  # far more memory than the most that is of use
        (10**7, 9 * 10**6, 2304),  # 0.9 x (1e7 - gradients) / (9e6 - gradients) x 2432 tokens, in whole 256s
        (10**6, 10**8, 256),
    ],
)
def test_the_probe_corrects_an_automatic_budget(
    free: int, peak: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, passes = small_model(), []
    monkeypatch.setattr(budgets, "on_gpu", lambda model: True)
    monkeypatch.setattr("r1v0.grpo.memory_probe.on_gpu", lambda model: True)
    monkeypatch.setattr("r1v0.models.memory.free_memory", lambda device: free)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    budget = Budget(2432, automatic=True)
    notes: list[str] = []
    budget.note = notes.append

    def work(model: Transformer, micro: Batch) -> int:
        passes.append(micro.token_ids.shape[0])
        return 1

    probe(budget, model, 20, 300, lambda: None, work)
    assert passes == [2432]
    assert budget.tokens == expected
    assert len(notes) == 1
    fixed = Budget(2432)
    probe(fixed, model, 20, 300, lambda: None, lambda model, micro: True)
    assert fixed.tokens == 2432  # what the user chose is probed, not raised


def test_the_longest_sequence_is_probed_even_if_it_is_longer_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "on_gpu", lambda model: True)
    monkeypatch.setattr("r1v0.grpo.memory_probe.on_gpu", lambda model: True)
    monkeypatch.setattr("r1v0.models.memory.free_memory", lambda device: 10**9)
    for name in ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 10**6)

    def too_much(model: Transformer, micro: Batch) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="one completion, 320 tokens with its prompt: set what"):
        probe(Budget(100, "set what"), small_model(), 20, 300, lambda: None, too_much)


def test_on_a_cpu_the_probe_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    budget = first_budget(resolve("countdown", sets=["optimizer.micro_batch_tokens=0"]), small_model())
    assert (budget.tokens, budget.automatic) == (CPU_TOKENS, False)
    budget.note = notes.append

    def work(model: Transformer, micro: Batch) -> int:
        raise AssertionError

    probe(budget, small_model(), 20, 300, lambda: None, work)
    assert notes == []
    monkeypatch.setattr("r1v0.models.memory.free_memory", lambda device: 10**6)
    probe(budget, small_model(), 20, 300, lambda: None, work)
    assert "checkpoint_activations" in notes[0]


def test_automatic_on_a_gpu_is_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    monkeypatch.setattr(budgets, "on_gpu", lambda model: True)
    monkeypatch.setattr("r1v0.grpo.memory_probe.on_gpu", lambda model: True)
    each = token_bytes(model.config, 4, False)
    fixed = FIXED_BYTES + 3 * HEAD_BYTES
    parameters = 4 * sum(p.numel() for p in model.parameters())
    monkeypatch.setattr("r1v0.models.memory.free_memory", lambda device: parameters + (fixed + 5000 * each) / 0.9 + 1)
    budget = first_budget(resolve("countdown", sets=["optimizer.micro_batch_tokens=0"]), model)
    assert (budget.tokens, budget.automatic) == (5000 // 256 * 256, True)
    monkeypatch.setattr("r1v0.models.memory.free_memory", lambda device: 0)
    assert first_budget(resolve("countdown", sets=["optimizer.micro_batch_tokens=0"]), model).tokens == 256
    assert first_budget(resolve("countdown", sets=["optimizer.micro_batch_tokens=77"]), model).tokens == 77

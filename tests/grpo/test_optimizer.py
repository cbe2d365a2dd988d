"""AdamW by hand, master weights, the schedule, and saving it all."""

import math
from dataclasses import replace

import pytest
import torch

from r1v0.config import OptimizerConfig
from r1v0.grpo.optimizer import Optimizer, learning_rate, make_optimizer
from r1v0.models.sizes import buckets
from tests.helpers import small_model

pytestmark = pytest.mark.numeric

CONFIG = OptimizerConfig(lr=0.01, beta1=0.9, beta2=0.95, grad_clip=1e9)


def give_gradients(optimizer: Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in optimizer.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def test_first_update_by_hand() -> None:
    """Bias correction makes the first step lr * sign(g); decay lr * wd * w is on matrices only."""
    model = small_model()
    optimizer = make_optimizer(model, replace(CONFIG, weight_decay=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    give_gradients(optimizer, 0)
    signs = {name: p.grad.sign() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step(0.01)
    for name, parameter in model.named_parameters():
        decay = 0.01 * 0.1 * before[name] if parameter.dim() == 2 else 0.0
        assert torch.allclose(parameter, before[name] - decay - 0.01 * signs[name], atol=1e-5), name


def test_norm_is_reported_before_clipping_and_clipping_holds() -> None:
    optimizer = make_optimizer(small_model(), replace(CONFIG, grad_clip=0.5))
    give_gradients(optimizer, 1)
    gradients = [p.grad.flatten() for p in optimizer.parameters.values() if p.grad is not None]
    expected = float(torch.cat(gradients).norm())
    assert optimizer.step(0.01) == pytest.approx(expected, rel=1e-5)
    first_moments = [optimizer.adamw.state[master]["exp_avg"].flatten() for master in optimizer.masters.values()]
    assert float(torch.cat(first_moments).norm()) == pytest.approx(0.5 * (1 - 0.9), rel=1e-4)
    assert all(master.grad is None for master in optimizer.masters.values())  # their memory is for sampling


def test_small_updates_survive_in_float32_masters() -> None:
    """200 updates of 1e-6 move a bfloat16 model's masters by 2e-4, though its own weights cannot show one of them."""
    model = small_model(scale=1.0)
    exact = dict(model.named_parameters())["layers.0.qkv.weight"].detach().clone()
    optimizer = make_optimizer(model, CONFIG, torch.bfloat16)
    assert torch.equal(optimizer.masters["layers.0.qkv.weight"], exact)  # not the rounded ones
    name = "layers.0.qkv.weight"
    start = optimizer.masters[name].detach().clone()
    for _ in range(200):
        optimizer.zero_grad()
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1e-6)
    moved = start - optimizer.masters[name].detach()
    assert torch.allclose(moved, torch.full_like(moved, 2e-4), rtol=0.05)
    assert optimizer.parameters[name].dtype == torch.bfloat16
    assert torch.equal(optimizer.parameters[name], optimizer.masters[name].to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round(dtype: torch.dtype) -> None:
    one, two = make_optimizer(small_model(), CONFIG, dtype), make_optimizer(small_model(seed=5), CONFIG, dtype)
    for seed in range(3):
        give_gradients(one, seed)
        one.step(0.01)
    two.load_state_tensors({name: tensor.clone() for name, tensor in one.state_tensors().items()})
    for name, parameter in two.parameters.items():
        parameter.data.copy_(one.parameters[name])
    for optimizer in (one, two):
        give_gradients(optimizer, 9)
        optimizer.step(0.01)
    assert all(torch.equal(one.masters[name], two.masters[name]) for name in one.masters)


def test_an_update_without_gradients_still_moves_by_momentum() -> None:
    """As the dense computation does, whose gradients are zeros and not absent."""
    model = small_model()
    optimizer = make_optimizer(model, CONFIG)
    give_gradients(optimizer, 0)
    optimizer.step(0.01)
    before = model.norm.detach().clone()
    optimizer.zero_grad()
    assert optimizer.step(0.01) == 0.0
    assert not torch.equal(model.norm, before)


def test_schedule_by_hand() -> None:
    constant = OptimizerConfig(lr=1.0, warmup_steps=4)
    assert [learning_rate(constant, step, 100) for step in (1, 2, 4, 5, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = replace(constant, schedule="cosine")
    assert learning_rate(cosine, 4, 104) == 1.0
    assert learning_rate(cosine, 54, 104) == pytest.approx(0.55)
    assert learning_rate(cosine, 104, 104) == pytest.approx(0.1)
    assert learning_rate(replace(constant, warmup_steps=0), 1, 10) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offload_and_buckets_change_no_bit(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for offload, bucket in ((False, 1 << 26), (True, 1 << 26), (False, 3000), (True, 1)):
        monkeypatch.setattr("r1v0.models.sizes.BUCKET", bucket)
        optimizer = make_optimizer(
            small_model(), replace(CONFIG, grad_clip=0.5, weight_decay=0.1, offload=offload), dtype
        )
        norms = []
        for seed in range(3):
            give_gradients(optimizer, seed)
            norms.append(optimizer.step(0.01))
        assert all(p.grad is None for p in [*optimizer.parameters.values(), *optimizer.masters.values()])
        results.append((norms, optimizer.parameters, optimizer.masters))
    for norms, parameters, masters in results[1:]:
        assert norms == results[0][0]
        assert all(torch.equal(p, results[0][1][name]) for name, p in parameters.items())
        assert all(torch.equal(p, results[0][2][name]) for name, p in masters.items())


def test_buckets_are_filled_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 10 weights at a time: 6 and 4 fill one exactly, 5 and 6 do not fit into one, 20 is one of its own."""
    monkeypatch.setattr("r1v0.models.sizes.BUCKET", 10)
    sizes = {"a": 6, "b": 4, "c": 5, "d": 6, "e": 20, "f": 1, "g": 9, "h": 1}
    found = [[list(sizes)[place] for place in some] for some in buckets(list(sizes.values()))]
    assert found == [["a", "b"], ["c"], ["d"], ["e"], ["f", "g"], ["h"]]


def test_offloaded_masters_are_not_the_parameters() -> None:
    """On a CPU too, so that what is tested there is the path that a GPU takes."""
    optimizer = make_optimizer(small_model(), replace(CONFIG, offload=True))
    assert all(master is not optimizer.parameters[name] for name, master in optimizer.masters.items())
    assert all(f"master/{name}" in optimizer.state_tensors() for name in optimizer.parameters)


def test_the_moments_are_there_from_the_start() -> None:
    """So that the memory that is free before the first step stays free: 4 + 4 bytes per weight."""
    optimizer = make_optimizer(small_model(), CONFIG, torch.bfloat16)
    weights = sum(p.numel() for p in optimizer.parameters.values())
    state = optimizer.state_tensors()
    assert sum(t.numel() for name, t in state.items() if name.startswith("exp_avg")) == 2 * weights
    assert sum(t.numel() * t.element_size() for name, t in state.items() if name.startswith("master")) == 4 * weights


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_updates_nothing(bad: float) -> None:
    model = small_model()
    optimizer = make_optimizer(model, CONFIG)
    give_gradients(optimizer, 0)
    optimizer.step(0.01)
    before = {name: tensor.clone() for name, tensor in {**optimizer.parameters, **optimizer.state_tensors()}.items()}
    give_gradients(optimizer, 1)
    gradient = optimizer.parameters["norm"].grad
    assert gradient is not None
    gradient[3] = bad
    assert not math.isfinite(optimizer.step(0.01))
    after = {**optimizer.parameters, **optimizer.state_tensors()}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(p.grad is None for p in optimizer.parameters.values())


def test_a_state_that_does_not_fit_is_refused() -> None:
    optimizer = make_optimizer(small_model(), CONFIG)
    tensors = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    with pytest.raises(KeyError):
        optimizer.load_state_tensors({name: t for name, t in tensors.items() if name != "exp_avg_sq/norm"})
    with pytest.raises(RuntimeError, match="exp_avg of norm has shape"):
        optimizer.load_state_tensors({**tensors, "exp_avg/norm": torch.zeros(3)})

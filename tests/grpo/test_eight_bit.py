"""8-bit AdamW: against float32 AdamW, rounding at random, bytes, and what a resume needs."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from r1v0.base.errors import UserError
from r1v0.config import OptimizerConfig
from r1v0.grpo import eight_bit
from r1v0.grpo.batch import pack
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.optimizer import Optimizer, make_optimizer
from r1v0.models.shape import ModelConfig
from r1v0.models.transformer import Transformer, initialise
from tests.helpers import rollout

pytestmark = pytest.mark.numeric

CONFIG = OptimizerConfig(lr=0.01, grad_clip=1e9, moments="8bit")
WIDE = ModelConfig(80, 64, 96, 2, 4, 2, 16, 1e-6, 1e4, 512, False, True, False)  # its matrices are worth 8 bits


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("bitsandbytes", reason="8-bit states need bitsandbytes (the 8bit extra)")


def wide_model(seed: int = 0) -> Transformer:
    model = Transformer(WIDE)
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def give_gradients(optimizer: Optimizer, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in optimizer.parameters.values():
        parameter.grad = (size * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)


def bytes_of(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.usefixtures("_installed")
def test_it_follows_float32_adamw() -> None:
    """20 updates of 0.01 along noisy gradients: the paths differ by a few hundredths of what they moved."""
    weights = {}
    for states in ("float32", "8bit"):
        model = wide_model()
        optimizer = make_optimizer(model, replace(CONFIG, moments=states, weight_decay=0.1))
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        for seed in range(20):
            give_gradients(optimizer, seed)
            optimizer.step(0.01)
        weights[states] = {name: p.detach() - start[name] for name, p in model.named_parameters()}
    for name, exact in weights["float32"].items():
        moved, difference = exact.norm(), (weights["8bit"][name] - exact).norm()
        assert moved > 0, name
        assert difference < 0.05 * moved, name


@pytest.mark.usefixtures("_installed")
def test_a_first_update_by_hand_clipped_in_a_block_that_has_no_gradient_elsewhere() -> None:
    """lr * sign(g) where there is a gradient, whatever the clipping; nothing (and no NaN) where there is none."""
    model = wide_model()
    optimizer = make_optimizer(model, replace(CONFIG, grad_clip=1e-3))
    name = "layers.0.gate_up.weight"
    before = model.get_parameter(name).detach().clone()
    optimizer.zero_grad()
    gradient = optimizer.parameters[name].grad
    assert gradient is not None
    gradient[:20] = 3.0
    assert optimizer.step(0.01) == pytest.approx(3.0 * (20 * 64) ** 0.5)
    after = model.get_parameter(name)
    assert torch.allclose(after[:20], before[:20] - 0.01, atol=1e-5)
    assert torch.equal(after[20:], before[20:])


def test_rounding_at_random_is_right_on_average_and_exact_where_it_can_be() -> None:
    """1 + 2^-10 lies an eighth of the way from 1 to bfloat16's next number, 1 + 2^-7."""
    values = torch.full((40000,), 1 + 2.0**-10)
    rounded = eight_bit.round_at_random(values, 5).float()
    assert set(rounded.tolist()) == {1.0, 1 + 2.0**-7}
    share = float((rounded > 1).float().mean())
    assert abs(share - 1 / 8) < 5 * (1 / 8 * 7 / 8 / 40000) ** 0.5
    negative = eight_bit.round_at_random(torch.full((40000,), -(1 + 2.0**-10)), 5).float()
    assert torch.equal(negative, -rounded)
    exact = torch.tensor([0.0, -0.0, 1.0, -3.5, 1e30, 2.0**-126])
    assert torch.equal(eight_bit.round_at_random(exact.bfloat16().float(), 5), exact.bfloat16())
    assert torch.equal(rounded, eight_bit.round_at_random(torch.full((40000,), 1 + 2.0**-10), 5).float())
    assert not torch.equal(rounded, eight_bit.round_at_random(torch.full((40000,), 1 + 2.0**-10), 6).float())


@pytest.mark.usefixtures("_installed")
def test_small_updates_survive_without_masters() -> None:
    """150 updates of 1e-6 move bfloat16 weights near 0.02 by 1.5e-4 on average, though each is a 60th of half a
    step."""
    model = wide_model()
    name = "layers.0.gate_up.weight"
    model.get_parameter(name).data.fill_(0.02)
    optimizer = make_optimizer(model, CONFIG, torch.bfloat16)
    start = optimizer.parameters[name].detach().float().clone()
    for _ in range(150):
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1e-6)
    moved = start - optimizer.parameters[name].detach().float()
    assert optimizer.parameters[name].dtype == torch.bfloat16
    spread = float(moved.std()) / moved.numel() ** 0.5
    assert abs(float(moved.mean()) - 1.5e-4) < 5 * spread + 0.01 * 1.5e-4


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round_bit_for_bit(dtype: torch.dtype) -> None:
    one = make_optimizer(wide_model(), CONFIG, dtype, seed=3)
    for seed in range(3):
        give_gradients(one, seed)
        one.step(0.01)
    saved = {name: tensor.clone() for name, tensor in one.state_tensors().items()}
    model = wide_model(seed=5)
    for name, parameter in model.named_parameters():  # as the checkpoint's folder has them
        parameter.data.copy_(one.parameters[name])
    two = make_optimizer(model, CONFIG, dtype, seed=3)
    two.load_state_tensors(saved)
    torch.manual_seed(99)  # the global generator plays no part
    for optimizer in (one, two):
        give_gradients(optimizer, 9)
        optimizer.step(0.01)
    assert all(torch.equal(p, two.parameters[name]) for name, p in one.parameters.items())
    assert one.state_tensors().keys() == two.state_tensors().keys()
    assert all(torch.equal(tensor, two.state_tensors()[name]) for name, tensor in one.state_tensors().items())


@pytest.mark.usefixtures("_installed")
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for piece in (1 << 24, 512):
        monkeypatch.setattr(eight_bit, "PIECE", piece)
        optimizer = make_optimizer(wide_model(), CONFIG)
        for seed in range(3):
            give_gradients(optimizer, seed)
            optimizer.step(0.01)
        results.append(optimizer.parameters)
    assert all(torch.equal(p, results[1][name]) for name, p in results[0].items())


@pytest.mark.usefixtures("_installed")
def test_bytes_a_weight() -> None:
    """A matrix of n bfloat16 weights: 2 n of weights, 2 n of moments, 2 * 4 n / 256 of scales; no master."""
    optimizer = make_optimizer(wide_model(), CONFIG, torch.bfloat16)
    assert isinstance(optimizer, eight_bit.EightBitOptimizer)
    names = list(optimizer.large)
    n = sum(optimizer.parameters[name].numel() for name in names)
    state = [tensor for name in names for tensor in optimizer.states[name].values()]
    assert bytes_of(state) == 2 * n + 8 * n // 256
    assert {name.rpartition(".")[0] for name in names} >= {"embed", "layers.0.qkv", "layers.1.down"}
    assert set(optimizer.masters) == set(optimizer.parameters) - set(names)
    assert sum(master.numel() for master in optimizer.masters.values()) < 0.02 * n


@pytest.mark.usefixtures("_installed")
def test_a_state_of_another_model_is_refused() -> None:
    one, two = make_optimizer(wide_model(), CONFIG), make_optimizer(wide_model(), CONFIG)
    tensors = one.state_tensors()
    with pytest.raises(KeyError):
        two.load_state_tensors({name: t for name, t in tensors.items() if name != "exp_avg/embed.weight"})
    with pytest.raises(RuntimeError, match=r"exp_avg of embed\.weight"):
        two.load_state_tensors({**tensors, "exp_avg/embed.weight": torch.zeros(1, dtype=torch.uint8)})


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"pip install 'bitsandbytes>=0\.50'") as caught:
        make_optimizer(wide_model(), CONFIG)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns(dtype: torch.dtype) -> None:
    """A text by heart in 40 updates, as fast as with float32 states: from ln 80 = 4.4 nats per token to under 0.1.

    The rate is one at which the loss falls smoothly: at 0.01 it goes up and down until the end, and what it is at a
    given update depends on rounding, on every processor and with either kind of states.
    """
    tokens = [5, 9, 2, 77, 31, 8, 8, 60, 1]
    batch = pack([(rollout([3, 4], tokens, 1.0), 1.0, 1 / len(tokens))])
    losses = {}
    for states in ("float32", "8bit"):
        model = wide_model()
        optimizer = make_optimizer(model, replace(CONFIG, moments=states), dtype)
        found = []
        for _ in range(40):
            optimizer.zero_grad()
            loss = -(batch.weights * token_logprobs(model, batch, 1.0).logprobs).sum()
            loss.backward()
            optimizer.step(0.003)
            found.append(float(loss.detach()))
        losses[states] = found
    assert all(found[0] == pytest.approx(math.log(80), rel=0.05) for found in losses.values())
    assert all(found[-1] < 0.1 for found in losses.values())
    assert losses["8bit"][-1] == pytest.approx(losses["float32"][-1], rel=0.25)

"""Each paper's loss against numbers worked out by hand, and its gradient."""

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from r1v0.config import VARIANTS, GrpoConfig
from r1v0.grpo.advantages import group_advantages
from r1v0.grpo.batch import aggregation_weights, make_updates
from r1v0.grpo.losses import k3, policy_loss
from r1v0.types import Batch
from tests.helpers import group

pytestmark = pytest.mark.numeric

# Two completions of one prompt, [7]: A = 3 tokens with reward 1, B = 2 tokens with reward 0.
# Ratios pi / pi_old by token: A 1.5, 1.0, 0.5; B 1.5, 0.5.
RATIOS_A, RATIOS_B = [1.5, 1.0, 0.5], [1.5, 0.5]
ADVANTAGE_STD = 0.5 / math.sqrt(0.5)  # (1 - 0.5) / std of (1, 0) with n - 1
L_MAX = 10


def variant(name: str, **changes: Any) -> GrpoConfig:
    return replace(GrpoConfig(variant=name, **VARIANTS[name]), **changes)


def batch_and_logprobs(config: GrpoConfig) -> tuple[Batch, Tensor]:
    groups = [group([7], [[5, 6, 1], [8, 1]], [1.0, 0.0])]
    (batch,) = make_updates(groups, config, L_MAX, 0)
    ratios = torch.tensor([1.0, *RATIOS_A, *RATIOS_B])  # the prompt, A, B
    logprobs = torch.where(batch.weights != 0, batch.sample_logprobs + ratios.log(), 0.0)
    return batch, logprobs.requires_grad_()


def clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def expected(name: str) -> float:
    a = ADVANTAGE_STD
    if name == "grpo":  # (1/2) [ (1.2 + 1.0 + 0.5) a / 3 + (-1.5 - 0.8) a / 2 ]
        return -0.5 * (2.7 * a / 3 - 2.3 * a / 2)
    if name == "dr_grpo":  # advantages 0.5 and -0.5; everything over 2 x L_max
        return -0.5 * (2.7 - 2.3) / (2 * L_MAX)
    if name == "dapo":  # clip at 1.28; everything over the 5 tokens
        return -a * ((1.28 + 1.0 + 0.5) - (1.5 + 0.8)) / 5
    if name == "cispo":  # weights 1.5, 1, .5 and 1.5, .5 (no bound is reached) times A log pi
        logs = [-1 + math.log(r) for r in (*RATIOS_A, *RATIOS_B)]
        signs = [a, a, a, -a, -a]
        return -sum(r * s * log for r, s, log in zip((*RATIOS_A, *RATIOS_B), signs, logs, strict=True)) / 5
    assert name == "gspo"  # one ratio a sequence: the geometric mean, clipped to 1 - 3e-4 .. 1 + 4e-4
    ratio_a = (1.5 * 1.0 * 0.5) ** (1 / 3)
    ratio_b = (1.5 * 0.5) ** (1 / 2)
    return -0.5 * (clipped(ratio_a, a, 3e-4, 4e-4) + clipped(ratio_b, -a, 3e-4, 4e-4))


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_by_hand(name: str) -> None:
    config = variant(name)
    batch, logprobs = batch_and_logprobs(config)
    loss, _ = policy_loss(logprobs, batch, config)
    assert loss.item() == pytest.approx(expected(name), rel=1e-5)


def gradient(name: str, **changes: Any) -> list[float]:
    """d loss / d logprob of the five completion tokens."""
    config = variant(name, **changes)
    batch, logprobs = batch_and_logprobs(config)
    policy_loss(logprobs, batch, config)[0].backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0] == 0  # nothing reaches the prompt
    return logprobs.grad[1:].tolist()


def test_gradients_by_hand() -> None:
    """d r / d log pi = r; clipped tokens have none: 1.5 with A > 0 and 0.5 with A < 0."""
    a = ADVANTAGE_STD
    assert gradient("grpo") == pytest.approx([0, -a / 6, -0.5 * a / 6, 1.5 * a / 4, 0])
    assert gradient("dapo") == pytest.approx([0, -a / 5, -0.5 * a / 5, 1.5 * a / 5, 0])
    assert gradient("dr_grpo") == pytest.approx([0, -0.5 / 20, -0.25 / 20, 0.75 / 20, 0])


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    a = ADVANTAGE_STD
    assert gradient("cispo") == pytest.approx([-1.5 * a / 5, -a / 5, -0.5 * a / 5, 1.5 * a / 5, 0.5 * a / 5])
    low_cap = gradient("cispo", clip_high=0.2)
    assert low_cap == pytest.approx([-1.2 * a / 5, -a / 5, -0.5 * a / 5, 1.2 * a / 5, 0.5 * a / 5])
    floor = gradient("cispo", clip_low=0.3)
    assert floor == pytest.approx([-1.5 * a / 5, -a / 5, -0.7 * a / 5, 1.5 * a / 5, 0.7 * a / 5])


def test_cispo_caps_the_weight_at_5() -> None:
    """ScaleRL's (arXiv 2510.13786) and TRL's min(ratio, 5): the cap itself, where ours is written 1 + clip_high."""
    config = variant("cispo")
    batch, _ = batch_and_logprobs(config)
    ratios = torch.tensor([1.0, 4.9, 5.1, 6.5, 100.0, 0.01])
    logprobs = torch.where(batch.weights != 0, batch.sample_logprobs + ratios.log(), 0.0).requires_grad_()
    loss, _ = policy_loss(logprobs, batch, config)
    advantages = torch.tensor([ADVANTAGE_STD] * 3 + [-ADVANTAGE_STD] * 2)
    theirs = -(ratios[1:].clamp(max=5.0) * advantages * logprobs[1:]).sum() / 5
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_gspo_gives_all_tokens_of_a_sequence_its_gradient() -> None:
    """Unclipped: A's ratio is 0.909 < 1 with A > 0; every token gets -ratio a / (2 * 3). B (A < 0, below) is
    clipped."""
    a, ratio_a = ADVANTAGE_STD, 0.75 ** (1 / 3)
    assert gradient("gspo") == pytest.approx([-ratio_a * a / 6] * 3 + [0, 0], rel=1e-5)


def test_gspo_equals_the_papers_sequence_form_by_autograd() -> None:
    """Equation 5 written for whole sequences: s = exp(mean log ratio), loss = -mean_i s_i A_i, nothing clipped."""
    config = variant("gspo", clip_low=0.99, clip_high=9.0)
    batch, logprobs = batch_and_logprobs(config)
    policy_loss(logprobs, batch, config)[0].backward()
    plain = logprobs.detach().clone().requires_grad_()
    s_a = (plain[1:4] - batch.sample_logprobs[1:4]).mean().exp()
    s_b = (plain[4:6] - batch.sample_logprobs[4:6]).mean().exp()
    (-(s_a * ADVANTAGE_STD - s_b * ADVANTAGE_STD) / 2).backward()
    assert torch.allclose(logprobs.grad, plain.grad)  # type: ignore[arg-type]


def test_gspo_takes_the_mean_of_a_sequence_whatever_its_weight() -> None:
    """Weights of exactly 1 (a lone token under sequence aggregation has it) mark scored tokens as any other does."""
    config = variant("gspo", clip_low=0.99, clip_high=9.0)
    batch, logprobs = batch_and_logprobs(config)
    heavy = replace(batch, weights=(batch.weights != 0).float())
    loss, readings = policy_loss(logprobs, heavy, config)
    ratio_a, ratio_b = 0.75 ** (1 / 3), 0.75 ** (1 / 2)
    assert loss.item() == pytest.approx(-(3 * ratio_a - 2 * ratio_b) * ADVANTAGE_STD, rel=1e-5)
    assert int(readings.tokens) == 5


def test_kl_term_by_hand() -> None:
    """k3 with log ratios ln 2 (reference twice as likely): 2 - ln 2 - 1, on every token, averaged as the loss is."""
    config = variant("grpo", kl_coef=0.1)
    batch, logprobs = batch_and_logprobs(config)
    without, _ = policy_loss(logprobs, batch, config)
    reference = torch.where(batch.weights != 0, logprobs.detach() + math.log(2), 0.0)
    loss, readings = policy_loss(logprobs, batch, config, reference)
    assert (loss - without).item() == pytest.approx(0.1 * (1 - math.log(2)), rel=1e-5)
    assert float(readings.kl) / int(readings.tokens) == pytest.approx(1 - math.log(2), rel=1e-5)


def test_k3_is_unbiased_and_never_negative() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    log_ratio = q.log() - p.log()
    assert (k3(log_ratio) >= 0).all()
    assert float((p * k3(log_ratio)).sum()) == pytest.approx(float((p * -log_ratio).sum()))


def test_readings_by_hand() -> None:
    config = variant("grpo")
    batch, logprobs = batch_and_logprobs(config)
    _, readings = policy_loss(logprobs, batch, config)
    assert int(readings.tokens) == 5
    assert int(readings.clipped) == 2  # 1.5 with A > 0, 0.5 with A < 0
    assert float(readings.mismatch) == pytest.approx(sum(r - 1 - math.log(r) for r in (*RATIOS_A, *RATIOS_B)), rel=1e-5)


def test_a_token_counts_as_clipped_where_its_gradient_is_cut() -> None:
    """Ratios past a bound the other way, 1/2 with A > 0 and 3/2 with A < 0, keep theirs; CISPO's cap knows no sign."""
    for name, ratios, clipped in (
        ("grpo", [1.0, 0.5, 0.5, 1.5, 0.5], 1),
        ("grpo", [1.5, 1.5, 1.0, 1.5, 1.5], 2),
        ("cispo", [5.1, 1.0, 1.0, 5.1, 5.1], 3),
    ):
        config = variant(name)
        batch, _ = batch_and_logprobs(config)
        logprobs = torch.where(batch.weights != 0, batch.sample_logprobs + torch.tensor([1.0, *ratios]).log(), 0.0)
        assert int(policy_loss(logprobs, batch, config)[1].clipped) == clipped, (name, ratios)


def test_a_ratio_at_a_bound_is_not_clipped() -> None:
    """1/2 and 3/2 are exact in floating point, also by way of their logarithms."""
    config = variant("grpo", clip_low=0.5, clip_high=0.5)
    batch, _ = batch_and_logprobs(config)
    batch = replace(batch, sample_logprobs=torch.zeros(6))
    ratios = torch.tensor([1.0, 1.5, 1.5, 1.5, 0.5, 0.5])
    assert torch.equal(ratios.log().exp(), ratios)
    assert int(policy_loss(ratios.log(), batch, config)[1].clipped) == 0


def test_advantages_by_hand() -> None:
    assert group_advantages([1, 0, 0, 0], "none") == [0.75, -0.25, -0.25, -0.25]
    assert group_advantages([1, 0, 0, 0], "std") == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert group_advantages([0.1 + 0.2] * 3, "std") == [0.0, 0.0, 0.0]  # exactly: "sparse" relies on it


@pytest.mark.parametrize(
    "rewards",
    [
        [0.1 + 0.2, 0.3, 0.3, 0.3],
        [1.1 * 3, 3.3, 3.3],
        [-0.1 - 0.2, -0.3],
        [0.1 + 0.2 - 0.3, 0.0, 0.0, 0.0],
        [1e6 + 1e-4, 1e6],
        [0.0, -0.0],
        [0.0] * 8,
    ],
)
@pytest.mark.parametrize("scale", ["std", "none"])
def test_a_spread_of_rounding_is_flat(rewards: list[float], scale: Literal["std", "none"]) -> None:
    """Without a bound the first is [2, 0, 0, 0] where scaled: a gradient of full size out of 5.6e-17."""
    assert group_advantages(rewards, scale) == [0.0] * len(rewards)
    flat = group([7], [[5, 1]] * len(rewards), rewards)
    assert flat.flat
    assert [len(batch.token_ids) for batch in make_updates([flat], variant("grpo"), L_MAX, 0)] == [0]


@pytest.mark.parametrize("rewards", [[1e-12, 0, 0, 0], [1e6 + 1e-2, 1e6, 1e6, 1e6], [0.3 + 1e-8, 0.3, 0.3, 0.3]])
def test_a_spread_of_more_than_rounding_is_not_flat(rewards: list[float]) -> None:
    assert group_advantages(rewards, "std") == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-5)
    assert not group([7], [[5, 1]] * 4, rewards).flat


def test_a_reward_that_is_the_mean_but_for_rounding_has_no_advantage() -> None:
    """0.1, 0.2 and 0.3 have the mean 0.2: the middle one is dropped by "sparse", as that of 1, 2 and 3 is."""
    assert group_advantages([0.1, 0.2, 0.3], "std") == pytest.approx([-1, 0, 1])
    assert group_advantages([0.1, 0.2, 0.3], "std")[1] == group_advantages([1, 2, 3], "std")[1] == 0.0
    (batch,) = make_updates([group([7], [[5, 1]] * 3, [0.1, 0.2, 0.3])], variant("grpo"), L_MAX, 0)
    assert len(batch.token_ids) == 1 + 2 * 2


def test_weights_by_hand() -> None:
    assert aggregation_weights([3, 2], "sequence", 10) == [1 / 6, 1 / 4]
    assert aggregation_weights([3, 2], "token", 10) == [1 / 5, 1 / 5]
    assert aggregation_weights([3, 2], "constant", 10) == [1 / 20, 1 / 20]

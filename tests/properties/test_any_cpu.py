"""A model in bfloat16 on whatever processor this is: `make test-cpus` runs it with parts of the processor switched
off."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from r1v0.base.keys import key
from r1v0.config import resolve
from r1v0.grpo.optimizer import make_optimizer
from r1v0.models.attention import packed
from r1v0.models.shape import ModelConfig
from r1v0.models.transformer import Transformer, initialise
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Completion, Group
from tests.helpers import rollout, small_policy, trained

pytestmark = pytest.mark.numeric

QWEN2 = ModelConfig(2000, 256, 704, 5, 4, 2, 64, 1e-6, 1e6, 2048, False, True, False)  # 5 million weights
PROMPTS = [[5 + 37 * j for j in range(3 + 9 * i)] for i in range(3)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def model_of(dtype: torch.dtype) -> Transformer:
    made = Transformer(QWEN2)
    initialise(made, torch.Generator().manual_seed(0))
    assert 4.5e6 < sum(parameter.numel() for parameter in made.parameters()) < 5.5e6
    with torch.no_grad():
        made.head_weight.mul_(5)  # else every token would be about as likely as any other
    return made.to(dtype)


def drawn(model: Transformer) -> list[list[Completion]]:
    """Four completions of each prompt."""
    asked = [Request(prompt, [key(0, i, s) for s in range(4)]) for i, prompt in enumerate(PROMPTS)]
    found: list[list[Completion]] = [[] for _ in PROMPTS]
    for i, _, completion in generate(model, asked, SamplingSettings(1.0, 24, 8, frozenset([1]))):
        found[i].append(completion)
    return found


@torch.no_grad()
def logprobs_of(model: Transformer, prompt: list[int], completion: Completion) -> Tensor:
    """By one full forward pass."""
    tokens = torch.tensor([*prompt, *completion.token_ids])
    hidden = model(tokens, torch.arange(len(tokens)), packed(torch.tensor([0, len(tokens)])))
    logprobs = model.head(hidden).float().log_softmax(-1)[len(prompt) - 1 : -1]
    return logprobs.gather(1, tokens[len(prompt) :, None]).squeeze(1)


@DTYPES
def test_sampled_logprobs_are_those_of_a_full_forward_pass(dtype: torch.dtype) -> None:
    """In bfloat16 they differ by roundings of the logits (2^-9 of each, here and there some of them), not by a
    weight."""
    model = model_of(dtype)
    for prompt, completions in zip(PROMPTS, drawn(model), strict=True):
        for completion in completions:
            error = (logprobs_of(model, prompt, completion) - torch.tensor(completion.logprobs)).abs()
            assert error.max() < (1e-5 if dtype == torch.float32 else 0.1)


@DTYPES
def test_a_training_step_moves_towards_what_was_rewarded(dtype: torch.dtype) -> None:
    """After one update every rewarded completion has gained on every other one; sampler and trainer agree."""
    policy = replace(small_policy(), model=model_of(torch.float32))
    config = resolve("countdown", sets=["optimizer.warmup_steps=0", "optimizer.lr=1e-4"])
    optimizer = make_optimizer(policy.model, config.optimizer, dtype)
    assert policy.model.norm.dtype == dtype
    groups, rewarded = [], []
    for prompt, completions in zip(PROMPTS, drawn(policy.model), strict=True):
        rewards = [1.0, 1.0, 0.0, 0.0]
        rollouts = [rollout(prompt, c.token_ids, r, c.logprobs) for c, r in zip(completions, rewards, strict=True)]
        groups.append(Group(rollouts[0].prompt, rollouts))
        rewarded += [(prompt, completion, reward) for completion, reward in zip(completions, rewards, strict=True)]
    before = [float(logprobs_of(policy.model, prompt, completion).mean()) for prompt, completion, _ in rewarded]
    readings = trained(policy, optimizer, groups, config, 1)
    assert 0 < readings.grad_norm < 100
    assert readings.mismatch_kl < (1e-9 if dtype == torch.float32 else 1e-3)
    after = [float(logprobs_of(policy.model, prompt, completion).mean()) for prompt, completion, _ in rewarded]
    moved = [(reward, b - a) for (_, _, reward), a, b in zip(rewarded, before, after, strict=True)]
    assert min(change for reward, change in moved if reward) > max(change for reward, change in moved if not reward)

"""Small models and made-up rollouts for tests."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models

from r1v0.config import Config
from r1v0.grpo.optimizer import Optimizer
from r1v0.grpo.step import Learner, StepInProgress, train_step
from r1v0.models.loading import Policy
from r1v0.models.shape import ModelConfig
from r1v0.models.transformer import Transformer, initialise
from r1v0.runs.manifest import newest_whole
from r1v0.runs.progress import Progress
from r1v0.types import Completion, Group, Problem, Prompt, Rollout, Score

VOCAB = 40
EOS = 1


def small_model(seed: int = 0, scale: float = 8.0, kv_heads: int = 2, tied: bool = False) -> Transformer:
    """A random model with logits far from uniform, so that a wrong logprob shows."""
    config = ModelConfig(VOCAB, 32, 48, 3, 4, kv_heads, 8, 1e-6, 1e4, 512, tied, True, False)
    model = Transformer(config)
    initialise(model, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return model


def small_policy(seed: int = 0, scale: float = 8.0) -> Policy:
    vocabulary = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    return Policy(small_model(seed, scale), tokenizer, frozenset([EOS]), Path("nowhere"))


def rollout(prompt: list[int], completion: list[int], reward: float, logprobs: list[float] | None = None) -> Rollout:
    problem = Problem("p", "q", "a", "test")
    ended = completion[-1] == EOS
    return Rollout(
        Prompt(problem, "", prompt),
        Completion(completion, logprobs or [-1.0] * len(completion), "stop" if ended else "length"),
        "",
        Score(reward, reward > 0),
    )


def group(prompt: list[int], completions: list[list[int]], rewards: list[float]) -> Group:
    rollouts = [rollout(prompt, tokens, reward) for tokens, reward in zip(completions, rewards, strict=True)]
    return Group(rollouts[0].prompt, rollouts)


def random_groups(seed: int, count: int = 5, size: int = 4, flat: int = 1) -> list[Group]:
    """`count` groups of ragged completions; the first `flat` of them have equal rewards."""
    rng = random.Random(seed)
    groups = []
    for i in range(count):
        prompt = [rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 6))]
        tokens = [[rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 20))] + [EOS] for _ in range(size)]
        rewards = [1.0] * size if i < flat else [1.0, 0.0] + [float(rng.random() < 0.5) for _ in range(size - 2)]
        groups.append(group(prompt, tokens, rewards))
    return groups


class PlainSgd(Optimizer):
    """Weights less rate x gradient, unclipped. AdamW's first step is the rate whatever the gradient's size, so what two
    roundings of a gradient near 0 differ by becomes a whole step: weights after it tell nothing of gradients."""

    @torch.no_grad()
    def step(self, lr: float, sound: bool = True) -> float:
        gradients = [(p, p.grad) for p in self.parameters.values() if p.grad is not None]
        for parameter, gradient in gradients:
            parameter.sub_(lr * gradient)
        return float(torch.linalg.vector_norm(torch.cat([gradient.flatten() for _, gradient in gradients])))


@torch.no_grad()
def assert_same_weights(found: Transformer, expected: Transformer, start: Transformer, share: float = 1e-6) -> None:
    """Equal to a millionth of the largest move from `start`."""
    moved = max(float((b - c).abs().max()) for b, c in zip(expected.parameters(), start.parameters(), strict=True))
    assert moved > 0.1  # else the weights' own rounding would show
    for (name, a), b in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert (a - b).abs().max() < share * moved, name


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def newest(run: Path) -> Path:
    """The newest whole checkpoint of a run that has one."""
    found = newest_whole(run)
    assert found is not None
    return found


@dataclass(frozen=True)
class StepNumbers:
    """What a training step reports, under short names."""

    tokens: float
    loss: float
    entropy: float
    mismatch_kl: float
    clip_frac: float
    kl: float | None
    grad_norm: float
    lr: float
    skipped: float


def trained(
    policy: Policy, optimizer: Optimizer, groups: Sequence[Group], config: Config, step: int = 1, sound: bool = True
) -> StepNumbers:
    """One training step."""
    learner, in_progress = Learner(policy.model, optimizer, config), StepInProgress.of(groups, step, sound)
    train_step(learner, in_progress)
    found = learner.metrics(in_progress)
    policy_ = {name.removeprefix("policy/"): value for name, value in found.items() if name.startswith("policy/")}
    return StepNumbers(tokens=found["tokens/trained"], kl=policy_.pop("kl", None), **policy_)

"""What the sections of gpu.py share: shapes, random models and requests, a timer, a result row."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from r1v0.base.keys import key, unit
from r1v0.config import GrpoConfig
from r1v0.grpo.batch import make_updates
from r1v0.models.loading import TINY, Policy, load
from r1v0.models.shape import ModelConfig
from r1v0.models.transformer import Transformer, initialise
from r1v0.sampling.engine import Engine
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Batch, Completion, Group, Problem, Prompt, Rollout, Score

QWEN = ModelConfig(151_936, 1536, 8960, 28, 12, 2, 128, 1e-6, 1e6, 131_072, True, True, False)  # Qwen2.5-1.5B
TOY = ModelConfig(500, 48, 96, 2, 6, 2, 8, 1e-6, 1e4, 4096, True, True, False)
MIDDLE = ModelConfig(4096, 512, 1408, 8, 8, 2, 64, 1e-6, 1e4, 4096, True, True, False)


@dataclass(slots=True)
class Bench:
    """`copy` (bytes/s) and `matmul` (FLOP/s) are the ceilings that the first section measures."""

    device: torch.device
    dry: bool
    out: Path
    copy: float = math.nan
    matmul: float = math.nan

    @property
    def qwen(self) -> ModelConfig:
        return TOY if self.dry else QWEN

    @property
    def middle(self) -> ModelConfig:
        return TOY if self.dry else MIDDLE


@dataclass(slots=True)
class Row:
    """One number; `expected` in words, and whether it came so."""

    what: str
    value: float | str
    unit: str = ""
    expected: str = ""
    ok: bool = True

    def record(self) -> dict[str, Any]:
        shown = self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        return {**asdict(self), "shown": shown}


def at_most(rows: list[Row], what: str, value: float, unit: str, most: float) -> None:
    """A row that is as expected at or below `most`; not a number never is."""
    rows.append(Row(what, value, unit, f"<= {most:g}", value <= most))


def at_least(rows: list[Row], what: str, value: float, unit: str, least: float) -> None:
    """A row that is as expected at or above `least`."""
    rows.append(Row(what, value, unit, f">= {least:g}", value >= least))


def milliseconds(bench: Bench, call: Callable[[], object], repeats: int = 20, warm: int = 3) -> float:
    """Median time of `call` on the device, by events; on a CPU by the clock."""
    if bench.dry:
        repeats, warm = 2, 1
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        if bench.dry:
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        else:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            call()
            after.record()
            after.synchronize()
            times.append(before.elapsed_time(after))
    return median(times)


def random_model(
    config: ModelConfig, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0
) -> Transformer:
    """Random weights, made where they are needed; `scale` makes the distribution peaked, as a trained model's is."""
    with torch.device(device):
        model = Transformer(config)
    initialise(model, torch.Generator(device).manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return cast(model, dtype)


def cast(model: Transformer, dtype: torch.dtype) -> Transformer:
    """The parameters in another type; the rotation's frequencies stay float32, as they do in training."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def tiny(device: torch.device) -> Policy:
    """The embedded, trained model in float32."""
    return load(TINY, device)


def random_requests(vocab: int, prompts: int, group: int, longest: int, seed: int = 0) -> list[Request]:
    """Ragged prompts of 1 to `longest` tokens."""
    rng = random.Random(seed)
    lengths = [1 + rng.randrange(longest) for _ in range(prompts)]
    return [
        Request([rng.randrange(2, vocab) for _ in range(length)], [key(seed, "gpu", i, s) for s in range(group)])
        for i, length in enumerate(lengths)
    ]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """|found - expected| / |expected|, in float64."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm())


Samples = dict[tuple[int, int], Completion]


def sample(model: Transformer, requests: list[Request], settings: SamplingSettings, engine: Engine | None) -> Samples:
    return {(i, s): completion for i, s, completion in generate(model, requests, settings, engine=engine)}


def groups_of(requests: list[Request], samples: Samples) -> list[Group]:
    """Graded groups with coins for rewards, none of them flat."""
    problem = Problem("gpu", "", "", "gpu")
    groups = []
    for i, request in enumerate(requests):
        prompt = Prompt(problem, "", list(request.token_ids))
        rewards = [float(s == 0 or (s > 1 and unit(key(0, "reward", i, s)) < 0.5)) for s in range(len(request.keys))]
        rollouts = [Rollout(prompt, samples[i, s], "", Score(reward, reward > 0)) for s, reward in enumerate(rewards)]
        groups.append(Group(prompt, rollouts))
    return groups


def batch_of(groups: list[Group]) -> Batch:
    """All completion tokens in one update, alike in weight."""
    (batch,) = make_updates(groups, replace(GrpoConfig(), aggregation="token", sparse=False), 1, 0)
    return batch

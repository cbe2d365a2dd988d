"""r1v0's own side of each comparison: the calls that a training step makes, with nothing left out or prepared."""

from collections import Counter
from collections.abc import Sequence

import torch

from r1v0.config import Config, resolve
from r1v0.grpo.optimizer import Optimizer, make_optimizer
from r1v0.grpo.step import Learner, StepInProgress, train_step
from r1v0.jobs.bench.workload import Work, requests, sampling
from r1v0.rollouts.collect import sample_groups
from r1v0.sampling.sampler import generate
from r1v0.tasks.grading.pool import Counters
from r1v0.types import Group, Problem, Score


def sample(work: Work) -> int:
    """Sample the work; the tokens sampled."""
    drawn = generate(work.policy.model, requests(work), sampling(work))
    return sum(len(completion.token_ids) for _, _, completion in drawn)


class HalfRight:
    """A grader without grading: the first half of a group's completions to arrive are right, and so every group has a
    gradient; but none is right in the share `flat` of the groups. It stands in for `rewards.pool.Verifier`."""

    def __init__(self, group_size: int, flat: float) -> None:
        self.group_size, self.flat = group_size, flat
        self.scores: dict[int, Score] = {}
        self.seen: Counter[str] = Counter()
        self.counters = Counters()

    def submit(self, job: int, problem: Problem, text: str, finished: bool, both: bool = False) -> None:
        right = reward(int(problem.id), self.seen[problem.id], self.group_size, self.flat)
        self.seen[problem.id] += 1
        self.scores[job] = Score(right, right > 0)

    def collect(self) -> dict[int, Score]:
        return self.scores


def reward(group: int, sample: int, group_size: int, flat: float) -> float:
    """1 for the first half of a group, but 0 for all of a flat one; `flat` is 0, 0.25 or 0.5 of the groups, evenly
    spread."""
    is_flat = int((group + 1) * flat) > int(group * flat)
    return float(not is_flat and sample < group_size // 2)


def settings(work: Work, *sets: str) -> Config:
    """GRPO on the work with a token mean: the settings that TRL's loss has by default."""
    return resolve(
        sets=[
            "grpo.aggregation=token",
            f"grpo.groups={len(work.prompts)}",
            f"grpo.group_size={work.group_size}",
            f"sampling.max_new_tokens={work.max_new_tokens}",
            "optimizer.lr=1e-6",
            "optimizer.warmup_steps=0",
            *sets,
        ]
    )


def optimizer_of(work: Work, dtype: torch.dtype = torch.float32) -> Optimizer:
    """AdamW in float32 for the work's model, which becomes one of `dtype`."""
    return make_optimizer(work.policy.model, settings(work).optimizer, dtype)


def step(work: Work, optimizer: Optimizer, flat: float) -> int:
    """A whole GRPO step: sample, grade, update; the tokens sampled."""
    grader = HalfRight(work.group_size, flat)
    groups, _ = sample_groups(work.policy, work.prompts, work.keys, sampling(work), grader, lambda tokens: None)  # type: ignore[arg-type]
    train_step(Learner(work.policy.model, optimizer, settings(work)), StepInProgress.of(groups))
    return tokens_of(groups)


def tokens_of(groups: Sequence[Group]) -> int:
    """Tokens of all completions."""
    return sum(len(rollout.completion.token_ids) for group in groups for rollout in group.rollouts)

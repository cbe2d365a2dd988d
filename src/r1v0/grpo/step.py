"""A training step: graded groups become optimizer updates.

Decides: GRPO (DeepSeekMath, arXiv 2402.03300, algorithm 1) without a critic. Deviations from the paper: no KL term
and no reference model unless `grpo.kl_coef` is set; the sampler's own logprobs are pi_old, so nothing is computed
twice; the denominator of the loss belongs to the whole update (batch.py). How many tokens are worked on at a time,
and on how many threads, changes no gradient, and is budget.py's.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch

from r1v0.base.keys import key
from r1v0.config import Config
from r1v0.grpo import parallel
from r1v0.grpo.batch import make_updates
from r1v0.grpo.budget import Budget, equal_keys, first_budget
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import LossReadings, policy_loss
from r1v0.grpo.optimizer import Optimizer, learning_rate
from r1v0.grpo.readings import UpdateReadings, policy_metrics
from r1v0.models.transformer import Transformer
from r1v0.types import Batch, Group

Check = Callable[[], None]
"""Raises Interrupted where the run is to stop."""


@dataclass(slots=True)
class StepInProgress:
    """A training step from its sampling on. `number` counts from 1; `sampled` are all of its graded groups and
    `groups` those to train on; `done` its finished updates, in order (the list grows); `cursor` the index of the
    next step's first problem.

    `counted` are the verify/* of its metrics; `sample_s` and `verify_s` its seconds, of grading those that sampling
    did not hide; `wait_s` those that a process waited for others, on average; `began` its begin on this process's
    clock. Not `sound`, because a sampled logprob is not finite: nothing is updated.
    """

    number: int
    sampled: Sequence[Group]
    groups: Sequence[Group]
    cursor: int = 0
    sample_s: float = 0.0
    verify_s: float = 0.0
    wait_s: float = 0.0
    counted: dict[str, int] = field(default_factory=dict)
    done: list[UpdateReadings] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    sound: bool = True

    @classmethod
    def of(cls, groups: Sequence[Group], number: int = 1, sound: bool = True) -> "StepInProgress":
        """A step that trains on all of these."""
        return cls(number, groups, groups, sound=sound)


class Learner:
    """The model that is trained, its optimizer, and what its loss is held against. `lr_scale` is what a recovery
    left of the learning rate; `budget` says how many tokens are trained on at a time; `wait_s` are the seconds that this
    process waited for others' gradients so far."""

    def __init__(
        self,
        model: Transformer,
        optimizer: Optimizer,
        config: Config,
        reference: Transformer | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.model, self.optimizer, self.config, self.reference = model, optimizer, config, reference
        self.budget = budget or first_budget(config, model)
        self.lr_scale, self.wait_s = 1.0, 0.0

    def learning_rate(self, step: int) -> float:
        """The rate of the 1-based `step`."""
        scaled = replace(self.config.optimizer, lr=self.config.optimizer.lr * self.lr_scale)
        return learning_rate(scaled, step, self.config.steps)

    def updates(self, step: StepInProgress) -> list[Batch]:
        """The step's packed batches, one for each optimizer update."""
        shuffle = key(self.config.seed, "updates", step.number)
        return make_updates(step.groups, self.config.grpo, self.config.sampling.max_new_tokens, shuffle)

    def accumulate(self, batch: Batch, add: "AddGradient", check: Check) -> UpdateReadings:
        """Call `add` on each micro-batch of this process's share of an update, with a model whose gradients it adds to;
        what it returned in all processes. Raises UserError if one completion alone does not fit into memory."""
        own = parallel.share(batch, equal_keys(self.model))

        def work(model: Transformer, micro: Batch) -> LossReadings:
            check()
            return add(self, model, micro)

        def phase() -> UpdateReadings:
            found = UpdateReadings.of(self.budget.accumulate(own, self.model, self.optimizer.zero_grad, work))
            self.wait_s -= time.perf_counter()
            return found

        parts = parallel.each(phase, asdict, lambda raw: UpdateReadings(**raw))
        self.wait_s += time.perf_counter()
        return UpdateReadings.joined(parts)

    def update(self, readings: UpdateReadings, lr: float, sound: bool) -> UpdateReadings:
        """Sum the gradient over the processes, clip it, and take AdamW's step; skip it if the loss or the gradient is
        not finite, or nothing was `sound`."""
        finite = all(map(math.isfinite, readings.loss))
        return replace(readings, grad_norm=self.optimizer.step(lr, sound and finite))

    def metrics(self, step: StepInProgress) -> dict[str, float]:
        """The policy/* of the step's row, from its updates."""
        return policy_metrics(step.done, self.learning_rate(step.number), self.config.grpo.kl_coef > 0)


AddGradient = Callable[[Learner, Transformer, Batch], LossReadings]


def train_step(learner: Learner, step: StepInProgress, check: Check = lambda: None) -> list[UpdateReadings]:
    """GRPO's whole gradient from a step's graded groups, one optimizer update at a time.

    `step.done` holds the updates that were made before the step was stopped, and gets each that is made now; `check`
    may raise Interrupted between micro-batches. An update whose loss or gradient is not finite is skipped.
    """
    lr = learner.learning_rate(step.number)
    for batch in learner.updates(step)[len(step.done) :]:
        readings = learner.accumulate(batch, add_gradient, check)  # backward, micro-batch by micro-batch
        step.done.append(learner.update(readings, lr, step.sound))  # clip, AdamW
    return step.done


def add_gradient(learner: Learner, model: Transformer, micro: Batch) -> LossReadings:
    """Add a micro-batch's gradient to the model's; sums over its scored tokens."""
    temperature = learner.config.sampling.temperature
    with torch.no_grad():  # first, while nothing is held for a backward pass
        anchor = token_logprobs(learner.reference, micro, temperature).logprobs if learner.reference else None
    scored = token_logprobs(model, micro, temperature)
    loss, readings = policy_loss(scored.logprobs, micro, learner.config.grpo, anchor)
    loss.backward()
    return replace(readings, entropy=scored.entropy.sum())

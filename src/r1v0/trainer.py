"""The loop: sample, grade, update, now and then evaluate and save.

Decides: GRPO (DeepSeekMath, arXiv 2402.03300) without a critic. `train_step` turns groups into optimizer updates;
everything before it only gathers, everything after it only reports. Deviations from the paper: no KL term and no
reference model unless `grpo.kl_coef` is set; the sampler's own logprobs are pi_old, so nothing is computed twice; the
denominator of the loss belongs to the whole update (batch.py). A run is resumed by its counters alone: there is no
random state (rng.py).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from r1v0.batch import make_updates, split
from r1v0.checkpoint import TrainerState, load_optimizer, load_state, save_checkpoint
from r1v0.config import Config
from r1v0.data import Problems, eval_name, load_eval, load_problems
from r1v0.device import choose_device, peak_memory_gb, set_threads
from r1v0.errors import Interrupted
from r1v0.evaluate import Answer, answer_problems, gain, parse_answers, summarise
from r1v0.interrupts import stoppable
from r1v0.logprobs import token_logprobs
from r1v0.losses import LossReadings, policy_loss
from r1v0.metrics import PolicyReadings, rollout_records, step_row
from r1v0.models.loading import Policy, load, resolve_model
from r1v0.optimizer import Optimizer, learning_rate
from r1v0.prompts import find as find_template
from r1v0.rewards import check as check_reward
from r1v0.rewards.pool import Verifier
from r1v0.rng import key
from r1v0.rollout import collect, reward_settings, verifiers
from r1v0.runlog import Progress, RunLog, read_answers, read_evals
from r1v0.stats import mean
from r1v0.types import Group, Problem


def train_step(
    policy: Policy,
    reference: Policy | None,
    optimizer: Optimizer,
    groups: Sequence[Group],
    config: Config,
    step: int,
    check: Callable[[], None] = lambda: None,
) -> PolicyReadings:
    """One training step on graded groups: GRPO's whole gradient, in micro-batches.

    `check` may raise Interrupted; it is asked only while the weights are still those of the step before.
    """
    updates = make_updates(groups, config.grpo, config.sampling.max_new_tokens, key(config.seed, "updates", step))
    temperature, lr = config.sampling.temperature, learning_rate(config.optimizer, step, config.steps)
    readings: list[LossReadings] = []
    entropy: list[float] = []
    norms: list[float] = []
    for batch in updates:
        optimizer.zero_grad()
        for micro in split(batch, config.optimizer.micro_batch_tokens, policy.device):
            if not norms:
                check()
            scored = token_logprobs(policy.model, micro, temperature)
            with torch.no_grad():
                anchor = token_logprobs(reference.model, micro, temperature).logprobs if reference else None
            loss, reading = policy_loss(scored.logprobs, micro, config.grpo, anchor)
            loss.backward()
            readings.append(reading)
            entropy.append(float(scored.entropy.sum()))
        norms.append(optimizer.step(lr))
    return _summary(readings, entropy, norms, lr, config.grpo.kl_coef > 0)


def _summary(
    readings: Sequence[LossReadings], entropy: Sequence[float], norms: Sequence[float], lr: float, with_kl: bool
) -> PolicyReadings:
    tokens = sum(int(reading.tokens) for reading in readings)
    per_token = 1 / tokens if tokens else math.nan
    return PolicyReadings(
        tokens=tokens,
        loss=math.fsum(float(reading.loss) for reading in readings) / len(norms),
        entropy=math.fsum(entropy) * per_token,
        mismatch_kl=math.fsum(float(reading.mismatch) for reading in readings) * per_token,
        clip_frac=sum(int(reading.clipped) for reading in readings) * per_token,
        kl=math.fsum(float(reading.kl) for reading in readings) * per_token if with_kl else None,
        grad_norm=mean(norms),
        lr=lr,
    )


@dataclass(slots=True)
class Run:
    """Everything a run works with, loaded and checked. `state` moves on with each step."""

    config: Config
    policy: Policy
    reference: Policy | None
    optimizer: Optimizer
    problems: Problems
    evals: dict[str, list[Problem]]
    state: TrainerState


def prepare(config: Config, checkpoint: Path | None = None) -> Run:
    """Load models and data; from `checkpoint`, go on where it stands. Raises UserError before anything is written."""
    check_reward(reward_settings(config, config.data.name))
    find_template(config.prompt.template)
    set_threads(config)
    device, dtype = choose_device(config)
    problems = load_problems(config.data, config.seed, config.eval.on)
    evals = {eval_name(spec): load_eval(spec, config.eval.max_problems) for spec in config.eval.on}
    base = resolve_model(config.model)
    policy = load(checkpoint or base, device)
    policy.model.checkpoint_activations = config.compute.checkpoint_activations
    optimizer = Optimizer(policy.model, config.optimizer, dtype)
    if checkpoint is not None:
        load_optimizer(checkpoint, optimizer)
    reference = load(base, device, dtype) if config.grpo.kl_coef > 0 else None
    return Run(
        config, policy, reference, optimizer, problems, evals, load_state(checkpoint) if checkpoint else TrainerState()
    )


def train(run: Run, log: RunLog, progress: Progress) -> Path:
    """Run to the last step; the last checkpoint. Interrupted, it saves a checkpoint of the last whole step and raises."""
    config = run.config
    with verifiers(config, [config.data.name, *run.evals]) as graders, stoppable() as check:
        progress.start(config, config.steps, log.folder)
        try:
            while True:
                if evaluation_is_due(run, log):
                    run_evaluations(run, log, graders, progress, check)
                if run.state.step >= config.steps:
                    break
                run_step(run, log, graders[config.data.name], progress, check)
                if run.state.step % config.checkpoint_every == 0:
                    save_checkpoint(log.folder, run.policy, run.optimizer, run.state)
        except Interrupted:  # the weights are those of the last whole step: train_step saw to it
            save_checkpoint(log.folder, run.policy, run.optimizer, run.state)
            raise
        return save_checkpoint(log.folder, run.policy, run.optimizer, run.state)


def run_step(run: Run, log: RunLog, verifier: Verifier, progress: Progress, check: Callable[[], None]) -> None:
    """One step: collect groups, update, write the step's metrics and rollouts."""
    start, step = time.perf_counter(), run.state.step + 1
    before = verifier.counters
    collected = collect(
        run.policy, run.problems, run.config, run.state.cursor, verifier, polling(progress, check, "sampling")
    )
    training = time.perf_counter()
    readings = train_step(run.policy, run.reference, run.optimizer, collected.groups, run.config, step, check)
    run.state = TrainerState(step, collected.cursor)
    end = time.perf_counter()
    after = verifier.counters
    row = step_row(step, collected.sampled, readings, {
        "verify/timeouts": after.timeouts - before.timeouts,
        "verify/crashes": after.crashes - before.crashes,
        "verify/disagreements": after.disagreements - before.disagreements,
        "time/sample_s": collected.sample_s,
        "time/verify_s": collected.verify_s,
        "time/train_s": end - training,
        "time/step_s": end - start,
        "memory/peak_gb": peak_memory_gb(run.policy.device),
    })  # fmt: skip
    log.append_metrics(row)
    log.write_rollouts(step, rollout_records(collected.sampled))
    progress.step(row)


def evaluation_is_due(run: Run, log: RunLog) -> bool:
    """Every `eval.every` steps, at the last one, and never twice: a resumed run may have it already."""
    step, config = run.state.step, run.config
    if not run.evals or (step % config.eval.every and step != config.steps):
        return False
    return {row["dataset"] for row in read_evals(log.folder) if row["step"] == step} != set(run.evals)


def run_evaluations(
    run: Run, log: RunLog, graders: Mapping[str, Verifier], progress: Progress, check: Callable[[], None]
) -> None:
    """Evaluate every dataset; their rows are written together. Each gain is paired with the run's first evaluation."""
    first = parse_answers(read_answers(log.folder, 0), f"{log.folder}/answers/step-00000.jsonl.gz")
    rows: list[dict[str, Any]] = []
    answers: list[Answer] = []
    for name, problems in run.evals.items():
        start = time.perf_counter()
        poll = polling(progress, check, f"evaluating {name}")
        own = [
            answer
            for chunk in answer_problems(run.policy, name, problems, run.config, graders[name], poll)
            for answer in chunk
        ]
        since = gain([answer for answer in first if answer.dataset == name], own) if run.state.step else None
        rows.append(
            {
                "step": run.state.step,
                **asdict(summarise(name, own)),
                **(asdict(since) if since else {}),
                "time_s": time.perf_counter() - start,
            }
        )
        answers += own
    cut = mean(answer.finish_reason == "length" for answer in answers)
    if not run.state.step and cut > 0.5:
        limit = run.config.eval.max_new_tokens or run.config.sampling.max_new_tokens
        progress.note(
            f"warning: {cut:.0%} of the model's answers are cut off at {limit} tokens and score 0; raise sampling.max_new_tokens"
        )
    log.write_answers(run.state.step, map(asdict, answers))
    log.append_evals(rows)
    progress.evaluation(rows)


def polling(progress: Progress, check: Callable[[], None], phase: str) -> Callable[[int], None]:
    """What the sampler calls after every decoding step: show the tokens so far, and stop if asked to."""
    tokens = 0

    def poll(new: int) -> None:
        nonlocal tokens
        tokens += new
        check()
        progress.phase(phase, tokens, 0)

    return poll

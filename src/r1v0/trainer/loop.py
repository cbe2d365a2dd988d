"""The loop: sample, grade, update, now and then evaluate and save.

Decides: GRPO (DeepSeekMath, arXiv 2402.03300) without a critic. `train_step` turns groups into optimizer updates;
everything before it only gathers, everything after it only reports. Deviations from the paper: no KL term and no
reference model unless `grpo.kl_coef` is set; the sampler's own logprobs are pi_old, so nothing is computed twice; the
denominator of the loss belongs to the whole update (batch.py). A run is resumed by its counters alone: there is no
random state (keys.py). A step that is stopped after its sampling is ended later, from its groups and finished updates
(half_step.py).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from r1v0.base.errors import Interrupted
from r1v0.base.interrupts import stoppable
from r1v0.base.keys import key
from r1v0.base.stats import mean
from r1v0.config import Config
from r1v0.grpo.batch import make_updates
from r1v0.grpo.budget import Budget, first_budget, probe
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import LossReadings, policy_loss
from r1v0.grpo.optimizer import Optimizer, learning_rate
from r1v0.models.device import choose_device, peak_memory_gb, set_threads, settled
from r1v0.models.loading import Policy, resolve_model
from r1v0.models.transformer import Transformer
from r1v0.rollouts.collect import collect, past_positions, reward_settings, verifiers
from r1v0.rollouts.evaluate import Answer, answer_problems, gain, parse_answers, summarise
from r1v0.rollouts.gradable import FIRST, need_gradable
from r1v0.runs.health import Watch
from r1v0.runs.manifest import checkpoint_name, to_stderr
from r1v0.runs.runlog import Progress, RunLog, read_answers, read_evals
from r1v0.tasks.datasets import Problems, eval_name, load_eval, load_problems
from r1v0.tasks.datasets import check as check_data
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.prompts import make_prompts, words_of
from r1v0.tasks.rewards import check as check_reward
from r1v0.trainer.checkpoint import TrainerState, load_optimizer, load_state, prune, save_checkpoint
from r1v0.trainer.half_step import Pending, load_pending
from r1v0.trainer.metrics import PolicyReadings, UpdateReadings, policy_readings, rollout_records, step_row
from r1v0.trainer.policies import fresh, reference_policy, sampling_policy, trained_policy, try_operators
from r1v0.trainer.recovery import Unhealthy, respond, watch_of
from r1v0.types import Batch, Group, Problem

PROBED_PROMPTS = 64  # of which the longest stands for all: a longer one may still halve the budget


def train_step(
    policy: Policy,
    reference: Policy | None,
    optimizer: Optimizer,
    groups: Sequence[Group],
    config: Config,
    step: int,
    check: Callable[[], None] = lambda: None,
    done: list[UpdateReadings] | None = None,
    sound: bool = True,
    budget: Budget | None = None,
) -> PolicyReadings:
    """One training step on graded groups: GRPO's whole gradient, in micro-batches.

    `done` holds the updates of this step that were made before it was stopped, and gets each that is made now. `check`
    may raise Interrupted between micro-batches: the step then goes on later from the weights, the groups and `done`.
    An update whose loss or gradient is not finite is skipped; all are, if what was sampled is not `sound`. `budget` cuts
    the micro-batches; the config's where there is none.
    """

    def work(model: Transformer, micro: Batch) -> tuple[LossReadings, float]:
        check()
        return add_gradient(model, reference, micro, config)

    done = [] if done is None else done
    budget = budget or first_budget(config, policy.model)
    updates = make_updates(groups, config.grpo, config.sampling.max_new_tokens, key(config.seed, "updates", step))
    lr = learning_rate(config.optimizer, step, config.steps)
    for batch in updates[len(done) :]:
        readings = budget.accumulate(batch, policy.model, optimizer.zero_grad, work)
        norm = optimizer.step(lr, sound and all(reading.loss.isfinite() for reading, _ in readings))
        done.append(_update_readings(readings, norm))
    return policy_readings(done, lr, config.grpo.kl_coef > 0)


def add_gradient(
    model: Transformer, reference: Policy | None, micro: Batch, config: Config
) -> tuple[LossReadings, float]:
    """Add a micro-batch's gradient to the model's; the loss's readings, and the sum of its tokens' entropies."""
    temperature = config.sampling.temperature
    with torch.no_grad():  # first, while nothing is held for a backward pass
        anchor = token_logprobs(reference.model, micro, temperature).logprobs if reference else None
    scored = token_logprobs(model, micro, temperature)
    loss, readings = policy_loss(scored.logprobs, micro, config.grpo, anchor)
    loss.backward()
    return readings, float(scored.entropy.sum())


def _update_readings(micros: Sequence[tuple[LossReadings, float]], norm: float) -> UpdateReadings:
    readings = [reading for reading, _ in micros]
    return UpdateReadings(
        tokens=[int(reading.tokens) for reading in readings],
        loss=[float(reading.loss) for reading in readings],
        entropy=[entropy for _, entropy in micros],
        mismatch=[float(reading.mismatch) for reading in readings],
        clipped=[int(reading.clipped) for reading in readings],
        kl=[float(reading.kl) for reading in readings],
        grad_norm=norm,
    )


@dataclass(slots=True)
class Run:
    """Everything a run works with, loaded and checked. `state` moves on with each step; `pending` is the step that is
    sampled and not yet ended; `saved` is the last checkpoint that was written or read."""

    config: Config
    policy: Policy
    sampling: Policy
    reference: Policy | None
    optimizer: Optimizer
    problems: Problems
    evals: dict[str, list[Problem]]
    state: TrainerState
    watch: Watch
    budget: Budget
    pending: Pending | None = None
    saved: Path | None = None


def prepare(config: Config, checkpoint: Path | None = None) -> Run:
    """Load models and data; from `checkpoint`, go on where it stands. Raises UserError before anything is written."""
    check_reward(reward_settings(config, config.data.name))
    words_of(config.prompt)
    set_threads(config)
    config = settled(config)
    device, dtype = choose_device(config)
    check_data(config.eval.on, config.data)
    base = resolve_model(config.model)  # looked for before the rows are read: it is what a run is about
    problems = load_problems(config.data, config.seed, config.eval.on)
    evals = {eval_name(spec): load_eval(spec, config.eval.max_problems) for spec in config.eval.on}
    name, tried = config.data.name, [problems.at(i) for i in range(FIRST)]
    need_gradable({name: reward_settings(config, name)}, {name: tried}, to_stderr)
    need_gradable({name: reward_settings(config, name) for name in evals}, evals, to_stderr)
    policy, optimizer = trained_policy(config, base, checkpoint, device, dtype)
    make_prompts(config.prompt, [problems.at(0)], policy)  # a template that fails is told before a run folder is made
    if checkpoint is not None:
        load_optimizer(checkpoint, optimizer)
    reference = reference_policy(config, policy, base, dtype)
    run = Run(
        config,
        policy,
        sampling_policy(config, policy),
        reference,
        optimizer,
        problems,
        evals,
        TrainerState(),
        Watch(config),
        first_budget(config, policy.model),
    )
    if checkpoint is not None:
        run.state, run.pending, run.saved = load_state(checkpoint), load_pending(checkpoint), checkpoint
    try_operators(policy, run.sampling)
    return run


def train(run: Run, log: RunLog, progress: Progress) -> Path:
    """Run to the last step; the last checkpoint. Interrupted, it saves where it stands, also inside a step, and raises.

    Raises UserError if the disk does not take what is to be written; the checkpoints before are then whole. Raises
    Unhealthy, which is one too, where health.action ends the run.
    """
    config = run.config
    rewards = {name: reward_settings(config, name) for name in (config.data.name, *run.evals)}
    with verifiers(rewards, progress.note) as graders, stoppable() as check:
        progress.start(config, config.steps, log.folder)
        run.watch = watch_of(config, log.folder)
        run.budget.note = progress.note
        if run.state.step < config.steps:
            probe_memory(run)
        try:
            while True:
                if evaluation_is_due(run, log):
                    run_evaluations(run, log, graders, progress, check)
                if run.state.step >= config.steps:
                    break
                run_step(run, log, graders[config.data.name], progress, check)
                if run.state.step % config.checkpoint_every == 0:
                    save(run, log)
        except (Interrupted, Unhealthy):
            save(run, log)
            raise
        return save(run, log)


def probe_memory(run: Run) -> None:
    """Find out before the first step whether the longest sequence can be trained on. Raises UserError if not."""
    config = run.config
    prompts = make_prompts(config.prompt, [run.problems.at(i) for i in range(PROBED_PROMPTS)], run.policy)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if beyond := past_positions(run.policy, longest, config.sampling.max_new_tokens):
        run.budget.note(f"warning: {beyond}; lower sampling.max_new_tokens")
    probe(
        run.budget,
        run.policy.model,
        longest,
        config.sampling.max_new_tokens,
        run.optimizer.zero_grad,
        lambda model, micro: add_gradient(model, run.reference, micro, config),
    )


def save(run: Run, log: RunLog) -> Path:
    """A checkpoint of where the run stands, unless there is one; then those go that are not to be kept."""
    name = checkpoint_name(run.state.step, len(run.pending.done) if run.pending else None)
    if run.saved is None or run.saved.name != name:
        log.flush()  # a checkpoint says that its steps are logged
        run.saved = save_checkpoint(log.folder, run.policy, run.optimizer, run.state, run.config, run.pending)
        prune(log.folder, run.config, next(iter(run.evals), None), run.saved)
    return run.saved


def run_step(run: Run, log: RunLog, verifier: Verifier, progress: Progress, check: Callable[[], None]) -> None:
    """One step: collect groups, update, write the step's metrics and rollouts. Stopped in between, it leaves `run.pending`."""
    step = run.state.step + 1
    if run.pending is None:
        run.pending = _collect(run, verifier, polling(progress, check, "sampling"))
    pending, training = run.pending, time.perf_counter()
    groups, sampled = pending.collected.groups, pending.collected.sampled
    sound = all(rollout.completion.finite for group in sampled for rollout in group.rollouts)
    config = replace(
        run.config, optimizer=replace(run.config.optimizer, lr=run.config.optimizer.lr * run.state.lr_scale)
    )
    readings = train_step(
        run.policy, run.reference, run.optimizer, groups, config, step, check, pending.done, sound, run.budget
    )
    end = time.perf_counter()
    row = step_row(step, sampled, readings, {
        **pending.counted,
        "time/sample_s": pending.collected.sample_s,
        "time/verify_s": pending.collected.verify_s,
        "time/train_s": end - training,
        "time/step_s": end - pending.began,
        "memory/peak_gb": peak_memory_gb(run.policy.device),
    })  # fmt: skip
    log.append_metrics(row)
    log.write_rollouts(step, rollout_records(sampled))
    run.state, run.pending = replace(run.state, step=step, cursor=pending.collected.cursor), None
    progress.step(row)
    respond(run, row, groups, log, progress)


def _collect(run: Run, verifier: Verifier, poll: Callable[[int], None]) -> Pending:
    """The step's graded groups, with what grading counted."""
    began, before = time.perf_counter(), verifier.counters
    collected = collect(fresh(run.sampling, run.policy), run.problems, run.config, run.state.cursor, verifier, poll)
    after = verifier.counters
    counted = {
        "verify/timeouts": after.timeouts - before.timeouts,
        "verify/crashes": after.crashes - before.crashes,
        "verify/disagreements": after.disagreements - before.disagreements,
    }
    return Pending(collected, counted, began=began)


def evaluation_is_due(run: Run, log: RunLog) -> bool:
    """Every `eval.every` steps, at the last one, and never twice: a resumed run may have it already."""
    step, config = run.state.step, run.config
    if not run.evals or run.pending or (step % config.eval.every and step != config.steps):
        return False
    return {row["dataset"] for row in read_evals(log.folder) if row["step"] == step} != set(run.evals)


def run_evaluations(
    run: Run, log: RunLog, graders: Mapping[str, Verifier], progress: Progress, check: Callable[[], None]
) -> None:
    """Evaluate every dataset; their rows are written together. Each gain is paired with the run's first evaluation."""

    def keep(answer: Answer) -> None:
        log.keep_answer(run.state.step, asdict(answer))

    kept = parse_answers(log.kept_answers(run.state.step), f"{log.folder}/answers")
    first = first_answers(log.folder)
    policy = fresh(run.sampling, run.policy)
    rows: list[dict[str, Any]] = []
    answers: list[Answer] = []
    for name, problems in run.evals.items():
        start = time.perf_counter()
        known = [answer for answer in kept if answer.dataset == name]
        own = answer_problems(policy, name, problems, run.config, graders[name], progress, check, known, keep)
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


def first_answers(folder: Path) -> list[Answer]:
    """The answers of a run's first evaluation; empty if there is none. Raises UserError if they are damaged."""
    return parse_answers(read_answers(folder, 0), f"{folder}/answers/step-00000.jsonl.gz")


def polling(progress: Progress, check: Callable[[], None], phase: str) -> Callable[[int], None]:
    """What the sampler calls after every decoding step: show the tokens so far, and stop if asked to."""
    tokens = 0

    def poll(new: int) -> None:
        nonlocal tokens
        tokens += new
        check()
        progress.phase(phase, tokens, 0)

    return poll

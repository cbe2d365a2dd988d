"""The loop: sample, grade, update, now and then evaluate and save.

Decides: `Trainer.run` is the loop and `Trainer.take_step` its body; what turns groups into updates is `train_step`
(grpo/step.py). A run is resumed by its counters alone: there is no random state (keys.py). A step that is stopped
after its sampling is ended later, from its groups and finished updates (half_step.py). The trainer alone changes its
state: what a recovery does is decided in recovery.py and done here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from r1v0.base.errors import Interrupted
from r1v0.base.interrupts import stoppable
from r1v0.base.means import mean
from r1v0.config import Config
from r1v0.grpo import parallel
from r1v0.grpo.step import Learner, StepInProgress, train_step
from r1v0.models.device import peak_memory_gb
from r1v0.models.loading import Policy
from r1v0.rollouts.collect import collect, reward_settings, verifiers
from r1v0.rollouts.evaluate import answer_problems, gain, summarise
from r1v0.runs.health import Watch
from r1v0.runs.history import Row
from r1v0.runs.manifest import checkpoint_name
from r1v0.runs.progress import Progress, polling
from r1v0.runs.records import read_evals
from r1v0.runs.runlog import RunLog
from r1v0.runs.written import Answer, answers_at, parse_all
from r1v0.tasks.datasets import Problems
from r1v0.tasks.grading.pool import Verifier
from r1v0.trainer.checkpoint import TrainerState, best_checkpoint, describe, prune, restore, save_checkpoint
from r1v0.trainer.metrics import costs, rollout_records, step_row
from r1v0.trainer.policies import fresh
from r1v0.trainer.probe import probe_memory
from r1v0.trainer.recovery import Unhealthy, decide, save_batch, watch_of
from r1v0.trainer.same import need_same_weights
from r1v0.types import Group, Problem


@dataclass(slots=True)
class Trainer:
    """Everything that a run works with, loaded and checked (setup.prepare). `state` moves on with each step; `step`
    is the one that is sampled and not yet ended; `saved` is the last checkpoint that was written or read. The last
    four are of `run`."""

    config: Config
    policy: Policy
    sampling: Policy
    learner: Learner
    problems: Problems
    evals: dict[str, list[Problem]]
    state: TrainerState
    watch: Watch
    step: StepInProgress | None = None
    saved: Path | None = None
    log: RunLog = field(init=False)
    progress: Progress = field(init=False)
    graders: Mapping[str, Verifier] = field(init=False)
    check: Callable[[], None] = field(init=False)

    def run(self, log: RunLog, progress: Progress) -> Path:
        """Train to the last step; the last checkpoint. Interrupted, it saves where it stands, and raises.

        Raises UserError if the disk does not take what is to be written; the checkpoints before are then whole. Raises
        Unhealthy, which is one too, where health.action ends the run.
        """
        config, self.log, self.progress = self.config, log, progress
        rewards = {name: reward_settings(config, name) for name in (config.data.name, *self.evals)}
        with verifiers(rewards, progress.note) as self.graders, stoppable() as self.check:
            progress.start(config, config.steps, log.folder)
            self.watch = watch_of(config, log.folder)
            self.learner.budget.note = progress.note
            if self.state.step < config.steps:
                parallel.together(lambda: probe_memory(self.learner, self.policy, self.problems))
            try:
                while True:
                    if self.evaluation_is_due():
                        self.evaluate()
                    self.describe()
                    if self.state.step >= config.steps:
                        break
                    self.take_step()
                    if self.state.step % config.checkpoints.every == 0:
                        self.save()
            except (Interrupted, Unhealthy):
                self.save()
                raise
            return self.save()

    def take_step(self) -> None:
        """One step: collect groups, update, write what it was. Stopped in between, it leaves `self.step`."""
        if self.step is None:
            self.step = self.collect()
        step, training, waited = self.step, time.perf_counter(), self.learner.wait_s
        self.learner.lr_scale = self.state.lr_scale
        train_step(self.learner, step, self.check)
        end = time.perf_counter()
        waited = self.learner.wait_s - waited
        own = end - training, end - step.began, peak_memory_gb(self.policy.device), waited
        took = parallel.each(lambda: own)
        row = step_row(step.number, step.sampled, self.learner.metrics(step), {
            **step.counted, **costs(step, took),
        })  # fmt: skip
        parallel.first(lambda: self.log.append_step(row, rollout_records(step.sampled)))
        self.state, self.step = replace(self.state, step=step.number, cursor=step.cursor), None
        self.progress.step(row)
        self.recover(row, step.groups)

    def collect(self) -> StepInProgress:
        """The next step's graded groups."""
        number, cursor = self.state.step + 1, self.state.cursor
        sampler, verifier = fresh(self.sampling, self.policy), self.graders[self.config.data.name]
        poll = polling(self.progress, self.check, "sampling")
        return collect(sampler, self.problems, self.config, number, cursor, verifier, poll)

    def save(self) -> Path:
        """A checkpoint of where the run stands, unless there is one; then those go that are not to be kept."""
        name = checkpoint_name(self.state.step, len(self.step.done) if self.step else None)
        if self.saved is None or self.saved.name != name:
            need_same_weights(self.policy.model, name)
            parallel.first(self.log.flush)  # a checkpoint says that its steps are logged
            folder, optimizer, dataset = self.log.folder, self.learner.optimizer, next(iter(self.evals), None)
            self.saved = saved = save_checkpoint(folder, self.policy, optimizer, self.state, self.config, self.step)
            parallel.first(lambda: prune(folder, self.config, dataset, saved))
        return self.saved

    def describe(self) -> None:
        """Give the last checkpoint its model card, if it is of this step: its evaluation came after it."""
        saved = self.saved
        if saved is not None and saved.name == checkpoint_name(self.state.step):
            parallel.first(lambda: describe(self.log.folder, saved, self.policy, self.state, self.config))

    def recover(self, row: Row, groups: Sequence[Group]) -> None:
        """Watch a step that is done and logged, and do what was decided about its alarms: say it, stop, or take the
        weights of the best checkpoint with a lower rate. Raises Unhealthy where the run must end."""
        alarms = self.watch.add(row)
        if not alarms:
            return
        decision = decide(self.config, self.state, alarms, self.best)
        if (back_to := decision.back_to) is not None:
            parallel.together(lambda: restore(self.policy, self.learner.optimizer, back_to))
            self.state = replace(self.state, lr_scale=decision.lr_scale, rollbacks=self.state.rollbacks + 1)
            self.watch.rolled_back()
        parallel.first(lambda: self.log.append_health(decision.lines()))
        for text in decision.notes(self.state.step):
            self.progress.note(text)
        if decision.fatal:
            folder, step = self.log.folder, self.state.step
            batch = parallel.first(lambda: save_batch(folder, step, groups, self.config), str, Path)
            self.progress.note(f"the batch is in {batch}")
        if decision.action == "stop":
            raise Unhealthy(decision.ending(self.config, self.state, self.log.folder))

    def best(self) -> Path | None:
        """The checkpoint with the best accuracy on the first dataset of eval.on, as the first process finds it."""
        folder, dataset, every = self.log.folder, next(iter(self.evals), ""), self.config.checkpoints.every
        found = parallel.first(lambda: str(best_checkpoint(folder, dataset, self.progress.note, every) or ""))
        return Path(found) if found else None

    def evaluation_is_due(self) -> bool:
        """Every `eval.every` steps, at the last one, and never twice: a resumed run may have it already."""
        step = self.state.step
        if not self.evals or self.step or not self.config.evaluates_after(step):
            return False
        rows = parallel.first(lambda: read_evals(self.log.folder))
        return {row["dataset"] for row in rows if row["step"] == step} != set(self.evals)

    def evaluate(self) -> None:
        """Evaluate every dataset; their rows are written together. Gains are paired with the run's first evaluation."""
        step, log = self.state.step, self.log
        first = parallel.together(lambda: answers_at(log.folder, 0))
        kept = parse_all(Answer, parallel.first(lambda: log.kept_answers(step)), f"{log.folder}/answers")
        policy = fresh(self.sampling, self.policy)
        rows: list[dict[str, Any]] = []
        answers: list[Answer] = []
        for name, problems in self.evals.items():
            start = time.perf_counter()
            known = [answer for answer in kept if answer.dataset == name]
            own = answer_problems(
                policy, name, problems, self.config, self.graders[name], self.progress, self.check, known,
                lambda answer: log.keep_answer(step, asdict(answer), parallel.rank()),
            )  # fmt: skip
            since = gain([answer for answer in first if answer.dataset == name], own) if step else None
            measured = asdict(summarise(name, own)) | (asdict(since) if since else {})
            rows.append({"step": step, **measured, "time_s": time.perf_counter() - start})
            answers += own
        cut = mean(answer.cut_off for answer in answers)
        if not step and cut > 0.5:
            limit = self.config.eval.max_new_tokens or self.config.sampling.max_new_tokens
            told = f"{cut:.0%} of the model's answers are cut off at {limit} tokens and score 0"
            self.progress.note(f"warning: {told}; raise sampling.max_new_tokens")
        parallel.first(lambda: log.append_evaluation(rows, map(asdict, answers)))
        self.progress.evaluation(rows)

"""A run before its first step: everything is loaded and checked, and nothing is written."""

from pathlib import Path

from r1v0.base.notes import to_stderr
from r1v0.config import Config
from r1v0.grpo import parallel
from r1v0.grpo.step import Learner
from r1v0.models.device import choose_device, set_threads, settled
from r1v0.models.loading import resolve_model
from r1v0.rollouts.collect import reward_settings
from r1v0.rollouts.gradable import FIRST, need_gradable, unreadable
from r1v0.runs.health import Watch
from r1v0.tasks.datasets import check as check_data
from r1v0.tasks.datasets import eval_name, load_eval, load_problems
from r1v0.tasks.prompts import make_prompts, words_of
from r1v0.tasks.rewards import check as check_reward
from r1v0.trainer.checkpoint import TrainerState, load_optimizer, load_state
from r1v0.trainer.half_step import load_step
from r1v0.trainer.loop import Trainer
from r1v0.trainer.policies import reference_policy, sampling_policy, trained_policy, try_operators


def prepare(config: Config, checkpoint: Path | None = None) -> Trainer:
    """Load models and data; from `checkpoint`, go on where it stands. Raises UserError before anything is written."""
    check_reward(reward_settings(config, config.data.name))
    words_of(config.prompt)
    set_threads(config)
    config = settled(config)
    device, dtype = choose_device(config)
    check_data(config.eval.on, config.data)
    # Looked for before the rows are read: it is what a run is about. Of several processes the first one downloads it.
    parallel.first(lambda: resolve_model(config.model), str, Path)
    base = resolve_model(config.model)
    problems = load_problems(config.data, config.seed, config.eval.on)
    evals = {eval_name(spec): load_eval(spec, config.eval.max_problems) for spec in config.eval.on}
    first = {name: held_out[:FIRST] for name, held_out in evals.items()}
    tried = [problems.at(i) for i in range(FIRST)]
    first[config.data.name] = [*tried, *first.get(config.data.name, [])]
    need_gradable({name: reward_settings(config, name) for name in first}, first, to_stderr)
    policy, optimizer = trained_policy(config, base, checkpoint, device, dtype)
    # A template that fails is told before a run folder is made.
    prompts = make_prompts(config.prompt, tried, policy)
    if strange := unreadable(policy, prompts):
        to_stderr(f"warning: {strange}")
    reference = reference_policy(config, policy, base, dtype)
    learner = Learner(policy.model, optimizer, config, reference.model if reference else None)
    sampling = sampling_policy(config, policy)
    trainer = Trainer(config, policy, sampling, learner, problems, evals, TrainerState(), Watch(config))
    if checkpoint is not None:
        go_on_from(trainer, checkpoint)
    try_operators(policy, sampling)
    return trainer


def go_on_from(trainer: Trainer, checkpoint: Path) -> None:
    """Put a trainer, which has the checkpoint's weights, where the checkpoint stands: the optimizer's state, the
    counters, and a step that was begun. Raises UserError for a damaged file."""
    load_optimizer(checkpoint, trainer.learner.optimizer)
    trainer.state, trainer.saved = load_state(checkpoint), checkpoint
    trainer.step = load_step(checkpoint, trainer.state.step + 1)

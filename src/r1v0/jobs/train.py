"""`r1v0 train`: a run is prepared, gets its folder, and is watched until it ends or is stopped.

Decides: nothing is written before model, data and reward are loaded and checked. A run without --out claims the next
free folder of runs/ by making it, so that of two that start together each has its own.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from r1v0 import config
from r1v0.base.command import typed
from r1v0.base.errors import Interrupted, Lost, UserError
from r1v0.base.lock import hold
from r1v0.base.notes import speaks, to_stderr
from r1v0.grpo import parallel
from r1v0.jobs import report
from r1v0.jobs.plan import make_plan
from r1v0.jobs.plan.cost import find_card
from r1v0.jobs.plan.report import in_a_line
from r1v0.jobs.plan.shapes import Shape
from r1v0.models.device import bfloat16_cost, device_name, set_threads
from r1v0.models.processes import processes
from r1v0.models.sizes import GIB
from r1v0.models.tried import outcomes
from r1v0.report.progress import open_progress
from r1v0.runs import manifest, runlog
from r1v0.runs.claim import claimed
from r1v0.runs.inputs import located, record, restored
from r1v0.runs.progress import Progress
from r1v0.runs.provenance import environment
from r1v0.runs.settings import Settled, resumed
from r1v0.runs.trackers import need_packages
from r1v0.runs.tracking import Tracked
from r1v0.runs.written import answers_at
from r1v0.trainer import checkpoint
from r1v0.trainer.loop import Trainer
from r1v0.trainer.same import need_same_start
from r1v0.trainer.setup import prepare

LONG_S = 600.0


def begin(settled: Settled, out: Path | None, name: str) -> None:
    """A new run in `out`, or in the next free runs/NAME-001. Raises what `Trainer.run` does: UserError, Interrupted."""
    with processes(), ExitStack() as stack:
        if out is not None:
            parallel.first(lambda: runlog.need_free(out))
        parallel.first(lambda: need_packages(settled.config.track))
        trainer = parallel.together(lambda: prepare(settled.config))
        trainer.config = located(trainer.config)

        def opened() -> Path:
            folder = out or stack.enter_context(claimed(name))
            stack.enter_context(hold(folder))
            runlog.need_free(folder)
            files = record(trainer.config, folder)
            runlog.create(folder, settled.of(trainer.config).toml(), about(trainer, files))
            return folder

        folder = parallel.first(opened, str, Path)
        watch(trainer, runlog.RunLog(folder), settled.line)


def resume(folder: Path, sets: Sequence[str]) -> None:
    """Go on with the run in `folder` from its newest checkpoint. Raises as `begin` does."""
    with processes(), ExitStack() as stack:
        # Before its checkpoints are looked at: another process may be writing one.
        parallel.first(lambda: stack.enter_context(hold(folder)))
        settled = parallel.together(lambda: resumed(folder, sets))
        parallel.first(lambda: need_packages(settled.config.track))
        found = parallel.first(lambda: str(newest(folder, settled.config) or ""))
        config_here = restored(settled.config, folder, runlog.environment_of(folder), to_stderr)
        settled = settled.of(located(config_here))
        trainer = parallel.together(lambda: prepare(settled.config, Path(found) if found else None))
        if trainer.state.step > settled.config.steps:
            steps = settled.config.steps
            raise UserError(f"{folder} is at step {trainer.state.step} and steps is {steps}: set more to go on")

        def opened() -> None:
            answers_at(folder, 0)  # if they are damaged, say so before anything is changed
            files = record(trainer.config, folder)
            runlog.resume(folder, settled.of(trainer.config).toml(), trainer.state.step, about(trainer, files))

        parallel.first(opened)
        watch(trainer, runlog.RunLog(folder), settled.line)


def requeue(settled: Settled, out: Path, sets: Sequence[str]) -> None:
    """Go on with the run in `out` if there is one, else begin it there: one command for restarts. Raises as `begin`."""
    with processes():
        if parallel.first((out / runlog.CONFIG).is_file):
            resume(out, sets)
        else:
            begin(settled, out, "")


def newest(folder: Path, settings: config.Config) -> Path | None:
    """The checkpoint to go on from; None if the run was stopped before its first. Raises UserError."""
    start = manifest.newest_whole(folder)
    if start is None:
        to_stderr(f"{folder} holds no checkpoint yet: starting at step 0")
        return None
    before = checkpoint.load_config(start)
    if before is not None:  # config.toml may have been edited since
        config.need_resumable(before, settings, f" ({folder / runlog.CONFIG} was changed after {start.name})")
    return start


def foretold(trainer: Trainer) -> str:
    """The line of `r1v0 plan` for what is left of a run, if that is more than ten minutes; else empty."""
    config, device = trainer.config, trainer.policy.device
    config = replace(config, steps=config.steps - trainer.state.step)
    shape = Shape(trainer.policy.model.config, "the model")
    if device.type == "cuda":
        name, memory = device_name(device), torch.cuda.get_device_properties(device).total_memory / GIB
        plan = make_plan(config, name if find_card(name) else None, memory, shape=shape)
    else:
        half = torch.bfloat16 in (trainer.policy.model.norm.dtype, trainer.sampling.model.norm.dtype)
        plan = make_plan(config, bfloat16=bfloat16_cost() if half else 1.0, shape=shape)
    return in_a_line(plan) if plan.run_s[0] > LONG_S else ""


def about(trainer: Trainer, files: dict[str, dict[str, str]]) -> dict[str, object]:
    """What env.json says of a run that needs these `files`."""
    used = {
        "problems": trainer.problems.size or None,
        "malformed": trainer.problems.malformed,
        "dropped": trainer.problems.dropped,
    }
    found = environment(device_name(trainer.policy.device), set_threads(trainer.config))
    dtype = str(trainer.policy.model.norm.dtype).removeprefix("torch.")
    more: dict[str, object] = {"files": files} if files else {}
    if parallel.size() > 1:
        more["processes"] = parallel.size()
    return found | {"data": used, "dtype": dtype, "operators": outcomes()} | more


def watch(trainer: Trainer, log: runlog.RunLog, line: str) -> None:
    """Train, and tell whoever watches; `line` says with which settings."""
    need_same_start(trainer.config, trainer.policy.model)
    with Tracked(open_progress(page=report.write)) if speaks() else Progress() as progress:
        progress.note(line)
        if told := foretold(trainer):
            progress.note(told)
        if trainer.state.step == trainer.config.steps:
            progress.note(f"the run has done its {trainer.config.steps} steps; to go on, add --set steps=N with more")
        again = typed("train", "--resume", log.folder)
        try:
            progress.finish({"checkpoint": trainer.run(log, progress)})
        except Lost as error:
            raise Lost(f"{error}; go on with: {again}") from None
        except Interrupted:
            inside = f", {len(trainer.step.done)} updates into the next" if trainer.step else ""
            progress.note(f"stopped after step {trainer.state.step}{inside}; go on with: {again}")
            raise

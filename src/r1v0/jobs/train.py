"""`r1v0 train`: a run is prepared, gets its folder, and is watched until it ends or is stopped.

Decides: nothing is written before model, data and reward are loaded and checked. A run without --out claims the next free
folder of runs/ by making it, so that of two that start together each has its own.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from r1v0 import config
from r1v0.base.command import typed
from r1v0.base.errors import Interrupted, UserError
from r1v0.base.lock import hold
from r1v0.jobs.plan import make_plan
from r1v0.jobs.plan.cost import find_card
from r1v0.jobs.plan.memory import GIB
from r1v0.jobs.plan.report import in_a_line
from r1v0.jobs.plan.shapes import Shape
from r1v0.models.device import bfloat16_cost, device_name, set_threads
from r1v0.models.tried import outcomes
from r1v0.report.progress import open_progress
from r1v0.runs import manifest, runlog
from r1v0.runs.inputs import located, record, restored
from r1v0.runs.provenance import environment
from r1v0.runs.settings import Settled, resumed
from r1v0.trainer import checkpoint, loop

LONG_S = 600.0


def begin(settled: Settled, out: Path | None, name: str) -> None:
    """A new run in `out`, or in the next free runs/NAME-001. Raises UserError and Interrupted, as `trainer.train` does."""
    if out is not None:
        runlog.need_free(out)
    run = loop.prepare(settled.config)
    run.config = located(run.config)
    with ExitStack() as stack:
        folder = out or stack.enter_context(runlog.claimed(name))
        stack.enter_context(hold(folder))
        runlog.need_free(folder)
        log = runlog.create(folder, settled.of(run.config).toml(), about(run, record(run.config, folder)))
        watch(run, log, settled.line)


def resume(folder: Path, sets: Sequence[str]) -> None:
    """Go on with the run in `folder` from its newest checkpoint. Raises as `begin` does."""
    settled = resumed(folder, sets)
    with hold(folder):  # before its checkpoints are looked at: another process may be writing one
        start = newest(folder, settled.config)
        config_here = restored(settled.config, folder, runlog.environment_of(folder), manifest.to_stderr)
        settled = settled.of(located(config_here))
        run = loop.prepare(settled.config, start)
        if run.state.step > settled.config.steps:
            steps = settled.config.steps
            raise UserError(f"{folder} is at step {run.state.step} and steps is {steps}: set more to go on")
        loop.first_answers(folder)  # if they are damaged, say so before anything is changed
        files = record(run.config, folder)
        log = runlog.resume(folder, settled.of(run.config).toml(), run.state.step, about(run, files))
        watch(run, log, settled.line)


def newest(folder: Path, settings: config.Config) -> Path | None:
    """The checkpoint to go on from; None if the run was stopped before its first. Raises UserError."""
    start = manifest.newest_whole(folder)
    if start is None:
        manifest.to_stderr(f"{folder} holds no checkpoint yet: starting at step 0")
        return None
    before = checkpoint.load_config(start)
    if before is not None:  # config.toml may have been edited since
        config.need_resumable(before, settings, f" ({folder / runlog.CONFIG} was changed after {start.name})")
    return start


def foretold(run: loop.Run) -> str:
    """The line of `r1v0 plan` for what is left of a run, if that is more than ten minutes; else empty."""
    config, device = run.config, run.policy.device
    config = replace(config, steps=config.steps - run.state.step)
    shape = Shape(run.policy.model.config, "the model")
    if device.type == "cuda":
        name, memory = device_name(device), torch.cuda.get_device_properties(device).total_memory / GIB
        plan = make_plan(config, name if find_card(name) else None, memory, shape=shape)
    else:
        half = torch.bfloat16 in (run.policy.model.norm.dtype, run.sampling.model.norm.dtype)
        plan = make_plan(config, bfloat16=bfloat16_cost() if half else 1.0, shape=shape)
    return in_a_line(plan) if plan.run_s[0] > LONG_S else ""


def about(run: loop.Run, files: dict[str, dict[str, str]]) -> dict[str, object]:
    """What env.json says of a run that needs these `files`."""
    used = {
        "problems": run.problems.size or None,
        "malformed": run.problems.malformed,
        "dropped": run.problems.dropped,
    }
    found = environment(device_name(run.policy.device), set_threads(run.config))
    dtype = str(run.policy.model.norm.dtype).removeprefix("torch.")
    more = {"files": files} if files else {}
    return found | {"data": used, "dtype": dtype, "operators": outcomes()} | more


def watch(run: loop.Run, log: runlog.RunLog, line: str) -> None:
    """Train, and tell whoever watches; `line` says with which settings."""
    with open_progress() as progress:
        progress.note(line)
        if told := foretold(run):
            progress.note(told)
        if run.state.step == run.config.steps:
            progress.note(f"the run has done its {run.config.steps} steps; to go on, add --set steps=N with more")
        try:
            progress.finish({"checkpoint": loop.train(run, log, progress)})
        except Interrupted:
            inside = f", {len(run.pending.done)} updates into the next" if run.pending else ""
            again = typed("train", "--resume", log.folder)
            progress.note(f"stopped after step {run.state.step}{inside}; go on with: {again}")
            raise

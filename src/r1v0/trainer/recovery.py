"""What a run does about the alarms of health.py: say it, stop, or go back to its best weights.

Decides: every alarm is a line of health.jsonl with what was done about it. A rollback takes the weights and AdamW's
moments of the best checkpoint and a lower learning rate, while steps and problems go on: so no step is logged twice,
nothing is deleted, the fall stays in the curves, and the batch that did harm is not drawn again. Which checkpoint is
best, and when an alarm sounds, follows from files that a resumed run has too.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.keys import key
from r1v0.base.writing import write_atomic, writing
from r1v0.config import Config
from r1v0.grpo.batch import make_updates
from r1v0.runs import runlog
from r1v0.runs.health import Alarm, Row, Watch, watch_rows
from r1v0.runs.manifest import place
from r1v0.trainer.checkpoint import as_os_error, best_checkpoint, restore
from r1v0.trainer.metrics import rollout_records
from r1v0.types import Group

if TYPE_CHECKING:
    from r1v0.trainer.loop import Run

NOT_FINITE = "not-finite"


class Unhealthy(UserError):
    """The run was ended by health.action, or cannot go on. Its last checkpoint is saved by who catches it."""


def watch_of(config: Config, folder: Path) -> Watch:
    """The watch of the run in `folder`, which has seen all of its rows."""
    rollbacks = {row["step"] for row in runlog.read_health(folder) if row.get("action") == "rollback"}
    return watch_rows(config, runlog.read_metrics(folder), rollbacks)[0]


def respond(run: "Run", row: Row, groups: Sequence[Group], log: runlog.RunLog, progress: runlog.Progress) -> None:
    """Watch a step that is done and logged. Raises Unhealthy where the run must end; `groups` are then saved if they are
    to blame. A rollback changes the policy, its optimizer and the learning rate of the steps to come."""
    alarms = run.watch.add(row)
    if not alarms:
        return
    step = run.state.step
    serious = [alarm for alarm in alarms if alarm.fatal or alarm.kind != "not_finite"]
    action, best = _action(run, serious, log.folder, progress)
    told: dict[str, Any] = {}
    if best is not None:
        restore(run.policy, run.optimizer, best)
        scale = run.state.lr_scale * run.config.health.rollback_lr
        run.state = replace(run.state, lr_scale=scale, rollbacks=run.state.rollbacks + 1)
        run.watch.rolled_back()
        told = {"to_step": place(best)[0], "lr_scale": scale}
    log.append_health([_line(alarm, action if alarm in serious else "warn", told) for alarm in alarms])
    for alarm in alarms:
        progress.note(f"warning: step {step}: {alarm.message}")
    if best is not None:
        progress.note(f"rolled back to {best.name}'s weights; learning rate x {run.state.lr_scale:g} from here on")
    if any(alarm.fatal for alarm in serious):
        progress.note(f"the batch is in {save_batch(log.folder, step, groups, run.config)}")
    if action == "stop":
        raise Unhealthy(_ending(run, serious, log.folder))


def _action(run: "Run", serious: Sequence[Alarm], folder: Path, progress: runlog.Progress) -> tuple[str, Path | None]:
    """("warn" | "stop" | "rollback", the checkpoint to go back to)."""
    settings = run.config.health
    if not serious or (settings.action == "warn" and not any(alarm.fatal for alarm in serious)):
        return "warn", None
    if settings.action != "rollback" or run.state.rollbacks >= settings.max_rollbacks:
        return "stop", None
    best = best_checkpoint(folder, next(iter(run.evals)), progress.note, run.config.checkpoint_every)
    return ("rollback", best) if best else ("stop", None)


def _line(alarm: Alarm, action: str, told: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(alarm).items() if name != "fatal"}
    return {**fields, "action": action, **(told if action == "rollback" else {})}


def _ending(run: "Run", serious: Sequence[Alarm], folder: Path) -> str:
    """The one line of a run that ends: what happened, why it ends, how to go on."""
    worst = next((alarm for alarm in serious if alarm.fatal), serious[0])
    settings = run.config.health
    if worst.fatal and settings.action == "warn":
        why = f"health.max_skipped is {settings.max_skipped}"
    elif settings.action == "rollback":
        why = (
            f"after {run.state.rollbacks} rollbacks" if run.state.rollbacks else "no evaluated checkpoint to go back to"
        )
    else:
        why = "health.action is stop"
    on = typed("train", "--resume", folder, "--set", "health.action=warn")
    return (
        f"stopped after step {run.state.step} ({why}): {worst.message}. A checkpoint of this step is saved; "
        f"{on} goes on all the same"
    )


def save_batch(folder: Path, step: int, groups: Sequence[Group], config: Config) -> Path:
    """Write a step's packed updates and its texts to not-finite/step-NNNNN/; the folder. Raises UserError.

    batch.safetensors holds each update's fields of `Batch` as "update/field"; rollouts.jsonl the texts and rewards.
    """
    out = folder / NOT_FINITE / runlog.step_name(step)
    updates = make_updates(groups, config.grpo, config.sampling.max_new_tokens, key(config.seed, "updates", step))
    tensors = {f"{i}/{name}": value for i, batch in enumerate(updates) for name, value in asdict(batch).items()}
    with writing(out), as_os_error():
        out.mkdir(parents=True, exist_ok=True)
        save_file(tensors, out / "batch.safetensors", metadata={"r1v0_step": str(step)})
        write_atomic(out / "rollouts.jsonl", b"".join(map(runlog.json_line, rollout_records(groups))))
    return out

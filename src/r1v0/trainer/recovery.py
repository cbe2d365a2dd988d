"""What a run does about the alarms of health.py: say it, stop, or go back to its best weights.

Decides: every alarm is a line of health.jsonl with what was done about it. A rollback takes the weights and AdamW's
moments of the best checkpoint and a lower learning rate, while steps and problems go on: so no step is logged twice,
nothing is deleted, the fall stays in the curves, and the batch that did harm is not drawn again. Which checkpoint is
best, and when an alarm sounds, follows from files that a resumed run has too.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.keys import key
from r1v0.base.writing import write_atomic, writing
from r1v0.config import Config
from r1v0.grpo.batch import make_updates
from r1v0.runs import records, runlog
from r1v0.runs.health import Alarm, Watch, watch_rows
from r1v0.runs.manifest import place
from r1v0.trainer.checkpoint import TrainerState, as_os_error
from r1v0.trainer.metrics import rollout_records
from r1v0.types import Group

NOT_FINITE = "not-finite"


class Unhealthy(UserError):
    """The run was ended by health.action, or cannot go on. Its last checkpoint is saved by who catches it."""


def watch_of(config: Config, folder: Path) -> Watch:
    """The watch of the run in `folder`, which has seen all of its rows."""
    rollbacks = {row["step"] for row in records.read_health(folder) if row.get("action") == "rollback"}
    return watch_rows(config, records.read_metrics(folder), rollbacks)[0]


@dataclass(frozen=True)
class Decision:
    """What is done about a step's alarms. `serious` are those that an action is for; `back_to` is the checkpoint
    whose weights a rollback takes, and `lr_scale` the learning rate's share from then on."""

    alarms: Sequence[Alarm]
    serious: Sequence[Alarm]
    action: Literal["warn", "stop", "rollback"]
    back_to: Path | None = None
    lr_scale: float = 1.0

    @property
    def fatal(self) -> bool:
        """Whether the run cannot go on as it is, whatever health.action says."""
        return any(alarm.fatal for alarm in self.serious)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of health.jsonl."""
        told = {"to_step": place(self.back_to)[0], "lr_scale": self.lr_scale} if self.back_to else {}
        found = []
        for alarm in self.alarms:
            fields = {name: value for name, value in asdict(alarm).items() if name != "fatal"}
            action = self.action if alarm in self.serious else "warn"
            found.append({**fields, "action": action, **(told if action == "rollback" else {})})
        return found

    def notes(self, step: int) -> list[str]:
        """What the user is told."""
        found = [f"warning: step {step}: {alarm.message}" for alarm in self.alarms]
        if self.back_to is not None:
            found.append(
                f"rolled back to {self.back_to.name}'s weights; learning rate x {self.lr_scale:g} from here on"
            )
        return found

    def ending(self, config: Config, state: TrainerState, folder: Path) -> str:
        """The one line of a run that ends: what happened, why it ends, how to go on."""
        worst = next((alarm for alarm in self.serious if alarm.fatal), self.serious[0])
        settings = config.health
        if worst.fatal and settings.action == "warn":
            why = f"health.max_skipped is {settings.max_skipped}"
        elif settings.action == "rollback":
            why = f"after {state.rollbacks} rollbacks" if state.rollbacks else "no evaluated checkpoint to go back to"
        else:
            why = "health.action is stop"
        on = typed("train", "--resume", folder, "--set", "health.action=warn")
        return (
            f"stopped after step {state.step} ({why}): {worst.message}. A checkpoint of this step is saved; "
            f"{on} goes on all the same"
        )


def decide(
    config: Config,
    state: TrainerState,
    alarms: Sequence[Alarm],
    best: Callable[[], Path | None],
) -> Decision:
    """What to do about the alarms of the step that was logged last. `best` finds the checkpoint to go back to."""
    settings = config.health
    serious = [alarm for alarm in alarms if alarm.fatal or alarm.kind != "not_finite"]
    if not serious or (settings.action == "warn" and not any(alarm.fatal for alarm in serious)):
        return Decision(alarms, serious, "warn")
    if settings.action != "rollback" or state.rollbacks >= settings.max_rollbacks:
        return Decision(alarms, serious, "stop")
    found = best()
    if found is None:
        return Decision(alarms, serious, "stop")
    return Decision(alarms, serious, "rollback", found, state.lr_scale * settings.rollback_lr)


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

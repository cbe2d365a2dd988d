"""Checkpoints: a Hugging Face folder that others can load, plus `trainer/` with what an exact resume needs.

    checkpoints/step-00050/  config.json  model.safetensors  tokenizer.json ...
                             trainer/state.json  trainer/optimizer.safetensors

Decides: a checkpoint is written aside and renamed, so a folder named step-* is always whole. No random state is
saved, because there is none (rng.py); the state is the step, the next problem's index and the optimizer's tensors.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from r1v0.errors import UserError
from r1v0.models.loading import Policy, read_json, save
from r1v0.optimizer import Optimizer
from r1v0.runlog import CHECKPOINTS, step_name, steps_in


@dataclass(frozen=True, slots=True)
class TrainerState:
    """`step` optimizer steps are done; `cursor` is the index of the next training problem."""

    step: int = 0
    cursor: int = 0


def save_checkpoint(run: Path, policy: Policy, optimizer: Optimizer, state: TrainerState) -> Path:
    """Write checkpoints/step-NNNNN; one that is there already is left as it is."""
    final = run / CHECKPOINTS / step_name(state.step)
    if final.exists():
        return final
    aside = final.with_name(f".{final.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "trainer").mkdir(parents=True)
    save(policy, aside, metadata={"r1v0_step": str(state.step)})
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in optimizer.state_tensors().items()},
        aside / "trainer" / "optimizer.safetensors",
    )
    (aside / "trainer" / "state.json").write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
    aside.rename(final)
    return final


def newest_checkpoint(run: Path) -> Path:
    """The last checkpoint of a run folder. Raises UserError if it has none."""
    found = [path for path in steps_in(run / CHECKPOINTS) if (path / "trainer" / "state.json").is_file()]
    if not found:
        raise UserError(f"run folder {run} holds no checkpoint to go on from: start it again with another --out")
    return found[-1]


def load_state(checkpoint: Path) -> TrainerState:
    """The trainer's counters. Raises UserError for a damaged file."""
    raw = read_json(checkpoint / "trainer" / "state.json")
    if not all(isinstance(raw.get(name), int) and raw[name] >= 0 for name in ("step", "cursor")):
        raise UserError(
            f"{checkpoint / 'trainer' / 'state.json'} is damaged: remove {checkpoint} to go on from an earlier checkpoint"
        )
    return TrainerState(raw["step"], raw["cursor"])


def load_optimizer(checkpoint: Path, optimizer: Optimizer) -> None:
    """Give the optimizer back the state it had. Raises UserError if it does not fit the model."""
    path = checkpoint / "trainer" / "optimizer.safetensors"
    try:
        optimizer.load_state_tensors(load_file(path))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} does not fit ({str(error)[:80]}): remove {checkpoint} to go on from an earlier checkpoint"
        ) from None

"""Checkpoints: a Hugging Face folder that others can load, plus `trainer/` with what an exact resume needs.

    checkpoints/step-00050/  config.json  model.safetensors  tokenizer.json  README.md ...
                             trainer/state.json  trainer/optimizer.safetensors
                             trainer/config.toml  trainer/manifest.json

Decides: a checkpoint is written aside, flushed, sealed by a manifest of sizes and SHA-256 (manifest.py) and renamed, so
a folder named step-* was whole once, and whether it still is can be seen. Older ones are deleted only after that. No
random state is saved, because there is none (keys.py); the state is the step, the next problem's index and the
optimizer's tensors, and inside a step what half_step.py holds. The config lies beside them, so that a run cannot go on
with other settings than it had. README.md, the model card, is not in the manifest: it is written again when the
checkpoint was evaluated, and whatever happens to it harms no resume.
"""

import dataclasses
import errno
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError

from r1v0.base.errors import UserError
from r1v0.base.notes import Note, to_stderr
from r1v0.base.reading import read_json
from r1v0.base.writing import amount_of, flush, free_bytes, write_atomic, writing
from r1v0.config import Config, parse, to_toml
from r1v0.grpo import parallel, saved
from r1v0.grpo.optimizer import Optimizer
from r1v0.grpo.shard import streamed
from r1v0.grpo.step import StepInProgress
from r1v0.models.families import read_otherwise
from r1v0.models.loading import Policy, read_weights, save
from r1v0.report.card import CARD, licence_of, model_card
from r1v0.runs.manifest import (
    OPTIMIZER,
    STATE,
    TRAINER,
    checkpoint_name,
    checkpoints_in,
    damage,
    is_half_way,
    place,
    seal,
)
from r1v0.runs.records import read_evals
from r1v0.runs.runlog import CHECKPOINTS
from r1v0.trainer.half_step import write_step

FORMAT = 2
"""of state.json; 1 (which did not say so) had no manifest"""
CONFIG = f"{TRAINER}/config.toml"


@dataclass(frozen=True, slots=True)
class TrainerState:
    """`step` training steps are done; `cursor` is the index of the next training problem; `rollbacks` times the run
    went back to its best weights, and `lr_scale` is what is left of the learning rate (recovery.py). Every field
    goes to state.json; one that an older file lacks has its default."""

    step: int = 0
    cursor: int = 0
    lr_scale: float = 1.0
    rollbacks: int = 0


def save_checkpoint(
    run: Path,
    policy: Policy,
    optimizer: Optimizer,
    state: TrainerState,
    config: Config,
    step: StepInProgress | None = None,
) -> Path:
    """Write checkpoints/step-NNNNN, or with a half-done step step-NNNNN.UU. What has that name already is replaced.
    All processes of a run call it, and the first one writes.

    Raises UserError if it cannot be written; whatever was there before is then as it was.
    """
    final = run / CHECKPOINTS / checkpoint_name(state.step, len(step.done) if step else None)
    aside = final.with_name(f".{final.name}.writing")
    specs, tensors = streamed(optimizer)

    def begin() -> None:
        parameters = sum(p.numel() * p.element_size() for p in policy.model.parameters())
        need_room(final, parameters + sum(spec.bytes for spec in specs))
        with writing(final), as_os_error():
            shutil.rmtree(aside, ignore_errors=True)
            (aside / TRAINER).mkdir(parents=True)
            save(policy, aside, metadata={"r1v0_step": str(state.step)})
            if step:
                write_step(aside, step)
            (aside / CONFIG).write_text(to_toml(config), encoding="utf-8")
            (aside / STATE).write_text(json.dumps({"format": FORMAT, **asdict(state)}) + "\n", encoding="utf-8")

    def stream() -> None:
        with writing(final):
            saved.write(aside / OPTIMIZER if parallel.rank() == 0 else None, specs, tensors)

    def end() -> None:
        with writing(final):
            seal(aside)
            if step is None:
                describe(run, aside, policy, state, config)
            _remove(final)
            aside.rename(final)
            flush(final.parent)

    try:
        parallel.first(begin)
        parallel.together(stream)
        parallel.first(end)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def describe(run: Path, checkpoint: Path, policy: Policy, state: TrainerState, config: Config) -> None:
    """Write a checkpoint's model card with the evaluations that the run holds by now, unless it is that already.

    Raises UserError if it cannot be written, or if evals.jsonl is damaged.
    """
    raw = read_json(policy.folder / "config.json")
    warning = read_otherwise(raw, policy.model.config)
    card = model_card(run, state.step, config, licence_of(policy.folder), warning).encode()
    path = checkpoint / CARD
    with writing(path):
        if not path.is_file() or path.read_bytes() != card:
            write_atomic(path, card)


def need_room(path: Path, size: int) -> None:
    """Raise UserError if a checkpoint of `size` bytes cannot be written at `path`."""
    free = free_bytes(path)
    if 0 <= free < size:
        raise UserError(
            f"{path} cannot be written: it takes {amount_of(size)}, {amount_of(free)} are free there; remove "
            "what you can spare (old "
            "checkpoints take most, checkpoints.keep_last keeps fewer). What was saved before is whole"
        )


def prune(run: Path, config: Config, dataset: str | None, newest: Path) -> None:
    """Delete what is not to be kept of the checkpoints older than `newest`, which is whole.

    Those inside a step have done their work. Of the others stay the last `checkpoints.keep_last` (0: all) and the best
    `keep_best` on `dataset`. What only an interruption made is neither, so that a resumed run keeps what an
    uninterrupted one does.
    """
    keep, every = config.checkpoints, config.checkpoints.every
    older = [path for path in checkpoints_in(run) if place(path) < place(newest)]
    kept = {path for path in older if not is_half_way(path)}
    if keep.keep_last:
        regular = [path for path in (*older, newest) if not is_half_way(path) and place(path)[0] % every == 0]
        best = _by_accuracy(regular, run, dataset) if dataset is not None and keep.keep_best else []
        kept = {*regular[-keep.keep_last :], *best[: keep.keep_best]}
    for path in older:
        if path not in kept:
            with suppress(OSError):  # a checkpoint too many harms nobody
                _remove(path)


def best_checkpoint(run: Path, dataset: str, note: Note = to_stderr, every: int = 1) -> Path | None:
    """The whole checkpoint with the highest accuracy on `dataset` in evals.jsonl, of the steps that are multiples of
    `every` (others are there only because of an interruption); None if none was evaluated."""
    regular = [path for path in checkpoints_in(run) if not is_half_way(path) and place(path)[0] % every == 0]
    for path in _by_accuracy(regular, run, dataset):
        wrong = damage(path)
        if wrong is None:
            return path
        note(f"checkpoint {path} is damaged ({wrong}): skipped")
    return None


def _by_accuracy(checkpoints: list[Path], run: Path, dataset: str) -> list[Path]:
    """Those whose step was evaluated on `dataset`, the best first; of equals, the later."""
    found = {row["step"]: row.get("accuracy") for row in read_evals(run) if row.get("dataset") == dataset}
    rated = [(accuracy, path) for path in checkpoints if isinstance(accuracy := found.get(place(path)[0]), int | float)]
    return [path for _, path in sorted(rated, reverse=True)]


def load_state(checkpoint: Path) -> TrainerState:
    """The trainer's counters. Raises UserError for a damaged file."""
    raw = read_json(checkpoint / STATE)
    values = {spec.name: raw.get(spec.name, spec.default) for spec in dataclasses.fields(TrainerState)}
    fits = all(type(values[spec.name]) is type(spec.default) for spec in dataclasses.fields(TrainerState))
    if not fits or not {"step", "cursor"} <= raw.keys() or values["step"] < 0 or values["cursor"] < 0:
        raise UserError(f"{checkpoint / STATE} is damaged: remove {checkpoint} to go on from an earlier checkpoint")
    return TrainerState(**values)


def load_config(checkpoint: Path) -> Config | None:
    """The config that the run had then; None for a checkpoint of a release that kept none. Raises UserError."""
    path = checkpoint / CONFIG
    return parse(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else None


def load_optimizer(checkpoint: Path, optimizer: Optimizer) -> None:
    """Give the optimizer back the state it had. Raises UserError if it does not fit the model."""
    path = checkpoint / OPTIMIZER
    try:
        optimizer.load_state_tensors(saved.Tensors(path))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} does not fit ({str(error)[:80]}): remove {checkpoint} to go on from an earlier checkpoint"
        ) from None


def restore(policy: Policy, optimizer: Optimizer, checkpoint: Path) -> TrainerState:
    """Put a checkpoint's weights and optimizer state into those of a live run. Raises UserError for a damaged one."""
    wrong = damage(checkpoint)
    if wrong is not None:
        raise UserError(f"checkpoint {checkpoint} is damaged ({wrong}): remove it")
    if not optimizer.merged:  # with adapters the model stays as it is, and they come with the optimizer's state
        read_weights(checkpoint, policy.model)
    load_optimizer(checkpoint, optimizer)
    return load_state(checkpoint)


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint: renamed first, so that no half of one ever has its name. Raises OSError if that fails."""
    if checkpoint.exists():
        gone = checkpoint.with_name(f".{checkpoint.name}.removed")
        shutil.rmtree(gone, ignore_errors=True)
        checkpoint.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def as_os_error() -> Iterator[None]:
    """safetensors tells a failed write as an error of its own, with the system's number in its text."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        reason = str(error)[:80]
        raise OSError(int(number[1]) if number else errno.EIO, reason) from None

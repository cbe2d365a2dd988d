"""A run with two checkpoints and their evaluations, without training."""

import json
from pathlib import Path
from typing import Any

from r1v0.config import Config, resolve, to_toml
from r1v0.grpo.optimizer import Optimizer
from r1v0.models.loading import TINY, load
from r1v0.trainer.checkpoint import TrainerState, save_checkpoint


def evaluation(step: int, accuracy: float, length: float, **more: Any) -> dict[str, Any]:
    interval = {"ci_low": accuracy - 0.1, "ci_high": accuracy + 0.1}
    sizes = {"problems": 256, "samples": 1, "length": length, "truncated_frac": 0.0}
    return {"step": step, "dataset": "countdown", "accuracy": accuracy, **interval, **sizes, **more}


def write_evals(run: Path, *rows: dict[str, Any]) -> None:
    (run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_with_checkpoints(run: Path, config: Config | None = None) -> Path:
    """Checkpoints of the steps 2 and 4; evaluations at 0, 2 and 4."""
    config = config or resolve("countdown", sets=["threads=1", "steps=4"])
    run.mkdir()
    (run / "config.toml").write_text(to_toml(config))
    (run / "env.json").write_text(json.dumps({"r1v0": "0.1.0", "git_commit": "c0ffee", "started": "2026-11-25"}))
    policy = load(TINY)
    optimizer = Optimizer(policy.model, config.optimizer)
    for step in (2, 4):
        save_checkpoint(run, policy, optimizer, TrainerState(step, 0), config)
    gain = {"gain": 0.3, "gain_low": 0.2, "gain_high": 0.4}
    write_evals(run, evaluation(0, 0.2, 30), evaluation(2, 0.3, 40), evaluation(4, 0.5, 60, **gain))
    (run / "figures").mkdir()
    (run / "figures" / "curves.png").write_bytes(b"\x89PNG of the curves")
    return run


def pushed_files(run: Path, name: str) -> dict[str, bytes]:
    """What must arrive of a checkpoint beside its card."""
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    found = {file: (run / "checkpoints" / name / file).read_bytes() for file in names}
    return {**found, "curves.png": (run / "figures" / "curves.png").read_bytes()}

"""Made-up run folders for tests of figures and progress."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1v0.runs.written import Answer


def metrics_row(step: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "step": step,
        "reward/mean": step / 20,
        "length/mean": 40.0 + step,
        "length/correct": None,
        "length/wrong": 50.0,
    }
    row |= {
        "length/truncated_frac": 0.02,
        "groups/flat_frac": 0.25,
        "groups/all_correct_frac": 0.125,
        "groups/all_wrong_frac": 0.125,
    }
    row |= {
        "tokens/sampled": 1000 * step,
        "tokens/trained": 750 * step,
        "policy/entropy": 0.8,
        "policy/mismatch_kl": 1e-9,
    }
    row |= {"policy/clip_frac": 0.0, "policy/grad_norm": 1.0, "reflection/frac": 0.1, "time/sample_s": 0.5}
    row |= {"time/verify_s": 0.125, "time/train_s": 1.0, "time/step_s": 1.75}
    return row | {key.replace("__", "/"): value for key, value in changes.items()}


def evals_row(step: int, dataset: str = "countdown", **changes: Any) -> dict[str, Any]:
    p = 0.2 + step / 40
    row: dict[str, Any] = {
        "step": step,
        "dataset": dataset,
        "problems": 256,
        "samples": 1,
        "accuracy": p,
        "ci_low": p - 0.05,
    }
    row |= {"ci_high": p + 0.05, "strict_accuracy": p / 2, "pass_at_k": {"1": p}, "maj_at_k": p, "length": 30.0 + step}
    row |= {"length_correct": 20.0, "length_wrong": 60.0, "truncated_frac": 0.0, "reflection_frac": 0.05, "time_s": 2.0}
    return row | changes


def evals(last: int = 10) -> list[dict[str, Any]]:
    return [evals_row(step, name) for step in range(0, last + 1, 5) for name in ("countdown", "countdown-hard")]


def write_run(folder: Path, metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in (("metrics.jsonl", metrics), ("evals.jsonl", evaluations)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def answer(**changes: Any) -> Answer:
    """One graded answer of an evaluation."""
    row: dict[str, Any] = dict(
        dataset="countdown", template="countdown", problem="p0", sample=0, question="3 7 4 target 17"
    )
    row |= dict(gold="17 from 3 7 4", completion="text", extracted=None, correct=False, strict=False, reward=0.0)
    row |= dict(tokens=9, cut_off=False)
    return Answer(**(row | changes))

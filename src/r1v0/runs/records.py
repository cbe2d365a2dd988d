"""What a run folder holds, read back: rows and settings. Raises UserError for what is damaged."""

from pathlib import Path
from typing import Any

from r1v0.base import reading
from r1v0.base.errors import UserError
from r1v0.runs.runlog import CONFIG, EVALS, HEALTH, METRICS, need_run, read_rows


def config_text(folder: Path) -> str:
    """The run's config.toml."""
    need_run(folder)
    return text_of(folder / CONFIG)


def text_of(path: Path) -> str:
    """A config.toml that a run wrote. Raises UserError if it cannot be read."""
    try:
        return reading.read(path, reading.MAX_LINE).decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.__class__.__name__
        raise UserError(f"{path} cannot be read ({reason}): the run needs the config it was started with") from None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, per step. Raises UserError for a damaged line; a torn last one is skipped."""
    need_run(folder)
    return read_rows(folder / METRICS)


def read_evals(folder: Path) -> list[dict[str, Any]]:
    """The rows of evals.jsonl, a dataset and step each. Raises as `read_metrics`."""
    need_run(folder)
    return read_rows(folder / EVALS)


def read_health(folder: Path) -> list[dict[str, Any]]:
    """The rows of health.jsonl, an alarm each; mostly none. Raises as `read_metrics`."""
    need_run(folder)
    return read_rows(folder / HEALTH)

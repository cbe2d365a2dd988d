"""The run folder: what a run leaves on disk, and how it is read back.

    config.toml   env.json   metrics.jsonl   evals.jsonl   checkpoints/   figures/   report.html
    rollouts/step-00010.jsonl.gz (training)   answers/step-00010.jsonl.gz (evaluations)

Decides: the files of a run are append-only lines of strict JSON (a non-finite number becomes null), each written by
one call, so that a crash can tear the last line only, and a torn last line is not an error. Everything else is written
aside and renamed. On resuming, whatever lies behind the checkpoint's step is cut off, so a resumed run's files equal
those of a run that was never broken off.
"""

import gzip
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1v0.base import reading
from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.writing import append_whole, write_atomic, writing

CONFIG, ENV, METRICS, EVALS, HEALTH = "config.toml", "env.json", "metrics.jsonl", "evals.jsonl", "health.jsonl"
EVAL_PLAN = "eval.json"
ROLLOUTS, ANSWERS, CHECKPOINTS, FIGURES = "rollouts", "answers", "checkpoints", "figures"
REPORT = "report.html"
MAX_STEP = 999_999_999  # a step's name has nine digits at most
PARTS = (CONFIG, ENV, METRICS, EVALS, HEALTH, ROLLOUTS, ANSWERS, CHECKPOINTS, FIGURES, REPORT)


@dataclass(frozen=True)
class RunLog:
    """Writes one run's folder. Make it by `create` or `resume`."""

    folder: Path

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """One training step: keys of docs/metrics.md, `step` among them."""
        _append(self.folder / METRICS, row)

    def append_step(self, row: Mapping[str, Any], rollouts: Iterable[Mapping[str, Any]]) -> None:
        """One training step: its metrics and its rollouts."""
        self.append_metrics(row)
        self.write_rollouts(row["step"], rollouts)

    def append_evaluation(self, rows: Sequence[Mapping[str, Any]], answers: Iterable[Mapping[str, Any]]) -> None:
        """One evaluation: its answers, then a row for each dataset."""
        self.write_answers(rows[0]["step"], answers)
        self.append_evals(rows)

    def append_evals(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One evaluation: a row for each dataset, written by one call. Rows that a crash left of the same one go."""
        path, steps = self.folder / EVALS, {row["step"] for row in rows}
        before = read_rows(path)
        if any(row["step"] in steps for row in before):
            _write(path, b"".join(json_line(row) for row in before if row["step"] not in steps))
        _append(path, *rows)

    def append_health(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The alarms of a step (health.py), written by one call; docs/metrics.md explains the keys."""
        if rows:
            _append(self.folder / HEALTH, *rows)

    def write_rollouts(self, step: int, records: Iterable[Mapping[str, Any]]) -> Path:
        """All rollouts of a training step, one JSON object a line, gzipped. Equal records give equal bytes."""
        return _write_records(self.folder / ROLLOUTS / f"{step_name(step)}.jsonl.gz", records)

    def write_answers(self, step: int, records: Iterable[Mapping[str, Any]]) -> Path:
        """All answers of an evaluation, of every dataset, likewise. Those that were kept on the way go."""
        path = _write_records(self.folder / ANSWERS / f"{step_name(step)}.jsonl.gz", records)
        with writing(path):
            for part in self._parts(step):
                part.unlink(missing_ok=True)
        return path

    def keep_answer(self, step: int, record: Mapping[str, Any], process: int = 0) -> None:
        """An answer of an evaluation that has not ended, so that it is not sampled again if the run is stopped
        there. Each process of a run has a file of its own."""
        name = f"{step_name(step)}.part{process or ''}.jsonl"
        with writing(path := self.folder / ANSWERS / name):
            path.parent.mkdir(exist_ok=True)
        append_whole(path, json_line(record))

    def kept_answers(self, step: int) -> list[Any]:
        """The answers kept of an evaluation that was stopped; one that a crash tore is left out."""
        found: list[Any] = []
        for part in self._parts(step):
            with suppress(OSError, ValueError, RecursionError):  # TooLarge is a ValueError
                found.extend(json.loads(line) for line in reading.lines(part))  # up to a torn one
        return found

    def _parts(self, step: int) -> list[Path]:
        return sorted((self.folder / ANSWERS).glob(f"{step_name(step)}.part*.jsonl"))

    def truncate_after(self, step: int) -> None:
        """Forget all that was logged after `step`. May be repeated; raises UserError before it changes anything."""
        kept = {
            name: [row for row in read_rows(self.folder / name) if row["step"] <= step]
            for name in (METRICS, EVALS, HEALTH)
        }
        for name, rows in kept.items():
            if (self.folder / name).exists():
                _write(self.folder / name, b"".join(map(json_line, rows)))
        files = [path for name in (ROLLOUTS, ANSWERS) for path in (self.folder / name).glob("step-*.jsonl*")]
        for path in files:
            found = step_of(path.name.partition(".")[0])
            if found is not None and found > step:
                with writing(path):
                    path.unlink()

    def flush(self) -> None:
        """Have the disk hold every row, before a checkpoint says that its step is done. Raises UserError."""
        for path in (self.folder / METRICS, self.folder / EVALS, self.folder / HEALTH):
            with writing(path), suppress(FileNotFoundError), open(path, "rb") as file:
                os.fsync(file.fileno())


def create(folder: Path, config: str, env: Mapping[str, Any]) -> RunLog:
    """A new run in `folder`, which may exist but must hold no run. `config` is the resolved config as TOML.

    Whoever calls it holds the folder (lock.py). Other files in the folder (a log that the shell writes there, say)
    are left alone.
    """
    need_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CONFIG).exists():  # of two runs that start at the same moment, one is turned away
            raise FileExistsError
    except FileExistsError:
        raise UserError(
            f"{folder} cannot hold a run (a file, or another run just began there): choose another --out"
        ) from None
    except OSError as error:
        raise UserError(f"run folder {folder} cannot be written ({error.strerror}): choose another --out") from None
    _write(folder / CONFIG, config.encode("utf-8"))
    _write(folder / ENV, _pretty(env))
    return RunLog(folder)


def resume(folder: Path, config: str, step: int, env: Mapping[str, Any]) -> RunLog:
    """Go on with the run in `folder` after `step` (0: from the start). What was logged later is cut off.

    `config` is the config to go on with, as TOML; env.json keeps the first environment and lists those of the resumed
    parts under "resumed".
    """
    need_run(folder)
    log = RunLog(folder)
    clear_leftovers(folder)
    log.truncate_after(step)
    _write(folder / CONFIG, config.encode("utf-8"))
    first = environment_of(folder)
    earlier = first.get("resumed")
    parts = earlier if isinstance(earlier, list) else []
    _write(folder / ENV, _pretty({**first, "resumed": [*parts, {"after_step": step, **env}]}))
    return log


def environment_of(folder: Path) -> dict[str, Any]:
    """The run's env.json; empty if it is missing or damaged, since no run depends on it."""
    try:
        found = json.loads(reading.read(folder / ENV, reading.MAX_LINE))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_run(folder: Path) -> bool:
    """Whether there is anything of a run to read in `folder`."""
    return any((folder / name).is_file() for name in (CONFIG, METRICS, EVALS))


def is_evaluation(folder: Path) -> bool:
    """Whether `r1v0 eval` made the folder."""
    return (folder / EVAL_PLAN).is_file() and not (folder / METRICS).exists()


def need_free(folder: Path) -> None:
    """Raise UserError if `folder` holds a run, or cannot become a run folder."""
    held = [name for name in PARTS if (folder / name).exists()]
    if held:
        raise UserError(
            f"{folder} already holds a run ({held[0]}): choose another --out, or go on with it by --resume {folder}"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another --out")


def need_run(folder: Path) -> None:
    """Raise UserError unless `folder` holds a run."""
    if not folder.is_dir():
        raise UserError(f"run folder {folder} does not exist: give a folder that `{typed('train')}` wrote")
    if not is_run(folder):
        raise UserError(
            f"{folder} is not a run folder (no {CONFIG}, {METRICS} or {EVALS}): give a folder that "
            f"`{typed('train')}` wrote"
        )


def step_name(step: int) -> str:
    """The name of a step's file or folder: step-00010."""
    return f"step-{step:05d}"


def step_of(name: str) -> int | None:
    """The step in such a name; None for any other name."""
    match = re.fullmatch(r"step-(\d{5,9})", name, re.ASCII)
    return int(match[1]) if match else None


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed run left half written. Only for who holds the folder."""
    for room in (folder, folder / ROLLOUTS, folder / ANSWERS):
        for path in room.glob(".*.tmp"):
            if re.fullmatch(
                r"\.(config\.toml|env\.json|tracker\.json|(metrics|evals|health)\.jsonl|step-\d+\.jsonl\.gz|report\.html)\.\d+\.tmp",
                path.name,
            ):
                with suppress(OSError):
                    path.unlink()
    for path in (folder / CHECKPOINTS).glob(".step-*"):
        if path.suffix in (".writing", ".removed"):
            shutil.rmtree(path, ignore_errors=True)


def _write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as packed:
        for record in records:
            packed.write(json_line(record))
    _write(path, buffer.getvalue())
    return path


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        write_atomic(path, data)


def _append(path: Path, *rows: Mapping[str, Any]) -> None:
    append_whole(path, b"".join(map(json_line, rows)))


def json_line(row: Mapping[str, Any]) -> bytes:
    """The row as strict JSON in ASCII, with its newline; a non-finite number is null."""
    return (json.dumps(_finite(row), allow_nan=False) + "\n").encode("ascii")


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(_finite(value), indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _finite(value: Any) -> Any:
    """The value with every NaN and infinity replaced by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = list(reading.lines(path))
    except FileNotFoundError:
        return []
    except (OSError, reading.TooLarge) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be read ({reason}): expected a file of JSON lines") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows = []
    for number, line in numbered:
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif number != numbered[-1][0]:  # the last line may be torn by a crash
            raise UserError(
                f"{path} line {number} is damaged: expected a JSON object with a whole-number step; fix or drop it"
            )
    return rows


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    good = isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] <= MAX_STEP
    return row if good else None

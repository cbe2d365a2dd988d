"""Checkpoint folders: how they are named, which one is the newest, and whether it is whole.

    checkpoints/step-00050       after 50 steps
    checkpoints/step-00050.03    half way: the 51st step is sampled, and three of its updates are done
    .../trainer/manifest.json    {"files": {"model.safetensors": {"bytes": 661872, "sha256": "..."}, ...}}

Decides: the manifest lists every other file with its size and SHA-256, and is written last; so a file that was cut
short, changed or lost shows before anything is loaded. A checkpoint of a release that wrote no manifest is judged by
its files' sizes, which safetensors' headers tell. What is read here may come from anybody: sizes are bounded, and no
name leads out of the folder.
"""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from r1v0.base.errors import UserError
from r1v0.base.notes import Note, to_stderr
from r1v0.base.writing import flush, write_atomic
from r1v0.runs.runlog import CHECKPOINTS, step_name

TRAINER = "trainer"
MANIFEST, STATE = f"{TRAINER}/manifest.json", f"{TRAINER}/state.json"
WEIGHTS, OPTIMIZER = "model.safetensors", f"{TRAINER}/optimizer.safetensors"
MAX_MANIFEST_BYTES = 1 << 20
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit

_NAME = re.compile(r"step-(\d{5,9})(?:\.(\d{2,6}))?", re.ASCII)


def checkpoint_name(step: int, updates: int | None = None) -> str:
    """step-00050; with `updates`, how many of the next step are done: step-00050.03."""
    return step_name(step) + ("" if updates is None else f".{updates:02d}")


def place(checkpoint: Path) -> tuple[int, int]:
    """(step, updates done of the next one) of a checkpoint by its name; updates are -1 for a whole step."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match[1]), int(match[2] or -1)


def is_half_way(checkpoint: Path) -> bool:
    """Whether a checkpoint stands inside a step, by its name."""
    return place(checkpoint)[1] >= 0


def checkpoints_in(run: Path) -> list[Path]:
    """Every checkpoint of a run folder by its name, the oldest first."""
    return sorted((path for path in (run / CHECKPOINTS).glob("step-*") if _NAME.fullmatch(path.name)), key=place)


def newest_whole(run: Path, note: Note = to_stderr, half_way: bool = True) -> Path | None:
    """The newest checkpoint that is whole; None if there is no checkpoint. One that is damaged is told to `note`.

    `half_way` also takes checkpoints inside a step, which only a resumed run can use. Raises UserError if all of them
    are damaged.
    """
    wanted = [path for path in checkpoints_in(run) if half_way or not is_half_way(path)]
    for path in reversed(wanted):
        wrong = damage(path)
        if wrong is None:
            return path
        note(f"checkpoint {path} is damaged ({wrong}): skipped")
    if wanted:
        raise UserError(f"run folder {run} holds no whole checkpoint (see above): start it again with another --out")
    return None


def seal(folder: Path) -> None:
    """Flush every file of a new checkpoint to the disk, and write its manifest. Raises OSError."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def entry(path: Path) -> dict[str, Any]:
        path.chmod(0o644)  # safetensors leaves files that only their owner can read
        flush(path)
        return {"bytes": path.stat().st_size, "sha256": sha256(path)}

    with ThreadPoolExecutor(2) as pool:  # the two large files side by side: hashing lets other threads run
        entries = dict(
            zip((path.relative_to(folder).as_posix() for path in files), pool.map(entry, files), strict=True)
        )
    write_atomic(folder / MANIFEST, (json.dumps({"files": entries}, indent=1) + "\n").encode("ascii"))
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush(path)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, as "model.safetensors is missing"; None if it is whole."""
    try:
        if not (folder / MANIFEST).is_file():
            return _damage_without_manifest(folder)
        for name, entry in _entries(folder / MANIFEST).items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
            if sha256(path) != entry["sha256"]:
                return f"{name} is not what was written (SHA-256)"
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The files that a manifest lists. Raises ValueError for what is none."""
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"{MANIFEST} has {path.stat().st_size} bytes")
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{MANIFEST} is not JSON") from None
    files = raw.get("files") if isinstance(raw, dict) else None
    good = isinstance(files, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
        for entry in files.values()
    )
    if not good or not isinstance(files, dict) or not {WEIGHTS, STATE, OPTIMIZER} <= files.keys():
        raise ValueError(f"{MANIFEST} does not list the files of a checkpoint")
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{MANIFEST} names a file outside its folder")
    return files


def _damage_without_manifest(folder: Path) -> str | None:
    """The same for a release that wrote no manifest: its state.json names no format."""
    for name in (STATE, WEIGHTS, OPTIMIZER):
        if not (folder / name).is_file():
            return f"{name} is missing"
    if (folder / STATE).stat().st_size > MAX_MANIFEST_BYTES:
        return f"{STATE} has {(folder / STATE).stat().st_size} bytes"
    try:
        state = json.loads((folder / STATE).read_bytes())
    except (ValueError, RecursionError):
        return f"{STATE} is not JSON"
    if not isinstance(state, dict) or "format" in state:
        return f"{MANIFEST} is missing"
    for name in (WEIGHTS, OPTIMIZER):
        told, size = safetensors_bytes(folder / name), (folder / name).stat().st_size
        if not told:
            return f"{name} is not a safetensors file"
        if told != size:
            return f"{name} has {size} bytes instead of {told}"
    return None


def safetensors_bytes(path: Path) -> int:
    """How long a safetensors file is by its own header; 0 if it is none. Raises OSError.

    Format: 8 bytes of header length (little endian), a JSON header with each tensor's [begin, end), the data.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, path.stat().st_size):
            return 0
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return 8 + length + max(map(int, ends), default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return 0

"""Trackers: packages that show a run's rows, each behind the same three calls (open, send, close).

Decides: what a tracker holds is asked of the tracker itself, never of a note of ours, since a note and a tracker cannot
be written by one call and a kill may fall between them. A step is one entry, sent in order, so the last step that it
holds says everything: what comes after it is missing, what comes before is there. wandb and trackio take no step
back, so a step that they hold stays; what was cut off by a crash and is computed again is the same on a CPU, times
aside. TensorBoard's files are ours alone, so they are written anew from the rows whenever a run goes on.
"""

import importlib.util
import json
import os
import re
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from r1v0.base import reading
from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic, writing
from r1v0.config import TRACKERS

PROJECT = "r1v0"
TRACKER, EVENTS = "tracker.json", "tensorboard"
PACKAGES = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboardX"}
COLUMNS = ("question", "gold", "completion", "extracted", "correct", "reward", "tokens", "cut_off")
"""of a table of completions"""
Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""rows with these columns by the table's name"""


class Tracker(Protocol):
    """An open run of a tracker. `last` is the last step that it holds (-1: none), `where` says how to look at it."""

    last: int
    where: str

    def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
        """All of one step, which comes after `last`."""

    def close(self) -> None:
        """Wait until everything is stored."""


def need_packages(names: Sequence[str]) -> None:
    """Raise UserError if the package of a tracker is not installed."""
    for name in names:
        found = importlib.util.find_spec(PACKAGES[name])
        if found is None or found.origin is None:  # a folder of that name, which wandb itself makes, is no package
            raise UserError(
                f"{name} needs the package {PACKAGES[name]}, which is not installed: pip install 'r1v0[{name}]', or "
                f"leave {name} out of track"
            )


def run_id(folder: Path) -> str:
    """The name that trackers know a run folder by, eight hex digits, kept in the folder. Raises UserError if it
    cannot be written."""
    try:
        found = json.loads(reading.read(folder / TRACKER, reading.MAX_LINE))
        known = found.get("id") if isinstance(found, dict) else None
        if isinstance(known, str) and re.fullmatch("[0-9a-f]{8}", known):
            return known
    except (OSError, ValueError, RecursionError):
        pass
    made = secrets.token_hex(4)
    with writing(folder / TRACKER):
        write_atomic(folder / TRACKER, json.dumps({"id": made}).encode("ascii") + b"\n")
    return made


def open_tracker(name: str, folder: Path, identity: str, config: Mapping[str, Any]) -> Tracker:
    """A run of the tracker `name` (one of TRACKERS) for a run folder, new or gone on with. Takes about a second; raises
    whatever the package does."""
    assert name in TRACKERS, name
    kinds: dict[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {
        "wandb": Wandb,
        "trackio": Trackio,
        "tensorboard": TensorBoard,
    }
    return kinds[name](folder, identity, config)


class TensorBoard:
    """Event files in RUN/tensorboard, written by tensorboardX."""

    def __init__(self, folder: Path, identity: str, config: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        place = folder / EVENTS
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(place))
        self.writer.add_text("config", _code(json.dumps(config, indent=2)), 0)
        self.last = -1
        self.where = f"tensorboard: {place}; look at it by: tensorboard --logdir {folder.parent}"

    def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        for key, rows in tables.items():
            self.writer.add_text(key, _markdown(rows), step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Trackio:
    """A run in trackio's database: TRACKIO_DIR, or the Space or server that its variables name.

    Two folders may have the same name, and trackio goes on with a run by its name: so its config holds our id, and a
    name that is another folder's gets the id behind it.
    """

    def __init__(self, folder: Path, identity: str, config: Mapping[str, Any]) -> None:
        import trackio
        import trackio.run
        import trackio.utils

        # It prints what to do next, from our thread into our display. Its lines are `where`, said once.
        for module in (trackio, trackio.run, trackio.utils):
            module.__dict__["print"] = _silent
        name = _trackio_name(trackio, folder.resolve().name, identity)
        self.run = trackio.init(
            project=PROJECT,
            name=name,
            config={**config, "run_id": identity},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.table = trackio.Table
        self.last = self.run._next_step - 1  # asked of its database, or of its server
        self.where = f"trackio: run {name}; look at it by: trackio show --project {PROJECT}"

    def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
        shown = {key: self.table(data=[dict(row) for row in rows]) for key, rows in tables.items()}
        self.run.log({**values, **shown}, step=step)

    def close(self) -> None:
        self.run.finish()


def _trackio_name(trackio: Any, name: str, identity: str) -> str:
    try:
        runs = list(trackio.Api().runs(PROJECT))
    except ValueError:  # there is no such project yet
        return name
    for run in runs:
        if (run.config or {}).get("run_id") == identity:
            return str(run.name)
    return f"{name}-{identity}" if name in {run.name for run in runs} else name


class Wandb:
    """A run of Weights & Biases. Without a login it is kept offline, in RUN/wandb or WANDB_DIR, for `wandb sync`; an
    offline run that has nothing to send is not opened, since each opening makes a folder."""

    def __init__(self, folder: Path, identity: str, config: Mapping[str, Any]) -> None:
        import wandb

        given, self.package, self.run = os.environ, wandb, None
        mode = wandb.setup().settings.mode  # of WANDB_MODE, or of wandb's own settings
        if mode == "online" and not wandb.login(prompt=False):
            mode = "offline"
        parent = Path(given.get("WANDB_DIR", folder))
        self.arguments = dict(
            project=given.get("WANDB_PROJECT", PROJECT),
            name=given.get("WANDB_NAME", folder.resolve().name),
            id=identity,
            resume="allow",
            dir=str(parent),
            config=dict(config),
            mode=mode,
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, x_transaction_log_flush_interval=1.0
            ),
        )
        stored = (parent / "wandb").glob(f"offline-run-*-{identity}*/run-{identity}.wandb")
        self.last = max((step for path in stored for step in wandb_steps(path.read_bytes())), default=-1)
        self.where = f"wandb: offline; send it by: wandb sync {parent / 'wandb'}/offline-run-*-{identity}*"
        if mode != "offline":
            self.run = wandb.init(**self.arguments)
            self.last = max(self.run.starting_step - 1, self.last)  # how far the server says it is
            self.where = f"wandb: {self.run.url or mode}"

    def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
        self.run = self.run or self.package.init(**self.arguments)
        shown = {
            key: self.package.Table(columns=list(COLUMNS), data=[[row[name] for name in COLUMNS] for row in rows])
            for key, rows in tables.items()
        }
        self.run.log({**values, **shown}, step=step, commit=True)

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()


def wandb_steps(data: bytes) -> list[int]:
    """The steps in a .wandb file, in order; records that a kill tore are left out."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for part in log_records(data):
        record = Record()
        record.ParseFromString(part)
        if record.HasField("history"):
            found.append(int(record.history.step.num))
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's form behind a header of seven bytes: blocks of 32 KB, in them parts, each with
    a checksum (4 bytes), a length (2) and a kind (1 whole, 2 first, 3 middle, 4 last)."""
    at, record, block, head = 7, b"", 1 << 15, 7
    while at + head <= len(data):
        left = block - at % block
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if left < head or kind not in (1, 2, 3, 4):
            at += left
            continue
        part = data[at + head : at + head + length]
        if len(part) < length:
            return
        record = part if kind in (1, 2) else record + part
        at += head + length
        if kind in (1, 4):
            yield record


def _silent(*_: object, **__: object) -> None:
    """In the place of a package's `print`."""


def _code(text: str) -> str:
    """A text as Markdown that shows it as it is."""
    return "\n".join("    " + line for line in text.splitlines())


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table as Markdown. What a model wrote is shown, never obeyed: no markup, no line break."""

    def cell(value: Any) -> str:
        text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ⏎ ").replace("\r", " ")
        return "".join("\\" + char if char in "\\`*_{}[]()#|!$~" else char for char in text)

    lines = [COLUMNS, ["---"] * len(COLUMNS), *([cell(row[name]) for name in COLUMNS] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

"""What trackers hold, read from their own storage: (step, numbers) of every entry, in the order they were written."""

import json
import sqlite3
import struct
from pathlib import Path
from typing import Any

from r1v0.runs.trackers import log_records

Entries = list[tuple[int, dict[str, Any]]]


def in_trackio(database: Path, name: str) -> Entries:
    """Of the runs called `name` in trackio's r1v0.db; tables are lists of rows."""
    with sqlite3.connect(database) as connection:
        found = connection.execute(
            "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY id", (name,)
        ).fetchall()
    connection.close()
    return [(step, json.loads(metrics)) for step, metrics in found]


def in_tensorboard(run: Path) -> Entries:
    """Of the event files of a run folder; texts are of the tag NAME/text_summary. Every event's file and place counts,
    so a step that was written twice shows twice."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[int, list[tuple[str, Any]]] = {}
    for path in sorted((run / "tensorboard").glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                texts = value.tensor.string_val
                one = texts[0].decode() if texts else value.simple_value
                found.setdefault(event.step, []).append((value.tag, one))
    for step, values in found.items():
        assert len(dict(values)) == len(values), f"step {step} has a tag twice"
    return [(step, dict(values)) for step, values in found.items()]


def in_wandb(run: Path) -> Entries:
    """Of the files that wandb keeps offline in a run folder; tables are {"path": ..., "nrows": ...}."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Entries = []
    for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        for part in log_records(path.read_bytes()):
            record = Record.FromString(part)
            if record.HasField("history"):
                values: dict[str, Any] = {}
                for item in record.history.item:
                    name, *inside = item.nested_key or [item.key]
                    if inside:
                        values.setdefault(name, {})[inside[-1]] = json.loads(item.value_json)
                    else:
                        values[name] = json.loads(item.value_json)
                found.append((record.history.step.num, values))
    return found

"""What a sweep's folder says of it, so that the same command goes on and another one is refused.

    sweep.json   {"cells": {"lr-1e-4_seed-0": ["optimizer.lr=1e-4", "seed=0"], ...}, "settings": {"steps": 80, ...}}

Decides: a command is the same if it makes the same cells and settles the same settings, told by the first cell's; so a
changed --config is noticed too. The number of threads, where nobody said it, is chosen once and written there: it is a
part of the numbers, and another --jobs must not change them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1v0 import config
from r1v0.base import reading
from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic, writing
from r1v0.jobs.sweep.grid import Cell
from r1v0.runs import runlog

NAME = "sweep.json"


def recorded(out: Path, cells: Sequence[Cell], threads: int) -> list[Cell]:
    """The cells with their threads: as `out` recorded them, else `threads`, which is then recorded.

    Whoever calls it holds the folder. Raises UserError if `out` holds another sweep, or runs of none.
    """
    path = out / NAME
    if path.exists():
        before = _read(path)
        cells = [_with_threads(cell, before["settings"].get("threads")) for cell in cells]
        if difference := _difference(before, _described(cells)):
            raise UserError(
                f"{out} holds another sweep ({difference}): give the command that began it, or another --out"
            )
        return list(cells)
    cells = [_with_threads(cell, threads) for cell in cells]
    for folder in (out, *(out / cell.name for cell in cells)):
        if runlog.is_run(folder):
            raise UserError(f"{folder} holds a run that no sweep made ({NAME} is missing): choose another --out")
    with writing(path):
        write_atomic(path, (json.dumps(_described(cells), indent=1) + "\n").encode("ascii"))
    return cells


def _with_threads(cell: Cell, threads: Any) -> Cell:
    """The cell with a number of threads, if nobody else said one."""
    if not cell.own_threads or type(threads) is not int or threads < 1:
        return cell
    return replace(cell, sets=(*cell.sets, f"threads={threads}"), config=replace(cell.config, threads=threads))


def _described(cells: Sequence[Cell]) -> dict[str, Any]:
    settings = {key: config.value_of(cells[0].config, key) for key in config.described()}
    return {"cells": {cell.name: list(cell.sets) for cell in cells}, "settings": settings}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing that differs, in words; empty if nothing does."""
    was, is_now = before["cells"], now["cells"]
    if gone := [name for name in was if name not in is_now]:
        return f"it has {gone[0]}, and this command has not"
    if new := [name for name in is_now if name not in was]:
        return f"this command has {new[0]}, and it has not"
    for key, value in now["settings"].items():
        if before["settings"].get(key) != value:
            return f"{key} was {json.dumps(before['settings'].get(key))} and is {json.dumps(value)}"
    return next((f"{name} was {' '.join(was[name])}" for name in was if was[name] != is_now[name]), "")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(reading.read(path, reading.MAX_LINE))
    except (OSError, ValueError, RecursionError):
        found = None
    good = (
        isinstance(found, dict)
        and all(isinstance(found.get(part), dict) for part in ("cells", "settings"))
        and all(
            isinstance(sets, list) and all(isinstance(item, str) for item in sets) for sets in found["cells"].values()
        )
    )
    if not good:
        raise UserError(f"{path} is damaged: expected what `r1v0 sweep` wrote; choose another --out")
    assert isinstance(found, dict)
    return found

"""`r1v0 read`: what the model wrote, before and after on the same problem.

Decides: on a terminal one problem at a time, by keys; into a pipe or a file everything that was asked for, as plain
lines. Both show the same lines of the same entries.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.shown import fitting, shown
from r1v0.jobs.read import shelf as shelves
from r1v0.jobs.read.keys import interactive
from r1v0.jobs.read.shelf import COMPARING, Shelf
from r1v0.report.texts import lines_of, plain
from r1v0.runs import runlog
from r1v0.runs.written import FILTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for; see its help."""

    folder: Path
    step: int | None = None
    against: str | None = None
    on: Sequence[str] = ()
    filters: Sequence[str] = ()
    search: str = ""
    longest: bool = False
    training: bool = False
    steps: bool = False
    limit: int | None = None


def read(asked: Asked, out: TextIO | None = None) -> None:
    """Show the texts: on a terminal by keys, into anything else as plain lines. Raises UserError."""
    out = out or sys.stdout
    check(asked)
    shelf = opened(asked)
    for name in asked.filters:
        if name in COMPARING and not shelf.before:
            raise UserError(f"--filter '{name}' compares, and {shelf.title} stands alone: {_remedy(asked)}")
    if interactive(out):
        from r1v0.jobs.read.screen import Reader, browse

        reader = Reader(
            shelf=shelf, another=partial(another, asked), filters=asked.filters, search=asked.search, longest=asked.longest,
            steps=asked.steps,
        )  # fmt: skip
        browse(reader, out)
    else:
        print_all(shelf, asked, out)


def check(asked: Asked) -> None:
    """Raise UserError for what cannot be asked for together, or of this folder."""
    for name in asked.filters:
        if name not in FILTERS:
            raise UserError(f"--filter is '{name}': expected one of {', '.join(FILTERS)}")
    if asked.limit is not None and asked.limit < 1:
        raise UserError(f"--limit is {asked.limit}: expected at least 1")
    if asked.training and (asked.against is not None or asked.steps):
        other = "--steps" if asked.steps else "--against"
        raise UserError(f"--training and {other} are both given: training rollouts are of one step; leave one out")
    if runlog.is_evaluation(asked.folder):
        for flag, given in (
            ("--step", asked.step is not None),
            ("--steps", asked.steps),
            ("--training", asked.training),
        ):
            if given:
                raise UserError(
                    f"{asked.folder} is one evaluation, without steps: leave {flag} out, or give a run folder"
                )
    elif not runlog.is_run(asked.folder):
        runs, evaluations = typed("train"), typed("eval")
        state = "is neither" if asked.folder.exists() else "does not exist"
        raise UserError(f"{asked.folder} {state}: expected a folder of `{runs}` or one of `{evaluations}`")


def opened(asked: Asked) -> Shelf:
    """The texts that are asked for, before any filter. Raises UserError."""
    if asked.training:
        shelf = shelves.of_training(asked.folder, asked.step)
    elif runlog.is_evaluation(asked.folder):
        shelf = shelves.of_evaluation(asked.folder, asked.against)
    else:
        shelf = shelves.of_run(asked.folder, asked.step, asked.against)
    return shelves.only(shelf, asked.on) if asked.on else shelf


def another(asked: Asked, training: bool, step: int | None) -> Shelf:
    """Other texts of the same folder, by a key of the reader: the answers of another step, or `training` rollouts,
    which have datasets of their own and nothing to stand beside. Raises UserError."""
    against, on = None if training else asked.against, asked.on if training == asked.training else ()
    return opened(replace(asked, training=training, step=step, against=against, on=on))


def print_all(shelf: Shelf, asked: Asked, out: TextIO) -> None:
    """The texts as plain lines, what there is of them first."""
    found = shelf.entries(asked.filters, asked.search, asked.longest)
    counts = [f"{name} {count}" for name, count in shelf.counts().items()]
    number = sum(map(len, found))
    head = [f"{asked.folder}: {shelf.title}, {len(shelf.texts)} {shelf.kind}", ", ".join(counts)]
    if number < len(shelf.texts):
        passed = [*asked.filters, *([f"with '{asked.search}'"] if asked.search else [])]
        head.append(f"{number} of them: {', '.join(passed)}")
    out.write(fitting("\n".join(map(shown, head)), out) + "\n")
    kept = found[: asked.limit]
    wanted = [together[0].after for together in kept]
    histories = shelves.through_steps(asked.folder, wanted) if asked.steps else [[]] * len(kept)
    for i, (together, steps) in enumerate(zip(kept, histories, strict=True), 1):
        entry = shelves.entry_of(shelf, together, steps)
        out.write(f"\n[{i}/{len(found)}] {fitting(plain(lines_of(entry)), out)}\n")


def _remedy(asked: Asked) -> str:
    if asked.training:
        return "leave one of --filter and --training out"
    return "give an evaluation to compare with (--against)"

"""The verb that sends what a run left to a tracker: export."""

import argparse

from r1v0.config import TRACKERS
from r1v0.jobs.arguments import Verb, path


def add(verb: Verb) -> None:
    """The arguments of this verb."""
    export = verb(
        "export",
        "send a run that is on disk to a tracker; steps that it holds are not sent again",
        "runs/countdown-001 --to tensorboard",
        "runs/a runs/b --to wandb",
    )
    export.add_argument("runs", nargs="+", type=path, metavar="RUN", help="run folder, finished or not")
    export.add_argument("--to", required=True, choices=TRACKERS, metavar="TRACKER", help=" or ".join(TRACKERS))
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from r1v0.runs.tracking import export

    for run in arguments.runs:
        done = export(run, arguments.to)
        there = f", {done.there} were there" if done.there else ""
        waits = f"; step {done.waits} waits for its evaluation" if done.waits is not None else ""
        print(f"{run}: {done.sent} steps sent{there}{waits}\n  {done.where}")

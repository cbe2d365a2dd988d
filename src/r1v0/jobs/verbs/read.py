"""The verb that shows texts: read."""

import argparse

from r1v0.base.errors import UserError
from r1v0.jobs.arguments import Verb, path
from r1v0.runs.written import FILTERS


def add(verb: Verb) -> None:
    """The arguments of this verb."""
    read = verb(
        "read",
        "show what the model wrote, before and after on the same problem",
        "runs/countdown-001",
        "runs/countdown-001 --filter newly-right --longest",
    )
    read.add_argument("folder", type=path, metavar="RUN", help="run folder, or folder of an evaluation")
    read.add_argument("--step", type=int, metavar="N", help="the evaluation after this step (default: the last)")
    read.add_argument(
        "--against",
        metavar="M|DIR",
        help="put it beside the evaluation after step M, or beside another folder's (default: the run's first)",
    )
    read.add_argument("--on", metavar="NAME[,NAME]", help="answers to these datasets only")
    read.add_argument(
        "--filter", action="append", default=[], metavar="NAME", help=f"{', '.join(FILTERS)}; may be repeated"
    )
    read.add_argument("--search", default="", metavar="TEXT", help="only what has this text in question or answer")
    read.add_argument("--longest", action="store_true", help="the longest first")
    read.add_argument("--steps", action="store_true", help="each problem through all evaluations of the run")
    read.add_argument("--training", action="store_true", help="the rollouts of a training step, group by group")
    read.add_argument("--limit", type=int, metavar="N", help="print at most N (of plain lines in a pipe)")
    read.set_defaults(run=_read)


def _read(arguments: argparse.Namespace) -> None:
    from r1v0.jobs.read import Asked, read

    if arguments.against is not None and not arguments.against.strip():
        raise UserError("--against is empty: expected a step or a folder")
    read(
        Asked(
            folder=arguments.folder,
            step=arguments.step,
            against=arguments.against,
            on=[name.strip() for name in arguments.on.split(",")] if arguments.on is not None else (),
            filters=[name.replace("-", " ") for name in arguments.filter],
            search=arguments.search,
            longest=arguments.longest,
            training=arguments.training,
            steps=arguments.steps,
            limit=arguments.limit,
        )
    )

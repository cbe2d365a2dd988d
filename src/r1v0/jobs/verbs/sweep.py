"""The verbs of many runs: sweep, which trains them, and table, which compares them."""

import argparse
import os

from r1v0.base.command import typed
from r1v0.base.errors import Interrupted, UserError
from r1v0.base.notes import to_stderr
from r1v0.jobs.arguments import Verb, path


def add(verb: Verb) -> None:
    """The arguments of these verbs."""
    sweep = verb(
        "sweep",
        "train every combination of some settings and seeds; the same command goes on with it",
        "--set steps=4 --seeds 0,1 --out seeds",
        "--set grpo.variant=grpo,dr_grpo --seeds 0,1,2 --out variants",
    )
    sweep.add_argument("--preset", metavar="NAME", help="named settings of all runs, as for train")
    sweep.add_argument("--config", type=path, metavar="FILE", help="TOML file of settings, over the preset's")
    sweep.add_argument(
        "--set",
        dest="grid",
        action="append",
        default=[],
        metavar="KEY=VALUE[,VALUE...]",
        help="a setting and the values it takes; commas inside of [...], {...} or quotes belong to a value; may be repeated",
    )
    sweep.add_argument("--seeds", metavar="N[,N...]", help="train every combination with each of these seeds")
    sweep.add_argument("--out", type=path, required=True, metavar="DIR", help="folder of the sweep, a folder a run")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; they share the CPU's cores")
    sweep.set_defaults(run=_sweep)

    table = verb(
        "table",
        "compare settings over their seeds, as a table of their last evaluations",
        "seeds",
        "grpo=runs/a,runs/b random=runs/c --csv",
    )
    table.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, folder of runs (grouped by their settings), or LABEL=RUN[,RUN...]",
    )
    table.add_argument("--on", metavar="NAME[,NAME]", help="datasets to tell of (default: all that were evaluated)")
    forms = table.add_mutually_exclusive_group()
    forms.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown", help="(default: markdown)")
    for name in ("latex", "csv"):
        forms.add_argument(f"--{name}", dest="format", action="store_const", const=name, help=f"--format {name}")
    table.set_defaults(run=_table)


def _sweep(arguments: argparse.Namespace) -> int:
    from r1v0.base.lock import hold
    from r1v0.jobs.sweep.grid import make_cells
    from r1v0.jobs.sweep.record import recorded
    from r1v0.jobs.sweep.work import shared_threads, work

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cells = make_cells(arguments.preset, arguments.config, arguments.grid, arguments.seeds)
    share = shared_threads(cells, arguments.jobs, cores)
    given = ["--preset", arguments.preset] if arguments.preset else []
    given += ["--config", str(arguments.config)] if arguments.config else []
    with hold(arguments.out):
        cells = recorded(arguments.out, cells, share)
        shared_threads(cells, arguments.jobs, cores)
        names = [cell.name for cell in cells]
        print(f"{len(cells)} runs, {arguments.jobs} at a time, in {arguments.out}: {' '.join(names)}", flush=True)
        try:
            ended = work(cells, arguments.out, arguments.jobs, given)
        except (Interrupted, KeyboardInterrupt):
            to_stderr("stopped: the same command goes on with the runs")
            raise
    if failed := [run.name for run in ended if run.state == "failed"]:
        raise UserError(
            f"{len(failed)} of {len(ended)} runs failed ({' '.join(failed)}): see above and their log.txt, "
            "then give the same command again"
        )
    print(f"done; now {typed('table', arguments.out)}  or  {typed('plot', arguments.out)}")
    return 0


def _table(arguments: argparse.Namespace) -> None:
    from r1v0.report.results import results, written
    from r1v0.report.series import load, parse_settings

    names = [name.strip() for name in arguments.on.split(",")] if arguments.on else []
    rows, notes = results(load(parse_settings(arguments.runs)), names)
    for note in notes:
        to_stderr(note)
    print(written(rows, arguments.format), end="")

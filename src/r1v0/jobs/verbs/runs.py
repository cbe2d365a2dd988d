"""The verbs that look at what a run left: plot, doctor."""

import argparse
import shutil

from r1v0.jobs.arguments import Verb, path
from r1v0.report.panel_names import NAMES


def add(verb: Verb) -> None:
    """The arguments of these verbs."""
    plot = verb(
        "plot",
        "draw the figures of a run or an evaluation, or several over one another",
        "runs/countdown-001",
        "grpo=runs/a,runs/b random=runs/c --out compare.png",
    )
    plot.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, folder of runs (grouped by their settings), or LABEL=RUN[,RUN...] for seeds",
    )
    plot.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="picture or folder to write (default: RUN/figures/; of several runs ./compare.png)",
    )
    plot.add_argument(
        "--panels", metavar="NAME[,NAME...]", help=f"draw these alone, as one picture: {', '.join(NAMES)}"
    )
    plot.add_argument(
        "--width", type=float, metavar="INCHES", help="width on paper (a column has 3.3, a text 5.5 or 6.5)"
    )
    plot.set_defaults(run=_plot)

    doctor = verb(
        "doctor",
        "tell what went well or wrong in a run, each with the figure that shows it (exit code 1: a problem)",
        "runs/countdown-001",
    )
    doctor.add_argument("runs", nargs="+", type=path, metavar="RUN", help="run folder, finished or not")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)


def _plot(arguments: argparse.Namespace) -> None:
    from r1v0.report import parse_groups, plot_groups

    panels = [name.strip() for name in arguments.panels.split(",")] if arguments.panels is not None else []
    pictures = plot_groups(parse_groups(arguments.runs), arguments.out, panels, arguments.width)
    if not pictures:
        print("nothing is logged yet, so nothing is drawn")
    for picture in pictures:
        print(picture)


def _doctor(arguments: argparse.Namespace) -> int:
    from r1v0.jobs import doctor

    found = [(run, doctor.examine(run)) for run in arguments.runs]
    if arguments.json:
        print(doctor.as_json(found))
    else:
        width = min(140, shutil.get_terminal_size().columns)
        print("\n\n".join(doctor.report(run, findings, width) for run, findings in found))
    return int(any(finding.mark == "problem" for _, findings in found for finding in findings))

"""The verb that shows a run in a browser: report."""

import argparse

from r1v0.jobs.arguments import Verb, path


def add(verb: Verb) -> None:
    """The arguments of this verb."""
    report = verb(
        "report",
        "write one HTML file that shows a run, or several compared, in any browser",
        "runs/countdown-001",
        "grpo=runs/a,runs/b random=runs/c --out compare.html",
    )
    report.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, or LABEL=RUN[,RUN...] for the seeds of one setting; a folder of runs alone gets an index",
    )
    report.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="page to write (default: RUN/report.html; of several runs ./report.html; of a folder its index.html)",
    )
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from r1v0.jobs.report import write_asked

    print(write_asked(arguments.runs, arguments.out))

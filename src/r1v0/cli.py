"""The command line: parse, call one function, turn errors into exit codes.

Decides: 0 is fine; 1 is a bad judgement (a plan that does not fit, a wrong answer, a problem that the doctor found);
2 is a mistake of the user's, one line on stderr and nothing overwritten; 130 is an interruption after a clean
checkpoint. A traceback is always a defect of ours. torch is imported only by verbs that compute.
"""

import argparse
import errno
import os
import sys
import textwrap
from collections.abc import Sequence

from r1v0 import __version__
from r1v0.base.command import typed
from r1v0.base.errors import Interrupted, Told, UserError, need_unix
from r1v0.base.interrupts import stop_with_input
from r1v0.jobs.arguments import Parser
from r1v0.jobs.launch import end
from r1v0.jobs.verbs import export, models, read, report, runs, settings, share, sweep

# What the system says of a path that a user should not have given; any other OSError is a defect of ours.
NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}
VERBS = (models, runs, read, report, export, settings, share, sweep)
"""modules that each add some verbs"""
UNIX = {"train", "eval", "sample", "pretrain", "bench", "check", "verify", "sweep", "export"}
"""verbs that take locks, signals or grading processes; the others run on Windows too"""


def parser() -> argparse.ArgumentParser:
    """The whole command line; what is parsed names its verb in `verb`, and the verb's function in `run`."""
    whole = Parser(
        prog=typed(),
        description="Redraw DeepSeek R1-Zero's curves on small models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"r1v0 {__version__}")
    verbs = whole.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        title = "example:" if len(examples) == 1 else "examples:"
        sub = verbs.add_parser(
            name,
            help=text,
            description=textwrap.fill(text[0].upper() + text[1:] + ".", 100),
            epilog="\n".join([title, *(f"  {whole.prog} {name} {words}" for words in examples)]) if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,  # an example stays a line
        )
        sub.set_defaults(verb=name)
        return sub

    for module in VERBS:
        module.add(verb)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    return end(_run(argv))


def _run(argv: Sequence[str] | None) -> int:
    # libgomp's threads spin while they wait for each other. On a machine that does anything else, the one that spins
    # holds the core that the other needs: a decoding step of the tiny model took 28 ms instead of 7 (median, one busy
    # core of two). Waiting asleep costs nothing measurable on an idle machine. Must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    stop_with_input()
    try:
        arguments = parser().parse_args(argv)
        if arguments.verb in UNIX:
            need_unix(f"r1v0 {arguments.verb}")
        result: int | None = arguments.run(arguments)
        return result or 0
    except UserError as error:
        if not isinstance(error, Told):
            print(f"r1v0: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # a pager or head closed our output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in NO_PATH or error.filename is None:
            raise
        print(f"r1v0: {UserError(f'{error.filename!s:.200}: {error.strerror}: give another path')}", file=sys.stderr)
        return 2

"""The command as its reader can type it: every message that names one asks here.

Decides: a message repeats how the process was started, because that is known to work in that shell and that folder:
`r1v0` where the shell finds it, else the path of the script (`.venv/bin/r1v0`), else `python -m r1v0`. Whoever uses the
library has no such start, and reads `r1v0`.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "r1v0"


def typed(*words: object) -> str:
    """`r1v0` as it can be typed here, followed by the words, each quoted where the shell would ask for it."""
    return " ".join([_program(), *(shlex.quote(str(word)) for word in words)])


def _program() -> str:
    started = Path(sys.argv[0])
    if started.name == NAME:
        found = shutil.which(NAME)
        if found and os.path.realpath(found) == os.path.realpath(started):
            return NAME
        return shlex.quote(_near(started))
    if started == Path(__file__).parents[1] / "__main__.py":
        return f"{shlex.quote(_near(Path(sys.orig_argv[0])))} -m {NAME}"
    return NAME


def _near(path: Path) -> str:
    """A program's path, relative where it lies under the working folder; a bare name is looked up by the shell."""
    if len(path.parts) == 1 and shutil.which(path.name):
        return path.name
    whole, here = Path(os.path.abspath(path)), Path.cwd()
    if not whole.is_relative_to(here):
        return str(path)
    inside = whole.relative_to(here)
    return str(inside) if len(inside.parts) > 1 else f"./{inside}"

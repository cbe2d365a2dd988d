"""The two ways a run ends early that are nobody's bug.

Decides: whatever a user can get wrong is raised as `UserError` with one line that says what was given, what was
expected and what to do; the command line prints that line and exits with 2. Anything else is a defect and keeps its
traceback.
"""

import difflib
import sys
from collections.abc import Iterable

from r1v0.base.shown import shown


class UserError(Exception):
    """A mistake the user can fix. `str(error)` is one line, whatever it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


class Told(UserError):
    """One that another process of the run tells."""


class Lost(UserError):
    """Another process of the run is gone, so this one ends."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM reached a place where the run could stop cleanly (exit code 130)."""


def need_unix(what: str) -> None:
    """Raise UserError on Windows, for what takes locks, signals or limits that only Unix has."""
    if sys.platform == "win32":
        raise UserError(f"{what} needs Linux or macOS (Windows: WSL2)")


def unknown(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table, with a suggestion where one is close."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} '{given}': {hint}")


def reason(error: BaseException) -> str:
    """The innermost cause of an error, on one line."""
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__

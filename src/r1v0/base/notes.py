"""Lines for the user that are not errors, told once however many processes a run has."""

import os
import sys
from collections.abc import Callable

Note = Callable[[str], None]


def launched() -> int:
    """How many processes torchrun started, this one among them; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def speaks() -> bool:
    """Whether this process is the one of its run that talks to the user: the first."""
    return launched() == 1 or os.environ["RANK"] == "0"


def to_stderr(text: str) -> None:
    """Say it on standard error."""
    if speaks():
        print(f"r1v0: {text}", file=sys.stderr)

"""Lines for the user that are not errors."""

import sys
from collections.abc import Callable

Note = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Say it on standard error."""
    print(f"r1v0: {text}", file=sys.stderr)

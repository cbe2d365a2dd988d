"""Keys of a terminal, one at a time, and the terminal given back as it was.

Decides: Ctrl-Z does nothing here, because a stopped process would leave the terminal without its cursor; Ctrl-C and
SIGTERM end the reader cleanly. Where a system has no `termios`, nothing is interactive.
"""

import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1b[F": "end", "\x1bOH": "home", "\x1bOF": "end", "\x1b[1~": "home", "\x1b[4~": "end",
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape", "\x04": "q",
}  # fmt: skip
SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[@-~])")
PAUSE = 0.05
"""seconds after an escape in which the rest of its sequence comes"""


def interactive(out: TextIO) -> bool:
    """Whether both ends are a terminal that can be drawn on."""
    try:
        import termios  # noqa: F401  (not on every system)
    except ImportError:
        return False
    return out.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def split(text: str) -> list[str]:
    """What was typed, key by key: characters, or names of keys that have none. Sequences of unknown keys are left
    out."""
    keys = []
    while text:
        match = SEQUENCE.match(text)
        piece = match[0] if match else text[0]
        text = text[len(piece) :]
        if piece in NAMES or piece.isprintable():
            keys.append(NAMES.get(piece, piece))
    return keys


class Keyboard:
    """Reads keys from a file descriptor. `ended` once nobody can type any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False

    def read(self, seconds: float) -> list[str]:
        """The keys of the next `seconds` at most; none where nothing was typed."""
        data = self._bytes(seconds)
        while data.endswith(b"\x1b") and (rest := self._bytes(PAUSE)):
            data += rest
        return split(data.decode("utf-8", "ignore"))

    def _bytes(self, seconds: float) -> bytes:
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return b""
        try:
            data = os.read(self.descriptor, 4096)
        except OSError:  # the terminal is gone
            data = b""
        self.ended = not data
        return data


@contextmanager
def keyboard(descriptor: int) -> Iterator[Keyboard]:
    """The keyboard of a terminal: no echo, no waiting for a line, until the end of the `with`."""
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        now = termios.tcgetattr(descriptor)
        now[6][termios.VSUSP] = os.fpathconf(descriptor, "PC_VDISABLE").to_bytes(1, "little")
        termios.tcsetattr(descriptor, termios.TCSANOW, now)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)

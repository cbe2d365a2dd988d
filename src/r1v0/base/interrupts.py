"""Ctrl-C and SIGTERM as something that a run can wait for.

Decides: a signal is a wish, noted by the handler and granted at the next place that asks; so nothing is ever left half
done. A second signal is an order. One within a second is the same wish: a terminal's Ctrl-C goes to torchrun and to its
processes alike, and torchrun passes it on.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from r1v0.base.errors import Interrupted

SAME_WISH = 1.0
"""seconds"""
WITH_INPUT = "R1V0_STOP_WITH_INPUT"
"""environment variable of a child: the end of its standard input, which its parent holds open, is a Ctrl-C"""


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Turn SIGINT and SIGTERM into an `Interrupted` at the next place that calls the check. A second one stops at
    once."""
    asked: float | None = None

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked is None:
            asked = time.monotonic()
        elif time.monotonic() - asked > SAME_WISH:
            raise KeyboardInterrupt

    def check() -> None:
        if asked is not None:
            raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield check  # signals belong to the main thread
        return
    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in old.items():
            if signal.getsignal(number) is ask:  # nobody took it over since
                signal.signal(number, handler)


def stop_with_input() -> None:
    """Where WITH_INPUT is set, turn the end of standard input into a SIGINT: a parent that is gone, however it ended,
    leaves no child at work. Works wherever there are pipes; children of this process do not inherit it."""
    if not os.environ.pop(WITH_INPUT, ""):
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, name="stop-with-input", daemon=True).start()

"""Ctrl-C and SIGTERM as something that a run can wait for.

Decides: a signal is a wish, noted by the handler and granted at the next place that asks; so nothing is ever left half
done. A second signal is an order. One within a second is the same wish: a terminal's Ctrl-C goes to torchrun and to its
processes alike, and torchrun passes it on.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from r1v0.base.errors import Interrupted

SAME_WISH = 1.0
"""seconds"""


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

"""Ctrl-C and SIGTERM as something that a run can wait for.

Decides: a signal is a wish, noted by the handler and granted at the next place that asks; so nothing is ever left half
done. A second signal is an order.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from r1v0.base.errors import Interrupted


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Turn SIGINT and SIGTERM into an `Interrupted` at the next place that calls the check. A second one stops at
    once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def check() -> None:
        if asked:
            raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield check  # signals belong to the main thread
        return
    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

"""A grading process: `python -P -m r1v0.tasks.grading.worker MEMORY_MB TIMEOUT_S REWARD...`, started by
`pool.Verifier`.

Decides: it reads one task, answers it, and reads the next, over the socket that is its standard input; a frame is
four bytes of length and JSON in ASCII (no pickle; lone surrogates survive). It has no deadline of its own, being
made to be killed. It ignores Ctrl-C, which is for the trainer to handle, and ends when the trainer does: the socket
closes, and on Linux the kernel kills it; its limit of processor time is for systems where nobody does. It imports
neither torch nor the trainer.
"""

import contextlib
import ctypes
import dataclasses
import json
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from r1v0.base.errors import UserError
from r1v0.types import Problem

HEADER = struct.Struct(">I")
ORPHAN_CHECK_S = 10.0
OUT_OF_MEMORY = 117
"""Exit code of a process whose task took more memory than it may."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Solved before the first task, so that it is not the one that waits for sympy's lazy imports and the parser's tables.
WARM_UP = [
    (r"\frac{1}{2}", "0.5"),
    ("(1,2)", "[1,2]"),
    ("x^2-1", "(x-1)(x+1)"),
    ("x=5", "x>5"),
    (r"\sqrt{8}", r"2\sqrt2"),
    ("1,2", r"\{2,1\}"),
]


def frame(message: dict[str, Any]) -> bytes:
    """A message as it goes over the socket."""
    body = json.dumps(message, ensure_ascii=True).encode("ascii")
    return HEADER.pack(len(body)) + body


def main(arguments: list[str]) -> int:
    """Serve tasks until the socket is closed. Returns the exit code."""
    memory_mb, timeout_s, rewards = int(arguments[0]), float(arguments[1]), arguments[2:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_AS", memory_mb << 20)
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        _prepare(rewards)
    except UserError as error:
        channel.sendall(frame({"fatal": str(error)}))
        return 2
    channel.sendall(frame({"ready": os.getpid()}))
    parent = os.getppid()
    while (task := _receive(channel, parent)) is not None:
        _limit("RLIMIT_CPU", math.ceil(time.process_time() + timeout_s) + 5)
        started = time.perf_counter()
        try:
            answer = _answer(task)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # at once: the trainer sees the end of the socket, and asks a fresh process
        except UserError as error:
            answer = {"fatal": str(error)}
        channel.sendall(frame({"id": task["id"], "seconds": time.perf_counter() - started, **answer}))
    return 0


def _prepare(rewards: list[str]) -> None:
    from r1v0.tasks.rewards import function, is_custom

    for name in filter(is_custom, rewards):
        function(name)
    if "math" in rewards:
        from r1v0.tasks.math.symbolic import compare

        for gold, answer in WARM_UP:
            compare(gold, answer)


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    if "compare" in task:
        from r1v0.tasks.math.symbolic import compare

        gold, answer = task["compare"]
        return dataclasses.asdict(compare(gold, answer, forms=task["forms"]))
    from r1v0.tasks.rewards import function

    score = function(task["reward"])(Problem(**task["problem"]), task["text"], task["finished"])
    return {"score": dataclasses.asdict(score)}


def _receive(channel: socket.socket, parent: int) -> dict[str, Any] | None:
    """The next task, or None when there will be none: the socket is closed, or the trainer is gone (a process that it
    forked may still hold the socket's other end)."""
    while not select.select([channel], [], [], ORPHAN_CHECK_S)[0]:
        if os.getppid() != parent:
            return None
    header = _exactly(channel, HEADER.size)
    body = _exactly(channel, HEADER.unpack(header)[0]) if header else None
    if not body:
        return None
    task: dict[str, Any] = json.loads(body)
    return task


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        chunk = channel.recv(size - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _limit(name: str, value: int) -> None:
    """Set a soft limit. Some systems (macOS) do not know all of them: then there is none."""
    import resource  # not on Windows, where this module is imported and no such process is started

    kind = getattr(resource, name)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sys.exit(main(sys.argv[1:]))

"""Grading processes that are always killable, and the thread that serves them.

Decides:
- An answer takes at most `timeout_s` from the moment a process has the task; then the process is killed (SIGKILL, its
  whole process group) and replaced, and the answer is failure="timeout". No signal, alarm or lock of the graded code
  is trusted, and nothing needs the main thread.
- A process that dies loses no task: another process gets it. A task that two processes died of (segmentation fault,
  out of memory, exit) is failure="crash"; where they were killed from outside, it takes six.
- A process has one task at a time and echoes its number, so answers cannot be swapped.
- Processes are fresh interpreters, never forks of one that holds torch's threads. Their environment is scrubbed: of
  the trainer's variables they get PATH, the language and where Python's modules are.
- The thread sleeps in `select`; it delivers each answer by calling the function that came with the task.
"""

import contextlib
import json
import os
import selectors
import shlex
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError, need_unix
from r1v0.config import RewardConfig
from r1v0.tasks.grading.worker import HEADER, OUT_OF_MEMORY, frame
from r1v0.tasks.rewards import is_custom, names

DEATHS = 2
KILLS = 6
START_LIMIT_S = 120.0
FAILED_STARTS = 10
"""So many in a row are no accident, even where somebody kills processes at random."""

MAX_FRAME = 16 << 20

Deliver = Callable[[dict[str, Any], str, float], None]
"""Called with (answer, failure, seconds). With a failure, "timeout" or "crash", the answer holds only "why"."""


@dataclass(slots=True)
class _Task:
    id: int
    message: dict[str, Any]
    deliver: Deliver
    deaths: int = 0
    kills: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """A process and our end of its socket. `since` is when it was started or got its task."""

    process: "subprocess.Popen[bytes]"
    channel: socket.socket
    since: float
    ready: bool = False
    task: _Task | None = None
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytes = b""


class Processes:
    """`config.workers` grading processes, started in the background. `failed` is called once with the error if they
    cannot go on: a UserError for a user's function or processes that do not start."""

    def __init__(self, config: RewardConfig, failed: Callable[[BaseException], None]) -> None:
        need_unix("grading in processes of its own")
        self._config = config
        self._failed = failed
        self._lock = threading.Lock()
        self._tasks: deque[_Task] = deque()
        self._next_id = 0
        self._closing = False
        self._workers: list[_Worker] = []
        self._ended: list[subprocess.Popen[bytes]] = []
        self._failed_starts = 0
        self.restarts = 0
        self._selector = selectors.DefaultSelector()
        self._wake, self._alarm = socket.socketpair()
        self._wake.setblocking(False)
        self._alarm.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="r1v0-verifier", daemon=True)
        self._thread.start()

    def ask(self, message: dict[str, Any], deliver: Deliver) -> None:
        """Put a task in the queue. `deliver` will be called once, in the serving thread, unless `close` comes first."""
        with self._lock:
            self._next_id += 1
            self._tasks.append(_Task(self._next_id, message, deliver))
        self._ring()

    def close(self) -> None:
        """Kill the processes and end the thread. Tasks that are not done are dropped."""
        with self._lock:
            self._closing = True
        self._ring()
        self._thread.join()
        self._alarm.close()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # wake-ups enough are waiting, or the thread has ended
            self._alarm.send(b"\0")

    def _serve(self) -> None:
        try:
            while not self._closing:
                while len(self._workers) < self._config.workers:
                    self._start()
                self._assign()
                for key, events in self._selector.select(self._until_deadline()):
                    if key.data is None:
                        self._wake.recv(4096)
                    else:
                        self._pump(key.data, events)
                now = time.monotonic()
                for worker in [worker for worker in self._workers if now >= self._deadline(worker)]:
                    self._lose(worker, "timeout" if worker.ready else "crash")
                self._ended = [process for process in self._ended if process.poll() is None]
        except BaseException as error:
            self._failed(error)
        finally:
            for worker in list(self._workers):
                self._kill(worker)
            for process in self._ended:
                process.wait()
            self._selector.close()
            self._wake.close()

    def _start(self) -> None:
        rewards = names(self._config)
        custom = any(map(is_custom, rewards))  # what a user's function prints goes to our standard error
        limits = [str(self._config.memory_mb), str(self._config.timeout_s)]
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "r1v0.tasks.grading.worker", *limits, *map(_absolute, rewards)],
                stdin=theirs.fileno(),
                stdout=2 if custom else subprocess.DEVNULL,
                stderr=None if custom else subprocess.DEVNULL,
                cwd=None if custom else tempfile.gettempdir(),
                env=environment(),
                start_new_session=True,  # a Ctrl-C at the terminal is the trainer's alone
            )
        ours.setblocking(False)
        worker = _Worker(process, ours, time.monotonic())
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.task is None:
                with self._lock:
                    if not self._tasks:
                        return
                    worker.task = self._tasks.popleft()
                worker.since = time.monotonic()
                worker.outgoing = frame({"id": worker.task.id, **worker.task.message})
                self._selector.modify(worker.channel, selectors.EVENT_READ | selectors.EVENT_WRITE, worker)

    def _deadline(self, worker: _Worker) -> float:
        if not worker.ready:
            return worker.since + START_LIMIT_S
        return worker.since + self._config.timeout_s if worker.task else float("inf")

    def _until_deadline(self) -> float | None:
        first = min(map(self._deadline, self._workers), default=float("inf"))
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _pump(self, worker: _Worker, events: int) -> None:
        """Send and receive what can be had without waiting."""
        try:
            if events & selectors.EVENT_WRITE:
                worker.outgoing = worker.outgoing[worker.channel.send(worker.outgoing) :]
                if not worker.outgoing:
                    self._selector.modify(worker.channel, selectors.EVENT_READ, worker)
            chunk = worker.channel.recv(1 << 20) if events & selectors.EVENT_READ else None
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if chunk == b"":
            self._lose(worker, "crash")
        elif chunk:
            worker.incoming += chunk
            self._read(worker)

    def _read(self, worker: _Worker) -> None:
        """Take the whole frames out of what came in. A process has at most one answer to give, so two frames never come
        together but for "ready"; one that breaks the rules is lost."""
        while len(worker.incoming) >= HEADER.size:
            size = HEADER.unpack_from(worker.incoming)[0]
            if size > MAX_FRAME:
                self._lose(worker, "crash")
                return
            if len(worker.incoming) < HEADER.size + size:
                return
            message = _decoded(bytes(worker.incoming[HEADER.size : HEADER.size + size]))
            del worker.incoming[: HEADER.size + size]
            task = worker.task
            if "fatal" in message:
                raise UserError(message["fatal"])
            if "ready" in message:
                worker.ready, self._failed_starts = True, 0
            elif task is None or message.get("id") != task.id:
                self._lose(worker, "crash")
                return
            else:
                worker.task = None
                task.deliver(message, "", message["seconds"])

    def _lose(self, worker: _Worker, failure: str) -> None:
        """Kill a process that has passed its deadline or has died, and see to its task."""
        self._kill(worker)
        self.restarts += 1
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise UserError(
                    f"{FAILED_STARTS} grading processes in a row ended before they were ready (exit code "
                    f"{worker.process.wait()}): "
                    f"reward.memory_mb is {self._config.memory_mb}, expected at least 256; raise it, or see what "
                    f"`{shlex.quote(sys.executable)} -m r1v0.tasks.grading.worker 2048 5 math </dev/null` says"
                )
        task = worker.task
        if task is None:
            return
        code = worker.process.wait() if failure == "crash" else 0
        if failure == "crash" and self._may_retry(task, code):
            with self._lock:
                self._tasks.appendleft(task)
        else:
            task.deliver({"why": self._why(failure, code)}, failure, time.monotonic() - worker.since)

    def _why(self, failure: str, exit_code: int) -> str:
        """What a grading process did instead of answering: the end of a sentence."""
        if failure == "timeout":
            return f"took more than reward.timeout_s = {self._config.timeout_s:g} s"
        if exit_code == OUT_OF_MEMORY:
            return f"took more than reward.memory_mb = {self._config.memory_mb} MB"
        if exit_code < 0:
            with contextlib.suppress(ValueError):
                return f"ended its process by {signal.Signals(-exit_code).name}"
        return f"ended its process with exit code {exit_code}"

    def _may_retry(self, task: _Task, exit_code: int) -> bool:
        """Count a death. The code of a process that had died is its own: our SIGKILL came after it."""
        if exit_code == -signal.SIGKILL:
            task.kills += 1
        else:
            task.deaths += 1
        return task.deaths < DEATHS and task.kills < KILLS

    def _kill(self, worker: _Worker) -> None:
        """Does not wait for the end: to free a large memory takes a while."""
        self._workers.remove(worker)
        self._selector.unregister(worker.channel)
        worker.channel.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        self._ended.append(worker.process)


def environment() -> dict[str, str]:
    """The environment of a grading process. The hash seed is fixed: the order of a set must not change a verdict."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    modules = [os.path.abspath(entry) for entry in sys.path if entry]
    return {
        **kept,
        "HOME": tempfile.gettempdir(),
        "PYTHONPATH": os.pathsep.join([*modules, str(Path(__file__).parents[3])]),
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
    }


def _decoded(body: bytes) -> dict[str, Any]:
    """A frame's message; {} for what is none, which no task's number fits."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _absolute(reward: str) -> str:
    path, _, attribute = reward.rpartition(":")
    return f"{Path(path).resolve()}:{attribute}" if is_custom(reward) else reward

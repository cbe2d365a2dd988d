"""Meeting the other processes of a run that torchrun started, and parting from them.

Decides: torchrun sends SIGTERM to all as soon as one has ended with an error, its exit codes 2 and 130 included. So
nobody leaves with an error before the first process, which talks to the user, has said everything. When a process is
gone the others end at once, and the first that noticed says so.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from r1v0.base.errors import Interrupted, Lost, Told, UserError
from r1v0.base.notes import launched

PATIENCE = timedelta(days=2)
"""how long a phase may take in one process while the others wait; a process that died is noticed at once"""
PARTING = timedelta(minutes=5)
"""how long the others wait for the first process to say how the run ended"""
REAPED_S = 0.5
"""after this, a process that died is no longer in the system's table: torchrun looks ten times a second"""
HERE: dict[int, int] = {}
"""process ids of those on this machine, by rank"""


@contextmanager
def processes() -> Iterator[None]:
    """Meet the other processes that torchrun started, for the time of a `with` block. Alone, nothing happens.

    Where one of them is gone, a survivor raises UserError, the others Told.
    """
    if launched() == 1 or dist.is_initialized():
        yield
        return
    number, count = int(os.environ["RANK"]), launched()
    named = _store(number, count)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    named.set(f"at/{number}", f"{os.getpid()} {socket.gethostname()}")
    dist.init_process_group(backend, store=named, rank=number, world_size=count, timeout=PATIENCE)
    places = [named.get(f"at/{other}").decode().split(" ", 1) for other in range(count)]
    HERE.update({other: int(pid) for other, (pid, host) in enumerate(places) if host == socket.gethostname()})
    try:
        yield
    except Lost as error:
        raise (UserError if _is_first_to_say(named) else Told)(str(error)) from None
    except (UserError, Interrupted):
        _leave(named, number)
        raise
    finally:
        HERE.clear()
        dist.destroy_process_group()


def _store(number: int, count: int) -> PrefixStore:
    """Where they find each other. The store that torchrun's agent keeps outlives the workers of an attempt: without a
    name for each attempt, a restarted one finds the addresses of the dead (torch 2.13). That name is torchrun's count
    of restarts, which each machine has for itself; a store of the first process's own needs none."""
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    machines, restarts = (os.environ.get(name, "0") for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"))
    if kept and int(machines) > 1 and int(restarts) > 0:
        raise (UserError if number == 0 else Told)(
            "torchrun with --max-restarts on several machines needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the "
            "environment of each: without it a restarted process does not find the others"
        )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if kept else "own"
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return PrefixStore(f"r1v0/{attempt}", TCPStore(*where, count, is_master=number == 0 and not kept))


def gone() -> list[int]:
    """The processes of the run that are no more; only those of this machine can be told."""
    # What torchrun sends the survivors has nothing to add: they end by themselves, and their last line is to be read.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(REAPED_S)
    return [number for number, pid in HERE.items() if not _is_there(pid)]


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_first_to_say(store: PrefixStore) -> bool:
    try:
        return bool(store.add("lost", 1) == 1)
    except RuntimeError:  # the store is gone too: rather twice than never
        return True


def _leave(store: PrefixStore, number: int) -> None:
    """Part in order: the first process, then the others."""
    with suppress(RuntimeError):
        if number == 0:
            store.set("parted", "")
        else:
            store.wait(["parted"], PARTING)

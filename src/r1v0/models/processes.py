"""Meeting the other processes of a run that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from r1v0.base.notes import launched

PATIENCE = timedelta(days=2)
"""how long a phase may take in one process while the others wait; a process that died is noticed at once"""


@contextmanager
def processes() -> Iterator[None]:
    """Meet the other processes that torchrun started, for the time of a `with` block. Alone, nothing happens.

    The store that torchrun's agent keeps outlives the workers of an attempt: without a name of its own for each
    attempt, a restarted one finds the addresses of the dead (torch 2.13).
    """
    if launched() == 1 or dist.is_initialized():
        yield
        return
    number, count = int(os.environ["RANK"]), launched()
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), count, is_master=number == 0 and not kept
    )
    attempt = f"r1v0/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=PrefixStore(attempt, store), rank=number, world_size=count, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()

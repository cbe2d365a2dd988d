"""The processes of a run under torchrun: phases of local work that end in one exchange, and the sum of gradients.

Decides: a phase (sampling and grading, a gradient, an evaluation, a write) holds no collective, and ends in `each` or
`first`. Errors and wishes to stop travel in place of a result, so nobody waits for a process that has gone elsewhere.
Whatever stands between two phases is computed by every process from the same data, so no rank is asked for. With one
process `each(work)` is `[work()]`: there is no second path. What is exchanged is JSON in bytes over gloo, never a
pickle; gradients are summed in float32 by the device's own backend (NCCL on GPUs).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from r1v0.base.errors import Interrupted, Lost, Told, UserError
from r1v0.grpo.batch import deal
from r1v0.models.processes import gone
from r1v0.models.sizes import buckets
from r1v0.types import Batch

T = TypeVar("T")


def size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(count: int) -> range:
    """Which of `count` pieces of work are this process's: about as many in each, in order."""
    return range(count * rank() // size(), count * (rank() + 1) // size())


def each(
    work: Callable[[], T], pack: Callable[[T], Any] = lambda x: x, unpack: Callable[[Any], T] = lambda x: x
) -> list[T]:
    """What `work` returned in each process, in order. `pack` turns it into what JSON can hold, `unpack` back.

    What one of them raised is raised by all: UserError before Interrupted. Anything else is a defect: it keeps its
    traceback where it happened, and ends the others by a RuntimeError.
    """
    if size() == 1:
        return [work()]
    broken: Exception | None = None
    try:
        message = {"value": pack(work())}
    except UserError as error:
        message = {"wrong": str(error)}
    except Interrupted:
        message = {"stop": True}
    except Exception as error:
        broken, message = error, {"broken": f"{type(error).__name__}: {error}"}
    messages = [json.loads(data) for data in exchange(json.dumps(message).encode("ascii"))]
    if broken is not None:
        raise broken
    for kind, raised in (("broken", RuntimeError), ("wrong", UserError if rank() == 0 else Told)):
        for number, other in enumerate(messages):
            if kind in other:
                raise raised(other[kind] if kind == "wrong" else f"process {number} failed: {other[kind]}")
    if any("stop" in other for other in messages):
        raise Interrupted
    return [unpack(other["value"]) for other in messages]


def first(work: Callable[[], T], pack: Callable[[T], Any] = lambda x: x, unpack: Callable[[Any], T] = lambda x: x) -> T:
    """What `work` returned in the first process, which alone does it: files, locks, decisions. Raises as `each`."""
    if size() == 1:
        return work()

    def alone() -> Any:
        return pack(work()) if rank() == 0 else None

    return unpack(each(alone)[0])


def together(work: Callable[[], T]) -> T:
    """What `work` returned in this process, once all have done theirs. Raises as `each`."""
    kept: list[T] = []
    each(lambda: kept.append(work()))
    return kept[0]


def share(batch: Batch, equal_keys: float) -> Batch:
    """This process's part of an update, by work (batch.deal); it may be empty."""
    return batch if size() == 1 else deal(batch, size(), equal_keys)[rank()]


@contextmanager
def meeting() -> Iterator[None]:
    """What every collective stands in: it raises Lost if another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/transport" not in str(error):
            raise
        names = ", ".join(map(str, gone()))
        who = f"process {names}" if names else "another process"
        raise Lost(
            f"{who} of the run is gone (killed, out of memory, or its machine lost); its checkpoints are whole"
        ) from None


@meeting()
def exchange(data: bytes) -> list[bytes]:
    """Everybody's bytes, in order, in each process."""
    own = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    found = []
    for source, length in enumerate(sizes):
        buffer = own if source == rank() else torch.empty(int(length), dtype=torch.uint8)
        if int(length):
            dist.broadcast(buffer, source)
        found.append(buffer.numpy().tobytes())
    return found


@meeting()
@torch.no_grad()
def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace each by its sum over the processes, made in float32, some BUCKET numbers at a time."""
    if size() == 1:
        return
    for places in buckets([tensor.numel() for tensor in tensors]):
        some = [tensors[i] for i in places]
        flat = torch.cat([tensor.reshape(-1).float() for tensor in some])
        dist.all_reduce(flat)
        for tensor, summed in zip(some, flat.split([tensor.numel() for tensor in some]), strict=True):
            tensor.copy_(summed.view_as(tensor))

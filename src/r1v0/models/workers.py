"""A CPU's threads: training side by side, each on micro-batches of its own, and sampling with one if more lose.

Decides: PyTorch shares out each operation of a small model, some microseconds of it, and waits for all threads after
each; whole micro-batches wait once an update (results/performance). So each worker has a twin of the model: the same
weights, and gradients of its own, which are added in a fixed order. The same threads give the same bits; other threads
other roundings, as within PyTorch. The twins' gradients may take sizes.py's `MOST_COPIES`: larger models have fewer
workers, each with several threads, down to the one of a GPU. Decoding steps cannot be dealt out so: half of the rows
take two thirds of the time. They share operations, as PyTorch does, which a model of less than `SMALLEST` weights loses
by.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from r1v0.models.transformer import Transformer

SMALLEST = 1 << 21  # weights of a model that is sampled with one thread: its matrix products take some ten microseconds

T = TypeVar("T")


def gradient_bytes(model: nn.Module) -> int:
    """What the gradients take while there are any."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def twin(model: Transformer) -> Transformer:
    """The same model on the same memory, with gradients of its own."""
    own = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, own)


def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What the calls return, each made in a thread of its own, with an equal share of PyTorch's; the first one in this
    thread. Raises what the first of them raised that did, when all have ended."""
    if len(calls) == 1:
        return [calls[0]()]
    before = torch.get_num_threads()

    def alone(call: Callable[[], T]) -> T:
        torch.set_num_threads(max(1, before // len(calls)))  # a thread's own number, where OpenMP is asked for it
        return call()

    try:
        with ThreadPoolExecutor(len(calls) - 1) as pool:
            rest = [pool.submit(alone, call) for call in calls[1:]]
            first = alone(calls[0])
        return [first, *(future.result() for future in rest)]
    finally:
        torch.set_num_threads(before)


@contextmanager
def sampling_threads(model: nn.Module) -> Iterator[None]:
    """One thread for the time of a `with` block, if the model is small."""
    before = torch.get_num_threads()
    if before == 1 or sum(parameter.numel() for parameter in model.parameters()) >= SMALLEST:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def add_gradients(model: nn.Module, twins: Sequence[nn.Module]) -> None:
    """Add the twins' gradients to the model's, in order, and drop them."""
    for other in twins:
        for parameter, own in zip(model.parameters(), other.parameters(), strict=True):
            if own.grad is not None:
                assert parameter.grad is not None
                parameter.grad += own.grad
                own.grad = None

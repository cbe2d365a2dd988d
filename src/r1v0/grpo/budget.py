"""How many tokens one forward and backward pass takes: chosen by free memory, halved when that was too many.

Decides: the budget is the run's own state, and no number of its results depends on it but by rounding: micro-batches'
gradients add up to the batch's (batch.py). On a CPU several micro-batches are worked on side by side (workers.py),
which share the budget. `optimizer.micro_batch_tokens` = 0 chooses it, on a GPU by arithmetic (`token_bytes`) that a
probe of the longest case corrects before the first step, on a CPU as measured. After an out-of-memory error, what
failed is repeated with half as many tokens. A backward pass that broke off has added to some gradients and not to
others; a second copy to undo that would take the very memory that is missing, so then, and only then, the gradient of
the whole update is begun anew.
"""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TypeVar

import torch
from torch import nn

from r1v0.base.errors import UserError
from r1v0.config import Config
from r1v0.grpo.batch import deal, split
from r1v0.models.sizes import (
    FEWEST_TOKENS,
    HEAD_BYTES,
    MOST_TOKENS,
    cpu_tokens,
    token_bytes,
    workers,
)
from r1v0.models.transformer import Transformer
from r1v0.models.workers import add_gradients, gradient_bytes, side_by_side, twin
from r1v0.types import Batch

SHARE = 0.9  # of free memory; the rest is left to fragmentation

T = TypeVar("T")


class Budget:
    """`tokens` of the micro-batches that are worked on at a time, from now on. `automatic`: a probe may raise it.
    `note` tells the user of a change."""

    def __init__(self, tokens: int, remedy: str = "", automatic: bool = False) -> None:
        self.tokens, self.remedy, self.automatic = tokens, remedy, automatic
        self.note: Callable[[str], None] = lambda text: None
        self._lock = Lock()

    def accumulate(
        self, batch: Batch, model: Transformer, zero_grad: Callable[[], None], work: Callable[[Transformer, Batch], T]
    ) -> list[T]:
        """Call `work`, which adds to a model's gradients, on each micro-batch; what it returned. `zero_grad` sets those
        of `model` to zeros; `work` is given it or a twin.

        Raises UserError if one completion alone does not fit into memory, and whatever else `work` raises.
        """
        while True:
            shares = self._shares(batch, model)
            twins = [twin(model) for _ in shares[1:]]
            zero_grad()
            results: list[list[T]] = [[] for _ in shares]
            calls = [
                partial(self._work_through, *which, work, len(shares))
                for which in zip(shares, [model, *twins], results, strict=True)
            ]
            if all(side_by_side(calls)):
                add_gradients(model, twins)
                return [result for some in results for result in some]

    def _shares(self, batch: Batch, model: Transformer) -> list[Batch]:
        """The batch, in a part for each worker."""
        tokens = min(self.tokens, batch.token_ids.shape[0])
        if on_gpu(model) or tokens == 0:
            return [batch]
        longest = int(batch.positions.max()) + 1
        count = workers(torch.get_num_threads(), gradient_bytes(model), tokens, longest)
        if count == 1:
            return [batch]
        return [share for share in deal(batch, count, equal_keys(model)) if share.token_ids.numel()]

    def _work_through(
        self, batch: Batch, model: Transformer, results: list[T], work: Callable[[Transformer, Batch], T], side: int
    ) -> bool:
        """False if a backward pass broke off, so that the gradients are those of no whole set of micro-batches. `side`
        of these are at work at a time."""
        for micro in split(batch, self.tokens // side, model.norm.device):
            size, alone = micro.token_ids.shape[0], int((micro.parents >= 0).sum()) == 1
            if alone or size <= self.tokens // side:  # a micro-batch before it may have made the budget smaller
                before = gradient_versions(model)
                done = attempt(partial(work, model), micro)
                if done:
                    results += done
                    continue
                self._shrink(size, alone, side)
                if gradient_versions(model) != before or (alone and side > 1):
                    return False
            if not self._work_through(micro, model, results, work, side):
                return False
        return True

    def _shrink(self, size: int, alone: bool, side: int) -> None:
        if alone and side == 1:
            raise UserError(
                f"out of memory in training on one completion, {size} tokens with its prompt: {self.remedy}"
            )
        with self._lock:
            room = FEWEST_TOKENS if alone else size // 2 * side  # of so few there is one at a time
            if room >= self.tokens:
                return  # a neighbour was faster
            self.tokens = room
            self.note(f"out of memory in training: {room} tokens at a time are trained on from here on (same gradient)")


def equal_keys(model: Transformer) -> float:
    """The number of keys that cost a token as much in attention as all matrices do."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return weights / (2 * model.config.layers * model.config.heads * model.config.head_dim)


def attempt(work: Callable[[Batch], T], micro: Batch) -> list[T]:
    """[work(micro)], or [] if memory ran out. Then all that the work held is given back: the error, whose frames hold
    activations, ends here."""
    try:
        return [work(micro)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if micro.token_ids.is_cuda:
        torch.cuda.empty_cache()
    return []


def is_out_of_memory(error: Exception) -> bool:
    """CUDA's allocator raises a type of its own; the CPU's, cuBLAS and the driver a RuntimeError, told by its text."""
    texts = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)


def gradient_versions(model: nn.Module) -> list[int]:
    """Changes whenever a backward pass has added to any gradient (torch counts writes to a tensor)."""
    return [-1 if parameter.grad is None else parameter.grad._version for parameter in model.parameters()]


def first_budget(config: Config, model: Transformer) -> Budget:
    """The budget that a run begins with."""
    remedy = _remedy(config)
    if config.optimizer.micro_batch_tokens:
        return Budget(config.optimizer.micro_batch_tokens, remedy)
    if not on_gpu(model):
        return Budget(cpu_tokens(torch.get_num_threads(), gradient_bytes(model)), remedy)
    from r1v0.models.memory import FIXED_BYTES, free_memory  # on a CPU nothing needs it

    gradients = gradient_bytes(model)
    room = SHARE * (free_memory(model.norm.device) - gradients) - FIXED_BYTES - 3 * HEAD_BYTES
    each = token_bytes(model.config, model.norm.dtype.itemsize, model.checkpoint_activations)
    return Budget(rounded(room / each), remedy, True)


def on_gpu(model: Transformer) -> bool:
    return model.norm.is_cuda


def rounded(tokens: float) -> int:
    """Whole 256s, at least one and at most MOST_TOKENS: what a little memory more or less does not change."""
    return min(MOST_TOKENS, max(1, int(tokens) // 256) * 256)


def _remedy(config: Config) -> str:
    """What is left to switch on."""
    steps = {
        "compute.checkpoint_activations=true": not config.compute.checkpoint_activations,
        "optimizer.offload=true": not config.optimizer.offload and config.optimizer.moments == "float32",
        "lora.rank=64": not config.lora.rank,
    }
    left = [f"set {step}" for step, possible in steps.items() if possible]
    return ", or ".join([*left, "lower sampling.max_new_tokens"])

"""Does the longest sequence fit into memory, and how many tokens at a time? Tried before the first step."""

from collections.abc import Callable
from typing import TypeVar

import torch

from r1v0.grpo.budget import SHARE, Budget, on_gpu, rounded
from r1v0.models import memory
from r1v0.models.sizes import GIB, activation_bytes, workers
from r1v0.models.transformer import Transformer
from r1v0.models.workers import gradient_bytes
from r1v0.types import Batch

T = TypeVar("T")


def probe(
    budget: Budget,
    model: Transformer,
    prompt: int,
    completion: int,
    zero_grad: Callable[[], None],
    work: Callable[[Transformer, Batch], T],
) -> None:
    """Train on made-up tokens, as many as a micro-batch can have and one of the longest sequences; drop the gradient.

    So that no run dies of memory when lengths grow: halves the budget until it fits, and sets an automatic one to what
    the memory it measured allows. Raises UserError if a prompt of `prompt` tokens with a completion of `completion`
    does not fit alone. On a CPU it only compares what `r1v0 plan` counts with the memory that is free, and warns.
    """
    device, longest = model.norm.device, prompt + completion
    if not on_gpu(model):
        side = workers(torch.get_num_threads(), gradient_bytes(model), budget.tokens)
        tokens = max(budget.tokens, longest)
        needed = bytes_on_cpu(model, tokens, side) + (side - 1) * gradient_bytes(model)
        if needed > (free := memory.free_memory(device)):
            budget.note(
                f"warning: training on {tokens} tokens at a time needs about {needed / GIB:.1f} GiB, "
                f"and {free / GIB:.1f} are free: {budget.remedy}"
            )
        return
    before = torch.cuda.memory_allocated(device)
    room = memory.free_memory(device) - gradient_bytes(model)
    torch.cuda.reset_peak_memory_stats(device)
    batch = longest_case(prompt, completion, max(budget.tokens, longest), model.config.vocab)
    budget.accumulate(batch, model, zero_grad, work)
    taken = torch.cuda.max_memory_allocated(device) - before - gradient_bytes(model)
    if budget.automatic:
        size = min(batch.token_ids.shape[0], max(budget.tokens, longest))
        budget.tokens = rounded(SHARE * room / taken * size)
        budget.note(
            f"micro-batches of {budget.tokens} tokens ({taken / size / 1e3:.0f} kB a token, {room / GIB:.1f} GiB free)"
        )
    for parameter in model.parameters():
        parameter.grad = None


def longest_case(prompt: int, completion: int, tokens: int, vocab: int) -> Batch:
    """A prompt with one completion of `completion` tokens, and further ones up to `tokens` in all, of made-up words."""
    rest = max(0, tokens - prompt - completion)
    lengths = [prompt, completion] + [completion] * (rest // completion) + [rest % completion] * (rest % completion > 0)
    sizes = torch.tensor(lengths)
    cu_seqlens = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    total = int(cu_seqlens[-1])
    starts = torch.tensor([0] + [prompt] * (len(lengths) - 1)) - cu_seqlens[:-1]
    weights = torch.full((total,), 1 / total)
    weights[:prompt] = 0
    return Batch(
        token_ids=torch.arange(total) % vocab,
        positions=torch.arange(total) + starts.repeat_interleave(sizes),
        cu_seqlens=cu_seqlens,
        parents=torch.tensor([-1] + [0] * (len(lengths) - 1)),
        weights=weights,
        advantages=torch.ones(total),
        sample_logprobs=torch.full((total,), -1.0),
    )


def bytes_on_cpu(model: Transformer, tokens: int, side: int) -> float:
    """What training on this many tokens takes beside weights, gradients and the optimizer's state."""
    size, trained = model.norm.dtype.itemsize, model.head_weight.requires_grad
    return sum(activation_bytes(model.config, tokens, False, size, model.checkpoint_activations, side, trained))

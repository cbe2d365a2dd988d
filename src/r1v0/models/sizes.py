"""How large things are: bytes, tokens and workers as numbers, from a model's shape, without loading torch.

Decides: what training and sampling go by and what `r1v0 plan` counts with is written here once, so that the plan cannot
differ from the run. `size` is the bytes of a number of the type that is computed in, `tokens` those of one micro-batch.

Activations are counted from transformer.py by the tensors that autograd keeps of a block, in numbers a token
(h hidden, f intermediate, q and k the widths of queries and of keys; norms are fused on a GPU and not on a CPU):

    norms      2 h each of two on a GPU; on a CPU 3 h in float32, 5 h in bfloat16 (they compute in float32)
    attention  q + (q + 2 k) PADDED by buckets of sequences; 2 q + k + 2 k PADDED by the variable-length kernel
    MLP        4 f: gate and up, silu(gate), and their product

With checkpointing a block keeps its input alone, h, and one block at a time has all of it. Its backward pass holds
5 f + 2 h more; that, and the logprob head before it, are never there together. On a CPU glibc's allocator leaves holes
between tensors of up to 32 MiB: `HOLES`, by measurement. A CPU's workers share the tokens; each has its own gradients.

A GPU's automatic micro-batch is chosen by `token_bytes`, which adds up `cautious` blocks instead, some more than is
counted, until a probe measures what is true. Counted ones would choose another size there, and so other roundings.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

from r1v0.models.shape import ModelConfig

GIB = 1 << 30

# Training
CPU_TOKENS = 2048  # a worker's; as fast as any on a 2-core CPU: the activations of more tokens leave its caches
MOST_TOKENS = 32_768  # of an automatic micro-batch: more would not make a GPU's matrix products faster
FEWEST_TOKENS = 512  # of a worker's micro-batch: with fewer, operations are so short that Python's lock is what counts
MOST_COPIES = 1 << 30  # bytes of the gradients of workers' twins
HEAD_BYTES = 1 << 25  # of a float32 slice of logits, of which at most two are held at a time
NARROWEST = 1024  # words of a slice, however many the tokens: narrower products are slow
PADDED = 1.1  # keys that attention sees, prompts repeated and similar lengths padded, over tokens packed
BACKWARD = (5, 2)  # numbers a token of f and h that a block's backward pass holds beside what it was given
HOLES = 1.25  # measured over counted activations on a CPU: 1.1 to 1.45, the more the smaller and more ragged they are

# The update
BUCKET = 1 << 26  # weights whose gradients are in float32 at the same time: 256 MiB, or one larger matrix
MOMENT_BLOCK = 256  # 8-bit values that share one float32 scale, in bitsandbytes' kernels
EIGHT_BIT = 2 * (1 + 4 / MOMENT_BLOCK)  # bytes per weight of two moments in 8 bits

# Sampling
MOST_SLOTS = 256  # on a GPU: from there on decoding is bound by the cache's bandwidth, and more rows gain little
CPU_SLOTS = 128
LIKELY_SHARE = 4  # automatic slots assume that completions reach a quarter of their limit; else rows are preempted
LEAST_REARRANGED = 1 << 16  # weights of a matrix under which a second layout gains nothing: calls have a fixed cost
MOST_REARRANGED = 1 << 30  # weights of a model over which second copies take more memory than a CPU run should double


def kv_bytes(config: ModelConfig, size: int) -> int:
    """Bytes of keys and values of one token."""
    return 2 * config.layers * config.kv_heads * config.head_dim * size


def workers(threads: int, gradients: float, tokens: int, longest: int = 0) -> int:
    """How many train side by side on a CPU: with `threads` (0: all cores), gradients of this many bytes,
    micro-batches of `tokens` in all, and sequences of up to `longest`, for which each must have room."""
    most = tokens // max(FEWEST_TOKENS, longest)
    return max(1, min(threads or os.cpu_count() or 1, 1 + int(MOST_COPIES // max(1, gradients)), most))


def cpu_tokens(threads: int, gradients: float) -> int:
    """Tokens of an automatic micro-batch on a CPU, all workers' together."""
    return CPU_TOKENS * workers(threads, gradients, MOST_TOKENS)


def head_slice(rows: int, vocab: int) -> int:
    """Words whose logits are computed together: all, if `rows` x `vocab` of them are few enough."""
    return min(vocab, max(NARROWEST, HEAD_BYTES // (4 * max(1, rows))))


def head_bytes(config: ModelConfig, rows: int, size: int) -> int:
    """Log-probabilities of `rows` tokens: two slices of logits, and the gradient of the hidden states in float32."""
    width = head_slice(rows, config.vocab)
    slices = 2 * 4 * rows * width + (size * rows * width if size == 2 else 0)
    return slices + 4 * rows * config.hidden


class Block(NamedTuple):
    """Numbers a token: `kept` by a block's forward pass, held by its `backward` pass beside them, kept `outside` of
    all."""

    kept: float
    backward: float
    outside: float


def counted(config: ModelConfig, gpu: bool, size: int) -> Block:
    """As the head of this file has it; within 15 % of what a CPU's training step was measured to take."""
    h, f, q, k = _widths(config)
    norm = (2 if gpu else 3 if size == 4 else 5) * h
    attention = 2 * q + k + 2 * k * PADDED if gpu and size == 2 else q + (q + 2 * k) * PADDED
    outside = norm + 2 * h  # the last norm, the rows that are scored and their gradient
    return Block(2 * norm + attention + 4 * f, BACKWARD[0] * f + BACKWARD[1] * h, outside)


def cautious(config: ModelConfig) -> Block:
    """More than `counted`: attention's every tensor, of which not all are kept (qkv, the turned q and k, the output,
    the keys and values gathered), and as much again in gradients. Less by the last norm."""
    h, f, q, k = _widths(config)
    block = 2 * 2 * h + 4 * q + 5 * k + 4 * f
    return Block(block, block, 2 * h)


def _widths(config: ModelConfig) -> tuple[int, int, int, int]:
    return config.hidden, config.intermediate, config.heads * config.head_dim, config.kv_heads * config.head_dim


def activations(config: ModelConfig, block: Block, checkpointed: bool) -> tuple[float, float]:
    """Numbers a token of a micro-batch: those kept by the forward pass, and those of one block at work in the backward
    pass."""
    if checkpointed:
        return config.layers * config.hidden + block.outside, block.kept + block.backward
    return config.layers * block.kept + block.outside, block.backward


def activation_bytes(
    config: ModelConfig, tokens: int, gpu: bool, size: int, checkpointed: bool, side: int = 1, head_trained: bool = True
) -> tuple[float, float]:
    """Bytes of a micro-batch, as counted: kept by the forward pass, and held beside them by the head or by a block's
    backward pass. `side` workers share the tokens; where the head is trained, each has a gradient of it."""
    kept, at_work = activations(config, counted(config, gpu, size), checkpointed)
    holes = 1 if gpu else HOLES
    # Of tied embeddings the head's gradient waits for the end of the backward pass.
    head_gradient = size * config.vocab * config.hidden if head_trained else 0
    head = side * head_bytes(config, tokens // side, size)
    return tokens * size * kept * holes, max(tokens * size * at_work * holes, head) + side * head_gradient


def token_bytes(config: ModelConfig, size: int, checkpointed: bool) -> int:
    """Bytes a token by which a GPU's automatic micro-batch is chosen before it is measured: of `cautious` blocks, and
    the gradient of the head's rows in float32. The head's slices are taken off the free memory instead (budget.py)."""
    return int(sum(activations(config, cautious(config), checkpointed))) * size + 4 * config.hidden


def buckets(sizes: Sequence[int]) -> list[list[int]]:
    """Places of tensors of these sizes, in order, in runs of up to BUCKET numbers; a larger one is alone."""
    found: list[list[int]] = []
    room = 0
    for place, size in enumerate(sizes):
        if not found or size > room:
            found.append([])
            room = BUCKET
        found[-1].append(place)
        room -= size
    return found

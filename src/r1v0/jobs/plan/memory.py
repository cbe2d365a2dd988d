"""Where the memory of a run goes: bytes of each part, by counting what our code allocates.

Decides: a run has three moments, and its peak is the greatest of them.

    sampling   weights, masters, moments, and the KV cache in all that is left
    training   weights, gradients, masters, moments, and one micro-batch's activations
    update     the same without activations, and float32 copies of a bucket of gradients

Activations are counted from models/transformer.py by the tensors that autograd keeps of a block, in numbers a token
(h hidden, f intermediate, q and k the widths of queries and of keys; norms are fused on a GPU and not on a CPU):

    norms      2 h each of two on a GPU; on a CPU 3 h in float32, 5 h in bfloat16 (they compute in float32)
    attention  q + (q + 2 k) PADDED by buckets of sequences; 2 q + k + 2 k PADDED by the variable-length kernel
    MLP        4 f: gate and up, silu(gate), and their product

With checkpointing a block keeps its input alone, h, and one block at a time has all of it. Its backward pass holds 5 f + 2 h
more; that, and the logprob head before it, are never there together. On a CPU glibc's allocator leaves holes between tensors
of up to 32 MiB: `HOLES`, by measurement. A CPU's workers share the tokens; each has its own gradients. Not counted: the graders' processes.
"""

import os
from dataclasses import dataclass

from r1v0.config import Config
from r1v0.jobs.plan.shapes import Shape

GIB = 1 << 30
PADDED = 1.1  # keys that attention sees, prompts repeated and similar lengths padded, over tokens packed
BACKWARD = (5, 2)  # numbers a token of f and h that a block's backward pass holds beside what it was given
HEAD_BYTES, NARROWEST = 1 << 25, 1024  # logprobs.py
BUCKET = 1 << 26  # optimizer.py
MOST_COPIES, FEWEST_TOKENS = 1 << 30, 512  # workers.py
SMALLEST_8BIT = 2 + 8 / 256  # eight_bit.py: bytes a weight
MOST_REARRANGED, LEAST_REARRANGED = 1 << 30, 1 << 16  # models/packing.py
HOLES = (
    1.25  # measured over counted activations on a CPU: 1.1 to 1.45, the more the smaller and the more ragged they are
)
BASE_CPU = 0.36 * GIB  # resident set of Python, torch and the rest before a model is loaded (measured, Linux)


def reserve(card: float) -> float:
    """Bytes of a GPU that are not for us: context, kernels, what fragments. 2.3 of 40 GiB."""
    return 1.5 * GIB + 0.02 * card


@dataclass(frozen=True)
class Memory:
    """Bytes. `kept` are activations from the forward pass, `working` what the head or a block's backward pass takes beside
    them, `update` float32 copies of gradients; `sampling_copy` a rounded copy of the weights, or a rearranged one."""

    weights: float
    gradients: float
    masters: float
    moments: float
    reference: float
    sampling_copy: float
    kept: float
    working: float
    update: float
    kv_token: float

    @property
    def resident(self) -> float:
        """What is there all the time."""
        return self.weights + self.masters + self.moments + self.reference

    @property
    def training(self) -> float:
        """At the peak of a micro-batch."""
        return self.resident + self.gradients + self.kept + self.working

    @property
    def updating(self) -> float:
        """In the optimizer's step."""
        return self.resident + self.gradients + self.update

    @property
    def sampling(self) -> float:
        """Before the first token of KV cache."""
        return self.resident + self.sampling_copy


def count_memory(config: Config, shape: Shape, gpu: bool, micro_batch: int) -> Memory:
    """The parts for `micro_batch` tokens that are trained on at a time. On a GPU what is offloaded is not counted."""
    size = 2 if (config.compute.dtype == "bfloat16" or (config.compute.dtype in ("auto", "fastest") and gpu)) else 4
    adapters = shape.adapters(config.lora.rank) if config.lora.rank else 0
    trained = adapters or shape.parameters
    eight = config.optimizer.states == "8bit"
    has_masters = (size == 2 and not eight) or config.optimizer.offload
    off_card = gpu and config.optimizer.offload
    sampled = 2 if config.sampling.dtype == "bfloat16" else size
    kept, at_work = activations(config, shape, gpu, size)
    holes = 1 if gpu else HOLES
    side = 1 if gpu else workers(config.threads, size * trained, micro_batch)
    head_gradient = (
        0 if adapters else size * shape.embedding
    )  # of tied embeddings it waits for the end of the backward pass
    head = side * head_bytes(shape, micro_batch // side, size)
    return Memory(
        weights=size * (shape.parameters + adapters),
        gradients=side * size * trained,
        masters=4 * trained if has_masters and not off_card else 0,
        moments=0 if off_card else trained * (SMALLEST_8BIT if eight else 8),
        reference=size * shape.parameters if config.grpo.kl_coef > 0 and not adapters else 0,
        sampling_copy=(2 * shape.parameters if sampled != size else 0) + rearranged(shape, gpu, sampled),
        kept=micro_batch * size * kept * holes,
        working=max(micro_batch * size * at_work * holes, head) + side * head_gradient,
        update=4 * min(trained, max(BUCKET, 0 if adapters else shape.largest)) if has_masters and not off_card else 0,
        kv_token=2 * shape.config.layers * shape.config.kv_heads * shape.config.head_dim * sampled,
    )


def workers(threads: int, gradients: float, tokens: int) -> int:
    """How many train side by side on a CPU with so many `threads` (0: all cores)."""
    return max(
        1, min(threads or os.cpu_count() or 1, 1 + int(MOST_COPIES // max(1, gradients)), tokens // FEWEST_TOKENS)
    )


def rearranged(shape: Shape, gpu: bool, size: int) -> float:
    """The CPU's second copy of large matrices while it samples."""
    if gpu or shape.parameters > MOST_REARRANGED:
        return 0
    blocks = shape.matrices if shape.matrices / shape.config.layers / 4 >= LEAST_REARRANGED else 0
    return size * (blocks + (shape.embedding if shape.embedding >= LEAST_REARRANGED else 0))


def activations(config: Config, shape: Shape, gpu: bool, size: int) -> tuple[float, float]:
    """Numbers a token of a micro-batch: those kept by the forward pass, and those of one block at work in the backward pass."""
    c = shape.config
    h, f, q, k = c.hidden, c.intermediate, c.heads * c.head_dim, c.kv_heads * c.head_dim
    norm = (2 if gpu else 3 if size == 4 else 5) * h
    varlen = gpu and size == 2
    attention = 2 * q + k + 2 * k * PADDED if varlen else q + (q + 2 * k) * PADDED
    block = 2 * norm + attention + 4 * f
    outside = norm + 2 * h  # the last norm, the rows that are scored and their gradient
    backward = BACKWARD[0] * f + BACKWARD[1] * h
    if config.compute.checkpoint_activations:
        return c.layers * h + outside, block + backward
    return c.layers * block + outside, backward


def head_bytes(shape: Shape, rows: int, size: int) -> float:
    """Log-probabilities of `rows` tokens: two slices of logits, and the gradient of the hidden states in float32."""
    width = min(shape.config.vocab, max(NARROWEST, HEAD_BYTES // (4 * rows)))
    slices = 2 * 4 * rows * width + (size * rows * width if size == 2 else 0)
    return slices + 4 * rows * shape.config.hidden

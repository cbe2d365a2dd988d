"""Where the memory of a run goes: bytes of each part, by counting what our code allocates.

Decides: a run has three moments, and its peak is the greatest of them.

    sampling   weights, masters, moments, and the KV cache in all that is left
    training   weights, gradients, masters, moments, and one micro-batch's activations
    update     the same without activations, and float32 copies of a bucket of gradients, one more among several
               processes, which add them up

With `optimizer.shard` each of N processes has an N-th of masters and moments (grpo/shard.py), and a float32 model, else
its own master, has an N-th of masters as well.

Activations, workers and the head's slices are those of models/sizes.py. Not counted: the graders' processes.
"""

from dataclasses import dataclass

from r1v0.config import Config
from r1v0.jobs.plan.shapes import Shape
from r1v0.models.sizes import (
    BUCKET,
    EIGHT_BIT,
    GIB,
    LEAST_REARRANGED,
    MOST_REARRANGED,
    activation_bytes,
    kv_bytes,
    workers,
)

BASE_CPU = 0.36 * GIB  # resident set of Python, torch and the rest before a model is loaded (measured, Linux)


def reserve(card: float) -> float:
    """Bytes of a GPU that are not for us: context, kernels, what fragments. 2.3 of 40 GiB."""
    return 1.5 * GIB + 0.02 * card


@dataclass(frozen=True)
class Memory:
    """Bytes. `kept` are activations from the forward pass, `working` what the head or a block's backward pass takes
    beside them, `update` float32 copies of gradients; `sampling_copy` a rounded copy of the weights, or a rearranged
    one."""

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


def count_memory(config: Config, shape: Shape, gpu: bool, micro_batch: int, processes: int = 1) -> Memory:
    """The parts of each process for `micro_batch` tokens that are trained on at a time. On a GPU what is offloaded is
    not counted."""
    size = 2 if (config.compute.dtype == "bfloat16" or (config.compute.dtype in ("auto", "fastest") and gpu)) else 4
    adapters = shape.adapters(config.lora.rank) if config.lora.rank else 0
    trained = adapters or shape.parameters
    eight = config.optimizer.moments == "8bit"
    shard = config.optimizer.shard
    held = trained / processes if shard else trained
    rounded = (size == 2 and not eight) or config.optimizer.offload
    off_card = gpu and config.optimizer.offload
    sampled = 2 if config.sampling.dtype == "bfloat16" else size
    side = 1 if gpu else workers(config.threads, size * trained, micro_batch)
    checkpointed = config.compute.checkpoint_activations
    kept, working = activation_bytes(shape.config, micro_batch, gpu, size, checkpointed, side, not adapters)
    gradients = side * size * trained
    copies = 1 + (size == 2) if processes > 1 else int(rounded and not off_card)
    return Memory(
        weights=size * (shape.parameters + adapters),
        gradients=gradients,
        masters=4 * held if (rounded or shard) and not off_card else 0,
        moments=0 if off_card else held * (EIGHT_BIT if eight else 8),
        reference=size * shape.parameters if config.grpo.kl_coef > 0 and not adapters else 0,
        sampling_copy=(2 * shape.parameters if sampled != size else 0) + rearranged(shape, gpu, sampled),
        kept=kept,
        working=working,
        # Sharded gradients end as float32 pieces, which are more than they were where there is one process.
        update=max(
            copies * 4 * min(trained, max(BUCKET, 0 if adapters else shape.largest)),
            4 * held - gradients if shard else 0,
        ),
        kv_token=kv_bytes(shape.config, sampled),
    )


def rearranged(shape: Shape, gpu: bool, size: int) -> float:
    """The CPU's second copy of large matrices while it samples."""
    if gpu or shape.parameters > MOST_REARRANGED:
        return 0
    blocks = shape.matrices if shape.matrices / shape.config.layers / 4 >= LEAST_REARRANGED else 0
    return size * (blocks + (shape.embedding if shape.embedding >= LEAST_REARRANGED else 0))

"""How long a step takes on a named card: floating-point operations, bytes moved, and stated efficiencies.

Decides: sampling is bound by the memory's bandwidth or by arithmetic, whichever is slower, at the share of it that good
kernels reach; training by arithmetic at a usual share of the peak. Data sheets' dense bfloat16 rates; on a CPU float32 and
per core, of a 2024 server. An estimate to plan with, good to a factor of 1.5 on a GPU and of 2 on a CPU.

    operations a token   forward 2 M + 4 L q context (M: weights of all matrices and the head; Kaplan et al., arXiv 2001.08361,
                         table 1), backward twice that, one forward more with checkpointing
"""

import os
from dataclasses import dataclass

from r1v0.config import Config
from r1v0.plan.shapes import Shape


@dataclass(frozen=True)
class Card:
    """`memory` GiB, `bandwidth` bytes/s, `flops` a second; the shares of both that decoding and training reach; and what a
    decoding step costs however little it does, in seconds a layer."""

    title: str
    memory: float
    bandwidth: float
    flops: float
    bandwidth_share: float = 0.65
    flops_share: float = 0.40
    layer_s: float = 1e-5


CARDS = {
    "a100": Card("A100 40 GB", 40, 1.555e12, 312e12),
    "a100-80": Card("A100 80 GB", 80, 2.039e12, 312e12),
    "h100": Card("H100 80 GB", 80, 3.35e12, 989e12),
    "h200": Card("H200 141 GB", 141, 4.8e12, 989e12),
    "l4": Card("L4 24 GB", 24, 0.30e12, 121e12),
    "l40s": Card("L40S 48 GB", 48, 0.864e12, 362e12),
    "a10": Card("A10 24 GB", 24, 0.60e12, 125e12),
    "3090": Card("RTX 3090 24 GB", 24, 0.936e12, 71e12),
    "4090": Card("RTX 4090 24 GB", 24, 1.008e12, 165e12),
    "5090": Card("RTX 5090 32 GB", 32, 1.792e12, 209e12),
}


def cpu_card(threads: int, memory: float) -> Card:
    """This machine's CPU, as far as is known without measuring it: `threads` cores (0: all)."""
    cores = threads or os.cpu_count() or 1
    return Card(f"{cores} CPU core{'s' * (cores > 1)}", memory, 20e9, 85e9 * cores, 0.65, 0.45, 2.5e-4)


@dataclass(frozen=True)
class Work:
    """A step: `completions` of `length` tokens on average, over prompts of `prompt` tokens, `group_size` each; trained
    `passes` times."""

    completions: int
    group_size: int
    prompt: int
    length: float
    passes: float

    @property
    def sampled(self) -> float:
        """Tokens."""
        return self.completions * self.length

    @property
    def prompts(self) -> float:
        """Prompt tokens, each prompt once."""
        return self.completions / self.group_size * self.prompt


def work_of(config: Config, prompt: int, length: float) -> Work:
    """A step at that mean length, no group flat and none refilled."""
    grpo = config.grpo
    kept = (grpo.keep_per_group or grpo.group_size) / grpo.group_size
    return Work(grpo.groups * grpo.group_size, grpo.group_size, prompt, length, kept * grpo.epochs)


@dataclass(frozen=True)
class Cost:
    """Floating-point operations and seconds of a step."""

    sampling_flops: float
    training_flops: float
    sampling_s: float
    training_s: float


def cost(config: Config, shape: Shape, work: Work, card: Card, rows: int, kv_token: float, size: int) -> Cost:
    """A step with `rows` completions decoded at a time, weights of `size` bytes."""
    c = shape.config
    active = shape.matrices + shape.embedding
    q = c.heads * c.head_dim
    context = work.prompt + work.length / 2
    decode = 2 * active + 4 * c.layers * q * context
    prefill = work.prompts * (2 * shape.matrices + 2 * c.layers * q * work.prompt)
    forward = (work.sampled + work.prompts) * (2 * shape.matrices + 4 * c.layers * q * context) + (
        2 * shape.embedding * work.sampled
    )
    reruns = 4 if config.compute.checkpoint_activations else 3
    if config.lora.rank:
        reruns -= 1  # frozen weights need no gradient of their own
    rows = max(1, min(rows, work.completions))
    steps = work.sampled / rows
    moved = size * active + rows * context * kv_token
    step_s = max(moved / (card.bandwidth * card.bandwidth_share), rows * decode / (card.flops * card.flops_share))
    training = forward * reruns * work.passes
    sampling_s = steps * (step_s + c.layers * card.layer_s) + prefill / (card.flops * card.flops_share)
    return Cost(work.sampled * decode + prefill, training, sampling_s, training / (card.flops * card.flops_share))

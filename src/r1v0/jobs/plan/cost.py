"""How long a step takes on a named card: floating-point operations, bytes moved, and stated efficiencies.

Decides: sampling is bound by the memory's bandwidth or by arithmetic, whichever is slower, at the share of it that
good kernels reach; training by arithmetic at a usual share of the peak. Data sheets' dense bfloat16 rates; on a CPU
float32 and per core, of a 2024 server. An estimate to plan with, good to a factor of 1.5 on a GPU and of 2 on a CPU.

    operations a token   forward 2 M + 4 L q context (M: weights of all matrices and the head; Kaplan et al.,
                         arXiv 2001.08361, table 1), backward twice that, one forward more with checkpointing
"""

import os
import re
from dataclasses import dataclass, replace

from r1v0.config import Config
from r1v0.jobs.plan.shapes import Shape


@dataclass(frozen=True)
class Card:
    """`memory` GiB, `bandwidth` bytes/s, `bfloat16` and `float32` operations a second; the shares of both that
    decoding and training reach; what a decoding step costs however little it does, in seconds a layer; and bytes/s to
    the other cards of its node."""

    title: str
    memory: float
    bandwidth: float
    bfloat16: float
    float32: float
    bandwidth_share: float = 0.65
    flops_share: float = 0.40
    layer_s: float = 1e-5
    link: float = 20e9  # PCIe 4.0 x16, of 32 GB/s

    def rate(self, size: int) -> float:
        """Operations a second with numbers of `size` bytes."""
        return (self.bfloat16 if size == 2 else self.float32) * self.flops_share


# The makers' data sheets: dense, with sums in float32.
CARDS = {
    "a100": Card("A100 40 GB", 40, 1.555e12, 312e12, 19.5e12, link=230e9),  # NVLink, of 300 GB/s
    "a100-80": Card("A100 80 GB", 80, 2.039e12, 312e12, 19.5e12, link=230e9),
    "h100": Card("H100 80 GB", 80, 3.35e12, 989e12, 67e12, link=350e9),  # NVLink, of 450 GB/s
    "h100-pcie": Card("H100 PCIe 80 GB", 80, 2.0e12, 756e12, 51e12),
    "h200": Card("H200 141 GB", 141, 4.8e12, 989e12, 67e12, link=350e9),
    "l4": Card("L4 24 GB", 24, 0.30e12, 121e12, 30e12),
    "l40s": Card("L40S 48 GB", 48, 0.864e12, 362e12, 92e12),
    "a10": Card("A10 24 GB", 24, 0.60e12, 125e12, 31e12),
    "a30": Card("A30 24 GB", 24, 0.933e12, 165e12, 10.3e12),
    "a40": Card("A40 48 GB", 48, 0.696e12, 150e12, 37e12),
    "a6000": Card("RTX A6000 48 GB", 48, 0.768e12, 155e12, 39e12),
    "6000-ada": Card("RTX 6000 Ada 48 GB", 48, 0.96e12, 364e12, 91e12),
    "3090": Card("RTX 3090 24 GB", 24, 0.936e12, 71e12, 36e12),
    "4080": Card("RTX 4080 16 GB", 16, 0.717e12, 97e12, 49e12),
    "4090": Card("RTX 4090 24 GB", 24, 1.008e12, 165e12, 83e12),
    "5090": Card("RTX 5090 32 GB", 32, 1.792e12, 209e12, 105e12),
}
OFFLOAD_S = 1 / 1.5e9  # seconds per weight and update that moments in CPU memory cost
_DECORATION = re.compile(r"nvidia|geforce|rtx|tesla|tensor|core|gpu|sxm[0-9]*|hbm[0-9a-z]*|[0-9]+gb|[^a-z0-9]")


def find_card(name: str) -> Card | None:
    """The card by any of its usual names: rtx4090, "RTX 4090", a100-80gb, "NVIDIA H100 80GB HBM3". None if it is not
    known."""
    lower = name.lower().replace("generation", "")
    bare = _DECORATION.sub("", lower)
    known = {_DECORATION.sub("", key): card for key, card in CARDS.items()}
    if bare.removesuffix("pcie") in ("a100", "a10080", "a10040"):
        return CARDS["a100-80" if "80" in lower else "a100"]
    return known.get({"h10080": "h100", "h200141": "h200", "l424": "l4", "l40": "l40s"}.get(bare, bare))


def cpu_card(threads: int, memory: float, bfloat16: float = 1.0) -> Card:
    """This machine's CPU, as far as is known without measuring it: `threads` cores (0: all). `bfloat16`: what a
    product in it takes, as a multiple of float32's (`device.bfloat16_cost`)."""
    cores = threads or os.cpu_count() or 1
    rate = 85e9 * cores
    return Card(f"{cores} CPU core{'s' * (cores > 1)}", memory, 20e9, rate / bfloat16, rate, 0.65, 0.45, 2.5e-4)


@dataclass(frozen=True)
class Cluster:
    """`gpus` cards in each of `nodes` machines, between which a machine moves `network` bytes/s. One process a card."""

    gpus: int = 1
    nodes: int = 1
    network: float = 100e9 / 8

    @property
    def processes(self) -> int:
        return self.gpus * self.nodes


@dataclass(frozen=True)
class Work:
    """A step: `completions` of `length` tokens on average are trained on `passes` times, over prompts of `prompt`
    tokens, `group_size` each; `rounds` times as many are sampled, where flat groups are refilled."""

    completions: int
    group_size: int
    prompt: int
    length: float
    passes: float
    rounds: float = 1.0

    @property
    def trained(self) -> float:
        """Tokens, once."""
        return self.completions * self.length

    @property
    def sampled(self) -> float:
        """Tokens."""
        return self.rounds * self.trained

    @property
    def prompts(self) -> float:
        """Prompt tokens of those trained on, each prompt once."""
        return self.completions / self.group_size * self.prompt

    def part(self, processes: int) -> "Work":
        """The largest of equal parts."""
        return replace(self, completions=-(-self.completions // processes))


def work_of(config: Config, prompt: int, length: float, flat: float = 0.0) -> Work:
    """A step at that mean length. With refill a share `flat` of each round's groups is sampled anew, `max_refills`
    times."""
    grpo = config.grpo
    kept = (grpo.keep_per_group or grpo.group_size) / grpo.group_size
    rounds = sum(flat**round for round in range(1 + grpo.max_refills)) if grpo.refill else 1.0
    return Work(grpo.groups * grpo.group_size, grpo.group_size, prompt, length, kept * grpo.epochs, rounds)


def evaluation_of(config: Config, problems: int, prompt: int, length: float) -> Work:
    """One evaluation of this many problems."""
    samples = config.eval.samples
    return Work(problems * samples, samples, prompt, length, 0.0)


@dataclass(frozen=True)
class Cost:
    """Floating-point operations and seconds of a step. `prefill_s` is in `sampling_s`."""

    sampling_flops: float
    training_flops: float
    sampling_s: float
    training_s: float
    prefill_s: float


def cost(
    config: Config, shape: Shape, work: Work, card: Card, rows: int, kv_token: float, sizes: tuple[int, int]
) -> Cost:
    """A step with `rows` completions decoded at a time; `sizes` are the bytes of a number in training and in
    sampling."""
    c = shape.config
    q = c.heads * c.head_dim
    context = work.prompt + work.length / 2
    decode = _decode_flops(shape, context)
    prefill = work.rounds * work.prompts * (2 * shape.matrices + 2 * c.layers * q * work.prompt)
    forward = (work.trained + work.prompts) * (2 * shape.matrices + 4 * c.layers * q * context) + (
        2 * shape.embedding * work.trained
    )
    reruns = 4 if config.compute.checkpoint_activations else 3
    if config.lora.rank:
        reruns -= 1  # frozen weights need no gradient of their own
    rows = max(1, min(rows, work.completions))
    steps = work.sampled / rows
    training = forward * reruns * work.passes
    trained = shape.adapters(config.lora.rank) if config.lora.rank else shape.parameters
    updates = config.grpo.minibatches * config.grpo.epochs if work.passes and config.optimizer.offload else 0
    prefill_s = prefill / card.rate(sizes[1])
    return Cost(
        work.sampled * decode + prefill,
        training,
        steps * decoding_s(shape, card, rows, context, kv_token, sizes[1]) + prefill_s,
        training / card.rate(sizes[0]) + updates * trained * OFFLOAD_S,
        prefill_s,
    )


def decoding_s(shape: Shape, card: Card, rows: float, context: float, kv_token: float, size: int) -> float:
    """Seconds of a decoding step of `rows` rows that look back at `context` tokens on average; numbers have `size`
    bytes."""
    moved = size * (shape.matrices + shape.embedding) + rows * context * kv_token
    computed = rows * _decode_flops(shape, context) / card.rate(size)
    return max(moved / (card.bandwidth * card.bandwidth_share), computed) + shape.config.layers * card.layer_s


def _decode_flops(shape: Shape, context: float) -> float:
    c = shape.config
    return 2 * (shape.matrices + shape.embedding) + 4 * c.layers * c.heads * c.head_dim * context

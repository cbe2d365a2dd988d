"""`r1v0 plan`: does a run fit into the memory, where does the memory go, and how long is a step?

Decides: arithmetic only, before anything is downloaded or computed; memory.py, cost.py and shapes.py say what is counted
and how well it agrees with measurements. A run fits if the training step's peak and a KV cache for at least one completion
of full length fit. If it does not, settings are tried one after another, those that cost least first, until it does.
"""

import os
from dataclasses import dataclass, replace

from r1v0.config import Config
from r1v0.errors import UserError, unknown
from r1v0.plan.cost import CARDS, Card, Cost, cost, cpu_card, work_of
from r1v0.plan.memory import BASE_CPU, GIB, Memory, count_memory, reserve, workers
from r1v0.plan.shapes import Shape, find_shape

PROMPT = 128  # tokens of a prompt, assumed
LIKELY_SHARE = 4  # completions are assumed to be a quarter of their limit, as models/memory.py does
MOST_SLOTS, CPU_SLOTS = 256, 128  # models/memory.py's own bounds of automatic slots
CPU_TOKENS, MOST_TOKENS = 2048, 32_768  # budget.py's automatic ones: of a CPU's worker, and the largest of a GPU


@dataclass(frozen=True)
class Plan:
    """`budget` is what the run may take, in bytes; `micro_batch` tokens trained on at a time; `rows` decoded at a time."""

    config: Config
    shape: Shape
    card: Card
    gpu: bool
    total: float
    budget: float
    micro_batch: int
    memory: Memory
    rows: int
    length: int
    typical: Cost
    longest: Cost

    @property
    def whole(self) -> int:
        """Tokens of a prompt and its longest completion."""
        return PROMPT + self.config.sampling.max_new_tokens

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache that fit beside everything else while sampling."""
        return max(0, int((self.budget - self.memory.sampling) // self.memory.kv_token))

    @property
    def peak(self) -> float:
        """Of training and update."""
        return max(self.memory.training, self.memory.updating)

    @property
    def fits(self) -> bool:
        """Whether a step can run at all."""
        return self.peak <= self.budget and self.kv_tokens >= self.whole


def make_plan(
    config: Config, card: str | None = None, gpu_memory: float | None = None, length: int | None = None
) -> Plan:
    """The plan for a named card, for so many GiB of a GPU, or (without both) for this machine's CPU.

    Raises UserError for an unknown card, a memory or length that makes no sense, or a model that is not there.
    """
    if card is not None and card not in CARDS:
        raise unknown("card", card, CARDS)
    if gpu_memory is not None and not 0 < gpu_memory < 10_000:
        raise UserError(f"--gpu-memory is {gpu_memory:g}: expected the card's memory in GB, for example 40")
    limit = config.sampling.max_new_tokens
    length = length if length is not None else -(-limit // LIKELY_SHARE)
    if not 1 <= length <= limit:
        raise UserError(f"--length is {length}: expected 1 to sampling.max_new_tokens, which is {limit}")
    gpu = card is not None or gpu_memory is not None
    if not gpu and config.compute.device == "cuda":
        raise UserError("compute.device is cuda: say which GPU, by --card or by --gpu-memory")
    if gpu and config.compute.device == "cpu":
        raise UserError("compute.device is cpu: leave out --card and --gpu-memory, or set compute.device=cuda")
    shape = find_shape(config.model)
    if gpu:
        known = CARDS[card or "a100"]
        chosen = replace(known, memory=gpu_memory) if gpu_memory is not None else known
        total = chosen.memory * GIB
        budget = total - reserve(total)
    else:
        total = _ram()
        chosen = cpu_card(config.threads, total / GIB)
        budget = total - BASE_CPU
    return _plan(config, shape, chosen, gpu, total, budget, length)


def _ram() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _plan(config: Config, shape: Shape, card: Card, gpu: bool, total: float, budget: float, length: int) -> Plan:
    micro_batch = config.optimizer.micro_batch_tokens or _largest_micro_batch(config, shape, gpu, budget)
    # A completion is never cut in two, so a micro-batch is at least the longest of them; and at most the whole update.
    grpo, limit = config.grpo, config.sampling.max_new_tokens
    update = grpo.groups * (PROMPT + (grpo.keep_per_group or grpo.group_size) * limit) // grpo.minibatches
    micro_batch = max(min(micro_batch, update), PROMPT + limit)
    parts = count_memory(config, shape, gpu, micro_batch)
    tokens = max(0, int((budget - parts.sampling) // parts.kv_token))
    completions = config.grpo.groups * config.grpo.group_size
    wanted = config.sampling.slots or (MOST_SLOTS if gpu else CPU_SLOTS)
    room = tokens // (PROMPT + (length if gpu else config.sampling.max_new_tokens))
    rows = max(1, min(wanted, completions, room))
    size = (
        2
        if config.sampling.dtype == "bfloat16"
        else round(parts.weights / (shape.parameters + shape.adapters(config.lora.rank)))
    )
    typical, longest = (
        cost(config, shape, work_of(config, PROMPT, tokens_each), card, rows, parts.kv_token, size)
        for tokens_each in (length, config.sampling.max_new_tokens)
    )
    return Plan(config, shape, card, gpu, total, budget, micro_batch, parts, rows, length, typical, longest)


def _largest_micro_batch(config: Config, shape: Shape, gpu: bool, budget: float) -> int:
    gradients = count_memory(config, shape, gpu, 1).gradients
    tokens = MOST_TOKENS if gpu else CPU_TOKENS * workers(config.threads, gradients, MOST_TOKENS)
    while tokens > 1024 and count_memory(config, shape, gpu, tokens).training > budget:
        tokens //= 2
    return tokens


# What can be switched on, those that cost least first: (setting, what it costs).
REMEDIES = (
    ("optimizer.micro_batch_tokens", "nothing but some speed"),
    ("compute.checkpoint_activations=true", "a third more training time"),
    ("optimizer.states=8bit", "moments are rounded; needs bitsandbytes"),
    ("optimizer.offload=true", "a second or so a step for each 1.5 G weights, and CPU memory"),
    ("lora.rank=64", "trains adapters instead of the whole model"),
)


@dataclass(frozen=True)
class Remedy:
    """A setting, what it costs, and the plan with it and with all before it."""

    setting: str
    price: str
    plan: Plan


def remedies(plan: Plan) -> list[Remedy]:
    """Settings in order, each on top of those before it, until the run fits or nothing is left."""
    found: list[Remedy] = []
    for setting, price in REMEDIES:
        if plan.fits:
            break
        changed, named = _with(plan, setting)
        if changed is None:
            continue
        better = _plan(changed, plan.shape, plan.card, plan.gpu, plan.total, plan.budget, plan.length)
        if better.peak < plan.peak or better.memory.sampling < plan.memory.sampling:
            found.append(Remedy(named, price, better))
            plan = better
    return found


def _with(plan: Plan, setting: str) -> tuple[Config | None, str]:
    """The config with a remedy, and the remedy's name; None where it is in use or cannot be."""
    config, optimizer = plan.config, plan.config.optimizer
    key = setting.partition("=")[0]
    if key == "optimizer.micro_batch_tokens":
        if plan.micro_batch <= plan.whole:
            return None, ""
        return replace(config, optimizer=replace(optimizer, micro_batch_tokens=plan.whole)), f"{key}={plan.whole}"
    if key == "compute.checkpoint_activations" and not config.compute.checkpoint_activations:
        return replace(config, compute=replace(config.compute, checkpoint_activations=True)), setting
    if key == "optimizer.states" and optimizer.states != "8bit":
        return replace(config, optimizer=replace(optimizer, states="8bit")), setting
    if key == "optimizer.offload" and plan.gpu and not optimizer.offload:
        return replace(config, optimizer=replace(optimizer, offload=True, states="float32")), setting
    if key == "lora.rank" and not config.lora.rank:
        return replace(
            config, lora=replace(config.lora, rank=64), optimizer=replace(optimizer, states="float32", offload=False)
        ), setting
    return None, ""

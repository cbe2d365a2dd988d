"""`r1v0 plan`: does a run fit into the memory, where does the memory go, and how long is a step?

Decides: arithmetic only, before anything is downloaded or computed; memory.py, cost.py and shapes.py say what is
counted and how well it agrees with measurements. A run fits if the training step's peak and a KV cache for at least one
completion of full length fit. If it does not, combinations of settings that the config accepts are tried, and of each
kind (exact, rounded moments, adapters) the fastest that fits is named.
"""

import itertools
import os
from dataclasses import dataclass, replace

from r1v0.base.errors import UserError
from r1v0.config import Config, changed, differences, toml_value
from r1v0.config.checks import validate
from r1v0.jobs.plan.cost import CARDS, Card, Cluster, Cost, cost, cpu_card, evaluation_of, find_card, work_of
from r1v0.jobs.plan.memory import BASE_CPU, Memory, count_memory, reserve
from r1v0.jobs.plan.shapes import Shape, find_shape
from r1v0.models.sizes import CPU_SLOTS, GIB, LIKELY_SHARE, MOST_SLOTS, MOST_TOKENS, cpu_tokens
from r1v0.tasks.datasets import DATASETS, eval_name
from r1v0.tasks.reading.source import Generated

PROMPT = 128  # tokens of a prompt, assumed
FLAT = 0.5  # of the groups, where they are refilled
PROBLEMS = {"math500": 500, "aime24": 30, "aime25": 30, "amc23": 40, "olympiadbench": 674, "gsm8k": 1319, "math": 5000}
MOST_CARDS = 1024  # more are a typing error
ALONE = Cluster()
OWN_PROBLEMS = 256  # of an evaluation set whose size is not known without reading it, assumed


@dataclass(frozen=True)
class Plan:
    """`budget` is what the run may take, in bytes; `micro_batch` tokens trained on at a time; `rows` decoded at a time,
    of `slots` that there is room for. `typical` and `longest` are the costs of a step at the mean length and at the
    limit, `evaluation` of all that eval.on names, once, at those two lengths. All are of one card of the `cluster`,
    with an equal part of the work (cluster.py adds the rest)."""

    config: Config
    shape: Shape
    card: Card
    gpu: bool
    total: float
    budget: float
    micro_batch: int
    memory: Memory
    rows: int
    slots: int
    length: int
    typical: Cost
    longest: Cost
    evaluation: tuple[Cost, Cost]
    sizes: tuple[int, int]
    """bytes of a number in training and in sampling"""
    cluster: Cluster

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
    def evaluations(self) -> int:
        """How often a run evaluates: before the first step, every eval.every steps, and after the last."""
        return 1 + -(-self.config.steps // self.config.eval.every) if self.config.eval.on else 0

    @property
    def run_s(self) -> tuple[float, float]:
        """Seconds of the whole run with its evaluations, at the mean length and at the limit."""
        costs = zip((self.typical, self.longest), self.evaluation, strict=True)
        steps = self.config.steps
        mean, most = (steps * (c.sampling_s + c.training_s) + self.evaluations * e.sampling_s for c, e in costs)
        return mean, most

    @property
    def fits(self) -> bool:
        """Whether a step can run at all."""
        return self.peak <= self.budget and self.kv_tokens >= self.whole


def make_plan(
    config: Config,
    card: str | None = None,
    gpu_memory: float | None = None,
    length: int | None = None,
    bfloat16: float = 1.0,
    shape: Shape | None = None,
    cluster: Cluster = ALONE,
) -> Plan:
    """The plan for a named card, for this many GiB of a GPU, or (without both) for this machine's CPU, where a
    product in bfloat16 takes `bfloat16` times as long as in float32; for each card of a `cluster` of them. `shape` is
    the model's, where it is known already.

    Raises UserError for an unknown card, a memory, length or cluster that makes no sense, or a model that is not there.
    """
    named = find_card(card) if card is not None else None
    if card is not None and named is None:
        raise UserError(
            f"card '{card}' is not known: take one of {', '.join(CARDS)}, or give its memory by --gpu-memory GB"
        )
    if gpu_memory is not None and not 0 < gpu_memory < 10_000:
        raise UserError(f"--gpu-memory is {gpu_memory:g}: expected the card's memory in GB, for example 40")
    limit = config.sampling.max_new_tokens
    length = length if length is not None else -(-limit // LIKELY_SHARE)
    if not 1 <= length <= limit:
        raise UserError(f"--length is {length}: expected 1 to sampling.max_new_tokens, which is {limit}")
    gpu = card is not None or gpu_memory is not None
    _need_sense(cluster, gpu)
    if not gpu and config.compute.device == "cuda":
        raise UserError("compute.device is cuda: say which GPU, by --card or by --gpu-memory")
    if gpu and config.compute.device == "cpu":
        raise UserError("compute.device is cpu: leave out --card and --gpu-memory, or set compute.device=cuda")
    shape = shape or find_shape(config.model)
    if gpu:
        chosen = named or replace(CARDS["a100"], title="a GPU, as fast as an A100")
        if gpu_memory is not None:
            title = chosen.title if named and named.memory == gpu_memory else f"{chosen.title}, with {gpu_memory:g} GB"
            chosen = replace(chosen, memory=gpu_memory, title=title)
        total = chosen.memory * GIB
        budget = total - reserve(total)
    else:
        total = _ram()
        chosen = cpu_card(config.threads, total / GIB, bfloat16)
        budget = total - BASE_CPU
    return _plan(config, shape, chosen, gpu, total, budget, length, cluster)


def _need_sense(cluster: Cluster, gpu: bool) -> None:
    for name, count in (("--gpus", cluster.gpus), ("--nodes", cluster.nodes)):
        if not 1 <= count <= MOST_CARDS:
            raise UserError(f"{name} is {count}: expected 1 to {MOST_CARDS}")
    if cluster.processes > MOST_CARDS:
        raise UserError(f"--gpus x --nodes is {cluster.processes}: expected at most {MOST_CARDS} cards in all")
    if not 0 < cluster.network < 1e15:
        raise UserError(f"--network is {cluster.network * 8 / 1e9:g}: expected Gbit/s of a node, for example 100")
    if cluster.processes > 1 and not gpu:
        raise UserError(f"--gpus is {cluster.gpus}, --nodes {cluster.nodes}: say which GPU, by --card or --gpu-memory")


def _ram() -> float:
    if not hasattr(os, "sysconf"):
        raise UserError("Windows does not say here how much memory it has: name a GPU, by --card or --gpu-memory")
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _plan(
    config: Config, shape: Shape, card: Card, gpu: bool, total: float, budget: float, length: int, cluster: Cluster
) -> Plan:
    processes = cluster.processes
    micro_batch = config.optimizer.micro_batch_tokens or _largest_micro_batch(config, shape, gpu, budget, processes)
    # A completion is never cut in two, so a micro-batch is at least the longest of them; and at most the whole update.
    grpo, limit = config.grpo, config.sampling.max_new_tokens
    update = grpo.groups * (PROMPT + (grpo.keep_per_group or grpo.group_size) * limit) // grpo.minibatches // processes
    micro_batch = max(min(micro_batch, update), PROMPT + limit)
    parts = count_memory(config, shape, gpu, micro_batch, processes)
    tokens = max(0, int((budget - parts.sampling) // parts.kv_token))
    completions = -(-config.grpo.groups * config.grpo.group_size // processes)
    wanted = config.sampling.max_sequences or (MOST_SLOTS if gpu else CPU_SLOTS)
    room = tokens // (PROMPT + (length if gpu else config.sampling.max_new_tokens))
    rows = max(1, min(wanted, completions, room))
    trained = round(parts.weights / (shape.parameters + shape.adapters(config.lora.rank)))
    sizes = trained, 2 if config.sampling.dtype == "bfloat16" else trained
    lengths = (length, FLAT), (limit, 1.0)
    typical, longest = (
        cost(
            config, shape, work_of(config, PROMPT, tokens_each, flat).part(processes), card, rows, parts.kv_token, sizes
        )
        for tokens_each, flat in lengths
    )
    problems = eval_problems(config)
    share = (config.eval.max_new_tokens or limit) / limit
    works = (evaluation_of(config, problems, PROMPT, share * each).part(processes) for each, _ in lengths)
    typical_eval, longest_eval = (
        cost(config, shape, work, card, min(wanted, room), parts.kv_token, sizes) for work in works
    )
    evaluation = typical_eval, longest_eval
    slots = max(1, min(wanted, room))
    return Plan(config, shape, card, gpu, total, budget, micro_batch, parts, rows, slots, length, typical, longest,
                evaluation, sizes, cluster)  # fmt: skip


def eval_problems(config: Config) -> int:
    """The problems of all of eval.on: as many as are known, or assumed, and at most eval.max_problems of each."""
    found = 0
    for name in map(eval_name, config.eval.on):
        source = DATASETS.get(name)
        listed = len(source.listed()) if isinstance(source, Generated) and source.listed else 0
        size = listed or PROBLEMS.get(name, OWN_PROBLEMS)
        found += min(size, config.eval.max_problems or size)
    return found


def _largest_micro_batch(config: Config, shape: Shape, gpu: bool, budget: float, processes: int = 1) -> int:
    gradients = count_memory(config, shape, gpu, 1).gradients
    tokens = MOST_TOKENS if gpu else cpu_tokens(config.threads, gradients)
    while tokens > 1024 and count_memory(config, shape, gpu, tokens, processes).training > budget:
        tokens //= 2
    return tokens


# What can be switched on: setting -> the values that are tried beside the run's own.
SWITCHES: dict[str, tuple[object, ...]] = {
    "compute.checkpoint_activations": (True,),
    "optimizer.moments": ("float32", "8bit"),
    "optimizer.offload": (False, True),
    "optimizer.shard": (False, True),  # the latter among several processes
    "lora.rank": (64,),
}
EXACT, ROUNDED, ADAPTERS = "the same gradient", "moments rounded to 8 bits", "adapters instead of the whole model"


@dataclass(frozen=True)
class Remedy:
    """Settings that make a run fit, as KEY=VALUE; what they change of the result; and the plan with them."""

    settings: tuple[str, ...]
    kind: str
    plan: Plan


def remedies(plan: Plan) -> list[Remedy]:
    """Of each kind of result the fastest combination that fits, with the fewest settings; exact ones first. Empty if
    the run fits as it is, or nothing does. Every one is accepted by `config.validate`."""
    if plan.fits:
        return []
    best: dict[str, tuple[tuple[float, int], Remedy]] = {}
    for config in _combinations(plan):
        better = _plan(config, plan.shape, plan.card, plan.gpu, plan.total, plan.budget, plan.length, plan.cluster)
        if not better.fits:
            continue
        changes = differences(plan.config, config)
        kind = ADAPTERS if "lora.rank" in changes else EXACT
        if changes.get("optimizer.moments", ("", ""))[1] == "8bit":
            kind = ROUNDED
        settings = tuple(f"{key}={_typed(value)}" for key, (_, value) in changes.items())
        rank = (better.run_s[0], len(settings))
        if kind not in best or rank < best[kind][0]:
            best[kind] = rank, Remedy(settings, kind, better)
    return [best[kind][1] for kind in (EXACT, ROUNDED, ADAPTERS) if kind in best]


def _combinations(plan: Plan) -> list[Config]:
    """The run's config with every accepted combination of switches, with and without the smallest micro-batch."""
    found = []
    switches = dict(SWITCHES)
    if plan.cluster.processes == 1:
        switches["optimizer.shard"] = (False,) * plan.config.optimizer.shard
    values = [(None, *options) for options in switches.values()]
    for micro_batch in (None, plan.whole):
        for chosen in itertools.product(*values):
            changes = {key: value for key, value in zip(switches, chosen, strict=True) if value is not None}
            if micro_batch is not None:
                changes["optimizer.micro_batch_tokens"] = micro_batch
            config = changed(plan.config, changes)
            if config.optimizer.offload and not plan.gpu:
                continue
            try:
                validate(config)
            except UserError:
                continue
            found.append(config)
    return found


def _typed(value: object) -> str:
    """A setting's value as it is typed behind --set."""
    return value if isinstance(value, str) else toml_value(value)

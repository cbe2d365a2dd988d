"""A step on several cards: parts of the work, the wait for the slowest card, and what cards tell each other.

Decides: each card samples an equal part of the completions (simulate.py: lognormal lengths) and trains on an equal
part of the tokens. Beside that, with P processes:

    rollouts    15 bytes a token, from each to all over gloo, through the hosts' memory and the nodes' network; written
                and read at the rates below (measured on one core of an AMD EPYC)
    gradients   an update: 2 (P - 1) / P x 4 bytes a weight and card (all-reduce in float32); with optimizer.shard
                (P - 1) / P x (4 bytes (reduce-scatter) + those of the new weights (all-gather)), at the card's link
                within a node, and between nodes at the network's, in one ring

One card is simulated in the same way, with as much room for completions, whether or not it could hold the model; it
takes longer than cost.py says, which has all rows at work until the end. Rounds of refills come one after the other.
What limits is where most of the time goes that a step takes beyond one card's divided by P. Not counted: grading,
checkpoints, the start.
"""

from dataclasses import dataclass

from r1v0.jobs.plan import FLAT, PROMPT, Plan, eval_problems
from r1v0.jobs.plan.cost import Cluster, cost, decoding_s, work_of
from r1v0.jobs.plan.simulate import StepSeconds, finish_times, lognormal_lengths

ROLLOUT_BYTES = 15  # a token: ids and logprobs in base64, and its text
WRITE_S, READ_S = 0.12e-6, 0.16e-6  # a token's, measured
HOST = 1e9  # bytes/s that gloo brings to each process of a node at the same time, assumed


@dataclass(frozen=True)
class Step:
    """Seconds of a step: sampling, of which prompts take `prefill_s` and cards wait `wait_s` on average; training;
    rollouts told to all; gradients added up. `even_s` would be `sampling_s` if all completions were of the mean length.
    `tokens` are sampled, by all; `evaluation_s` is all of eval.on once."""

    sampling_s: float
    prefill_s: float
    wait_s: float
    even_s: float
    training_s: float
    exchange_s: float
    sum_s: float
    tokens: float
    evaluation_s: float

    @property
    def seconds(self) -> float:
        return self.sampling_s + self.training_s + self.exchange_s + self.sum_s

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def run_s(self, plan: Plan) -> float:
        """Seconds of the whole run with its evaluations."""
        return plan.config.steps * self.seconds + plan.evaluations * self.evaluation_s


def step_on(plan: Plan, cluster: Cluster) -> Step:
    """A step at the plan's mean length on so many cards, each with the room that the plan's have."""
    config, processes = plan.config, cluster.processes
    work = work_of(config, PROMPT, plan.length, FLAT)
    own = work.part(processes)
    even = cost(config, plan.shape, own, plan.card, min(plan.slots, own.completions), plan.memory.kv_token, plan.sizes)
    grpo, limit = config.grpo, config.sampling.max_new_tokens
    completions = [work.completions]
    while grpo.refill and len(completions) <= grpo.max_refills:
        groups = int(grpo.groups * FLAT ** len(completions))
        completions += [groups * grpo.group_size]
    rounds = [_sampled(plan, n, plan.length, limit, cluster, seed) for seed, n in enumerate(completions) if n]
    decoded, waited = (sum(each) for each in zip(*rounds, strict=True))
    answers = eval_problems(config) * config.eval.samples
    at_most = config.eval.max_new_tokens or limit
    their_mean = plan.length * at_most / limit
    evaluation, _ = _sampled(plan, answers, their_mean, at_most, cluster, seed=len(rounds))
    tokens = work.length * sum(completions)
    return Step(
        decoded + even.prefill_s,
        even.prefill_s,
        waited,
        even.sampling_s,
        even.training_s,
        exchange_s(tokens, cluster),
        grpo.minibatches * grpo.epochs * sum(gradient_s(plan, cluster)),
        tokens,
        evaluation + exchange_s(answers * their_mean, cluster),
    )


def _sampled(plan: Plan, completions: int, mean: float, limit: int, cluster: Cluster, seed: int) -> tuple[float, float]:
    """Seconds until the last card is done, and of them those that cards wait on average."""
    if not completions:
        return 0.0, 0.0
    lengths = lognormal_lengths(completions, mean, limit, seed)
    times = finish_times(lengths, cluster.processes, plan.slots, step_seconds(plan), PROMPT)
    return max(times), max(times) - sum(times) / len(times)


def step_seconds(plan: Plan) -> StepSeconds:
    """How long a decoding step of the plan's model is on its card."""

    def seconds(rows: int, cached: float) -> float:
        return decoding_s(plan.shape, plan.card, rows, cached / rows, plan.memory.kv_token, plan.sizes[1])

    return seconds


def exchange_s(tokens: float, cluster: Cluster) -> float:
    """Seconds until every process has all `tokens` of the step's rollouts."""
    if cluster.processes == 1:
        return 0.0
    size = ROLLOUT_BYTES * tokens
    between = cluster.gpus * size * (cluster.nodes - 1) / cluster.nodes / cluster.network
    return tokens * (WRITE_S / cluster.processes + READ_S) + max(size / HOST, between)


def gradient_bytes(plan: Plan, cluster: Cluster) -> tuple[float, float]:
    """Bytes that a card sends in an update: of gradients, and of new weights where the optimizer is sharded."""
    rank = plan.config.lora.rank
    trained = plan.shape.adapters(rank) if rank else plan.shape.parameters
    sent = trained * (cluster.processes - 1) / cluster.processes
    return (4 * sent, plan.sizes[0] * sent) if plan.config.optimizer.shard else (2 * 4 * sent, 0.0)


def gradient_s(plan: Plan, cluster: Cluster) -> tuple[float, float]:
    """Seconds of both."""
    slowest = plan.card.link if cluster.nodes == 1 else min(plan.card.link, cluster.network)
    gradients, weights = gradient_bytes(plan, cluster)
    return gradients / slowest, weights / slowest


def limits(plan: Plan, alone: Step, step: Step) -> str:
    """What keeps the cards of a plan that fits from being as many times as fast as one, in a line."""
    count = plan.cluster.processes
    rows = min(plan.slots, -(-plan.config.grpo.groups * plan.config.grpo.group_size // count))
    tail = step.sampling_s - step.even_s - (alone.sampling_s - alone.even_s) / count
    lost = {
        "the longest completion": tail,
        f"decoding a small batch: {rows} rows a card": step.even_s - alone.even_s / count,
        "telling all the rollouts": step.exchange_s,
        "adding up gradients": step.sum_s,
    }
    most = max(lost, key=lambda name: lost[name])
    return f"{most} ({lost[most]:,.1f} of a step's {step.seconds:,.1f} s)"


def alone_on(plan: Plan) -> Step:
    """The step on one such card."""
    return step_on(plan, Cluster())

"""What training costs: layouts of a batch, flat groups, and the memory of the logprob head. Needs r1v0 alone.

layout  the same 40 sequences (lognormal, mean about 300, at most 2000 tokens) as padded rows in data order, as
sorted bins
        of a token budget, and packed: one model, one attention, one head; only the padding differs. How much there is
        to pad depends on the longest few, so several draws of the lengths are measured
sparse  a training step with 0, 25 and 50 % flat groups, that drops them and that computes them
head    the peak memory of log-probabilities of 1024 tokens over 151,936 words, forward and backward, each way in a
        process of its own
"""

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from r1v0.grpo.batch import pack, split
from r1v0.grpo.logprobs import ChunkedHead, token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.grpo.step import Learner, StepInProgress, train_step
from r1v0.jobs.bench import own
from r1v0.jobs.bench.cases import Record
from r1v0.jobs.bench.timing import Run, current_rss, interleaved
from r1v0.jobs.bench.workload import Work
from r1v0.models.device import peak_rss
from r1v0.types import Batch, Completion, Group, Problem, Prompt, Rollout, Score

BUDGET = 4096
PROMPT = 64
# The draw, of the first thousand, that is nearest to the lengths on which the layouts were first compared and the aim
# was set: 11,582 tokens, 14 padded rows a batch, 3.89 positions a token. Chosen by these, not by its time.
LIKE_THE_FIRST = 733
Weighed = tuple[Rollout, float, float]


def layout(work: Work, rounds: int, record: Record, count: int, longest: int, draws: Sequence[int]) -> None:
    """Seconds of forward and backward in three layouts, and how far their gradients are apart, for each draw of
    lengths."""
    for draw in draws:
        _layout(work, rounds, record, lognormal_rollouts(count, longest, work.policy.model.config.vocab, draw), draw)


def _layout(work: Work, rounds: int, record: Record, sequences: list[Weighed], draw: int) -> None:
    count, real = len(sequences), sum(length(item) for item in sequences)
    rows = max(1, BUDGET * count // real)  # as many rows as the budget holds at their mean length
    layouts = {
        "padded rows": [padded(sequences[i : i + rows]) for i in range(0, count, rows)],
        "sorted bins": [padded(items) for items in sorted_bins(sequences, BUDGET)],
        "packed (r1v0)": list(split(pack(sequences), BUDGET)),
    }
    model, loss_settings = work.policy.model, own.settings(work).grpo

    def gradient(name: str) -> torch.Tensor:
        model.zero_grad()
        for batch in layouts[name]:
            policy_loss(token_logprobs(model, batch, 1.0).logprobs, batch, loss_settings)[0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    def run(name: str) -> int:
        gradient(name)
        return real

    exact = gradient("packed (r1v0)")
    apart = {name: float((gradient(name) - exact).abs().max() / exact.abs().max()) for name in layouts}
    positions = {name: sum(int(batch.token_ids.numel()) for batch in batches) for name, batches in layouts.items()}
    contenders: dict[str, Run] = {name: lambda name=name: run(name) for name in layouts}
    for row in interleaved(
        contenders, rounds, case="layout", setting=f"draw {draw}: {count} sequences, {real:,} tokens"
    ):
        name = row["contender"]
        record({**row, "positions": positions[name], "gradient_error": apart[name]})


def lognormal_rollouts(count: int, longest: int, vocab: int, seed: int = 0) -> list[Weighed]:
    """Made-up completions with prompts of their own; the lognormal lengths are those of both together, and a token's
    weight is that of a token mean."""
    rng = random.Random(seed)
    lengths = [
        max(8, min(longest, round(rng.lognormvariate(math.log(190 * longest / 2000), 0.95))) - PROMPT)
        for _ in range(count)
    ]
    found = []
    for i, n in enumerate(lengths):
        prompt = [rng.randrange(3, vocab) for _ in range(PROMPT)]
        tokens = [rng.randrange(3, vocab) for _ in range(n)]
        found.append((rollout(i, prompt, tokens, vocab), rng.choice((-1.0, 1.0)), 1 / sum(lengths)))
    return found


def rollout(index: int, prompt: list[int], tokens: list[int], vocab: int, reward: float = 1.0) -> Rollout:
    """A completion that a model of even odds would have drawn."""
    problem = Problem(str(index), "", "", "bench")
    completion = Completion(tokens, [-math.log(vocab)] * len(tokens), "length")
    return Rollout(Prompt(problem, "", prompt), completion, "", Score(reward, reward > 0))


def length(item: Weighed) -> int:
    """Tokens of prompt and completion."""
    return len(item[0].prompt.token_ids) + len(item[0].completion.token_ids)


def padded(items: list[Weighed]) -> Batch:
    """Rows filled up to the longest one behind their ends, where causal attention keeps the filling out of all that
    is real. Its advantage is 0, so it adds nothing to the gradient; but the head runs on it, as it does in trainers
    that pad."""
    widest = max(map(length, items))
    filled = []
    for source, advantage, weight in items:
        missing = widest - len(source.prompt.token_ids) - len(source.completion.token_ids)
        completion = source.completion
        longer = Completion(completion.token_ids + [0] * missing, completion.logprobs + [0.0] * missing, "length")
        filled.append((replace(source, completion=longer), advantage, weight))
    batch = pack(filled)
    return replace(batch, advantages=torch.where(batch.token_ids == 0, 0.0, batch.advantages))


def sorted_bins(items: list[Weighed], budget: int) -> list[list[Weighed]]:
    """Longest first, as many in a bin as fit if each is as long as its first."""
    bins: list[list[Weighed]] = []
    for item in sorted(items, key=length, reverse=True):
        if not bins or (len(bins[-1]) + 1) * length(bins[-1][0]) > budget:
            bins.append([])
        bins[-1].append(item)
    return bins


def sparse(work: Work, rounds: int, record: Record) -> None:
    """A training step on made-up groups of the work's lengths."""
    optimizer = own.optimizer_of(work)
    settings = {"sparse (r1v0)": own.settings(work), "dense": own.settings(work, "grpo.sparse=false")}
    for flat in (0.0, 0.25, 0.5):
        groups = made_up_groups(work, flat)
        tokens = own.tokens_of(groups)

        def step(name: str, groups: list[Group] = groups, tokens: int = tokens) -> int:
            train_step(Learner(work.policy.model, optimizer, settings[name]), StepInProgress.of(groups))
            return tokens

        contenders: dict[str, Run] = {name: lambda name=name, step=step: step(name) for name in settings}
        if flat == 0.0:
            step("dense")
        for row in interleaved(contenders, rounds, case="sparse", setting="training step", flat=flat):
            record(row)


def made_up_groups(work: Work, flat: float, seed: int = 0) -> list[Group]:
    """A step's groups with the work's prompts and lengths, and random tokens."""
    rng = random.Random(seed)
    vocab, size = work.policy.model.config.vocab, work.group_size
    groups = []
    for i, (prompt, lengths) in enumerate(zip(work.prompts, work.lengths, strict=True)):
        texts = [[rng.randrange(3, vocab) for _ in range(n)] for n in lengths]
        rewards = [own.reward(i, sample, size, flat) for sample in range(size)]
        rollouts = [rollout(i, prompt.token_ids, text, vocab, r) for text, r in zip(texts, rewards, strict=True)]
        groups.append(Group(rollouts[0].prompt, rollouts))
    return groups


def head(rounds: int, record: Record, rows: int, vocab: int, hidden: int = 896) -> None:
    """Peak memory above the inputs (hidden states and head), in a fresh process for each measurement."""
    for number in range(rounds):
        for name in ("naive", "r1v0"):
            done = subprocess.run(
                [sys.executable, __file__, name, str(rows), str(vocab), str(hidden)],
                capture_output=True, text=True, check=True, timeout=300,
            )  # fmt: skip
            record(
                {
                    "case": "head",
                    "setting": f"{rows:,} x {vocab:,}, bfloat16",
                    "contender": name,
                    "round": number,
                    **json.loads(done.stdout),
                }
            )


def measure_head(name: str, rows: int, vocab: int, hidden: int) -> dict[str, float]:
    """What one child measures: bytes above the inputs at the peak, of which the two gradients, and the sum of the
    head's."""
    torch.manual_seed(0)
    states = torch.randn(rows, hidden, dtype=torch.bfloat16).requires_grad_()
    weight = torch.randn(vocab, hidden, dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    tokens = torch.randint(vocab, (rows,))
    warm = torch.zeros(64, 64).bfloat16()
    F.linear(warm, warm)  # loads the kernels
    # Loading libraries had a peak of its own; memory held up to there lets every later byte show.
    held = torch.ones(max(0, peak_rss() - current_rss()) + (1 << 20), dtype=torch.uint8)
    before = current_rss()
    if name == "naive":
        logprobs = F.linear(states, weight).float().log_softmax(-1).gather(1, tokens[:, None])
        logprobs.sum().backward()
    else:
        ChunkedHead.apply(states, weight, tokens, 1.0)[0].sum().backward()
    peak = peak_rss()
    del held
    assert weight.grad is not None
    return {
        "bytes": peak - before,
        "gradients": 2 * (states.numel() + weight.numel()),
        "checksum": float(weight.grad.float().square().sum()),
    }


if __name__ == "__main__":
    print(json.dumps(measure_head(sys.argv[1], *map(int, sys.argv[2:5]))))

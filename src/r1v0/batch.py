"""Groups become packed batches, one an optimizer update, and those become micro-batches.

Decides: **aggregation is weights**. A token's weight holds the mask and the denominator, computed over the WHOLE
update before anything is dropped or split, so neither packing, order, micro-batches nor the number of processes can
change the gradient. "Sparse" is exact: a rollout with advantage 0 has gradient 0, is dropped before the forward pass,
and still counts in the denominator. (With a KL term every token has a gradient, so nothing is dropped.)
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch

from r1v0.advantages import group_advantages
from r1v0.config import GrpoConfig
from r1v0.rng import key, shuffled
from r1v0.types import Batch, Group, Rollout


def make_updates(groups: Sequence[Group], config: GrpoConfig, max_new_tokens: int, seed_key: int) -> list[Batch]:
    """The optimizer updates that a step makes of its groups: epochs x minibatches packed batches, in order.

    A batch may be empty (T = 0) where nothing in it has a gradient.
    """
    weighed = [pair for i, group in enumerate(groups) for pair in _kept(group, config, key(seed_key, "keep", i))]
    updates = []
    for epoch in range(config.epochs):
        order = shuffled(len(weighed), key(seed_key, "epoch", epoch)) if config.minibatches > 1 else range(len(weighed))
        bounds = [len(weighed) * i // config.minibatches for i in range(config.minibatches + 1)]
        for start, end in pairwise(bounds):
            chosen = [weighed[i] for i in order[start:end]]
            lengths = [len(rollout.completion.token_ids) for rollout, _ in chosen]
            weights = aggregation_weights(lengths, config.aggregation, max_new_tokens)
            dense = not config.sparse or config.kl_coef > 0
            updates.append(pack([(r, a, w) for (r, a), w in zip(chosen, weights, strict=True) if dense or a != 0]))
    return updates


def _kept(group: Group, config: GrpoConfig, seed_key: int) -> list[tuple[Rollout, float]]:
    """A group's rollouts with their advantages; `keep_per_group` of them at random (the original r1-v0 keeps 1 of 4)."""
    advantages = group_advantages([rollout.score.reward for rollout in group.rollouts], config.advantage_scale)
    pairs = list(zip(group.rollouts, advantages, strict=True))
    if config.keep_per_group:
        pairs = [pairs[i] for i in sorted(shuffled(len(pairs), seed_key)[: config.keep_per_group])]
    return pairs


def aggregation_weights(lengths: Sequence[int], aggregation: str, max_new_tokens: int) -> list[float]:
    """The weight of each token of N completions of L_i tokens, [N].

    sequence: 1 / (N L_i)      GRPO, arXiv 2402.03300, eq. 3
    token:    1 / sum_j L_j    DAPO, arXiv 2503.14476, eq. 12
    constant: 1 / (N L_max)    Dr. GRPO, arXiv 2503.20783, sec. 3.2 (its constant is the generation budget)
    """
    count, total = len(lengths), sum(lengths)
    if aggregation == "sequence":
        return [1 / (count * length) for length in lengths]
    if aggregation == "token":
        return [1 / total for _ in lengths]
    assert aggregation == "constant"
    return [1 / (count * max_new_tokens) for _ in lengths]


def pack(weighed: Sequence[tuple[Rollout, float, float]]) -> Batch:
    """(rollout, advantage, token weight) triples end to end, longest first, on the CPU.

    Longest first: what does not fit into memory shows at once, and equal lengths lie side by side (attention.py).
    """
    weighed = sorted(weighed, key=lambda item: -len(item[0].prompt.token_ids) - len(item[0].completion.token_ids))
    tokens: list[int] = []
    positions: list[int] = []
    weights: list[float] = []
    advantages: list[float] = []
    logprobs: list[float] = []
    for rollout, advantage, weight in weighed:
        prompt, completion = rollout.prompt.token_ids, rollout.completion.token_ids
        tokens += prompt + completion
        positions += range(len(prompt) + len(completion))
        weights += [0.0] * len(prompt) + [weight] * len(completion)
        advantages += [0.0] * len(prompt) + [advantage] * len(completion)
        logprobs += [0.0] * len(prompt) + rollout.completion.logprobs
    lengths = [len(rollout.prompt.token_ids) + len(rollout.completion.token_ids) for rollout, _, _ in weighed]
    return Batch(
        token_ids=torch.tensor(tokens, dtype=torch.int64),
        positions=torch.tensor(positions, dtype=torch.int64),
        cu_seqlens=torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int64),
        weights=torch.tensor(weights, dtype=torch.float32),
        advantages=torch.tensor(advantages, dtype=torch.float32),
        sample_logprobs=torch.tensor(logprobs, dtype=torch.float32),
    )


def split(batch: Batch, max_tokens: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Micro-batches of whole sequences with at most `max_tokens` tokens (or one longer sequence), on `device`.

    The weights go along as they are, so the micro-batches' gradients add up to the batch's.
    """
    bounds = batch.cu_seqlens.tolist()
    first = 0
    while first < len(bounds) - 1:
        last = first + 1
        while last < len(bounds) - 1 and bounds[last + 1] - bounds[first] <= max_tokens:
            last += 1
        part = slice(bounds[first], bounds[last])
        yield Batch(
            token_ids=batch.token_ids[part].to(device),
            positions=batch.positions[part].to(device),
            cu_seqlens=(batch.cu_seqlens[first : last + 1] - bounds[first]).to(device),
            weights=batch.weights[part].to(device),
            advantages=batch.advantages[part].to(device),
            sample_logprobs=batch.sample_logprobs[part].to(device),
        )
        first = last

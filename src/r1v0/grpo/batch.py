"""Groups become packed batches, one an optimizer update, and those become micro-batches.

Decides: **aggregation is weights**. A token's weight holds the mask and the denominator, computed over the WHOLE
update before anything is dropped or split, so neither packing, order, micro-batches nor the number of threads can
change the gradient. "Sparse" is exact: a rollout with advantage 0 has gradient 0, is dropped before the forward pass,
and still counts in the denominator. (With a KL term every token has a gradient, so nothing is dropped.) A prompt is
packed once for all of its completions that are in the same micro-batch: the gradient is that of repeated prompts, since
a prompt's hidden states do not depend on what follows, and gradients that reach them add up.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch

from r1v0.base.keys import key, shuffled
from r1v0.config import GrpoConfig
from r1v0.grpo.advantages import group_advantages
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
    """A group's rollouts with their advantages; `keep_per_group` of them at random (the original r1-v0 keeps 1 of
    4)."""
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
    """(rollout, advantage, token weight) triples end to end on the CPU, each prompt before its completions.

    The longest sequence first, then the rest of its group, and so on: what does not fit into memory shows at once.
    """
    families: dict[tuple[int, ...], list[tuple[Rollout, float, float]]] = {}
    for item in weighed:
        families.setdefault(tuple(item[0].prompt.token_ids), []).append(item)
    for family in families.values():
        family.sort(key=lambda item: -len(item[0].completion.token_ids))
    tokens: list[int] = []
    starts: list[int] = []  # positions at which segments begin
    lengths: list[int] = []
    parents: list[int] = []
    weights: list[float] = []
    advantages: list[float] = []
    logprobs: list[float] = []
    longest_first = sorted(families.items(), key=lambda f: -len(f[0]) - len(f[1][0][0].completion.token_ids))
    for prompt, family in longest_first:
        root = len(parents)
        tokens += prompt
        logprobs += [0.0] * len(prompt)
        starts += [0] + [len(prompt)] * len(family)
        lengths.append(len(prompt))
        parents += [-1] + [root] * len(family)
        weights.append(0.0)
        advantages.append(0.0)
        for rollout, advantage, weight in family:
            tokens += rollout.completion.token_ids
            logprobs += rollout.completion.logprobs
            lengths.append(len(rollout.completion.token_ids))
            weights.append(weight)
            advantages.append(advantage)
    sizes = torch.tensor(lengths, dtype=torch.int64)
    cu_seqlens = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int64)
    shift = torch.tensor(starts, dtype=torch.int64) - cu_seqlens[:-1]
    return Batch(
        token_ids=torch.tensor(tokens, dtype=torch.int64),
        positions=torch.arange(len(tokens)) + shift.repeat_interleave(sizes),
        cu_seqlens=cu_seqlens,
        parents=torch.tensor(parents, dtype=torch.int64),
        weights=torch.tensor(weights, dtype=torch.float32).repeat_interleave(sizes),
        advantages=torch.tensor(advantages, dtype=torch.float32).repeat_interleave(sizes),
        sample_logprobs=torch.tensor(logprobs, dtype=torch.float32),
    )


def split(batch: Batch, max_tokens: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Micro-batches of whole completions with at most `max_tokens` tokens (or one longer sequence), on `device`.

    A group stays together where one micro-batch can hold it; else its prompt is repeated in each that has one of its
    completions. The weights go along as they are, so the micro-batches' gradients add up to the batch's.
    """
    bounds = batch.cu_seqlens.tolist()
    lengths = batch.cu_seqlens.diff().tolist()
    parents = batch.parents.tolist()
    chosen: list[int] = []  # segments of the micro-batch
    tokens = 0
    for root, family in _families(parents):
        whole = lengths[root] + sum(lengths[i] for i in family)
        if chosen and tokens + whole > max_tokens >= whole:
            yield _select(batch, chosen, bounds, device)
            chosen, tokens = [], 0
        for i in family:
            needed = lengths[i] + (0 if root in chosen else lengths[root])
            if chosen and tokens + needed > max_tokens:
                yield _select(batch, chosen, bounds, device)
                chosen, tokens, needed = [], 0, lengths[i] + lengths[root]
            chosen += [i] if root in chosen else [root, i]
            tokens += needed
    if chosen:
        yield _select(batch, chosen, bounds, device)


def deal(batch: Batch, shares: int, equal_keys: float) -> list[Batch]:
    """The batch's completions, in order, as `shares` batches of about equal work, of which some may be empty; a prompt
    that two of them need is in both.

    A segment of n tokens after p costs n (1 + (p + n / 2) / equal_keys): `equal_keys` are those that cost a token as
    much in attention as all matrices do.
    """
    bounds = batch.cu_seqlens.tolist()
    work = []
    for start, end in pairwise(bounds):
        first, tokens = int(batch.positions[start]), end - start
        work.append(tokens * (1 + (first + tokens / 2) / equal_keys))
    chosen: list[list[int]] = [[] for _ in range(shares)]
    done, total = 0.0, sum(work)
    for root, family in _families(batch.parents.tolist()):
        done += work[root]
        for i in family:
            share = chosen[int((done + work[i] / 2) / total * shares)]
            share += [i] if root in share else [root, i]
            done += work[i]
    return [_select(batch, segments, bounds, "cpu") if segments else pack([]) for segments in chosen]


def _families(parents: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each prompt's segment with those of its completions, which stand right behind it."""
    roots = [i for i, parent in enumerate(parents) if parent < 0]
    for root, end in pairwise([*roots, len(parents)]):
        yield root, list(range(root + 1, end))


def _select(batch: Batch, segments: Sequence[int], bounds: Sequence[int], device: torch.device | str) -> Batch:
    """The given segments as a batch of their own, in that order; prompts must be among them."""
    place = {segment: i for i, segment in enumerate(segments)}
    rows = torch.cat([torch.arange(bounds[i], bounds[i + 1]) for i in segments])
    lengths = [bounds[i + 1] - bounds[i] for i in segments]
    return Batch(
        token_ids=batch.token_ids[rows].to(device),
        positions=batch.positions[rows].to(device),
        cu_seqlens=torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int64),
        parents=torch.tensor([place.get(parent, -1) for parent in batch.parents[list(segments)].tolist()]),
        weights=batch.weights[rows].to(device),
        advantages=batch.advantages[rows].to(device),
        sample_logprobs=batch.sample_logprobs[rows].to(device),
    )

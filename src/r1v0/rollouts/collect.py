"""Problems become graded groups: sample, and verify while sampling goes on.

Decides: each completion goes to the verifier the moment it ends, so grading hides behind the sampling that is left.
A rollout's random key is a hash of (seed, purpose, problem index, sample index), never of its place in a batch.
"Refill" (DAPO's dynamic sampling, arXiv 2503.14476, sec. 3.2) goes on to further problems until enough groups have a
gradient; "random" rewards are a control: coins of the batch's own mean.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache

from tokenizers import Tokenizer

from r1v0.base.errors import Interrupted
from r1v0.base.keys import key, unit
from r1v0.config import Config, RewardConfig
from r1v0.grpo import parallel
from r1v0.grpo.step import StepInProgress
from r1v0.models.loading import Policy
from r1v0.rollouts.exchange import Part, Spent, packed, unpacked
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.tasks.datasets import Problems, reward_of
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.prompts import make_prompts, make_stops
from r1v0.types import Completion, Group, Prompt, Rollout, Score


def collect(
    policy: Policy,
    problems: Problems,
    config: Config,
    number: int,
    cursor: int,
    verifier: Verifier,
    poll: Callable[[int], None],
) -> StepInProgress:
    """Sample and grade the groups of training step `number`, from the problems at `cursor` on. With refill only
    groups that have a gradient are to be trained on."""
    began = time.perf_counter()
    sampled: list[Group] = []
    useful: list[Group] = []
    rounds: list[Spent] = []
    wanted = config.grpo.groups
    for _ in range(1 + config.grpo.max_refills if config.grpo.refill else 1):
        indices = range(cursor, cursor + wanted - len(useful))
        cursor = indices.stop
        prompts = make_prompts(config.prompt, [problems.at(i) for i in indices], policy)
        keys = [[key(config.seed, "train", i, sample) for sample in range(config.grpo.group_size)] for i in indices]
        settings = sampling_settings(policy, config, config.sampling.temperature, config.sampling.max_new_tokens)
        groups, spent = sample_groups(policy, prompts, keys, settings, verifier, poll)
        if config.reward.control == "random":
            groups = coin_rewards(groups, config.seed, indices)
        sampled += groups
        useful += groups if not config.grpo.refill else [group for group in groups if not group.flat]
        rounds.append(spent)
        if len(useful) == wanted:
            break
    return StepInProgress(
        number,
        sampled,
        useful,
        cursor,
        sum(spent.sample_s for spent in rounds),
        sum(spent.verify_s for spent in rounds),
        sum(spent.wait_s for spent in rounds),
        {name: sum(spent.counted[name] for spent in rounds) for name in rounds[0].counted},
        began=began,
        sound=all_finite(sampled),
    )


def all_finite(groups: Sequence[Group]) -> bool:
    """Whether every sampled logprob is a number."""
    return all(rollout.completion.finite for group in groups for rollout in group.rollouts)


def sample_groups(
    policy: Policy,
    prompts: Sequence[Prompt],
    keys: Sequence[Sequence[int]],
    settings: SamplingSettings,
    verifier: Verifier,
    poll: Callable[[int], None],
) -> tuple[list[Group], Spent]:
    """One group a prompt, with one rollout a key; each process samples and grades its part of them, and has all in the
    end; and what that took."""
    asked = own_part([range(len(row)) for _, row in zip(prompts, keys, strict=True)])

    def phase() -> Part:
        start, before = time.perf_counter(), verifier.counters
        wanted = [[keys[i][sample] for sample in samples] for i, samples in asked]
        drafts = list(submitted(policy, [prompts[i] for i, _ in asked], wanted, settings, verifier, poll, both=False))
        sampled = time.perf_counter()
        scores = verifier.collect()
        done = [
            (asked[row][0], asked[row][1][place], completion, text, scores[job])
            for job, (row, place, completion, text) in enumerate(drafts)
        ]
        end = time.perf_counter()
        return Part(done, sampled - start, end - sampled, verifier.counters.since(before))

    parts = parallel.each(phase, packed, unpacked)
    rollouts = {
        (i, sample): Rollout(prompts[i], completion, text, score)
        for part in parts
        for i, sample, completion, text, score in part.done
    }
    groups = [
        Group(prompt, [rollouts[i, sample] for sample in range(len(keys[i]))]) for i, prompt in enumerate(prompts)
    ]
    return groups, Spent.by(parts)


def own_part(samples: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """(prompt's index, those of its `samples` that this process takes), in order: equal parts of all of them."""
    flat = [(i, sample) for i, row in enumerate(samples) for sample in row]
    found: dict[int, list[int]] = {}
    for n in parallel.part(len(flat)):
        found.setdefault(flat[n][0], []).append(flat[n][1])
    return list(found.items())


def sample_rollouts(
    policy: Policy,
    prompts: Sequence[Prompt],
    keys: Sequence[Sequence[int]],
    settings: SamplingSettings,
    verifier: Verifier,
    poll: Callable[[int], None],
) -> Iterator[tuple[int, int, Rollout]]:
    """Yield (prompt index, sample index, rollout), one for each key, in the order in which their verdicts come: for
    evaluations, which grade under both of `reward.extraction`'s choices.

    Where `poll` raises Interrupted, the rollouts that have ended are yielded first.
    """
    drafts: list[tuple[int, int, Completion, str]] = []

    def graded(scores: Mapping[int, Score]) -> Iterator[tuple[int, int, Rollout]]:
        for job, score in scores.items():
            i, sample, completion, text = drafts[job]
            yield i, sample, Rollout(prompts[i], completion, text, score)

    try:
        for draft in submitted(policy, prompts, keys, settings, verifier, poll, both=True):
            drafts.append(draft)
            yield from graded(verifier.poll())
    except Interrupted:
        yield from graded(verifier.collect())
        raise
    yield from graded(verifier.collect())


def submitted(
    policy: Policy,
    prompts: Sequence[Prompt],
    keys: Sequence[Sequence[int]],
    settings: SamplingSettings,
    verifier: Verifier,
    poll: Callable[[int], None],
    both: bool,
) -> Iterator[tuple[int, int, Completion, str]]:
    """Yield (prompt index, sample index, completion, text) as completions end. The n-th is the verifier's job n."""
    requests = [Request(prompt.token_ids, group_keys) for prompt, group_keys in zip(prompts, keys, strict=True)]
    for job, (i, sample, completion) in enumerate(generate(policy.model, requests, settings, poll)):
        text = policy.decode(completion.token_ids)
        verifier.submit(job, prompts[i].problem, text, completion.finish_reason == "stop", both)
        yield i, sample, completion, text


def coin_rewards(groups: Sequence[Group], seed: int, indices: Sequence[int]) -> list[Group]:
    """The same groups with each reward replaced by a coin whose mean is the batch's mean reward."""
    rewards = [rollout.score.reward for group in groups for rollout in group.rollouts]
    mean = sum(rewards) / len(rewards)

    def toss(score: Score, index: int, sample: int) -> Score:
        return dataclasses.replace(score, reward=float(unit(key(seed, "coin", index, sample)) < mean))

    return [
        Group(
            group.prompt, [dataclasses.replace(r, score=toss(r.score, index, s)) for s, r in enumerate(group.rollouts)]
        )
        for group, index in zip(groups, indices, strict=True)
    ]


def reward_settings(config: Config, dataset: str) -> RewardConfig:
    """The reward section with "auto" replaced by the dataset's own reward."""
    return (
        dataclasses.replace(config.reward, name=reward_of(dataset)) if config.reward.name == "auto" else config.reward
    )


@contextmanager
def verifiers(rewards: Mapping[str, RewardConfig], note: Callable[[str], None]) -> Iterator[dict[str, Verifier]]:
    """A verifier for each dataset by its name; datasets with the same reward share one. `note` gets what went wrong
    in a user's own reward."""
    with ExitStack() as stack:
        made: dict[str, Verifier] = {}
        for settings in rewards.values():
            if settings.name not in made:
                made[settings.name] = stack.enter_context(Verifier(settings, note))
        yield {dataset: made[settings.name] for dataset, settings in rewards.items()}


def sampling_settings(policy: Policy, config: Config, temperature: float, max_new_tokens: int) -> SamplingSettings:
    """The sampler's settings, with the template's stop texts turned into a test on token ids."""
    stop_ids, stop = make_stops(config.prompt, policy)
    return SamplingSettings(
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        slots=config.sampling.max_sequences,
        eos_ids=policy.eos_ids | stop_ids,
        stop_candidates=stop_candidates(policy.tokenizer, stop),
        stops=(lambda token_ids: ends_with_stop(policy, token_ids, stop)) if stop else None,
    )


def past_positions(policy: Policy, prompt: int, new: int) -> str:
    """What is to be said of prompts of up to `prompt` tokens and `new` more: nothing if the model has positions for
    them."""
    most = policy.model.config.max_positions
    if prompt + new <= most:
        return ""
    return (
        f"prompts of up to {prompt} tokens and {new} more go past the {most} positions that the model was trained for "
        "(max_position_embeddings), and what it says there may make no sense"
    )


@cache
def stop_candidates(tokenizer: Tokenizer, stop: tuple[str, ...]) -> frozenset[int]:
    """Tokens that could complete a stop text: those that hold its last character.

    Byte-level vocabularies spell printable ASCII as itself; after any other last character every token is asked about.
    """
    last = {text[-1] for text in stop}
    vocabulary = tokenizer.get_vocab() if last else {}
    if not all("!" <= character <= "~" for character in last):
        return frozenset(vocabulary.values())
    return frozenset(i for token, i in vocabulary.items() if last & set(token))


def ends_with_stop(policy: Policy, token_ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether one of the stop texts was completed by the last token."""
    longest = max(map(len, stop))
    tail = policy.decode(list(token_ids[-longest - 1 :]))
    before = policy.decode(list(token_ids[-longest - 1 : -1]))
    return any(text in tail and text not in before for text in stop)

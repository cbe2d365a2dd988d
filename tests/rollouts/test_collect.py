"""Groups of a step: which problems, which keys, which verdict to which rollout; coins; what ends a completion."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from tokenizers import Tokenizer, models

from r1v0.base.errors import Interrupted
from r1v0.base.keys import key
from r1v0.config import Config, resolve
from r1v0.grpo.step import StepInProgress
from r1v0.models.loading import TINY, Policy, load
from r1v0.rollouts import collect as rollouts
from r1v0.rollouts.collect import (
    coin_rewards,
    collect,
    ends_with_stop,
    past_positions,
    reward_settings,
    sample_groups,
    sample_rollouts,
    sampling_settings,
    stop_candidates,
    verifiers,
)
from r1v0.rollouts.exchange import Spent
from r1v0.sampling.sampler import Request, SamplingSettings
from r1v0.tasks.datasets import Problems
from r1v0.tasks.grading.pool import Counters, Verifier
from r1v0.types import Completion, Group, Problem, Prompt, Rollout, Score
from tests.helpers import group

SETTINGS = SamplingSettings(1.0, 20, 4, frozenset([1]))


@pytest.fixture(scope="module")
def tiny() -> Policy:
    return load(TINY)


def problem(index: int) -> Problem:
    return Problem(f"p{index}", f"{index % 50} 1 target 2", "", "made")


PROBLEMS = Problems("made", 0, 0, problem)


def silent(tokens: int) -> None:
    """Nobody watches."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[list[int]], SamplingSettings]]:
    """Groups are made up, not sampled: those of the problems 0, 1 and 4 are flat. What was asked for is kept."""
    seen: list[tuple[list[str], list[list[int]], SamplingSettings]] = []

    def made_up(
        policy: Policy, prompts: Sequence[Prompt], keys: list[list[int]], settings: SamplingSettings, *_: object
    ) -> tuple[list[Group], Spent]:
        seen.append(([prompt.problem.id for prompt in prompts], keys, settings))
        groups = []
        for prompt in prompts:
            flat = prompt.problem.id in ("p0", "p1", "p4")
            rewards = [1.0] * 2 if flat else [1.0, 0.0]
            parts = [
                Rollout(prompt, Completion([1], [0.0], "stop"), "", Score(reward, reward > 0)) for reward in rewards
            ]
            groups.append(Group(prompt, parts))
        return groups, Spent(1.0, 0.25, 0.0, Counters().since(Counters()))

    monkeypatch.setattr(rollouts, "sample_groups", made_up)
    return seen


class NoVerifier:
    """Counts, and is asked nothing."""

    counters = Counters()


def collected(policy: Policy, cursor: int, *sets: str) -> StepInProgress:
    config = resolve("countdown", sets=["grpo.groups=3", "grpo.group_size=2", *sets])
    return collect(policy, PROBLEMS, config, 1, cursor, cast(Verifier, NoVerifier()), silent)


def ids(groups: Sequence[Group]) -> list[str]:
    return [group.prompt.problem.id for group in groups]


def test_a_step_takes_the_problems_at_its_cursor(tiny: Policy, asked: list[Any]) -> None:
    found = collected(tiny, 4, "seed=5", "sampling.temperature=0.9", "sampling.max_new_tokens=77")
    assert ids(found.groups) == ids(found.sampled) == ["p4", "p5", "p6"]
    assert (found.cursor, found.sample_s, found.verify_s) == (7, 1.0, 0.25)
    ((names, keys, settings),) = asked
    assert names == ["p4", "p5", "p6"]
    assert keys == [[key(5, "train", index, sample) for sample in (0, 1)] for index in (4, 5, 6)]
    assert (settings.temperature, settings.max_new_tokens) == (0.9, 77)


def test_refills_ask_for_as_many_groups_as_are_missing(tiny: Policy, asked: list[Any]) -> None:
    """Of 0, 1, 2 one has a gradient; of 3, 4 one; 5 is the last that is needed."""
    found = collected(tiny, 0, "grpo.variant=dapo", "grpo.max_refills=5")
    assert [names for names, _, _ in asked] == [["p0", "p1", "p2"], ["p3", "p4"], ["p5"]]
    assert ids(found.groups) == ["p2", "p3", "p5"]
    assert ids(found.sampled) == ["p0", "p1", "p2", "p3", "p4", "p5"]
    assert (found.cursor, found.sample_s, found.verify_s) == (6, 3.0, 0.75)


@pytest.mark.parametrize(("most", "rounds", "cursor"), [(0, 1, 3), (1, 2, 5)])
def test_refills_have_an_end(most: int, rounds: int, cursor: int, tiny: Policy, asked: list[Any]) -> None:
    found = collected(tiny, 0, "grpo.variant=dapo", f"grpo.max_refills={most}")
    assert (len(asked), found.cursor) == (rounds, cursor)
    assert ids(found.groups) == ["p2", "p3"][:rounds]


def test_without_refill_flat_groups_stay(tiny: Policy, asked: list[Any]) -> None:
    found = collected(tiny, 0)
    assert ids(found.groups) == ["p0", "p1", "p2"]
    assert len(asked) == 1


def test_coins_take_the_place_of_rewards_alone(tiny: Policy, asked: list[Any]) -> None:
    found = collected(tiny, 0, "reward.control=random")
    assert all(rollout.score.reward in (0.0, 1.0) for group in found.sampled for rollout in group.rollouts)
    right = [rollout.score.correct for group in found.sampled for rollout in group.rollouts]
    assert right == [True, True, True, True, True, False]  # what accuracy counts is not touched
    many = [
        rollout
        for group in collected(tiny, 0, "reward.control=random", "grpo.groups=40").sampled
        for rollout in group.rollouts
    ]
    assert any(rollout.score.reward != rollout.score.correct for rollout in many)
    plain = [rollout for group in collected(tiny, 0, "grpo.groups=40").sampled for rollout in group.rollouts]
    assert all(rollout.score.reward == rollout.score.correct for rollout in plain)


def tossed(rewards: Sequence[Sequence[float]], indices: Sequence[int], seed: int = 0) -> list[list[float]]:
    made = [group([2], [[3]] * len(row), list(row)) for row in rewards]
    return [[rollout.score.reward for rollout in group.rollouts] for group in coin_rewards(made, seed, indices)]


def test_coins_have_the_mean_of_the_batch() -> None:
    assert tossed([[1.0, 1.0], [1.0, 1.0]], [0, 1]) == [[1.0, 1.0], [1.0, 1.0]]
    assert tossed([[0.0, 0.0], [0.0, 0.0]], [0, 1]) == [[0.0, 0.0], [0.0, 0.0]]
    many = tossed([[1.0, 0.0, 0.0, 0.0]] * 1000, range(1000))
    heads = sum(map(sum, many))
    assert abs(heads - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5  # four standard deviations of a binomial
    one, other = tossed([[0.5] * 4] * 3, [7, 8, 9]), tossed([[0.5] * 4] * 3, [8, 9, 10])
    assert one[1:] == other[:2]  # a coin belongs to its problem's index and its sample
    assert tossed([[0.5] * 40], [7]) != tossed([[0.5] * 40], [7], seed=1)
    with pytest.raises(ValueError, match="shorter"):
        tossed([[1.0], [0.0]], [7])


class Grader:
    """Gives a rollout the reward that its text says. Verdicts come `behind` completions late, the newest first."""

    counters = Counters()

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.waiting: dict[int, Score] = {}
        self.asked: list[tuple[int, str, bool, bool]] = []

    def submit(self, job: int, problem: Problem, text: str, finished: bool, both: bool = False) -> None:
        self.asked.append((job, problem.id, finished, both))
        self.waiting[job] = Score(float(text), True)

    def poll(self) -> dict[int, Score]:
        done = sorted(self.waiting)[: -self.behind or None]
        return {job: self.waiting.pop(job) for job in reversed(done)}

    def collect(self) -> dict[int, Score]:
        done, self.waiting = self.waiting, {}
        return dict(reversed(done.items()))


ENDS = [(1, 0, 5), (0, 1, 3), (1, 1, 6), (0, 0, 2), (1, 2, 7)]
"""(prompt, sample, token) in the order in which completions end; an odd token is an end"""
PROMPTS = [Prompt(problem(i), "", [2, 3]) for i in range(2)]
KEYS = [[10, 11], [20, 21, 22]]


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Policy:
    """Says each token's number. Completions end as ENDS says."""

    def generate(
        model: object, requests: Sequence[Request], settings: SamplingSettings, poll: Callable[[int], None]
    ) -> Iterator[tuple[int, int, Completion]]:
        assert [(list(request.token_ids), list(request.keys)) for request in requests] == [
            ([2, 3], KEYS[0]),
            ([2, 3], KEYS[1]),
        ]
        for i, sample, token in ENDS:
            yield i, sample, Completion([token], [-0.5], "stop" if token % 2 else "length")
            poll(1)

    monkeypatch.setattr(rollouts, "generate", generate)

    class Speaker:
        model = None

        def decode(self, token_ids: list[int]) -> str:
            return str(token_ids[0])

    return cast(Policy, Speaker())


def test_groups_are_in_the_order_of_prompts_and_keys(speaker: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    grader, clock = Grader(2), iter([10.0, 13.0, 14.5])  # at the start, when sampling ends, when grading has ended
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    groups, (sample_s, verify_s, wait_s, counted) = sample_groups(
        speaker, PROMPTS, KEYS, SETTINGS, cast(Verifier, grader), silent
    )
    assert [[r.score.reward for r in group.rollouts] for group in groups] == [[2.0, 3.0], [5.0, 6.0, 7.0]]
    assert [[r.text for r in group.rollouts] for group in groups] == [["2", "3"], ["5", "6", "7"]]
    assert [group.prompt for group in groups] == PROMPTS
    assert all(rollout.prompt is group.prompt for group in groups for rollout in group.rollouts)
    assert grader.asked == [(n, f"p{i}", token % 2 == 1, False) for n, (i, _, token) in enumerate(ENDS)]
    assert (sample_s, verify_s, wait_s, set(counted.values())) == (3.0, 1.5, 0.0, {0})


def test_each_prompt_has_its_keys(speaker: Policy) -> None:
    with pytest.raises(ValueError, match="longer"):
        sample_groups(speaker, PROMPTS, [*KEYS, [30]], SETTINGS, cast(Verifier, Grader(0)), silent)


@pytest.mark.parametrize("behind", [0, 1, 3, 5])
def test_rollouts_are_given_as_their_verdicts_come(behind: int, speaker: Policy) -> None:
    grader = Grader(behind)
    found = list(sample_rollouts(speaker, PROMPTS, KEYS, SETTINGS, cast(Verifier, grader), silent))
    assert sorted((i, s, r.score.reward, r.prompt) for i, s, r in found) == sorted(
        (i, s, float(token), PROMPTS[i]) for i, s, token in ENDS
    )
    assert [both for *_, both in grader.asked] == [True] * 5


@pytest.mark.parametrize("behind", [0, 2, 5])
def test_an_interruption_gives_what_has_ended_first(behind: int, speaker: Policy) -> None:
    polled = 0

    def poll(new: int) -> None:
        nonlocal polled
        polled += new
        if polled == 3:
            raise Interrupted

    found: list[tuple[int, int, int]] = []

    def watch() -> None:
        for i, sample, one in sample_rollouts(speaker, PROMPTS, KEYS, SETTINGS, cast(Verifier, Grader(behind)), poll):
            found.append((i, sample, int(one.score.reward)))

    with pytest.raises(Interrupted):
        watch()
    assert sorted(found) == sorted(ENDS[:3])


def test_the_datasets_reward_is_chosen_only_where_none_is_named() -> None:
    auto, named = resolve(), resolve(sets=["reward.name=math"])
    assert auto.reward.name == "auto"
    assert [reward_settings(auto, name).name for name in ("countdown", "math500")] == ["countdown", "math"]
    assert reward_settings(named, "countdown").name == "math"


def test_datasets_of_one_reward_share_a_verifier() -> None:
    config: Config = resolve("countdown", sets=["reward.name=auto"])
    rewards = {name: reward_settings(config, name) for name in ("countdown", "countdown-hard", "sums")}
    with verifiers(rewards, lambda text: None) as found:
        assert found["countdown"] is found["countdown-hard"]
        assert found["countdown"] is not found["sums"]


def test_positions_up_to_the_models_last_are_no_warning(tiny: Policy) -> None:
    most = tiny.model.config.max_positions
    assert past_positions(tiny, most - 100, 100) == ""
    assert past_positions(tiny, 1, 1) == ""
    assert past_positions(tiny, most - 99, 100).startswith(f"prompts of up to {most - 99} tokens and 100 more go past")
    assert f"the {most} positions" in past_positions(tiny, most, 1)


def words(vocabulary: Mapping[str, int]) -> Tokenizer:
    return Tokenizer(models.WordLevel(dict(vocabulary), unk_token="a"))


def test_candidates_hold_the_last_character_of_a_stop_text() -> None:
    some = words({"a": 0, "b>": 1, ">c": 2, "~!": 3, "Ċ": 4})
    assert stop_candidates(some, ()) == frozenset()
    assert stop_candidates(some, ("</a>",)) == {1, 2}
    assert stop_candidates(some, ("</a>", "?!")) == {1, 2, 3}
    assert stop_candidates(some, ("~",)) == {3}
    assert stop_candidates(some, ("a\n",)) == {0, 1, 2, 3, 4}  # a newline is spelled otherwise
    assert stop_candidates(some, ("é", "b")) == {0, 1, 2, 3, 4}


class Letters:
    """A token is a letter; three of them, 7 and over, are worth two each."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join("abcdefg"[i] if i < 7 else ("ab", "bc", "aba")[i - 7] for i in token_ids)


def test_a_stop_text_counts_where_the_last_token_completes_it() -> None:
    speaker = cast(Policy, Letters())

    def stops(*token_ids: int, stop: Sequence[str] = ("abc", "ef")) -> bool:
        return ends_with_stop(speaker, token_ids, stop)

    assert stops(0, 1, 2)
    assert stops(3, 3, 3, 4, 5)
    assert not stops(0, 1, 2, 3)  # it was complete before
    assert not stops(0, 1, 3)
    assert stops(0, 8)  # by half of a token
    assert stops(7, 2)
    assert stops(0, stop=("a",))
    assert not stops(0, 0, stop=("a",))  # not even the second of two
    assert stops(1, 0, 1, 2, stop=("babc",))  # four tokens for four letters
    assert not stops(0, 1, 2, 3, 3)
    assert stops(0, 1, 0, 1, 0, stop=("aba",))  # a new one, over the end of another


def test_a_decoder_that_trims_what_it_begins_with_loses_no_stop_text() -> None:
    """SentencePiece's does: the space of a first token is gone."""

    class Trimming:
        def decode(self, token_ids: list[int]) -> str:
            return "".join(" ab"[i] for i in token_ids).lstrip()

    assert ends_with_stop(cast(Policy, Trimming()), [1, 0, 1, 2], [" ab"])


def test_stop_texts_and_the_end_token_end_a_completion(tiny: Policy) -> None:
    plain = sampling_settings(tiny, resolve("countdown", sets=["sampling.max_sequences=9"]), 0.5, 33)
    assert (plain.temperature, plain.max_new_tokens, plain.slots) == (0.5, 33, 9)
    assert plain.eos_ids == {1}
    assert (plain.stops, plain.stop_candidates) == (None, frozenset())
    ended = sampling_settings(tiny, resolve("countdown", sets=['prompt.stop=["wait check"]']), 0.5, 33)
    assert ended.stops is not None
    vocabulary = tiny.tokenizer.get_vocab()
    assert ended.stops([vocabulary["so"], vocabulary["wait"], vocabulary["check"]])
    assert not ended.stops([vocabulary["check"], vocabulary["wait"]])
    assert vocabulary["check"] in ended.stop_candidates

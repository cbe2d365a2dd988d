"""Properties that hold for whatever comes: packing, weights, splits, scheduling, answers, logs, random numbers.

Examples are few and the same ones each time; benchmarks/fuzz.py is where numbers are large. That a config reads back
equal is in tests/config/test_config.py, that a planted box is found in tests/tasks/test_rewards_extract.py.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1v0.base import keys
from r1v0.config import GrpoConfig
from r1v0.grpo.batch import aggregation_weights, make_updates, pack, split
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.runs import records, runlog
from r1v0.sampling.draw import uniform
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.tasks.math import answers, latex
from r1v0.tasks.problems import Problems, subset
from r1v0.types import Batch, Completion, Group, Problem, Rollout, Score
from tests.helpers import EOS, VOCAB, group, small_model

pytestmark = pytest.mark.numeric

few = settings(max_examples=25, derandomize=True, deadline=None)
TOKEN = st.integers(2, VOCAB - 1)
PROMPT = st.lists(st.integers(2, 4), min_size=1, max_size=4)  # few words, so that two groups may share a prompt
COMPLETION = st.lists(TOKEN, min_size=1, max_size=9)


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        tokens = draw(st.lists(COMPLETION, min_size=2, max_size=4))
        made.append(group(draw(PROMPT), tokens, [float(draw(st.booleans())) for _ in tokens]))
    return made


Triple = tuple[Rollout, float, float]


@st.composite
def triples(draw: st.DrawFn) -> list[Triple]:
    """(rollout, advantage, weight), the weights never 0."""
    rollouts = [rollout for found in draw(groups()) for rollout in found.rollouts]
    order = draw(st.permutations(range(len(rollouts))))
    return [(rollouts[i], (i % 5 - 2) / 2, (i % 3 + 1) / 64) for i in order]


Sequence_ = tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]


def held(batch: Batch) -> Counter[Sequence_]:
    """The sequences in a batch, read back by its own account of itself: (prompt, completion, weights, ...)."""
    bounds = list(pairwise(batch.cu_seqlens.tolist()))
    found: Counter[Sequence_] = Counter()
    for i, parent in enumerate(batch.parents.tolist()):
        part = slice(*bounds[i])
        length = part.stop - part.start
        if parent < 0:
            assert batch.positions[part].tolist() == list(range(length))
            assert not batch.weights[part].any()
            continue
        prompt = batch.token_ids[slice(*bounds[parent])].tolist()
        assert batch.positions[part].tolist() == list(range(len(prompt), len(prompt) + length))
        columns = (batch.weights, batch.advantages, batch.sample_logprobs)
        numbers = [tuple(column[part].tolist()) for column in columns]
        found[(tuple(prompt), tuple(batch.token_ids[part].tolist()), numbers[0], numbers[1], numbers[2])] += 1
    return found


def wanted(given_: Sequence[Triple]) -> Counter[Sequence_]:
    def f32(value: float) -> float:
        return float(torch.tensor(value))

    return Counter(
        (
            tuple(rollout.prompt.token_ids),
            tuple(rollout.completion.token_ids),
            (f32(weight),) * len(rollout.completion.token_ids),
            (f32(advantage),) * len(rollout.completion.token_ids),
            tuple(map(f32, rollout.completion.logprobs)),
        )
        for rollout, advantage, weight in given_
    )


# Packing, splits, weights


@few
@given(triples(), st.integers(1, 40))
def test_packing_and_splitting_lose_nothing_and_hold_the_budget(given_: list[Triple], budget: int) -> None:
    batch = pack(given_)
    assert held(batch) == wanted(given_)
    parts = list(split(batch, budget))
    assert sum((held(part) for part in parts), Counter()) == wanted(given_)
    for part in parts:
        assert len(part.token_ids) <= budget or int((part.parents >= 0).sum()) == 1  # or one sequence that is longer
    assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(float(batch.weights.sum()), rel=1e-6)


def gradient(batches: Sequence[Batch]) -> torch.Tensor:
    model = small_model(scale=2.0)
    for batch in batches:
        loss, _ = policy_loss(token_logprobs(model, batch, 1.0).logprobs, batch, GrpoConfig())
        loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@settings(few, max_examples=12)
@given(triples(), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_gradient_knows_nothing_of_packing_order_or_splits(given_: list[Triple], budget: int, random: Any) -> None:
    alone = gradient([pack([one]) for one in given_])
    mixed = list(given_)
    random.shuffle(mixed)
    together = gradient(list(split(pack(mixed), budget)))
    assert (alone - together).abs().max() <= 1e-5 * max(1.0, float(alone.abs().max()))


@few
@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(500, 1000))
def test_weights_of_an_update_add_up_to_one(lengths: list[int], limit: int) -> None:
    def total(aggregation: str) -> float:
        weights = aggregation_weights(lengths, aggregation, limit)
        assert weights[::-1] == aggregation_weights(lengths[::-1], aggregation, limit)  # order says nothing
        return math.fsum(length * weight for length, weight in zip(lengths, weights, strict=True))

    assert total("token") == pytest.approx(1)
    assert total("sequence") == pytest.approx(1)
    assert total("constant") == pytest.approx(sum(lengths) / (len(lengths) * limit))


@few
@given(groups(), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["token", "sequence"]), st.integers(0, 99))
def test_updates_hold_each_rollout_once_an_epoch(
    given_: list[Group], minibatches: int, epochs: int, aggregation: Any, seed: int
) -> None:
    config = GrpoConfig(aggregation=aggregation, minibatches=minibatches, epochs=epochs, sparse=False)
    dense = make_updates(given_, config, 16, seed)
    assert len(dense) == minibatches * epochs
    rollouts = [rollout for found in given_ for rollout in found.rollouts]
    everything = Counter((tuple(r.prompt.token_ids), tuple(r.completion.token_ids)) for r in rollouts)
    for epoch in range(epochs):
        updates = dense[epoch * minibatches : (epoch + 1) * minibatches]
        assert Counter(place[:2] for update in updates for place in held(update).elements()) == everything
    assert all(float(update.weights.sum()) == pytest.approx(1, rel=1e-5) for update in dense if len(update.token_ids))
    sparse = make_updates(given_, GrpoConfig(aggregation=aggregation, minibatches=minibatches, epochs=epochs), 16, seed)
    for full, few_ in zip(dense, sparse, strict=True):
        assert held(few_) == Counter({place: n for place, n in held(full).items() if any(place[3])})


# The sampler


@st.composite
def asked(draw: st.DrawFn) -> list[Request]:
    prompts = draw(st.lists(st.lists(TOKEN, min_size=1, max_size=7), min_size=1, max_size=5))
    return [
        Request(prompt, [keys.key(0, "property", i, s) for s in range(draw(st.integers(0, 4)))])
        for i, prompt in enumerate(prompts)
    ]


@settings(few, max_examples=20)
@given(asked(), st.integers(1, 9), st.integers(1, 12), st.frozensets(st.integers(0, VOCAB - 1), max_size=12))
def test_every_completion_is_delivered_once_and_is_the_one_drawn_alone(
    requests: list[Request], slots: int, limit: int, eos: frozenset[int]
) -> None:
    model, chosen = small_model(scale=4.0), SamplingSettings(1.0, limit, slots, eos)
    delivered: dict[tuple[int, int], Completion] = {}
    counted: list[int] = []
    for i, sample, completion in generate(model, requests, chosen, poll=counted.append):
        assert (i, sample) not in delivered
        delivered[i, sample] = completion
    assert delivered.keys() == {(i, s) for i, request in enumerate(requests) for s in range(len(request.keys))}
    assert sum(counted) == sum(len(completion.token_ids) for completion in delivered.values())
    for (i, sample), completion in delivered.items():
        tokens = completion.token_ids
        assert not eos & set(tokens[:-1])
        assert completion.finish_reason == ("stop" if tokens[-1] in eos else "length")
        assert len(tokens) == limit or tokens[-1] in eos
        alone = Request(requests[i].token_ids, [requests[i].keys[sample]])
        ((_, _, expected),) = generate(model, [alone], SamplingSettings(1.0, limit, 1, eos))
        assert expected.token_ids == tokens
        assert expected.logprobs == pytest.approx(completion.logprobs, abs=1e-5)


@few
@given(st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 20)), min_size=1, max_size=20))
def test_a_draw_depends_on_its_key_and_counter_only(places: list[tuple[int, int]]) -> None:
    keys, counters = (torch.tensor(column) for column in zip(*places, strict=True))
    drawn = uniform(keys, counters)
    assert bool(((drawn >= 0) & (drawn < 1)).all())
    assert drawn.tolist() == [float(uniform(k[None], c[None])) for k, c in zip(keys, counters, strict=True)]


# Answers

PIECES = st.lists(
    st.sampled_from(["x", "2", "14", "+", "\\frac{1}{3}", "\\sqrt{5}", "(", ")", "\\pi", "=", "a_1"]), min_size=1
)
DRAWN_ALIKE = st.sampled_from(["", " ", "\\,", "\\!", "\\;", "~", "\n"])


@few
@given(
    PIECES, st.lists(DRAWN_ALIKE, min_size=1, max_size=8), st.sampled_from(["{}", "${}$", "\\({}\\)", "{}.", " {} "])
)
def test_strict_match_sees_what_latex_draws(pieces: list[str], spaces: list[str], around: str) -> None:
    plain = "".join(pieces)
    spaced = "".join(piece + spaces[i % len(spaces)] for i, piece in enumerate(pieces))
    written = around.replace("{}", spaced.replace("\\frac", "\\dfrac").replace("(", "\\left(").replace(")", "\\right)"))
    assert latex.strict_form(written) == latex.strict_form(plain)
    score = answers.math_quick(Problem("p", "", plain, "math"), f"so \\boxed{{{written}}} it is", True)
    assert isinstance(score, Score)
    assert (score.correct, score.strict) == (True, True)


@few
@given(st.integers(-(10**17), 10**17), st.integers(-(10**17), 10**17))
def test_integers_are_equal_only_to_themselves(gold: int, answer: int) -> None:
    for left, right in ((gold, answer), (gold, gold), (gold, -gold), (gold, gold + 1)):
        problem = Problem("p", "", str(left), "math")
        score = answers.math_quick(problem, f"\\boxed{{{right}}}", True)
        assert isinstance(score, Score)
        assert score.correct == (left == right)
        assert answers.gsm8k(problem, f"so\n#### {right:,}", True).correct == (left == right)


# Logs

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=8), VALUE, max_size=4), min_size=1, max_size=5)


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    return [finite(entry) for entry in value] if isinstance(value, list) else value


@few
@given(ROWS, st.integers(0, 1 << 30), st.integers(0, 6))
def test_rows_come_back_also_when_torn_and_are_cut_by_step(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], tear: int, last: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    log = runlog.RunLog(folder)
    rows = [{**row, "step": step} for step, row in enumerate(rows, 1)]
    for row in rows:
        log.append_metrics(row)
    expected = [finite(row) for row in rows]
    path = folder / runlog.METRICS
    assert records.read_metrics(folder) == expected
    data = path.read_bytes()
    path.write_bytes(data[: tear % (len(data) + 1)])
    whole = data[: tear % (len(data) + 1)].count(b"\n")
    if path.stat().st_size:
        assert records.read_metrics(folder) in (
            expected[:whole],
            expected[: whole + 1],
        )  # the line break alone may be missing
    path.write_bytes(data)
    log.truncate_after(last)
    assert records.read_metrics(folder) == expected[:last]


# Random numbers and the order of data


@few
@given(st.integers(0, 200), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 250))
def test_a_shuffle_is_a_permutation_and_a_subset_is_part_of_it(count: int, seed: int, size: int) -> None:
    order = keys.shuffled(count, seed)
    assert sorted(order) == list(range(count))
    assert order == keys.shuffled(count, seed)
    kept = subset(count, size, seed)
    assert kept == sorted(set(kept))
    assert len(kept) == (min(size, count) if size else count)
    assert 0 <= keys.unit(seed) < 1


@few
@given(st.integers(1, 50), st.integers(0, 99), st.integers(0, 3))
def test_each_epoch_has_every_problem_once(size: int, seed: int, epoch: int) -> None:
    problems = Problems("p", size, seed, lambda place: Problem(str(place), "", "", "p"))
    seen = [problem.id for problem in problems.draw(epoch * size, size)]
    assert sorted(seen, key=int) == [str(place) for place in range(size)]
    assert [problems.at(epoch * size + i).id for i in range(size)] == seen


def test_these_checks_can_fail() -> None:
    found = group([2, 3], [[5, EOS], [6, 7, EOS]], [1.0, 0.0])
    given_ = [(rollout, 1.0, 0.5) for rollout in found.rollouts]
    assert held(pack(given_)) != wanted(given_[:1])
    assert (gradient([pack(given_)]) - gradient([pack(given_[:1])])).abs().max() > 1e-3

"""Sums in words."""

import re
from collections import Counter

import pytest

from r1v0.tasks import sums


def numbers_in(question: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, re.findall(r"\d+", question))))


@pytest.mark.parametrize("level", sums.LEVELS)
def test_the_answer_is_the_sum_and_the_numbers_are_of_the_level(level: int) -> None:
    count, low, high = sums.LEVELS[level]
    held_out = sums.problems("sums", level)
    training = [sums.train_problem(0, index, (level,)) for index in range(300)]
    for problem in held_out + training:
        numbers = numbers_in(problem.question)
        assert int(problem.answer) == sum(numbers)
        assert len(numbers) == count
        assert low <= numbers[0]
        assert numbers[-1] <= high


def test_no_numbers_are_both_trained_and_held_out() -> None:
    held_out = {numbers_in(problem.question) for level in sums.LEVELS for problem in sums.problems("sums", level)}
    trained = {numbers_in(sums.train_problem(seed, index).question) for seed in range(2) for index in range(4000)}
    assert not held_out & trained
    assert len(trained) > 1500


def test_held_out_share_is_about_a_fifth() -> None:
    """Level 2 has 1225 pairs: 245 expected, 5 standard deviations are 70."""
    held_out, trained = sums.operands(2, held_out=True), sums.operands(2, held_out=False)
    assert len(held_out) + len(trained) == 49 * 50 // 2
    assert 175 < len(held_out) < 315


def test_the_first_evaluation_problems_have_different_numbers() -> None:
    problems = sums.problems("sums", 2)
    sets = len(sums.operands(2, held_out=True))
    assert len({numbers_in(problem.question) for problem in problems[:sets]}) == sets
    assert len(problems) == sets * len(sums.PHRASINGS) == len({problem.question for problem in problems})
    assert len({problem.id for problem in problems}) == len(problems)


def test_training_is_a_pure_function_that_uses_everything() -> None:
    drawn = [sums.train_problem(3, index, (1, 3)) for index in range(600)]
    assert drawn[::-1] == [sums.train_problem(3, index, (1, 3)) for index in reversed(range(600))]
    assert drawn != [sums.train_problem(4, index, (1, 3)) for index in range(600)]
    lengths = Counter(len(numbers_in(problem.question)) for problem in drawn)
    assert 200 < lengths[2] < 400
    assert lengths[2] + lengths[3] == 600
    phrasings = Counter(re.sub(r"\d+(, \d+)* and \d+", "{}", problem.question) for problem in drawn)
    assert set(phrasings) == set(sums.PHRASINGS)


def test_numbers_are_listed_as_in_speech() -> None:
    two, three = sums.train_problem(0, 0, (2,)).question, sums.train_problem(0, 0, (3,)).question
    assert re.search(r"\d+ and \d+", two)
    assert re.search(r"\d+, \d+ and \d+", three)

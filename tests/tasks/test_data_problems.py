"""Normalising, order and subsets; the rest of problems.py is tested through test_data.py."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1v0.tasks.problems import Problems, _digits, normal, subset
from r1v0.types import Problem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find  $x$.\n", "find x."),
        (r"value of $\dfrac{1}{2}$", r"value of $\frac{1}{2}$"),
        (r"\left( 1,\, 2 \right)", "(1,2)"),
        (r"Compute \[x\] now", "Compute $x$ now"),
        ("a \\\\\nb", "a\\\\ b"),
        (r"\(x~y\)", "xy"),
        ("f(x)=|x-p|,$ where", "f(x)=|x-p|$, where"),
        (r"\bigl[0\bigr]", "[0]"),
    ],
)
def test_equal_but_for_typography(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find 2+3", "Find 2-3"),
        ("x is 12", "x is 21"),
        (r"\leftarrow", "arrow"),
        (r"\rightarrow x", "arrow x"),
        (r"\quadrant", "rant"),
        ("(1,2)", "12"),
        (r"\fraction", r"\dfraction"),
    ],
)
def test_different_problems_stay_different(one: str, other: str) -> None:
    assert normal(one) != normal(other)


@given(st.text(alphabet="ab1290 \\$~{}[](),.;:\n-+frcleftquaddisplay", max_size=60))
def test_normalising_keeps_the_digits_and_is_done_once(question: str) -> None:
    """The scan tries `normal` only where the digits are those of an evaluation problem."""
    assert _digits(normal(question)) == _digits(question)


def numbered(size: int, seed: int = 0, name: str = "x") -> Problems:
    return Problems(name, size, seed, lambda row: Problem(str(row), "", "", name))


def ids(problems: Problems, start: int, count: int) -> list[int]:
    return [int(problem.id) for problem in problems.draw(start, count)]


def test_each_epoch_has_every_problem_once_in_its_own_order() -> None:
    problems = numbered(50)
    epochs = [ids(problems, 50 * epoch, 50) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != list(range(50))


def test_problem_number_index_is_the_same_whenever_it_is_asked_for() -> None:
    forwards = ids(numbered(7), 0, 40)
    backwards = [ids(numbered(7), index, 1)[0] for index in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert ids(numbered(7), 13, 20) == forwards[13:33]


def test_order_depends_on_seed() -> None:
    assert ids(numbered(50, seed=1), 0, 50) != ids(numbered(50, seed=2), 0, 50)


def test_first_place_is_uniform() -> None:
    """600 seeds over 6 problems: 100 each; 5 standard deviations are 46."""
    firsts = Counter(ids(numbered(6, seed), 0, 1)[0] for seed in range(600))
    assert all(54 <= firsts[row] <= 146 for row in range(6))


def test_endless_problems_are_not_wrapped() -> None:
    assert ids(numbered(0), 10**9, 2) == [10**9, 10**9 + 1]


def test_subset() -> None:
    assert subset(5, 0, 1) == subset(5, 9, 1) == [0, 1, 2, 3, 4]
    picked = subset(100, 10, 1)
    assert picked == sorted(set(picked)) == subset(100, 10, 1)
    assert len(picked) == 10
    assert subset(100, 10, 2) != picked
    assert set(picked) <= set(subset(100, 20, 1))

"""Answers that go on (1, 2, 3, ...), and percentages without a backslash. Judged by hand."""

import pytest

from r1v0.tasks.math.answers import math
from r1v0.tasks.math.latex import clean, strict_form
from r1v0.types import Problem

EQUAL = [
    ("1, 2, 3, ...", "1,2,3,..."),
    (r"1, 2, 3, \ldots", "1, 2, 3, ..."),
    (r"1, 2, 3, \ldots", "1, 2, 3, …"),
    (r"1, 2, 3, \dots", r"1, 2, 3, \cdots"),
    ("1, 2, 3, ...", r"1, 2, 3, \dotsc"),
    ("1, 2, 3, ...", "1, 2, 3, . . ."),
    (r"\frac12, \frac14, ...", r"1/2, 0.25, \ldots"),
    ("1, 3, ..., 99", r"1, 3, \cdots, 99"),
    ("..., -1, 0, 1, ...", r"\ldots, -1, 0, 1, \ldots"),
    (r"\{1, 2, \ldots\}", "1, 2, ..."),
    ("0.333...", r"0.333\ldots"),
    (r"\sqrt2", "1.41421356..."),  # a decimal of many digits is that decimal, as it was
    (r"\text{red, green, ...}", r"red, green, \ldots"),
    (r"\text{no solution}", "no solution..."),
    (r"\text{no solution}", "no solution…"),
    ("5", "5."),
    ("5", "5.."),
    # an unescaped %
    (r"4 4/9\%", "4 4/9%"),
    ("40/9", "4 4/9%"),
    ("40/900", "4 4/9%"),
    ("40/900", "4 4/9 %"),
    ("5/2", "5/2%"),
    ("0.025", "5/2%"),
    ("5", "5%"),
    ("0.05", "5 %"),
    ("5%", r"5\%"),
]

UNEQUAL = [
    ("1, 2, 3", "1, 2, 3, ..."),
    ("1, 2, 3", "1, 2, 3, …"),
    ("1, 2, 3", r"1, 2, 3, \dots"),
    ("1, 2, 3", r"1, 2, 3, \cdots"),
    ("1,2,3,...", "1,2,3"),
    ("1, 2", "1, 2, ..."),
    ("1", "1..."),
    ("1...", "1"),
    ("1", "1…"),
    ("1", r"1\ldots"),
    ("1", "n=1, ..."),
    (r"\{1, 2\}", r"\{1, 2, \ldots\}"),
    ("1, 2, ...", "1, 2, 3, ..."),
    ("1, 2, 3, ...", "3, 2, 1, ..."),
    ("1, 2, 3, ...", "1, 2, 4, ..."),
    ("(1, 2, ...)", "[1, 2, ...]"),
    ("1, 3, 5, ..., 99", "1, 3, 5, 99"),
    ("1, 3, 5, ..., 99", "1, 3, 5, ..., 97"),
    ("0.333", "0.333..."),
    (r"\text{red, green}", r"\text{red, green, ...}"),
    ("5/2", "2%"),
    ("40/9", "4 4/90%"),
    ("15", "5 % 3"),
    ("5", "5 % 3"),
]


def paid(gold: str, answer: str) -> bool:
    return math(Problem("p", "", gold, ""), rf"\boxed{{{answer}}}", True).correct


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert paid(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal(gold: str, answer: str) -> None:
    assert not paid(gold, answer)


@pytest.mark.parametrize("text", ["1, 2, ...", "1, 2, …", r"1, 2, \dots", r"1,2,\cdots", r"$1, 2, \ldots$."])
def test_every_ellipsis_is_one(text: str) -> None:
    assert strict_form(text) == r"1,2,\ldots"
    assert clean(text)[0].replace(" ", "") == r"1,2,\ldots"

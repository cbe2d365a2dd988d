"""Gold answers, by hand."""

import time

import pytest

from r1v0.tasks.math import gold


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"Thus $x = \boxed{2}$.", "2"),
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\frac{a}{b + {c}}} done", r"\frac{a}{b + {c}}"),
        (r"\boxed{\left\{ 1, 2 \right.} end", r"\left\{ 1, 2 \right."),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"closed \boxed{7} and open \boxed{8", "7"),
        (r"\fbox{3}", "3"),
        (r"\boxed {4}", "4"),
        (r"the answer is $\boxed 5$.", "5"),
        (r"\boxed{ \text{east} }", r"\text{east}"),
        ("nothing", None),
        (r"\boxed{}", None),
        (r"boxed{6}", None),
    ],
)
def test_the_last_closed_box_is_the_answer(solution: str, answer: str | None) -> None:
    assert gold.boxed(solution) == answer


def test_many_unclosed_boxes_take_no_time() -> None:
    start = time.perf_counter()
    assert gold.boxed(r"\boxed{" * 100_000) is None
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("48/2 = <<48/2=24>>24\n#### 72", "72"),
        ("#### 1,250", "1250"),
        ("#### -3", "-3"),
        ("#### 12,34", "12,34"),
        ("one #### 1\n#### 2 ", "2"),
        ("no mark 5", None),
        ("####  ", None),
    ],
)
def test_gsm8k_answers_stand_after_the_last_hashes(cell: str, answer: str | None) -> None:
    assert gold.hashes(cell) == answer


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("so 5.\n#### 752\nThe answer is: 752", "752"),
        (r"is $\boxed{\text{D}}$.The answer is: \text{D}", r"\text{D}"),
        ("The answer is: 1\nNo. The answer is: $x+1$", "x+1"),
        ("older rows\n#### 38,400", "38400"),
        ("The answer is:", None),
        (r"only \boxed{3}", None),
    ],
)
def test_metamathqa_answers(cell: str, answer: str | None) -> None:
    assert gold.answer_is(cell) == answer


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("073", "73"),
        ("27.0", "27"),
        ("000", "0"),
        ("$45$", "45"),
        ("-1", "-1"),
        ("1/2", None),
        ("7 apples", None),
        ("2.5", None),
    ],
)
def test_contest_answers_are_whole_numbers(cell: str, answer: str | None) -> None:
    assert gold.number(cell) == answer


def test_a_column_of_unknown_style() -> None:
    assert gold.either(r"\frac{1}{2}") == r"\frac{1}{2}"
    assert gold.either("worked out\n#### 5") == "5"
    assert gold.either(r"worked out, so \boxed{6}") == "6"
    assert gold.marked("a solution that never says its answer") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" a ", "a"),
        ("", None),
        ("  ", None),
        (None, None),
        (True, None),
        (7, "7"),
        (27.0, "27"),
        (0.5, "0.5"),
        (float("nan"), None),
        (float("inf"), None),
        (["$1$", "$x+1$"], "1, x+1"),
        (["2"], "2"),
        ([], None),
        (["1", None], None),
        ({"a": 1}, None),
    ],
)
def test_a_cell_as_text(value: object, expected: str | None) -> None:
    assert gold.text(value) == expected


def test_dollars_are_taken_off_only_around_the_whole() -> None:
    assert gold.plain("$x = 1$") == "x = 1"
    assert gold.plain("$1$ or $2$") == "$1$ or $2$"
    assert gold.plain("$5") == "$5"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Level 5", 5), ("3", 3), (4, 4), (2.0, 2), (2.5, None), ("Level ?", None), (None, None), ([5], None)],
)
def test_levels(value: object, expected: int | None) -> None:
    assert gold.level(value) == expected

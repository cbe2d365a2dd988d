"""The countdown reward, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1v0.base.errors import UserError
from r1v0.tasks.countdown import problems as task
from r1v0.tasks.countdown.reward import MAX_DEPTH, countdown, last_boxed, parse
from r1v0.types import Problem

PROBLEM = Problem("x", "3 7 4 target 17", "17 from 3 7 4", "countdown")


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{(3*7)-4}",
        "\\boxed{3*7-4}",
        "\\boxed{ ( 7 * 3 ) - 4 }",
        "\\boxed{(3*7)-4} \n",
        "3*7=21,21-4=17 vs 17 yes \\boxed{(3*7)-4}",
        "\\boxed{3+7+4} no wait \\boxed{((3)*(7))-4}",
        "unclosed \\boxed{3 then \\boxed{(3*7)-4}",
    ],
)
def test_right(text: str) -> None:
    score = countdown(PROBLEM, text, True)
    assert (score.reward, score.correct, score.strict) == (1.0, True, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "(3*7)-4",
        "\\boxed{17}",
        "\\boxed{}",
        "\\boxed{(3*7)-4",
        "\\boxed{(3*7)-4} so",
        "\\boxed{(3*7)-4}}",
        "\\boxed{(3*7)-4=17}",
        "\\boxed{(3*7)+4}",  # wrong value
        "\\boxed{3+7+7}",  # a number twice, another not at all
        "\\boxed{3+7+4+3}",  # a number too many
        "\\boxed{4+13}",  # right value, other numbers
        "\\boxed{(3*7)-4+0}",
        "\\boxed{(3*7)-4} \\boxed{3+7+4}",  # the last one counts
        "\\boxed{(3*7)-4} \\boxed{",
        "\\boxed{\\boxed{(3*7)-4}}",
        "\\boxed{(3*7)--4}",
        "\\boxed{+(3*7)-4}",
        "\\boxed{(3*7)-4)}",
        "\\boxed{((3*7)-4}",
        "\\boxed{(3**7)-4}",
        "\\boxed{(3 7)-4}",
        "\\boxed{3(7)-4}",
        "\\boxed{(３*7)-4}",  # a full-width digit is no digit here
        "\\boxed{(3*7)-4.0}",
        "\\boxed{(3*7)-4;}",
        "\\boxed{__import__('os').getpid()}",
        "\\boxed{" + "(" * 5000 + "3*7-4" + ")" * 5000 + "}",
        "\\boxed{" + "9" * 100_000 + "}",
        "\\boxed{3" + "*999999" * 20_000 + "}",
        "\\boxed{3 " + " " * 500 + "*7-4}",
    ],
)
def test_wrong(text: str) -> None:
    score = countdown(PROBLEM, text, True)
    assert (score.reward, score.correct, score.strict) == (0.0, False, False)


def test_cut_off_text_is_wrong_whatever_it_says() -> None:
    score = countdown(PROBLEM, "\\boxed{(3*7)-4}", False)
    assert (score.reward, score.correct, score.extracted) == (0.0, False, "(3*7)-4")


def test_a_result_out_of_range_is_right_but_not_strict() -> None:
    problem = Problem("x", "2 3 9 target 8", "8 from 2 3 9", "countdown")
    score = countdown(problem, "\\boxed{(2-3)+9}", True)
    assert (score.reward, score.correct, score.strict) == (1.0, True, False)


def test_extracted_is_the_last_box_even_in_text_that_goes_on() -> None:
    assert countdown(PROBLEM, "\\boxed{3+7} \\boxed{ 7-4 } and so on", True).extracted == "7-4"
    assert countdown(PROBLEM, "nothing", True).extracted is None
    assert last_boxed("\\boxed{3+7") == (None, False)


@pytest.mark.parametrize(
    ("expression", "value"), [("2+3*4", 14), ("2-3-4", -5), ("2-(3-4)", 3), ("(2+3)*4", 20), ("7", 7)]
)
def test_precedence_and_order(expression: str, value: int) -> None:
    parsed = parse(expression)
    assert parsed is not None
    assert parsed.value == value


def test_depth_is_bounded() -> None:
    assert parse("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH) is not None
    assert parse("(" * (MAX_DEPTH + 1) + "7" + ")" * (MAX_DEPTH + 1)) is None


@given(st.text())
def test_no_text_raises(text: str) -> None:
    countdown(PROBLEM, text, True)
    countdown(PROBLEM, "\\boxed{" + text + "}", True)


OPERATOR = st.sampled_from("+-*")
EXPRESSION = st.recursive(
    st.integers(0, 99).map(str),
    lambda part: st.tuples(part, OPERATOR, part).map(lambda p: f"({p[0]} {p[1]}{p[2]})"),
    max_leaves=6,
)


@given(EXPRESSION, OPERATOR, EXPRESSION)
def test_values_agree_with_python(left: str, operator: str, right: str) -> None:
    parsed = parse(f"{left}{operator}{right}")
    assert parsed is not None
    assert parsed.value == eval(f"{left}{operator}{right}")


@pytest.mark.parametrize("name", sorted(task.SPLITS))
def test_every_problem_has_an_answer_that_the_reward_accepts(name: str) -> None:
    for problem in task.problems(name)[:100]:
        target, numbers = task.parse_answer(problem.answer)
        a, b, c = numbers
        found = [way.expression for way in task.candidates((a, b, c)) if way.value == target]
        assert found
        for expression in found:
            score = countdown(problem, f"\\boxed{{{expression}}}", True)
            assert score.correct
            assert score.strict


@pytest.mark.parametrize(
    "answer",
    ["", "17", "17 from", "17 from 3 x", "from 3 7 4", "-1 from 3 7 4", "17 from ３ 7 4", "9" * 50 + " from 3"],
)
def test_a_gold_answer_of_another_form_is_a_user_error(answer: str) -> None:
    with pytest.raises(UserError, match="expected TARGET from NUMBERS"):
        countdown(Problem("x", "", answer, ""), "\\boxed{3}", True)

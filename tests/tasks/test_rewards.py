"""The rewards themselves: what is right, what is added up, and what a user's own may give back."""

import math
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from r1v0.base.errors import UserError
from r1v0.config import RewardConfig
from r1v0.report.status import other_reading
from r1v0.report.table import evaluation_table
from r1v0.rollouts.evaluate import summarise
from r1v0.runs.written import Answer
from r1v0.tasks.grading import custom
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.rewards import REWARDS, check, combine, function, score
from r1v0.types import Problem, Score
from tests.run_folders import answer


def problem(answer: str) -> Problem:
    return Problem("p1", "How many?", answer, "test")


def graded(reward: str, gold: str, text: str, finished: bool = True) -> Score:
    return score(RewardConfig(name=reward), problem(gold), text, finished)


def test_every_reward_of_the_table_can_be_loaded() -> None:
    assert set(REWARDS) == {"math", "gsm8k", "countdown", "format", "format_box"}
    assert all(callable(function(name)) for name in REWARDS)
    assert [name for name, reward in REWARDS.items() if reward.isolated] == ["math"]


@pytest.mark.parametrize(
    ("gold", "text", "correct", "strict"),
    [
        (r"\frac{1}{2}", r"so \boxed{\frac{1}{2}}.", True, True),
        (r"\frac{1}{2}", r"so \boxed{ \dfrac{1}{2} }", True, True),
        (r"\frac{1}{2}", r"so \boxed{0.5}", True, False),
        (r"\frac{1}{2}", "<think>half</think> <answer>1/2</answer>", True, False),
        (r"\boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}", True, True),
        (r"It is $\boxed{5}$.", r"\boxed{5}", True, True),
        (r"\frac{1}{2}", r"so \boxed{2}", False, False),
        ("5", r"\boxed{05}", True, False),
        ("5", r"\boxed{-5}", False, False),
        ("12345678901234567890", r"\boxed{12345678901234567891}", False, False),
        (r"\frac{1}{2}", r"so \frac{1}{2}", False, False),  # stated nowhere
        (r"\frac{1}{2}", r"\boxed{}", False, False),
        (r"\frac{1}{2}", "", False, False),
        ("", r"\boxed{}", False, False),
        ("", "", False, False),
        (r"\boxed{}", r"\boxed{}", False, False),
        (" ", r"\boxed{ }", False, False),
        ("5", "\\boxed{\ud800}", False, False),
    ],
)
def test_math(gold: str, text: str, correct: bool, strict: bool) -> None:
    found = graded("math", gold, text)
    assert (found.correct, found.strict, found.reward) == (correct, strict, float(correct))


@pytest.mark.parametrize(
    ("gold", "text", "correct", "strict"),
    [
        ("72", "48+24=72\n#### 72", True, True),
        ("48+24=72\n#### 72", "#### 72", True, True),
        ("1250", "#### 1,250", True, True),
        ("1,250", r"\boxed{\$1250}", True, True),
        ("72", "#### 72.0", True, False),
        ("0.5", "The answer is .5.", True, False),
        ("72", "#### 27", False, False),
        ("72", "#### -72", False, False),
        ("72", "72", False, False),
        ("72", "####", False, False),
        ("none", "#### none", False, False),
        ("", "####", False, False),
        ("10", "#### " + "1" + "0" * 400, False, False),
    ],
)
def test_gsm8k(gold: str, text: str, correct: bool, strict: bool) -> None:
    found = graded("gsm8k", gold, text)
    assert (found.correct, found.strict, found.reward) == (correct, strict, float(correct))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("<think> a </think> <answer> 5 </answer>", True),
        (" a </think>\n<answer>5</answer>\n", True),  # the prompt ends with <think>
        ("<think>a</think><answer>5</answer> so", False),
        ("so <think>a</think><answer>5</answer>", False),
        ("<think>a</think> so <answer>5</answer>", False),
        ("<think></think><answer>5</answer>", False),
        ("<think>a</think><answer> </answer>", False),
        ("<answer>5</answer><think>a</think>", False),
        ("<think>a</think><answer>5</answer><answer>6</answer>", False),
        ("<think>a</think></think><answer>5</answer>", False),
        ("<think>a<think></think><answer>5</answer>", False),
        ("<answer>5</answer>", False),
        ("a", False),
        ("", False),
    ],
)
def test_format(text: str, good: bool) -> None:
    assert graded("format", "7", text).reward == float(good)
    assert graded("format", "7", text, finished=False).reward == 0.0


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("so\n$\\boxed{5}$.", True),
        ("\\boxed{5}\n\nso", False),
        ("\\boxed{4} \\boxed{5}", False),
        ("\\boxed{}", False),
        ("\\boxed{5", False),
        ("5", False),
    ],
)
def test_format_box(text: str, good: bool) -> None:
    assert graded("format_box", "7", text).reward == float(good)


@pytest.mark.parametrize(
    ("reward", "gold", "text"),
    [("math", "5", r"\boxed{5}"), ("gsm8k", "5", "#### 5"), ("countdown", "17 from 3 7 4", r"\boxed{(3*7)-4}")],
)
def test_what_is_cut_off_is_wrong(reward: str, gold: str, text: str) -> None:
    assert graded(reward, gold, text).correct
    assert graded(reward, gold, text, finished=False).correct is False
    assert graded(reward, gold, text, finished=False).reward == 0.0


def test_rewards_add_up_and_the_main_one_decides() -> None:
    config = RewardConfig(name="gsm8k", extra={"format": 0.25, "format_box": -0.5})
    text = "<think>a</think><answer>\\boxed{72}</answer>"
    found = score(config, problem("72"), text, True)
    assert found.parts == {"gsm8k": 1.0, "format": 1.0, "format_box": 1.0}
    assert (found.reward, found.correct, found.extracted) == (0.75, True, "72")
    wrong = score(config, problem("7"), text, True)
    assert (wrong.reward, wrong.correct) == (-0.25, False)


def test_a_part_that_failed_makes_the_reward_zero() -> None:
    config = RewardConfig(name="format", extra={"math": 1.0})
    found = combine(config, {"format": Score(1.0, True), "math": Score(0.0, False, failure="timeout")})
    assert (found.reward, found.correct, found.failure) == (0.0, True, "timeout")


@pytest.mark.parametrize(
    ("reward", "gold", "text", "boxed", "last"),
    [
        ("math", "34", "Final Answer: The largest $n$ is 34.", False, True),
        ("math", "34", "Final Answer: The largest $n$ is 35.", False, False),
        ("math", "34", r"\boxed{34}", True, True),
        ("math", "34", r"\boxed{35}, not 34", False, False),
        ("math", r"\frac{14}{3}", r"hence $x = \frac{28}{6}$.", False, True),
        ("gsm8k", "72", "He has 72 clips", False, True),
        ("gsm8k", "72", "#### 72", True, True),
        ("countdown", "17 from 3 7 4", r"\boxed{(3*7)-4}", None, None),
    ],
)
def test_both_readings_of_an_answer(reward: str, gold: str, text: str, boxed: bool | None, last: bool | None) -> None:
    for extraction in ("boxed", "last"):
        with Verifier(RewardConfig(name=reward, extraction=extraction, workers=1)) as verifier:
            verifier.submit(0, problem(gold), text, True, both=True)
            verifier.submit(1, problem(gold), text, True)
            verifier.submit(2, problem(gold), text, False, both=True)
            found = verifier.collect()
        assert (found[0].correct_boxed, found[0].correct_last) == (boxed, last)
        expected = (last if extraction == "last" else boxed) if boxed is not None else True
        assert found[0].correct == found[1].correct == expected
        assert (found[1].correct_boxed, found[1].correct_last) == (None, None)
        assert not found[2].correct
        assert not found[2].correct_last


def test_an_evaluation_has_the_accuracy_of_both_readings() -> None:
    def verdict(n: int, correct: bool, last: bool | None) -> Answer:
        boxed = None if last is None else correct
        return answer(problem=f"p{n}", extracted="5", correct=correct, correct_boxed=boxed, correct_last=last)

    found = summarise(
        "d", [verdict(0, True, True), verdict(1, False, True), verdict(2, False, True), verdict(3, False, False)]
    )
    assert (found.accuracy, found.accuracy_boxed, found.accuracy_last) == (0.25, 0.25, 0.75)
    rows = [{"step": 0, "template": "plain", **asdict(found)}]
    assert [cell for cell in evaluation_table(rows).splitlines()[0].split() if cell in ("boxed", "last")] == ["last"]
    assert other_reading(rows[0]) == "  last 75 %"
    one_reading = summarise("d", [verdict(0, True, None), verdict(1, False, None)])
    assert (one_reading.accuracy, one_reading.accuracy_boxed, one_reading.accuracy_last) == (0.5, None, None)


def test_unknown_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown reward 'maths': did you mean 'math'"):
        check(RewardConfig(name="maths"))
    with pytest.raises(UserError, match="unknown reward 'formt': did you mean 'format'"):
        check(RewardConfig(name="math", extra={"formt": 0.1}))
    with pytest.raises(UserError, match=r"there is no file .*none\.py"):
        check(RewardConfig(name=f"{tmp_path}/none.py:reward"))
    with pytest.raises(UserError, match=r"expected FILE\.py:FUNCTION"):
        check(RewardConfig(name=f"{tmp_path}/none.py:"))
    with pytest.raises(UserError, match="unknown reward 'maths'"):
        function("maths")
    check(RewardConfig(name="math", extra={"format": 0.1}))


@pytest.mark.parametrize(
    ("result", "reward", "correct"),
    [
        (True, 1.0, True),
        (False, 0.0, False),
        (1, 1.0, True),
        (0.5, 0.5, False),
        (Fraction(3, 2), 1.5, True),
        (-1.0, -1.0, False),
    ],
)
def test_a_number_of_the_users_becomes_a_score(result: Any, reward: float, correct: bool) -> None:
    assert custom.as_score(result, "x.py:f") == Score(reward, correct)


def test_a_score_of_the_users_is_made_plain() -> None:
    given: Any = Score(reward=True, correct=1, strict=0, parts={"x": object()}, extracted=5, failure="timeout")  # type: ignore[arg-type, dict-item]
    assert custom.as_score(given, "x.py:f") == Score(1.0, True, extracted="5")


NO_SCORES: list[Any] = [None, "1", math.nan, math.inf, [1.0], object, 1j, Score(math.nan, True)]


@pytest.mark.parametrize("result", [*NO_SCORES, Score(None, True)])  # type: ignore[arg-type]
def test_anything_else_of_the_users_is_told(result: Any) -> None:
    with pytest.raises(UserError, match=r"reward 'x\.py:f' returned .*expected a Score, a finite number or a bool"):
        custom.as_score(result, "x.py:f")


def test_a_users_file_is_loaded_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_reward.py").write_text("VALUE = 0.25\n")
    (tmp_path / "mine_one.py").write_text(
        "from neighbour_of_reward import VALUE\ndef f(problem, text, finished):\n    return VALUE + (text == "
        "problem.answer)\n"
    )
    loaded = custom.load(f"{tmp_path}/mine_one.py:f")
    assert loaded(problem("x"), "x", True) == Score(1.25, True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def g(p, t, f): return 1\n", "unknown function in .*: did you mean 'g'|known: g"),
        ("f = 5\n", "f is int: expected a function"),
        ("def f(:\n", "running the file raised SyntaxError"),
        (
            "import no_such_module_xyz\n",
            "running the file raised ModuleNotFoundError: No module named 'no_such_module_xyz' at line 1",
        ),
        ("x = 1\n1 / 0\n", "running the file raised ZeroDivisionError: division by zero at line 2"),
    ],
)
def test_a_users_file_that_cannot_be_used_is_told(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / f"mine_{abs(hash(source))}.py"
    path.write_text(source)
    with pytest.raises(UserError, match=message):
        custom.load(f"{path}:f")


def test_a_users_function_that_raises_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine_two.py").write_text("def f(problem, text, finished):\n    x = 1\n    return 1 / 0\n")
    with pytest.raises(
        UserError, match=r"mine_two\.py:f' raised ZeroDivisionError: division by zero at line 3 on problem 'p1'"
    ):
        custom.load(f"{tmp_path}/mine_two.py:f")(problem("x"), "x", True)

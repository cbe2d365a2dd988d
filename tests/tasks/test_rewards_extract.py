"""Finding the answer in a completion, and never taking long about it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1v0.tasks.math import extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{5} no, \boxed{6}.", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\text{a \} b}}", r"\text{a \} b}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{5} and \boxed{6", "5"),  # the last balanced one
        (r"\boxed{5} and \boxed", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{6 so \boxed{5} }", "5"),
        (r"\boxed{5}} }", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{5} \boxed{}", ""),  # the last one is empty: no answer
        (r"\boxed{ 5 }", "5"),
        ("\\boxed{5\n}", "5"),
        ("<think>x</think> <answer> 5 </answer>", "5"),
        ("<answer>5</answer><answer>6</answer>", "6"),
        ("<answer>5", None),
        ("5</answer>", None),
        (r"<answer>it is \boxed{5}</answer>", "5"),
        (r"<think>\boxed{4}</think><answer>5</answer>", "5"),  # what was stated last
        (r"<answer>5</answer> that is \boxed{6}", "6"),
        ("no answer", None),
        ("", None),
        (r"\boxed", None),
        (r"\boxed{" + "7" * 2000 + "}", "7" * 2000),
        (r"\boxed{" + "7" * 2001 + "}", None),
        ("<answer>" + "7" * 2001 + "</answer>", None),
        # a mention of the box is no answer
        (r"The answer is \boxed{5}. I have put it in \boxed as asked.", "5"),
        (r"\boxed{5}, given within \boxed{} as asked", "5"),
        ("\\boxed{5}. The `\\boxed{}` command was used", "5"),
        (r"\boxed{5}, as \boxed{...} says", "5"),
        (r"\boxed{5}, in the form \boxed{\text{answer}}", "5"),
        (r"it goes in \boxed as asked", None),
        (r"$\boxed5$", "5"),
        (r"$\boxed x$", "x"),
        # several boxes in one statement are one list
        (r"\boxed{1} and \boxed{-2}", "1, -2"),
        (r"x_1 = \boxed{1}, x_2 = \boxed{2}", "1, 2"),
        (r"$x_1=\boxed{1}$ and $x_2=\boxed{2}$.", "1, 2"),
        ("\\[ x_1 = \\boxed{1} \\]\n\\[ x_2 = \\boxed{2} \\]", "1, 2"),
        (r"\boxed{1}\boxed{2}", "1, 2"),
        (r"\boxed{2}, \boxed{3}, \boxed{5}", "2, 3, 5"),
        (r"\boxed{k = 4} \quad \text{and} \quad \boxed{n = 2}", "k = 4, n = 2"),
        (r"\boxed{(3,3)} \text{ for part (a) and } \boxed{(1,1)}", "(3,3), (1,1)"),
        (r"the smaller one is \boxed{1} and the larger one is \boxed{2}", "1, 2"),
        (r"<answer>\boxed{1} or \boxed{2}</answer>", "1, 2"),
        (r"\boxed{5} and \boxed{5}", "5"),
        # but another statement is another answer
        (r"\boxed{1}, so the answer is \boxed{2}", "2"),
        (r"$$\boxed{20}$$ \boxed{143}", "143"),
        ("\\boxed{4}\n\n**Final answer**\n\\boxed{5}", "5"),
        # Markdown around an answer
        (r"\boxed{**73**}", "73"),
        (r"**\boxed{73}**", "73"),
        ("<answer>**73**</answer>", "73"),
        (r"\boxed{`73`}", "73"),
        (r"\boxed{__73__}", "73"),
        (r"\boxed{x = **5**}", "x = 5"),
        (r"\boxed{2**3}", "2**3"),
        (r"\boxed{2**3**2}", "2**3**2"),
    ],
)
def test_answer(text: str, answer: str | None) -> None:
    assert extract.answer(text) == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("... so 72.\n#### 72", "72"),
        ("#### 1,250", "1250"),
        ("#### $1,250.50", "1250.50"),
        ("#### 18 dollars", "18"),
        ("####-7", "-7"),
        ("#### .5", ".5"),
        ("#### 5.", "5"),
        ("#### +5", "5"),
        ("#### 1\n#### 2", "2"),
        (r"\boxed{72}", "72"),
        (r"\boxed{\$1{,}250}", "1250"),
        (r"\boxed{10\%}", "10"),
        (r"#### 3 \boxed{4}", "3"),
        ("The answer is 72.", "72"),
        ("The answer is: 72", "72"),
        ("the answer is 1. The answer is: 2", "2"),
        ("#### 60 km/h", "60"),
        (r"\boxed{45^\circ}", "45"),
        (r"#### 25\left12", "2512"),  # as it is drawn
        ("#### 14/3", None),  # from here on: a formula is not the number it begins with
        ("#### 10^5", None),
        ("#### 10 * 5", None),
        ("#### 1e5", None),
        ("#### x^2+13", None),
        (r"\boxed{\frac{14}{3}}", None),
        (r"\boxed{2\sqrt{3}}", None),
        (r"The answer is: $\frac{14}{3}$", None),
        ("####", None),
        ("#### none", None),
        ("#### none \\boxed{5}", "5"),
        (r"\boxed{x}", None),
        ("72", None),
        ("", None),
        # numbers side by side are never added, and the first of several is no answer
        ("#### 2 2/3", None),
        ("#### 2 1/2", "2.5"),
        ("#### -2 1/4", "-2.25"),
        ("#### 2~2/3", None),
        ("#### 2 5/4", None),
        ("#### 7 8", None),
        ("#### 10 000", "10000"),
        ("#### 10 000 000.5", "10000000.5"),
        ("#### 10 20 30", None),
        ("#### 18 or 20", None),
        ("#### 5, 6", None),
        ("#### 72 (or 73)", None),
        ("#### 18 dollars or 20 dollars", None),
        (r"\boxed{5} and \boxed{6}", None),
        ("#### 5+6", None),
        ("#### 5-6", None),
        ("#### 18 dollars for 3 days", "18"),
        ("#### **72**", "72"),
        ("#### __72__", "72"),
    ],
)
def test_gsm8k(text: str, number: str | None) -> None:
    assert extract.gsm8k(text) == number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5} then 6", "5"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("So the answer is 5.", "5"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("**Final Answer:** 73", "73"),
        ("Final Answer: **73**", "73"),
        ("The answer is (C).", "(C)"),
        ("Therefore, the answer is 2/3", "2/3"),
        ("so we get 12 apples", "12"),
        (r"hence $x = \frac{14}{3}$.", r"\frac{14}{3}"),
        ("the total is 12,000,023 people.", "12,000,023"),
        ("Thus \\[ k \\in [-4, 0] \\]", "k \\in [-4, 0]"),
        ("there is none", None),
        ("", None),
    ],
)
def test_the_last_value_where_none_is_stated(text: str, answer: str | None) -> None:
    assert extract.last(text) == answer


BALANCED = st.recursive(
    st.text(alphabet="ab1 \\,", max_size=5).map(lambda text: text.replace("\\", "\\,")),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=8,
)


@given(BALANCED, st.text(alphabet="xyz{}\\$ ", max_size=30), st.text(alphabet="xyz}$ .", max_size=30))
def test_a_planted_box_is_found(content: str, before: str, after: str) -> None:
    before = before.replace("\\", "")
    assert extract.answer(f"{before}\\boxed{{{content}}}{after}") == content.strip()


PIECES = [*"\\{}#$<>/ 15,.", "\\boxed", "\\boxed{", "<answer>", "</answer>", "####", "the answer is", "\ud800", "\x00"]


@given(st.lists(st.sampled_from(PIECES)))
def test_nothing_makes_it_fail(pieces: list[str]) -> None:
    text = "".join(pieces)
    answer = extract.answer(text)
    assert answer is None or (answer == answer.strip() and len(answer) <= extract.MAX_ANSWER)
    assert extract.last(text) is None or answer is None or not answer or extract.last(text) == answer
    number = extract.gsm8k(text)
    assert number is None or float(number) == float(number)


MEGABYTE = 1_000_000
HOSTILE = {
    "open braces": "\\boxed{" + "{" * MEGABYTE,
    "open boxes": "\\boxed{" * (MEGABYTE // 7),
    "long open boxes": ("\\boxed{" + "{}" * 990) * 500,
    "digits": "\\boxed{" + "7" * MEGABYTE + "}",
    "spaces": "\\boxed" + " " * MEGABYTE,
    "open tags": "<answer>" * (MEGABYTE // 8),
    "closing tags": "</answer>" * (MEGABYTE // 9),
    "hashes": "#" * MEGABYTE,
    "numbers": "#### " + "1," * (MEGABYTE // 2),
    "phrases": "the answer is:" * (MEGABYTE // 14),
    "backslashes": "\\boxed{" + "\\" * MEGABYTE,
    "surrogates": "\ud800" * MEGABYTE,
    "control characters": "\x00\x1b" * (MEGABYTE // 2),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_megabyte_takes_milliseconds(text: str) -> None:
    """Measured: 17 ms at most. The bound is for a loaded machine; anything quadratic takes minutes."""
    started = time.process_time()
    extract.answer(text)
    extract.gsm8k(text)
    extract.last(text)
    assert time.process_time() - started < 0.5

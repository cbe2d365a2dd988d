"""Which answers are the same mathematics: pairs judged by hand, and MATH-500's own answers."""

import json
from pathlib import Path

import pytest

from r1v0.tasks.math import extract
from r1v0.tasks.math.answers import math
from r1v0.tasks.math.latex import clean, strict_form
from r1v0.tasks.math.symbolic import compare
from r1v0.types import Problem, Score

EQUAL = [
    # numbers
    ("5", "5.0"),
    ("5", "+5"),
    ("5", "05"),
    ("-5", "−5"),  # the Unicode minus
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", "1/2"),
    (r"\dfrac{17}{50}", "0.34"),
    (r"-\frac{35}{9}", r"\frac{-35}{9}"),
    (r"\frac 59", r"\frac{5}{9}"),
    (r"\frac9{19}", r"\tfrac{9}{19}"),
    (r"\frac\pi4", r"\frac{\pi}{4}"),
    (r"1\frac{4}{5}", r"\frac{9}{5}"),
    (r"137 \frac{1}{2}", "137.5"),
    (".0000672", r"6.72\times 10^{-5}"),
    ("2220", r"2.22 \cdot 10^3"),
    (r"0.\overline{3}", r"\frac13"),
    (r"0.1\overline{6}", r"\frac{1}{6}"),
    (r"\frac13", "0.333333"),
    ("1024", "2^10"),
    ("3628800", "10!"),
    ("10", r"\binom{5}{2}"),
    ("3", r"\log_2 8"),
    # roots, surds, constants
    (r"11\sqrt2", r"11 \sqrt{2}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"2\sqrt{3}+1", r"1+\sqrt{12}"),
    (r"3\sqrt{13}", "3√13"),
    (r"3\sqrt{13}", "3*sqrt(13)"),
    (r"288 \pi", "288π"),
    (r"18+2\pi", "2pi+18"),
    (r"\frac{20000}{\pi}", r"\frac{40000}{2\pi}"),
    # thousands, money, percent, units, degrees
    (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11,111,111,100"),
    ("58,500", "58500"),
    ("58500", "58{,}500"),
    (r"\$32,\!348", "32348"),
    (r"\$18.90", "18.9"),
    (r"5{,}000{,}000", r"5\text{ million}"),
    ("10", r"10\%"),
    (r"10\%", "0.1"),
    (r"10\%", "10 percent"),
    (r"15\mbox{ cm}^2", "15"),
    ("864", r"864\text{ square inches}"),
    (r"5.4 \text{ cents}", "5.4 cents"),
    (r"90^\circ", "90"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ"),
    ("3 hours", r"3 \text{ hours}"),
    # bases
    ("52_8", "52_{8}"),
    ("4210_{5}", "4210"),
    # algebra
    ("x=5", "5"),
    ("5", "x = 5"),
    ("y = 2x + 3", "2x+3"),
    ("2k+2", "2(k+1)"),
    ("(a+5)(b+2)", "ab+2a+5b+10"),
    ("3R^2", "3r^2"),
    (r"\cot x", r"\frac{\cos x}{\sin x}"),
    ("2^((n+1)/2)", r"2^{\frac{n+1}{2}}"),
    ("5x - 7y + 11z + 4 = 0", "-5x + 7y - 11z - 4 = 0"),
    ("1+2i", "2i + 1"),
    ("-3+4i", "(1+2i)^2"),
    (r"1 - \frac{1}{\mathrm{e}}", r"1-e^{-1}"),
    # several values, sets, intervals, tuples, matrices
    ("1,-2", "-2, 1"),
    ("3, 5, 7", r"3,5 \text{ and } 7"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1-\sqrt5, 1+\sqrt5\}"),
    ("-2,1", r"x=-2 \text{ or } x=1"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
    (r"x \in [-2,7]", "[-2,7]"),
    ("[-2,7]", r"-2 \le x \le 7"),
    (r"(2,\infty)", "x > 2"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
    (r"\emptyset", r"\varnothing"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{bmatrix} -\frac13 \\ \frac23 \end{bmatrix}"),
    # text
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{even}", r"\text{Even}"),
    (r"\text{(C)}", "C"),
    (r"\text{(C)}", r"\textbf{(C)}\ 15"),
    (r"\text{ellipse}", "an ellipse"),
    (r"\text{No solution}", "no solution."),
    ("Yes", r"\text{yes}"),
]

UNEQUAL = [
    # no answer, no verdict
    ("5", ""),
    ("", "5"),
    ("", ""),
    (" ", " "),
    (r"\text{}", r"\text{}"),
    ("$$", "$$"),
    (".", "."),
    # numbers
    ("5", "-5"),
    ("5", "6"),
    ("5", "5.01"),
    ("10", "10.000001"),
    (".0000672", ".0000673"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3 \cdot 2^{2006}}"),
    ("10^{100}", "10^{100}+1"),
    (r"\frac13", "0.33"),
    (r"\frac{20000}{\pi}", "6366.2"),
    (r"7\pi", "22"),
    (r"1\frac{4}{5}", r"\frac{4}{5}"),
    ("16", r"\sqrt{16"),
    ("0,1", "0.1"),
    ("1,234", "1.234"),
    ("2", "2,3"),
    ("5", r"\text{five}"),
    ("5000000", r"5\text{ thousand}"),
    ("100000", "100"),
    (r"\sqrt{51}", r"\sqrt{52}"),
    (r"\infty", r"-\infty"),
    ("1", "i"),
    ("6 - 5i", "6 + 5i"),
    # units, money, bases
    ("6 \\text{ hours}", r"6\text{ minutes}"),
    ("50 cm", "50 m"),
    (r"36^\circ", r"\$36"),
    (r"5.4 \text{ cents}", r"\$5.4"),
    ("52_8", "52_9"),
    ("52_8", "42"),
    (r"90^\circ", r"\frac{\pi}{2}"),
    ("0.1", "1%"),
    # algebra
    ("2t", "2"),
    ("3m", "3d"),
    ("2k", "2n"),
    ("y=5", "x=5"),
    ("p - q", "q - p"),
    ("R - r", "r - R"),
    ("0", "5x - 7y + 11z + 4 = 0"),
    ("0", "2x - 4 = 0"),
    ("5", "4 = 5"),
    ("2", "x^2 = 4"),
    ("x^3+3x-6", "x^3+3x+6"),
    ("x^5", "x^4"),
    # several values, sets, intervals, tuples, matrices
    ("1,-2", "1"),
    ("1", r"1 \text{ or } 2"),
    (r"\pm 2021", "2021"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}"),
    (r"19, 46, \text{ and } 82", "21, 36, and 82"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("(3,4]", "[3,4)"),
    ("[-2,7]", r"-2 \le x < 7"),
    (r"\{2\}", "x^2=4, x>0"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty, 2) \cup [3, \infty)"),
    ("(0, 1/2^{99})", "(0, 1/2^{98})"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    # text
    (r"\text{even}", r"\text{neve}"),
    ("even", "neve"),
    (r"\text{Evelyn}", "E"),
    (r"\text{(C)}", r"\text{(B)}"),
    (r"\text{(C)}", r"\text{(B) or (C)}"),
    (r"\text{(C)}", r"\text{(C) or (B)}"),
    ("No", "on"),
    (r"\text{Yes}", "No"),
    (r"\text{east}", r"\text{seat}"),
    (r"\text{A, B, C}", r"\text{B, C}"),
    ("12:00", "1:00"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert compare(gold, answer).equal


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal(gold: str, answer: str) -> None:
    assert not compare(gold, answer).equal
    assert math(Problem("p", "", gold, ""), f"<answer>{answer}</answer>", True) == Score(
        0.0, False, extracted=answer.strip()
    )


@pytest.mark.parametrize("text", [r"\qqq{", r"\frac{1}{0}", "1, 2, \\ldots, n", "\\", "\ud800"])
def test_two_failures_to_parse_are_not_equal(text: str) -> None:
    assert not compare(text, text).equal


def test_the_order_of_arguments_is_gold_first() -> None:
    """An answer may spell out the variable that the gold answer leaves out, and not the other way round for a set."""
    assert compare("x>2", r"(2,\infty)").equal
    assert compare(r"\{-2, 2\}", "x^2=4").equal is False


def test_a_comparison_says_why_and_what_it_parsed() -> None:
    found = compare(r"\frac{1}{2}", "0.5", forms=True)
    assert (found.equal, found.why) == (True, "equal symbolically")
    assert (found.gold_form, found.answer_form) == ("1/2", "0.500000000000000")
    assert compare("5", r"\frac{").why == "the answer cannot be parsed"
    assert compare("5", "7" * 2001).why == "longer than 2000 characters"
    assert compare("50 cm", r"50\text{ m}").why == "units differ: cm, m"
    assert "values differ" in compare(r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}").why


@pytest.mark.parametrize(
    ("text", "cleaned", "unit"),
    [
        (r"\left( 3, \dfrac{\pi}{2} \right)", r"( 3, \frac{\pi}{2} )", ""),
        (r"\frac12\sqrt3", r"\frac{1}{2}\sqrt{3}", ""),
        (r"\frac1{72}", r"\frac{1}{72}", ""),
        (r"\sqrt[3]2", r"\sqrt[3]{2}", ""),
        (r"\frac\sqrt2 3", r"\frac{\sqrt{2}}{3}", ""),
        (r"864 \mbox{ inches}^2", "864", "inch^2"),
        (r"\$18.90", "18.90", "dollar"),
        ("2t", "2t", ""),
        ("5 m", "5 m", ""),  # one letter is a variable
        ("$5$", "5", ""),
        (r"\boxed{5}", "5", ""),
        (r"1.2\overline{34}", r"\frac{611}{495}", ""),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", ""),
        (r"a \leftarrow b", r"a \leftarrow b", ""),
        ("\x00\x1b5", "5", ""),
    ],
)
def test_clean(text: str, cleaned: str, unit: str) -> None:
    assert clean(text) == (cleaned, unit)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"10,\!080", "10,080"),
        (r"\text{Evelyn}", "Evelyn"),
        ("$5$.", "5"),
        (" 5 ", "5"),
        ("5.0", "5.0"),  # strict has no opinion on numbers
        (r"5\text{ cm}", r"5\text{cm}"),
        ("Even", "Even"),
        ("", ""),
        ("$ $", ""),
    ],
)
def test_strict_form(text: str, form: str) -> None:
    assert strict_form(text) == form


@pytest.mark.shared
def test_math500_answers_equal_themselves_and_their_solutions(shared: Path) -> None:
    """By symbolic comparison alone: strict match, which would pass nearly all, is not asked."""
    rows = [
        json.loads(line) for line in (shared / "data" / "math500_test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    pairs = {(row["answer"], row["answer"]) for row in rows} | {
        (row["answer"], extract.boxed(row["solution"])) for row in rows
    }
    assert len(rows) == 500
    assert len({gold for gold, _ in pairs}) == 301
    assert [(gold, answer) for gold, answer in pairs if answer is None or not compare(gold, answer).equal] == []

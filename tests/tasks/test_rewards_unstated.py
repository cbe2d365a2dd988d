"""The last value of a text that states none (`reward.extraction = "last"`): whole, or nothing. Judged by hand."""

import time

import pytest

from r1v0.tasks.math import extract
from r1v0.tasks.math.answers import as_stated, gsm8k, math
from r1v0.tasks.math.symbolic import compare
from r1v0.types import Problem

READ: dict[str, list[tuple[str, str | None]]] = {
    "a unit is glued": [
        ("it is 1,000.99m²", r"1,000.99\text{m}^2"),
        ("the length is 12.5m", r"12.5\text{m}"),
        ("the length is 12.5mm.", "12.5mm"),
        ("the length is 12.5cm", "12.5cm"),
        ("it costs 5.50USD", "5.50USD"),
        ("we get 4 4/9percent", "4 4/9percent"),
        ("we get 4 4/9 %", "4 4/9 %"),
        ("so 60km/h", "60km/h"),
        ("so 5m/s^2", "5m/s^2"),
        ("so 12m", None),  # rather a product
        ("so 3t", None),
        ("so 12 m", "12"),
        ("so 5/month", "5"),
        ("so 5 km/h", "5"),
        ("so 90°", "90°"),
        (r"so 90^\circ", r"90^\circ"),
    ],
    "letters are glued": [
        ("about 7.25e5", "7.25e5"),
        ("about 7.25e5x", None),
        ("about 7.5x", None),
        ("5 of 7.5x", None),
        ("about 1.2M people", None),
        ("there are 1,000,000th of", None),
        ("the rate is 1/3rd", "1/3"),
        ("the rate is 4/5ths", "4/5"),
        ("12 apples on the 2nd day", "12"),
        ("5 in 3D", "5"),
        ("so 2π", None),
        ("version 1.2.3", None),
    ],
    "a part of an expression": [
        ("thus 11 + 4/9", "11 + 4/9"),
        ("thus 11 - 4/9", "11 - 4/9"),
        ("so 2^10", "2^10"),
        ("so 2**3", "2**3"),
        ("so x^5", None),
        ("so x_{5}", None),
        ("so x + 5", None),
        ("so 5 + x", None),
        ("so 2x + 5", None),
        ("so 5(x+1)", None),
        ("so (3+4)*5", None),
        ("so f(5)", None),
        ("so sqrt(5)", None),
        ("so x + 5 = 7", "7"),
        ("it was 10,200 + 255 = 10,455", "10,455"),
        ("5 - a prime", "5"),
        ("10-12 apples", "10-12"),
        ("the total - 5", "5"),
        ("COVID-19", "19"),
    ],
    "groups, points and signs": [
        ("thus 1 000", "1 000"),
        ("thus 1 000 000.5 people", "1 000 000.5"),
        ("thus 1 000 4/9", "1 000 4/9"),
        ("thus 1 0000", None),
        ("thus 10 20 30", "30"),
        ("thus .4", ".4"),
        ("thus -.4", "-.4"),
        ("x = - 5", "- 5"),
        ("x = -5", "-5"),
        ("- 5 apples", "5"),
        ("so -$5", "-$5"),
        ("so $5.50", "$5.50"),
        ("so 1000,99", "1000, 99"),
        ("so 1,2", "1, 2"),
        ("so 1, 2, 3", "3"),
        ("at 12:30", "12:30"),
        ("so 5!", "5"),
        ("**5**", "5"),
    ],
    "LaTeX without dollars": [
        (r"thus -\frac{10}{9}", r"-\frac{10}{9}"),
        (r"thus 1\frac{2}{3}", r"1\frac{2}{3}"),
        (r"x = \frac{\sqrt{3}}{3}", r"\frac{\sqrt{3}}{3}"),
        (r"so 2\sqrt{3}", r"2\sqrt{3}"),
        (r"so 2\pi", r"2\pi"),
        (r"so 2\times 3", r"2\times 3"),
        (r"so \sin{30}", None),
        (r"\text{so 5}", "5"),
        (r"5 \text{ cm}", "5"),
        (r"so \boxed{5", "5"),
    ],
    "relations": [
        ("thus $x <= 2$", "x <= 2"),
        ("thus $x >= 2$", "x >= 2"),
        ("thus $x != 3$", "x != 3"),
        (r"thus $x \neq 3$", r"x \neq 3"),
        (r"thus $x \not= 3$", r"x \not= 3"),
        ("thus $y = x >= 3$", "x >= 3"),
        ("thus $y = 5$", "5"),
        ("thus $y == 5$", "5"),
        ("thus $f(x) := 5$", "5"),
        ("thus $2x = 4 => x = 2$", "2"),
        ("thus $2x = 4 => 2$", "2"),
    ],
    "the outermost =": [
        (r"thus $S = \sum_{k=0}^n k$", r"\sum_{k=0}^n k"),
        (r"thus $\sum_{k=0}^n k$", r"\sum_{k=0}^n k"),
        ("thus $P(X=2)$", "P(X=2)"),
        ("thus $P(X=2) = 5$", "5"),
        (r"thus $\{x : x = 3\}$", r"\{x : x = 3\}"),
        (r"thus $\left. x = 3 \right|$", r"\left. x = 3 \right|"),
        (r"thus $y = \left\{1, 2\right.$", r"\left\{1, 2\right."),
        (r"thus $x \in [0, 1), y = 1$", "1"),
        (r"thus $\begin{cases} x = 1 \\ y = 2\end{cases}$", r"\begin{cases} x = 1 \\ y = 2\end{cases}"),
    ],
    "dots": [
        ("The answer is 5...", "5"),
        ("The answer is 5…", "5"),
        ("so it is 5...", "5"),
        ("The answer is 1, 2, 3...", "1, 2, 3"),
        ("The answer is 1, 2, 3, ...", "1, 2, 3, ..."),
        ("so 1, 2, 3, ...", None),
        ("so $1, 2, 3, ...$", "1, 2, 3, ..."),
        ("so $5...$", "5..."),
        ("so $5.$", "5"),
    ],
}

PAID = [
    ("12.5", "the length is 12.5cm"),
    ("12.5", "the length is 12.5m"),
    ("12.5 cm", "the length is 12.5cm"),
    ("1000.99", "it's 1,000.99m²"),
    ("725000", "about 7.25e5"),
    ("1/3", "the rate is 1/3rd"),
    ("5.5", "it costs 5.50USD"),
    ("40/9", "we get 4 4/9percent"),
    ("103/9", "thus 11 + 4/9"),
    ("1000", "thus 1 000"),
    ("0.4", "thus .4"),
    ("-10/9", r"thus -\frac{10}{9}"),
    ("-5", "x = - 5"),
    ("-5", "so -$5"),
    (r"x \le 2", "thus $x <= 2$"),
    (r"x \ne 3", "thus $x != 3$"),
    ("5", "The answer is 5..."),
    ("1, 2, 3, ...", "The answer is 1, 2, 3, ..."),
]

UNPAID = [
    ("1000", "it's 1,000.99m²"),
    ("12", "the length is 12.5m"),
    ("12", "the length is 12.5mm"),
    ("12", "the length is 12.5cm"),
    ("12.5 cm", "the length is 12.5mm"),
    ("7", "about 7.25e5"),
    ("7", "about 7.5x"),
    ("1", "the rate is 1/3rd"),
    ("1", "about 1.2M people"),
    ("1000", "there are 1,000,000th of"),
    ("5", "it costs 5.50USD"),
    ("4", "we get 4 4/9percent"),
    ("2", "thus $x <= 2$"),
    ("2", "thus $x >= 2$"),
    ("3", "thus $x != 3$"),
    ("0", "thus 1 000"),
    ("4/9", "thus 11 + 4/9"),
    ("9", r"thus -\frac{10}{9}"),
    ("1, 2, 3", "The answer is 1, 2, 3, ..."),
    ("1, 2, 3", "so $1, 2, 3, ...$"),
]


@pytest.mark.parametrize(("text", "value"), [pair for kind in READ.values() for pair in kind])
def test_the_last_value_is_read_whole_or_not_at_all(text: str, value: str | None) -> None:
    assert extract.last(text) == value


@pytest.mark.parametrize(("gold", "text"), PAID)
def test_a_whole_value_is_paid(gold: str, text: str) -> None:
    assert math(Problem("p", "", gold, ""), as_stated("math", text), True).correct


@pytest.mark.parametrize(("gold", "text"), UNPAID)
def test_a_part_of_a_value_is_not_paid(gold: str, text: str) -> None:
    assert not math(Problem("p", "", gold, ""), as_stated("math", text), True).correct


@pytest.mark.parametrize(
    ("text", "gold", "correct"),
    [
        ("so 12.5cm", "12.5", True),
        ("so 12.5m", "12.5", True),
        ("so 1 000", "1000", True),
        ("so 1,2", "12", False),
        ("so 12:30", "12", False),
        ("so 11 + 4/9", "11", False),
    ],
)
def test_the_reward_of_gsm8k_reads_the_same_values(text: str, gold: str, correct: bool) -> None:
    assert gsm8k(Problem("p", "", gold, ""), as_stated("gsm8k", text), True).correct == correct


PIECES = ["1 000 ", "1,", "1+", "-", "\\frac{", "\\frac{1}{", "\\sqrt", "\\sqrt[", "\\pi ", "1 1/", "(", "2^{", "x_{",
          "1e", "\\left(", "=", "$=", "a+", "\\a{", "$1", "1x ", "{", "3 - ", "the answer is 1, ",
          "1, ...", " . .", "{{1}"]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_hostile_megabyte_takes_milliseconds(piece: str) -> None:
    """Measured: 1 ms at most. The bound is for a loaded machine."""
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    extract.last(text)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        (r"\sin(x)=\frac{42}{59}", r"So $\cos(x)=\frac{42}{59}$", False),
        (r"\sin(x)=\frac{42}{59}", r"So $\sin(x)=\frac{42}{59}$", True),
        (r"\frac{42}{59}", r"So $\cos(x)=\frac{42}{59}$", True),
        ("5", "Thus $x = 5$", True),
        ("5", "Thus $f(x) = 5$", True),
    ],
)
def test_the_name_of_a_function_is_part_of_what_is_said_of_it(gold: str, text: str, right: bool) -> None:
    answer = extract.last(text)
    assert answer is not None
    assert compare(gold, answer).equal is right

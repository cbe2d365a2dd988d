r"""Families of values, one for each integer: k\pi, k\in\mathbb{Z}.

Decides: a family is its set, whatever its letter and however it is written: \frac{\pi}{2}+k\pi, \frac{(2n+1)\pi}{2} and
-\frac{\pi}{2}+k\pi are one, k\pi and 2k\pi are not. Families that are not linear in their letter must be the same expression.
"""

import re
from dataclasses import dataclass
from typing import Any

from r1v0.tasks.math.forms import flat

MOST = 60
"""At most this many residues of a family are compared."""

_BOUND = r"(\s?[\^_]\s?(?:\{[^{}]*\}|[+*0]))?"
_INTEGERS = (
    rf"\\in(?![a-zA-Z])\s?(?:\\mathbb\s?\{{?Z\}}?|Z){_BOUND}|\\in(?![a-zA-Z])\s?(\\mathbb\s?\{{?N\}}?|N){_BOUND}"
)
_LINK = r"(?:[\s,;:(]|\\(?:mid|quad|ldots)|\||where|with|for|and|all|any|every|each|some|integer|integers|values of)*"
_MEMBER = re.compile(rf"^(.+?)(?:[\s,;:(|]|\\mid){_LINK}([a-zA-Z])\s?(?:{_INTEGERS})\s?\)?$")
_SAID = re.compile(
    r"^(.+?)[\s,;:(|]+(?:(?:where|with|for|and)\s)*(?:(?:all|any|every|each|some)\s)?([a-zA-Z])"
    r"\s(?:is|are|being|an)\s(?:any |an |some )*integers?\s?\)?$"
)
_FOR = re.compile(
    r"^(.+?)[\s,;:(|]+(?:where|with|for)\s(?:(?:all|any|every|each|some|an)\s)?(?:integers?|integer values "
    r"of)\s([a-zA-Z])\s?\)?$"
)
_BRACES = re.compile(r"^\\?\{(.*)\\?\}$")
_LABEL = re.compile(r"^[a-zA-Z]\s?(?:=|\\in(?![a-zA-Z]))\s?(?!\\mathbb)")


@dataclass(frozen=True, slots=True)
class Family:
    """LaTeX of the values, the letter that runs, and what it runs over: "" for all integers."""

    body: str
    letter: str
    domain: str


def split(text: str) -> Family | None:
    """The family that an answer states with what its letter runs over; None if it states none."""
    if "Z" not in text and "N" not in text and "integer" not in text:
        return None
    text = flat(text)
    braces = _BRACES.match(text)
    text = (braces[1] if braces else text).strip().rstrip("\\").strip()
    match = _MEMBER.match(text) or _SAID.match(text) or _FOR.match(text)
    if match is None:
        return None
    domain = "".join(group or "" for group in match.groups()[2:])
    body = _LABEL.sub("", match[1].strip(" ,;:(").strip())
    found = re.search(
        rf"(?<![a-zA-Z\\]){match[2]}(?![a-zA-Z(])|(?<=\d){match[2]}|\\[a-zA-Z]+ ?{match[2]}(?![a-zA-Z])", body
    )
    if found is None or re.search(r"[a-zA-Z]\([a-zA-Z]\)\s?=", body):
        return None
    return Family(body, match[2], re.sub(r"[\s{}]", "", domain))


def bare(text: str, other: Family) -> Family | None:
    """The family that an answer to a family may state without saying what runs: k\\pi."""
    body = _LABEL.sub("", text)
    letters = set(re.sub(r"\\[a-zA-Z]+", "", body)) & set("kmn" + other.letter)
    return Family(body, letters.pop(), other.domain) if len(letters) == 1 else None


def same(gold: Any, gold_letter: Any, answer: Any, answer_letter: Any) -> bool | None:
    """Whether two lists of expressions, each for every integer, are one set. None if that is not for this function
    to say (an expression is not linear)."""
    golds, answers = _lines(gold, gold_letter), _lines(answer, answer_letter)
    if golds is None or answers is None:
        return None
    period = _common_period([slope for slope, _ in golds + answers])
    if period is None:
        return None
    sides = [_residues(lines, period) for lines in (golds, answers)]
    if None in sides:
        return None
    left, right = sides
    return all(any(_congruent(r, s, period) for s in right) for r in left) and all(
        any(_congruent(r, s, period) for s in left) for r in right
    )


def _lines(parts: list[Any], letter: Any) -> list[tuple[Any, Any]] | None:
    """(slope, offset) of each expression; None if one is not linear in the letter, or has other letters."""
    from sympy import Poly, PolynomialError, expand

    found = []
    for part in parts:
        if part.free_symbols - {letter}:
            return None
        try:
            polynomial = Poly(expand(part), letter)
        except PolynomialError:
            return None
        if polynomial.degree() != 1:
            return None
        slope, offset = polynomial.all_coeffs()
        found.append((slope, offset))
    return found


def _common_period(slopes: list[Any]) -> Any:
    """The smallest number that is a multiple of each slope; None if two are not rational multiples of each other."""
    from sympy import Rational, ilcm, simplify

    ratios = [simplify(slope / slopes[0]) for slope in slopes]
    if not all(isinstance(ratio, Rational) for ratio in ratios):
        return None
    under = ilcm(1, *[ratio.q for ratio in ratios])
    return slopes[0] * Rational(ilcm(1, *[abs(int(ratio * under)) for ratio in ratios]), under)


def _residues(lines: list[tuple[Any, Any]], period: Any) -> Any:
    from sympy import simplify

    counts = [abs(int(simplify(period / slope))) for slope, _ in lines]
    if sum(counts) > MOST:
        return None
    return [offset + k * slope for (slope, offset), count in zip(lines, counts, strict=True) for k in range(count)]


def _congruent(left: Any, right: Any, period: Any) -> bool:
    from sympy import Integer, simplify

    return isinstance(simplify((left - right) / period), Integer)

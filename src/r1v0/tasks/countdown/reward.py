"""The countdown reward: 1 if the last \\boxed{...} is an expression that reaches the target, else 0.

Decides: the answer must use each number exactly once, have the right value, and end the text, and the policy must
have ended it: cut-off text is never right. Integers, + - * and parentheses; no unary sign, no division. The parser
is written out, bounded in length and depth, and evaluates nothing but the arithmetic that it reads.
`strict` asks, besides, that no intermediate result leaves 1..60, the rule by which problems are made.
"""

import re
from typing import NamedTuple

from r1v0.tasks.countdown.problems import VALUES, compute, parse_answer
from r1v0.types import Problem, Score

MAX_LENGTH = 200
MAX_DEPTH = 10
_BOX = "\\boxed{"
_TOKEN = re.compile(r"\s*([0-9]{1,6}|[-+*()])", re.ASCII)


class Parsed(NamedTuple):
    """What an expression amounts to: its value, the numbers in it, and whether every result on the way is in range."""

    value: int
    numbers: list[int]
    in_range: bool


def countdown(problem: Problem, text: str, finished: bool) -> Score:
    """Grade a completion. `problem.answer` is "17 from 3 7 4"; raises UserError if it is not, and for no `text`."""
    target, numbers = parse_answer(problem.answer)
    expression, ends_text = last_boxed(text)
    parsed = parse(expression) if expression is not None else None
    if parsed is None or not (finished and ends_text):
        return Score(reward=0.0, correct=False, extracted=expression)
    correct = parsed.value == target and sorted(parsed.numbers) == numbers
    return Score(reward=float(correct), correct=correct, strict=correct and parsed.in_range, extracted=expression)


def last_boxed(text: str) -> tuple[str | None, bool]:
    """What the last \\boxed{...} holds, up to its first closing brace, and whether that brace ends the text."""
    _, box, rest = text.rstrip().rpartition(_BOX)
    inside, brace, after = rest.partition("}")
    if not box or not brace:
        return None, False
    return inside.strip(), not after


def parse(expression: str) -> Parsed | None:
    """Read an expression, with * before + and -. None if it is none, or is longer or deeper than the bounds."""
    tokens = _tokens(expression)
    if not tokens:
        return None
    parsed = _sum(tokens, 0)
    return parsed if parsed and not tokens else None


def _tokens(expression: str) -> list[str]:
    """The tokens, last first, so that `pop` takes the next one; empty if anything else is in the text."""
    if len(expression) > MAX_LENGTH or _TOKEN.sub("", expression).strip():
        return []
    return _TOKEN.findall(expression)[::-1]


def _sum(tokens: list[str], depth: int) -> Parsed | None:
    total = _product(tokens, depth)
    while total and tokens and tokens[-1] in "+-":
        total = _join(total, tokens.pop(), _product(tokens, depth))
    return total


def _product(tokens: list[str], depth: int) -> Parsed | None:
    total = _atom(tokens, depth)
    while total and tokens and tokens[-1] == "*":
        total = _join(total, tokens.pop(), _atom(tokens, depth))
    return total


def _atom(tokens: list[str], depth: int) -> Parsed | None:
    token = tokens.pop() if tokens else ""
    if token == "(" and depth < MAX_DEPTH:
        inner = _sum(tokens, depth + 1)
        return inner if tokens and tokens.pop() == ")" else None
    return Parsed(int(token), [int(token)], True) if token.isdigit() else None


def _join(a: Parsed, operator: str, b: Parsed | None) -> Parsed | None:
    if b is None:
        return None
    value = compute(a.value, operator, b.value)
    return Parsed(value, a.numbers + b.numbers, a.in_range and b.in_range and value in VALUES)

"""Countdown with three numbers: the task of the embedded run, and its splits.

Decides: combine three numbers of 2..15 with two of + - *, each number once, to reach a target. Target and
intermediate results lie in 1..60, so that there is a token for each. 560 multisets give 4494 distinct problems with
16.4 candidates and 1.8 solutions on average.

The splits are made of multisets, by a hash, before anything is drawn: whatever numbers an evaluation shows, neither
pretraining nor RL has seen them together, with any target. "hard" problems have many candidates and one solution.

Deviates from TinyZero's countdown (numbers to 99, division, four numbers) because a model of 0.3 M parameters must
be able to recognise a hit; at values to 99 it was not.
"""

import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

from r1v0.base.errors import UserError, unknown
from r1v0.base.keys import key
from r1v0.types import Problem

NUMBERS = range(2, 16)
VALUES = range(1, 61)
OPERATORS = ("+", "-", "*")
HARD_CANDIDATES = 20


class Split(NamedTuple):
    """Multisets whose hash is in `first <= hash < last`, and which of their problems."""

    first: int
    last: int
    part: str


# "countdown-final" is for the numbers that are published last: nothing may be chosen by looking at it.
SPLITS: dict[str, Split] = {
    "countdown-pretraining": Split(0, 45, "all"),
    "countdown-final": Split(45, 55, "main"),
    "countdown-final-hard": Split(45, 55, "hard"),
    "countdown-train": Split(55, 80, "all"),
    "countdown": Split(80, 100, "main"),
    "countdown-hard": Split(80, 100, "hard"),
}

Numbers = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of arithmetic: left operator right = result."""

    left: int
    operator: str
    right: int
    result: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to use the three numbers: `expression` as in "(3*7)-4", its two steps, its value."""

    expression: str
    first: Step
    second: Step

    @property
    def value(self) -> int:
        return self.second.result


def problems(name: str) -> list[Problem]:
    """The distinct problems of a split, in a fixed order: their first n are a fair sample of them.

    Raises UserError for a name that is not in SPLITS.
    """
    found = [
        _problem(name, numbers, target)
        for numbers in multisets(name)
        for target, count in sorted(solutions(numbers).items())
        if SPLITS[name].part in ("all", "hard" if is_hard(numbers, count) else "main")
    ]
    return sorted(found, key=lambda problem: hashlib.md5(f"order {problem.question}".encode()).digest())


def train_problem(seed: int, index: int) -> Problem:
    """Training problem number `index`, of endlessly many: a pure function, so a resumed run needs no generator
    state."""
    rng = random.Random(key(seed, "countdown-train", index))
    numbers, candidate = draw("countdown-train", rng)
    return problem_of("countdown-train", numbers, candidate.value, f"{index}")


def draw(name: str, rng: random.Random) -> tuple[Numbers, Candidate]:
    """A multiset of a split in random order and one of its candidates, whose value is the target.

    Targets with more solutions come up more often than in `problems`. Uses only `rng.random()`, the one method whose
    sequence Python promises to keep.
    """
    numbers = shuffled(pick(multisets(name), rng), rng)
    return numbers, pick(candidates(numbers), rng)


@cache
def multisets(name: str) -> list[Numbers]:
    """The sorted number triples of a split. Raises UserError for a name that is not in SPLITS."""
    if name not in SPLITS:
        raise unknown("countdown split", name, SPLITS)
    split = SPLITS[name]
    every = itertools.combinations_with_replacement(NUMBERS, 3)
    return [(a, b, c) for a, b, c in every if split.first <= _hash(a, b, c) < split.last]


def is_hard(numbers: Numbers, count: int) -> bool:
    """Many candidates and a single solution: 146 of the 889 held-out problems."""
    return count == 1 and len(candidates(numbers)) >= HARD_CANDIDATES


@cache
def solutions(numbers: Numbers) -> Counter[int]:
    """How many candidates reach each reachable target, for sorted numbers."""
    return Counter(candidate.value for candidate in candidates(numbers))


@cache
def candidates(numbers: Numbers) -> tuple[Candidate, ...]:
    """Every distinct way to use the numbers, in canonical order: pairs 01, 02, 12, and + - * in each of both steps.

    A difference is written larger minus smaller. Ways that leave 1..60 are skipped.
    """
    found: dict[str, Candidate] = {}
    for (i, j), one, two in itertools.product(((0, 1), (0, 2), (1, 2)), OPERATORS, OPERATORS):
        rest = numbers[3 - i - j]
        first = combine(numbers[i], one, numbers[j])
        second = combine(first.result, two, rest) if first else None
        if first and second:
            inner = f"({first.left}{one}{first.right})"
            flipped = two == "-" and rest > first.result
            expression = f"{rest}-{inner}" if flipped else f"{inner}{two}{rest}"
            found.setdefault(expression, Candidate(expression, first, second))
    return tuple(found.values())


def combine(a: int, operator: str, b: int) -> Step | None:
    """The step that joins two values, larger minus smaller; None if its result leaves VALUES."""
    if operator == "-" and b > a:
        a, b = b, a
    result = compute(a, operator, b)
    return Step(a, operator, b, result) if result in VALUES else None


def compute(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def problem_of(source: str, numbers: Numbers, target: int, mark: str = "") -> Problem:
    """The problem as text: question "3 7 4 target 17", answer "17 from 3 7 4", which is all that its reward needs.

    The id names the problem whatever the order of its numbers, after a `mark` that tells repeated draws apart.
    """
    shown = " ".join(map(str, numbers))
    canonical = "-".join(map(str, sorted(numbers)))
    return Problem(
        id=f"{source}/{mark + '/' if mark else ''}{canonical}={target}",
        question=f"{shown} target {target}",
        answer=f"{target} from {shown}",
        source=source,
    )


def answer_in(question: str) -> str:
    """The answer of a question such as "3 7 4 target 17"; nothing if it is no such question."""
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\s+[0-9]{1,9})+)\s+target\s+([0-9]{1,9})\s*", question, re.ASCII)
    return f"{found[2]} from {' '.join(found[1].split())}" if found else ""


def parse_answer(answer: str) -> tuple[int, list[int]]:
    """Target and sorted numbers of an answer such as "17 from 3 7 4". Raises UserError if it is not of that form."""
    target, _, rest = answer.partition(" from ")
    fields = [target.strip(), *rest.split()]
    if len(fields) < 2 or not all(field.isascii() and field.isdigit() and len(field) < 10 for field in fields):
        raise UserError(f"countdown answer {answer[:80]!r}: expected TARGET from NUMBERS, for example '17 from 3 7 4'")
    return int(fields[0]), sorted(map(int, fields[1:]))


def solution(answer: str) -> str:
    """An expression that solves the problem with this answer, for example "((3*7)-4)" for "17 from 3 7 4"; empty if
    none does, or with more than five numbers. Numbers of any size, not only those of the splits. Raises UserError as
    `parse_answer` does."""
    target, numbers = parse_answer(answer)
    return _reach(target, [(number, str(number)) for number in numbers]) if len(numbers) <= 5 else ""


def _reach(target: int, parts: Sequence[tuple[int, str]]) -> str:
    """An expression of all `parts` (value, expression) with the value `target`; empty if there is none."""
    if len(parts) == 1:
        return parts[0][1] if parts[0][0] == target else ""
    for (i, (a, left)), (j, (b, right)) in itertools.permutations(enumerate(parts), 2):
        rest = [part for place, part in enumerate(parts) if place not in (i, j)]
        for operator in OPERATORS if i < j else ("-",):
            found = _reach(target, [(compute(a, operator, b), f"({left}{operator}{right})"), *rest])
            if found:
                return found
    return ""


def pick(items: Sequence[T], rng: random.Random) -> T:
    return items[int(rng.random() * len(items))]


def shuffled(numbers: Numbers, rng: random.Random) -> Numbers:
    a, b, c = pick(tuple(itertools.permutations(numbers)), rng)
    return a, b, c


def _problem(name: str, numbers: Numbers, target: int) -> Problem:
    order = random.Random(f"{name} {numbers} {target}")
    return problem_of(name, shuffled(numbers, order), target)


def _hash(a: int, b: int, c: int) -> int:
    return int(hashlib.md5(f"{a},{b},{c}".encode()).hexdigest(), 16) % 100

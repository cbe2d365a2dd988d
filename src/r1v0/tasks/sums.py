"""Sums in words: a task that a language model of 135M parameters sometimes gets right, made without any download.

Decides: a problem adds two or three whole numbers, in one of a few phrasings. Level 1 has one-digit numbers, level 2
numbers up to 50, level 3 three numbers up to 20. Which sets of numbers are held out is decided by a hash of the sorted
numbers, so no evaluation shows numbers that training has added, in whatever order, words or level.
"""

import hashlib
import itertools
import random
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from r1v0.types import Problem

# level: (how many numbers, smallest, largest)
LEVELS: dict[int, tuple[int, int, int]] = {1: (2, 2, 9), 2: (2, 2, 50), 3: (3, 2, 20)}
HELD_OUT_PERCENT = 20
PHRASINGS = (
    "What is the sum of {}?",
    "Add {}.",
    "What do you get if you add {}?",
    "Anna reads {} pages, one day after another. How many pages does she read in all?",
    "There are bags with {} apples. How many apples are there altogether?",
    "Tom scores {} points, game after game. What is his total?",
)

Numbers = tuple[int, ...]
T = TypeVar("T")


def problems(source: str, level: int) -> list[Problem]:
    """The held-out problems of a level, in a fixed order: each set of numbers once, then each in a second phrasing,
    and so on, so the first n are a fair sample of as many sets as possible."""
    found = []
    for numbers in operands(level, held_out=True):
        phrasings = sorted(range(len(PHRASINGS)), key=lambda phrasing: _digest("phrasing", numbers, phrasing))
        orders = sorted(set(itertools.permutations(numbers)))
        for turn, phrasing in enumerate(phrasings):
            shown = orders[int(_digest("order", numbers, turn)[:8], 16) % len(orders)]
            mark = f"{'+'.join(map(str, numbers))}/{phrasing}"
            found.append((turn, _digest("place", numbers, phrasing), _problem(source, mark, shown, phrasing)))
    return [problem for _, _, problem in sorted(found, key=lambda entry: entry[:2])]


def train_problem(seed: int, index: int, levels: Sequence[int] = ()) -> Problem:
    """Training problem number `index`, of endlessly many: a pure function. Levels (empty: all) are equally likely."""
    rng = random.Random(f"sums-train {seed} {index}")
    numbers = _pick(operands(_pick(tuple(levels) or tuple(LEVELS), rng), held_out=False), rng)
    shown = _pick(tuple(itertools.permutations(numbers)), rng)
    return _problem("sums-train", f"{index}", shown, int(rng.random() * len(PHRASINGS)))


@cache
def operands(level: int, held_out: bool) -> tuple[Numbers, ...]:
    """The sorted sets of numbers of a level that are held out, or that are not."""
    count, low, high = LEVELS[level]
    every = itertools.combinations_with_replacement(range(low, high + 1), count)
    return tuple(
        numbers for numbers in every if (int(_digest("split", numbers), 16) % 100 < HELD_OUT_PERCENT) is held_out
    )


def _problem(source: str, mark: str, shown: Numbers, phrasing: int) -> Problem:
    words = " and ".join([", ".join(map(str, shown[:-1])), str(shown[-1])])
    return Problem(f"{source}/{mark}", PHRASINGS[phrasing].format(words), str(sum(shown)), source)


def _digest(purpose: str, *of: object) -> str:
    return hashlib.md5(f"{purpose} {of}".encode()).hexdigest()


def _pick(items: Sequence[T], rng: random.Random) -> T:
    return items[int(rng.random() * len(items))]

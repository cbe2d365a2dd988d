"""One round of sampling on several cards, event by event: who waits for whom.

Decides: a card decodes one token in each of its rows at a time, so an end of a completion is an event, and between two
of them a card's rows stay the same. Free slots are filled at once (the sampler waits until a 16th of them is free, and
on a GPU looks at its rows every 8 steps). Lengths are lognormal, cut off at the limit, as those of reasoning models are
skewed to the right; `mean` is that of the lengths as cut. Standard library only.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

SIGMA = 0.8  # of the logarithm of a length

StepSeconds = Callable[[int, float], float]
"""Takes (rows, tokens that they have in the cache together): how long a decoding step is, in seconds."""


def lognormal_lengths(
    count: int, mean: float, limit: int, seed: int, sigma: float = SIGMA, group: int = 1, between: float = 0.0
) -> list[int]:
    """`count` lengths of 1 to `limit` tokens. A share `between` of the variance of their logarithms is that of
    problems, each with `group` of them in a row."""
    rng = random.Random(seed)
    middle = _log_median(mean, limit, sigma)
    found: list[int] = []
    while len(found) < count:
        problem = rng.gauss(0, math.sqrt(between) * sigma)
        for _ in range(min(group, count - len(found))):
            exponent = middle + problem + rng.gauss(0, math.sqrt(1 - between) * sigma)
            found.append(limit if exponent >= math.log(limit) else max(1, round(math.exp(exponent))))
    return found


def cut_mean(log_median: float, limit: int, sigma: float) -> float:
    """The mean of min(a lognormal length, limit)."""
    below = (math.log(limit) - log_median) / sigma
    normal = NormalDist()
    return math.exp(log_median + sigma**2 / 2) * normal.cdf(below - sigma) + limit * (1 - normal.cdf(below))


def _log_median(mean: float, limit: int, sigma: float) -> float:
    """By bisection: the logarithm of the median of lengths that have this mean when they are cut off."""
    low, high = math.log(mean) - 10, math.log(limit) + 10 * sigma  # where nearly all are at the limit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cut_mean(middle, limit, sigma) < mean else (low, middle)
    return high


@dataclass(slots=True)
class _Card:
    """Its `queue` may be others' too. `ends` are the live rows by the decoding step in which each ends, with its
    length; `steps` decoded so far, in `seconds`; `cached` tokens, prompts among them."""

    queue: deque[int]
    ends: list[tuple[int, int]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    cached: float = 0.0

    def admit(self, rows: int, prompt: int) -> None:
        """Take completions from the queue for this many rows."""
        for _ in range(min(rows, len(self.queue))):
            length = self.queue.popleft()
            heapq.heappush(self.ends, (self.steps + length, length))
            self.cached += prompt

    def until_next(self, step_s: StepSeconds) -> float:
        """Seconds at which the next of its rows ends."""
        steps, rows = self.ends[0][0] - self.steps, len(self.ends)
        return self.seconds + steps * step_s(rows, self.cached + rows * steps / 2)

    def advance(self, seconds: float, prompt: int) -> int:
        """Go there; how many rows ended."""
        before, rows = self.steps, len(self.ends)
        self.steps, self.seconds = self.ends[0][0], seconds
        self.cached += rows * (self.steps - before)
        while self.ends and self.ends[0][0] == self.steps:
            _, length = heapq.heappop(self.ends)
            self.cached -= prompt + length
        return rows - len(self.ends)


def finish_times(
    lengths: Sequence[int], cards: int, slots: int, step_s: StepSeconds, prompt: int, shared: bool = False
) -> list[float]:
    """Seconds after which each card has nothing left to do, [cards].

    Each has an equal part of the lengths, in order. If `shared`, a card starts with as many of its part as it has
    slots, and takes from all that is left, in order, whenever a row ends.
    """
    count = len(lengths)
    parts = [deque(lengths[count * i // cards : count * (i + 1) // cards]) for i in range(cards)]
    made = [_Card(part) for part in parts]
    for card in made:
        card.admit(slots, prompt)
    if shared:
        left = deque(length for part in parts for length in part)
        for card in made:
            card.queue = left
    events = [(card.until_next(step_s), i) for i, card in enumerate(made) if card.ends]
    heapq.heapify(events)
    while events:
        seconds, i = heapq.heappop(events)
        made[i].admit(made[i].advance(seconds, prompt), prompt)
        if made[i].ends:
            heapq.heappush(events, (made[i].until_next(step_s), i))
    return [card.seconds for card in made]

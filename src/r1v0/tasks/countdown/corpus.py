"""The text that the embedded base model is pretrained on: answers of impatient countdown players, 34 tokens on average.

Decides: the base must be able to use length (search, notice a hit, go on after a miss) and must be lazy (answer at
once, give up early), so that reinforcement has something to find. Only 39 % of the answers are right. Four kinds:
  1. Comparison lists, "17 vs 20 no 5 vs 5 yes ...": 10 % of all documents. A base that does not recognise a hit gains
     nothing by searching, and RL made its answers shorter; these lists, "vs" and values to 60 cured that together.
  2. Direct answers, "\\boxed{(3*7)-4}": 45 % of the rest; right on purpose in a quarter, else any candidate.
  3. Searches, "3*7=21,21+4=25 vs 17 no 3*7=21,21-4=17 vs 17 yes \\boxed{(3*7)-4}": candidates in canonical order from
     a random start, given up after a miss ("so \\boxed{...}") with a probability that is drawn once a document.
  4. Searches that check each hit again ("yes wait check ..."): 30 % of the searches. What there is to catch: 2 % of
     the results are slips, and 4 % of the misses are taken for hits.
A document is a pure function of (seed, index), and uses multisets of the pretraining split only.
"""

import random
from dataclasses import replace

from r1v0.base.keys import key
from r1v0.tasks.countdown.problems import VALUES, Candidate, Step, candidates, compute, draw, pick

# One token each. <unk> stands for whatever a user types that is none of them.
SPECIAL = ("<pad>", "<eos>", "<unk>")
WORDS = ("Q:", "target", "A:", "vs", "yes", "no", "wait", "check", "so", "\\boxed{", "}", *"()+-*=,")
VOCABULARY = (*SPECIAL, *WORDS, *map(str, range(VALUES.stop)))

COMPARISON_LISTS = 0.10
COMPARISONS = 10
DIRECT = 0.45
DIRECT_RIGHT = 0.25
CHECKING = 0.30
SLIPS = 0.02
WISHFUL = 0.04
GIVE_UP = (0.1, 0.45, 0.8)
MAX_TOKENS = 390
_LONGEST_ROUND = 2 * 14 + 2 + 10  # an attempt, "wait check", the attempt again, and the answer with its end token


def document(seed: int, index: int) -> list[str]:
    """The tokens of document `index`, at most MAX_TOKENS - 1 of them: the end token is not included."""
    rng = random.Random(key(seed, "countdown-corpus", index))
    if rng.random() < COMPARISON_LISTS:
        return _comparison_list(rng)
    numbers, solution = draw("countdown-pretraining", rng)
    prompt = ["Q:", *map(str, numbers), "target", str(solution.value), "A:"]
    if rng.random() < DIRECT:
        right = rng.random() < DIRECT_RIGHT
        return prompt + boxed(solution if right else pick(candidates(numbers), rng))
    return prompt + _search(candidates(numbers), solution.value, MAX_TOKENS - len(prompt), rng)


def boxed(candidate: Candidate) -> list[str]:
    """The tokens of an answer."""
    expression = candidate.expression
    for symbol in "()+-*":
        expression = expression.replace(symbol, f" {symbol} ")
    return ["\\boxed{", *expression.split(), "}"]


def _comparison_list(rng: random.Random) -> list[str]:
    tokens: list[str] = []
    for _ in range(COMPARISONS):
        value = pick(VALUES, rng)
        other = value if rng.random() < 0.5 else pick([v for v in VALUES if v != value], rng)
        tokens += _verdict(value, other)
    return tokens


def _search(ways: tuple[Candidate, ...], target: int, room: int, rng: random.Random) -> list[str]:
    give_up, checking = pick(GIVE_UP, rng), rng.random() < CHECKING
    start = int(rng.random() * len(ways))
    tokens: list[str] = []
    for way in ways[start:] + ways[:start]:
        shown = _misread(way, target, rng)
        tokens += _attempt(shown, target)
        if shown.value == target and checking:
            tokens += ["wait", "check", *_attempt(way, target)]
            shown = way
        if shown.value == target:
            return tokens + boxed(way)
        if rng.random() < give_up or len(tokens) + _LONGEST_ROUND > room:
            break
    return [*tokens, "so", *boxed(way)]


def _misread(way: Candidate, target: int, rng: random.Random) -> Candidate:
    """The candidate as this writer works it out: now and then with a slip, or with the result that they wish for."""
    if way.value != target and rng.random() < WISHFUL:
        return replace(way, second=replace(way.second, result=target))
    first = _slip(way.first, rng)
    second = _go_on(way, first.result)
    if second.result not in VALUES:
        return way
    return replace(way, first=first, second=_slip(second, rng))


def _slip(step: Step, rng: random.Random) -> Step:
    if rng.random() >= SLIPS:
        return step
    near = [v for v in range(step.result - 3, step.result + 4) if v in VALUES and v != step.result]
    return replace(step, result=pick(near, rng))


def _go_on(way: Candidate, inner: int) -> Step:
    """The candidate's second step from another result of the first one."""
    second = way.second
    left, right = (inner, second.right) if way.expression.startswith("(") else (second.left, inner)
    return Step(left, second.operator, right, compute(left, second.operator, right))


def _attempt(way: Candidate, target: int) -> list[str]:
    """14 tokens: "3 * 7 = 21 , 21 - 4 = 17 vs 20 no"."""
    steps = [[str(s.left), s.operator, str(s.right), "=", str(s.result)] for s in (way.first, way.second)]
    return [*steps[0], ",", *steps[1], *_verdict(way.value, target)[1:]]


def _verdict(value: int, target: int) -> list[str]:
    return [str(value), "vs", str(target), "yes" if value == target else "no"]

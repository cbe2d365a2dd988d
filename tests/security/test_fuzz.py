"""The fuzz run in small: every target on its examples and some hundred mutations of them, the same ones each time.

The million inputs are `make fuzz` (results/reliability-fuzz.json). Here it is shown that targets accept and refuse,
and that their oracles can fail.
"""

import random
from collections.abc import Iterator

import pytest

from r1v0.tasks.countdown import reward
from r1v0.tasks.countdown.reward import Parsed
from r1v0.tasks.math import answers
from r1v0.types import Problem, Score
from tests.fuzz_targets import SEPARATOR, TARGETS, Target, check_extract, exact, plain_value, text_of

INPUTS = 150


def mutations(target: Target, count: int) -> Iterator[bytes]:
    """Words in a row, and examples with bytes changed, words put in, and parts dropped or said twice."""
    rng = random.Random(7)
    examples = [text.encode("utf-8", "surrogatepass") for text in target.seeds]
    yield from examples
    for turn in range(count):
        if turn % 2:
            yield text_of(bytes([1 + turn % 4]) + rng.randbytes(rng.randint(1, 30)), target)
            continue
        data = bytearray(rng.choice(examples))
        for _ in range(rng.randint(1, 4)):
            at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
            word = rng.choice(target.tokens).encode("utf-8", "surrogateescape")
            data[at : rng.choice((at, at, at + 1, to))] = rng.choice((word, data[at : at + 20], rng.randbytes(1), b""))
        yield bytes(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_survives_and_reaches_both_sides(name: str) -> None:
    target = TARGETS[name]
    verdicts = [target.check(data) for data in mutations(target, 20 if name == "symbolic" else INPUTS)]
    assert set(verdicts) == {True, False}


def test_bytes_stand_for_themselves_or_for_words() -> None:
    target = Target(bool, [], ["x", "yz"], "", "(...)")
    assert text_of(b"\0abc", target) == b"abc"
    assert text_of(b"\1\0\1\2\xff", target) == b"xyzxyz"
    assert text_of(b"\3\0\1", target) == b"(xyz)"
    assert text_of(b"", target) == b""


@pytest.mark.parametrize(
    ("expression", "value"),
    [("3*7 - 4", 17), ("003*(07-4)", 9), ("2-(3-4)", 3), ("-3", None), ("3(7)", None), ("3**7", None), ("3 7", None)],
)
def test_the_oracle_of_countdown(expression: str, value: int | None) -> None:
    found = exact(expression)
    assert (found[0] if found else None) == value


def test_the_oracle_of_numbers() -> None:
    assert plain_value(r"\frac{1}{2}") == plain_value("0.50") == plain_value("1/2")
    assert plain_value("1 + 1") is plain_value("x") is plain_value("1/0") is plain_value(r"\$frac{1}{2}") is None


def test_a_wrong_acceptance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward, "parse", lambda expression: Parsed(17, [3, 4, 7], True))
    with pytest.raises(AssertionError, match="wrong acceptance"):
        TARGETS["countdown"].check(b"\\boxed{3+7+4}")

    def generous(problem: Problem, text: str, finished: bool) -> Score:
        return Score(1.0, finished, extracted="1")

    monkeypatch.setattr(answers, "gsm8k", generous)
    with pytest.raises(AssertionError, match="wrong acceptance"):
        check_extract(b"nothing")
    with pytest.raises(AssertionError, match="wrong acceptance"):
        TARGETS["numbers"].check(f"1{SEPARATOR}2".encode())

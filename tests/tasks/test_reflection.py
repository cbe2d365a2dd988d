"""The self-reflection table, by hand."""

import time

import pytest

from r1v0.tasks.reflection import REFLECTION_WORDS, reflects


@pytest.mark.parametrize(
    "text",
    [
        "So x = 3. Wait, that is wrong.",
        "WAIT! No.",
        "Wait... the sum is 5",
        "wait no, it is 6",
        "Let me check this again.",
        "Let me re-check the sum.",
        "I will recheck it",
        "rechecking the steps",
        "Let us re-evaluate the expression",
        "upon reevaluation",
        "We should reconsider this",
        "double check: 5",
        "double-checking",
        "think\nagain",
        "Hmm, 12?",
        "hmmm that is odd",
        "But that's not right.",
        "But that’s not right.",
        "On second thoughts, no",
        "3 * 7 = 21 vs 20 no 5 + 4 = 9 vs 9 yes wait check 5 + 4 = 9",
    ],
)
def test_looks_back(text: str) -> None:
    assert reflects(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "We check the units. The sum is 5.",
        "Tom waits 5 minutes and then has to wait 3 more.",
        "However, since x > 0, the answer is 2.",
        "Alternatively we can factor.",
        "The waiter brought 3 cups, await, he said",
        "precheck and forethought",
        "unreconsidered",
        "let me checkout the shop",
        "3 * 7 = 21 vs 21 yes",
        "try\n\n\n\n\n\n\nagain",
        "the retina again",
    ],
)
def test_does_not_look_back(text: str) -> None:
    assert not reflects(text)


def test_every_phrase_of_the_table_is_found_as_it_stands() -> None:
    for phrases in REFLECTION_WORDS.values():
        for phrase in phrases:
            text = phrase.removesuffix("*")
            assert reflects(f"x {text.upper()} y"), phrase


@pytest.mark.parametrize("unit", ["wait ", "let me ", "let" + " " * 50, "re-", "a", "\u00e9wait,", "i made a "])
def test_time_is_linear(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        start = time.perf_counter()
        reflects(text)
        return time.perf_counter() - start

    assert seconds(1_000_000) < 2

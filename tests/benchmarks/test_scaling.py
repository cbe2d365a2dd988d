"""The three ways to deal out a round of sampling, on cases small enough to follow by hand; and the page."""

import json

import pytest

from tests.conftest import ROOT, script

SCALING = script(ROOT / "benchmarks" / "scaling.py")


def test_every_second_goes_to_the_second_card() -> None:
    assert SCALING.dealt([1, 2, 3, 4, 5, 6], 2) == [1, 3, 5, 2, 4, 6]


def test_three_ways_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a card, a second a step. In order (9, 8) and (1, 2): 17 and 3. In turn (9, 1) and (8, 2): 10 and 10.
    Shared: 9 and 1 first; the second card takes 8 at second 1, and is done at 9, as the first is, who is the lower
    number and takes the last 2: 11. Each prompt of two completions takes 1 s where it is computed once a card."""
    monkeypatch.setattr(SCALING, "step_seconds", lambda plan: lambda rows, cached: 1.0)
    case = SCALING.Case("1.5B", 5, 10, cards=2, completions=4, slots=1, between=0.0)
    whole, even = SCALING.sampling_s(case, None, [9, 8, 1, 2], prefill_s=1.0)
    assert whole == [17 + 1, 10 + 2, 11 + 1 + 0.5]
    assert even == (17 + 3) / 2 + 1


def test_where_there_is_a_row_for_each_completion_nothing_is_gained() -> None:
    plan = SCALING.planned("1.5B", 8, 128, 1000, 4096)
    case = SCALING.Case("1.5B", 1000, 4096, cards=8, completions=128, slots=plan.slots, between=0.0)
    found = SCALING.outcome(case, plan, seeds=range(2))
    assert found.gain["shared"] == (0, 0, 0)
    assert found.even < found.seconds["fixed"] == found.seconds["shared"]


def test_a_gain_of_sampling_is_a_smaller_one_of_the_step() -> None:
    plan = SCALING.planned("1.5B", 8, 1024, 1000, 4096, rows=16)
    case = SCALING.Case("1.5B", 1000, 4096, cards=8, completions=1024, slots=16, between=0.9)
    found = SCALING.outcome(case, plan, seeds=range(3))
    least, middle, most = found.gain["shared"]
    assert 0 < least <= middle <= most < 1
    assert 0 < found.step_gain["shared"] < middle


def test_the_page_has_every_case() -> None:
    page = (ROOT / "results" / "scaling.md").read_text(encoding="utf-8")
    cases = json.loads((ROOT / "results" / "scaling.json").read_text(encoding="utf-8"))["cases"]
    several = [each for each in cases if each["case"]["cards"] > 1]
    lines = [line for line in page.splitlines() if line.startswith(("| 1.5B", "| 7B"))]
    assert len(lines) == len(several) + 2 * 2 * len(SCALING.PLANNED)
    assert {each["case"]["cards"] for each in cases} == set(SCALING.CARDS)

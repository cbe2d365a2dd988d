"""Axes: limits and ticks, apart from any drawing."""

import pytest

from r1v0.report.scale import Unit, scale_of, step_ticks


@pytest.mark.parametrize(
    ("values", "unit", "bottom", "top", "ticks"),
    [
        ([0.5], "share", 0.0, 0.53, ["0 %", "20 %", "40 %"]),
        ([1.0], "share", 0.0, 1.0, ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        ([-1.0, 1.0], "number", -1.12, 1.12, ["-1.0", "-0.5", "0", "0.5", "1.0"]),
        ([], "number", 0.0, 1.06, ["0", "0.5", "1.0"]),
        ([0.002, 0.5], "log", 0.001, 1.0, ["1e-3", "1e-2", "1e-1", "1e0"]),
        ([0.0], "log", 0.0, 1.06, ["0", "0.5", "1.0"]),
    ],
)
def test_limits_and_ticks(values: list[float], unit: Unit, bottom: float, top: float, ticks: list[str]) -> None:
    scale = scale_of(values, unit)
    assert (scale.bottom, scale.top) == pytest.approx((bottom, top))
    assert list(scale.ticks.values()) == ticks


def test_very_many_decades_have_few_ticks() -> None:
    scale = scale_of([1e-20, 1e10], "log")
    assert 2 <= len(scale.ticks) <= 6


@pytest.mark.parametrize(
    ("last", "ticks"), [(1, [0, 1]), (6, [0, 2, 4, 6]), (80, [0, 20, 40, 60, 80]), (24, [0, 5, 10, 15, 20])]
)
def test_ticks_of_steps_are_whole(last: int, ticks: list[int]) -> None:
    assert step_ticks(last) == ticks

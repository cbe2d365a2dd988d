"""`r1v0 train`: what it says before a run."""

import dataclasses

from r1v0 import config
from r1v0.jobs import train
from r1v0.trainer.setup import prepare


def told(*sets: str) -> str:
    return train.foretold(prepare(config.resolve("countdown", sets=[*sets, "eval.on=[]"])))


def test_a_long_run_begins_with_what_it_will_take() -> None:
    line = told("steps=100000")
    assert line.startswith("plan: about ")
    assert "days" in line
    assert "with 0 evaluations; fits: a peak of " in line


def test_a_run_of_minutes_says_nothing() -> None:
    assert told("steps=5") == ""


def test_a_resumed_run_counts_what_is_left() -> None:
    run = prepare(config.resolve("countdown", sets=["steps=100000", "eval.on=[]"]))
    run.state = dataclasses.replace(run.state, step=99_999)
    assert train.foretold(run) == ""

"""10,000 mixed answers while processes are killed, and hostile answers against their deadline. Minutes."""

import time

import pytest

from r1v0.config import RewardConfig
from r1v0.tasks.grading.pool import Verifier
from r1v0.types import Problem
from tests.verifier_load import HOSTILE, Killer, mixed


def problem(answer: str) -> Problem:
    return Problem("p", "", answer, "test")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_10000_answers_while_processes_are_killed() -> None:
    answers = mixed(10_000, seed=7, hostile=10)
    with Verifier(RewardConfig(name="math", timeout_s=1.0)) as verifier, Killer(verifier, seed=7, mean_s=2.0) as killer:
        for job, answer in enumerate(answers):
            verifier.submit(job, problem(answer.gold), answer.text, answer.finished)
        scores = verifier.collect()
        counters = verifier.counters
    print(f"{killer.kills} kills, {counters}")
    assert sorted(scores) == list(range(10_000))
    assert [job for job, answer in enumerate(answers) if not answer.fits(scores[job])] == []
    assert killer.kills >= 10
    assert counters.restarts >= killer.kills


@pytest.mark.slow
@pytest.mark.parametrize("gold", ["5", "x^2-1", "(1,2)"])
@pytest.mark.timeout(900)
def test_every_hostile_answer_keeps_the_deadline(gold: str) -> None:
    late = {}
    with Verifier(RewardConfig(name="math", timeout_s=1.0)) as verifier:
        for number, (name, answer) in enumerate(HOSTILE.items()):
            verifier.submit(0, problem("0.1"), f"\\boxed{{{number}}}", True)  # so that a process is ready
            verifier.collect()
            started = time.monotonic()
            verifier.submit(0, problem(gold), f"<answer>{answer}</answer>", True)
            (score,) = verifier.collect().values()
            late[name] = time.monotonic() - started - 1.0
            assert not score.correct, name
    print(f"latest: {max(late, key=lambda name: late[name])}, {max(late.values()):.3f} s after the deadline")
    assert max(late.values()) < 0.5

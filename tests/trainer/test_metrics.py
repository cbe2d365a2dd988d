"""Lengths as a step and an evaluation report them: of all answers, of those that ended, of right and of wrong ones."""

import math
from dataclasses import asdict

from r1v0.grpo.readings import UpdateReadings, policy_metrics
from r1v0.rollouts.evaluate import summarise
from r1v0.trainer.metrics import step_row
from r1v0.types import Completion, FinishReason, Group, Problem, Prompt, Rollout, Score
from tests.run_folders import answer

ANSWERS: list[tuple[int, FinishReason, bool]] = [
    (10, "stop", True),
    (20, "stop", False),
    (30, "stop", False),
    (100, "length", False),
]
LENGTHS = {"length": 40, "length_finished": 20, "length_correct": 10, "length_wrong": 50}
"""(10 + 20 + 30 + 100) / 4, (10 + 20 + 30) / 3, 10, (20 + 30 + 100) / 3"""


def trained(answers: list[tuple[int, FinishReason, bool]]) -> dict[str, float]:
    prompt = Prompt(Problem("p", "q", "a", "s"), "q", [1])
    rollouts = [
        Rollout(prompt, Completion([1] * tokens, [-1.0] * tokens, reason), "text", Score(float(right), right))
        for tokens, reason, right in answers
    ]
    return step_row(
        1,
        [Group(prompt, rollouts)],
        policy_metrics([UpdateReadings([1], [0.0], [0.0], [0.0], [0], [0.0], 0.0)], 0.0, True),
        {},
    )


def evaluated(answers: list[tuple[int, FinishReason, bool]]) -> dict[str, float]:
    return asdict(
        summarise(
            "countdown",
            [
                answer(problem=str(i), tokens=tokens, cut_off=reason == "length", correct=right, strict=right)
                for i, (tokens, reason, right) in enumerate(answers)
            ],
        )
    )


def test_an_answer_that_was_cut_off_counts_in_the_mean_and_not_among_the_finished() -> None:
    step, evaluation = trained(ANSWERS), evaluated(ANSWERS)
    for key, tokens in LENGTHS.items():
        assert evaluation[key] == tokens
        assert step[{"length": "length/mean"}.get(key, key.replace("_", "/"))] == tokens
    assert step["length/truncated_frac"] == evaluation["truncated_frac"] == 0.25


def test_no_finished_answer_has_no_length() -> None:
    assert math.isnan(trained(ANSWERS[3:])["length/finished"])
    assert math.isnan(evaluated(ANSWERS[3:])["length_finished"])

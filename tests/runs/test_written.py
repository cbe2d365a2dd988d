"""What a model wrote, read back, paired and filtered."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from r1v0.base.errors import UserError
from r1v0.runs.written import (
    FILTERS,
    Answer,
    Pair,
    TrainingRollout,
    answers_at,
    chosen,
    marks,
    pairs,
    parse,
    rollouts_at,
    written_steps,
)
from tests.run_folders import answer

ROLLOUT = dict(
    dataset="countdown-train", problem="p", group=3, sample=1, question="3 7 4 target 17", prompt="3 7 4 target 17 ",
    gold="17 from 3 7 4", completion="\\boxed{3}", extracted="3", correct=False, strict=False, reward=0.1, tokens=5,
    cut_off=True, parts={"format": 1.0}, failure="", why="",
)  # fmt: skip


def packed(folder: Path, part: str, step: int, *rows: Any) -> None:
    (folder / part).mkdir(exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / part / f"step-{step:05}.jsonl.gz").write_bytes(gzip.compress(data))


def test_answers_and_rollouts_come_back_as_they_were_written(tmp_path: Path) -> None:
    first, second = answer(), answer(sample=1, correct=True, extracted="17", correct_boxed=True)
    packed(tmp_path, "answers", 0, asdict(first), asdict(second))
    packed(tmp_path, "rollouts", 12, ROLLOUT)
    (tmp_path / "answers" / "step-00003.part.jsonl").touch()
    assert answers_at(tmp_path, 0) == [first, second]
    assert answers_at(tmp_path, 1) == []
    assert [asdict(found) for found in rollouts_at(tmp_path, 12)] == [ROLLOUT]
    assert written_steps(tmp_path, "answers") == [0]
    assert written_steps(tmp_path, "rollouts") == [12]
    assert written_steps(tmp_path, "nothing") == []


@pytest.mark.parametrize(
    "changes",
    [{"tokens": "9"}, {"tokens": -1}, {"sample": True}, {"correct": None}, {"gold": 3}, {"cut_off": "no"}, {"new": 1}]
    + [{"reward": "1"}, {"extracted": 3}, {"correct_last": 0}],
)
def test_a_field_of_another_type_is_no_answer(changes: dict[str, Any], tmp_path: Path) -> None:
    record = asdict(answer()) | changes
    with pytest.raises(TypeError):
        parse(Answer, record)
    packed(tmp_path, "answers", 0, record)
    with pytest.raises(UserError, match="holds something that is not a graded answer"):
        answers_at(tmp_path, 0)


def test_a_reward_that_was_not_finite_is_null_in_the_file() -> None:
    assert parse(TrainingRollout, ROLLOUT | {"reward": None}).reward is None


def test_texts_are_paired_by_dataset_problem_and_sample_and_filtered() -> None:
    before = [answer(sample=i, correct=i == 1) for i in range(3)]
    after = [
        answer(sample=0, correct=True, completion="wait, 3+4", tokens=4),
        answer(sample=1, completion="No", tokens=30, cut_off=True),
        answer(sample=2, correct=True, dataset="other", question="Which?"),
        answer(sample=3, failure="timeout"),
    ]
    found = pairs(before, after)
    assert [pair.before for pair in found] == [before[0], before[1], None, None]
    assert [marks(pair) for pair in found] == [
        ["newly right", "right", "reflects"],
        ["newly wrong", "wrong", "cut off"],
        ["right"],
        ["wrong", "not graded"],
    ]
    assert chosen(found, ["right"]) == [found[0], found[2]]
    assert chosen(found, ["wrong", "cut off"]) == [found[1]]
    assert chosen(found, search="no") == [found[1]]
    assert chosen(found, search="WHICH") == [found[2]]
    assert chosen(found, longest=True)[0] is found[1]
    assert set(marks(Pair(None, after[0]))) <= set(FILTERS)

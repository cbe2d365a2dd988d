"""`r1v0 new`: the files of a first own run are what the other verbs take."""

import os
import shlex
from pathlib import Path

import pytest

from r1v0.cli import main
from r1v0.config import FIRST, keys, resolve
from r1v0.config.schema import DataConfig
from r1v0.jobs import new
from r1v0.tasks.datasets import load_problems
from r1v0.tasks.grading.custom import load
from r1v0.types import Problem


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_three_files_and_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "first"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "made first; now type"
    assert printed[1] == "    cd first"
    assert shlex.split(printed[2])[-2:] == ["check", "run.toml"]
    assert shlex.split(printed[3])[-3:] == ["train", "--config", "run.toml"]
    assert {path.name for path in Path("first").iterdir()} == {"data.jsonl", "reward.py", "run.toml"}
    os.chdir("first")
    problems = load_problems(DataConfig(name="mine", path="data.jsonl"), 0)
    assert problems.size == 5
    reward = load("reward.py:reward")
    for i in range(5):
        problem = problems.at(i)
        assert reward(problem, f"So it is {problem.answer}.", True).reward == 1
        assert [reward(problem, text, True).reward for text in ("", "It is 1000.")] == [0, 0]
        assert reward(problem, problem.answer, False).reward == 0


def test_the_settings_are_twelve_commented_lines_and_accepted() -> None:
    lines = new.RUN.splitlines()
    assert len(lines) == 12
    assert all("  # " in line for line in lines)
    names = [line.partition(" = ")[0] for line in lines]
    assert set(names) <= set(keys())
    assert set(FIRST) - set(names) == set()
    Path("run.toml").write_text(new.RUN)
    assert resolve(file=Path("run.toml")).data.path == "data.jsonl"


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("there").mkdir()
    Path("there/data.jsonl").write_text("mine")
    Path("file").write_text("mine")
    for folder in ("there", "file"):
        assert main(["new", folder]) == 2
        assert "not empty: name a new folder" in capsys.readouterr().err
    assert Path("there/data.jsonl").read_text() == "mine"
    Path("empty").mkdir()
    assert main(["new", "empty"]) == 0


def test_a_problem_is_what_the_reward_says_it_gets() -> None:
    Path("reward.py").write_text(new.REWARD)
    assert load("reward.py:reward")(Problem("a", "?", "7", "a"), "3 + 4 = 7", True).correct

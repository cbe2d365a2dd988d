"""r1v0 from Python: what the package offers, and the example of the documents as it stands."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import r1v0
from r1v0.base.errors import UserError
from r1v0.config import resolve
from r1v0.jobs import library
from r1v0.runs.progress import Progress
from r1v0.tasks.datasets import DATASETS, load_problems
from r1v0.tasks.rewards import REWARDS
from r1v0.types import Problem
from tests.conftest import ROOT

SMALL = ["steps=1", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "threads=1"]
PAIRS = [("1 2 3 target 6", "6 from 1 2 3"), ("2 2 2 target 8", "8 from 2 2 2"), ("3 2 2 target 7", "7 from 3 2 2")]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for table in (DATASETS, REWARDS):
        for name in (library.OWN, library.HELD_OUT):
            table.pop(name, None)


def never(problem: Problem, text: str, finished: bool) -> float:
    return 0.0


def test_the_package_offers_these_names_and_loads_nothing_for_it() -> None:
    names = ["Batch", "Completion", "Config", "EvalResult", "Group", "Problem", "Prompt", "Rollout", "Score"]
    assert r1v0.__all__ == dir(r1v0) == [*names, "__version__", "evaluate", "load_config", "sample", "train"]
    assert all(getattr(r1v0, name) is not None for name in r1v0.__all__)
    with pytest.raises(AttributeError, match="no attribute 'loss'"):
        _ = r1v0.loss
    code = "import r1v0, sys; print([name for name in sys.modules if name.startswith(('r1v0.', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_example_of_the_documents_runs(work: Path) -> None:
    (example,) = re.findall(r"```python\n# own.py\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    Path("own.py").write_text(example)
    done = subprocess.run([sys.executable, "own.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in Path("runs/own/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["reward/own"] == rows[0]["reward/mean"] > 0


def test_settings_are_those_of_the_command_line() -> None:
    assert library.load_config() == resolve("countdown")
    assert library.load_config("seed=3", preset="r1-v0") == resolve("r1-v0", sets=["seed=3"])
    Path("a.toml").write_text("seed = 4\n")
    assert library.load_config(file="a.toml").seed == 4
    with pytest.raises(UserError, match="unknown key"):
        library.load_config("stepz=1")


def test_own_problems_are_drawn_once_an_epoch() -> None:
    config = library.with_own(library.load_config(), PAIRS, None, None)
    problems = load_problems(config.data, 0)
    for epoch in range(3):
        found = [problems.at(3 * epoch + i) for i in range(3)]
        assert sorted((problem.question, problem.answer) for problem in found) == sorted(PAIRS)
    assert config.eval.on == []


def test_held_out_problems_are_measured(work: Path) -> None:
    progress = Progress()
    run = library.train(library.load_config(*SMALL), "run", PAIRS[:2], PAIRS[2:], never, progress)
    row = json.loads((run / "evals.jsonl").read_text().splitlines()[0])
    assert (row["dataset"], row["problems"]) == ("own-held-out", 1)
    (result,) = library.evaluate(run, ["countdown"], "eval.max_problems=2", "eval.max_new_tokens=4", progress=progress)
    assert (result.dataset, result.problems, result.samples) == ("countdown", 2, 1)
    assert [path.name for path in Path("runs").iterdir()] == ["eval-001"]


def test_samples_are_the_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from r1v0.cli import main

    texts = library.sample("tiny", "3 7 4 target 17", samples=2)
    assert main(["sample", "tiny", "3 7 4 target 17", "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in texts)
    assert len(texts) == 2
    greedy = library.sample("tiny", "3 7 4 target 17", greedy=True)
    assert greedy == library.sample("tiny", "3 7 4 target 17", "seed=5", greedy=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([("a",)], "problem 0 is"),
        (["ab"], "problem 0 is"),
        ([("a", 1)], "expected a Problem"),
        ([], "there are no problems"),
    ],
)
def test_what_is_no_problem_is_refused(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        library.as_problems(given, "own")


def test_a_reward_that_gives_no_number_is_refused() -> None:
    def wrong(problem: Problem, text: str, finished: bool) -> str:
        return "good"

    with pytest.raises(UserError, match="wrong"):
        library.train(library.load_config(*SMALL), "run", PAIRS, reward=wrong, progress=Progress())
    assert not Path("run").exists()

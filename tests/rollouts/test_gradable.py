"""A reward that cannot read its dataset is found before a model is loaded or a folder made."""

import json
import shutil
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.config import RewardConfig
from r1v0.rollouts import gradable
from r1v0.tasks.countdown import problems
from r1v0.tasks.datasets import DATASETS, load_eval
from r1v0.tasks.reading.source import Generated
from r1v0.tasks.rewards import REWARDS
from r1v0.types import Problem

QUIET = ["--set", "threads=1", "--set", "eval.on=[]", "--set", "steps=0"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(reward: str, problems: list[Problem]) -> tuple[str, list[str]]:
    """The error and the notes."""
    notes: list[str] = []
    try:
        gradable.need_gradable({"set": RewardConfig(name=reward)}, {"set": problems}, notes.append)
    except UserError as error:
        return str(error), notes
    return "", notes


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if isinstance(row, Generated) and row.listed])
def test_generated_datasets_are_read_by_their_own_reward(name: str) -> None:
    assert faults(DATASETS[name].reward, load_eval(name, 0)[:200]) == ("", [])


@pytest.mark.parametrize("reward", REWARDS)
def test_every_reward_reads_what_it_is_for(reward: str) -> None:
    answer = "17 from 3 7 4" if reward == "countdown" else "1,234"
    assert faults(reward, [Problem("a/0", "?", answer, "a")]) == ("", [])


@pytest.mark.parametrize("gold", ["5", r"\frac{1}{2}", r"so it is \boxed{5}", "Sunday", "100%", "x = 5"])
def test_forms_of_gold_answers(gold: str) -> None:
    assert faults("math", [Problem("a/0", "?", gold, "a")]) == ("", [])


@pytest.mark.parametrize("gold", ["72", "#### 72", "6 * 12 = 72\n#### 72"])
def test_forms_of_gsm8ks_gold_answers(gold: str) -> None:
    assert faults("gsm8k", [Problem("a/0", "?", gold, "a")]) == ("", [])


@pytest.mark.parametrize(
    ("reward", "name", "words"),
    [("math", "countdown", "'math' gives 0"), ("gsm8k", "countdown", "'gsm8k' gives 0"), ("countdown", "sums", "'72'")],
)
def test_a_reward_for_another_dataset_is_refused(reward: str, name: str, words: str) -> None:
    problems = load_eval(name, 3) if name != "sums" else [Problem("sums/0", "?", "72", "sums")]
    error, _ = faults(reward, problems)
    assert words in error
    assert "set reward.name" in error


def test_gold_answers_that_cannot_be_right_are_refused() -> None:
    assert "2/0" in faults("gsm8k", [Problem("b/1", "?", "3", "b"), Problem("b/2/0", "?", "nothing", "b")])[0]
    assert faults("countdown", [Problem("a/0", "?", "59 from 2 2 2", "a")])[0].count("expected 1") == 1


def test_an_own_reward_is_only_told_of() -> None:
    Path("mine.py").write_text(
        "def short(problem, text, finished): return 1 - min(len(text), 9) / 9\n"
        "def box(problem, text, finished): return problem.answer in text\n"
        "def bad(problem, text, finished): return 1 / 0\n"
    )
    problems = [Problem("a/0", "?", "41", "a"), Problem("a/1", "?", "42", "a")]
    assert faults("mine.py:box", problems) == ("", [])
    error, notes = faults("mine.py:short", problems)
    assert error == ""
    assert len(notes) == 1
    assert 'gives 0 to "41", the right answer of a/0: expected 1' in notes[0]
    assert "division by zero" in faults("mine.py:bad", problems)[0]


@pytest.mark.parametrize(
    "text", ["17 from 3 7 4", "24 from 4 7 8 8", "100 from 10 10", "7 from 7", "120 from 1 2 3 4 5"]
)
def test_countdown_is_solved_with_any_numbers(text: str) -> None:
    assert eval(problems.solution(text)) == int(text.split()[0])


def test_countdown_without_a_solution() -> None:
    assert problems.solution("59 from 2 2 2") == problems.solution("21 from 1 2 3 4 5 6") == ""
    with pytest.raises(UserError, match="expected TARGET from NUMBERS"):
        problems.solution("72")


def test_training_and_evaluation_ask_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """The model is a folder whose weights would be found damaged."""
    from r1v0.models.loading import TINY

    broken = Path(shutil.copytree(TINY, "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    rows = [{"question": f"{i} and {i}?", "answer": str(2 * i)} for i in range(20)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["--set", "data.name=mine", "--set", "data.path=mine.jsonl", "--set", "model=broken"]
    wrong = ["--set", "reward.name=countdown"]
    before = sorted(Path().iterdir())
    for words in (
        ["train", *own, *wrong, *QUIET],
        ["train", "--set", "model=broken", "--set", "reward.name=math", *QUIET],
        ["train", "--set", "model=broken", "--set", 'eval.on=["mine=mine.jsonl"]', *wrong],
        ["eval", "broken", "--on", "mine=mine.jsonl", *wrong],
        ["eval", "broken", "--on", "countdown", "--set", "reward.name=gsm8k"],
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert "set reward.name" in error, words
        assert error.count("\n") == 1, words
    assert sorted(Path().iterdir()) == before

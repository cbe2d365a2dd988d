"""Several datasets as one training set, what the user is told about it, and every mistake in naming them: one clear
line."""

import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from r1v0.config import DataConfig
from r1v0.tasks.datasets import DATASETS, Problems, load_eval, load_problems, reward_of
from r1v0.tasks.reading.source import Source
from tests.tasks.test_data import jsonl, message, own_cache  # noqa: F401 (a fixture)


@pytest.fixture
def math(tmp_path: Path) -> Path:
    """Twelve problems; number i has level i % 5 + 1, and the answer 100 + i."""
    rows = [
        {"problem": f"Find {i}.", "level": f"Level {i % 5 + 1}", "solution": f"\\boxed{{{100 + i}}}"} for i in range(12)
    ]
    return jsonl(tmp_path / "math.jsonl", rows)


@pytest.fixture
def gsm8k(tmp_path: Path) -> Path:
    """Eight problems without levels; number i has the answer 200 + i."""
    return jsonl(
        tmp_path / "gsm8k.jsonl", [{"question": f"Ann has {i}.", "answer": f"#### {200 + i}"} for i in range(8)]
    )


def mixed(*parts: str, **settings: Any) -> Problems:
    return load_problems(DataConfig(name="+".join(parts), **settings), 0)


def one_epoch(problems: Problems) -> list[int]:
    return [int(problem.answer) for problem in problems.draw(0, problems.size)]


def test_a_mix_is_the_union_shuffled_together(math: Path, gsm8k: Path) -> None:
    problems = mixed(f"math={math}", f" gsm8k = {gsm8k}")
    assert (problems.name, problems.size) == ("math+gsm8k", 20)
    drawn = problems.draw(0, 20)
    assert sorted(int(problem.answer) for problem in drawn) == [*range(100, 112), *range(200, 208)]
    sources = [problem.source for problem in drawn]
    assert Counter(sources) == {"math": 12, "gsm8k": 8}
    assert sum(a != b for a, b in pairwise(sources)) > 3  # not one after the other
    assert len({problem.id for problem in drawn}) == 20
    assert {problem.id for problem in drawn if problem.source == "gsm8k"} == {f"gsm8k/{i + 1}" for i in range(8)}
    assert one_epoch(problems) != [int(problem.answer) for problem in problems.draw(20, 20)]
    assert problems.at(33) == problems.draw(20, 20)[13]


def test_where_the_files_lie_does_not_change_the_order(math: Path, gsm8k: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(math.read_bytes())
    assert one_epoch(mixed(f"math={math}", f"gsm8k={gsm8k}")) == one_epoch(mixed(f"math={copy}", f"gsm8k={gsm8k}"))
    assert one_epoch(mixed(f"math={math}")) == one_epoch(load_problems(DataConfig(name="math", path=str(copy)), 0))


def test_levels_choose_from_the_part_that_has_them(math: Path, gsm8k: Path) -> None:
    levels = [i % 5 + 1 for i in range(12)]
    hard = [100 + i for i in range(12) if levels[i] >= 3]
    problems = mixed(f"math={math}", f"gsm8k={gsm8k}", levels=[3, 4, 5])
    assert sorted(one_epoch(problems)) == [*hard, *range(200, 208)]
    said = message(lambda: mixed(f"gsm8k={gsm8k}", f"mine={gsm8k}", levels=[3]))
    assert said == f"data.levels is [3], but {gsm8k} has no column 'level': leave data.levels out"


def test_max_problems_is_of_the_union(math: Path, gsm8k: Path) -> None:
    kept = [mixed(f"math={math}", f"gsm8k={gsm8k}", max_problems=10) for _ in range(2)]
    assert kept[0].size == 10
    assert (
        set(one_epoch(kept[0])) == set(one_epoch(kept[1])) == {int(problem.answer) for problem in kept[0].draw(0, 99)}
    )
    assert {answer // 100 for answer in one_epoch(kept[0])} == {1, 2}


def test_what_is_left_out_is_said_for_each_part_and_counted_together(math: Path, gsm8k: Path, tmp_path: Path) -> None:
    long = [{"question": f"Bob has {i}.", "answer": f"#### {300 + i}"} for i in range(200)]
    mine = jsonl(tmp_path / "mine.jsonl", [*long, "{"])
    exam = jsonl(
        tmp_path / "exam.jsonl",
        [{"problem": text, "answer": "1"} for text in ("find 3.", "ann HAS 4.", "Ann has 5.", "Bob has 6.", "new")],
    )
    notes: list[str] = []
    config = DataConfig(name=f"math={math}+gsm8k={gsm8k}+mine={mine}", avoid=[f"exam={exam}"])
    problems = load_problems(config, 0, [f"exam={exam}"], notes.append)
    assert (problems.size, problems.malformed, problems.dropped) == (11 + 7 - 1 + 199, 1, {"exam": 4})
    assert not {103, 204, 205, 306} & set(one_epoch(problems))
    assert notes[0] == "1 of 12 problems of math are also in evaluation sets and are dropped (1 in exam)"
    assert notes[1] == "2 of 8 problems of gsm8k are also in evaluation sets and are dropped (2 in exam)"
    assert notes[2].startswith(f"1 of 201 rows of {mine} are malformed ({mine}:201 is not JSON")
    assert notes[3] == "1 of 201 problems of mine are also in evaluation sets and are dropped (1 in exam)"
    assert len(notes) == 4


def test_the_user_reads_each_note_once_on_stderr(
    math: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside of pytest nobody has set up logging: then a warning is its bare text."""
    rows: list[object] = [{"problem": f"p{i}", "answer": str(i)} for i in range(200)]
    exam = jsonl(tmp_path / "exam.jsonl", [*rows, {"problem": "Find 3.", "answer": "103"}, "{"])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    load_problems(DataConfig(name=f"math={math}", avoid=[f"exam={exam}"]), 0, [f"exam={exam}"])
    load_eval(f"exam={exam}", 0)
    dropped, malformed = capsys.readouterr().err.splitlines()
    assert dropped == "1 of 12 problems of math are also in evaluation sets and are dropped (1 in exam)"
    assert malformed.startswith(f"1 of 202 rows of {exam} are malformed ({exam}:202 is not JSON")


def test_a_mix_has_the_reward_that_its_parts_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reward_of("math+gsm8k=/a/b.jsonl+mine=c.parquet") == "math"
    assert reward_of("countdown-train") == "countdown"
    assert reward_of("mine=x") == reward_of("mine") == "math"
    monkeypatch.setitem(DATASETS, "sorting", Source("a/b", (), train="train", reward="sorted"))
    assert reward_of("sorting") == "sorted"
    assert message(lambda: reward_of("math+sorting")) == (
        "the parts of 'math+sorting' have different rewards (math, sorted): set reward.name"
    )


MADE = "is made, not read, and cannot be mixed: leave it out, or train on it alone"
MIX = "is a mix: leave it out, and give local copies as NAME=PATH"
BAD_NAMES: list[tuple[dict[str, Any], str]] = [
    ({"name": "math+countdown-train"}, f"dataset 'countdown-train' {MADE}"),
    ({"name": "sums-train+gsm8k"}, f"dataset 'sums-train' {MADE}"),
    ({"name": "countdown-train+sums-train"}, f"dataset 'countdown-train' {MADE}"),
    ({"name": "math+gsm8k+math"}, "data.name 'math+gsm8k+math' has 'math' twice: give each part a name of its own"),
    ({"name": "a=x+a=y"}, "data.name 'a=x+a=y' has 'a' twice: give each part a name of its own"),
    ({"name": "math+gsm8k", "path": "x.jsonl"}, f"data.path is 'x.jsonl', but data.name 'math+gsm8k' {MIX}"),
    ({"name": "math+gsm8k", "split": "test"}, f"data.split is 'test', but data.name 'math+gsm8k' {MIX}"),
    ({"name": "math+gsm8k", "question_column": "q"}, f"data.question_column is 'q', but data.name 'math+gsm8k' {MIX}"),
    ({"name": "math+gsm8k", "answer_column": "a"}, f"data.answer_column is 'a', but data.name 'math+gsm8k' {MIX}"),
    ({"name": "math=x", "path": "y"}, "data.path is 'y', but data.name 'math=x' names a path: leave one of them out"),
    ({"name": "math+gsm8l"}, "unknown dataset 'gsm8l': did you mean 'gsm8k'?"),
    ({"name": "maths+gsm8k"}, "unknown dataset 'maths': did you mean 'math'?"),
    ({"name": "math+"}, "unknown dataset '': known: "),
    ({"name": "+"}, "data.name '+' has '' twice: "),
    ({"name": "=x.jsonl"}, "unknown dataset '': known: "),
    ({"name": "", "path": "x.jsonl"}, "unknown dataset '': known: "),
    ({"name": "mine="}, "unknown dataset 'mine': "),
    ({"name": "math+math500"}, "dataset 'math500' is for evaluation: train on another ("),
    ({"name": "countdown-train=x.jsonl"}, "data.path is 'x.jsonl', but 'countdown-train' is made, not read: "),
    ({"name": "mine=none.jsonl+other=none.parquet"}, "data path 'none.jsonl' does not exist: "),
]


@pytest.mark.parametrize(("settings", "expected"), BAD_NAMES, ids=[str(settings) for settings, _ in BAD_NAMES])
def test_a_name_that_is_none(settings: dict[str, Any], expected: str) -> None:
    assert message(lambda: load_problems(DataConfig(**settings), 0)).startswith(expected)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", "unknown dataset '': known: "),
        ("=x.jsonl", "unknown dataset '': known: "),
        ("exam=", "unknown dataset 'exam': "),
        ("gsm8k+math500", "unknown dataset 'gsm8k+math500': "),
        ("sums=x.jsonl", "dataset 'sums' is made"),
        ("metamathqa", "dataset 'metamathqa' is for training: "),
    ],
)
def test_an_evaluation_that_is_none(spec: str, expected: str) -> None:
    assert message(lambda: load_eval(spec, 0)).startswith(expected)


def test_one_bad_part_spoils_the_mix_and_is_named(math: Path, gsm8k: Path, tmp_path: Path) -> None:
    easy = [{"problem": "p", "answer": "1", "level": 1}]
    for rows, expected in (
        ([], "holds no rows"),
        ([{"question": "q"}], "has the columns question, but gsm8k needs question + answer or problem + answer: "),
        ([{"question": "q", "answer": "5"}], "1 of 1 rows of "),
        (["{"], "holds no JSON objects"),
    ):
        bad = jsonl(tmp_path / "bad.jsonl", rows)
        said = message(lambda bad=bad: mixed(f"math={math}", f"gsm8k={bad}"))  # type: ignore[misc]
        assert str(bad) in said
        assert expected in said
    path = jsonl(tmp_path / "easy.jsonl", easy)
    assert message(lambda: mixed(f"math={path}", f"gsm8k={gsm8k}", levels=[3])) == (
        f"no problem is left of the 1 of {path}: 1 are not of the levels [3], 0 are in evaluation sets"
    )
    assert message(lambda: mixed(f"math={math}", f"gsm8k={gsm8k}", avoid=["math5000"])) == (
        "unknown dataset 'math5000': did you mean 'math500'?"
    )

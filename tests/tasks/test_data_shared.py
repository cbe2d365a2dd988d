"""The real rows: counts, gold answers, and the training problems that are known to be in MATH-500."""

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1v0.config import DataConfig
from r1v0.tasks.datasets import load_eval, load_problems
from r1v0.tasks.math import gold

SETS = {  # name: (file, problems); 675 is the count of Qwen2.5-Math's copy of OlympiadBench
    "math500": ("math500_test.jsonl", 500),
    "gsm8k": ("gsm8k_test.jsonl", 1319),
    "aime24": ("aime24_test.jsonl", 30),
    "aime25": ("aime25_test.jsonl", 30),
    "amc23": ("amc23_test.jsonl", 40),
    "olympiadbench": ("olympiadbench_test.jsonl.gz", 675),
}
pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")


def records(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def evaluations(shared: Path) -> Iterator[str]:
    return (f"{name}={shared / 'data' / file}" for name, (file, _) in SETS.items())


@pytest.mark.parametrize("name", SETS)
def test_evaluation_sets(shared: Path, name: str) -> None:
    file, count = SETS[name]
    rows, problems = records(shared / "data" / file), load_eval(f"{name}={shared / 'data' / file}", 0)
    assert len(problems) == count
    for row, problem in zip(rows, problems, strict=True):
        assert problem.id == f"{name}/{row['id']}"
        assert problem.question == row["problem"].strip()
        assert problem.answer in (row["answer"], row["answer"].strip("$"))


def test_gold_answers_of_the_hub_forms_are_those_of_the_plain_copies(shared: Path) -> None:
    """The shared copies were made by others' code: last box of MATH's solutions, GSM8K's text after ####."""
    for file, extract in (
        ("math500_test.jsonl", gold.boxed),
        ("math_test_minus500.jsonl.gz", gold.boxed),
        ("gsm8k_train.jsonl.gz", gold.hashes),
        ("gsm8k_test.jsonl", gold.hashes),
    ):
        rows = records(shared / "data" / file)
        assert [row["id"] for row in rows if extract(row["solution"]) != row["answer"].strip()] == []


def test_gsm8k_in_the_hubs_form(shared: Path, tmp_path: Path) -> None:
    rows = records(shared / "data" / "gsm8k_test.jsonl")
    lines = (json.dumps({"question": row["problem"], "answer": row["solution"]}) + "\n" for row in rows)
    (tmp_path / "test.jsonl").write_text("".join(lines), encoding="utf-8")
    problems = load_eval(f"gsm8k={tmp_path}", 0)
    assert [problem.answer for problem in problems] == [row["answer"] for row in rows]


def test_genuine_metamathqa_rows(shared: Path) -> None:
    path = shared / "data" / "metamathqa_sample.jsonl"
    problems = load_problems(DataConfig(name="metamathqa", path=str(path)), 0)
    answers = {problem.question: problem.answer for problem in problems.draw(0, problems.size)}
    assert [answers[row["query"].strip()] for row in records(path)] == [
        "\\sqrt{5}", "752", "1200", "240", "\\text{D}", "32", "1500", "15", "35", "38400", "240", "600", "5500",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "known"),
    [
        ("aime_1983_2023.jsonl.gz", {"aime/2001-2-3", "aime/2010-1-6", "aime/2015-2-6", "aime/2017-2-7"}),
        (
            "deepscaler_train.jsonl.gz",
            {"deepscaler/2/3536", "deepscaler/3/5899", "deepscaler/4/7833", "deepscaler/5/4028"},
        ),
    ],
)
def test_the_known_overlaps_with_math500_are_dropped(shared: Path, file: str, known: set[str]) -> None:
    """Four are equal but for white space. A fifth (AIME 1983 problem 2) has a comma on the other side of a dollar."""
    path = shared / "data" / file
    squeezed = {"".join(row["problem"].split()) for row in records(shared / "data" / "math500_test.jsonl")}
    assert {row["id"] for row in records(path) if "".join(row["problem"].split()) in squeezed} == known
    notes: list[str] = []
    problems = load_problems(DataConfig(name="mine", path=str(path)), 0, list(evaluations(shared)), notes.append)
    assert problems.dropped == {"math500": 5}
    assert problems.size == len(records(path)) - 5
    assert notes == [
        f"5 of {problems.size + 5} problems of mine are also in evaluation sets and are dropped (5 in math500)"
    ]


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("math", "math_train.jsonl.gz", 7470),
        ("math", "math_test_minus500.jsonl.gz", 4500),
        ("gsm8k", "gsm8k_train.jsonl.gz", 7473),
    ],
)
def test_the_usual_training_sets_overlap_with_no_evaluation(shared: Path, name: str, file: str, count: int) -> None:
    config = DataConfig(name=name, path=str(shared / "data" / file))
    problems = load_problems(config, 0, list(evaluations(shared)))
    assert (problems.size, problems.malformed, problems.dropped) == (count, 0, {})


def test_levels_of_real_math(shared: Path) -> None:
    path = shared / "data" / "math_train.jsonl.gz"
    hard = load_problems(DataConfig(name="math", path=str(path), levels=[3, 4, 5]), 0)
    assert hard.size == sum(row["level"] in (3, 4, 5) for row in records(path))


def test_the_mix_that_the_math_preset_trains_on(shared: Path) -> None:
    paths = {"math": shared / "data" / "math_train.jsonl.gz", "gsm8k": shared / "data" / "gsm8k_train.jsonl.gz"}
    config = DataConfig(name="+".join(f"{name}={path}" for name, path in paths.items()), levels=[3, 4, 5])
    problems = load_problems(config, 0, list(evaluations(shared)))
    drawn = problems.draw(0, problems.size)
    hard = [f"math/{row['id']}" for row in records(paths["math"]) if row["level"] in (3, 4, 5)]
    easy = [f"gsm8k/{row['id']}" for row in records(paths["gsm8k"])]
    assert sorted(problem.id for problem in drawn) == sorted([*hard, *easy])
    assert (problems.malformed, problems.dropped) == (0, {})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "jsonl", "json"])
def test_start_with_395k_rows_takes_less_than_ten_seconds(shared: Path, tmp_path: Path, form: str) -> None:
    """Rows of MetaMathQA's form and length; on the hub it is the array of objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sample = records(shared / "data" / "metamathqa_sample.jsonl")
    kept = [row for row in sample if "The answer is:" in row["response"]]
    rows = [
        {
            "type": row["type"],
            "query": f"({i}) {row['query']}",
            "original_question": row["query"],
            "response": row["response"],
        }
        for i, row in ((i, kept[i % len(kept)]) for i in range(395_000))
    ]
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    del rows
    start = time.process_time()  # not the clock's: the machine may have other work
    problems = load_problems(DataConfig(name="metamathqa", path=str(path)), 0, list(evaluations(shared)))
    problems.draw(0, 512)
    seconds = time.process_time() - start
    print(f"{form}: {seconds:.1f} s")
    assert problems.size == 395_000
    assert seconds < 10

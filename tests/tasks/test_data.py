"""Datasets in the hub's own formats, decontamination, and every mistake a user can make with data: one clear line."""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1v0.base.errors import UserError
from r1v0.config import DataConfig
from r1v0.tasks.datasets import DATASETS, Problems, eval_name, load_eval, load_problems
from r1v0.tasks.reading.source import Generated, Source

Rows = Sequence[Mapping[str, object]]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`datasets` keeps its Arrow copies in a folder of the test run."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", folder / "downloads")
        yield


def jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return path


def parquet(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def card(folder: Path, configs: Mapping[str, Mapping[str, str]]) -> None:
    """A README.md that declares {subset: {split: files}}, as the hub's dataset cards do."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, files in splits.items():
            lines += [f"  - split: {split}", f"    path: {files}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A dataset", ""]), encoding="utf-8")


def metamathqa(folder: Path) -> None:
    rows = [
        {"type": "GSM_AnsAug", "query": "How many?", "original_question": "How many?", "response": "3+4=7\n#### 7\nThe answer is: 7"},
        {"type": "MATH_SV", "query": "What is {X}?", "original_question": "What?", "response": "is $\\frac{1}{2}$.The answer is: \\frac{1}{2}"},
    ]  # fmt: skip
    folder.mkdir()
    (folder / "MetaMathQA-395K.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")


def math(folder: Path) -> None:
    subjects = [
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    ]
    card(folder, {name: {split: f"{name}/{split}-*" for split in ("train", "test")} for name in subjects})
    for place, name in enumerate(subjects):
        for split in ("train", "test"):
            row = {
                "problem": f"{split} {name}",
                "level": f"Level {place % 5 + 1}",
                "type": name,
                "solution": f"so \\boxed{{{place}}}",
            }
            parquet(folder / name / f"{split}-00000-of-00001.parquet", [row])


def gsm8k(folder: Path) -> None:
    card(folder, {name: {split: f"{name}/{split}-*" for split in ("train", "test")} for name in ("main", "socratic")})
    for name in ("main", "socratic"):
        for split in ("train", "test"):
            parquet(
                folder / name / f"{split}-00000-of-00001.parquet",
                [{"question": f"{name} {split}?", "answer": "a <<1+1=2>>\n#### 1,002"}],
            )


def math500(folder: Path) -> None:
    row = {
        "problem": "p",
        "solution": "\\boxed{2}",
        "answer": "2",
        "subject": "Algebra",
        "level": 3,
        "unique_id": "test/algebra/1.json",
    }
    jsonl(folder / "test.jsonl", [row])


def aime24(folder: Path) -> None:
    card(folder, {"default": {"train": "data/train-*"}})
    row = {"id": 60, "problem": "p", "solution": "s", "answer": "033", "url": "u", "year": "2024"}
    parquet(folder / "data" / "train-00000-of-00001.parquet", [row])


def aime24_math_ai(folder: Path) -> None:
    parquet(folder / "test-00000-of-00001.parquet", [{"id": 60, "problem": "p", "solution": "\\boxed{33}", "url": "u"}])


def aime25(folder: Path) -> None:
    jsonl(folder / "test.jsonl", [{"problem": "p", "answer": "70", "id": "0"}])


def amc23(folder: Path) -> None:
    parquet(folder / "test-00000-of-00001.parquet", [{"id": 0, "question": "p", "answer": "27", "url": "u"}])


def amc23_ai_mo(folder: Path) -> None:
    parquet(folder / "data" / "train-00000-of-00001.parquet", [{"id": 0, "problem": "p", "answer": 27.0, "url": "u"}])


def olympiadbench(folder: Path) -> None:
    names = ["OE_MM_maths_en_COMP", "OE_TO_maths_en_COMP"]
    card(folder, {name: {"train": f"{name}/*.parquet"} for name in names})
    for name in names:
        row = {
            "id": 1606,
            "question": name,
            "solution": ["s"],
            "final_answer": ["$2$", "$x+1$"],
            "is_multiple_answer": True,
            "unit": None,
        }
        parquet(folder / name / f"{name}.parquet", [row])


EVALS: list[tuple[str, Callable[[Path], None], list[tuple[str, str, str]]]] = [
    ("math", math, [(f"math/{i + 1}", f"test {s}", str(i)) for i, s in enumerate(DATASETS["math"].subsets)]),  # type: ignore[union-attr]
    ("gsm8k", gsm8k, [("gsm8k/1", "main test?", "1002")]),
    ("math500", math500, [("math500/test/algebra/1.json", "p", "2")]),
    ("aime24", aime24, [("aime24/60", "p", "33")]),
    ("aime24", aime24_math_ai, [("aime24/60", "p", "33")]),
    ("aime25", aime25, [("aime25/0", "p", "70")]),
    ("amc23", amc23, [("amc23/0", "p", "27")]),
    ("amc23", amc23_ai_mo, [("amc23/0", "p", "27")]),
    ("olympiadbench", olympiadbench, [("olympiadbench/1606", "OE_TO_maths_en_COMP", "2, x+1")]),
]


@pytest.mark.parametrize(("name", "write", "expected"), EVALS, ids=lambda value: getattr(value, "__name__", None))
def test_evaluation_folder_of_the_hub(
    tmp_path: Path, name: str, write: Callable[[Path], None], expected: list[tuple[str, str, str]]
) -> None:
    write(tmp_path / "copy")
    problems = load_eval(f"{name}={tmp_path / 'copy'}", 0)
    assert [(problem.id, problem.question, problem.answer) for problem in problems] == expected
    assert {problem.source for problem in problems} == {name}


def test_every_evaluation_dataset_is_tested_on_a_folder_of_the_hub() -> None:
    assert {name for name, _, _ in EVALS} == {
        name for name, row in DATASETS.items() if isinstance(row, Source) and row.test
    }


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("metamathqa", metamathqa, [("How many?", "7"), ("What is {X}?", "\\frac{1}{2}")]),
        ("math", math, [(f"train {s}", str(i)) for i, s in enumerate(DATASETS["math"].subsets)]),  # type: ignore[union-attr]
        ("gsm8k", gsm8k, [("main train?", "1002")]),
    ],
)
def test_training_folder_of_the_hub(
    tmp_path: Path, name: str, write: Callable[[Path], None], expected: list[tuple[str, str]]
) -> None:
    write(tmp_path / "copy")
    problems = load_problems(DataConfig(name=name, path=str(tmp_path / "copy")), 0)
    assert problems.size == len(expected)
    assert sorted((problem.question, problem.answer) for problem in problems.draw(0, problems.size)) == sorted(expected)


def test_folder_without_a_card_is_split_by_its_subfolders(tmp_path: Path) -> None:
    gsm8k(tmp_path / "copy")
    (tmp_path / "copy" / "README.md").unlink()
    assert [problem.question for problem in load_eval(f"gsm8k={tmp_path / 'copy'}", 0)] == ["main test?"]
    assert [problem.question for problem in load_eval(f"gsm8k={tmp_path / 'copy' / 'socratic'}", 0)] == [
        "socratic test?"
    ]


def test_a_copy_of_math_without_subsets_is_read_once(tmp_path: Path) -> None:
    parquet(
        tmp_path / "data" / "train-00000-of-00001.parquet",
        [{"problem": "p", "level": "Level 1", "type": "t", "solution": "\\boxed{1}"}],
    )
    assert load_problems(DataConfig(name="math", path=str(tmp_path)), 0).size == 1


ROWS: list[dict[str, object]] = [
    {"problem": f"What is {i} + {i}?", "answer": str(2 * i), "level": i % 5 + 1} for i in range(20)
]


def write_as(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    if path.suffix == ".parquet":
        return parquet(path, rows)
    lines = "\n".join(json.dumps(row) for row in rows) if "jsonl" in path.name else json.dumps(rows, indent=1)
    data = lines.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    "file", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet", "a [1]*?.jsonl", "a [1].parquet"]
)
def test_all_file_formats_give_the_same_problems(tmp_path: Path, file: str) -> None:
    problems = load_eval(f"mine={write_as(tmp_path / file, ROWS)}", 0)
    assert [(problem.question, problem.answer) for problem in problems] == [
        (row["problem"], row["answer"]) for row in ROWS
    ]
    assert [problem.id for problem in problems] == [f"mine/{i + 1}" for i in range(20)]


def own(path: Path, **settings: Any) -> DataConfig:
    return DataConfig(name="mine", path=str(path), **settings)


def load(path: Path, **settings: Any) -> Problems:
    return load_problems(own(path, **settings), 0)


def all_of(problems: Problems) -> list[tuple[str, str]]:
    return sorted((problem.question, problem.answer) for problem in problems.draw(0, problems.size))


def test_text_stays_as_it_is_written(tmp_path: Path) -> None:
    """`datasets` would turn this column of mixed types into numbers."""
    rows = [{"problem": "a", "answer": "007"}, {"problem": "b", "answer": 2}, {"problem": "c", "answer": "0.50"}]
    assert all_of(load(jsonl(tmp_path / "a.jsonl", rows))) == [("a", "007"), ("b", "2"), ("c", "0.50")]
    dates = [{"problem": "a", "answer": "2020-01-02"}, {"problem": "b", "answer": "2021-03-04"}]
    assert all_of(load(jsonl(tmp_path / "b.jsonl", dates))) == [("a", "2020-01-02"), ("b", "2021-03-04")]


def test_named_columns(tmp_path: Path) -> None:
    rows = [
        {"Frage": "a?", "Antwort": "also \\boxed{3}", "answer": "no"},
        {"Frage": "b?", "Antwort": "4", "answer": "no"},
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    assert all_of(load(path, question_column="Frage", answer_column="Antwort")) == [("a?", "3"), ("b?", "4")]
    assert all_of(load(path, question_column="Frage")) == [("a?", "no"), ("b?", "no")]


def test_levels_and_max_problems(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    hard = load(path, levels=[4, 5])
    assert hard.size == 8
    assert all(int(problem.question.split()[2]) % 5 + 1 >= 4 for problem in hard.draw(0, 8))
    words = jsonl(
        tmp_path / "b.jsonl",
        [{**row, "level": f"Level {row['level']}"} for row in ROWS] + [{**ROWS[0], "level": "Level ?"}],
    )
    assert all_of(load(words, levels=[4, 5])) == all_of(hard)
    few = load(path, max_problems=3)
    assert few.size == 3
    assert len(set(few.draw(0, 30))) == 3
    assert all_of(few) == all_of(load(path, max_problems=3))
    assert all_of(few) != all_of(load_problems(own(path, max_problems=3), 1))


def test_evaluation_takes_the_same_problems_each_time_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    everything, some = load_eval("mine", 0, path=str(path)), load_eval(f"mine={path}", 7)
    assert len(everything) == 20
    assert len(some) == 7
    assert [problem for problem in everything if problem in some] == some == load_eval(f"mine = {path}", 7)
    assert load_eval(f"mine={path}", 99) == everything


def test_training_problems_of_evaluation_sets_are_dropped_and_counted(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", ROWS)
    exam = jsonl(
        tmp_path / "exam.jsonl", [{"problem": "WHAT  is $3 + 3$?", "answer": "6"}, {"problem": "new", "answer": "1"}]
    )
    other = parquet(
        tmp_path / "other.parquet",
        [{"problem": "what is 5+5?", "answer": "10"}, {"problem": "What is 6 - 6?", "answer": "0"}],
    )
    notes: list[str] = []
    config = own(train, avoid=[f"other={other}"])
    problems = load_problems(config, 0, [f"exam={exam}", "countdown"], notes.append)
    assert problems.size == 18
    assert problems.dropped == {"exam": 1, "other": 1}
    assert not {"What is 3 + 3?", "What is 5 + 5?"} & {problem.question for problem in problems.draw(0, 18)}
    assert notes == ["2 of 20 problems of mine are also in evaluation sets and are dropped (1 in exam, 1 in other)"]


def test_all_problems_in_evaluation_sets(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    assert message(lambda: load_problems(own(path), 0, [f"exam={path}"], lambda _: None)) == (
        f"no problem is left of the 20 of {path}: 20 are in evaluation sets"
    )


def many(count: int = 301) -> list[object]:
    return [{"problem": f"p{i}", "answer": str(i)} for i in range(count)]


BAD_LINES: list[tuple[object, str]] = [
    ('{"problem": "x", "answer": ', "is not JSON (JSONDecodeError: Expecting value: line 2 column 1 (char 28))"),
    ("[1, 2]", "is not a JSON object"),
    ('"text"', "is not a JSON object"),
    ('{"problem": "\\ud800", "answer": "1"}', "has no valid text in column 'problem'"),
    ("[" * 100_000, "is not JSON (RecursionError: maximum recursion depth exceeded"),
    ({"answer": "1"}, "has no text in column 'problem'"),
    ({"problem": "x", "answer": None}, "has no text in column 'answer'"),
    ({"problem": {"a": 1}, "answer": "1"}, "holds an object in column 'problem'"),
    ({"problem": "x", "answer": "9" * 5000}, ""),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_reported_with_its_place_and_left_out(tmp_path: Path, bad: object, reason: str) -> None:
    rows = many()
    rows[100:100] = ["", bad]
    path, notes = jsonl(tmp_path / "a.jsonl", rows), list[str]()
    problems = load_problems(own(path), 0, note=notes.append)
    if not reason:
        assert (problems.size, problems.malformed, notes) == (302, 0, [])
        return
    assert (problems.size, problems.malformed, len(notes)) == (301, 1, 1)
    assert all_of(problems) == sorted((f"p{i}", str(i)) for i in range(301))
    where = re.escape(f"1 of 302 rows of {path} are malformed ({path}") + r"(:102| row 101) "
    assert re.match(where + re.escape(reason), notes[0]), notes[0]
    assert "\n" not in notes[0]


def test_from_one_percent_on_the_run_stops(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*many(297), "{", "{", "{"])
    said = message(lambda: load(path))
    assert said.startswith(f"3 of 300 rows of {path} are malformed ({path}:298 is not JSON (JSONDecodeError: ")
    assert said.endswith("fix or remove them; fewer than 1% would be left out")
    path = jsonl(tmp_path / "b.jsonl", [*many(299), "{", "{"])
    assert load_problems(own(path), 0, note=lambda _: None).malformed == 2


def test_rows_of_an_array_and_of_parquet_have_places_too(tmp_path: Path) -> None:
    rows = [*many(), {"problem": "x", "answer": ""}, 7]
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    path, notes = tmp_path / "a.json", list[str]()
    path.write_text(text, encoding="utf-8-sig")
    load_problems(own(path), 0, note=notes.append)
    places = f"{path}:303 has no text in column 'answer'; {path}:304 is not a JSON object"
    assert notes == [f"2 of 303 rows of {path} are malformed ({places}): left out"]
    path = parquet(tmp_path / "a.parquet", rows[:-1])  # type: ignore[arg-type]
    load_problems(own(path), 0, note=notes.append)
    assert notes[1:] == [
        f"1 of 302 rows of {path} are malformed ({path} row 302 has no text in column 'answer'): left out"
    ]


def test_a_note_goes_to_the_log_if_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(jsonl(tmp_path / "a.jsonl", [*many(), "{"]))
    assert "1 of 302 rows" in caplog.text


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_names() -> None:
    assert (
        message(lambda: load_problems(DataConfig(name="metamath"), 0))
        == "unknown dataset 'metamath': did you mean 'metamathqa'?"
    )
    assert message(lambda: load_eval("math-500", 0)) == "unknown dataset 'math-500': did you mean 'math500'?"


@pytest.mark.parametrize("path", ["/no/such.jsonl", "./no/such", "no.parquet", "no/such.jsonl.gz", "a b"])
def test_no_such_file(path: str) -> None:
    said = message(lambda: load_eval(f"mine={path}", 0))
    assert said.startswith(f"data path '{path}' does not exist: give a .jsonl")


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("a.txt", b"hello", "is of no known format: give a .jsonl"),
        ("a.pkl", b"\x80\x04.", "is of no known format"),
        ("a.parquet.gz", b"", "is of no known format"),
        ("a.parquet", b"hello", "cannot be read as parquet: ArrowInvalid: "),
        ("a.parquet", b"", "cannot be read as parquet: ArrowInvalid: "),
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n\n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.json", b'[{"problem": "a"', "is not JSON: JSONDecodeError: "),
        ("a.json", b"[" * 100_000, "is not JSON: RecursionError: "),
        ("a.json", b'[{"problem": "\xff"}]', "a.json:1 is not UTF-8 (it holds the byte 0xff)"),
        ("a.jsonl.gz", b"hello", "cannot be read: BadGzipFile: "),
        ("a.jsonl.gz", gzip.compress(b'{"problem": "a", "answer": "b"}', mtime=0)[:-9], "cannot be read: EOFError: "),
        ("a.jsonl", b"hello\nworld\n", "holds no JSON objects: "),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, file: str, content: bytes, expected: str) -> None:
    (tmp_path / file).write_bytes(content)
    said = message(lambda: load_eval(f"mine={tmp_path / file}", 0))
    assert expected in said
    assert str(tmp_path / file) in said


def test_wrong_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"Question": "a", "Gold": "b", "topic": "c"}])
    assert message(lambda: load(path, question_column="question", answer_column="Gold")) == (
        f"data.question_column 'question' is not a column of {path}, which has Question, Gold, topic; did you "
        "mean 'Question'?"
    )
    assert message(lambda: load(path)) == (
        f"{path} has the columns Question, Gold, topic, but mine needs problem + answer or problem + gold or problem + "
        "final_answer: name them by data.question_column and data.answer_column"
    )
    assert "but math500 needs problem + answer: " in message(lambda: load_eval(f"math500={path}", 0))


def test_wrong_levels(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    assert message(lambda: load(path, levels=[7, 8])) == (
        f"no problem is left of the 20 of {path}: 20 are not of the levels [7, 8], 0 are in evaluation sets"
    )
    path = jsonl(tmp_path / "b.jsonl", [{"problem": "a", "answer": "b"}])
    assert message(lambda: load(path, levels=[3])) == (
        f"data.levels is [3], but {path} has no column 'level': leave data.levels out"
    )


def test_ids_that_are_not_unique(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{**row, "id": i % 15} for i, row in enumerate(ROWS)])
    assert message(lambda: load(path)) == (
        f"column 'id' must tell rows apart, but '0' is at {path} row 1 and {path} row 16: rename or remove one"
    )


def test_wrong_splits(tmp_path: Path) -> None:
    gsm8k(tmp_path / "copy")
    copy = tmp_path / "copy"
    assert message(lambda: load_problems(DataConfig(name="gsm8k", path=str(copy), split="validation"), 0)) == (
        f"{copy} has no split 'validation': it has train, test; set data.split to one of these"
    )
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    assert (
        message(lambda: load(file, split="train"))
        == f"split 'train' of {file}: a file is one split, so leave data.split out"
    )
    jsonl(tmp_path / "exam" / "test.jsonl", ROWS)
    assert message(lambda: load(tmp_path / "exam")) == (
        f"{tmp_path / 'exam'} has no split 'train': it has test; set data.split to one of these"
    )
    assert load(tmp_path / "exam", split="test").size == 20


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert message(lambda: load(tmp_path / "empty")).startswith(
        f"folder {tmp_path / 'empty'} holds no data files: give a .jsonl"
    )
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.txt").write_text("hello")
    assert message(lambda: load(tmp_path / "text")).startswith(f"{tmp_path / 'text'} holds text files: give a .jsonl")
    jsonl(tmp_path / "broken" / "train.jsonl", [*many(), "{"])
    said = message(lambda: load(tmp_path / "broken"))
    assert said.startswith(f"folder {tmp_path / 'broken'} cannot be read: ")
    assert said.endswith("a single file as data.path has its bad rows reported")
    jsonl(tmp_path / "mixed" / "train.jsonl", [{"problem": "a", "answer": 1}, {"problem": "b", "answer": "2"}])
    assert "column 'answer' of " in message(lambda: load(tmp_path / "mixed"))
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('remote code ran')")
    assert "Dataset scripts are no longer supported" in message(lambda: load(tmp_path / "script"))


def test_training_and_evaluation_sets_are_not_mixed_up() -> None:
    assert message(lambda: load_problems(DataConfig(name="math500"), 0)).startswith(
        "dataset 'math500' is for evaluation: train on another ("
    )
    assert message(lambda: load_problems(DataConfig(name="countdown-hard"), 0)) == (
        "dataset 'countdown-hard' is for evaluation: train on 'countdown-train'"
    )
    assert message(lambda: load_eval("metamathqa", 0)).startswith("dataset 'metamathqa' is for training: ")
    assert message(lambda: load_eval("countdown-train", 0)).startswith(
        "dataset 'countdown-train' is made, for training: "
    )
    assert message(lambda: load_eval("countdown=x.jsonl", 0)).startswith("dataset 'countdown' is made")


def test_settings_that_a_generated_dataset_does_not_have() -> None:
    assert message(lambda: load_problems(DataConfig(path="x.jsonl"), 0)) == (
        "data.path is 'x.jsonl', but 'countdown-train' is made, not read: set data.name to a name of your own"
    )
    assert "'countdown-train' it has no levels" in message(lambda: load_problems(DataConfig(levels=[1]), 0))
    assert "its levels are [1, 2, 3]" in message(lambda: load_problems(DataConfig(name="sums-train", levels=[4]), 0))


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if isinstance(row, Generated)])
def test_generated_datasets(name: str) -> None:
    if name.endswith("-train"):
        problems = load_problems(DataConfig(name=name), 0, ["countdown", "sums"])
        assert problems.size == 0
        assert problems.draw(5, 20) == load_problems(DataConfig(name=name), 0).draw(5, 20)
        assert problems.draw(5, 20) != load_problems(DataConfig(name=name), 1).draw(5, 20)
        few = load_problems(DataConfig(name=name, max_problems=3), 0)
        assert set(few.draw(0, 30)) == set(problems.draw(0, 3))
        return
    everything = load_eval(name, 0)
    assert load_eval(name, 20) == everything[:20]
    assert {problem.source for problem in everything} == {name}
    assert len({problem.id for problem in everything}) == len(everything)


def test_eval_name() -> None:
    assert eval_name("math500") == eval_name("math500=/a=b/c.jsonl") == "math500"

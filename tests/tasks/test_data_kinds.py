"""What a file may hold that is no row of text: other encodings, whole columns, nested cells, types of parquet, odd
numbers.

Each is read as it is written or refused by name; nothing is bent into a problem that nobody wrote.
"""

import codecs
import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1v0.base.errors import UserError
from r1v0.config import DataConfig
from r1v0.tasks.datasets import load_eval, load_problems
from r1v0.tasks.problems import Problems

ROWS = [{"question": f"Wie groß ist {i} + {i}?", "answer": str(2 * i)} for i in range(300)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
WRITTEN = [(row["question"], row["answer"]) for row in ROWS]


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def jsonl(path: Path, *rows: object) -> Path:
    return written(path, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(problem.question, problem.answer) for problem in load_eval(f"mine={path}", 0)]


def train(path: Path, notes: list[str] | None = None) -> Problems:
    return load_problems(DataConfig(name="mine", path=str(path)), 0, note=(notes if notes is not None else []).append)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_eval(f"mine={path}", 0)
    said = str(caught.value)
    assert str(path) in said
    assert said.isprintable()
    return said.replace(str(path), "FILE")


# Encodings


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_utf8_is_read_with_a_mark_and_with_any_line_ends(tmp_path: Path, name: str, mark: bytes, end: str) -> None:
    data = mark + LINES.replace("\n", end).encode()
    assert pairs(written(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)) == WRITTEN


def test_a_mark_between_two_files_that_were_joined_is_no_text(tmp_path: Path) -> None:
    half = LINES.encode()
    assert pairs(written(tmp_path / "a.jsonl", codecs.BOM_UTF8 + half + codecs.BOM_UTF8 + half)) == WRITTEN * 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(
    ("encoding", "called"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32-LE"),
        ("utf-32-be", "UTF-32-BE"),
    ],
)
def test_another_unicode_is_refused_by_its_name(
    tmp_path: Path, name: str, array: bool, encoding: str, called: str
) -> None:
    data = (json.dumps(ROWS, ensure_ascii=False) if array else LINES).encode(encoding)
    said = refused(written(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data))
    assert said == f"FILE is not UTF-8 but {called}: convert it (iconv -f {called} -t UTF-8 FILE > NEW-FILE)"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_latin_text_names_its_lines(tmp_path: Path, encoding: str) -> None:
    """The sharp s is one byte there, 0xdf, behind the 22 bytes of `{"question": "Wie gro`."""
    path, line = tmp_path / "a.jsonl", "is not UTF-8 (byte 22 of the line is 0xdf)"
    said = refused(written(path, LINES.encode(encoding)))
    assert said.startswith(f"FILE holds no JSON objects: FILE:1 {line}; expected UTF-8 text with one object per line")
    said = refused(written(path, b'{"question": "a", "answer": "b"}\n' + LINES.encode(encoding)))
    assert said.startswith(
        f"300 of 301 rows of FILE are malformed (FILE:2 {line}; FILE:3 {line}; FILE:4 {line}; ...): "
    )


def test_one_bad_byte_costs_one_row(tmp_path: Path) -> None:
    data = LINES.encode().replace("groß ist 7 ".encode(), b"gro\xff ist 7 ")
    notes: list[str] = []
    problems = train(written(tmp_path / "a.jsonl", data), notes)
    assert (problems.size, problems.malformed) == (299, 1)
    assert notes == [
        f"1 of 300 rows of {tmp_path}/a.jsonl are malformed ({tmp_path}/a.jsonl:8 is not UTF-8 "
        "(byte 22 of the line is 0xff)): left out"
    ]
    array = (
        ("[\n" + LINES.replace("\n", ",\n").rstrip(",\n") + "\n]").encode().replace("groß ist 7 ".encode(), b"\xc3 7 ")
    )
    assert train(written(tmp_path / "a.json", array), notes).size == 299
    assert notes[1].endswith("a.json:9 is not UTF-8 (it holds the byte 0xc3)): left out")


def test_a_bad_byte_in_a_column_that_nobody_reads_costs_its_line_only(tmp_path: Path) -> None:
    lines = [line.encode() for line in LINES.splitlines()]
    lines[4] = b'{"question": "a", "answer": "b", "note": "\xe9"}'
    assert train(written(tmp_path / "a.jsonl", b"\n".join(lines))).malformed == 1


def test_zeros_that_a_crash_left_are_a_bad_line(tmp_path: Path) -> None:
    lines = LINES.encode().splitlines(keepends=True)
    problems = train(written(tmp_path / "a.jsonl", b"".join([b"\0" * 512 + b"\n", *lines])))
    assert (problems.size, problems.malformed) == (300, 1)
    assert train(written(tmp_path / "b.jsonl", b"".join([*lines, b"\0" * 512]))).malformed == 1


def utf8_column(*cells: bytes) -> pa.Array:
    """A column of parquet's text type with these bytes, valid or not."""
    ends = [sum(map(len, cells[:count])) for count in range(len(cells) + 1)]
    offsets = b"".join(end.to_bytes(4, "little") for end in ends)
    return pa.Array.from_buffers(pa.string(), len(cells), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(cells))])


def test_bad_text_in_parquet_costs_its_row(tmp_path: Path) -> None:
    cells, path = [str(i).encode() for i in range(200)], tmp_path / "a.parquet"
    questions = utf8_column(*[b"\xff\xfe" if i == 150 else cell for i, cell in enumerate(cells)])
    unread = utf8_column(*[b"\xff" if i == 20 else cell for i, cell in enumerate(cells)])
    pq.write_table(pa.table({"problem": questions, "answer": utf8_column(*cells), "note": unread}), path)
    notes: list[str] = []
    problems = train(path, notes)
    assert {problem.question for problem in problems.draw(0, 199)} == {str(i) for i in range(200) if i != 150}
    assert notes[0].startswith(f"1 of 200 rows of {path} are malformed ({path} row 151 holds text that is not UTF-8 (")


# Whole columns, nested cells, layouts


COLUMN_WISE = {
    "columns": {"question": ["a", "b"], "answer": ["1", "2"]},
    "columns of one row": {"question": ["a"], "answer": ["1"]},
    "pandas' own": {"question": {"0": "a", "1": "b"}, "answer": {"0": "1", "1": "2"}},
    "with an id": {"id": "mine", "question": ["a", "b"], "answer": ["1", "2"]},
    "numbers": {"question": ["a", "b"], "answer": [1, 2], "level": 3},
    "rows below a key": {"data": [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]},
    "rows by their number": {"data": {"0": {"question": "a", "answer": "1"}}},
    "pandas' split": {"columns": ["question", "answer"], "index": [0, 1], "data": [["a", "1"], ["b", "2"]]},
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("content", COLUMN_WISE.values(), ids=COLUMN_WISE)
def test_whole_columns_are_refused_with_what_to_do(
    tmp_path: Path, content: dict[str, Any], name: str, indent: int | None
) -> None:
    data = json.dumps(content, indent=indent).encode()
    said = refused(written(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data))
    key = "data" if "data" in content else "question"
    size = len(content[key])
    assert said == (
        f"FILE is one JSON object whose '{key}' holds {size} values: write each problem as one object on a line of its "
        "own (pandas: df.to_json(FILE, orient='records', lines=True))"
    )


def test_whole_columns_on_one_line_of_jsonl_are_refused_too(tmp_path: Path) -> None:
    assert "'question' holds 2 values" in refused(jsonl(tmp_path / "a.jsonl", COLUMN_WISE["columns"]))


def test_one_problem_is_a_row(tmp_path: Path) -> None:
    row = {"question": "a", "answer": ["1", "2"], "choices": ["x", "y"]}
    assert pairs(jsonl(tmp_path / "a.jsonl", row)) == [("a", "1, 2")]
    assert pairs(written(tmp_path / "a.json", json.dumps(row, indent=4))) == [("a", "1, 2")]


def test_objects_over_several_lines_are_rows(tmp_path: Path) -> None:
    """As `jq .` prints them."""
    path = written(tmp_path / "a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS))
    assert pairs(path) == WRITTEN
    path.write_text(path.read_text(encoding="utf-8") + '\n{"question": "open', encoding="utf-8")
    assert refused(path).startswith("FILE is not JSON: JSONDecodeError: ")


def test_an_array_that_is_followed_by_another_is_not_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps(ROWS[:2]) + "\n" + json.dumps(ROWS[2:]) + "\n")
    assert refused(path) == "FILE goes on after the end of its array, at line 2: write all rows in one array"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (["a", "b"], "holds a list in column 'question'"),
        (["a"], "holds a list in column 'question'"),
        ([{"role": "user", "content": "a"}], "holds a list in column 'question'"),
        ({"text": "a"}, "holds an object in column 'question'"),
        (True, "holds true, which is neither text nor a number, in column 'question'"),
        (None, "has no text in column 'question'"),
        ("  ", "has no text in column 'question'"),
        (float("nan"), "holds nan, which is not a finite number, in column 'question'"),
    ],
)
@pytest.mark.parametrize("all_rows", [False, True])
def test_a_question_is_one_text(tmp_path: Path, cell: object, reason: str, all_rows: bool) -> None:
    odd = {"question": cell, "answer": "1"}
    if all_rows:
        said = refused(jsonl(tmp_path / "a.jsonl", odd, odd))
        assert "2 of 2 rows of FILE are malformed (FILE" in said
        assert reason in said
        return
    notes: list[str] = []
    assert train(jsonl(tmp_path / "a.jsonl", *ROWS[:5], odd, *ROWS[5:]), notes).size == 300
    assert reason in notes[0]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([["1", "2"], ["3"]], "holds a list in column 'answer'"),
        ([{"a": 1}], "holds a list in column 'answer'"),
        ([], "holds a list in column 'answer'"),
        ({"value": "1"}, "holds an object in column 'answer'"),
        (True, "holds true, which is neither text nor a number, in column 'answer'"),
        (False, "holds false, which is neither text nor a number, in column 'answer'"),
        (float("nan"), "holds nan, which is not a finite number, in column 'answer'"),
        (float("-inf"), "holds -inf, which is not a finite number, in column 'answer'"),
    ],
)
@pytest.mark.parametrize("all_rows", [False, True])
def test_an_answer_that_is_no_text_is_named(tmp_path: Path, cell: object, reason: str, all_rows: bool) -> None:
    odd = {"question": "a", "answer": cell}
    if all_rows:
        assert reason in refused(jsonl(tmp_path / "a.jsonl", odd, odd, odd))
        return
    notes: list[str] = []
    assert train(jsonl(tmp_path / "a.jsonl", *ROWS[:5], odd, *ROWS[5:]), notes).size == 300
    assert reason in notes[0]


def test_a_nested_column_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    rows = [{**row, "solution": {"steps": [1, 2]}, "prompt": [{"role": "user"}]} for row in ROWS]
    assert pairs(jsonl(tmp_path / "a.jsonl", *rows)) == WRITTEN
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert pairs(tmp_path / "a.parquet") == WRITTEN


# Numbers


NUMBERS = [
    ("7", "7"),
    ("-0", "0"),
    ("27.0", "27"),
    ("0.50", "0.5"),
    ("1e3", "1000"),
    ("9007199254740993", "9007199254740993"),  # 2 ** 53 + 1 is no float
    ("18446744073709551617", "18446744073709551617"),  # 2 ** 64 + 1
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("0.12345678901234567890123", "0.12345678901234567890123"),
    ("1e-7", "0.0000001"),
    ("1e999999999", "1E+999999999"),
    ("9" * 5000, "9" * 5000),
]


@pytest.mark.parametrize(("number", "text"), NUMBERS, ids=[number[:30] for number, _ in NUMBERS])
@pytest.mark.parametrize("beside", ["", "2", "2.5", '"x"'])
def test_a_number_keeps_its_digits(tmp_path: Path, number: str, text: str, beside: str) -> None:
    """Whatever stands in the same column: a reader of tables makes floats of whole numbers that are large or beside
    one."""
    rows = [f'{{"question": "a", "answer": {cell}}}' for cell in (number, beside) if cell]
    assert pairs(jsonl(tmp_path / "a.jsonl", *rows))[0] == ("a", text)
    assert pairs(written(tmp_path / "a.json", "[" + ",\n".join(rows) + "]"))[0] == ("a", text)


# Tables as text


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_cells_of_csv_are_text(tmp_path: Path, name: str) -> None:
    """A reader of tables makes 7 of 007, 1000.0 of 1e3 and nothing of NA."""
    rows = [("a, b", "007"), ('say "x"', "1e3"), ("two\nlines", "NA"), ("groß", "None"), ("c", "1/2")]
    path = tmp_path / name
    with io.StringIO() as file:
        csv.writer(file).writerows([("problem", "answer"), *rows])
        data = file.getvalue().encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert pairs(path) == rows


def test_csv_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    def told(content: bytes) -> str:
        return refused(written(tmp_path / "a.csv", content))

    assert "(FILE:2 is not UTF-8): fix" in told(b"problem,answer\na\xff,1\nb,2\n")
    assert "(FILE:3 has no text in column 'answer'): fix" in told(b"problem,answer\na,1\nb,\n")
    assert "(FILE:3 has 1 cells more than the first line has names): fix" in told(b"problem,answer\na,1\nb,2,3\n")
    assert told(b'problem,answer\na,"1\n').startswith("FILE is not CSV: unexpected end of data, after line 1")
    assert told(b"a,b\n1,2\n").startswith("FILE has the columns a, b, but mine needs problem + answer")
    assert told(b"problem,answer\n").startswith("FILE holds no rows")
    assert told(b"").startswith("FILE holds no rows")
    assert told("problem,answer\na,1\n".encode("utf-16")).startswith("FILE is not UTF-8 but UTF-16: convert it")


# Types of parquet


DAY = datetime.date(2020, 1, 2)
GOOD: dict[str, tuple[Callable[[], pa.Array], list[str]]] = {
    "decimal": (lambda: pa.array([Decimal("1.50"), Decimal("2.00")], pa.decimal128(20, 2)), ["1.5", "2"]),
    "large decimal": (
        lambda: pa.array([Decimal(10**40 + 1), Decimal(2)], pa.decimal256(50, 0)),
        [f"1{'0' * 39}1", "2"],
    ),
    "uint64": (lambda: pa.array([2**64 - 1, 1], pa.uint64()), ["18446744073709551615", "1"]),
    "float": (lambda: pa.array([1.0, 0.25]), ["1", "0.25"]),
    "large string": (lambda: pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
    "dictionary": (lambda: pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    "list": (lambda: pa.array([["1", "2"], ["3"]]), ["1, 2", "3"]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_parquet_answers_of_any_kind_of_number_or_text(tmp_path: Path, kind: str) -> None:
    make, expected = GOOD[kind]
    pq.write_table(pa.table({"problem": ["a", "b"], "answer": make()}), tmp_path / "a.parquet")
    assert pairs(tmp_path / "a.parquet") == list(zip("ab", expected, strict=True))


BAD: dict[str, tuple[Callable[[], pa.Array], str]] = {
    "date": (lambda: pa.array([DAY, DAY]), "date32[day]"),
    "time": (lambda: pa.array([datetime.datetime(2020, 1, 2)] * 2), "timestamp[us]"),
    "bool": (lambda: pa.array([True, False]), "bool"),
    "binary": (lambda: pa.array([b"1", b"2"]), "binary"),
    "struct": (lambda: pa.array([{"x": 1}, {"x": 2}]), "struct<x: int64>"),
    "messages": (lambda: pa.array([[{"role": "user"}], [{"role": "user"}]]), "list<element: struct<role: string>>"),
    "nested lists": (lambda: pa.array([[["1"]], [["2"]]]), "list<element: list<element: string>>"),
}


@pytest.mark.parametrize("column", ["problem", "answer"])
@pytest.mark.parametrize("kind", BAD)
def test_parquet_types_that_are_neither_are_named(tmp_path: Path, kind: str, column: str) -> None:
    make, called = BAD[kind]
    other = "answer" if column == "problem" else "problem"
    pq.write_table(pa.table({column: make(), other: ["a", "b"]}), tmp_path / "a.parquet")
    key = "data.question_column" if column == "problem" else "data.answer_column"
    said = refused(tmp_path / "a.parquet").replace("list<item:", "list<element:")
    assert said == (
        f"column '{column}' of FILE is of the type {called}: expected text or numbers; write it so, or name another "
        f"column by {key}"
    )


def test_a_list_of_questions_in_parquet_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"problem": [["a", "b"]], "answer": ["1"]}), tmp_path / "a.parquet")
    assert "FILE row 1 holds a list in column 'problem'" in refused(tmp_path / "a.parquet")

"""The run folder: what is written is what is read, whatever a crash tears."""

import gzip
import io
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1v0.base import writing
from r1v0.base.errors import UserError
from r1v0.runs import records as recorded
from r1v0.runs import runlog
from r1v0.runs.progress import Progress
from r1v0.runs.runlog import RunLog
from r1v0.runs.written import answers_at


def new(folder: Path) -> RunLog:
    return runlog.create(folder, "seed = 1\n", {"python": "3"})


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=no_constant)


def test_create_makes_the_folder_and_its_parents(tmp_path: Path) -> None:
    log = new(tmp_path / "runs" / "a")
    assert recorded.config_text(log.folder) == "seed = 1\n"
    assert json.loads((log.folder / "env.json").read_text()) == {"python": "3"}
    assert recorded.read_metrics(log.folder) == []
    assert recorded.read_evals(log.folder) == []


def test_create_takes_an_empty_folder_and_leaves_foreign_files_alone(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("from the shell")
    new(tmp_path)
    assert (tmp_path / "log.txt").read_text() == "from the shell"


@pytest.mark.parametrize("part", runlog.PARTS)
def test_create_refuses_a_folder_with_any_part_of_a_run(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="already holds a run") as error:
        new(tmp_path)
    assert "--resume" in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_create_refuses_a_file_and_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="choose another --out"):
            new(folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_of_two_runs_that_begin_at_once_one_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new(tmp_path)
    monkeypatch.setattr(runlog, "need_free", lambda folder: None)  # the other run looked before the first one wrote
    with pytest.raises(UserError, match="another run"):
        runlog.create(tmp_path, "seed = 2\n", {})
    assert recorded.config_text(tmp_path) == "seed = 1\n"


def test_rows_come_back_as_written_and_numbers_that_are_none_as_null(tmp_path: Path) -> None:
    log = new(tmp_path)
    row = {"step": 1, "a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 0.1, "e": (1.5, math.nan), "f": "é\u2028"}
    log.append_metrics(row)
    log.append_metrics({"step": 2, "d": 1 / 3})
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    assert len(lines) == 2
    expected = {"step": 1, "a": None, "b": [None, {"c": None}], "d": 0.1, "e": [1.5, None], "f": "é\u2028"}
    assert strict(lines[0].decode("ascii")) == expected
    assert recorded.read_metrics(tmp_path) == [expected, {"step": 2, "d": 1 / 3}]


def test_a_row_is_written_by_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    class Spy(io.FileIO):
        def write(self, data: Any) -> int:
            written.append(bytes(data))
            return super().write(data)

    log = new(tmp_path)
    monkeypatch.setattr(writing, "open", lambda path, mode, **_: Spy(path, mode), raising=False)
    log.append_metrics({"step": 1})
    log.append_evals([{"step": 0, "dataset": "x"}, {"step": 0, "dataset": "y"}])
    assert written == [b'{"step": 1}\n', b'{"step": 0, "dataset": "x"}\n{"step": 0, "dataset": "y"}\n']


def test_a_last_line_torn_anywhere_is_skipped(tmp_path: Path) -> None:
    log = new(tmp_path)
    for step in (1, 2, 3):
        log.append_metrics({"step": step, "reward/mean": 0.25 * step, "nested": {"x": [1, 2]}})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    rows = recorded.read_metrics(tmp_path)
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole) + 1):
        path.write_bytes(whole[:cut])
        # Without its newline alone, the last line is still whole.
        assert recorded.read_metrics(tmp_path) == (rows if cut >= len(whole) - 1 else rows[:2])
    path.write_bytes(whole[: start + 5] + b"\0" * 100)
    assert recorded.read_metrics(tmp_path) == rows[:2]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b'{"step": 2',
        b"[2]",
        b"2",
        b'{"stop": 2}',
        b'{"step": "2"}',
        b'{"step": 2.0}',
        b'{"step": true}',
        b'{"step": null}',
        b'{"step": 2, "x": "\xff"}',
        b'{"step": ' + b"9" * 5000 + b"}",
        b'{"step": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_damaged_line_before_the_last_is_named(tmp_path: Path, line: bytes) -> None:
    new(tmp_path)
    for name, read in (("metrics.jsonl", recorded.read_metrics), ("evals.jsonl", recorded.read_evals)):
        (tmp_path / name).write_bytes(b'{"step": 1}\n\n' + line + b'\n{"step": 3}\n')
        with pytest.raises(UserError, match=rf"{name} line 3 is damaged") as error:
            read(tmp_path)
        assert "\n" not in str(error.value)


def test_numbers_that_are_no_json_are_read_as_null(tmp_path: Path) -> None:
    new(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "x": NaN, "y": -Infinity}\n')
    assert recorded.read_metrics(tmp_path) == [{"step": 1, "x": None, "y": None}]


def records(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [strict(line) for line in lines]


def test_rollouts_and_answers_are_gzipped_lines_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    log = new(tmp_path)
    rows = [{"completion": "wait\nno", "reward": 1.0}, {"completion": "", "reward": math.nan}]
    log.write_rollouts(10, iter(rows))
    path = tmp_path / "rollouts" / "step-00010.jsonl.gz"
    assert records(path) == [rows[0], {"completion": "", "reward": None}]
    first = path.read_bytes()
    path.rename(tmp_path / "elsewhere")
    log.write_rollouts(10, rows)
    assert path.read_bytes() == first
    log.write_answers(0, rows[:1])
    assert records(tmp_path / "answers" / "step-00000.jsonl.gz") == rows[:1]
    assert sorted(p.name for p in (tmp_path / "rollouts").iterdir()) == ["step-00010.jsonl.gz"]


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b'{"a": 1}\n{"a"', mtime=0), gzip.compress(b"[1]\n", mtime=0), b"\x1f\x8b\x08"]
)
def test_damaged_answers_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "step-00000.jsonl.gz").write_bytes(data)
    with pytest.raises(
        UserError, match=r"step-00000\.jsonl\.gz (is damaged|holds something that is not a graded answer)"
    ):
        answers_at(tmp_path, 0)


def write_steps(log: RunLog, first: int, last: int) -> None:
    """What a run with an evaluation every second step writes."""
    for step in range(first, last + 1):
        log.append_metrics({"step": step, "reward/mean": math.sin(step), "length/correct": math.nan})
        log.write_rollouts(step, [{"completion": str(step)}])
        if step % 2 == 0:
            log.append_evals([{"step": step, "dataset": "x", "accuracy": step / 10}])
            log.write_answers(step, [{"text": str(step)}])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "env.json"
    }


@pytest.mark.parametrize("torn", [b"", b'{"step": 8, "rew'])
def test_a_resumed_run_leaves_the_files_of_an_unbroken_one(tmp_path: Path, torn: bytes) -> None:
    write_steps(new(tmp_path / "whole"), 1, 10)
    write_steps(new(tmp_path / "broken"), 1, 7)
    for name in ("metrics.jsonl", "evals.jsonl"):
        with open(tmp_path / "broken" / name, "ab") as file:
            file.write(torn)
    log = runlog.resume(tmp_path / "broken", "seed = 1\n", 5, {"python": "4"})
    assert [row["step"] for row in recorded.read_metrics(log.folder)] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in recorded.read_evals(log.folder)] == [2, 4]
    write_steps(log, 6, 10)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_truncating_is_repeatable_and_spares_what_is_not_ours(tmp_path: Path) -> None:
    log = new(tmp_path)
    write_steps(log, 1, 4)
    (tmp_path / "rollouts" / "step-notes.jsonl.gz").write_text("mine")
    log.truncate_after(2)
    once = files(tmp_path)
    log.truncate_after(2)
    assert files(tmp_path) == once
    kept = {"rollouts/step-00001.jsonl.gz", "rollouts/step-00002.jsonl.gz", "rollouts/step-notes.jsonl.gz"}
    assert {name for name in once if name.startswith("rollouts")} == kept
    assert {name for name in once if name.startswith("answers")} == {"answers/step-00002.jsonl.gz"}
    log.truncate_after(0)
    assert recorded.read_metrics(tmp_path) == []


def test_truncating_changes_nothing_when_a_log_is_damaged(tmp_path: Path) -> None:
    log = new(tmp_path)
    write_steps(log, 1, 4)
    (tmp_path / "evals.jsonl").write_text('{"step": 2}\noops\n{"step": 4}\n')
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"evals\.jsonl line 2"):
        log.truncate_after(1)
    assert files(tmp_path) == before


def test_a_crash_while_truncating_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new(tmp_path)
    write_steps(log, 1, 4)
    before = files(tmp_path)

    def fail(*_: object) -> NoReturn:
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="power cut"):
        log.truncate_after(1)
    assert files(tmp_path) == before


def test_resuming_notes_where_each_part_ran(tmp_path: Path) -> None:
    new(tmp_path)
    runlog.resume(tmp_path, "a = 1\n", 5, {"python": "4"})
    runlog.resume(tmp_path, "a = 2\n", 8, {"python": "5"})
    about = json.loads((tmp_path / "env.json").read_text())
    parts = [{"after_step": 5, "python": "4"}, {"after_step": 8, "python": "5"}]
    assert about == {"python": "3", "resumed": parts}
    assert recorded.config_text(tmp_path) == "a = 2\n"
    (tmp_path / "env.json").write_text("{")
    runlog.resume(tmp_path, "a = 2\n", 9, {})
    assert json.loads((tmp_path / "env.json").read_text()) == {"resumed": [{"after_step": 9}]}


def test_a_folder_without_a_run_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, reason in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty", "is not a run folder")):
        for read in (recorded.read_metrics, recorded.read_evals, recorded.config_text, runlog.need_run):
            with pytest.raises(UserError, match=reason) as error:
                read(folder)
            assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not exist"):
        runlog.resume(tmp_path / "nowhere", "", 0, {})
    assert not (tmp_path / "nowhere").exists()


def test_logs_without_a_config_can_be_read_but_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert recorded.read_metrics(tmp_path) == [{"step": 1}]
    assert recorded.read_evals(tmp_path) == []
    with pytest.raises(UserError, match=r"config\.toml cannot be read"):
        recorded.config_text(tmp_path)


def test_an_atomic_write_leaves_nothing_aside(tmp_path: Path) -> None:
    writing.write_atomic(tmp_path / "a", b"one")
    writing.write_atomic(tmp_path / "a", b"two")
    assert files(tmp_path) == {"a": b"two"}


@given(st.integers(0, 999_999_999))
def test_a_steps_name_tells_the_step(step: int) -> None:
    name = runlog.step_name(step)
    assert runlog.step_of(name) == step
    assert name == "step-" + str(step).rjust(5, "0")


@pytest.mark.parametrize(
    "name", ["", "step-1", "step-00010.tmp", "step--0010", "xstep-00010", "step-٠٠٠١٠", "step-00010\n"]
)
def test_other_names_tell_no_step(name: str) -> None:
    assert runlog.step_of(name) is None


def test_progress_is_closed_after_an_exception() -> None:
    closed = []

    class Watch(Progress):
        def close(self) -> None:
            closed.append(True)

    def run() -> None:
        with Watch() as progress:
            progress.note("still silent")
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        run()
    assert closed == [True]

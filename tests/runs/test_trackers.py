"""The real packages, offline: what they hold is read from their own storage."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.config import TRACKERS, resolve, to_toml
from r1v0.runs import trackers
from r1v0.runs.runlog import RunLog
from r1v0.runs.trackers import COLUMNS, log_records, need_packages, run_id
from r1v0.runs.tracking import export
from tests.run_folders import evals_row, metrics_row, write_run
from tests.tracker_stores import Entries, in_tensorboard, in_trackio, in_wandb

Read = Callable[[Path], Entries]


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """trackio reads TRACKIO_DIR once, when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder))
        yield folder / "r1v0.db"


@pytest.fixture(params=TRACKERS)
def store(request: pytest.FixtureRequest, database: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Read]:
    """A tracker's name, and how to read what it holds of a run folder."""
    name = str(request.param)
    pytest.importorskip(trackers.PACKAGES[name])
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_DIR", "WANDB_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    readers: dict[str, Read] = {
        "trackio": lambda run: in_trackio(database, run.name),
        "tensorboard": in_tensorboard,
        "wandb": in_wandb,
    }
    return name, readers[name]


def answer(problem: int, dataset: str = "countdown", sample: int = 0) -> dict[str, Any]:
    return dict(
        dataset=dataset, problem=f"{dataset}/{problem}", sample=sample, question=f"Use {problem}|7?", gold="8",
        completion="a <b>\n1 + 7", extracted="1 + 7", correct=True, strict=True, reward=1.0, tokens=9, cut_off=False,
        failure="", why="", template="countdown", correct_boxed=None, correct_last=None,
    )  # fmt: skip


def make_run(folder: Path, steps: int = 4) -> Path:
    """Steps 1 to 4, evaluations at 0, 2 and 4, of 20 problems and two samples each."""
    metrics = [metrics_row(step) for step in range(1, steps + 1)]
    write_run(folder, metrics, [evals_row(step) for step in range(0, steps + 1, 2)])
    config = resolve("countdown", sets=["steps=4", "eval.every=2"])
    (folder / "config.toml").write_text(to_toml(config))
    for step in range(0, steps + 1, 2):
        RunLog(folder).write_answers(step, [answer(number, sample=sample) for number in range(20) for sample in (0, 1)])
    return folder


def test_an_old_run_is_sent_whole_and_a_second_time_changes_nothing(store: tuple[str, Read], tmp_path: Path) -> None:
    name, read = store
    run = make_run(tmp_path / f"whole-{name}")
    done = export(run, name)
    assert (done.sent, done.there, done.waits) == (5, 0, None)
    held = read(run)
    assert [step for step, _ in held] == [0, 1, 2, 3, 4]
    values = dict(held)
    assert values[3]["reward/mean"] == pytest.approx(0.15)
    assert values[3]["tokens/sampled"] == 3000
    assert values[2]["eval/countdown/accuracy"] == pytest.approx(0.25)
    assert values[2]["eval/countdown/pass_at_k/1"] == pytest.approx(0.25)
    assert values[2]["reward/mean"] == pytest.approx(0.1)
    assert "reward/mean" not in values[0]
    assert not [key for key in values[3] if key.startswith("eval/")]
    assert not any("length/correct" in entry or "step" in entry or "eval/countdown/step" in entry for _, entry in held)
    before = sorted(path.name for path in run.rglob("*"))
    export(run, name)
    assert read(run) == held
    if name != "tensorboard":  # whose file is written anew
        assert sorted(path.name for path in run.rglob("*")) == before


def test_a_run_that_grew_is_gone_on_with(store: tuple[str, Read], tmp_path: Path) -> None:
    name, read = store
    run = make_run(tmp_path / f"grew-{name}", steps=2)
    export(run, name)
    identity = run_id(run)
    for more in (3, 4):
        RunLog(run).append_metrics(metrics_row(more))
    done = export(run, name)
    assert done.waits == 4  # its evaluation may still come, and a tracker takes a step once
    RunLog(run).append_evals([evals_row(4)])
    export(run, name)
    held = read(run)
    assert [step for step, _ in held] == [0, 1, 2, 3, 4]
    assert dict(held)[4]["eval/countdown/accuracy"] == pytest.approx(0.3)
    assert run_id(run) == identity


def test_sixteen_completions_of_an_evaluation_are_a_table(store: tuple[str, Read], tmp_path: Path) -> None:
    name, read = store
    run = make_run(tmp_path / f"table-{name}")
    export(run, name)
    values = dict(read(run))[4]
    if name == "trackio":
        table = values["eval/countdown/completions"]["_value"]
        assert len(table) == 16
        assert table[3] == {
            "question": "Use 3|7?", "gold": "8", "completion": "a <b>\n1 + 7", "extracted": "1 + 7",
            "correct": True, "reward": 1.0, "tokens": 9, "cut_off": False,
        }  # fmt: skip
    elif name == "wandb":
        assert (values["eval/countdown/completions"]["nrows"], values["eval/countdown/completions"]["ncols"]) == (16, 8)
    else:
        lines = values["eval/countdown/completions/text_summary"].splitlines()
        assert lines[0] == "| question | gold | completion | extracted | correct | reward | tokens | cut_off |"
        assert len(lines) == 2 + 16
        assert lines[5] == "| Use 3\\|7? | 8 | a &lt;b> ⏎ 1 + 7 | 1 + 7 | True | 1.0 | 9 | False |"


def test_a_run_of_an_older_release_is_sent_too(tmp_path: Path) -> None:
    """Its config.toml has a setting that is gone."""
    pytest.importorskip("tensorboardX")
    run = make_run(tmp_path / "old")
    (run / "config.toml").write_text("checkpoint_every = 5\n[eval]\nevery = 2\n")
    assert export(run, "tensorboard").sent == 5
    assert '"checkpoint_every": 5' in dict(in_tensorboard(run))[0]["config/text_summary"]


def test_two_folders_of_one_name_are_two_runs_of_trackio(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    first, second = make_run(tmp_path / "a" / "twin"), make_run(tmp_path / "b" / "twin", steps=2)
    for run in (first, second, first, second):
        export(run, "trackio")
    assert [step for step, _ in in_trackio(database, "twin")] == [0, 1, 2, 3, 4]
    assert [step for step, _ in in_trackio(database, f"twin-{run_id(second)}")] == [0, 1, 2]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trackers, "PACKAGES", {"wandb": "no_such_package", "trackio": "only_a_folder"})
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "only_a_folder").mkdir()  # as wandb leaves one where it runs
    for name in ("wandb", "trackio"):
        with pytest.raises(UserError, match=rf"pip install 'r1v0\[{name}\]'"):
            need_packages([name])
    need_packages([])


def test_an_id_is_made_once_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    first = run_id(tmp_path)
    assert (len(first), run_id(tmp_path)) == (8, first)
    for damage in ("", "[]", '{"id": 3}', '{"id": "../x"}'):
        (tmp_path / "tracker.json").write_text(damage)
        assert run_id(tmp_path).isalnum()
        assert "/" not in run_id(tmp_path)


def test_the_verb_says_what_it_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboardX")
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", steps=3)
    assert main(["export", str(first), str(second), "--to", "tensorboard"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{first}: 5 steps sent"
    assert told[2] == f"{second}: 4 steps sent"
    assert told[1].endswith(f"tensorboard --logdir {tmp_path}")
    (first / "tracker.json").unlink()
    assert main(["export", str(first), "--to", "tensorboad"]) == 2
    assert "--to: invalid choice: 'tensorboad'" in capsys.readouterr().err
    assert main(["train", "--set", 'track=["tensorboad"]']) == 2
    assert "unknown tracker in track 'tensorboad': did you mean 'tensorboard'?" in capsys.readouterr().err


def part(kind: int, data: bytes) -> bytes:
    return struct.pack("<IHB", 0, len(data), kind) + data


def test_the_records_of_a_wandb_file() -> None:
    """By LevelDB's log format: https://github.com/google/leveldb/blob/main/doc/log_format.md, 7 bytes of wandb's own
    first. 32768 - 7 - 7 = 32754 bytes of payload fill the first block but for its header."""
    head = b":W&B\xe1\xbe\x00"
    assert list(log_records(head)) == []
    assert list(log_records(head + part(1, b"one") + part(1, b"two"))) == [b"one", b"two"]
    long = bytes(range(250)) * 400  # 100,000 bytes over four blocks
    first, second, third = long[:32754], long[32754:65515], long[65515:98276]
    whole = head + part(2, first) + part(3, second) + part(3, third) + part(4, long[98276:]) + part(1, b"after")
    assert list(log_records(whole)) == [long, b"after"]
    for cut in (1, 5, 8, 12):
        assert list(log_records(whole[:-cut])) == [long]  # a kill tore the last one
    assert list(log_records(whole[: 32768 * 2])) == []
    # A block's last six bytes hold no part: they are zeros.
    filled = head + part(1, b"x" * (32768 - 7 - 7 - 3)) + b"\0\0\0" + part(1, b"next block")
    assert list(log_records(filled))[1] == b"next block"


def test_the_columns_of_a_table_are_fields_of_an_answer() -> None:
    assert set(COLUMNS) <= answer(0).keys()

"""A hub that cannot be reached, a cache that cannot be written: one line at once, and whatever needs neither goes
on."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1v0 import cli
from r1v0.base import hub
from r1v0.base.errors import UserError
from r1v0.models.loading import resolve_model
from r1v0.tasks.datasets import load_eval

NOWHERE = "http://127.0.0.1:9"  # the port `discard`, which nobody serves


def command(tmp_path: Path, *words: str, **variables: str) -> tuple[int, str, str, float]:
    """A command of its own: where the hub and its cache are is read when the libraries are imported."""
    ours = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment = ours | {"HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"} | variables
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "r1v0", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "a/b", "x"], "model 'a/b' is not a folder here and the hub cannot be reached (ConnectError: "),
        (
            ["plan", "--set", "model=a/b"],
            "model 'a/b' is not a folder here and the hub cannot be reached (ConnectError: ",
        ),
        (["train", "--set", "model=a/b", "--set", "data.name=gsm8k"], "model 'a/b' is not a folder here and the hub "),
        (
            ["train", "--set", "model=tiny", "--set", "data.name=gsm8k"],
            "no connection to the hub for dataset 'openai/gsm8k' (ConnectError: ",
        ),
        (["eval", "tiny", "--on", "aime24"], "no connection to the hub for dataset 'HuggingFaceH4/aime_2024' (Connect"),
    ],
)
def test_an_unreachable_hub_is_one_line_at_once(tmp_path: Path, words: list[str], expected: str) -> None:
    """The model is looked for before the data. The libraries' own six attempts take 23 s."""
    code, out, err, seconds = command(tmp_path, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"r1v0: {expected}")
    assert seconds < 20
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}


def test_offline_by_wish_is_said(tmp_path: Path) -> None:
    code, _, err, _ = command(tmp_path, "sample", "a/b", "x", HF_HUB_OFFLINE="1")
    assert (code, err) == (2, "r1v0: model 'a/b' is not a folder here nor in the cache "
        f"{tmp_path}/hf/hub, and HF_HUB_OFFLINE is set: unset it, or give a local folder\n")  # fmt: skip
    code, _, err, _ = command(tmp_path, "eval", "tiny", "--on", "aime24", HF_HUB_OFFLINE="1")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(
        "r1v0: dataset 'HuggingFaceH4/aime_2024' is not in the cache, and HF_HUB_OFFLINE is set: unset it"
    )


def test_a_copy_in_the_cache_is_looked_for_when_the_hub_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []

    def builder(*_: object, **__: object) -> None:
        seen.append((huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        raise RuntimeError("enough")

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    for out_of_reach in (True, False):
        monkeypatch.setattr(hub, "unreachable", lambda dataset, value=out_of_reach: value)
        with suppress(UserError):
            load_eval("gsm8k", 0)
    assert seen == [(True, True), (before, False)]
    assert (before, False) == (huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache below a file: it cannot be made by anybody, root included."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    hub.dataset_cache.cache_clear()
    yield tmp_path / "file"
    hub.dataset_cache.cache_clear()


def test_local_data_need_no_cache(tmp_path: Path, no_cache: Path) -> None:
    pq.write_table(pa.table({"problem": ["a", "b"], "answer": ["1", "2"]}), tmp_path / "a.parquet")
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.table({"problem": ["c"], "answer": ["3"]}), tmp_path / "folder" / "test.parquet")
    (tmp_path / "a.jsonl").write_text('{"problem": "d", "answer": "x"}\n' * 2)
    assert [problem.answer for problem in load_eval(f"mine={tmp_path}/a.parquet", 0)] == ["1", "2"]
    assert [problem.answer for problem in load_eval(f"mine={tmp_path}/folder", 0)] == ["3"]
    assert [problem.answer for problem in load_eval(f"mine={tmp_path}/a.jsonl", 0)] == ["x", "x"]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/home/x/.cache"),
        OSError(errno.EROFS, "Read-only file system", "/x"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def download(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError) as caught:
        resolve_model("a/b")
    kind = type(error).__name__
    assert str(caught.value) == (
        f"model 'a/b' cannot be kept in the hub's cache ({kind}: {error}): set HF_HOME to a folder with room "
        "that can be written"
    )
    monkeypatch.setattr(datasets, "load_dataset_builder", download)
    monkeypatch.setattr(hub, "unreachable", lambda dataset: False)
    with pytest.raises(UserError, match="dataset 'openai/gsm8k' cannot be kept in the hub's cache"):
        load_eval("gsm8k", 0)


def test_matplotlib_says_nothing_of_its_caches(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPLCONFIG"))}
    code = "import r1v0.report.style, matplotlib, matplotlib.figure; print(matplotlib.get_cachedir())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": f"{tmp_path}/file/home"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert str(tmp_path) not in done.stdout


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["data.name=mine", "data.path=gone.jsonl"], "data path 'gone.jsonl' does not exist: "),
        (["data.name=gsmk8"], "unknown dataset 'gsmk8': did you mean 'gsm8k'?"),
        (["eval.on=['mine=gone.parquet']"], "data path 'gone.parquet' does not exist: "),
        (["data.avoid=['mine=gone.jsonl']"], "data path 'gone.jsonl' does not exist: "),
        (["data.name=aime24"], "dataset 'aime24' is for evaluation: "),
    ],
)
def test_names_and_paths_are_looked_at_before_a_model_is_downloaded(
    sets: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("asked for the model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    words = [word for item in ("model=a/b", *sets) for word in ("--set", item)]
    assert cli.main(["train", *words]) == 2
    assert capsys.readouterr().err.startswith(f"r1v0: {expected}")

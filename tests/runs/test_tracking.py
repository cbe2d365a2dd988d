"""A run's rows on their way to trackers: what is sent when, what a tracker's failure costs, and kills."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from r1v0.base.errors import UserError
from r1v0.base.lock import hold
from r1v0.config import TRACKERS, Config, resolve, to_toml
from r1v0.runs import tracking
from r1v0.runs.progress import Progress
from r1v0.runs.records import read_evals, read_metrics
from r1v0.runs.trackers import PACKAGES, Tables
from r1v0.runs.tracking import Entry, Tracked, completions, entry_of, export, numbers_in
from tests.conftest import ROOT
from tests.run_folders import evals_row, metrics_row, write_run
from tests.tracker_stores import in_tensorboard, in_trackio, in_wandb

Rows = list[tuple[int, dict[str, float]]]


class Held:
    """A tracker that keeps what it is sent."""

    where = "here"

    def __init__(self, last: int = -1) -> None:
        self.last, self.rows, self.closed = last, Rows(), False

    def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
        self.rows.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


class Display(Progress):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def step(self, metrics: Mapping[str, Any]) -> None:
        self.calls.append(metrics["step"])

    def note(self, text: str) -> None:
        self.calls.append(text)

    def finish(self, summary: Mapping[str, object]) -> None:
        self.calls.append("finish")

    def close(self) -> None:
        self.calls.append("close")

    @property
    def notes(self) -> list[str]:
        return [call for call in self.calls if isinstance(call, str) and call not in ("finish", "close")]


def config_of(every: int = 2) -> Config:
    return resolve("countdown", sets=['track=["wandb"]', "steps=6", f"eval.every={every}"])


def tracked(monkeypatch: pytest.MonkeyPatch, tracker: Any) -> tuple[Tracked, Display]:
    monkeypatch.setattr(tracking, "open_tracker", lambda *_: tracker)
    display = Display()
    return Tracked(display), display


def steps_of(tracker: Held) -> list[int]:
    return [step for step, _ in tracker.rows]


def test_numbers_of_a_row_leave_out_its_step_nulls_words_and_what_is_not_finite() -> None:
    row = {"step": 3, "a": 1, "b": None, "c": float("nan"), "d": True, "e": "x", "f": {"1": 0.5, "4": None}}
    assert numbers_in(row) == {"a": 1, "f/1": 0.5}
    assert numbers_in({"dataset": "math", "accuracy": 0.5, "step": 1}, "eval/math/") == {"eval/math/accuracy": 0.5}
    assert entry_of(2, {"step": 2, "a": 1}, [{"step": 2, "dataset": "x", "b": 2}]) == Entry(
        2, {"a": 1, "eval/x/b": 2}, True
    )
    assert entry_of(2, {"step": 2, "a": 1}, []) == Entry(2, {"a": 1}, False)


def test_a_step_is_sent_at_once_and_one_that_is_evaluated_with_its_evaluation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = Held()
    progress, display = tracked(monkeypatch, held)
    write_run(tmp_path / "run", [], [])
    with progress:
        progress.start(config_of(), 6, tmp_path / "run")
        progress.evaluation([evals_row(0)])
        progress.step(metrics_row(1))
        progress.step(metrics_row(2))
        wait_for(lambda: steps_of(held) == [0, 1])
        progress.evaluation([evals_row(2), evals_row(2, "countdown-hard")])
        progress.step(metrics_row(3))
        progress.step(metrics_row(4))
        progress.finish({})
    assert steps_of(held) == [0, 1, 2, 3]  # step 4 waits for an evaluation that the resumed run makes
    assert held.closed
    values = dict(held.rows)
    assert values[2]["reward/mean"] == 0.1
    assert values[2]["eval/countdown-hard/accuracy"] == 0.25
    assert display.notes == ["here"]
    assert display.calls[-2:] == ["finish", "close"]


def test_a_resumed_run_sends_what_is_missing_and_no_step_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tracker holds steps up to 1; on disk are 1 to 4, and the evaluation of 4 is still to come."""
    held = Held(last=1)
    progress, _ = tracked(monkeypatch, held)
    write_run(tmp_path / "run", [metrics_row(step) for step in (1, 2, 3, 4)], [evals_row(0), evals_row(2)])
    with progress:
        progress.start(config_of(), 6, tmp_path / "run")
        progress.evaluation([evals_row(4)])
        progress.step(metrics_row(5))
    assert steps_of(held) == [2, 3, 4, 5]
    assert dict(held.rows)[4]["reward/mean"] == 0.2
    assert dict(held.rows)[4]["eval/countdown/accuracy"] == pytest.approx(0.3)


def test_rows_that_a_resume_cut_off_and_wrote_again_are_sent_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tracker is at step 3, and the run goes on from its checkpoint at step 1."""
    held = Held(last=3)
    progress, _ = tracked(monkeypatch, held)
    write_run(tmp_path / "run", [metrics_row(1)], [evals_row(0)])
    with progress:
        progress.start(config_of(every=10), 6, tmp_path / "run")
        for step in (2, 3, 4, 5):
            progress.step(metrics_row(step))
    assert steps_of(held) == [4, 5]


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("a\nb"), SystemExit(1)])
def test_a_tracker_that_fails_warns_once_and_the_run_goes_on(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Broken(Held):
        def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
            if step == 2:
                raise error
            super().send(step, values, tables)

    held = Broken()
    progress, display = tracked(monkeypatch, held)
    write_run(tmp_path / "run", [], [])
    with progress:
        progress.start(config_of(every=10), 6, tmp_path / "run")
        for step in (1, 2, 3, 4):
            progress.step(metrics_row(step))
        wait_for(lambda: progress.feeds[0].off)
        progress.step(metrics_row(5))
    assert steps_of(held) == [1]
    assert [call for call in display.calls if isinstance(call, int)] == [1, 2, 3, 4, 5]
    warnings = [note for note in display.notes if note.startswith("warning")]
    assert len(warnings) == 1
    assert "wandb gets no more rows" in warnings[0]
    assert f"export {tmp_path / 'run'} --to wandb" in warnings[0]
    assert "\n" not in warnings[0]


def test_a_tracker_that_hangs_slows_nothing_and_is_given_up_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = threading.Event()

    class Slow(Held):
        def send(self, step: int, values: Mapping[str, float], tables: Tables) -> None:
            assert free.wait(60)

    monkeypatch.setattr(tracking, "BEHIND", 20)
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    for rows, why in ((5, "seconds to end"), (50, "20 steps behind")):
        progress, display = tracked(monkeypatch, Slow())
        write_run(tmp_path / str(rows), [], [])
        begin = time.monotonic()
        with progress:
            progress.start(config_of(every=100), 6, tmp_path / str(rows))
            threads = [feed.thread for feed in progress.feeds]
            for step in range(1, rows):
                progress.step(metrics_row(step))
        assert time.monotonic() - begin < 10
        assert [why in note for note in display.notes if note.startswith("warning")] == [True]
        free.set()
        for thread in threads:
            thread.join(20)
        free.clear()


def test_without_trackers_nothing_is_read_or_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    progress, display = tracked(monkeypatch, Held())
    with progress:
        progress.start(resolve("countdown"), 6, tmp_path)
        progress.step(metrics_row(1))
        progress.evaluation([evals_row(1)])
    assert display.calls == [1, "close"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_read_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    progress, display = tracked(monkeypatch, Held())
    with progress:
        progress.start(config_of(), 6, tmp_path / "nowhere")
        progress.step(metrics_row(1))
    assert len(display.notes) == 1
    assert display.notes[0].startswith("warning: nothing is sent to wandb: UserError: run folder")


def test_what_cannot_be_exported_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracking, "need_packages", lambda _: None)
    with pytest.raises(UserError, match="does not exist"):
        export(tmp_path / "nowhere", "wandb")
    evaluation = tmp_path / "eval"
    evaluation.mkdir()
    for name in ("config.toml", "eval.json", "evals.jsonl"):
        (evaluation / name).write_text("")
    with pytest.raises(UserError, match="is an evaluation"):
        export(evaluation, "wandb")
    run = write_run(tmp_path / "run", [metrics_row(1)], [])
    (run / "config.toml").write_text(to_toml(config_of()))
    with hold(run), pytest.raises(UserError, match="in use by process"):
        export(run, "wandb")

    def fail(*_: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(tracking, "open_tracker", fail)
    with pytest.raises(UserError, match=r"wandb took not all of .* \(ConnectionError: no network\): do it again"):
        export(run, "wandb")


def test_a_run_without_answers_has_no_tables(tmp_path: Path) -> None:
    assert completions(write_run(tmp_path / "run", [], []), 0) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_killed_at_random_moments_has_every_step_once_in_its_tracker(name: str, tmp_path: Path) -> None:
    """Twenty steps, a checkpoint every 3 and an evaluation every 2. Each part is killed (SIGKILL) at a random moment;
    the last ends. The tracker's own storage then holds each step once, with the numbers of metrics.jsonl."""
    pytest.importorskip(PACKAGES[name])
    seed = int(os.environ.get("SEED", "1"))
    chance, run, kills = random.Random(f"{seed}-{name}"), tmp_path / "killed", 0
    given = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    given.pop("WANDB_DIR", None)
    sets = [f'track=["{name}"]', "steps=20", "eval.every=2", "checkpoints.every=3", "threads=1", "eval.max_problems=40"]
    begin = ["--out", str(run), *(word for item in sets for word in ("--set", item))]
    while kills < 3:
        arguments = ["--resume", str(run)] if (run / "metrics.jsonl").exists() else begin
        process = subprocess.Popen(
            [sys.executable, "-m", "r1v0", "train", *arguments], env=given, cwd=ROOT, stdout=subprocess.DEVNULL
        )
        before = lines_in(run / "metrics.jsonl")
        deadline = time.monotonic() + 300
        while process.poll() is None and lines_in(run / "metrics.jsonl") in (0, before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 5.0))
        process.kill()
        if process.wait() == 0:
            break  # it ended before the kill: nothing is left to kill
        kills += 1
    assert kills >= 1
    done = subprocess.run(
        [sys.executable, "-m", "r1v0", "train", "--resume", str(run)],
        env=given, cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    found = {
        "trackio": lambda: in_trackio(tmp_path / "trackio" / "r1v0.db", "killed"),
        "tensorboard": lambda: in_tensorboard(run),
        "wandb": lambda: in_wandb(run),
    }[name]()
    assert [step for step, _ in found] == list(range(21))
    values = dict(found)
    for row in read_metrics(run):
        for key in ("reward/mean", "length/mean", "policy/entropy", "policy/loss"):
            assert values[row["step"]][key] == pytest.approx(row[key], rel=1e-6)
    for row in read_evals(run):
        assert values[row["step"]][f"eval/{row['dataset']}/accuracy"] == pytest.approx(row["accuracy"], rel=1e-6)
    print(f"{name}: {kills} kills, seed {seed}")


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(done: Any) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)

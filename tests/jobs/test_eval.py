"""`r1v0 eval`: every answer that has ended is kept, and a stopped evaluation ends as an undisturbed one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from r1v0.base.errors import Interrupted
from r1v0.jobs import eval
from r1v0.rollouts import collect
from r1v0.runs.progress import Progress
from r1v0.runs.settings import settle
from r1v0.sampling import sampler
from r1v0.tasks.datasets import load_eval
from r1v0.types import Completion

SETS = ["eval.on=[\"countdown\", \"countdown-hard\"]", "eval.samples=3", "eval.max_problems=10", "threads=1",
        "sampling.max_sequences=7", "sampling.max_new_tokens=40"]  # fmt: skip
SETTINGS = settle("tiny", "countdown", sets=SETS)
TEMPLATES = ["countdown", "plain"]


class Watcher(Progress):
    """Remembers the phases that it was told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int, int, dict[str, float | str]]] = []

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        self.phases.append((name, done, total, fields))


def evaluate(out: Path, progress: Progress | None = None) -> list[dict[str, Any]]:
    return eval.measure("tiny", SETTINGS, TEMPLATES, out, progress or Progress())[1]


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "eval"
    evaluate(out)
    return out


def assert_same(one: Path, other: Path) -> None:
    for name in ("answers.jsonl", "evals.jsonl", "eval.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_answers_are_in_order_in_the_end(whole: Path) -> None:
    found = [(row["dataset"], row["template"], row["problem"], row["sample"]) for row in lines(whole)]
    assert found == [
        (name, template, problem.id, sample)
        for name in ("countdown", "countdown-hard")
        for template in TEMPLATES
        for problem in load_eval(name, 10)
        for sample in range(3)
    ]


@pytest.mark.parametrize("stop", [1, 20, 60, 110])
def test_a_stopped_evaluation_keeps_every_answer_that_has_ended(
    stop: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a decoding step, also where grading is behind; it then goes on and ends as if nothing had happened."""
    out, ended = tmp_path / "eval", 0
    generate = sampler.generate

    def counted(*arguments: Any) -> Iterator[tuple[int, int, Completion]]:
        nonlocal ended
        for completion in generate(*arguments):
            ended += 1
            yield completion

    @contextmanager
    def stopping() -> Iterator[Callable[[], None]]:
        calls = 0

        def check() -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise Interrupted

        yield check

    with monkeypatch.context() as patch:
        patch.setattr(collect, "generate", counted)
        patch.setattr(eval, "stoppable", stopping)
        with pytest.raises(Interrupted):
            evaluate(out)
    kept = lines(out) if ended else []
    assert len(kept) == ended < 120
    assert ended or stop == 1
    assert all(row in lines(whole) for row in kept)
    evaluate(out)
    assert_same(out, whole)


def test_progress_counts_answers_and_says_how_they_stand(whole: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    evaluate(tmp_path / "eval", watcher)
    names = list(dict.fromkeys(phase[0] for phase in watcher.phases))
    assert names[0] == "evaluating countdown (countdown): answers"
    assert len(names) == 4
    own = [phase for phase in watcher.phases if phase[0] == names[0]]
    assert own[:2] == [(names[0], 0, 30, {"tokens": tokens}) for tokens in (0, 7)]  # a prefill, a token in seven slots
    assert [done for _, done, _, _ in own] == sorted(done for _, done, _, _ in own)
    row = json.loads((whole / "evals.jsonl").read_text().splitlines()[0])
    right, low, high = (f"{100 * row[name]:.0f}" for name in ("accuracy", "ci_low", "ci_high"))
    tokens = sum(row["tokens"] for row in lines(whole)[:30])
    assert own[-1] == (names[0], 30, 30, {"accuracy so far": f"{right} % [{low}, {high}]", "tokens": tokens})


def test_progress_of_what_was_there_already(whole: Path) -> None:
    """Nothing is sampled: one call for each dataset and template."""
    watcher = Watcher()
    evaluate(whole, watcher)
    assert [(done, total, fields["tokens"]) for _, done, total, fields in watcher.phases] == [(30, 30, 0)] * 4


REAL = [sys.executable, "-m", "r1v0", "eval", "tiny", "--on", "countdown", "--samples", "4"]
REAL += [
    word for item in ("eval.max_problems=150", "threads=1", "sampling.max_sequences=8") for word in ("--set", item)
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "eval"
    subprocess.run([*REAL, "--out", str(out)], capture_output=True, check=True)
    return out


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL]
)
def test_a_process_that_is_stopped_loses_no_answer(number: signal.Signals, real: Path, tmp_path: Path) -> None:
    """A real one; whatever the signal, no line that was there goes, and the end is that of an undisturbed
    evaluation."""
    out = tmp_path / "eval"
    process = subprocess.Popen([*REAL, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        path, before = out / "answers.jsonl", b""
        while process.poll() is None and before.count(b"\n") < 40:
            time.sleep(0.01)
            before = path.read_bytes() if path.exists() else b""
        process.send_signal(number)
        said, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (-number if number == signal.SIGKILL else 130), error
    assert error == ""
    after = path.read_bytes()
    assert after.startswith(before)
    whole_lines = after.count(b"\n")
    assert 40 <= whole_lines < 600
    if number != signal.SIGKILL:
        assert after.endswith(b"\n")
        assert f"--out {out}" in said
    again = subprocess.run([*REAL, "--out", str(out)], capture_output=True, text=True, check=True)
    assert f"answers {whole_lines}/600" in again.stdout
    assert_same(out, real)

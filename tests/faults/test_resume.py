"""Resumed equals uninterrupted, bit for bit: a run is stopped at every kind of place, and each time goes on in a new
start."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from r1v0.base.errors import Interrupted
from r1v0.config import Config, resolve, to_toml
from r1v0.rollouts import evaluate
from r1v0.runs import manifest, runlog
from r1v0.runs.manifest import checkpoints_in, newest_whole
from r1v0.runs.progress import Progress
from r1v0.runs.records import read_evals, read_metrics
from r1v0.trainer import checkpoint, loop
from r1v0.trainer.setup import prepare

SMALL = [
    "steps=4",
    "checkpoints.every=2",
    "grpo.groups=4",
    "grpo.group_size=4",
    "sampling.max_new_tokens=40",
    "eval.max_problems=6",
    "eval.every=2",
    "optimizer.micro_batch_tokens=30",
    "threads=1",
]
SEVERAL = ["grpo.minibatches=2", "grpo.epochs=2"]
FAST = {
    "all at once": [*SEVERAL, "grpo.variant=dapo", "grpo.max_refills=30", "grpo.kl_coef=0.05", "grpo.keep_per_group=3",
                    "optimizer.schedule=cosine", "checkpoints.keep_last=1"],
    "adapters": [*SEVERAL, "lora.rank=4"],
}  # fmt: skip
SLOW = {
    "one update": [],
    "several updates": [*SEVERAL, "grpo.variant=dapo"],
    "refilled groups": [*SEVERAL, "grpo.variant=dapo", "grpo.max_refills=30"],
    "a reference": [*SEVERAL, "grpo.kl_coef=0.05", "grpo.variant=dr_grpo"],
    "keep three": [*SEVERAL, "grpo.keep_per_group=3", "optimizer.schedule=cosine"],
    "bfloat16": [*SEVERAL, "compute.dtype=bfloat16"],
    "adapters in bfloat16, with a reference": [*SEVERAL, "lora.rank=4", "compute.dtype=bfloat16", "grpo.kl_coef=0.05"],
    "states in 8 bits": [*SEVERAL, "optimizer.moments=8bit"],
    "sampling in bfloat16": [*SEVERAL, "sampling.dtype=bfloat16"],
    "one checkpoint is kept": [*SEVERAL, "checkpoints.keep_last=1"],
}
VARIATIONS = {**FAST, **SLOW}


@dataclass(frozen=True)
class Stop:
    """Where the stop is asked for: steps that are done, who asks, updates of the step that are done, how often by
    now."""

    step: int
    place: str
    updates: int | None = None
    count: int = 1


class Killed(BaseException):
    """In place of SIGKILL: nothing of ours catches it."""


def begin(
    config: Config,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: Stop | None = None,
    asked: Counter[tuple[int, str, int | None]] | None = None,
) -> Path:
    """Start the run or go on with it, as the command line does, up to `stop`. `asked` counts who could have been it."""
    asked = Counter() if asked is None else asked
    found = newest_whole(folder) if folder.exists() else None
    run = prepare(config, found)
    log = (
        runlog.resume(folder, to_toml(config), run.state.step, {})
        if folder.exists()
        else runlog.create(folder, to_toml(config), {})
    )

    @contextmanager
    def stopping() -> Iterator[Callable[[], None]]:
        def check() -> None:
            caller = sys._getframe(1).f_locals  # polling's own word, or an evaluation's standing
            phase = caller.get("phase") or getattr(caller.get("self"), "name", "training")
            place = str(phase).split()[0]
            here = run.state.step, place, len(run.step.done) if run.step else None
            asked[here] += 1
            if stop is not None and here == (stop.step, stop.place, stop.updates) and asked[here] == stop.count:
                raise Interrupted

        yield check

    monkeypatch.setattr(loop, "stoppable", stopping)
    return run.run(log, Progress())


def timeless(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(("time", "memory"))} for row in rows]


def assert_same_run(a: Path, b: Path) -> None:
    """Metrics, evaluations, rollouts, answers, weights and optimizer; the times aside."""
    assert timeless(read_metrics(a)) == timeless(read_metrics(b))
    assert timeless(read_evals(a)) == timeless(read_evals(b))
    last = [newest_whole(run) for run in (a, b)]
    assert last[0] is not None
    assert last[1] is not None
    assert last[0].name == last[1].name
    for name in (manifest.WEIGHTS, manifest.OPTIMIZER):
        one, two = (load_file(path / name) for path in last if path)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert (last[0] / manifest.STATE).read_bytes() == (last[1] / manifest.STATE).read_bytes()
    for name in ("rollouts", "answers"):
        files = [{path.name: path.read_bytes() for path in (run / name).iterdir()} for run in (a, b)]
        assert files[0] == files[1]


# In this order over one run, and what must then be the newest checkpoint.
STOPS = {
    "in the first evaluation": (Stop(0, "evaluating", count=3), "step-00000"),
    "in sampling": (Stop(0, "sampling", count=4), "step-00000"),
    "after sampling": (Stop(0, "training", 0), "step-00000.00"),
    "between micro-batches": (Stop(0, "training", 0, 2), "step-00000.00"),
    "after an update": (Stop(0, "training", 1), "step-00000.01"),
    "in the last update": (Stop(1, "training", 3, 2), "step-00001.03"),
    "in an evaluation": (Stop(2, "evaluating", count=2), "step-00002"),
    "after an evaluation": (Stop(2, "sampling"), "step-00002"),
    "after three updates": (Stop(2, "training", 3), "step-00002.03"),
    "in the last evaluation": (Stop(4, "evaluating", count=4), "step-00004"),
}


@pytest.mark.parametrize("variation", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_run_stopped_at_every_kind_of_place_equals_the_undisturbed_one(
    variation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve("countdown", sets=[*SMALL, *VARIATIONS[variation]])
    asked: Counter[tuple[int, str, int | None]] = Counter()
    begin(config, tmp_path / "whole", monkeypatch, asked=asked)
    part = tmp_path / "part"
    possible = [(stop, at) for stop, at in STOPS.values() if asked[stop.step, stop.place, stop.updates] >= stop.count]
    assert len(possible) >= (len(STOPS) - 1 if config.grpo.epochs > 1 else 6)
    for stop, newest in possible:
        with pytest.raises(Interrupted):
            begin(config, part, monkeypatch, stop)
        assert checkpoints_in(part)[-1].name == newest
    begin(config, part, monkeypatch)
    assert_same_run(tmp_path / "whole", part)
    if config.checkpoints.keep_last:
        assert [path.name for path in checkpoints_in(part)] == ["step-00004"]
    assert not any(".writing" in path.name or ".removed" in path.name for path in part.rglob(".*"))


# (module, function, its call, whether the kill comes after it)
KILLS = [
    (runlog.RunLog, "append_evals", 1, False),
    (runlog.RunLog, "append_evals", 1, True),
    (runlog.RunLog, "append_metrics", 1, True),
    (runlog.RunLog, "write_rollouts", 1, True),
    (runlog.RunLog, "write_rollouts", 2, False),
    (loop, "save_checkpoint", 1, False),
    (loop, "save_checkpoint", 1, True),
    (loop, "prune", 1, True),
    (runlog.RunLog, "append_metrics", 2, True),
    (checkpoint, "seal", 1, False),
    (checkpoint, "seal", 1, True),
    (checkpoint, "_remove", 1, True),
]


def test_a_run_killed_between_any_two_writes_equals_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an evaluation that no checkpoint stands behind, half a row is torn off besides: one dataset has its row
    then."""
    config = resolve("countdown", sets=[*SMALL, *SEVERAL, "checkpoints.keep_last=1", "steps=6"])
    begin(config, tmp_path / "whole", monkeypatch)
    part = tmp_path / "part"
    for owner, name, call, after in KILLS:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killing(getattr(owner, name), call, after))
            with pytest.raises(Killed):
                begin(config, part, monkeypatch)
        evals = part / "evals.jsonl"
        if (name, after) == ("append_evals", True):
            evals.write_bytes(evals.read_bytes()[:-30])
    begin(config, part, monkeypatch)
    assert_same_run(tmp_path / "whole", part)


def killing(function: Callable[..., Any], call: int, after: bool) -> Callable[..., Any]:
    calls = 0

    def killed(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = None if calls == call and not after else function(*args, **named)
        if calls == call:
            raise Killed
        return result

    return killed


def test_answers_of_a_stopped_evaluation_are_not_sampled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("countdown", sets=[*SMALL, "steps=1", "sampling.max_sequences=3"])
    begin(config, tmp_path / "whole", monkeypatch)
    part, known = tmp_path / "part", list[int]()
    with pytest.raises(Interrupted):
        begin(config, part, monkeypatch, Stop(0, "evaluating", count=60))
    kept = part / "answers" / "step-00000.part.jsonl"
    ended = len(kept.read_text().splitlines())
    assert ended > 2
    with open(kept, "a") as file:
        file.write('{"dataset": "countdown", "templ')  # a crash tore it
    answer_problems = evaluate.answer_problems

    def counted(*arguments: Any) -> Any:
        known.append(len(arguments[7]))
        return answer_problems(*arguments)

    monkeypatch.setattr(loop, "answer_problems", counted)
    begin(config, part, monkeypatch)
    assert sum(known) == ended
    assert not kept.exists()
    assert_same_run(tmp_path / "whole", part)
    log = runlog.RunLog(part)
    log.keep_answer(7, {"a": 1})
    assert log.kept_answers(7) == [{"a": 1}]
    log.truncate_after(6)
    assert log.kept_answers(7) == []

"""Whole runs of a few steps on the embedded model: resuming, interruption, and what a run leaves behind."""

import gzip
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1v0.base.errors import Interrupted, UserError
from r1v0.config import Config, parse, resolve, to_toml
from r1v0.models.attention import packed
from r1v0.models.loading import load
from r1v0.runs import records, runlog
from r1v0.runs.manifest import damage
from r1v0.runs.progress import Progress
from r1v0.runs.records import read_evals, read_metrics
from r1v0.trainer.setup import prepare
from tests.helpers import Notes, PlainSgd, assert_same_weights, newest, random_groups, small_policy, trained

SMALL = [
    "grpo.groups=4",
    "grpo.group_size=4",
    "sampling.max_new_tokens=48",
    "eval.max_problems=12",
    "eval.every=5",
    "threads=1",
]


def small_config(*more: str, preset: str = "countdown") -> Config:
    return resolve(preset, sets=[*SMALL, *more])


def start(config: Config, folder: Path, progress: Progress | None = None) -> Path:
    run = prepare(config)
    return run.run(runlog.create(folder, to_toml(config), {}), progress or Progress())


def go_on(folder: Path, **changes: Any) -> Path:
    config = parse(records.config_text(folder), "config.toml")
    config = (
        resolve(file=folder / "config.toml", sets=[f"{key}={value}" for key, value in changes.items()])
        if changes
        else config
    )
    run = prepare(config, newest(folder))
    return run.run(runlog.resume(folder, to_toml(config), run.state.step, {}), Progress())


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(("time", "memory"))} for row in rows]


def assert_same_run(a: Path, b: Path) -> None:
    assert timeless(read_metrics(a)) == timeless(read_metrics(b))
    assert timeless(read_evals(a)) == timeless(read_evals(b))
    for name in ("model.safetensors", "trainer/optimizer.safetensors"):
        one, two = (load_file(newest(run) / name) for run in (a, b))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert (newest(a) / "README.md").read_bytes() == (newest(b) / "README.md").read_bytes()
    assert {p.name: p.read_bytes() for p in (a / "rollouts").iterdir()} == {
        p.name: p.read_bytes() for p in (b / "rollouts").iterdir()
    }


VARIATIONS = {
    "on policy": [],
    "several updates": ["grpo.variant=dapo", "grpo.minibatches=2", "grpo.epochs=2"],
    "reference": ["grpo.kl_coef=0.05", "grpo.variant=dr_grpo"],
    "bfloat16": ["compute.dtype=bfloat16"],
    "keep one": ["grpo.keep_per_group=1", "optimizer.schedule=cosine"],
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_ten_steps_equal_five_and_five(variation: str, tmp_path: Path) -> None:
    config = small_config("steps=10", "checkpoints.every=5", *VARIATIONS[variation])
    start(config, tmp_path / "whole")
    part = tmp_path / "part"
    start(config, part)
    # as after a crash behind the checkpoint of step 5: later rows are there, later checkpoints are not
    (part / "checkpoints" / "step-00010").rename(tmp_path / "gone")
    assert [row["step"] for row in read_metrics(part)] == list(range(1, 11))
    go_on(part)
    assert_same_run(tmp_path / "whole", part)
    assert [row["step"] for row in read_metrics(part)] == list(range(1, 11))
    assert [row["step"] for row in read_evals(part)] == [0, 0, 5, 5, 10, 10]


class SignalAt(Progress):
    """Sends this process a signal while it is in a phase."""

    def __init__(self, after_steps: int, phase: str) -> None:
        self.after_steps, self.wanted, self.steps, self.sent = after_steps, phase, 0, False

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        if not self.sent and self.steps == self.after_steps and name.startswith(self.wanted):
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)

    def step(self, metrics: Mapping[str, Any]) -> None:
        self.steps += 1


@pytest.mark.parametrize(("after_steps", "phase"), [(0, "evaluating"), (2, "sampling"), (5, "evaluating")])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(after_steps: int, phase: str, tmp_path: Path) -> None:
    config = small_config("steps=6", "checkpoints.every=100")
    start(config, tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        start(config, tmp_path / "part", SignalAt(after_steps, phase))
    assert signal.getsignal(signal.SIGINT) is handler
    assert newest(tmp_path / "part").name == f"step-{after_steps:05d}"
    go_on(tmp_path / "part")
    assert_same_run(tmp_path / "whole", tmp_path / "part")


def test_a_run_leaves_what_the_contract_says(tmp_path: Path) -> None:
    checkpoint = start(small_config("steps=2"), tmp_path / "run")
    rows, evals = read_metrics(tmp_path / "run"), read_evals(tmp_path / "run")
    assert {"step", "reward/mean", "reward/strict", "length/mean", "length/finished", "length/correct", "length/wrong",
            "length/truncated_frac", "groups/flat_frac", "groups/all_correct_frac", "groups/all_wrong_frac",
            "tokens/sampled", "tokens/trained", "policy/entropy", "policy/mismatch_kl",
            "policy/clip_frac", "policy/grad_norm", "policy/lr", "reflection/frac", "verify/timeouts", "verify/disagreements", "time/sample_s",
            "time/verify_s", "time/train_s", "time/step_s", "memory/peak_gb"} <= rows[0].keys()  # fmt: skip
    assert {"step", "dataset", "problems", "samples", "accuracy", "ci_low", "ci_high", "strict_accuracy", "pass_at_k", "length",
            "truncated_frac", "reflection_frac"} <= evals[0].keys()  # fmt: skip
    assert rows[0]["policy/mismatch_kl"] < 1e-9
    assert rows[0]["policy/clip_frac"] == 0
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint)
    ours = load(checkpoint)
    tokens = torch.tensor([AutoTokenizer.from_pretrained(checkpoint)("Q: 3 7 4 target 17 A:")["input_ids"]])
    assert tokens.shape[1] > 5
    with torch.no_grad():
        length = tokens.shape[1]
        mine = ours.model.head(ours.model(tokens[0], torch.arange(length), packed(torch.tensor([0, length]))))
        assert (theirs(tokens).logits[0] - mine).abs().max() < 1e-4


def test_resuming_with_fewer_steps_than_are_done_ends_at_once(tmp_path: Path) -> None:
    start(small_config("steps=2", "eval.on=[]"), tmp_path / "run")
    assert go_on(tmp_path / "run", steps=1).name == "step-00002"
    assert len(read_metrics(tmp_path / "run")) == 2


@pytest.mark.numeric
def test_sparse_and_dense_take_the_same_step() -> None:
    groups = random_groups(3, count=6, flat=3)
    results = []
    for sparse in ("true", "false"):
        sets = ["grpo.variant=grpo", "optimizer.warmup_steps=0", "optimizer.lr=300.0"]
        config = small_config(f"grpo.sparse={sparse}", *sets)
        policy = small_policy(scale=4.0)
        readings = trained(policy, PlainSgd(policy.model, config.optimizer), groups, config, 1)
        results.append((readings, policy.model))
    (sparse_readings, sparse_model), (dense_readings, dense_model) = results
    assert sparse_readings.tokens < dense_readings.tokens
    assert sparse_readings.grad_norm == pytest.approx(dense_readings.grad_norm, rel=1e-4)
    assert_same_weights(sparse_model, dense_model, small_policy(scale=4.0).model, share=1e-5)


def test_refill_replaces_flat_groups(tmp_path: Path) -> None:
    config = small_config("steps=1", "grpo.variant=dapo", "grpo.max_refills=30")
    start(config, tmp_path / "run")
    (row,) = read_metrics(tmp_path / "run")
    flat = round(row["groups/flat_frac"] * row["groups/sampled"])
    assert row["groups/sampled"] - flat == config.grpo.groups
    state = json.loads((newest(tmp_path / "run") / "trainer" / "state.json").read_text())
    assert (state["step"], state["cursor"]) == (1, row["groups/sampled"])


def test_random_rewards_are_coins_of_the_same_mean(tmp_path: Path) -> None:
    config = small_config("steps=1", "grpo.groups=64", preset="countdown-random")
    start(config, tmp_path / "run")
    (row,) = read_metrics(tmp_path / "run")
    n = 64 * 4
    assert abs(row["reward/mean"] - row["reward/correct"]) < 4 * (row["reward/correct"] / n) ** 0.5
    with gzip.open(tmp_path / "run" / "rollouts" / "step-00001.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    assert sum(r["reward"] != float(r["correct"]) for r in records) > n / 10


def test_a_folder_that_holds_a_run_is_not_touched(tmp_path: Path) -> None:
    config = small_config("steps=1")
    start(config, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        start(config, tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("new", "warns"), [(1024, True), (900, False)])
def test_sequences_past_the_models_positions_are_warned_of(new: int, warns: bool, tmp_path: Path) -> None:
    """The embedded model has 1024 positions, and a prompt needs some of them."""
    config = small_config("steps=1", f"sampling.max_new_tokens={new}", "eval.on=[]")
    notes = Notes()
    start(config, tmp_path / "run", notes)
    told = [note for note in notes.notes if "1024 positions" in note]
    assert len(told) == warns
    assert all("lower sampling.max_new_tokens" in note for note in told)


def test_a_checkpoint_has_a_card_with_its_own_evaluation(tmp_path: Path) -> None:
    """It is saved before it is evaluated. Stopped in between, the next start writes what was left to write."""
    config = small_config("steps=4", "checkpoints.every=2", "eval.every=2")
    run = tmp_path / "run"
    last = start(config, run)
    cards = {path.name: (path / "README.md").read_text() for path in (run / "checkpoints").iterdir()}
    assert cards.keys() == {"step-00002", "step-00004"}
    assert "accuracy at step 2," in cards["step-00002"]
    assert "accuracy at step 4," in cards["step-00004"]
    assert "license: apache-2.0\n" in cards["step-00004"]
    assert damage(last) is None
    (last / "README.md").write_text("of an older release")
    assert damage(last) is None  # a card is no part of what is resumed
    go_on(run)
    assert (last / "README.md").read_text() == cards["step-00004"]

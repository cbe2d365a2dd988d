"""What a run does about alarms: whole runs of a few steps that warn, stop, go back, skip updates, and are resumed."""

import errno
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from r1v0 import cli
from r1v0.base.errors import UserError
from r1v0.base.keys import key
from r1v0.config import Config, to_toml
from r1v0.grpo.batch import make_updates
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.grpo.optimizer import Optimizer, make_optimizer
from r1v0.models.loading import load
from r1v0.runs import health, runlog, watchers
from r1v0.runs.progress import Progress
from r1v0.runs.records import read_evals, read_health, read_metrics
from r1v0.sampling.draw import draw
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.trainer import recovery
from r1v0.trainer.checkpoint import TrainerState, load_state
from r1v0.trainer.loop import Trainer
from r1v0.trainer.setup import prepare
from r1v0.types import Batch, Completion
from tests.helpers import EOS, VOCAB, Notes, newest, random_groups, small_model, small_policy, trained
from tests.trainer.test_loop import assert_same_run, go_on, small_config, start

FIRE_AT = 5


def quick_config(*sets: str) -> Config:
    """Steps of a few milliseconds."""
    small = ["grpo.groups=2", "sampling.max_new_tokens=16", "eval.max_problems=6", 'eval.on=["countdown"]']
    return small_config(*small, *sets)


@pytest.fixture
def alarm_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps at which a made-up watcher fires; the real ones are off, but for those of skipped updates."""
    steps = [FIRE_AT]

    def made_up(watch: health.Watch) -> tuple[float, float, str] | None:
        return (1.0, 0.5, "a made-up sign of collapse") if watch.rows[-1]["step"] in steps else None

    kept = {kind: watchers.WATCHERS[kind] for kind in ("not_finite", "skipped")}
    monkeypatch.setattr(health, "WATCHERS", {"made_up": made_up, **kept})
    monkeypatch.setattr(health, "WINDOW", 2)
    return steps


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:05d}" / "model.safetensors")


def break_weights(run: Trainer) -> None:
    """NaN in one weight of every layer: what a damaged model folder or an overflow looks like."""
    with torch.no_grad():
        next(iter(run.policy.model.parameters()))[3] = float("nan")


# what alarms do


def test_a_warning_is_said_logged_and_nothing_else(alarm_at: list[int], tmp_path: Path) -> None:
    config = quick_config("steps=6", "eval.on=[]", "health.action=warn")
    notes = Notes()
    start(config, tmp_path / "run", notes)
    assert notes.notes == [f"warning: step {FIRE_AT}: a made-up sign of collapse"]
    assert read_health(tmp_path / "run") == [
        {"step": FIRE_AT, "kind": "made_up", "value": 1.0, "limit": 0.5, "message": "a made-up sign of collapse", "action": "warn"}
    ]  # fmt: skip
    alarm_at.clear()
    start(config, tmp_path / "other")
    assert_same_run(tmp_path / "run", tmp_path / "other")
    assert not (tmp_path / "other" / "health.jsonl").exists()


def test_stop_saves_a_checkpoint_and_ends_with_one_line(
    alarm_at: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    small = "steps=9 threads=1 eval.on=[] grpo.groups=2 sampling.max_new_tokens=16 health.action=stop"
    sets = [f"--set={setting}" for setting in small.split()]
    assert cli.main(["train", *sets, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"r1v0: stopped after step {FIRE_AT} (health.action is stop): a made-up sign of collapse.")
    assert f"--resume {out} --set health.action=warn" in line
    assert newest(out).name == f"step-{FIRE_AT:05d}"
    assert [row["action"] for row in read_health(out)] == ["stop"]
    assert cli.main(["train", "--resume", str(out), "--set", "health.action=warn"]) == 0
    assert [row["step"] for row in read_metrics(out)] == list(range(1, 10))
    assert [row["step"] for row in read_health(out)] == [FIRE_AT]


ROLLBACK = ["steps=8", "checkpoints.every=2", "eval.every=2", "health.action=rollback", "health.rollback_lr=0.25"]


def test_a_rollback_takes_the_best_weights_and_a_lower_rate(alarm_at: list[int], tmp_path: Path) -> None:
    out, notes = tmp_path / "run", Notes()
    start(quick_config(*ROLLBACK, "optimizer.warmup_steps=0"), out, notes)
    (row,) = read_health(out)
    rated = {
        e["step"]: e["accuracy"] for e in read_evals(out) if e["dataset"] == "countdown" and 0 < e["step"] < FIRE_AT
    }
    best = max(rated, key=lambda step: (rated[step], step))
    assert (row["action"], row["to_step"], row["lr_scale"]) == ("rollback", best, 0.25)
    metrics = read_metrics(out)
    assert [entry["step"] for entry in metrics] == list(range(1, 9))
    assert [entry["policy/lr"] for entry in metrics] == pytest.approx([3e-4] * FIRE_AT + [0.75e-4] * 3)
    state = load_state(newest(out))
    assert state == TrainerState(step=8, cursor=16, lr_scale=0.25, rollbacks=1)
    assert any(f"rolled back to step-{best:05d}" in note for note in notes.notes)


def test_after_a_rollback_the_weights_are_those_of_the_checkpoint(alarm_at: list[int], tmp_path: Path) -> None:
    out = tmp_path / "run"
    start(quick_config(*ROLLBACK, "steps=5"), out)  # the checkpoint of step 5 is written after the rollback
    (row,) = read_health(out)
    best, last = weights(out, row["to_step"]), weights(out, 5)
    assert all(torch.equal(best[name], last[name]) for name in best)
    moments = [load_file(out / "checkpoints" / f"step-{step:05d}" / "trainer" / "optimizer.safetensors") for step in (row["to_step"], 5)]  # fmt: skip
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in moments[0])


@pytest.mark.parametrize(
    ("lost", "more"),
    [
        (["step-00008", "step-00006"], []),
        (["step-00008"], []),
        (["step-00008", "step-00006"], ["lora.rank=2"]),
        (["step-00008", "step-00006"], ["compute.dtype=bfloat16"]),
    ],
    ids=["from before", "from behind", "adapters", "bfloat16"],
)
def test_a_resumed_run_goes_back_as_the_uninterrupted_one(
    alarm_at: list[int], lost: list[str], more: list[str], tmp_path: Path
) -> None:
    """Resumed from before the rollback (step 4) or from behind it (step 6)."""
    config = quick_config(*ROLLBACK, *more)
    start(config, tmp_path / "whole")
    start(config, tmp_path / "part")
    for name in lost:
        (tmp_path / "part" / "checkpoints" / name).rename(tmp_path / name)
    go_on(tmp_path / "part")
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    assert read_health(tmp_path / "whole") == read_health(tmp_path / "part")


def test_too_many_rollbacks_end_the_run(alarm_at: list[int], tmp_path: Path) -> None:
    alarm_at[:] = [3, 6, 8]
    out = tmp_path / "run"
    config = quick_config(*ROLLBACK, "steps=20")
    run = prepare(config)
    with pytest.raises(recovery.Unhealthy, match="after 2 rollbacks"):
        run.run(runlog.create(out, to_toml(config), {}), Progress())
    assert [(row["step"], row["action"]) for row in read_health(out)] == [(3, "rollback"), (6, "rollback"), (8, "stop")]
    assert load_state(newest(out)) == TrainerState(step=8, cursor=16, lr_scale=0.0625, rollbacks=2)


def test_without_an_evaluated_checkpoint_there_is_nothing_to_go_back_to(alarm_at: list[int], tmp_path: Path) -> None:
    alarm_at[:] = [1]
    config = quick_config(*ROLLBACK)
    run = prepare(config)
    with pytest.raises(UserError, match="no evaluated checkpoint to go back to"):
        run.run(runlog.create(tmp_path / "run", to_toml(config), {}), Progress())


# non-finite losses and gradients


def state_of(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    found = {name: value.detach().clone() for name, value in optimizer.state_tensors().items()}
    return found | {f"weight/{name}": value.detach().clone() for name, value in optimizer.parameters.items()}


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("variant", ["grpo", "cispo", "gspo"])
def test_an_update_that_is_not_finite_leaves_everything_as_it_was(bad: float, variant: str) -> None:
    config = quick_config("optimizer.warmup_steps=0", f"grpo.variant={variant}")
    policy = small_policy(scale=4.0)
    optimizer = make_optimizer(policy.model, config.optimizer)
    good, groups = random_groups(1), random_groups(3)
    assert trained(policy, optimizer, good, config, 1).skipped == 0  # moments are there
    before = state_of(optimizer)
    for group in groups:
        for rollout in group.rollouts:
            rollout.completion.logprobs[0] = bad
    readings = trained(policy, optimizer, groups, config, 2)
    after = state_of(optimizer)
    if readings.skipped:
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not torch.tensor(readings.loss).isfinite()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert all(parameter.grad is None for parameter in optimizer.parameters.values())
    assert readings.skipped or math.isinf(bad)  # an infinite ratio may be clipped to a harmless one
    assert trained(policy, optimizer, good, config, 3).skipped == 0  # and the run goes on


def test_one_bad_update_of_several_is_skipped_alone() -> None:
    config = quick_config("optimizer.warmup_steps=0", "grpo.minibatches=3")
    policy = small_policy(scale=4.0)
    optimizer = make_optimizer(policy.model, config.optimizer)
    groups = random_groups(3, count=6, flat=0)
    groups[0].rollouts[0].completion.logprobs[0] = float("nan")
    readings = trained(policy, optimizer, groups, config, 1)
    assert readings.skipped == 1
    assert all(torch.tensor(value).isfinite() for value in (readings.loss, readings.entropy, readings.grad_norm))
    steps = {float(value) for name, value in optimizer.state_tensors().items() if name.startswith("step/")}
    assert steps == {2.0}


def test_what_was_sampled_by_a_broken_model_trains_nothing_even_if_its_groups_are_flat() -> None:
    config = quick_config("optimizer.warmup_steps=0")
    policy = small_policy(scale=4.0)
    optimizer = make_optimizer(policy.model, config.optimizer)
    before = state_of(optimizer)
    readings = trained(policy, optimizer, random_groups(1, count=3, flat=3), config, 1, sound=False)
    assert readings.skipped == 1
    assert all(torch.equal(before[name], value) for name, value in state_of(optimizer).items())


def test_a_broken_model_samples_garbage_with_logprobs_that_say_so() -> None:
    model = small_model()
    with torch.no_grad():
        next(iter(model.parameters()))[:] = float("nan")
    settings = SamplingSettings(1.0, 6, 3, frozenset([EOS]))
    found = list(generate(model, [Request([2, 3], [1, 2, 3])], settings))
    assert len(found) == 3
    assert all(0 <= token < VOCAB for _, _, completion in found for token in completion.token_ids)
    assert not any(completion.finite for _, _, completion in found)
    tokens, logprobs = draw(torch.tensor([[float("nan")] * 4, [0.0, 1.0, 2.0, 3.0]]), torch.tensor([0.5, 0.5]))
    assert tokens.tolist()[0] in range(4)
    assert logprobs.isfinite().tolist() == [False, True]
    assert Completion([1], [-0.5], "stop").finite


def test_a_model_that_breaks_is_noticed_saved_and_stopped(tmp_path: Path) -> None:
    config = quick_config("steps=9", "checkpoints.every=100", "eval.on=[]", "health.max_skipped=2")
    run, out, notes = prepare(config), tmp_path / "run", Notes()
    break_weights(run)
    with pytest.raises(recovery.Unhealthy) as error:
        run.run(runlog.create(out, to_toml(config), {}), notes)
    assert "stopped after step 2 (health.max_skipped is 2)" in str(error.value)
    assert "not finite in 2 steps in a row" in str(error.value)
    rows = read_metrics(out)
    assert [row["policy/skipped"] for row in rows] == [1, 1]
    assert [(row["policy/loss"], row["policy/grad_norm"]) for row in rows] == [(None, None)] * 2
    told = [(row["step"], row["kind"], row["action"]) for row in read_health(out)]
    assert told == [(1, "not_finite", "warn"), (2, "skipped", "stop")]
    assert newest(out).name == "step-00002"
    assert any("the batch is in" in note for note in notes.notes)


def test_the_saved_batch_reproduces_the_failure(tmp_path: Path) -> None:
    """From the run folder alone: the checkpoint's weights on the saved tokens give the loss that was not finite."""
    config = quick_config("steps=9", "checkpoints.every=100", "eval.on=[]", "health.max_skipped=1", "grpo.sparse=false")
    run, out = prepare(config), tmp_path / "run"
    break_weights(run)
    with pytest.raises(recovery.Unhealthy):
        run.run(runlog.create(out, to_toml(config), {}), Progress())
    saved = out / "not-finite" / "step-00001"
    tensors = load_file(saved / "batch.safetensors")
    batch = Batch(**{name.partition("/")[2]: value for name, value in tensors.items()})
    model = load(newest(out)).model
    loss, _ = policy_loss(token_logprobs(model, batch, 1.0).logprobs, batch, config.grpo)
    assert not loss.isfinite()
    texts = [json.loads(line) for line in (saved / "rollouts.jsonl").read_text().splitlines()]
    assert len(texts) == 8
    assert {"question", "gold", "prompt", "completion", "reward"} <= texts[0].keys()


def test_the_saved_batch_is_the_batch(tmp_path: Path) -> None:
    config, groups = quick_config("grpo.minibatches=2"), random_groups(2)
    saved = recovery.save_batch(tmp_path, 7, groups, config)
    tensors = load_file(saved / "batch.safetensors")
    updates = make_updates(groups, config.grpo, config.sampling.max_new_tokens, key(config.seed, "updates", 7))
    assert {name.partition("/")[0] for name in tensors} == {"0", "1"}
    for i, update in enumerate(updates):
        assert torch.equal(tensors[f"{i}/token_ids"], update.token_ids)
        assert torch.equal(tensors[f"{i}/weights"], update.weights)


def test_skipped_steps_count_over_a_stop_and_a_resume(tmp_path: Path) -> None:
    config = quick_config("steps=9", "checkpoints.every=1", "eval.on=[]", "health.max_skipped=3")
    run, out = prepare(config), tmp_path / "run"
    break_weights(run)
    with pytest.raises(recovery.Unhealthy, match="after step 3"):
        run.run(runlog.create(out, to_toml(config), {}), Progress())
    (out / "checkpoints" / "step-00003").rename(tmp_path / "gone")
    with pytest.raises(recovery.Unhealthy, match="after step 3"):
        go_on(out)
    assert [row["step"] for row in read_health(out)] == [1, 3]


def test_health_lines_behind_a_checkpoint_are_cut_off_on_resume(tmp_path: Path) -> None:
    config = quick_config("steps=2", "checkpoints.every=1", "eval.on=[]")
    start(config, tmp_path / "run")
    log = runlog.RunLog(tmp_path / "run")
    log.append_health([{"step": step, "kind": "truncated", "action": "warn"} for step in (1, 2)])
    log.truncate_after(1)
    assert [row["step"] for row in read_health(tmp_path / "run")] == [1]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "health.jsonl").write_text("")
    with pytest.raises(UserError, match=r"health\.jsonl"):
        runlog.need_free(tmp_path / "only")


def test_rollouts_of_a_rolled_back_run_stay(alarm_at: list[int], tmp_path: Path) -> None:
    start(quick_config(*ROLLBACK), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "rollouts").iterdir())
    assert names == [f"step-{step:05d}.jsonl.gz" for step in range(1, 9)]
    with gzip.open(tmp_path / "run" / "rollouts" / names[-1], "rt") as lines:
        records: list[Any] = [json.loads(line) for line in lines]
    assert len(records) == 8


@pytest.mark.parametrize("full", ["save_file", "write_atomic"])
def test_a_full_disk_under_the_saved_batch_is_one_line(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        if full == "save_file":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recovery, full, fail)
    with pytest.raises(UserError, match=r"cannot be written .* are free there"):
        recovery.save_batch(tmp_path, 3, random_groups(0), Config())

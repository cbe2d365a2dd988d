"""Which model samples, which is trained and which is the reference; and whole runs with each, resumed bit for bit."""

import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1v0.base.errors import UserError
from r1v0.config import resolve
from r1v0.models.loading import TINY, load
from r1v0.runs.records import read_metrics
from r1v0.trainer.checkpoint import restore
from r1v0.trainer.policies import fresh, reference_policy, sampling_policy, trained_policy
from r1v0.trainer.setup import prepare
from tests.helpers import newest
from tests.trainer.test_loop import assert_same_run, go_on, small_config, start

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
LORA = ["lora.rank=4", "lora.alpha=8"]
SHORT = ["grpo.groups=3", "sampling.max_new_tokens=32", "eval.on=[]"]
VARIATIONS = {
    "adapters": LORA,
    "adapters, bfloat16, with a reference": [*LORA, "compute.dtype=bfloat16", "grpo.kl_coef=0.05"],
    "8 bits": ["optimizer.moments=8bit"],
    "8 bits, bfloat16": ["optimizer.moments=8bit", "compute.dtype=bfloat16", "grpo.minibatches=2"],
    "offloaded, bfloat16": ["optimizer.offload=true", "compute.dtype=bfloat16"],
    "rounded sampling": ["sampling.dtype=bfloat16", "grpo.minibatches=2"],
    "rounded sampling with adapters": [*LORA, "sampling.dtype=bfloat16"],
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_resumed_is_uninterrupted(variation: str, tmp_path: Path) -> None:
    if "8 bits" in variation:
        pytest.importorskip("bitsandbytes", reason="8-bit states need bitsandbytes (the 8bit extra)")
    half = 2 if variation == "adapters" else 1
    config = small_config(f"steps={2 * half}", f"checkpoints.every={half}", *SHORT, *VARIATIONS[variation])
    start(config, tmp_path / "whole")
    start(config, tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / f"step-{2 * half:05d}").rename(tmp_path / "gone")
    go_on(tmp_path / "part")
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    rows = read_metrics(tmp_path / "whole")
    assert all(math.isfinite(row["policy/grad_norm"]) and row["policy/grad_norm"] > 0 for row in rows)
    mismatch = [row["policy/mismatch_kl"] for row in rows]
    exact = "bfloat16" not in " ".join(VARIATIONS[variation]) or variation == "8 bits"
    assert all(value < 1e-9 if exact else 0 < value < 0.01 for value in mismatch)


def test_offload_gives_the_same_numbers(tmp_path: Path) -> None:
    for name, offload in (("here", "false"), ("there", "true")):
        start(small_config("steps=2", "eval.on=[]", f"optimizer.offload={offload}"), tmp_path / name)
    one, two = (load_file(tmp_path / name / "checkpoints/step-00002/model.safetensors") for name in ("here", "there"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_with_adapters_leaves_the_base_alone_and_an_adapter_folder(tmp_path: Path) -> None:
    checkpoint = start(small_config("steps=2", "eval.on=[]", *LORA), tmp_path / "run")
    base, merged = load_file(TINY / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    changed = {name for name in base if not torch.equal(base[name].float(), merged[name].float())}
    assert changed == {name for name in base if name.endswith("_proj.weight")}  # no embeddings, norms or biases
    assert (checkpoint / "adapter" / "adapter_config.json").is_file()
    state = load_file(checkpoint / "trainer" / "optimizer.safetensors")
    assert not any("embed" in name or name.endswith("norm") for name in state)  # and no optimizer state for them


def test_a_live_run_with_adapters_goes_back_to_a_checkpoint(tmp_path: Path) -> None:
    """The folder's merged weights must not become the base: the adapters would then be added twice."""
    config = small_config("steps=2", "checkpoints.every=1", *SHORT, *LORA)
    start(config, tmp_path / "run")
    early, late = (tmp_path / "run" / "checkpoints" / f"step-0000{step}" for step in (1, 2))
    run, expected = prepare(config, late), prepare(config, early)
    assert restore(run.policy, run.learner.optimizer, early) == expected.state
    wanted = dict(expected.policy.model.named_parameters())
    assert all(torch.equal(p, wanted[name]) for name, p in run.policy.model.named_parameters())


def test_sampling_takes_the_trained_weights_unless_a_copy_is_asked_for() -> None:
    policy = load(TINY)
    assert sampling_policy(resolve("countdown"), policy) is policy
    rounded = sampling_policy(resolve("countdown", sets=["sampling.dtype=bfloat16"]), policy)
    assert {p.dtype for p in rounded.model.parameters()} == {torch.bfloat16}
    assert rounded.model.frequencies.dtype == torch.float32  # positions are not rounded
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    with torch.no_grad():
        policy.model.norm.mul_(1.5)
    assert not torch.equal(rounded.model.norm, policy.model.norm.bfloat16())
    assert torch.equal(fresh(rounded, policy).model.norm, policy.model.norm.bfloat16())
    low = load(TINY, dtype=torch.bfloat16)
    assert sampling_policy(resolve("countdown", sets=["sampling.dtype=bfloat16"]), low) is low


def test_the_reference_is_loaded_only_where_it_is_needed() -> None:
    plain = resolve("countdown")
    policy, _ = trained_policy(plain, TINY, None, CPU, torch.float32)
    assert reference_policy(plain, policy, TINY, torch.float32) is None
    whole = reference_policy(resolve("countdown", sets=["grpo.kl_coef=0.1"]), policy, TINY, torch.float32)
    assert whole is not None
    assert whole.model.norm.data_ptr() != policy.model.norm.data_ptr()
    lora = resolve("countdown", sets=["grpo.kl_coef=0.1", *LORA])
    policy, _ = trained_policy(lora, TINY, None, CPU, torch.bfloat16)
    shared = reference_policy(lora, policy, TINY, torch.bfloat16)
    assert shared is not None
    assert shared.model.norm.data_ptr() == policy.model.norm.data_ptr()
    assert shared.model.norm.dtype == torch.bfloat16


def test_resuming_adapters_on_another_model_is_refused(tmp_path: Path) -> None:
    """A run folder named as the model moves on; adapters on other weights than theirs would be silently wrong."""
    start(small_config("steps=1", "eval.on=[]"), tmp_path / "base")
    config = small_config("steps=1", "eval.on=[]", f"model={tmp_path / 'base'}", *LORA)
    start(config, tmp_path / "run")
    go_on(tmp_path / "base", steps=2)
    with pytest.raises(UserError, match="not the one that this run's adapters were trained on"):
        prepare(config, newest(tmp_path / "run"))


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["lora.rank=-1"], "lora.rank is -1"),
        (["lora.alpha=0"], "lora.alpha is 0.0"),
        (["lora.rank=8", "optimizer.moments=8bit"], "float32 where lora.rank is set"),
        (["optimizer.offload=true", "optimizer.moments=8bit"], "float32 where optimizer.offload is set"),
        (["optimizer.moments=4bit"], "one of float32, 8bit"),
        (["sampling.dtype=float16"], "one of auto, bfloat16"),
    ],
)
def test_what_makes_no_sense_is_refused(sets: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("countdown", sets=sets)
    assert expected in str(caught.value)


def test_a_missing_package_stops_a_run_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="pip install"):
        start(small_config("optimizer.moments=8bit"), tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""LoRA against PEFT: the same logits from the saved adapter, and what stays frozen, shared and equal."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from r1v0.base.errors import UserError
from r1v0.config import OptimizerConfig
from r1v0.grpo.batch import pack
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.optimizer import make_optimizer
from r1v0.models.attention import packed
from r1v0.models.loading import load, save
from r1v0.models.lora import Lora, LoraLinear, adapters, add_adapters, without_adapters
from r1v0.models.transformer import Transformer
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Batch
from tests.helpers import EOS, rollout, small_model
from tests.models.test_models import hf_folder, ours_logits

pytestmark = pytest.mark.numeric

LORA = Lora(rank=4, alpha=6.0, base="some/base")
CONFIG = OptimizerConfig(lr=0.01, grad_clip=1e9)


def with_adapters(model: Transformer, seed: int = 0, lora: Lora = LORA) -> Transformer:
    """Adapters with a B that is far from zero, so that leaving one out shows."""
    add_adapters(model, lora, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def batch_of(prompt: list[int], completion: list[int]) -> Batch:
    return pack([(rollout(prompt, completion, 1.0), 1.0, 1.0)])


def logits_of(model: Transformer, row: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model(torch.tensor(row), torch.arange(len(row)), packed(torch.tensor([0, len(row)]))))


@pytest.fixture
def peft() -> Iterator[Any]:
    """peft; it warns when it is imported beside some versions of other packages, which is not our matter."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("peft", reason="peft is the reference here (the dev extra)")


@pytest.mark.parametrize("name", ["qwen2", "qwen2-tied", "qwen3", "llama"])
def test_the_saved_adapter_is_pefts_and_the_merged_folder_is_the_same_model(
    name: str, tmp_path: Path, peft: Any
) -> None:
    theirs = hf_folder(tmp_path / "base", name)
    policy = load(tmp_path / "base")
    with_adapters(policy.model)
    (tmp_path / "saved").mkdir()
    save(policy, tmp_path / "saved")
    rows = [torch.randint(0, 67, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (1, 17, 40)]
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "saved" / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    base = load(tmp_path / "base")
    for row, mine, plain in zip(rows, ours_logits(policy, rows), ours_logits(base, rows), strict=True):
        assert (mine - plain).abs().max() > 0.1  # the adapters do something
        with torch.no_grad():
            assert (adapted(torch.tensor([row])).logits[0] - mine).abs().max() < 1e-4
            assert (merged(torch.tensor([row])).logits[0] - mine).abs().max() < 1e-4
    config = json.loads((tmp_path / "saved" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 6.0, "some/base")
    assert (ours_logits(load(tmp_path / "saved"), [rows[1]])[0] - ours_logits(policy, [rows[1]])[0]).abs().max() < 1e-4


def test_pefts_own_adapter_has_the_same_names_and_shapes(tmp_path: Path, peft: Any) -> None:
    theirs = hf_folder(tmp_path / "base", "qwen2")
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    peft.get_peft_model(theirs, peft.LoraConfig(r=4, target_modules=names)).save_pretrained(tmp_path / "theirs")
    policy = load(tmp_path / "base")
    add_adapters(policy.model, LORA, 0)
    (tmp_path / "ours").mkdir()
    save(policy, tmp_path / "ours")
    expected = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    found = load_file(tmp_path / "ours" / "adapter" / "adapter_model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}
    a = found["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"]  # both uniform within 1 / sqrt(in)
    assert 0.9 * 48**-0.5 < a.abs().max() <= 48**-0.5
    assert all(not tensor.any() for name, tensor in found.items() if "lora_B" in name)


def test_new_adapters_change_nothing_and_only_they_are_trained() -> None:
    plain, model = small_model(), small_model()
    add_adapters(model, LORA, seed=1)
    row = [3, 5, 7, 9]
    assert torch.equal(logits_of(plain, row), logits_of(model, row))
    optimizer = make_optimizer(model, CONFIG)
    assert {name.rpartition(".")[2] for name in optimizer.parameters} == {"lora_a", "lora_b"}
    # per layer, rank 4: q, k, v and gate, up from 32, o from 32, down from 48; rows 32 + 16 + 16, 96, 32, 32
    assert sum(p.numel() for p in optimizer.parameters.values()) == 3 * 4 * (6 * 32 + 48 + 64 + 96 + 64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):  # in the first one A has no gradient yet, because B is 0
        optimizer.zero_grad()
        token_logprobs(model, batch_of([2, 4], [6, 8, EOS]), 1.0).logprobs.sum().backward()
        optimizer.step(0.01)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(optimizer.parameters)


def test_adapters_of_one_seed_are_equal_and_of_two_layers_are_not() -> None:
    one, two, other = (small_model() for _ in range(3))
    for model, seed in ((one, 1), (two, 1), (other, 2)):
        add_adapters(model, LORA, seed)
    first, same, different = (list(adapters(model)) for model in (one, two, other))
    assert all(torch.equal(x.a, y.a) for x, y in zip(first, same, strict=True))
    assert not any(torch.equal(x.a, y.a) for x, y in zip(first, different, strict=True))
    assert not torch.equal(first[0].a, first[7].a)
    assert not torch.equal(first[0].a, first[1].a)  # q and k of one layer have an A each


def test_the_gradient_of_a_fused_layer_by_hand() -> None:
    """d loss / d B_k = scale * (grad of k's rows)^T (x A_k^T), and k's loss does not reach q's A."""
    linear = torch.nn.Linear(5, 4, bias=False)
    layer = LoraLinear(linear, [2, 1, 1], Lora(3, 6.0, ""), 7)
    x = torch.randn(6, 5)
    layer.lora_b.data.normal_()
    layer(x)[:, 2].sum().backward()
    a_k = layer.lora_a[3:6]
    assert layer.lora_b.grad is not None
    assert layer.lora_a.grad is not None
    assert torch.allclose(layer.lora_b.grad[2], 2.0 * (x @ a_k.T).sum(0), atol=1e-5)
    assert not layer.lora_b.grad[[0, 1, 3]].any()
    assert layer.lora_a.grad[3:6].any()
    assert not layer.lora_a.grad[[0, 1, 2, 6, 7, 8]].any()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_sampled_is_what_is_trained(checkpointing: bool) -> None:
    model = with_adapters(small_model()).eval()
    model.checkpoint_activations = checkpointing
    settings = SamplingSettings(1.0, 24, 3, frozenset([EOS]))
    prompts = [[2, 3, 4], [5]]
    requests = [Request(prompt, [10 * i, 10 * i + 1]) for i, prompt in enumerate(prompts)]
    for i, _, completion in generate(model, requests, settings):
        tokens = list(completion.token_ids)
        scored = token_logprobs(model, batch_of(prompts[i], tokens), 1.0).logprobs[len(prompts[i]) :]
        assert (scored - torch.tensor(completion.logprobs)).abs().max() < 1e-5
        base = token_logprobs(without_adapters(model), batch_of(prompts[i], tokens), 1.0).logprobs[len(prompts[i]) :]
        assert (scored - base).abs().max() > 0.1


def test_the_reference_is_the_same_memory_without_adapters() -> None:
    plain, model = small_model(), with_adapters(small_model())
    reference = without_adapters(model)
    row = [3, 5, 7, 9, 11]
    assert torch.equal(logits_of(reference, row), logits_of(plain, row))
    own = dict(model.named_parameters())
    assert all(p.data_ptr() == own[name].data_ptr() for name, p in reference.named_parameters())
    assert not any(p.requires_grad for p in reference.parameters())


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round_on_the_same_base_only(dtype: torch.dtype, offload: bool) -> None:
    config = replace(CONFIG, offload=offload)
    one = make_optimizer(with_adapters(small_model(), 1), config, dtype)
    for parameter in one.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    one.step(0.01)
    saved = {name: tensor.clone() for name, tensor in one.state_tensors().items()}
    model = small_model()
    add_adapters(model, LORA, 9)
    two = make_optimizer(model, config, dtype)
    two.load_state_tensors(saved)
    assert all(torch.equal(p, two.parameters[name]) for name, p in one.parameters.items())
    other = small_model(seed=3)
    add_adapters(other, LORA, 9)
    with pytest.raises(UserError, match="not the one that this run's adapters were trained on"):
        make_optimizer(other, config, dtype).load_state_tensors(saved)

"""LoRA: small trained matrices beside the frozen ones of every linear layer (Hu et al., arXiv 2106.09685).

Decides: one adapter for each projection that Hugging Face names (q, k, v, o, gate, up, down), as PEFT has it, though
our Transformer fuses them: the A of one fused layer lie on top of each other and are one product, the B are its
rows. So an adapter is exactly one of PEFT's and is saved in its format. PEFT's own injection works on our module too
and is as fast, but gives q, k and v one common A, and needs transformers and accelerate for these few lines.
Embeddings, head, norms and biases stay frozen: a separately trained copy of a tied head is lost by whoever loads the
model. The sampler runs the same module with the adapters in place, so it samples from what is trained; checkpoints
hold the merged model, and the adapter beside it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from r1v0.base.keys import key
from r1v0.models.packing import PackedLinear
from r1v0.models.transformer import Transformer

# Our layer -> the projections that it fuses, rows in this order (families.hf_tensors).
FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass(frozen=True)
class Lora:
    """`base` is the model's name, for those who load the adapter alone."""

    rank: int
    alpha: float
    base: str

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class LoraLinear(PackedLinear):
    """x W^T + b, plus scale * (x A_i^T) B_i^T in the rows of each of the fused projections i.

    lora_a [projections * rank, in] is uniform within 1 / sqrt(in), lora_b [out, rank] zeros, as in PEFT.
    """

    def __init__(self, linear: nn.Linear, rows: list[int], lora: Lora, seed_key: int) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias, self.rows, self.lora = linear.weight, linear.bias, rows, lora
        drawn = torch.rand(len(rows) * lora.rank, self.in_features, generator=torch.Generator().manual_seed(seed_key))
        self.lora_a = nn.Parameter((2 * drawn - 1).mul_(self.in_features**-0.5).to(self.weight))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, lora.rank).to(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """x [T, in] -> [T, out]."""
        h = F.linear(x, self.lora_a) * self.lora.scale
        parts = zip(h.chunk(len(self.rows), -1), self.lora_b.split(self.rows), strict=True)
        updates = [F.linear(part, b) for part, b in parts]
        return super().forward(x) + (torch.cat(updates, -1) if len(updates) > 1 else updates[0])


class Adapter(NamedTuple):
    """One projection's: `name` as in "layers.0.self_attn.q_proj"; a [rank, in], b [rows, rank]."""

    name: str
    a: Tensor
    b: Tensor
    lora: Lora


def add_adapters(model: Transformer, lora: Lora, seed: int) -> None:
    """Freeze `model` and put adapters on all its linear layers, in place. With B = 0 they change nothing yet."""
    model.requires_grad_(False)
    config = model.config
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    rows = {"qkv": [q, kv, kv], "out": [config.hidden], "gate_up": [config.intermediate] * 2, "down": [config.hidden]}
    for i, block in enumerate(model.layers):
        for name in FUSED:
            setattr(block, name, LoraLinear(getattr(block, name), rows[name], lora, key(seed, "lora", i, name)))


def adapters(model: nn.Module) -> Iterator[Adapter]:
    """All adapters of a model, views of its parameters; none where it has none."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            layer, _, ours = name.rpartition(".")
            parts = zip(module.lora_a.chunk(len(module.rows)), module.lora_b.split(module.rows), strict=True)
            for theirs, (a, b) in zip(FUSED[ours], parts, strict=True):
                yield Adapter(f"{layer}.{theirs}", a, b, module.lora)


def deltas(model: nn.Module) -> dict[str, Adapter]:
    """Adapters by the Hugging Face name of the weight that they change."""
    return {f"model.{adapter.name}.weight": adapter for adapter in adapters(model)}


def merged(weight: Tensor, adapter: Adapter | None) -> Tensor:
    """The weight with its adapter's update added, in float32; the weight itself where there is none."""
    if adapter is None:
        return weight
    return weight.float() + adapter.lora.scale * (adapter.b.float() @ adapter.a.float())


@torch.no_grad()
def without_adapters(model: Transformer) -> Transformer:
    """The base model on the same memory: no second copy of a weight. It is the reference of a KL term."""
    with torch.device("meta"):
        base = Transformer(model.config)
    weights = {name: tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
    base.load_state_dict(weights, assign=True)
    base.frequencies = model.frequencies
    return base.requires_grad_(False).eval()


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Make `folder` with the adapters in PEFT's format; nothing where the model has none."""
    tensors, lora = {}, None
    for adapter in adapters(model):
        lora = adapter.lora
        for kind, tensor in (("lora_A", adapter.a), ("lora_B", adapter.b)):
            tensors[f"base_model.model.model.{adapter.name}.{kind}.weight"] = tensor.detach().cpu().clone()
    if lora is None:
        return
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lora.base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": sorted(name.rpartition(".")[2] for names in FUSED.values() for name in names),
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)

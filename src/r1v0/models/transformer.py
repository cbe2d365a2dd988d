"""One Transformer for the qwen2, qwen3 and llama families, in sampling and in training.

Decides: tokens are flat, [T], whatever sequences they belong to; `positions` place them and `attend` (attention.py)
connects them. q, k and v are one parameter, gate and up another: one matrix product each instead of three and two.
Differs from `transformers`' modules in nothing that shows in the logits (numerics 5, tests/models/test_models.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from r1v0.models.attention import Attend
from r1v0.models.ops import Steps, fast_steps, rms_norm, rotate, swiglu
from r1v0.models.packing import PackedLinear, multiply
from r1v0.models.shape import ModelConfig, inverse_frequencies


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (pre-norm; RMSNorm arXiv 1910.07467, SwiGLU 2002.05202)."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.config, self.index = config, index
        self.fast: Steps | None = None  # while sampling (`fast_steps`)
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attention_norm = nn.Parameter(torch.ones(config.hidden))
        self.qkv = PackedLinear(config.hidden, q + 2 * kv, bias=config.qkv_bias)
        self.q_norm = nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None
        self.out = PackedLinear(q, config.hidden, bias=False)
        self.mlp_norm = nn.Parameter(torch.ones(config.hidden))
        self.gate_up = PackedLinear(config.hidden, 2 * config.intermediate, bias=False)
        self.down = PackedLinear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x [T, hidden]; cos, sin [T, 1, head_dim / 2]."""
        heads, kv_heads, eps = self.config.heads, self.config.kv_heads, self.config.norm_eps
        norm, turn, gated = self.fast or (rms_norm, rotate, swiglu)
        qkv = self.qkv(norm(x, self.attention_norm, eps)).view(x.shape[0], -1, self.config.head_dim)
        qk, v = qkv.split([heads + kv_heads, kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([heads, kv_heads], dim=1)
            qk = torch.cat([norm(q, self.q_norm, eps), norm(k, self.k_norm, eps)], dim=1)
        q, k = turn(qk, cos, sin).split([heads, kv_heads], dim=1)
        x = x + self.out(attend(self.index, q, k, v).flatten(1))
        update: Tensor = self.down(gated(self.gate_up(norm(x, self.mlp_norm, eps))))
        return x + update


class Transformer(nn.Module):
    """token_ids [T], positions [T] -> hidden states [T, hidden]; `head` makes logits [., vocab] of them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.embed = nn.Embedding(config.vocab, config.hidden, _weight=torch.empty(config.vocab, config.hidden))
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.layers))
        self.norm = nn.Parameter(torch.ones(config.hidden))
        self.lm_head = None if config.tied else nn.Parameter(torch.empty(config.vocab, config.hidden))
        self.head_copy: Tensor | None = None  # packing.py's, while sampling
        self.register_buffer("frequencies", inverse_frequencies(config), persistent=False)

    def forward(self, token_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        x = self.embed(token_ids)
        assert isinstance(self.frequencies, Tensor)
        angles = (positions[:, None].float() * self.frequencies)[:, None, :]
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, attend, use_reentrant=False)
            else:
                x = block(x, cos, sin, attend)
        return rms_norm(x, self.norm, self.config.norm_eps)

    @property
    def head_weight(self) -> Tensor:
        """[vocab, hidden]; the embeddings themselves where the family ties them."""
        return self.embed.weight if self.lm_head is None else self.lm_head

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [., vocab] of hidden states [., hidden]."""
        if self.head_copy is not None:
            return multiply(hidden, self.head_copy)
        return F.linear(hidden, self.head_weight)


@contextmanager
def compiled_steps(model: Transformer) -> Iterator[None]:
    """Let the blocks use `fast_steps`, where there are any, for the time of a `with` block that trains nothing."""
    found = fast_steps(model.config, model.norm.device, model.norm.dtype)
    blocks = [block for block in model.layers if isinstance(block, Block)]
    try:
        for block in blocks:
            block.fast = found
        yield
    finally:
        for block in blocks:
            block.fast = None


def initialise(model: Transformer, generator: torch.Generator) -> None:
    """Random weights for a model trained from scratch: N(0, 0.02), output projections scaled by depth (GPT-2)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                parameter.normal_(0.0, 0.02 / (2 * model.config.layers) ** 0.5 if deep else 0.02, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()

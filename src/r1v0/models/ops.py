"""Norm, rotation and gated activation: PyTorch's, and the choice of compiled ones where nothing is trained.

Decides: the plain three are the model, and what every compiled one is tried against (tried.py).
"""

import importlib.util
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from r1v0.models.shape import ModelConfig
from r1v0.models.tried import Pairs, works

Steps = tuple[
    Callable[[Tensor, Tensor, float], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]
]
"""rms_norm, rotate, swiglu"""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension (arXiv 1910.07467, eq. 4)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in Hugging Face's layout: channel i turns with channel i + head_dim / 2.

    x [T, heads, head_dim]; cos, sin [T, 1, head_dim / 2] (RoFormer, arXiv 2104.09864, eq. 34).
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202) of both side by side, [T, 2 x intermediate]: [T, intermediate]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def fast_steps(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> "Steps | None":
    """Norm, rotation and gated activation without gradients: native.py's on a CPU, Triton's on a GPU, where launches
    cost more than what they compute. None where PyTorch's are to be used."""
    if device.type == "cpu":
        from r1v0.models.kernels.native import kernels

        found = kernels(config, device, dtype)
        return None if found is None else found.steps
    if not has_triton():
        return None
    case = (config.heads, config.kv_heads, config.head_dim, config.intermediate, dtype)
    if not works("Triton's decoding steps", case, partial(_triton_trial, config, device, dtype)):
        return None
    from r1v0.models.kernels import triton_layers

    return rms_norm, triton_layers.rotate, triton_layers.swiglu


def _triton_trial(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Pairs:
    from r1v0.models.kernels import triton_layers

    generator = torch.Generator().manual_seed(0)
    heads, dim = config.heads + 2 * config.kv_heads, config.head_dim
    shapes = (3, heads, dim), (3, 1, dim // 2), (3, 1, dim // 2), (3, 2 * config.intermediate)
    qkv, cos, sin, gate_up = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    qk = qkv[:, : config.heads + config.kv_heads]
    return [
        (triton_layers.rotate(qk, cos, sin), rotate(qk, cos, sin)),
        (triton_layers.swiglu(gate_up), swiglu(gate_up)),
    ]


@cache
def has_triton() -> bool:
    """Triton comes with torch's CUDA builds for Linux."""
    return importlib.util.find_spec("triton") is not None

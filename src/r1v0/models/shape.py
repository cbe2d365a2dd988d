"""The shape of a Transformer, whichever family or file it comes from (families.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor  # `r1v0 plan` reads shapes without loading torch


@dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1's stretching of slow rotations (rope_scaling with rope_type "llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Transformer. `heads * head_dim` need not equal `hidden`."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    tied: bool
    qkv_bias: bool
    qk_norm: bool
    rope_scaling: Llama3Rope | None = None


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Rotations per position of each pair of a head's channels, [head_dim / 2] float32.

    RoFormer (arXiv 2104.09864); with `rope_scaling`, Llama 3.1's: wavelengths longer than the original context are
    divided by `factor`, short ones kept, those between blended linearly.
    """
    import torch

    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / (config.rope_theta**powers)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling.factor

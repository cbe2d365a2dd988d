"""Weights laid out for the CPU's matrix products while sampling.

Decides: a decoding step multiplies a few rows by every weight, and PyTorch's float32 product (MKL) is slow at that: it
rearranges the weights anew in each call. oneDNN's takes them rearranged once, 1.3 to 2 times faster at up to 128 rows
(results/performance). So for the time of sampling each large matrix has a second copy in that layout, dropped
afterwards: it cannot grow stale, since nothing trains meanwhile. The product is the same arithmetic, in float32 and in
bfloat16. The operators are those that torch.compile emits for CPUs; they are not documented, and not every processor
has what they need (bfloat16 wants AVX-512), so they are tried first (tried.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1v0.models.sizes import LEAST_REARRANGED, MOST_REARRANGED
from r1v0.models.tried import Pairs, leave_out, works

if TYPE_CHECKING:
    from r1v0.models.transformer import Transformer

DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Linear):
    """nn.Linear that multiplies by the rearranged copy of its weights wherever `packed_weights` keeps one."""

    copy: Tensor | None = None

    def reset_parameters(self) -> None:
        """Nothing: the weights are loaded or initialised afterwards, and random ones would cost time at every start."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.copy is None else multiply(x, self.copy, self.bias)


def multiply(x: Tensor, copy: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [n, in] times a rearranged weight [out, in], plus bias: [n, out]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, copy, bias, "none", [], "")
    return product


def gains(weight: Tensor) -> bool:
    """Whether rearranging this weight would make its product faster."""
    return weight.device.type == "cpu" and weight.dtype in DTYPES and weight.numel() >= LEAST_REARRANGED


def rearrange(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's layout; None where that gains nothing. Raises where this torch or processor cannot."""
    copy: Tensor | None = torch.ops.mkldnn._reorder_linear_weight(weight, None) if gains(weight) else None
    return copy


def usable(model: "Transformer") -> bool:
    """Whether the model is small enough for second copies, and products by them are PyTorch's on each of its shapes."""
    if sum(parameter.numel() for parameter in model.parameters()) > MOST_REARRANGED:
        return False
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    matrices = [(layer.weight.detach(), layer.bias) for layer in layers] + [(model.head_weight.detach(), None)]
    shapes = {(weight.shape, bias is None): (weight, bias) for weight, bias in matrices if gains(weight)}
    name = f"oneDNN's weight layouts ({str(model.norm.dtype).removeprefix('torch.')})"
    if shapes and not torch.backends.mkldnn.is_available():
        leave_out(name, "this PyTorch has no oneDNN", tell=False)
        return False
    return bool(shapes) and works(name, frozenset(shapes), partial(_trial, list(shapes.values())))


@torch.no_grad()
def _trial(matrices: list[tuple[Tensor, Tensor | None]]) -> Pairs:
    """Products of a few rows and of many."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for weight, bias in matrices:
        copy = rearrange(weight)
        assert copy is not None
        for rows in (1, 8, 100):
            x = torch.randn(rows, weight.shape[1], generator=generator).to(weight.dtype)
            pairs.append((multiply(x, copy, bias), F.linear(x, weight, bias)))
    return pairs


@contextmanager
def packed_weights(model: "Transformer") -> Iterator[None]:
    """Keep rearranged copies of the model's matrices for the time of a `with` block in which nothing is trained."""
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)] if usable(model) else []
    try:
        for layer in layers:
            layer.copy = rearrange(layer.weight.detach())
        model.head_copy = rearrange(model.head_weight.detach()) if layers else None
        yield
    finally:
        model.head_copy = None
        for layer in layers:
            layer.copy = None

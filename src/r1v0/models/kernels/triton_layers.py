"""Two elementwise steps of a layer as one kernel each, for decoding on a GPU, where every launch costs.

Decides: rotating queries and keys takes seven of PyTorch's kernels and the gated activation two. A decoding step has
little to compute between its matrix products, so of some 20 kernels a layer these are 9, and here they are 2. Only
without gradients: training has enough to compute. Both round where PyTorch's kernels round, after each operation, so
that sampling stays as close to training as without them. TRITON_INTERPRET=1 runs them on a CPU (tests).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """ops.rotate: x [T, heads, head_dim], its last two dimensions contiguous; cos, sin [T, 1, head_dim / 2]."""
    tokens, heads, dim = x.shape
    assert x.stride()[1:] == (dim, 1)
    out = torch.empty(tokens, heads, dim, device=x.device, dtype=x.dtype)
    padded = triton.next_power_of_2(heads * dim // 2)
    _rotate[(tokens,)](
        x, cos, sin, out, x.stride(0), HEADS=heads, HALF=dim // 2, PADDED=padded, num_warps=4 if padded > 512 else 2
    )
    return out


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [T, 2 x intermediate] contiguous, gate first: [T, intermediate]."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    assert gate_up.is_contiguous()
    out = torch.empty(tokens, width, device=gate_up.device, dtype=gate_up.dtype)
    _swiglu[(tokens, triton.cdiv(width, BLOCK))](gate_up, out, WIDTH=width, SIZE=BLOCK, num_warps=4)
    return out


@triton.jit
def _rotate(x, cos, sin, out, x_stride, HEADS: tl.constexpr, HALF: tl.constexpr, PADDED: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, PADDED)
    head, channel = at // HALF, at % HALF
    inside = head < HEADS
    first = head * (2 * HALF) + channel
    a = tl.load(x + token * x_stride + first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + token * x_stride + first + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + token * HALF + channel, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + token * HALF + channel, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    ac, bs, bc, as_ = (a * c).to(kind), (b * s).to(kind), (b * c).to(kind), (a * s).to(kind)
    target = out + token * (HEADS * 2 * HALF) + first
    tl.store(target, (ac.to(tl.float32) - bs.to(tl.float32)).to(kind), mask=inside)
    tl.store(target + HALF, (bc.to(tl.float32) + as_.to(tl.float32)).to(kind), mask=inside)


@triton.jit
def _swiglu(gate_up, out, WIDTH: tl.constexpr, SIZE: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = at < WIDTH
    gate = tl.load(gate_up + token * (2 * WIDTH) + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * (2 * WIDTH) + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    gate = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    tl.store(out + token * WIDTH + at, (gate * up).to(kind), mask=inside)

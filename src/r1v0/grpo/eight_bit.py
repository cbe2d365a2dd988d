"""AdamW's two moments in 8 bits, by bitsandbytes, and weights without masters.

Decides: bitsandbytes' block-wise 8-bit AdamW (Dettmers et al., arXiv 2110.02861) on tensors that are ours, so that a
checkpoint holds them exactly, without a pickle. A bfloat16 weight has no float32 master: each update is made in
float32 and rounded back up or down at random, in proportion, so that small updates survive on average (Gupta et al.,
arXiv 1502.02551). The random bits are keyed by (seed, update, weight, piece): there is no state to save. Why not
torchao: its AdamW8bit runs through torch.compile only (140 s before the first update of four matrices on a CPU).
Weights are updated a piece at a time, so the float32 copies never take more than a few pieces.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from r1v0.base.errors import UserError
from r1v0.base.keys import key
from r1v0.config import OptimizerConfig
from r1v0.grpo.optimizer import Optimizer, load_tensor
from r1v0.models.sizes import MOMENT_BLOCK
from r1v0.models.transformer import Transformer

SMALLEST = 4096  # smaller tensors keep 32 bits, as bitsandbytes has it
PIECE = 1 << 24  # values updated at a time, a multiple of MOMENT_BLOCK: 64 MiB of float32
KINDS = ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale")


class EightBitOptimizer(Optimizer):
    """Large matrices (contiguous, float32 or bfloat16) are updated in place, with 2 + 8 / 256 bytes of state per weight
    and no masters: 6.1 bytes in all. The rest is AdamW's."""

    def __init__(self, model: Transformer, config: OptimizerConfig, dtype: torch.dtype, seed: int) -> None:
        super().__init__(model, config, dtype)
        self.large = {name: p for name, p in self.parameters.items() if not self.has_master(p)}
        self.seed, self.updates = seed, 0
        self.functional = _bitsandbytes()
        self.states: dict[str, dict[str, Tensor]] = {}
        for name, p in self.large.items():
            scale = torch.zeros(-(-p.numel() // MOMENT_BLOCK), device=p.device)
            moment = torch.zeros(p.numel(), dtype=torch.uint8, device=p.device)
            state = (moment, scale, moment.clone(), scale.clone())
            self.states[name] = dict(zip(KINDS, state, strict=True))
        device = next(iter(self.large.values())).device if self.large else None
        self.codes = [self.functional.create_dynamic_map(signed=signed).to(device) for signed in (True, False)]

    def has_master(self, parameter: Tensor) -> bool:
        return parameter.dim() != 2 or parameter.numel() < SMALLEST

    def update(self, gradients: dict[str, Tensor], scale: Tensor, lr: float) -> None:
        super().update(gradients, scale, lr)
        self.updates += 1
        for name, parameter in self.large.items():
            weights, gradient = parameter.view(-1), gradients.pop(name).view(-1)
            state = self.states[name]
            for start in range(0, weights.numel(), PIECE):
                part = slice(start, start + PIECE)
                blocks = slice(start // MOMENT_BLOCK, (start + PIECE) // MOMENT_BLOCK)
                exact = weights[part].float()  # of float32 weights these are the weights themselves
                self.functional.optimizer_update_8bit_blockwise(
                    "adam",
                    gradient[part].float() * scale,
                    exact,
                    state["exp_avg"][part],
                    state["exp_avg_sq"][part],
                    self.config.beta1,
                    self.config.beta2,
                    0.0,
                    0.0,
                    1e-8,
                    self.updates,
                    lr,
                    *self.codes,
                    state["exp_avg_scale"][blocks],
                    state["exp_avg_sq_scale"][blocks],
                    weight_decay=self.config.weight_decay,
                )
                if weights.dtype == torch.bfloat16:
                    weights[part] = round_at_random(exact, key(self.seed, "rounding", self.updates, name, start))

    def state_tensors(self) -> dict[str, Tensor]:
        """Beside those of `Optimizer`: the large matrices' moments, their scales and the number of updates."""
        found = {f"{kind}/{name}": tensor for name, state in self.states.items() for kind, tensor in state.items()}
        return {"updates": torch.tensor(self.updates), **found, **super().state_tensors()}

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_state_tensors(tensors)
        self.updates = int(tensors["updates"])
        for name, state in self.states.items():
            for kind, tensor in state.items():
                load_tensor(tensor, tensors[f"{kind}/{name}"], f"{kind} of {name}")


def round_at_random(values: Tensor, seed_key: int) -> Tensor:
    """float32 -> bfloat16: up in magnitude with the probability of the bits that are cut off, else down. Overwrites
    `values`. The expectation is the value itself."""
    generator = torch.Generator(values.device).manual_seed(seed_key)
    bits = values.view(torch.int32)
    bits += torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=values.device, generator=generator)
    bits &= -65536  # the upper 16 bits, which are bfloat16's
    return values.bfloat16()


def _bitsandbytes() -> Any:
    """bitsandbytes.functional. Raises UserError if the package is not there."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of 4-bit kernels that nobody asked for
    try:
        import bitsandbytes.functional as functional
    except (ImportError, OSError):
        raise UserError(
            "optimizer.moments is 8bit, but bitsandbytes is not there: pip install 'bitsandbytes>=0.50', or set "
            "optimizer.moments=float32"
        ) from None
    return functional

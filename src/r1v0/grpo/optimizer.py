"""AdamW on float32 master weights.

Decides: the update happens in float32 whatever type the model computes in. The masters are taken from the float32
weights before the model is cast: masters that began as rounded weights would sit on bfloat16's grid, and small updates
would stay invisible until they had added up to half a step of it. At a learning rate of 1e-6 an update is
5e-5 of a weight, under half a bfloat16 step (4e-3): plain bfloat16 training loses nearly all of them. A float32 model
is its own master. Weight decay is for matrices (Loshchilov & Hutter, arXiv 1711.05101), not norms and biases.

Memory, in bytes per weight of a bfloat16 model: 2 weight + 2 gradient + 4 master + 8 moments = 16. The float32
copies of the gradients exist a bucket at a time, and the moments from the start: what is free before the first step
stays free. A frozen weight has no gradient, master or moment. offload.py, eight_bit.py and shard.py hold the same
optimizer with less memory on the GPU.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from r1v0.base.errors import UserError
from r1v0.config import OptimizerConfig
from r1v0.grpo.parallel import sum_over_processes
from r1v0.models.sizes import buckets
from r1v0.models.transformer import Transformer


class Optimizer:
    """Updates the parameters of `model` that are not frozen. `masters` maps a parameter's name to its float32 weights.

    Making one casts `model`, which must be in float32, to the type that it is to compute in; a float32 model is its own
    master.
    """

    def __init__(self, model: Transformer, config: OptimizerConfig, dtype: torch.dtype = torch.float32) -> None:
        self.config = config
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.frozen = [p for p in model.parameters() if not p.requires_grad]
        self.merged = bool(self.frozen)
        self.masters: dict[str, Tensor] = {
            name: self.master(p, dtype) for name, p in self.parameters.items() if self.has_master(p)
        }
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        decayed = [master for name, master in self.masters.items() if self.parameters[name].dim() == 2]
        rest = [master for name, master in self.masters.items() if self.parameters[name].dim() != 2]
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            fused=True,
        )
        for master in self.masters.values():
            self.adamw.state[master] = {
                "step": torch.zeros((), device=master.device),
                "exp_avg": torch.zeros_like(master, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(master, requires_grad=False),
            }

    def zero_grad(self) -> None:
        """Gradients become zeros, not None: an update without any gradient still moves by momentum, as a dense one
        does."""
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, lr: float, sound: bool = True) -> float:
        """One update from the gradients that the model's parameters hold; returns their norm before clipping. Gradients
        that are not `sound`, or whose norm is not finite, are dropped: nothing is updated, and the norm is NaN."""
        gradients: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            gradients[name], parameter.grad = parameter.grad, None  # sampling needs their memory
        norm = self.sum(gradients)
        if not (sound and norm.isfinite()):
            return math.nan
        self.update(gradients, torch.clamp(self.config.grad_clip / (norm + 1e-6), max=1.0), lr)
        return float(norm)

    def sum(self, gradients: dict[str, Tensor]) -> Tensor:
        """Add up the gradients of all processes, in place; the norm of the sums."""
        sum_over_processes(list(gradients.values()))
        norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients.values()])
        norm: Tensor = torch.linalg.vector_norm(norms)
        return norm

    def update(self, gradients: dict[str, Tensor], scale: Tensor, lr: float) -> None:
        """AdamW's step from `gradients` x `scale`; each gradient is dropped when it has been used."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        every = list(self.masters)
        for places in buckets([master.numel() for master in self.masters.values()]):
            names = [every[i] for i in places]
            for name in names:
                master = self.masters[name]
                master.grad = self.to_master(gradients.pop(name))
                master.grad.mul_(scale.to(master.device))
            self.adamw.step()
            for name in names:
                self.masters[name].grad = None
            self.from_masters(names)

    def has_master(self, parameter: Tensor) -> bool:
        """Whether the parameter is updated by AdamW in float32."""
        return True

    def master(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """The float32 weights that are updated: a copy, unless the parameter will do."""
        return parameter if dtype == torch.float32 else parameter.detach().clone().requires_grad_()

    def to_master(self, gradient: Tensor) -> Tensor:
        """A gradient in float32, where its master is."""
        return gradient.float()

    def from_masters(self, names: Sequence[str]) -> None:
        """These parameters become their rounded masters."""
        for name in names:
            if self.masters[name] is not self.parameters[name]:
                self.parameters[name].copy_(self.masters[name])

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that an exact resume needs, by name: AdamW's moments, its step count, and such weights as the
        checkpoint's model does not hold exactly: masters that are not the parameters, and adapters, merged there."""
        found = {"frozen": self._frozen_sums()} if self.merged else {}
        for name, master in self.masters.items():
            found |= {f"{key}/{name}": value for key, value in self.adamw.state[master].items()}
            if self.merged or master is not self.parameters[name]:
                found[f"master/{name}"] = master.detach()
        return found

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo `state_tensors`. Raises KeyError for a missing tensor, RuntimeError for one of a wrong shape, UserError
        for adapters that were trained on other weights than the model's."""
        if self.merged and not torch.allclose(tensors["frozen"], self._frozen_sums(), rtol=1e-6):
            raise UserError(
                "the model is not the one that this run's adapters were trained on: it was changed since; "
                "put it back, or start a new run"
            )
        for name, master in self.masters.items():
            for key, value in self.adamw.state[master].items():
                load_tensor(value, tensors[f"{key}/{name}"], f"{key} of {name}")
            if self.merged or master is not self.parameters[name]:
                load_tensor(master, tensors[f"master/{name}"], f"master of {name}")
                self.from_masters([name])

    def _frozen_sums(self) -> Tensor:
        """The sum of each frozen parameter, [n] float64: enough to tell one model from another."""
        return torch.stack([parameter.detach().sum(dtype=torch.float64) for parameter in self.frozen]).cpu()


def make_optimizer(
    model: Transformer, config: OptimizerConfig, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Optimizer:
    """The optimizer that the settings ask for; `seed` is for 8-bit moments only. Raises UserError if a package that it
    needs is missing."""
    if config.moments == "8bit":
        from r1v0.grpo.eight_bit import EightBitOptimizer

        return EightBitOptimizer(model, config, dtype, seed)
    if config.shard:
        from r1v0.grpo.shard import ShardedOptimizer

        return ShardedOptimizer(model, config, dtype)
    if config.offload:
        from r1v0.grpo.offload import OffloadedOptimizer

        return OffloadedOptimizer(model, config, dtype)
    return Optimizer(model, config, dtype)


def load_tensor(into: Tensor, saved: Tensor, what: str) -> None:
    """Copy a saved tensor. Raises RuntimeError for a wrong shape."""
    if into.shape != saved.shape:
        raise RuntimeError(f"the {what} has shape {list(saved.shape)}, not {list(into.shape)}")
    into.copy_(saved)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of the 1-based `step` of `steps`: linear warm-up, then constant or a cosine down to a tenth."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

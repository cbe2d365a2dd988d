"""AdamW on float32 master weights.

Decides: the update happens in float32 whatever type the model computes in. The masters are taken from the float32
weights before the model is cast: masters that began as rounded weights would sit on bfloat16's grid, and small updates
would stay invisible until they had added up to half a step of it. At a learning rate of 1e-6 an update is
5e-5 of a weight, under half a bfloat16 step (4e-3): plain bfloat16 training loses nearly all of them. A float32 model
is its own master. Weight decay is for matrices (Loshchilov & Hutter, arXiv 1711.05101), not norms and biases.
"""

import math

import torch
from torch import Tensor

from r1v0.config import OptimizerConfig
from r1v0.models.transformer import Transformer


class Optimizer:
    """`masters` maps each parameter's name to its float32 weights. Making one casts `model`, which must be in float32, to
    the type that it is to compute in; a float32 model is its own master."""

    def __init__(self, model: Transformer, config: OptimizerConfig, dtype: torch.dtype = torch.float32) -> None:
        self.config = config
        self.parameters = dict(model.named_parameters())
        self.masters: dict[str, Tensor] = dict(self.parameters)
        if dtype != torch.float32:
            self.masters = {name: p.detach().clone().requires_grad_() for name, p in self.parameters.items()}
            for parameter in self.parameters.values():
                parameter.data = parameter.data.to(dtype)
        decayed = [master for master in self.masters.values() if master.dim() == 2]
        rest = [master for master in self.masters.values() if master.dim() != 2]
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            fused=True,
        )

    def zero_grad(self) -> None:
        """Gradients become zeros, not None: an update without any gradient still moves by momentum, as a dense one does."""
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)

    def step(self, lr: float) -> float:
        """One update from the gradients that the model's parameters hold; returns their norm before clipping."""
        for name, master in self.masters.items():
            gradient = self.parameters[name].grad
            assert gradient is not None
            master.grad = gradient.float()
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), self.config.grad_clip)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        with torch.no_grad():
            for name, master in self.masters.items():
                self.parameters[name].copy_(master)
                master.grad = self.parameters[name].grad = None  # sampling needs their memory
        return float(norm)

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that an exact resume needs, by name: AdamW's moments, its step count, and the masters."""
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            found |= {f"{key}/{name}": value for key, value in self.adamw.state[master].items()}
            if master is not self.parameters[name]:
                found[f"master/{name}"] = master.detach()
        return found

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Undo `state_tensors`. Raises KeyError for a missing tensor, RuntimeError for one of a wrong shape."""
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                with torch.no_grad():
                    master.copy_(tensors[f"master/{name}"])
            if f"exp_avg/{name}" in tensors:
                state = {key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                if state["exp_avg"].shape != master.shape or state["exp_avg_sq"].shape != master.shape:
                    raise RuntimeError(
                        f"optimizer state of {name} has shape {list(state['exp_avg'].shape)}, not {list(master.shape)}"
                    )
                self.adamw.state[master] = {key: value.to(master.device) for key, value in state.items()}


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of the 1-based `step` of `steps`: linear warm-up, then constant or a cosine down to a tenth."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

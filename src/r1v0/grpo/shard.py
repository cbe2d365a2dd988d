"""AdamW divided over the processes of a run: each holds masters and moments of its piece of every weight (ZeRO-1,
arXiv 1910.02054, P_os).

Decides: the weights stay whole, since the sampler runs on them. In bytes per weight of a bfloat16 model with N
processes: 2 weight + 2 gradient + 12 / N. A piece is an N-th of a flattened weight, the last ones shorter; so a step is
one sum of gradients that leaves each process its pieces (reduce-scatter, float32), AdamW on those, and one exchange of
the new weights (all-gather, in the type of the model), some BUCKET numbers at a time. A checkpoint is what one process
would write, whatever N was.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from r1v0.config import OptimizerConfig
from r1v0.grpo import parallel
from r1v0.grpo.optimizer import Optimizer, load_tensor
from r1v0.grpo.saved import Spec, in_order, spec_of
from r1v0.models.sizes import buckets
from r1v0.models.transformer import Transformer


class ShardedOptimizer(Optimizer):
    """`masters` are this process's pieces, flat, and `exact` says that the parameters hold the same numbers."""

    def __init__(self, model: Transformer, config: OptimizerConfig, dtype: torch.dtype = torch.float32) -> None:
        self.exact = dtype == torch.float32
        super().__init__(model, config, dtype)

    def master(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        return own_piece(parameter.detach()).float().clone().requires_grad_()

    def sum(self, gradients: dict[str, Tensor]) -> Tensor:
        """Each gradient becomes this process's piece of the sum, in float32."""
        names = list(gradients)
        square = torch.zeros((), device=next(iter(gradients.values())).device)
        for places in buckets([gradient.numel() for gradient in gradients.values()]):
            some = [names[i] for i in places]
            pieces = reduce_scattered([gradients.pop(name) for name in some])
            square += torch.stack([piece.square().sum() for piece in pieces]).sum()
            gradients |= dict(zip(some, pieces, strict=True))
        if parallel.size() > 1:
            with parallel.meeting():
                dist.all_reduce(square)
        return square.sqrt()

    def from_masters(self, names: Sequence[str]) -> None:
        parameters = [self.parameters[name] for name in names]
        all_gathered([self.masters[name].to(self.parameters[name].dtype) for name in names], parameters)

    def state_tensors(self) -> dict[str, Tensor]:
        """As one process has it. All must call it."""
        return {spec.name: tensor for spec, tensor in zip(self.state_specs(), self.state_stream(), strict=True)}

    def state_specs(self) -> list[Spec]:
        kinds = ("exp_avg", "exp_avg_sq") if self.exact else ("exp_avg", "exp_avg_sq", "master")
        whole = [
            Spec(f"{kind}/{name}", p.shape, torch.float32) for name, p in self.parameters.items() for kind in kinds
        ]
        return in_order([*whole, *(Spec(f"step/{name}", (), torch.float32) for name in self.parameters)])

    def state_stream(self) -> Iterator[Tensor]:
        for spec in self.state_specs():
            kind, _, name = spec.name.partition("/")
            master = self.masters[name]
            held = master.detach() if kind == "master" else self.adamw.state[master][kind]
            if kind == "step":
                yield held
                continue
            whole = torch.empty(spec.shape, device=held.device)
            all_gathered([held], [whole])
            yield whole

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name, master in self.masters.items():
            state, parameter = self.adamw.state[master], self.parameters[name]
            load_tensor(state["step"], tensors[f"step/{name}"], f"step of {name}")
            for key in ("exp_avg", "exp_avg_sq"):
                load_tensor(state[key], _piece_of(tensors[f"{key}/{name}"], parameter), f"{key} of {name}")
            saved = parameter if self.exact else tensors[f"master/{name}"]
            load_tensor(master, _piece_of(saved, parameter), f"master of {name}")
            if not self.exact:
                parameter.copy_(tensors[f"master/{name}"])


def streamed(optimizer: Optimizer) -> tuple[list[Spec], Iterator[Tensor]]:
    """What a checkpoint holds of an optimizer's state, one tensor at a time. All processes of a run must take all."""
    if isinstance(optimizer, ShardedOptimizer):
        return optimizer.state_specs(), optimizer.state_stream()
    tensors = optimizer.state_tensors()
    specs = in_order(spec_of(name, tensor) for name, tensor in tensors.items())
    return specs, (tensors[spec.name] for spec in specs)


def piece_size(numbers: int) -> int:
    """How many of a weight's numbers a process has, at most."""
    return -(-numbers // parallel.size())


def own_piece(tensor: Tensor) -> Tensor:
    """This process's piece of a weight, flat; of the last ones some or all may be missing."""
    size = piece_size(tensor.numel())
    return tensor.reshape(-1)[parallel.rank() * size : (parallel.rank() + 1) * size]


def _piece_of(saved: Tensor, parameter: Tensor) -> Tensor:
    if saved.shape != parameter.shape:
        return saved  # for load_tensor to refuse
    return own_piece(saved)


@parallel.meeting()
def reduce_scattered(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's pieces of the sums of these tensors over the processes, in float32."""
    if parallel.size() == 1:
        return [tensor.reshape(-1).float() for tensor in tensors]
    rows = torch.cat([_padded(tensor.reshape(-1).float()) for tensor in tensors], dim=1)
    own = torch.empty_like(rows[0])
    _reduce_scatter(own, rows.reshape(-1))
    sizes = [piece_size(tensor.numel()) for tensor in tensors]
    pieces = own.split(sizes)
    return [piece[: own_piece(tensor).numel()] for piece, tensor in zip(pieces, tensors, strict=True)]


@parallel.meeting()
def all_gathered(pieces: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Fill these tensors from everybody's pieces of them."""
    if parallel.size() == 1:
        for piece, tensor in zip(pieces, into, strict=True):
            tensor.copy_(piece.view_as(tensor))
        return
    sizes = [piece_size(tensor.numel()) for tensor in into]
    own = torch.zeros(sum(sizes), dtype=pieces[0].dtype, device=pieces[0].device)
    for part, piece in zip(own.split(sizes), pieces, strict=True):
        part[: piece.numel()] = piece
    rows = torch.empty(parallel.size() * own.numel(), dtype=own.dtype, device=own.device)
    _all_gather(rows, own)
    for columns, tensor in zip(rows.view(parallel.size(), -1).split(sizes, dim=1), into, strict=True):
        tensor.copy_(columns.reshape(-1)[: tensor.numel()].view_as(tensor))


def _padded(flat: Tensor) -> Tensor:
    """[numbers] -> [processes, piece], zeros at the end."""
    size = piece_size(flat.numel())
    return torch.nn.functional.pad(flat, (0, parallel.size() * size - flat.numel())).view(parallel.size(), size)


# torch 2.13 has new names for these two, and warns of the old ones.
_reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)

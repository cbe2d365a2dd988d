"""Do all processes of a run have the same versions, settings and weights? Asked at the start and at each checkpoint."""

from typing import Any

import torch

from r1v0 import __version__
from r1v0.base.errors import UserError
from r1v0.config import Config, to_toml
from r1v0.grpo import parallel
from r1v0.models.transformer import Transformer


@torch.no_grad()
def checksum(model: Transformer) -> int:
    """A number of 64 bits that another weight changes: the sum of their bits, each tensor's times its place."""
    total = 0
    for place, parameter in enumerate(model.parameters(), 1):
        bits = parameter.detach().view(torch.int32 if parameter.element_size() == 4 else torch.int16)
        total += place * int(bits.sum(dtype=torch.int64))
    return total % (1 << 64)


def need_same_weights(model: Transformer, where: str) -> None:
    """Raise UserError if two processes' weights differ at `where`."""
    if parallel.size() == 1:
        return
    sums = parallel.each(lambda: checksum(model))
    if len(set(sums)) > 1:
        odd = [number for number, found in enumerate(sums) if found != sums[0]]
        raise UserError(
            f"the weights of process {odd[0]} are not those of process 0 at {where}: a fault of memory or network; go on "
            "from the checkpoint before, which is whole"
        )


def need_same_start(config: Config, model: Transformer) -> None:
    """Raise UserError if the processes of a run differ in versions, settings or weights."""

    def told() -> dict[str, Any]:
        return {
            "r1v0": __version__,
            "torch": torch.__version__,
            "settings": to_toml(config),
            "CPU threads": torch.get_num_threads(),
            "weights": checksum(model) if parallel.size() > 1 else 0,
        }

    found = parallel.each(told)
    for number, other in enumerate(found):
        for name, value in other.items():
            if value != found[0][name]:
                given = "" if name in ("settings", "weights") else f" ({value}, and {found[0][name]} in process 0)"
                raise UserError(
                    f"process {number} of the run has another {name} than process 0{given}: all need the same r1v0, "
                    "torch, files and command"
                )

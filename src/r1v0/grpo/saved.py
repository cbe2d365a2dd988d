"""An optimizer's state on disk, in safetensors' format, one tensor in memory at a time.

Decides: safetensors writes a file from tensors that are all there. Of a model of 7 B weights they are 91 GB, which no
process needs to hold: so the header is written first, and each tensor behind it as it comes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

NAMES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.uint8: "U8"}
"""safetensors' names of types, in the order in which it writes them"""


class Spec(NamedTuple):
    """A tensor before it is there."""

    name: str
    shape: Sequence[int]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def spec_of(name: str, tensor: Tensor) -> Spec:
    """What is written of it."""
    return Spec(name, tensor.shape, tensor.dtype)


def in_order(specs: Iterable[Spec]) -> list[Spec]:
    """As safetensors would write them, so that the file is the same to the byte."""
    types = list(NAMES)
    return sorted(specs, key=lambda spec: (types.index(spec.dtype), spec.name))


def write(path: Path | None, specs: Sequence[Spec], tensors: Iterable[Tensor]) -> None:
    """Write the tensors, which come in the order of `specs`; without a path only let them come. Raises OSError when all
    have come: whoever makes them together with other processes must make all of them."""
    end, header = 0, dict[str, Any]()
    for spec in specs:
        header[spec.name] = {
            "dtype": NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.bytes],
        }
        end += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    coming = iter(zip(specs, tensors, strict=True))
    try:
        if path is not None:
            with open(path, "wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                for spec, tensor in coming:
                    assert (tuple(spec.shape), spec.dtype) == (tuple(tensor.shape), tensor.dtype), spec.name
                    file.write(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    finally:
        for _ in coming:
            pass


class Tensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.file: Any = safe_open(path, "pt")
        self.names = set(self.file.keys())  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        tensor: Tensor = self.file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

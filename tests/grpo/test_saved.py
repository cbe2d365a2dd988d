"""A state that is streamed to disk is safetensors' own file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1v0.grpo.saved import Spec, Tensors, in_order, spec_of, write

STATE: dict[str, Tensor] = {
    "master/b": torch.arange(6, dtype=torch.float32).view(2, 3),
    "exp_avg/b": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).T,  # not contiguous
    "bytes/a": torch.arange(5, dtype=torch.uint8),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "frozen": torch.ones(2, dtype=torch.float64),
    "step/a": torch.tensor(3.0),
    "updates": torch.tensor(7),
    "none": torch.empty(0),
}


def written(path: Path, state: dict[str, Tensor]) -> Path:
    specs = in_order(spec_of(name, tensor) for name, tensor in state.items())
    write(path, specs, (state[spec.name] for spec in specs))
    return path


def test_the_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in STATE.items()}, tmp_path / "theirs")
    assert written(tmp_path / "ours", STATE).read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_are_read_one_by_one(tmp_path: Path) -> None:
    found = Tensors(written(tmp_path / "a", STATE))
    assert (len(found), set(found)) == (len(STATE), set(STATE))
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())
    with pytest.raises(KeyError):
        found["missing"]
    assert load_file(tmp_path / "a").keys() == STATE.keys()


def test_all_tensors_come_also_where_nothing_can_be_written(tmp_path: Path) -> None:
    come: list[int] = []

    def stream() -> object:
        for n in range(3):
            come.append(n)
            yield torch.zeros(2)

    specs = [Spec(str(n), (2,), torch.float32) for n in range(3)]
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "nowhere" / "a", specs, stream())  # type: ignore[arg-type]
    write(None, specs, stream())  # type: ignore[arg-type]
    assert come == [0, 1, 2] * 2

"""Rearranged weights while sampling: the same products, and nothing left afterwards."""

import pytest
import torch

from r1v0.models import packing
from r1v0.models.attention import packed
from r1v0.models.families import ModelConfig
from r1v0.models.packing import packed_weights
from r1v0.models.transformer import Transformer, initialise

wants_onednn = pytest.mark.skipif(
    packing.rearrange(torch.zeros(512, 512)) is None, reason="this torch has no oneDNN for rearranged weights"
)


def model(tied: bool = False) -> Transformer:
    made = Transformer(ModelConfig(600, 256, 320, 2, 4, 2, 64, 1e-6, 1e4, 512, tied, True, False))
    initialise(made, torch.Generator().manual_seed(0))
    return made


def linears(made: Transformer) -> list[packing.PackedLinear]:
    return [module for module in made.modules() if isinstance(module, packing.PackedLinear)]


def logits(made: Transformer, rows: int = 7) -> torch.Tensor:
    with torch.no_grad():
        hidden = made(torch.arange(rows), torch.arange(rows), packed(torch.tensor([0, rows])))
        return made.head(hidden)


@wants_onednn
@pytest.mark.parametrize(("tied", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)])
def test_products_are_the_same(tied: bool, dtype: torch.dtype) -> None:
    made = model(tied).to(dtype)
    expected = logits(made)
    with packed_weights(made):
        assert all(layer.copy is not None for layer in linears(made))
        assert made.head_copy is not None
        assert (logits(made) - expected).abs().max() < (1e-5 if dtype is torch.float32 else 4e-3)


@wants_onednn
def test_nothing_is_left_after_an_error_and_new_weights_are_seen() -> None:
    made = model()
    with pytest.raises(RuntimeError, match="stopped"), packed_weights(made):
        raise RuntimeError("stopped")
    assert made.head_copy is None
    assert all(layer.copy is None for layer in linears(made))
    with torch.no_grad():
        linears(made)[-1].weight.mul_(2)
    expected = logits(made)
    with packed_weights(made):
        assert (logits(made) - expected).abs().max() < 1e-5


def test_small_large_and_rounded_matrices_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packing.rearrange(torch.zeros(96, 96)) is None
    assert packing.rearrange(torch.zeros(512, 512, dtype=torch.float16)) is None
    monkeypatch.setattr(packing, "LARGEST", 1000)
    made = model()
    with packed_weights(made):
        assert made.head_copy is None
        assert all(layer.copy is None for layer in linears(made))

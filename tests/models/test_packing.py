"""Rearranged weights while sampling: the same products, and nothing left afterwards."""

import pytest
import torch

from r1v0.models import packing, tried
from r1v0.models.attention import packed
from r1v0.models.packing import packed_weights
from r1v0.models.shape import ModelConfig
from r1v0.models.transformer import Transformer, initialise

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "_works", {})
    monkeypatch.setattr(tried, "_outcomes", {})


def skip_unless_usable(made: Transformer) -> None:
    """What this processor lacks is left out: that is a test of its own."""
    if not packing.usable(made):
        pytest.skip(f"not on this processor: {tried.outcomes()}")


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


@pytest.mark.parametrize(("tied", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)])
def test_products_are_the_same(tied: bool, dtype: torch.dtype) -> None:
    made = model(tied).to(dtype)
    skip_unless_usable(made)
    expected = logits(made)
    with packed_weights(made):
        assert all(layer.copy is not None for layer in linears(made))
        assert made.head_copy is not None
        assert (logits(made) - expected).abs().max() < (1e-5 if dtype is torch.float32 else 4e-3)


def test_nothing_is_left_after_an_error_and_new_weights_are_seen() -> None:
    made = model()
    skip_unless_usable(made)
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
    monkeypatch.setattr(packing, "MOST_REARRANGED", 1000)
    made = model()
    with packed_weights(made):
        assert made.head_copy is None
        assert all(layer.copy is None for layer in linears(made))


def refuse(weight: torch.Tensor, size: object) -> torch.Tensor:
    raise RuntimeError("bf16 path needs the cpu support avx_ne_convert or avx512bw,\navx512vl and avx512dq")


@pytest.mark.parametrize("fault", ["raises", "is wrong", "is not there", "gives another shape", "gives NaN"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_operator_that_fails_is_left_out_in_one_line(
    fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = model().to(dtype)
    expected = logits(made)
    multiply = packing.multiply
    wrong = {
        "is wrong": lambda x, copy, bias=None: multiply(x, copy, bias) * 1.05,
        "gives another shape": lambda x, copy, bias=None: multiply(x, copy, bias)[1:],
        "gives NaN": lambda x, copy, bias=None: multiply(x, copy, bias) + float("nan"),
    }
    if fault in wrong:
        skip_unless_usable(made)
        monkeypatch.setattr(tried, "_works", {})
        monkeypatch.setattr(packing, "multiply", wrong[fault])
    elif fault == "raises":
        monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse, raising=False)
    else:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    for _ in range(2):
        with packed_weights(made):
            assert all(layer.copy is None for layer in linears(made))
            assert torch.equal(logits(made), expected)
    (line,) = capsys.readouterr().err.splitlines()
    name = f"oneDNN's weight layouts ({str(dtype).removeprefix('torch.')})"
    assert line.startswith(f"r1v0: {name}: left out, PyTorch's plain operation runs instead (slower, same results): ")
    assert tried.outcomes()[name] == "left out: " + line.split("(slower, same results): ")[1]

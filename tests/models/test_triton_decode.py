"""The decoding kernels in Triton's interpreter against plain float32 attention; no GPU is needed."""

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import small_model

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is for Linux only")


@pytest.fixture(autouse=True)
def one_element_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6's interpreter calls int() on arrays of one element, which NumPy 2.4 refuses."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


def pool_of(
    lengths: list[int], page: int, kv_heads: int, dim: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random keys and values in shuffled pages, NaN in every cell that must not count; table and lengths."""
    generator = torch.Generator().manual_seed(sum(lengths) + page + dim)
    held = [-(-length // page) for length in lengths]
    table = torch.zeros(len(lengths), max(held) + 1, dtype=torch.int32)
    order = (torch.randperm(sum(held), generator=generator) + 1).int()
    pool = torch.full((2, 1 + sum(held), page, kv_heads, dim), float("nan"), dtype=dtype)
    for row, (length, count) in enumerate(zip(lengths, held, strict=True)):
        table[row, :count], order = order[:count], order[count:]
        for position in range(length):
            cell = pool[:, int(table[row, position // page]), position % page]
            cell.copy_(torch.randn(2, kv_heads, dim, generator=generator))
    return pool[0], pool[1], table, torch.tensor(lengths, dtype=torch.int32)


def queries(rows: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """As the Transformer hands them over: a slice of queries and keys side by side."""
    q = torch.randn(rows, heads + kv_heads, dim, generator=torch.Generator().manual_seed(heads)).to(dtype)
    return q[:, :heads]


def reference(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor) -> Tensor:
    """softmax(q k / sqrt(dim)) v in float64, one row and head at a time."""
    rows, heads, dim = q.shape
    page, group = keys.shape[1], heads // keys.shape[2]
    out = torch.empty(rows, heads, dim, dtype=torch.float64)
    for row, length in enumerate(lengths.tolist()):
        pages = table[row, : -(-length // page)].long()
        k, v = (x[pages].flatten(0, 1)[:length].double() for x in (keys, values))
        for head in range(heads):
            p = (k[:, head // group] @ q[row, head].double() / dim**0.5).softmax(0)
            out[row, head] = p @ v[:, head // group]
    return out


SHAPES = [
    # lengths, page, kv_heads, group, dim, splits
    ([1, 15, 16, 17, 33], 16, 2, 1, 32, 2),  # a page's edges
    ([70, 1], 16, 1, 2, 64, 1),  # a single split
    ([40, 5], 16, 1, 3, 48, 8),  # more splits than pages: some see nothing
    ([65], 32, 1, 4, 80, 2),  # a head dimension that is padded
    ([20, 31], 16, 1, 5, 96, 2),
    ([130], 64, 2, 6, 128, 3),  # Qwen2.5-1.5B's
    ([18, 3], 16, 1, 7, 64, 2),
    ([48], 16, 1, 8, 128, 3),
    ([9], 16, 3, 16, 16, 1),
]


@pytest.mark.parametrize(("lengths", "page", "kv_heads", "group", "dim", "splits"), SHAPES)
def test_attention_is_that_of_the_reference(
    lengths: list[int], page: int, kv_heads: int, group: int, dim: int, splits: int
) -> None:
    from r1v0.models.kernels.triton_decode import attention

    keys, values, table, reach = pool_of(lengths, page, kv_heads, dim)
    q = queries(len(lengths), kv_heads * group, kv_heads, dim)
    out = attention(q, keys, values, table, reach, splits)
    assert (out - reference(q, keys, values, table, reach)).abs().max() < 2e-6


def test_16_bits_are_summed_in_float32() -> None:
    """float16 stands for bfloat16, which the interpreter cannot multiply."""
    from r1v0.models.kernels.triton_decode import attention

    keys, values, table, lengths = pool_of([50, 7], 16, 1, 64, torch.float16)
    q = queries(2, 4, 1, 64, torch.float16)
    out = attention(q, keys, values, table, lengths, 2)
    expected = reference(q, keys, values, table, lengths)
    assert out.dtype == torch.float16
    assert (out - expected).norm() / expected.norm() < 5e-4  # float16's own rounding is 2.4e-4 a number


def test_scores_of_any_size_stay_finite() -> None:
    from r1v0.models.kernels.triton_decode import attention

    keys, values, table, lengths = pool_of([40], 16, 1, 32)
    q = queries(1, 2, 1, 32) * 1e3
    out = attention(q, keys, values, table, lengths, 3)
    assert (out - reference(q, keys, values, table, lengths)).abs().max() < 1e-3


def test_a_dead_row_attends_one_cell_of_page_0() -> None:
    from r1v0.models.kernels.triton_decode import attention

    pool = torch.randn(2, 1, 16, 1, 32)
    out = attention(
        queries(1, 4, 1, 32), pool[0], pool[1], torch.zeros(1, 3, dtype=torch.int32), torch.ones(1).int(), 4
    )
    assert torch.allclose(out, pool[1, 0, 0].expand(1, 4, 32), atol=1e-6)


def test_store_writes_the_named_cells_and_no_others() -> None:
    from r1v0.models.kernels.triton_decode import store

    keys, values = torch.zeros(2, 3, 16, 3, 40)
    k, v = (torch.randn(4, 5, 40)[:, 1:4] for _ in range(2))
    cells = torch.tensor([17, 0, 47, 20])
    store(k, v, keys, values, cells)
    for pool, x in ((keys, k), (values, v)):
        assert torch.equal(pool.flatten(0, 1)[cells], x)
        assert int((pool.flatten(0, 1) != 0).any(-1).any(-1).sum()) == 4


def test_the_interpreted_kernels_sample_the_same_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paged cache with the kernels instead of its plain attention, through the whole sampler."""
    from r1v0.models.kernels import triton_decode
    from r1v0.sampling import pages
    from r1v0.sampling.engine import Engine
    from r1v0.sampling.sampler import generate
    from tests.helpers import small_model
    from tests.sampling.test_sampler import requests, settings

    used: list[int] = []

    def kernel(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor) -> Tensor:
        used.append(len(lengths))
        return triton_decode.attention(q, keys, values, table, lengths, 2)

    model, asked, chosen = small_model(), requests(3, group=2), settings(4, limit=5)
    expected = {(i, s): c.token_ids for i, s, c in generate(model, asked, chosen)}
    monkeypatch.setattr(pages, "plain_attention", kernel)
    engine = Engine(paged=True, check_every=2, graphs=True, pages=20, page_size=16)
    assert {(i, s): c.token_ids for i, s, c in generate(model, asked, chosen, engine=engine)} == expected
    assert used


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_a_gpu_without_spills(capability: int) -> None:
    """To machine code of an A100 and an H100, in Qwen2.5-1.5B's shape; needs Triton's compiler, but no GPU."""
    code = f"""
import os, subprocess, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from r1v0.models import triton_decode as kernels, triton_layers as layers

POINTERS = dict(x="*bf16", cos="*bf16", sin="*bf16", gate_up="*bf16", q="*bf16", keys="*bf16", values="*bf16", k="*bf16",
                v="*bf16", out="*bf16", parts="*fp32", lse="*fp32", table="*i32", lengths="*i32", cells="*i64", scale="fp32")
SIZES = dict(PAGE=64, GROUP=6, GROUP_PADDED=16, DIM=128, DIM_PADDED=128, KV_HEADS=2, HEADS=12, SPLITS=5,
             SPLITS_PADDED=8, WIDTH=256, PADDED=256, HALF=64, SIZE=1024)
for kernel in (kernels._split, kernels._reduce, kernels._store, layers._rotate, layers._swiglu):
    names = kernel.arg_names
    signature = {{name: "constexpr" if name in SIZES else POINTERS.get(name, "i32") for name in names}}
    constants = {{(i,): SIZES[name] for i, name in enumerate(names) if name in SIZES}}
    aligned = {{(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}}
    source = ASTSource(kernel, signature, constants, aligned)
    built = triton.compile(source, target=GPUTarget("cuda", {capability}, 32), options=dict(num_warps=4, num_stages=2))
    tool = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin/cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    assert "LOCAL:0" in usage and "STACK:0" in usage, usage
    assert built.metadata.shared < 48 << 10, built.metadata.shared
    if kernel is kernels._split:
        assert "cp.async" in built.asm["ptx"], "loads are not pipelined"
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("heads", "dim"), [(3, 8), (14, 128), (5, 80)])
def test_rotate_is_the_transformers_own_to_the_bit(heads: int, dim: int, dtype: torch.dtype) -> None:
    from r1v0.models import ops
    from r1v0.models.kernels import triton_layers

    x = torch.randn(4, heads + 2, dim).to(dtype)[:, :heads]
    angles = torch.randn(4, 1, dim // 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    assert torch.equal(triton_layers.rotate(x, cos, sin), ops.rotate(x, cos, sin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("width", [1, 1024, 1500])
def test_swiglu_is_silu_of_the_gate_times_up(width: int, dtype: torch.dtype) -> None:
    from r1v0.models.kernels.triton_layers import swiglu

    gate_up = torch.randn(3, 2 * width).to(dtype)
    gate, up = gate_up.chunk(2, dim=1)
    expected = torch.nn.functional.silu(gate) * up
    most = 1e-6 if dtype == torch.float32 else 2e-3  # exp differs in its last bit, which may turn a rounding
    assert torch.allclose(swiglu(gate_up), expected, rtol=most, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_a_gpu_tries_at_its_start_passes_here(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials themselves (models/tried.py), in the interpreter; and they notice a kernel that is wrong."""
    from r1v0.models import ops
    from r1v0.models.kernels import triton_decode, triton_layers
    from r1v0.models.tried import TOLERANCE, difference
    from r1v0.sampling import pages

    given = small_model().config, torch.device("cpu"), dtype
    for trial in (pages._trial, ops._triton_trial):
        pairs = list(trial(*given))
        assert len(pairs) >= 2
        assert all(difference(fast, plain) <= TOLERANCE[dtype] for fast, plain in pairs)
    for module, name in ((triton_decode, "attention"), (triton_layers, "swiglu")):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, kernel=kernel: kernel(*args) * 1.1)
    for trial in (pages._trial, ops._triton_trial):
        assert any(difference(fast, plain) > TOLERANCE[dtype] for fast, plain in trial(*given))

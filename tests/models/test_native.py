"""The compiled steps of decoding: right numbers, the same tokens, and PyTorch's own wherever they cannot be had."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from r1v0.models import tried
from r1v0.models.kernels import native
from r1v0.models.loading import TINY, load
from r1v0.models.shape import ModelConfig
from r1v0.models.transformer import Transformer, compiled_steps, initialise
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Completion

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
wants_compiler = pytest.mark.skipif(
    os.name != "posix" or shutil.which("cc") is None, reason="no C compiler: the kernels cannot be built here"
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    native._built.cache_clear()
    monkeypatch.setattr(tried, "_works", {})
    monkeypatch.setattr(tried, "_outcomes", {})


def config(head_dim: int = 16, heads: int = 4, kv_heads: int = 2, qk_norm: bool = False) -> ModelConfig:
    return ModelConfig(40, 32, 48, 2, heads, kv_heads, head_dim, 1e-6, 1e4, 512, True, True, qk_norm)


def completions(
    model: Transformer, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[int, int], Completion]:
    monkeypatch.setenv("CC", compiler)
    requests = [Request(list(range(3, 3 + n)), [10 * n + i for i in range(3)]) for n in (5, 9, 1, 30)]
    settings = SamplingSettings(1.0, 40, 7, frozenset({1}))
    return {(i, sample): found for i, sample, found in generate(model, requests, settings)}


@wants_compiler
@pytest.mark.parametrize("dtype", list(native.DTYPES))
@pytest.mark.parametrize(("head_dim", "queries"), [(16, 1), (32, 4), (64, 2), (80, 3), (128, 2), (8, 1)])
def test_every_kernel_agrees_with_pytorch_in_float64(head_dim: int, queries: int, dtype: torch.dtype) -> None:
    library = native._compiled("cc", f"-DDIM={head_dim}", f"-DQUERIES={queries}", *native.DTYPES[dtype])
    assert library is not None
    shape = config(head_dim, heads=4 * queries)
    for found, exact in native._trial(native.Kernels(library, head_dim, queries), shape, dtype):
        limit = 4e-3 if dtype is torch.bfloat16 else 1e-6
        assert ((found.double() - exact).abs() < limit * (1 + exact.abs())).all()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "together"), [(4, 1, 4), (3, 1, 3), (9, 3, 3), (12, 2, 3), (8, 4, 2), (14, 2, 1), (5, 5, 1)]
)
def test_as_many_queries_are_answered_together_as_divide_a_group(
    heads: int, kv_heads: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most four; 12 heads on 2 KV heads are groups of 6, which is twice 3."""
    asked: list[int] = []
    monkeypatch.setattr(native, "_built", lambda _dim, queries, *_: asked.append(queries))
    native.kernels(config(heads=heads, kv_heads=kv_heads), CPU, torch.float32)
    assert asked == [together]


@wants_compiler
def test_the_tails_of_the_exponential() -> None:
    kernels = native.kernels(config(), CPU, torch.float32)
    assert kernels is not None
    gate = torch.tensor([-200.0, -88.0, -87.5, -20.0, -1e-8, 0.0, 1e-8, 20.0, 87.5, 200.0, float("inf")])
    got = kernels.swiglu(torch.cat([gate, torch.ones_like(gate)])[None])[0].double()
    wanted = torch.nn.functional.silu(gate.double())
    assert ((got - wanted).abs() <= 1e-6 * wanted.abs() + 1e-35)[:-1].all()
    assert got[-1] == float("inf")


@wants_compiler
@pytest.mark.parametrize("shape", [config(), config(heads=6), config(heads=3, kv_heads=3), config(qk_norm=True)])
def test_sampling_draws_the_same_tokens_with_and_without(shape: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer(shape)
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)  # else attention would hardly matter
    plain, compiled = completions(model, "", monkeypatch), completions(model, "cc", monkeypatch)
    assert tried.outcomes() == {
        "compiled decoding steps (float32)": "used",
        "fused attention on a CPU (float32)": "used",
    }
    assert plain.keys() == compiled.keys()
    for place, completion in plain.items():
        assert compiled[place].token_ids == completion.token_ids
        assert compiled[place].logprobs == pytest.approx(completion.logprobs, abs=2e-5)
    assert plain[0, 0].logprobs != compiled[0, 0].logprobs  # they were in use


@wants_compiler
def test_weights_that_are_not_numbers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load(TINY)
    with torch.no_grad():
        dict(policy.model.named_parameters())["layers.0.qkv.weight"][0, 0] = float("nan")
    for found in completions(policy.model, "cc", monkeypatch).values():
        assert any(logprob != logprob for logprob in found.logprobs)


@wants_compiler
def test_only_decoding_uses_them_and_nothing_is_left_after_an_error() -> None:
    model = Transformer(config())
    with pytest.raises(RuntimeError, match="stopped"), compiled_steps(model):
        raise RuntimeError("stopped" if all(block.fast is not None for block in model.layers) else "not in use")
    assert all(block.fast is None for block in model.layers)


@wants_compiler
def test_denormal_numbers_are_still_there() -> None:
    assert native.kernels(config(), CPU, torch.float32) is not None
    assert float(torch.tensor(1e-40) * 1.0) > 0  # a library linked with -ffast-math sets the process to flush them


@pytest.mark.parametrize("compiler", ["", "no-such-compiler", "false", "true"])
def test_without_a_working_compiler_pytorchs_are_used(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    assert native.kernels(config(), CPU, torch.float32) is None
    told = tried.outcomes()
    assert list(told.values()) == ([f"left out: '{compiler}' is not a C compiler that works here"] if compiler else [])


@wants_compiler
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("sum += q[n", "sum -= q[n"), ("+ get(a[i]) * get(sin[i])", "+ get(a[i])"), ("x[i]) * scale", "x[i])")],
)
def test_a_miscompiled_kernel_is_not_used_and_said_so(
    right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = native.SOURCE.read_text()
    assert right in source
    (tmp_path / "native.c").write_text(source.replace(right, wrong))
    monkeypatch.setattr(native, "SOURCE", tmp_path / "native.c")
    assert native.kernels(config(), CPU, torch.float32) is None
    assert native.kernels(config(), CPU, torch.float32) is None  # and said once
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("r1v0: compiled decoding steps (float32): left out, PyTorch's plain operation runs instead")
    assert re.search(r"wrong by [\d.]+e[+-]\d+ of the largest", line)
    assert tried.outcomes()["compiled decoding steps (float32)"].startswith("left out: its numbers are wrong by")


def test_other_numbers_and_devices_have_none() -> None:
    assert native.kernels(config(), CPU, torch.float16) is None
    assert native.kernels(config(), torch.device("cuda"), torch.float32) is None


def attended(kernels: native.Kernels, threads: int) -> tuple[Tensor, Tensor]:
    """Attention of 40 rows of very different lengths, and the keys stored meanwhile."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, prompts, values, slots, stored = (
        torch.randn(shape, generator=generator)
        for shape in ((40, 4, 16), (40, 2, 16), (40, 2, 16), *[(3, 2, 50, 16)] * 2, *[(40, 2, 60, 16)] * 2)
    )
    owners, starts = torch.arange(40) % 3, torch.tensor([50, 1, 20]).repeat(14)[:40]
    own = torch.randint(0, 60, (40,), generator=generator)
    scratch = torch.empty(threads, kernels.queries * 110)
    return kernels.attend(q, k, v, (prompts, values), owners, starts, (slots, stored), own, scratch), slots


@wants_compiler
def test_threads_share_the_rows_and_change_no_bit() -> None:
    kernels = native.kernels(config(), CPU, torch.float32)
    assert kernels is not None
    alone, slots = attended(kernels, 1)
    for _ in range(20):
        found, also = attended(kernels, 4)
        assert torch.equal(found, alone)
        assert torch.equal(also, slots)


@wants_compiler
def test_only_long_attention_is_shared_out() -> None:
    kernels = native.kernels(config(), CPU, torch.float32)
    assert kernels is not None
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert kernels.threads(10) == 1
        assert kernels.threads(native.SHORTEST) == 3
    finally:
        torch.set_num_threads(before)


@wants_compiler
def test_a_compiler_without_openmp_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *fopenmp*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    kernels = native.kernels(config(), CPU, torch.float32)
    assert kernels is not None
    assert torch.equal(attended(kernels, 4)[0], attended(kernels, 1)[0])

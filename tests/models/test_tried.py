"""Fast operators that raise, or return something else, wherever they stand: left out, told once, and the run goes
on."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1v0.models import attention, ops, tried
from r1v0.models.attention import packed
from r1v0.models.kernels import block_attention, native
from r1v0.models.tried import difference, is_left_out, outcomes, works
from r1v0.sampling import pages, slots
from r1v0.sampling.engine import CHECK_EVERY, Engine
from r1v0.sampling.graphs import NAME, Buckets
from r1v0.sampling.sampler import generate
from r1v0.trainer.policies import try_operators
from tests.helpers import small_model, small_policy
from tests.models.test_attention import PARENTS, assert_as_by_formula, cu_seqlens
from tests.sampling.test_sampler import requests, settings

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "_works", {})
    monkeypatch.setattr(tried, "_outcomes", {})


def raises(*arguments: object, **named: object) -> Any:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


def wrong_by(share: float) -> Callable[..., Any]:
    one = torch.tensor([1.0, -4.0])
    return lambda: [(one + 4.0 * share, one)]


def test_a_trial_is_made_once_per_name_and_case() -> None:
    calls: list[int] = []

    def trial() -> list[tuple[Tensor, Tensor]]:
        calls.append(1)
        return [(torch.ones(3), torch.ones(3))]

    assert all(works("x", case, trial) for case in (1, 1, 2, 1))
    assert len(calls) == 2
    assert outcomes() == {"x": "used"}


def test_what_is_rounding_and_what_is_wrong() -> None:
    """Of the largest number, 4: in float32 a hundred-thousandth is rounding, in bfloat16 2 %."""
    assert works("a", 0, wrong_by(0.5e-5))
    assert not works("b", 0, wrong_by(2e-5))
    half = torch.tensor([4.0, 0.25]).bfloat16()
    assert works("c", 0, lambda: [(half, half.float() * 1.015)])
    assert not works("d", 0, lambda: [(half, half.float() * 1.03)])
    assert outcomes()["b"] == "left out: its numbers are wrong by 2.0e-05 of the largest, and 1e-05 is rounding"


@pytest.mark.parametrize(
    ("fast", "plain", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([float("nan"), 2.0], [float("nan"), 2.0], 0.0),
        ([float("inf"), 2.0], [float("inf"), 4.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([float("nan")] * 2, [float("nan")] * 2, 0.0),
    ],
)
def test_differences_by_hand(fast: list[float], plain: list[float], expected: float) -> None:
    assert difference(torch.tensor(fast), torch.tensor(plain)) == pytest.approx(expected)


@pytest.mark.parametrize("fast", [[float("nan"), 2.0], [float("inf"), 2.0]])
def test_what_is_not_finite_on_one_side_is_wrong(fast: list[float]) -> None:
    assert not works("x", 0, lambda: [(torch.tensor(fast), torch.tensor([1.0, 2.0]))])
    assert not works("y", 0, lambda: [(torch.tensor([1.0, 2.0]), torch.tensor(fast))])


def test_one_line_even_for_an_error_of_several_and_for_several_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert not works("x", 1, raises)
    assert not works("x", 2, raises)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "r1v0: x: left out, PyTorch's plain operation runs instead (slower, same results): "
        "RuntimeError: no kernel image is available for execution on the device"
    )
    assert works("x", 3, list)
    assert outcomes() == {"x": "left out: RuntimeError: no kernel image is available for execution on the device"}


@pytest.mark.parametrize("fault", ["raises", "is wrong"])
def test_without_block_attention_training_has_the_same_gradients(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = block_attention.BlockAttention.apply
    wrong = raises if fault == "raises" else lambda *given: 2 * apply(*given)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(attention, "BlockAttention", SimpleNamespace(apply=wrong))
    assert_as_by_formula(packed(cu_seqlens(), torch.tensor(PARENTS)))
    assert outcomes()["block attention (float32)"].startswith("left out: ")


def test_a_block_attention_with_a_wrong_gradient_alone_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = block_attention.BlockAttention.backward

    def halved(ctx: Any, grad: Tensor) -> Any:
        dq, dk, dv, _ = backward(ctx, grad)
        return dq, dk / 2, dv, None

    monkeypatch.setattr(block_attention.BlockAttention, "backward", staticmethod(halved))
    assert_as_by_formula(packed(cu_seqlens(), torch.tensor(PARENTS)))
    assert outcomes()["block attention (float32)"].startswith("left out: its numbers are wrong")


@pytest.mark.parametrize("shared", [True, False])
def test_without_the_variable_length_kernel_attention_is_the_same(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_varlen_for", lambda q: raises)
    if shared:
        assert_as_by_formula(packed(cu_seqlens(), torch.tensor(PARENTS)))
    else:
        monkeypatch.setattr("tests.models.test_attention.PARENTS", [-1] * len(PARENTS))
        assert_as_by_formula(packed(cu_seqlens()))
    assert outcomes()["variable-length attention (float32)"].startswith("left out: RuntimeError")


@pytest.mark.parametrize("fault", ["raises", "is wrong"])
def test_without_the_fused_attention_sampling_is_the_same(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "")  # no compiled steps, which have an attention of their own
    model, asked, chosen = small_model(), requests(4), settings(6, limit=20)
    expected = {place[:2]: place[2] for place in generate(model, asked, chosen)}
    assert outcomes()["fused attention on a CPU (float32)"] == "used"
    monkeypatch.setattr(tried, "_works", {})
    fused = slots._fused_part
    wrong = raises if fault == "raises" else lambda *given: [x * 1.01 for x in fused(*given)]
    monkeypatch.setattr(slots, "_fused_part", wrong)
    found = {place[:2]: place[2] for place in generate(model, asked, chosen)}
    assert outcomes()["fused attention on a CPU (float32)"].startswith("left out")
    for place, completion in expected.items():
        assert found[place].token_ids == completion.token_ids
        assert found[place].logprobs == pytest.approx(completion.logprobs, abs=1e-5)


def test_everything_a_run_uses_is_tried_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "")
    policy = small_policy()
    try_operators(policy, policy)
    assert outcomes() == {"block attention (float32)": "used", "fused attention on a CPU (float32)": "used"}
    assert all(parameter.grad is None for parameter in policy.model.parameters())


# On a GPU: the model says that it is there, and what would run there is replaced.


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("r1v0.sampling.engine.has_triton", lambda: True)
    monkeypatch.setattr(ops, "has_triton", lambda: True)
    gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    return SimpleNamespace(norm=gpu, config=small_model().config)


def test_a_gpu_whose_paged_kernels_fail_has_slots_and_eager_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_a_gpu(monkeypatch)
    monkeypatch.setattr(pages, "_trial", lambda *given: wrong_by(0.1)())
    assert Engine.of(model) == Engine(paged=False, check_every=1, graphs=False)
    assert outcomes()["Triton's paged attention"].startswith("left out: its numbers are wrong by 1.0e-01")
    monkeypatch.setattr(tried, "_works", {})
    monkeypatch.setattr(pages, "_trial", lambda *given: wrong_by(0)())
    assert Engine.of(model) == Engine(paged=True, check_every=CHECK_EVERY, graphs=True)


def test_a_gpu_whose_layer_kernels_fail_has_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_a_gpu(monkeypatch)
    given = model.config, model.norm.device, model.norm.dtype
    monkeypatch.setattr(ops, "_triton_trial", raises)
    assert ops.fast_steps(*given) is None
    monkeypatch.setattr(tried, "_works", {})
    monkeypatch.setattr(ops, "_triton_trial", lambda *given: wrong_by(0)())
    found = ops.fast_steps(*given)
    assert found is not None
    assert [step.__module__ for step in found] == ["r1v0.models.ops"] + ["r1v0.models.kernels.triton_layers"] * 2


def buckets_on_a_gpu(fault: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Buckets, Tensor]:
    """`Buckets` of a step that draws token + 1 + position, with the logprob -token, for six rows alive and two dead
    ones. What it needs of torch.cuda is replaced: capturing changes nothing, and replaying does what the step does."""
    state, results = torch.zeros(5, 8, dtype=torch.int64), list[Tensor]()
    state[0], state[4, :6] = torch.arange(8), 1

    def step(rows: int) -> Tensor:
        results.append(-state[0, :rows].float())
        state[0, :rows] += 1 + state[3, :rows]
        state[3, :rows] += state[4, :rows]
        return results[-1]

    class Graph:
        def __init__(self) -> None:
            self.result = torch.zeros(0)

        def replay(self) -> None:
            if fault == "raises":
                raise RuntimeError("CUDA error: invalid argument")
            if fault != "does nothing":
                self.result.copy_(step(8) - 0.5 * (fault == "is wrong"))

    @contextlib.contextmanager
    def capturing(graph: Graph, **named: object) -> Iterator[None]:
        if fault == "cannot be captured":
            raise RuntimeError("operation not permitted when stream is capturing")
        before = state.clone()
        yield
        state.copy_(before)
        graph.result = results[-1]

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "CUDAGraph": Graph,
        "graph": capturing,
        "graph_pool_handle": lambda: None,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda stream: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value, raising=False)
    return Buckets(step, state, capture=True), state


@pytest.mark.parametrize("fault", ["", "cannot be captured", "raises", "does nothing", "is wrong"])
def test_a_graph_that_fails_changes_no_step_and_is_not_tried_again(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buckets, state = buckets_on_a_gpu(fault, monkeypatch)
    assert buckets(8).tolist() == [0, -1, -2, -3, -4, -5, -6, -7]
    assert state[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert state[3].tolist() == [1] * 6 + [0] * 2
    assert (buckets.capture, len(buckets.graphs)) == ((False, 0) if fault else (True, 1))
    assert outcomes()["CUDA graphs"].startswith("left out: " if fault else "used")
    assert is_left_out(NAME) == bool(fault)  # what the next deck asks
    assert buckets(8).tolist() == [-1, -2, -3, -4, -5, -6, -7, -8]
    assert state[0].tolist() == [3, 4, 5, 6, 7, 8, 8, 9]


def test_a_run_records_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from r1v0.cli import main

    monkeypatch.setattr(native, "_trial", raises)
    sets = ["steps=1", "eval.on=[]", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "threads=1"]
    command = ["train", "--out", str(tmp_path / "run"), *(part for item in sets for part in ("--set", item))]
    assert main(command) == 0
    found = json.loads((tmp_path / "run" / "env.json").read_text())["operators"]
    assert found["block attention (float32)"] == "used"
    assert found["compiled decoding steps (float32)"].startswith("left out: RuntimeError: no kernel image")
    assert found["fused attention on a CPU (float32)"] == "used"

"""The sections of gpu.py that ask whether the GPU computes the right thing."""

import random
from dataclasses import replace

import torch
from benchmarks.gpu_tools import (
    Bench,
    Row,
    Samples,
    at_least,
    at_most,
    batch_of,
    cast,
    groups_of,
    random_model,
    random_requests,
    relative,
    sample,
    tiny,
)
from torch import Tensor

from r1v0.config import GrpoConfig
from r1v0.grpo.batch import split
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import k3, policy_loss
from r1v0.models.attention import packed
from r1v0.models.transformer import Transformer
from r1v0.sampling.engine import Engine
from r1v0.sampling.pages import plain_attention
from r1v0.sampling.sampler import Request, SamplingSettings

BFLOAT16_ERROR = 1e-2  # relative: operands are rounded by up to 4e-3


def kernels(bench: Bench, rows: list[Row]) -> None:
    """The decoding kernels against attention in float64, on ragged lengths, with NaN wherever nobody may look."""
    rng = random.Random(1)
    # kv_heads, group, head_dim, page, splits
    shapes = [
        (2, 6, 128, 64, 5),
        (2, 7, 64, 64, 1),
        (1, 4, 32, 16, 9),
        (8, 4, 128, 64, 3),
        (3, 1, 80, 32, 4),
        (1, 16, 96, 64, 32),
    ]
    for dtype, most in ((torch.float32, 1e-5), (torch.bfloat16, BFLOAT16_ERROR)):
        worst = 0.0
        for kv_heads, group, dim, page, splits in shapes[: 2 if bench.dry else None]:
            lengths = [1, page, page + 1, *(rng.randrange(1, 40 if bench.dry else 3000) for _ in range(9))]
            keys, values, table = _pool(lengths, page, kv_heads, dim, bench.device, dtype)
            q = torch.randn(len(lengths), (group + 1) * kv_heads, dim, device=bench.device, dtype=dtype)[
                :, : group * kv_heads
            ]
            reach = torch.tensor(lengths, dtype=torch.int32, device=bench.device)
            if bench.dry:
                out = plain_attention(q, keys.nan_to_num(), values.nan_to_num(), table, reach)
            else:
                from r1v0.models.kernels import triton_decode

                out = triton_decode.attention(q, keys, values, table, reach, splits)
            expected = plain_attention(
                q.double(), keys.double().nan_to_num(), values.double().nan_to_num(), table, reach
            )
            worst = max(worst, relative(out, expected))
        at_most(rows, f"attention over pages, worst relative error, {_name(dtype)}", worst, "", most)
    if not bench.dry:
        _store(bench, rows)


def _pool(
    lengths: list[int], page: int, kv_heads: int, dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Random keys and values in shuffled pages; every cell that is nobody's is NaN."""
    held = [-(-length // page) for length in lengths]
    order = (torch.randperm(sum(held)) + 1).int()
    table = torch.zeros(len(lengths), max(held), dtype=torch.int32)
    pool = torch.randn(2, 1 + sum(held), page, kv_heads, dim, dtype=torch.float32, device=device).to(dtype)
    pool[:, 0] = float("nan")
    for row, (length, count) in enumerate(zip(lengths, held, strict=True)):
        table[row, :count], order = order[:count], order[count:]
        pool[:, int(table[row, count - 1]), length - (count - 1) * page :] = float("nan")
    return pool[0].contiguous(), pool[1].contiguous(), table.to(device)


def _store(bench: Bench, rows: list[Row]) -> None:
    from r1v0.models.kernels import triton_decode

    keys, values = torch.zeros(2, 9, 64, 2, 128, device=bench.device, dtype=torch.bfloat16)
    k, v = torch.randn(2, 50, 4, 128, device=bench.device, dtype=torch.bfloat16)[:, :, 1:3]
    cells = torch.randperm(9 * 64, device=bench.device)[:50]
    triton_decode.store(k, v, keys, values, cells)
    right = torch.equal(keys.flatten(0, 1)[cells], k) and torch.equal(values.flatten(0, 1)[cells], v)
    written = int((keys.flatten(0, 1) != 0).flatten(1).any(1).sum())
    rows.append(Row("cells written by store", written, "", "50, each the right one", right and written == 50))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def logits(bench: Bench, rows: list[Row]) -> None:
    """The same forward pass on the CPU in float32 and on the GPU."""
    config = bench.middle
    reference = random_model(config, torch.device("cpu"), scale=2.0)
    token_ids = torch.randint(0, config.vocab, (300,), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(200), torch.arange(100)])
    attend = packed(torch.tensor([0, 200, 300]))
    with torch.no_grad():
        expected = reference.head(reference(token_ids, positions, attend))
        for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
            model = cast(random_model(config, torch.device("cpu"), scale=2.0).to(bench.device), dtype)
            found = model.head(
                model(token_ids.to(bench.device), positions.to(bench.device), packed(torch.tensor([0, 200, 300])))
            )
            at_most(
                rows,
                f"logits, relative error to the CPU's float32, {_name(dtype)}",
                relative(found, expected),
                "",
                most,
            )


def sampling(bench: Bench, rows: list[Row]) -> None:
    """Every engine draws the same completions; their logprobs are those of a full forward pass."""
    for name, dtype, logprob_error, mismatch, same in (
        ("float32", torch.float32, 1e-3, 1e-6, 0.99),
        ("bfloat16", torch.bfloat16, 1.0, 1e-3, 0.0),  # a rounding may decide a draw: how many differ is only reported
    ):
        policy = tiny(bench.device)
        for label, model, vocab in (
            ("embedded model", cast(policy.model, dtype), policy.model.config.vocab),
            ("random model", random_model(bench.middle, bench.device, dtype, scale=2.0), bench.middle.vocab),
        ):
            asked = random_requests(vocab, 2 if bench.dry else 24, 2 if bench.dry else 8, 9 if bench.dry else 100)
            limit = 6 if bench.dry else 300
            chosen = SamplingSettings(1.0, limit, 3 if bench.dry else 128, frozenset(range(max(2, vocab // 200))))
            what = f"{label}, {name}"
            drawn = _engines(rows, model, asked, chosen, what, same)
            _against_full_forward(bench, rows, model, asked, drawn, what, logprob_error, mismatch)


def _engines(
    rows: list[Row],
    model: Transformer,
    asked: list[Request],
    chosen: SamplingSettings,
    what: str,
    same: float,
) -> Samples:
    longest = max(len(request.token_ids) for request in asked) + chosen.max_new_tokens
    base = Engine(paged=True, check_every=8, graphs=True, pages=len(asked) * 8 * (longest // 64 + 1), page_size=64)
    expected = sample(model, asked, chosen, base)
    eager = sample(model, asked, chosen, replace(base, capture=False))
    tight = replace(base, pages=max(-(-longest // 16), 20 * (longest // 16) // 3), page_size=16)
    share = _alike(expected, eager)
    at_least(rows, f"{what}: completions alike, graphs and eager steps", share, "", max(same, 0.99))
    for label, engine in (
        ("a look every step", replace(base, check_every=1, graphs=False)),
        ("a pool so small that rows are preempted", tight),
        ("slots instead of pages", Engine(paged=False, check_every=1, graphs=False)),
    ):
        share = _alike(expected, sample(model, asked, chosen, engine))
        at_least(rows, f"{what}: completions alike, {label}", share, "", same)
    return expected


def _alike(a: Samples, b: Samples) -> float:
    return sum(a[place].token_ids == b[place].token_ids for place in a) / len(a)


@torch.no_grad()
def _against_full_forward(
    bench: Bench,
    rows: list[Row],
    model: Transformer,
    asked: list[Request],
    drawn: Samples,
    what: str,
    error: float,
    mismatch: float,
) -> None:
    worst, total, tokens = 0.0, 0.0, 0
    for micro in split(batch_of(groups_of(asked, drawn)), 16_384, bench.device):
        scored = micro.weights != 0
        difference = (token_logprobs(model, micro, 1.0).logprobs - micro.sample_logprobs)[scored]
        worst = max(worst, float(difference.abs().max()))
        total, tokens = total + float(k3(difference).sum()), tokens + int(scored.sum())
    at_most(rows, f"{what}: largest difference of a sampled logprob to a full forward pass", worst, "nats", error)
    at_most(rows, f"{what}: KL of sampler and trainer", total / tokens, "nats per token", mismatch)


def gradients(bench: Bench, rows: list[Row]) -> None:
    """The gradient of one update, on the CPU in float32 and on the GPU, with and without recomputed activations."""
    config = bench.middle
    model = random_model(config, torch.device("cpu"), scale=1.5)
    asked = random_requests(config.vocab, 2, 4, 20)
    drawn = sample(model, asked, SamplingSettings(1.0, 24, 8, frozenset()), None)
    batch = batch_of(groups_of(asked, drawn))

    def gradient(dtype: torch.dtype, device: torch.device, recompute: bool) -> Tensor:
        copy = cast(random_model(config, torch.device("cpu"), scale=1.5).to(device), dtype)
        copy.checkpoint_activations = recompute
        for micro in split(batch, 10_000, device):
            policy_loss(token_logprobs(copy, micro, 1.0).logprobs, micro, GrpoConfig())[0].backward()
        return torch.cat([p.grad.float().cpu().flatten() for p in copy.parameters() if p.grad is not None])

    expected = gradient(torch.float32, torch.device("cpu"), False)
    for dtype, most in ((torch.float32, 1e-3), (torch.bfloat16, 1e-1)):
        for recompute in (False, True):
            found = gradient(dtype, bench.device, recompute)
            label = (
                "gradient, relative error to the CPU's, "
                f"{_name(dtype)}{', activations recomputed' if recompute else ''}"
            )
            at_most(rows, label, relative(found, expected), "", most)

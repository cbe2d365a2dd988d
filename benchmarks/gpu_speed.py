"""The sections of gpu.py that time things and hold them against the card's ceilings."""

import platform
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from benchmarks.gpu_tools import (
    Bench,
    Row,
    at_least,
    at_most,
    batch_of,
    groups_of,
    milliseconds,
    random_model,
    random_requests,
    sample,
)

from r1v0.config import GrpoConfig, OptimizerConfig, resolve
from r1v0.grpo.batch import split
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.losses import policy_loss
from r1v0.grpo.optimizer import make_optimizer
from r1v0.grpo.step import Learner, StepInProgress, train_step
from r1v0.models.memory import free_memory, workspace_bytes
from r1v0.models.shape import ModelConfig
from r1v0.models.sizes import GIB, kv_bytes
from r1v0.models.transformer import Transformer
from r1v0.sampling.draw import draw, uniform
from r1v0.sampling.engine import Engine, close_deck, open_deck
from r1v0.sampling.pages import PAGE_SIZE, PagedCache
from r1v0.sampling.sampler import LIVE, POSITION, SamplingSettings, _step
from r1v0.types import Completion

CARD_GB = 40  # the card of the original


def machine(bench: Bench, rows: list[Row]) -> None:
    """What it is, and its two ceilings: a copy counts bytes read and written; matrices are random: zeros run faster."""
    rows.append(Row("python, torch", f"{platform.python_version()}, {torch.__version__}"))
    if not bench.dry:
        import triton

        found = torch.cuda.get_device_properties(bench.device)
        rows.append(Row("card", found.name, "", f"compute capability {found.major}.{found.minor}"))
        rows.append(Row("memory", found.total_memory / GIB, "GiB"))
        rows.append(Row("multiprocessors", found.multi_processor_count))
        rows.append(Row("triton, CUDA", f"{triton.__version__}, {torch.version.cuda}"))
    bench.copy = _copy_bandwidth(bench)
    rows.append(Row("copy bandwidth", bench.copy / 1e12, "TB/s"))
    side = 128 if bench.dry else 8192
    a, b = torch.randn(2, side, side, device=bench.device, dtype=torch.bfloat16)
    bench.matmul = 2 * side**3 / (milliseconds(bench, lambda: a @ b) / 1e3)
    rows.append(Row("matrix product, bfloat16", bench.matmul / 1e12, "TFLOP/s"))


def _copy_bandwidth(bench: Bench) -> float:
    size = 1 << (20 if bench.dry else 32)
    source = torch.empty(size // 2, dtype=torch.bfloat16, device=bench.device).normal_()
    target = torch.empty_like(source)
    return 2 * size / (milliseconds(bench, lambda: target.copy_(source)) / 1e3)


def decode(bench: Bench, rows: list[Row]) -> None:
    """Tokens a second of Qwen2.5-1.5B's shape against the bytes that a step must read: weights, keys and values."""
    config = bench.qwen
    dtype = torch.float32 if bench.dry else torch.bfloat16
    model = random_model(config, bench.device, dtype)
    weights = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    contexts, batches = ((20,), (3,)) if bench.dry else ((1024, 4096, 8192), (8, 64, 128, 256))
    for context in contexts:
        for batch in batches:
            pages = batch * -(-(context + 200) // PAGE_SIZE)
            size = pages * PAGE_SIZE * kv_bytes(config, dtype.itemsize)
            if not bench.dry and size > free_memory(bench.device) - workspace_bytes(config, batch, dtype) // 2:
                rows.append(Row(f"decode, {batch} rows, context {context}", f"{size / GIB:.1f} GiB of pages: no room"))
                continue
            took = decode_ms(bench, model, batch, context, pages, graphs=True)
            floor = (weights + batch * context * kv_bytes(config, dtype.itemsize)) / bench.copy * 1e3
            what = f"decode, {batch} rows, context {context}"
            rows.append(Row(what, batch / took * 1e3, "tokens/s", f"{took:.2f} ms a step, floor {floor:.2f}"))
            wanted = 0.6 if (batch, context) == (64, 4096) else 0.0
            at_least(rows, f"{what}: share of the bandwidth roofline", floor / took, "", wanted)
            if (batch, context) in ((64, 4096), (3, 20)):
                eager = decode_ms(bench, model, batch, context, pages, graphs=False)
                rows.append(Row(f"{what}: eager steps", eager, "ms a step"))
                _parts(bench, rows, model, batch, context)


def _deck_of(
    model: Transformer, batch: int, context: int, pages: int, graphs: bool
) -> tuple[Callable[[], object], Callable[[], None]]:
    """A step of `batch` live rows that all stand at `context`, their pages scattered over the pool; and its end."""
    engine = Engine(paged=True, check_every=8, graphs=graphs, pages=pages)
    deck = open_deck(model, engine, batch, batch, context, 150)
    cache = deck.cache
    assert isinstance(cache, PagedCache)
    cache.pool.normal_()
    np.random.default_rng(0).shuffle(cache._free)
    assert cache.extend(np.full(batch, context + 150))
    with torch.inference_mode():
        deck.state[POSITION] = context
        deck.state[LIVE] = 1
        deck.state[0].random_(0, model.config.vocab)
        deck.state[2].random_()
    step = deck.decoder(_step, model, 1.0)

    def run() -> None:
        with torch.inference_mode():
            step(batch)

    def end() -> None:
        cache.free(list(range(batch)))
        close_deck(deck, model)

    return run, end


def decode_ms(bench: Bench, model: Transformer, batch: int, context: int, pages: int, graphs: bool) -> float:
    """Median milliseconds of a step."""
    run, end = _deck_of(model, batch, context, pages, graphs)
    try:
        return milliseconds(bench, run, repeats=50, warm=5)
    finally:
        end()


@torch.inference_mode()
def _parts(bench: Bench, rows: list[Row], model: Transformer, batch: int, context: int) -> None:
    """Where a step's time goes: attention of all layers, head, draw; and how many kernels it launches."""
    config, device, dtype = model.config, bench.device, model.norm.dtype
    cache = PagedCache(config, batch, context + 64, batch * -(-(context + 64) // PAGE_SIZE), device, dtype)
    cache.pool.normal_()
    np.random.default_rng(0).shuffle(cache._free)
    cache.extend(np.full(batch, context + 1))
    q = torch.randn(batch, config.heads, config.head_dim, device=device, dtype=dtype)
    kv = torch.randn(batch, config.kv_heads, config.head_dim, device=device, dtype=dtype)
    attend = cache.decode(torch.full((batch,), context, device=device))
    took = milliseconds(bench, lambda: [attend(layer, q, kv, kv) for layer in range(config.layers)])
    moved = batch * context * kv_bytes(config, dtype.itemsize)
    rows.append(Row("attention of all layers, eager", took, "ms", f"{moved / bench.copy * 1e3:.2f} at copy bandwidth"))
    hidden = torch.randn(batch, config.hidden, device=device, dtype=dtype)
    rows.append(Row("head", milliseconds(bench, lambda: model.head(hidden)), "ms"))
    scores, u = (
        model.head(hidden).float(),
        uniform(torch.arange(batch, device=device), torch.zeros(batch, device=device).long()),
    )
    rows.append(Row("draw", milliseconds(bench, lambda: draw(scores, u)), "ms"))
    if not bench.dry:
        run, end = _deck_of(model, batch, 64, batch * 4, graphs=False)
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            run()
            torch.cuda.synchronize()
        count = sum(event.count for event in profile.key_averages())
        rows.append(Row("events on the device in an eager step", count, "", "about 420 kernels"))
        end()


def training(bench: Bench, rows: list[Row]) -> None:
    """Tokens a second and model FLOPs utilisation of one packed micro-batch of 16k tokens, forward and backward."""
    config, tokens = bench.qwen, 200 if bench.dry else 16_384
    dtype = torch.float32 if bench.dry else torch.bfloat16
    model = random_model(config, bench.device)
    optimizer = make_optimizer(model, OptimizerConfig(lr=1e-6), dtype)
    rng = random.Random(0)
    asked = random_requests(config.vocab, 1 if bench.dry else 8, 2 if bench.dry else 4, 100)
    lengths = {(i, s): rng.lognormvariate(0, 0.6) for i, r in enumerate(asked) for s in range(len(r.keys))}
    room = tokens - sum(len(request.token_ids) for request in asked)
    share = room / sum(lengths.values())
    drawn = {}
    for place, length in lengths.items():
        ids = [rng.randrange(2, config.vocab) for _ in range(max(2, int(length * share)))]
        drawn[place] = Completion(ids, [-1.0] * len(ids), "stop")
    batch = batch_of(groups_of(asked, drawn))
    (micro,) = split(batch, tokens + 1, bench.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seen = sum((len(asked[i].token_ids) + len(c.token_ids)) ** 2 for (i, _), c in drawn.items())
    flops = 6 * parameters * len(micro.token_ids) + 3 * 2 * config.layers * config.heads * config.head_dim * seen

    def step() -> None:
        policy_loss(token_logprobs(model, micro, 1.0).logprobs, micro, GrpoConfig())[0].backward()

    for recompute in (True,) if not bench.dry else (True, False):
        model.checkpoint_activations = recompute
        optimizer.zero_grad()
        took = milliseconds(bench, step, repeats=3, warm=1) / 1e3
        what = f"training, {len(micro.token_ids)} packed tokens{', activations recomputed' if recompute else ''}"
        rows.append(Row(what, len(micro.token_ids) / took, "tokens/s"))
        share, wanted = flops / took / bench.matmul, 0.0 if bench.dry else 0.4
        at_least(rows, f"{what}: model FLOPs, share of the measured matrix rate", share, "", wanted)
    start = time.perf_counter()
    optimizer.step(1e-6)
    if not bench.dry:
        torch.cuda.synchronize()
        rows.append(Row("peak memory", torch.cuda.max_memory_allocated() / GIB, "GiB"))
    rows.append(Row("optimizer update", time.perf_counter() - start, "s"))


def grpo_step(bench: Bench, rows: list[Row]) -> None:
    """A whole step, sampling and updates, with 8000 tokens allowed, in the memory of a 40 GB card.

    Random weights draw all words about alike, so that the words that end a completion set its mean length: about 1000.
    """
    total = 0 if bench.dry else torch.cuda.get_device_properties(bench.device).total_memory
    if not bench.dry:
        torch.cuda.set_per_process_memory_fraction(min(1.0, CARD_GB * 1e9 / total))
        torch.cuda.reset_peak_memory_stats()
    try:
        _grpo(bench, rows)
        if not bench.dry:
            peak = torch.cuda.max_memory_reserved() / 1e9
            at_most(rows, "peak memory of the step, reserved", peak, "GB", CARD_GB)
    finally:
        if not bench.dry:
            torch.cuda.set_per_process_memory_fraction(1.0)


def _grpo(bench: Bench, rows: list[Row]) -> None:
    config: ModelConfig = bench.qwen
    limit, prompts, group = (10, 2, 4) if bench.dry else (8000, 32, 8)
    sets = ["grpo.variant=dapo", "sampling.max_sequences=0", f"sampling.max_new_tokens={limit}", f"grpo.groups={prompts}",
            f"grpo.group_size={group}", "optimizer.lr=1e-6", "optimizer.micro_batch_tokens=16384",
            "compute.checkpoint_activations=true"]  # fmt: skip
    run = resolve(sets=sets)
    model = random_model(config, bench.device)
    model.checkpoint_activations = True
    optimizer = make_optimizer(model, run.optimizer, torch.float32 if bench.dry else torch.bfloat16)
    asked = random_requests(config.vocab, prompts, group, 10 if bench.dry else 500)
    ends = frozenset(range(max(1, config.vocab // 1000)))
    start = time.perf_counter()
    drawn = sample(model, asked, SamplingSettings(1.0, limit, 0, ends), None)
    sampled = time.perf_counter() - start
    tokens = sum(len(completion.token_ids) for completion in drawn.values())
    rows.append(Row("tokens sampled", tokens, "", f"longest {max(len(c.token_ids) for c in drawn.values())}"))
    rows.append(Row("sampling", tokens / sampled, "tokens/s", f"{sampled:.1f} s"))
    start = time.perf_counter()
    learner, step_ = Learner(model, optimizer, run), StepInProgress.of(groups_of(asked, drawn))
    train_step(learner, step_)
    metrics = learner.metrics(step_)
    trained = time.perf_counter() - start
    rows.append(Row("training", metrics["tokens/trained"] / trained, "tokens/s", f"{trained:.1f} s, updates and all"))
    rows.append(Row("whole step", sampled + trained, "s"))
    at_most(rows, "KL of sampler and trainer in that step", metrics["policy/mismatch_kl"], "nats per token", 1e-3)


def countdown(bench: Bench, rows: list[Row]) -> None:
    """The default run, end to end, through the command line."""
    from r1v0.cli import main
    from r1v0.runs.records import read_evals, read_metrics

    folder = bench.out / f"countdown-{time.strftime('%Y%m%d-%H%M%S')}"
    steps = 1 if bench.dry else 40
    sets = [f"steps={steps}", f"compute.device={'cpu' if bench.dry else 'cuda'}"]
    if bench.dry:
        sets += ["grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "eval.max_problems=2"]
    start = time.perf_counter()
    code = main(
        ["train", "--preset", "countdown", *[word for item in sets for word in ("--set", item)], "--out", str(folder)]
    )
    rows.append(Row("exit code", code or 0, "", "0", not code))
    rows.append(Row("seconds, start and evaluations included", time.perf_counter() - start, "s", f"{steps} steps"))
    metrics, evals = list(read_metrics(folder)), [row for row in read_evals(folder) if row["dataset"] == "countdown"]
    for name in ("time/sample_s", "time/train_s", "time/step_s"):
        took = float(np.median([row[name] for row in metrics]))
        rows += [Row(f"{name}, median", took, "s")]
    kl = max((row["policy/mismatch_kl"] for row in metrics if row["policy/mismatch_kl"] is not None), default=0.0)
    at_most(rows, "policy/mismatch_kl, largest", kl, "nats per token", 1e-3)
    first, last = evals[0]["accuracy"], evals[-1]["accuracy"]
    rows.append(Row("accuracy, first and last", f"{first:.3f} -> {last:.3f}", "", "rises", bench.dry or last > first))

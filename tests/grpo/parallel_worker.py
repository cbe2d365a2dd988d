"""What each of the processes of test_parallel.py does: `python -m torch.distributed.run ... parallel_worker.py OUT`."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from r1v0.base.errors import Interrupted, Told, UserError
from r1v0.config import resolve, to_toml
from r1v0.grpo import parallel
from r1v0.grpo.optimizer import make_optimizer
from r1v0.grpo.step import Learner, StepInProgress, add_gradient
from r1v0.models.processes import processes
from r1v0.models.transformer import Transformer
from r1v0.runs import runlog
from r1v0.runs.progress import Progress
from r1v0.trainer.loop import Trainer
from r1v0.trainer.same import need_same_start, need_same_weights
from r1v0.trainer.setup import prepare
from r1v0.types import Batch
from tests.helpers import random_groups, small_model

COMMON = ["steps=2", "grpo.groups=3", "sampling.max_new_tokens=32", "eval.on=[]", "threads=1"]
MATRIX = {
    "grpo": [],
    "refill": ["grpo.variant=dapo", "grpo.max_refills=2"],
    "updates": ["grpo.minibatches=3", "grpo.epochs=2"],
    "kl": ["grpo.kl_coef=0.05"],
    "lora": ["lora.rank=4"],
    "offload": ["optimizer.offload=true"],
    "gspo": ["grpo.variant=gspo"],
    "dense": ["grpo.sparse=false"],
    "random": ["reward.control=random"],
    "rounded": ["sampling.dtype=bfloat16"],
    "recomputed": ["compute.checkpoint_activations=true"],
    "8bit": ["optimizer.moments=8bit"],
    "shard": ["optimizer.shard=true"],
    "shard, updates": ["optimizer.shard=true", "grpo.minibatches=3", "optimizer.weight_decay=0.1"],
    "shard, bfloat16": ["optimizer.shard=true", "compute.dtype=bfloat16"],
    "one group of two": ["grpo.groups=1", "grpo.group_size=2"],
    "evaluation": ['eval.on=["countdown"]', "eval.max_problems=7", "eval.samples=2", "eval.every=1"],
}
LINES = 80
"""of an error's text that is kept"""


def settings(name: str) -> list[str]:
    """One case of the matrix; of a setting that is given twice the later one counts."""
    return [*COMMON, *MATRIX[name]]


def run(name: str, out: Path, *more: str) -> None:
    """Two steps of a run, as `r1v0 train` makes them."""
    config = resolve("countdown", sets=[*settings(name), *more])
    trainer = prepare(config)
    parallel.first(lambda: runlog.create(out, to_toml(config), {}) and None)
    trainer.run(runlog.RunLog(out), Progress())


def raised(work: Callable[[], Any]) -> list[str]:
    """What `each` raises here: its kind and its text."""
    try:
        parallel.each(work)
    except Exception as error:
        return [type(error).__name__, str(error)[:LINES]]
    return []


def by_rank(*errors: BaseException | None) -> Callable[[], None]:
    """Work that raises, in each process, its own of these."""

    def work() -> None:
        error = errors[parallel.rank()]
        if error is not None:
            raise error

    return work


def phases() -> dict[str, Any]:
    """The primitives, as this process sees them."""
    found: dict[str, Any] = {
        "each": parallel.each(lambda: {"rank": parallel.rank(), "half": 0.1}),
        "first": parallel.first(lambda: f"of {parallel.rank()}"),
        "together": parallel.together(lambda: parallel.rank()),
        "parts": parallel.each(lambda: list(parallel.part(7))),
        "wrong": raised(by_rank(None, UserError("give another path"), Interrupted())),
        "stop": raised(by_rank(None, None, Interrupted())),
        "broken": raised(by_rank(None, ValueError("what"), UserError("no"))),
        "empty": [len(data) for data in parallel.exchange(b"x" * 5 * parallel.rank())],
    }
    tensors = [torch.full((3,), float(parallel.rank() + 1)), torch.ones(2, 2, dtype=torch.bfloat16)]
    parallel.sum_over_processes(tensors)
    return found | {"sums": [tensor.flatten().tolist() for tensor in tensors]}


def gradients(micro_batch_tokens: int, groups: int) -> tuple[float, list[int]]:
    """The largest relative difference of a parameter's summed gradient from that of one process, and how many
    micro-batches each process had. The last process's budget is small: its micro-batches are many."""
    config = resolve(
        "countdown", sets=[f"optimizer.micro_batch_tokens={micro_batch_tokens}", "sampling.max_new_tokens=20"]
    )
    model = small_model()
    learner = Learner(model, make_optimizer(model, config.optimizer), config)
    if parallel.rank() == 2:
        learner.budget.tokens = 24
    (batch,) = learner.updates(StepInProgress.of(random_groups(3, count=groups, flat=0)))
    counts: list[int] = []

    def counted(learner: Learner, model: Transformer, micro: Batch) -> Any:
        counts.append(1)
        return add_gradient(learner, model, micro)

    learner.accumulate(batch, counted, lambda: None)
    summed = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parallel.sum_over_processes(summed)
    alone = small_model()
    whole = Learner(alone, make_optimizer(alone, config.optimizer), config)
    whole.budget.accumulate(batch, alone, whole.optimizer.zero_grad, lambda m, micro: add_gradient(whole, m, micro))
    worst = max(
        float((parameter.grad - found).abs().max() / parameter.grad.abs().max())
        for parameter, found in zip(alone.parameters(), summed, strict=True)
        if parameter.grad is not None
    )
    return worst, parallel.each(lambda: len(counts))


def faults() -> dict[str, Any]:
    """Faults in one process: NaN, out of memory, other weights, another config."""
    config = resolve("countdown", sets=COMMON)
    model = small_model()
    learner = Learner(model, make_optimizer(model, config.optimizer), config)
    (batch,) = learner.updates(StepInProgress.of(random_groups(5)))

    def not_a_number(learner: Learner, model: Transformer, micro: Batch) -> Any:
        readings = add_gradient(learner, model, micro)
        if parallel.rank() == 1:
            next(model.parameters()).grad.fill_(float("nan"))  # type: ignore[union-attr]
        return readings

    before = [parameter.detach().clone() for parameter in model.parameters()]
    skipped = learner.update(learner.accumulate(batch, not_a_number, lambda: None), 1e-3, True).skipped
    same = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    failed: list[int] = []

    def no_memory(learner: Learner, model: Transformer, micro: Batch) -> Any:
        readings = add_gradient(learner, model, micro)
        if parallel.rank() == 2 and not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("out of memory, made up, after the backward pass")
        return readings

    learner.accumulate(batch, no_memory, lambda: None)
    broken = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    parallel.sum_over_processes(broken)
    learner.accumulate(batch, add_gradient, lambda: None)
    whole = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parallel.sum_over_processes(whole)
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(broken, whole, strict=True))
    if parallel.rank() == 2:
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] += 1e-7
    texts: list[str] = []
    other = resolve("countdown", sets=[*COMMON, f"seed={parallel.rank() // 2}"])
    checks: list[Callable[[], None]] = [
        lambda: need_same_weights(model, "step-00001"),
        lambda: need_same_start(other, small_model()),
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            texts.append(str(error))
    return {"skipped": skipped, "same": same, "memory": worst, "told": texts}


def optimizer_bytes() -> float:
    """Bytes per weight of a bfloat16 model that this process's divided optimizer keeps between two steps."""
    model = small_model()
    held = make_optimizer(model, resolve("countdown", sets=["optimizer.shard=true"]).optimizer, torch.bfloat16)
    kept = [*held.masters.values(), *(t for state in held.adamw.state.values() for t in state.values() if t.dim())]
    count = sum(parameter.numel() for parameter in model.parameters())
    total: int = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    return total / count


def rolled_back(out: Path) -> list[Any]:
    """A run whose watchers sound: every process goes back to the same checkpoint."""
    config = resolve(
        "countdown",
        sets=[
            *COMMON,
            "steps=12",
            'eval.on=["countdown"]',
            "eval.max_problems=4",
            "eval.every=1",
            "checkpoints.every=1",
        ]
        + ["health.action=rollback", "optimizer.lr=0.05", "sampling.max_new_tokens=24"],
    )
    trainer: Trainer = prepare(config)
    parallel.first(lambda: runlog.create(out, to_toml(config), {}) and None)
    try:
        trainer.run(runlog.RunLog(out), Progress())
    except UserError as error:
        return [trainer.state.rollbacks, trainer.state.step, type(error).__name__ == "Unhealthy" or str(error)]
    return [trainer.state.rollbacks, trainer.state.step, True]


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with processes():
        found: dict[str, Any] = {"phases": phases(), "faults": faults()}
        found["optimizer"] = optimizer_bytes()
        found["gradients"] = [gradients(4096, 8), gradients(4096, 1)]
        for name in MATRIX:
            run(name, out / name.replace(" ", "-"))
        found["rollback"] = rolled_back(out / "rollback")
        (out / f"found-{parallel.rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    assert issubclass(Told, UserError)
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as r1v0/__main__.py, which says why

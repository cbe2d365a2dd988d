"""`r1v0 bench`: how fast this machine samples and trains a model.

Decides: a few minutes, results on the screen only; benchmarks/performance.py measures more, with the same
cases, beside transformers and TRL.
"""

import os
import sys
import time

import torch

from r1v0.jobs.bench import cases
from r1v0.jobs.bench.table import HEADS, cells, lines
from r1v0.jobs.bench.workload import Work, natural_work
from r1v0.report.table import text_table


def bench(model: str, rounds: int, threads: int, quick: bool) -> None:
    """Measure `model` and print a table of each case. Raises UserError for a model that is not there."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    work = natural_work(model, 2, 2, 8) if quick else natural_work(model)
    print(title(work), flush=True)
    for case, name in ((cases.sampling, "sampling"), (cases.whole_step, "a GRPO step, sampling to update")):
        rows: list[cases.Row] = []
        note(f"measuring {name} ...")
        start = time.perf_counter()
        case(work, 1 if quick else rounds, rows.append)
        table = text_table(HEADS[1:], [cells(line)[1:] for line in lines(rows)], left=1)
        settings = {line.setting for line in lines(rows)}
        if len(settings) > 1:
            table = text_table(HEADS, [cells(line) for line in lines(rows)])
        print(f"\n{name} ({time.perf_counter() - start:.0f} s)\n{table}", flush=True)


def title(work: Work) -> str:
    """What is measured on what."""
    size = sum(parameter.numel() for parameter in work.policy.model.parameters())
    return (
        f"{work.name}: {size:,} parameters, {len(work.prompts)} prompts x {work.group_size} completions of up to "
        f"{work.max_new_tokens} tokens, {torch.get_num_threads()} threads"
    )


def note(text: str) -> None:
    """Progress, out of the way of the results."""
    print(text, file=sys.stderr, flush=True)

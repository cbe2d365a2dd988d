"""How costs grow: with completion length, group size, rows decoded at a time, and tokens trained. Needs r1v0 alone.

lengths   seconds a sampled token for completions of 128 to 8000 tokens, 16 at a time groups    the same completions
as 64 groups of 1 to 1 group of 64, over prompts of 512 tokens rows      1 to 256 completions at a time memory
peak of sampling against the tokens in the cache, and of training against the tokens of a micro-batch, each in a
          process of its own
"""

import json
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from training_cases import made_up_groups

from r1v0.grpo.step import Learner, StepInProgress, train_step
from r1v0.jobs.bench import own
from r1v0.jobs.bench.cases import OWN, Record
from r1v0.jobs.bench.timing import Run, current_rss, interleaved
from r1v0.jobs.bench.workload import Work, random_work, requests
from r1v0.models.device import peak_rss
from r1v0.sampling.sampler import SamplingSettings, generate
from r1v0.types import Problem, Prompt

ROWS = 16


def sample(work: Work, slots: int) -> int:
    """Sample completions that all have the limit's length; the tokens sampled."""
    settings = SamplingSettings(1.0, work.max_new_tokens, slots, frozenset())
    return sum(len(c.token_ids) for _, _, c in generate(work.policy.model, requests(work), settings))


def shaped(work: Work, prompts: int, group_size: int, length: int, prompt_tokens: int = 64) -> Work:
    """Work of the same model: random prompts, completions that are all of the same length."""
    rng = random.Random(0)
    vocab = work.policy.model.config.vocab
    ids = [[rng.randrange(3, vocab) for _ in range(prompt_tokens)] for _ in range(prompts)]
    made = [Prompt(Problem(str(i), "", "", "bench"), "", tokens) for i, tokens in enumerate(ids)]
    return replace(work, prompts=made, lengths=[[length] * group_size] * prompts, max_new_tokens=length)


def lengths(work: Work, rounds: int, record: Record, wanted: tuple[int, ...]) -> None:
    """Lengths past 2000 are measured once: they take as long as all the others together."""
    for turns, chosen in ((rounds, [n for n in wanted if n <= 2000]), (1, [n for n in wanted if n > 2000])):
        jobs = {n: shaped(work, ROWS // 4, 4, n) for n in chosen}
        contenders: dict[str, Run] = {str(n): partial(sample, job, ROWS) for n, job in jobs.items()}
        _record_scaling("lengths", f"{ROWS} rows", contenders, turns, record)


def groups(work: Work, rounds: int, record: Record, count: int, prompt_tokens: int) -> None:
    """`count` completions of 64 tokens, as ever larger groups."""
    jobs = {n: shaped(work, count // n, n, 64, prompt_tokens) for n in (1, 4, 16, 64) if n <= count}
    contenders: dict[str, Run] = {str(n): partial(sample, job, count) for n, job in jobs.items()}
    _record_scaling("groups", f"{count} completions of 64, prompts of {prompt_tokens}", contenders, rounds, record)


def rows(work: Work, rounds: int, record: Record, wanted: tuple[int, ...], length: int) -> None:
    """Twice as many completions as rows, or eight."""
    jobs = {n: shaped(work, max(2, n // 4), 8 if n >= 8 else 4, length) for n in wanted}
    contenders: dict[str, Run] = {str(n): partial(sample, job, n) for n, job in jobs.items()}
    _record_scaling("rows", f"completions of {length}", contenders, rounds, record)


def _record_scaling(case: str, setting: str, contenders: dict[str, Run], rounds: int, record: Record) -> None:
    for row in interleaved(contenders, rounds, case=case, setting=setting):
        record({**row, "x": int(row["contender"]), "contender": OWN})


def memory(folder: Path, record: Record, sampling: tuple[int, ...], training: tuple[int, ...]) -> None:
    """Bytes at the peak above the loaded model."""
    for kind, sizes in (("sampling", sampling), ("training", training)):
        for size in sizes:
            done = subprocess.run(
                [sys.executable, __file__, str(folder), kind, str(size)],
                capture_output=True, text=True, check=True, timeout=600,
            )  # fmt: skip
            record(
                {"case": "memory", "setting": kind, "contender": OWN, "round": 0, "x": size, **json.loads(done.stdout)}
            )


def measure_memory(folder: Path, kind: str, size: int) -> dict[str, int]:
    """What one child measures: sampling 16 completions of `size` tokens, or training micro-batches of `size` tokens."""
    torch.set_num_threads(1)
    base = random_work(folder, 2, 2, 16)
    own.step(base, own.optimizer_of(base), 0.0)  # everything is loaded that ever will be
    before = current_rss()
    if kind == "sampling":
        tokens = sample(shaped(base, ROWS // 4, 4, size), ROWS)
    else:
        work = shaped(base, 4, max(4, size // 256), 256)
        settings = own.settings(work, f"optimizer.micro_batch_tokens={size}")
        train_step(
            Learner(work.policy.model, own.optimizer_of(work), settings), StepInProgress.of(made_up_groups(work, 0.0))
        )
        tokens = size
    return {"bytes": max(0, peak_rss() - before), "tokens": tokens}


if __name__ == "__main__":
    print(json.dumps(measure_memory(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))

"""The verifier's figures: results/verifier.md.

    python benchmarks/verifier.py [--shared FOLDER] [--pairs]     8 minutes on two busy cores; 20 with --pairs

FOLDER/data/math500_test.jsonl holds MATH-500 with the columns answer and solution (default: ../shared beside the
project). --pairs also compares every two different gold answers of MATH-500 (45,150 pairs) and lists those judged
equal.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r1v0.config import Config, RewardConfig
from r1v0.models.loading import Policy, load, resolve_model
from r1v0.rollouts.collect import sample_groups, sampling_settings
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.math import extract
from r1v0.tasks.math.symbolic import compare
from r1v0.tasks.prompts import make_prompts
from r1v0.types import Problem

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.verifier_load import HOSTILE, Killer, mixed  # noqa: E402

MATH = RewardConfig(name="math")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("R1V0_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "verifier.md")
    arguments = parser.parse_args()
    title = head()
    rows = [json.loads(line) for line in (arguments.shared / "data" / "math500_test.jsonl").read_text().splitlines()]
    sections = [own_answers(rows), throughput(rows), beside_sampling(), deadlines(), killed()]
    if arguments.pairs:
        sections.insert(1, pairs(rows))
    arguments.out.write_text("\n\n".join([title, *sections]) + "\n")
    print(arguments.out.read_text())


# Pairs of different gold answers that may be judged equal, read by hand: they differ in writing, or in what an answer
# may leave out (a unit, the degree or dollar sign, the base, the brackets of a pair, "x =").
ACCEPTED = [
    ("(-2,1)", "-2,1"),
    ("-2,1", "1,-2"),
    (r"10,\!080", "10080"),
    ("120", r"120^\circ"),
    ("15", r"15\mbox{ cm}^2"),
    (r"2 \sqrt{5}", r"2\sqrt{5}"),
    ("30", r"30^\circ"),
    ("36", r"36^\circ"),
    ("36", r"\$36"),
    ("40", "40_9"),
    ("5", "x=5"),
    ("90", r"90^\circ"),
    (r"\frac14", r"\frac{1}{4}"),
]


def head() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("math-verify", "sympy"))
    return f"""# The verifier, measured

`python benchmarks/verifier.py --pairs` on {os.cpu_count()} CPU cores, {versions}, Python {platform.python_version()}; load average
{os.getloadavg()[0]:.1f} before it began. Where that is well above 0, others used the cores, and throughputs are lower bounds."""


def own_answers(rows: list[dict[str, str]]) -> str:
    """MATH-500's gold answers against themselves and against their solutions, by symbolic comparison alone."""
    self_failed = [row["answer"] for row in rows if not compare(row["answer"], row["answer"]).equal]
    boxes = [(row["answer"], extract.boxed(row["solution"]) or "") for row in rows]
    solution_failed = [pair for pair in boxes if not compare(*pair).equal]
    with Verifier(MATH) as verifier:
        for job, row in enumerate(rows):
            verifier.submit(job, Problem(str(job), "", row["answer"], "math500"), row["solution"], True)
        scores = verifier.collect()
    return f"""## MATH-500's own answers

| comparison | equal | of |
| --- | --- | --- |
| each gold answer with itself, symbolic comparison alone (no strict match) | {500 - len(self_failed)} | 500 |
| each gold answer with its solution's boxed answer, symbolic comparison alone | {500 - len(solution_failed)} | 500 |
| each solution graded as a completion by the reward `math` | {sum(score.correct for score in scores.values())} | 500 |

Not equal: {self_failed + [pair[0] for pair in solution_failed] or "none"}."""


def pairs(rows: list[dict[str, str]]) -> str:
    """Every two different gold answers: which are judged equal?"""
    golds = sorted({row["answer"] for row in rows})
    both = list(itertools.combinations(golds, 2))
    equal = [pair for pair in both if compare(*pair).equal]
    table = "\n".join(f"| `{gold}` | `{other}` |" for gold, other in equal)
    wrong = [pair for pair in equal if pair not in ACCEPTED]
    return f"""## Different answers

Of the {len(both)} pairs of different gold answers, {len(equal)} are judged equal:

| gold | other |
| --- | --- |
{table}

Read by hand, they differ in writing or in what an answer may leave out: a unit, the degree or dollar sign, the base, the
brackets of a pair, `x =`. Wrongly equal: {wrong or "none"}."""


def throughput(rows: list[dict[str, str]]) -> str:
    """Answers a second, for what a policy writes: each gold answer with another one, rewritten so that no cache
    helps."""
    rng = random.Random(0)
    lines = []
    with Verifier(MATH) as verifier:
        started = time.perf_counter()
        verifier.submit(0, Problem("", "", "1/2", ""), "\\boxed{0.5}", True)
        verifier.collect()
        ready = time.perf_counter() - started
        for name, texts in {
            "MATH-500: gold or another gold answer, half and half, written differently": list(
                mixed_golds(rows, rng, 4000)
            ),
            "numbers in other forms (2n/2 for n)": [
                (str(n), f"\\boxed{{{2 * n}/2}}") for n in range(10**6, 10**6 + 4000)
            ],
            "plain integers and strict matches (decided in the trainer's process)": [
                (str(n), f"so \\boxed{{{n + n % 2}}}") for n in range(20_000)
            ],
        }.items():
            before = verifier.counters
            started = time.perf_counter()
            for job, (gold, text) in enumerate(texts):
                verifier.submit(job, Problem("", "", gold, ""), text, True)
            verifier.collect()
            seconds = time.perf_counter() - started
            after = verifier.counters
            lines.append(f"| {name} | {len(texts)} | {after.asked - before.asked} | {len(texts) / seconds:.0f} |")
    table = "\n".join(lines)
    return f"""## Throughput, two processes

| answers | number | asked of a process | answers/s |
| --- | --- | --- | --- |
{table}

The first answer that needs a process comes {ready:.1f} s after the verifier is made (sympy is imported in the background);
`submit` never waits."""


def mixed_golds(rows: list[dict[str, str]], rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """(gold, completion), half of them right. A unit defeats strict match, and a number of spaces the cache."""
    for number in range(count):
        gold = rng.choice(rows)["answer"]
        answer = gold if number % 2 else rng.choice(rows)["answer"]
        yield gold, f"so \\boxed{{{answer}{' ' * (number % 1000)}\\text{{ units}}}}"


@dataclass(frozen=True)
class Speaker(Policy):
    """A policy whose tokens are read as an answer that only a grading process can judge."""

    def decode(self, token_ids: list[int]) -> str:
        rng = random.Random(str(token_ids))
        return f"so \\boxed{{\\frac{{{rng.randrange(10**6)}\\pi}}{{{rng.randrange(1, 10**6)}}}}}"


def beside_sampling() -> str:
    """The share of grading that sampling hides, in the worst case: no strict match, no cache, a fast model."""
    tiny = load(resolve_model("tiny"))
    policy = Speaker(tiny.model, tiny.tokenizer, tiny.eos_ids, tiny.folder)
    config = Config()
    settings = sampling_settings(policy, config, 1.0, config.sampling.max_new_tokens)
    problem = Problem("p", "3 7 4 target 17", r"\frac{\pi}{7}", "countdown")
    prompts = make_prompts(config.prompt, [problem], policy) * 16
    sampled = waited = 0.0
    with Verifier(MATH) as verifier:
        verifier.submit(0, problem, "\\boxed{0.5}", True)
        verifier.collect()
        before = verifier.counters.busy_s
        for step in range(10):
            keys = [[(step * 16 + i) * 8 + j for j in range(8)] for i in range(16)]
            _, (sample_s, verify_s, *_) = sample_groups(policy, prompts, keys, settings, verifier, lambda done: None)
            sampled, waited = sampled + sample_s, waited + verify_s
        busy = verifier.counters.busy_s - before
    return f"""## Beside sampling

The embedded model samples 10 steps of 128 completions on the same two cores; each is read as an answer that needs a
process ({busy:.1f} s of grading, {1280 / busy:.0f} answers per second and process). Sampling took {sampled:.1f} s, and the trainer waited
{waited:.2f} s for verdicts after it: {1 - waited / busy:.0%} of the grading was hidden."""


def deadlines() -> str:
    """Seconds past the deadline for every hostile answer against three gold answers."""
    late: dict[str, float] = {}
    timeouts = 0
    with Verifier(RewardConfig(name="math", timeout_s=1.0)) as verifier:
        for gold, (name, answer) in itertools.product(("5", "x^2-1", "(1,2)"), HOSTILE.items()):
            verifier.submit(0, Problem("", "", "0.1", ""), f"\\boxed{{{random.random()}}}", True)
            verifier.collect()
            started = time.perf_counter()
            verifier.submit(0, Problem("", "", gold, ""), f"<answer>{answer}</answer>", True)
            score = verifier.collect()[0]
            assert not score.correct, (gold, name)
            timeouts += score.failure == "timeout"
            late[name] = max(late.get(name, -1.0), time.perf_counter() - started - 1.0)
    worst = max(late, key=lambda name: late[name])
    took = {}
    for name, text in {
        "open boxes": "\\boxed{" * 142857,
        "digits": "\\boxed{" + "7" * 10**6 + "}",
        "closing tags": "</answer>" * 111111,
    }.items():
        started = time.perf_counter()
        extract.answer(text)
        took[name] = (time.perf_counter() - started) * 1000
    extraction = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in took.items())
    return f"""## Hostile answers

{len(HOSTILE)} hostile answers (tests/verifier_load.py: towers of powers, deep nesting, a megabyte of digits, unclosed braces, catastrophic
patterns, control characters, lone surrogates, ...), each against three gold answers with a deadline of 1 s: all are wrong,
{timeouts} of {3 * len(HOSTILE)} ran into the deadline, and the latest verdict came {late[worst] * 1000:.0f} ms after it ("{worst}"; allowed: 500 ms).
Extracting the answer from a hostile megabyte, in the trainer's process: {extraction}."""


def killed() -> str:
    """10,000 answers while processes are killed at random."""
    answers = mixed(10_000, seed=11, hostile=10)
    started = time.perf_counter()
    with (
        Verifier(RewardConfig(name="math", timeout_s=1.0)) as verifier,
        Killer(verifier, seed=11, mean_s=2.0) as killer,
    ):
        for job, answer in enumerate(answers):
            verifier.submit(job, Problem("", "", answer.gold, ""), answer.text, answer.finished)
        scores = verifier.collect()
    seconds = time.perf_counter() - started
    wrong = [job for job, answer in enumerate(answers) if not answer.fits(scores[job])]
    counters = verifier.counters
    return f"""## Processes killed at random

10,000 mixed answers with verdicts known by how they were made (right, wrong, cut off, unclosed, 10 of them hostile), all
numbers different; meanwhile SIGKILL hits a grading process every 2 s on average. {len(scores)} verdicts came back, {len(wrong)} wrong ones
or wrongly given up; {killer.kills} kills, {counters.restarts} restarts, {counters.asked} questions asked of a process,
{counters.timeouts} timeouts, {seconds:.0f} s."""


if __name__ == "__main__":
    main()

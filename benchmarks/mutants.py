"""Would the tests notice? Single changes to the core, each tried against its tests: results/reliability-mutants.json.

    python benchmarks/mutants.py [--count 170] [--seed 1] [--only batch stats]     make mutants: 10 minutes on two cores

Decides: cosmic-ray makes the changes (an operator, a comparison, a number, a truth value). mutmut was tried: it leaves
decorated functions and constants of modules alone, which is half of the sampler. The rest is ours, because cosmic-ray
changes the user's own files and tries every change. Here each worker has a copy of the tree; of each place in the code
one change is drawn; and a worker that has loaded torch once is forked for each change, which saves most of a short
test's time. A change that no test can tell is listed with its reason in benchmarks/mutants-equivalent.toml.
"""

import argparse
import ast
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "tests", "benchmarks", "scripts", "docs", "results", "pyproject.toml", "README.md", "CONTRIBUTING.md")
ARITHMETIC, BITS, ORDER = (
    "(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)",
    "(RShift|LShift|BitOr|BitAnd|BitXor)",
    "(Eq|NotEq|Lt|LtE|Gt|GtE)",
)
KINDS = re.compile(
    rf"core/(ReplaceBinaryOperator_({ARITHMETIC}_{ARITHMETIC}|{BITS}_{BITS})"
    rf"|ReplaceComparisonOperator_({ORDER}_{ORDER}|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_\w+|NumberReplacer|Replace(True|False|And|Or)With\w+)$"
)
PRELOADED = ("torch", "safetensors.torch", "tokenizers", "numpy", "pytest")
MEMORY = 16 << 30
"""bytes that a change may make a test take"""

# Module -> the test files that matter for it, those first that are quick.
TESTS = {
    "advantages": "losses batch",
    "batch": "losses batch",
    "checkpoint": "checkpoint",
    "draw": "draw",
    "health": "health",
    "history": "health",
    "logprobs": "logprobs",
    "losses": "losses",
    "manifest": "checkpoint",
    "collect": "collect",
    "sampler": "schedule sampler pages",
    "schedule": "schedule sampler pages",
    "stats": "stats losses",
    "watchers": "health",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to a module: `line` (numbered from 1, and without its indentation) becomes `becomes`."""

    module: str
    number: int
    line: str
    becomes: str
    code: str


def file_of(root: Path, module: str) -> Path:
    """A module's file: its room is looked up, since no two of these modules have one name."""
    (found,) = (root / "src" / "r1v0").rglob(f"{module}.py")
    return found


def tests_of(name: str) -> Path:
    """A test file, likewise."""
    (found,) = (ROOT / "tests").rglob(f"test_{name}.py")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=170, help="changes to try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="MODULE", default=list(TESTS))
    parser.add_argument("--match", default="", metavar="REGEX", help="changes to such lines alone")
    parser.add_argument("--out", type=Path, help="where to write the record")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workers end, and their copies go
    began = time.monotonic()
    places = [place for module in arguments.only for place in every(module)]
    rng = random.Random(arguments.seed)
    picked = sorted(rng.sample(range(len(places)), min(arguments.count, len(places))))
    chosen = [make(*rng.choice(places[i])) for i in picked]
    chosen = [mutant for mutant in chosen if re.search(arguments.match, mutant.line)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.jobs, context, prepare, (Path(folder),)) as pool:
            undisturbed = dict(pool.map(baseline, arguments.only))
            for mutant, outcome, seconds in pool.map(attempt, chosen, [undisturbed[m.module] for m in chosen]):
                why = equivalent().get((mutant.module, mutant.line, mutant.becomes))
                verdict = outcome if outcome != "survived" or why is None else "equivalent"
                rows.append({"module": mutant.module, "number": mutant.number, "line": mutant.line,
                             "becomes": mutant.becomes, "verdict": verdict})  # fmt: skip
                print(f"{verdict:10} {seconds:5.1f} s  {mutant.module}:{mutant.number}  {mutant.line}", flush=True)
                if verdict != "noticed":
                    print(f"{'':22}{mutant.becomes}", flush=True)
    found = record(rows, len(places), arguments.seed, arguments.jobs, time.monotonic() - began)
    print(f"{found['noticed']} of {found['tried'] - found['equivalent']} changes noticed ({found['share']:.1%})")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if found["share"] >= 0.9 else 1


def record(rows: list[dict[str, Any]], places: int, seed: int, jobs: int, seconds: float) -> dict[str, Any]:
    verdicts = [row["verdict"] for row in rows]
    equal, noticed = verdicts.count("equivalent"), verdicts.count("noticed") + verdicts.count("timeout")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {jobs} processes",
        "cosmic_ray": importlib.metadata.version("cosmic-ray"),
        "python": platform.python_version(),
        "seed": seed,
        "seconds": round(seconds),
        "places": places,
        "tried": len(rows),
        "equivalent": equal,
        "noticed": noticed,
        "share": noticed / max(1, len(rows) - equal),
        "modules": {
            name: {verdict: sum(row["module"] == name and row["verdict"] == verdict for row in rows)
                   for verdict in ("noticed", "timeout", "survived", "equivalent")}
            for name in sorted({row["module"] for row in rows})
        },
        "survivors": [row for row in rows if row["verdict"] == "survived"],
    }  # fmt: skip


def equivalent() -> dict[tuple[str, str, str], str]:
    """(module, line, what it becomes) -> why no test can tell."""
    listed = tomllib.loads((ROOT / "benchmarks" / "mutants-equivalent.toml").read_text(encoding="utf-8"))
    return {
        (entry["module"], entry["line"], becomes): entry["why"]
        for entry in listed["equivalent"]
        for becomes in entry["becomes"]
    }


def every(module: str) -> list[list[tuple[str, str, int]]]:
    """All changes to a module as (module, operator, occurrence), those at one place together."""
    code = source(module)
    spared, tree = list(undecided(code)), get_ast(code)
    found: dict[tuple[int, int], list[tuple[str, str, int]]] = {}
    for name in filter(KINDS.match, operator_names()):
        operator = get_operator(name)()
        positions = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if not any(begin <= start < end for begin, end in spared):
                found.setdefault(start, []).append((module, name, occurrence))
    return [found[start] for start in sorted(found)]


def make(module: str, operator: str, occurrence: int) -> Mutant:
    """The changed module."""
    code = source(module)
    changed = mutate_code(code, get_operator(operator)(), occurrence)
    pairs = zip(code.splitlines(), changed.splitlines(), strict=True)
    number, pair = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    line, becomes = (" ".join(text.split()) for text in pair)
    return Mutant(module, number, line, becomes, changed)


def source(module: str) -> str:
    return file_of(ROOT, module).read_text(encoding="utf-8")


def undecided(code: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where types and decorators (frozen=True) are written, each from (line, column) to (line, column)."""
    for node in ast.walk(ast.parse(code)):
        types = (getattr(node, "annotation", None), getattr(node, "returns", None))
        for part in (*types, *getattr(node, "decorator_list", ())):
            if isinstance(part, ast.expr) and part.end_lineno is not None and part.end_col_offset is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


# In the workers

copy = Path()


def prepare(folder: Path) -> None:
    """Give this worker a copy of the tree, and load what all tests need."""
    global copy
    copy = folder / str(os.getpid())
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}
    os.environ["PYTHONPATH"] = str(copy / "src")
    sys.path[:0] = [str(copy), str(copy / "src")]
    for name in PRELOADED:
        __import__(name)


def baseline(module: str) -> tuple[str, float]:
    """(module, seconds of its tests as it is). Raises RuntimeError if they fail."""
    status, seconds, said = run_tests(module, 600)
    if status != 0:
        raise RuntimeError(f"the tests of {module} fail without a change:\n{said[-3000:]}")
    return module, seconds


def attempt(mutant: Mutant, undisturbed: float) -> tuple[Mutant, str, float]:
    """(mutant, "noticed" | "timeout" | "survived", seconds). `undisturbed` are the seconds of its tests without it."""
    path = file_of(copy, mutant.module)
    before, times = path.read_bytes(), path.stat()
    path.write_text(mutant.code, encoding="utf-8")
    os.utime(path, (0, 0))  # a time that no compiled file has
    try:
        status, seconds, said = run_tests(mutant.module, 30 + 4 * undisturbed)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if status in (4, 5):
        raise RuntimeError(f"pytest did not run any test of {mutant.module}:\n{said[-3000:]}")
    return mutant, {0: "survived", None: "timeout"}.get(status, "noticed"), seconds


def run_tests(module: str, limit: float) -> tuple[int | None, float, str]:
    """(pytest's exit status, None for none in time; seconds; what it said), in a fork of this process."""
    began, log = time.monotonic(), copy / "pytest.log"
    child = os.fork()
    if child == 0:
        status = 3
        try:
            status = test_here(module, log)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status: int | None = None
    while time.monotonic() - began < limit:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(0.02)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return status, time.monotonic() - began, log.read_text(encoding="utf-8", errors="replace")


def test_here(module: str, log: Path) -> int:
    """Pytest's exit status of a module's tests, in this process, which may be ended from outside."""
    os.setsid()
    os.chdir(copy)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(number, stream)
    sys.dont_write_bytecode = module_is_changed(module)
    import pytest

    files = [str(tests_of(name).relative_to(ROOT)) for name in TESTS[module].split()]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    return int(pytest.main([*options, "-m", "not slow and not shared", "--basetemp", str(copy / "tmp"), *files]))


def module_is_changed(module: str) -> bool:
    return file_of(copy, module).stat().st_mtime == 0


if __name__ == "__main__":
    sys.exit(main())

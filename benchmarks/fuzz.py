"""The fuzz run: results/reliability-fuzz.json.

    python benchmarks/fuzz.py [--runs 1050000] [--seed 1]     make fuzz: some minutes on two cores, Linux only

Decides: atheris (libFuzzer under Python) finds the inputs, guided by the coverage of r1v0's own bytecode, from the real
examples and words of tests/fuzz_corpus.py; tests/fuzz_targets.py judges them. Hypothesis has no such feedback, and a
mutator of our own would have to be argued for. Each target is a process of its own with one seed, so a run can be
repeated. The first crash, hang (10 s) or wrong acceptance ends its target; its input is shown and kept in --keep.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 10
LONGEST = {"extraction": 150, "config": 4000}  # bytes of an input, of others 2000; patterns take time by the square

# Inputs of each target, in thousands out of 1050: by how much can go wrong there and how long one takes, the longest
# first.
SHARES = {
    "extraction": 40, "countdown": 340, "numbers": 180, "symbolic": 5, "config": 80, "set": 80, "data": 75, "run": 60,
    "answers": 40, "verify": 75, "model": 75,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=sum(SHARES.values()) * 1000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", metavar="TARGET", default=list(SHARES))
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "fuzz", help="folder for inputs that fail")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reliability-fuzz.json")
    parser.add_argument("--child", nargs=4, metavar=("TARGET", "RUNS", "FOLDER", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, runs, folder, seed = arguments.child
        fuzz(name, int(runs), Path(folder), int(seed))
        return 0
    arguments.keep.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def job(name: str) -> dict[str, Any]:
        runs = max(1000, arguments.runs * SHARES[name] // sum(SHARES.values()))
        found = run(name, runs, arguments.seed, arguments.keep)
        print(row(name, found), flush=True)
        return found

    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = dict(zip(arguments.only, pool.map(job, arguments.only), strict=True))
    report = {
        "command": f"python benchmarks/fuzz.py --runs {arguments.runs} --seed {arguments.seed}",
        "python": platform.python_version(),
        "atheris": importlib.metadata.version("atheris"),
        "cpus": os.cpu_count(),
        "wall_s": round(time.monotonic() - started, 1),
        "inputs": sum(target["inputs"] for target in found.values()),
        "failures": sum(bool(target["failure"]) for target in found.values()),
        "targets": found,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{report['inputs']} inputs, {report['failures']} failures, {report['wall_s']} s: {arguments.out}")
    return 1 if report["failures"] else 0


def run(name: str, runs: int, seed: int, keep: Path) -> dict[str, Any]:
    """One target in a process of its own; what it found."""
    memory = Path("/dev/shm")  # files are written for every input: on a disk that would be most of the time
    with tempfile.TemporaryDirectory(prefix="r1v0-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, __file__, "--child", name, str(runs), folder, str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        stats = Path(folder) / "stats.json"
        found = json.loads(stats.read_text()) if stats.exists() else {"inputs": 0}
        edges = re.findall(r"cov: (\d+)", done.stderr)
        failure = ""
        if done.returncode:
            shown = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line or "ALARM" in line]
            inputs = [path for path in Path(folder).iterdir() if re.match("(crash|timeout|oom)-", path.name)]
            for path in inputs:
                (keep / f"{name}-{path.name}").write_bytes(path.read_bytes())
            failure = (shown or [f"exit code {done.returncode}"])[0][:300]
        return {**found, "edges": int(edges[-1]) if edges else 0, "failure": failure}


def row(name: str, found: dict[str, Any]) -> str:
    told = found["failure"] or f"slowest {1000 * found['slowest_s']:.0f} ms"
    return (
        f"{name:11} {found['inputs']:8} inputs {found.get('accepted', 0):8} accepted {found['edges']:6} edges  {told}"
    )


def fuzz(name: str, runs: int, folder: Path, seed: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends. Writes folder/stats.json."""
    import atheris

    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["r1v0"]):
        from tests.fuzz_targets import TARGETS, text_of
    target = TARGETS[name]
    seeds = [text.encode("utf-8", "surrogatepass" if name == "answers" else "surrogateescape") for text in target.seeds]
    for data in seeds:
        target.check(data)  # what a first call imports is not the input's fault
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(b"\0" + data)
    count = accepted = 0
    slowest, slow_input = 0.0, b""
    started = time.perf_counter()

    def one(data: bytes) -> None:
        nonlocal count, accepted, slowest, slow_input
        count += 1
        given = text_of(data, target)
        before = time.process_time()
        accepted += target.check(given)
        seconds = time.process_time() - before
        if seconds > slowest:
            slowest, slow_input = seconds, given
        if count % 1000 == 0 or count >= runs:
            stats = {
                "what": target.what, "inputs": count, "accepted": accepted, "seconds": round(time.perf_counter() - started, 1),
                "cpu_s": round(time.process_time(), 1),
                "slowest_s": round(slowest, 4), "slowest_input": repr(slow_input[:120]), "slowest_bytes": len(slow_input),
            }  # fmt: skip
            (folder / "stats.json").write_text(json.dumps(stats))

    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={LONGEST.get(name, 2000)}",
        f"-timeout={LIMIT_S}",
        "-rss_limit_mb=4096",
    ]
    options += [f"-dict={dictionary(target.tokens, folder)}", f"-artifact_prefix={folder}/", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def dictionary(tokens: list[str], folder: Path) -> Path:
    """libFuzzer's dictionary file: each word in quotes, with every odd byte as \\xNN."""
    path = folder / "words.txt"
    lines = []
    for token in tokens:
        data = token.encode("utf-8", "surrogateescape")[:60]
        shown = "".join(chr(b) if 32 < b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in data)
        lines += [f'"{shown}"'] if shown else []
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())

"""Kill one run again and again, and compare its end with that of a run that nobody touched.

    python scripts/kill_run.py --kills 30 --terms 10 --seed 1 [--record results/reliability-kill.json]

The same settings are trained twice, by the command line. The second run is sent SIGKILL at random moments, in some
starts while it is still loading, in some while it writes a checkpoint, and a few times SIGTERM, which lets it save
where it stands, also inside a step; each time it goes on by --resume. In the end both must hold the same metrics and
evaluations (times aside), rollouts and answers (byte for byte), and the same weights, optimizer state and counters (by
SHA-256). Exit code 1 if not. A start that fails by itself ends the test.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SETTINGS = [
    "checkpoints.every=1",
    "checkpoints.keep_last=2",
    "checkpoints.keep_best=1",
    "grpo.groups=4",
    "grpo.group_size=4",
    "grpo.variant=dapo",
    "grpo.max_refills=1",
    "grpo.minibatches=2",
    "grpo.epochs=2",
    "sampling.max_new_tokens=60",
    "optimizer.micro_batch_tokens=120",
    "eval.max_problems=16",
    "eval.every=3",
    "threads=1",
]
LOADING = 0.1
"""share of the kills that come at any time from the start on, most of them before the first step"""
AIMED = 0.25
"""share of the kills that wait until a checkpoint is being written: it takes little of a run's time, and is where
harm is done"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--terms", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; the training seed is always the default")
    parser.add_argument("--steps", type=int, default=0, help="0: enough for the kills")
    parser.add_argument("--folder", type=Path, help="where the two runs go (default: a temporary folder)")
    parser.add_argument("--record", type=Path, help="JSON file for the outcome")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        outcome = run(arguments, arguments.folder or Path(temporary))
    print(json.dumps(outcome, indent=2))
    if arguments.record:
        arguments.record.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    return 0 if outcome["equal"] else 1


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both runs and their comparison."""
    rng = random.Random(arguments.seed)
    steps = arguments.steps or max(6, 2 * (arguments.kills + arguments.terms))
    print(f"seed {arguments.seed}: {arguments.kills} SIGKILL and {arguments.terms} SIGTERM over {steps} steps")
    sets = [word for item in [*SETTINGS, f"steps={steps}"] for word in ("--set", item)]
    whole, part = folder / "whole", folder / "part"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    process = start(["--out", str(whole), *sets], folder / "whole.log")
    until_it_trains(process, folder / "whole.log")
    loading = time.monotonic() - began
    if process.wait():
        raise SystemExit((folder / "whole.log").read_text())
    undisturbed = time.monotonic() - began
    step_s = (undisturbed - loading) / steps  # with evaluations and checkpoints
    signals = [signal.SIGKILL] * arguments.kills + [signal.SIGTERM] * arguments.terms
    rng.shuffle(signals)
    sent: Counter[str] = Counter()
    found: Counter[str] = Counter()
    while True:
        log = folder / f"part-{sum(sent.values()):03d}.log"
        process = start(
            ["--resume", str(part)] if (part / "config.toml").is_file() else ["--out", str(part), *sets], log
        )
        if not signals:
            break
        if (chance := rng.random()) < LOADING:
            time.sleep(rng.uniform(0, 1.2 * loading))
        elif until_it_trains(process, log):
            if chance > 1 - AIMED:
                until_it_saves(process, part)
                time.sleep(rng.uniform(0, 0.1))
            else:
                time.sleep(rng.uniform(0, 2 * step_s))
        number = signals[-1]
        process.send_signal(number)
        code = process.wait()
        if code == 0:
            break  # the run was done before the kills were
        if code not in (-number, 130):
            raise SystemExit(f"a start ended with {code}:\n{log.read_text()}")
        signals.pop()
        sent[number.name] += 1
        for thing, there in traces(part).items():
            found[thing] += there
        print(f"{sum(sent.values()):3d} {number.name} {progress(part)}", flush=True)
    code = process.wait()
    if code:
        raise SystemExit(f"the last start ended with {code}:\n{log.read_text()}")
    different = [name for name, digest in state(whole).items() if state(part).get(name) != digest]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "equal": not different and not signals and state(whole).keys() == state(part).keys(),
        "different": different,
        "kills": sent["SIGKILL"],
        "terms": sent["SIGTERM"],
        "not_sent": len(signals),
        "steps": steps,
        "seed": arguments.seed,
        "kills_that_left": dict(found),
        "seconds_undisturbed": round(undisturbed, 1),
        "seconds": round(time.monotonic() - began, 1),
        "settings": SETTINGS,
        "compared": sorted({name.split("/")[0] for name in state(whole)}),
    }


def start(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """`r1v0 train`, in a process group of its own; what it says goes to `log`."""
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "r1v0", "train", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )


def until_it_trains(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Wait until the models are loaded; False if the process ends before."""
    while process.poll() is None:
        if b"training " in log.read_bytes():
            return True
        time.sleep(0.01)
    return False


def until_it_saves(process: "subprocess.Popen[bytes]", run: Path) -> None:
    """Wait until a checkpoint is being written."""
    while process.poll() is None and not any(run.glob("checkpoints/.step-*.writing")):
        time.sleep(0.002)


def traces(run: Path) -> dict[str, bool]:
    """What of half-done work lies in a run folder after a kill."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes() if metrics.exists() else b""
    newest = max((path.name for path in (run / "checkpoints").glob("step-*")), default="step-00000")
    logged = [json.loads(line)["step"] for line in lines.split(b"\n")[:-1]]
    return {
        "a half checkpoint": any(run.glob("checkpoints/.step-*.writing")),
        "a checkpoint half deleted": any(run.glob("checkpoints/.step-*.removed")),
        "a half file": any(run.rglob(".*.tmp")),
        "a torn line": bool(lines) and not lines.endswith(b"\n"),
        "rows behind the checkpoint": bool(logged) and logged[-1] > int(newest[5:10]),
        "a checkpoint inside a step": "." in newest,
    }


def progress(run: Path) -> str:
    """The newest checkpoint."""
    return max((path.name for path in (run / "checkpoints").glob("step-*")), default="no checkpoint")


def state(run: Path) -> dict[str, str]:
    """Digests of all that must be equal."""
    found = {}
    for name in ("metrics.jsonl", "evals.jsonl"):
        rows = [json.loads(line) for line in (run / name).read_text().splitlines()]
        timeless = [{k: v for k, v in row.items() if not k.startswith(("time", "memory"))} for row in rows]
        found[name] = digest(json.dumps(timeless).encode())
    for path in sorted([*run.glob("rollouts/*"), *run.glob("answers/*")]):
        found[path.relative_to(run).as_posix()] = digest(path.read_bytes())
    last = max(run.glob("checkpoints/step-*"))
    for name in ("model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json", "trainer/config.toml"):
        found[f"checkpoint/{last.name}/{name}"] = digest(content(last / name))
    found["checkpoints"] = " ".join(sorted(path.name for path in run.glob("checkpoints/*")))
    return found


def content(path: Path) -> bytes:
    """A file's bytes; those of a safetensors header in a fixed order, for its library writes metadata in any."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

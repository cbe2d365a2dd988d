"""Everything that only a GPU can show, in under ten minutes: is it right, and how far from the card's limits is it?

    python benchmarks/gpu.py --out results/gpu                the whole thing, on any NVIDIA card with 16-bit floats
    python benchmarks/gpu.py --out FOLDER --dry-run           every section in toy sizes on the CPU; its numbers mean nothing
    python benchmarks/gpu.py --out FOLDER --only decode,grpo  some sections

Needs torch >= 2.11 with CUDA, triton, and r1v0's own small dependencies; the source tree is enough (nothing need be
installed). Each section stands alone: one that fails is recorded with its error, and the next one runs. Results are
written as they come, gpu.json and gpu.md, and printed last. First two ceilings are measured, the copy bandwidth and
the matrix rate on random data, and everything is held against these, not against a data sheet. Times are medians of
device events after warm-ups. Nothing of the card is changed (no clocks, no modes).
"""

import argparse
import gc
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
from benchmarks.gpu_tools import Bench, Row  # noqa: E402

from benchmarks import gpu_correct, gpu_speed  # noqa: E402

SECTIONS = {
    "machine": gpu_speed.machine,
    "kernels": gpu_correct.kernels,
    "logits": gpu_correct.logits,
    "sampling": gpu_correct.sampling,
    "gradients": gpu_correct.gradients,
    "decode": gpu_speed.decode,
    "training": gpu_speed.training,
    "grpo": gpu_speed.grpo_step,
    "countdown": gpu_speed.countdown,
}
SECONDS = 560  # no section is started after this


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument(
        "--dry-run", action="store_true", help="toy sizes on the CPU (what happens without a GPU anyway)"
    )
    parser.add_argument("--only", default="", help=f"sections to run, of {','.join(SECTIONS)}")
    asked = parser.parse_args(arguments)
    names = asked.only.split(",") if asked.only else list(SECTIONS)
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        parser.error(f"--only: no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    dry = asked.dry_run or not torch.cuda.is_available()
    bench = Bench(torch.device("cpu") if dry else torch.device("cuda", 0), dry, asked.out)
    asked.out.mkdir(parents=True, exist_ok=True)
    start, results = time.perf_counter(), {}
    for name in names:
        results[name] = run_section(bench, name, start)
        write(asked.out, results, dry)
    print(table(results, dry))
    return int(any(result["error"] or not all(row["ok"] for row in result["rows"]) for result in results.values()))


def run_section(bench: Bench, name: str, start: float) -> dict[str, Any]:
    """One section's rows, seconds and error; memory is given back whatever happens."""
    began = time.perf_counter()
    result: dict[str, Any] = {"rows": [], "error": ""}
    if began - start > SECONDS:
        result["error"] = f"not run: {SECONDS} s had passed"
        return result
    print(f"[{began - start:5.0f} s] {name}", flush=True)
    rows: list[Row] = []
    try:
        SECTIONS[name](bench, rows)
    except Exception:  # one section's failure must not cost the others
        result["error"] = traceback.format_exc()
        print(result["error"], flush=True)
    finally:
        gc.collect()
        if not bench.dry:
            torch.cuda.empty_cache()
    result["rows"] = [row.record() for row in rows]
    result["seconds"] = round(time.perf_counter() - began, 1)
    return result


def write(out: Path, results: dict[str, Any], dry: bool) -> None:
    (out / "gpu.json").write_text(json.dumps({"dry_run": dry, "sections": results}, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(table(results, dry), encoding="utf-8")


def table(results: dict[str, Any], dry: bool) -> str:
    """Markdown: a row a number."""
    lines = ["Toy sizes on a CPU: these numbers mean nothing.", ""] if dry else []
    lines += ["| section | what | value | unit | expected | |", "| --- | --- | --- | --- | --- | --- |"]
    for name, result in results.items():
        for row in result["rows"]:
            mark = "" if row["ok"] else "NOT AS EXPECTED"
            lines.append(f"| {name} | {row['what']} | {row['shown']} | {row['unit']} | {row['expected']} | {mark} |")
        if result["error"]:
            lines.append(f"| {name} | {result['error'].strip().splitlines()[-1]} | | | | FAILED |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

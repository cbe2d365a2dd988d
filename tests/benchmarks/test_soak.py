"""The judge of the soak run: a leak, a lost worker or a fall of accuracy must not pass. The run itself is `make
soak`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, script

SOAK = script(ROOT / "benchmarks" / "soak.py")


def samples(**changes: Any) -> list[dict[str, int]]:
    steady: dict[str, Any] = {
        "rss": lambda step: 400_000_000 + step % 7 * 5_000_000,
        "handles": lambda step: 13 + step % 2,
        "children": 2,
        "threads": 2,
    }
    made = steady | changes
    return [{"step": step, **{k: v(step) if callable(v) else v for k, v in made.items()}} for step in range(1, 301)]


def evals(*accuracies: float) -> list[dict[str, Any]]:
    return [{"step": 100 * i, "accuracy": p, "ci_low": p - 0.06, "ci_high": p + 0.06} for i, p in enumerate(accuracies)]


def failed(some: list[dict[str, int]], rated: list[dict[str, Any]]) -> list[str]:
    return [name for name, check in SOAK.judge(some, rated).items() if not check["ok"]]


def test_a_steady_run_passes() -> None:
    assert failed(samples(), evals(0.2, 0.7, 0.74, 0.7)) == []
    warming = samples(rss=lambda step: 300_000_000 if step <= 20 else 400_000_000)
    assert failed(warming, evals(0.2, 0.7)) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rss": lambda step: 400_000_000 + step * 100_000}, "resident memory"),
        ({"handles": lambda step: 10 + step // 50}, "file handles"),
        ({"children": lambda step: 2 - (step > 250)}, "child processes"),
        ({"threads": lambda step: 2 + step // 100}, "threads"),
    ],
)
def test_what_grows_or_is_lost_is_found(changes: dict[str, Any], name: str) -> None:
    assert failed(samples(**changes), evals(0.2, 0.7)) == [name]


def test_a_fall_of_accuracy_is_found() -> None:
    assert failed(samples(), evals(0.2, 0.74, 0.6)) == ["held-out accuracy"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc, which is Linux's")
def test_a_process_is_read_with_its_children_and_handles() -> None:
    before = SOAK.reading(os.getpid())
    code = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = SOAK.reading(os.getpid())
        child.kill()
    after = SOAK.reading(os.getpid())
    assert during["children"] == before["children"] + 1
    assert during["handles"] == before["handles"] + 1  # the pipe
    assert during["children_rss"] > before["children_rss"] + 1_000_000
    assert (after["children"], after["handles"]) == (before["children"], before["handles"])
    assert before["rss"] > 10_000_000
    assert SOAK.reading(2**22 + 1) == {"rss": 0, "children_rss": 0, "handles": 0, "children": 0, "threads": 0}


def test_the_pages_are_made_of_the_records_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reliability = script(ROOT / "benchmarks" / "reliability.py")
    monkeypatch.setattr(reliability, "RESULTS", tmp_path)
    checks = SOAK.judge(samples(), evals(0.2, 0.7))
    content = {"steps": 300, "seconds": 480, "cpu": "one", "torch": "2", "commit": "abc", "checks": checks}
    (tmp_path / "soak.json").write_text(json.dumps(content))
    reliability.main()
    text = (tmp_path / "reliability.md").read_text()
    assert "300 steps of countdown" in text
    assert "- resident memory: held (415 MB after step 20" in text
    assert text.count("Not run yet.") == 3  # kills, inputs, single changes
    assert "| held-out accuracy | 0.700" in "\n".join(SOAK.page(content))

"""examples/: the notebook runs, the SLURM script stops and goes on exactly, and the files for machines that we do not have
can at least be read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1v0.cli import parser
from tests.conftest import ROOT
from tests.faults.test_resume import assert_same_run

EXAMPLES = ROOT / "examples"
SMALL = ["grpo.groups=2", "grpo.group_size=4", "sampling.max_new_tokens=24", "eval.max_problems=4", "threads=1"]
LENGTHS = ["steps=12", "checkpoints.every=6", "eval.every=6"]
SETS = [word for item in [*LENGTHS, *SMALL] for word in ("--set", item)]

RUN_NOTEBOOK = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
nbformat.write(notebook, "done.ipynb")
"""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment whose `r1v0` is the one under test, and whose `scontrol` writes down what it is asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in {
        "r1v0": f'exec "{sys.executable}" -m r1v0 "$@"',
        "scontrol": f'echo "$@" >> "{tmp_path}/asked"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return kept | {"SLURM_JOB_ID": "4711", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def test_the_notebook_runs_with_fewer_steps(tmp_path: Path) -> None:
    """From its own folder, as in a fresh clone, but with 2 steps in place of 80."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK, str(EXAMPLES / "demo.ipynb")],
        cwd=tmp_path,
        env={**os.environ, "R1V0_STEPS": "2"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads((tmp_path / "done.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    (run,) = (tmp_path / "runs").iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    told = "".join("".join(output.get("text", "")) for cell in cells for output in cell["outputs"])
    assert "before: " in told
    assert "after:  " in told


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((EXAMPLES / "demo.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


def test_a_slurm_job_that_is_stopped_at_its_limit_and_queued_again_ends_as_an_undisturbed_run(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    subprocess.run(["r1v0", "train", "--out", whole, *SETS], env=shell, check=True, capture_output=True, timeout=250)
    job = start(part, shell)
    try:
        until(lambda: rows(part) >= 2, job)
        job.send_signal(signal.SIGUSR1)  # to the script alone, as SLURM does
        assert job.wait(120) == 130
    finally:
        job.kill()
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert 2 <= rows(part) < 12
    assert start(part, shell).wait(250) == 0
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert_same_run(whole, part)


@pytest.mark.parametrize(
    ("number", "asked"), [(signal.SIGTERM, ""), (signal.SIGUSR1, "requeue 4711\n")], ids=["cancelled", "at its limit"]
)
def test_a_cancelled_slurm_job_saves_and_does_not_come_back(
    number: signal.Signals, asked: str, tmp_path: Path, shell: dict[str, str]
) -> None:
    """With a run that takes half a second to save, in which a second signal comes to the script."""
    saving = f"""#!/bin/sh
trap 'touch {tmp_path}/told; sleep 0.5; touch {tmp_path}/saved; exit 130' TERM
touch {tmp_path}/trains
while :; do sleep 0.05; done
"""
    (tmp_path / "bin" / "r1v0").write_text(saving)
    job = start(tmp_path / "run", shell)
    try:
        until((tmp_path / "trains").exists, job)
        job.send_signal(number)
        until((tmp_path / "told").exists, job)
        job.send_signal(number)
        assert job.wait(60) == 130
    finally:
        job.kill()
    assert (tmp_path / "saved").exists()
    assert ((tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else "") == asked


def test_a_slurm_job_whose_run_has_an_error_is_not_queued_again(tmp_path: Path, shell: dict[str, str]) -> None:
    (tmp_path / "bin" / "r1v0").write_text("#!/bin/sh\nexit 2\n")
    assert start(tmp_path / "run", shell).wait(60) == 2
    assert not (tmp_path / "asked").exists()


def start(run: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """The script as SLURM starts it."""
    command = ["bash", str(EXAMPLES / "slurm.sh"), str(run), *SETS]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(true: Callable[[], bool], job: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert job.poll() is None, "the job ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def test_a_slurm_job_without_a_run_says_how_it_is_started(shell: dict[str, str]) -> None:
    done = subprocess.run(["bash", EXAMPLES / "slurm.sh"], env=shell, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "usage: sbatch examples/slurm.sh RUN" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", EXAMPLES / "slurm.sh"], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


def loaded(path: Path) -> dict[Any, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_spot_job_begins_or_goes_on_in_its_bucket(tmp_path: Path, shell: dict[str, str]) -> None:
    task = loaded(EXAMPLES / "sky.yaml")
    assert task["resources"]["use_spot"] is True
    assert task["file_mounts"]["/runs"]["mode"] == "MOUNT_CACHED"
    (tmp_path / "bin" / "r1v0").write_text('#!/bin/sh\necho "$@"\n')
    done = subprocess.run(
        ["sh", "-c", task["run"]],
        env={**shell, **task["envs"], "BUCKET": "b"},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments = parser().parse_args(done.stdout.split())
    assert (str(arguments.out), arguments.requeue, arguments.preset) == ("/runs/math", True, "qwen2.5-1.5b-math")

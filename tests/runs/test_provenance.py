"""What a run records of the machine."""

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import r1v0
from r1v0.runs import provenance as module
from r1v0.runs.provenance import environment


def test_it_holds_versions_machine_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/somebody/bin/r1v0", "train", "--set", "seed=1"])
    found = json.loads(json.dumps(environment("NVIDIA X", 2)))
    assert found["r1v0"] == r1v0.__version__
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["packages"]["matplotlib"] == importlib.metadata.version("matplotlib")
    assert found["command"] == ["r1v0", "train", "--set", "seed=1"]
    assert (found["device"], found["threads"]) == ("NVIDIA X", 2)
    assert (environment()["device"], environment()["threads"]) == (None, None)
    assert found["cpu"]


def test_it_holds_no_environment_variable_and_no_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1V0_TEST_TOKEN", "hidden-7f3a")
    monkeypatch.setattr(sys, "argv", ["r1v0"])
    monkeypatch.setattr(platform, "node", lambda: "hidden-host")
    assert "hidden" not in json.dumps(environment())


def test_a_package_that_is_not_there_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("no-such-package",))
    assert environment()["packages"] == {"no-such-package": None}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_its_own_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "src" / "r1v0" / "runs" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(module, "__file__", str(file))
    assert environment()["git_commit"] is None
    git("init", "-q")
    assert environment()["git_commit"] is None  # no commit yet
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert environment()["git_commit"] == git("rev-parse", "HEAD")
    file.write_text("changed")
    assert environment()["git_commit"] == git("rev-parse", "HEAD") + "+"
    # Installed in an environment inside somebody else's repository: not that repository's commit.
    inside = tmp_path / ".venv" / "lib" / "site-packages" / "r1v0" / "runs" / "provenance.py"
    monkeypatch.setattr(module, "__file__", str(inside))
    assert environment()["git_commit"] is None

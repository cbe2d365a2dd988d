"""Messages name the command as it can be typed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import r1v0
from r1v0.base import command
from r1v0.base.command import typed

MAIN = str(Path(r1v0.__file__).with_name("__main__.py"))


def started(monkeypatch: pytest.MonkeyPatch, argv: str, python: str = "python") -> None:
    monkeypatch.setattr(sys, "argv", [argv, "train"])
    monkeypatch.setattr(sys, "orig_argv", [python, "-m", "r1v0", "train"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a virtual environment in it, worked in, and a PATH that has neither r1v0 nor a Python."""
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for name in ("r1v0", "python"):
        (scripts / name).write_text("#!/bin/sh\n")
        (scripts / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return tmp_path


@pytest.mark.parametrize("start", [".venv/bin/r1v0", "{project}/.venv/bin/r1v0"])
def test_a_script_is_named_by_its_path(project: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    started(monkeypatch, start.format(project=project))
    assert typed("train", "--resume", Path("runs/a b")) == ".venv/bin/r1v0 train --resume 'runs/a b'"


def test_a_script_that_the_shell_finds_is_named_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project / ".venv" / "bin"))
    started(monkeypatch, str(project / ".venv/bin/r1v0"))
    assert typed() == "r1v0"


def test_a_script_that_hides_behind_another_is_named_by_its_path(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = project / "other"
    other.mkdir()
    (other / "r1v0").write_text("#!/bin/sh\n")
    (other / "r1v0").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    started(monkeypatch, str(project / ".venv/bin/r1v0"))
    assert typed() == ".venv/bin/r1v0"
    monkeypatch.chdir(project / ".venv" / "bin")
    assert typed() == "./r1v0"
    monkeypatch.chdir("/")
    assert typed() == str(project / ".venv/bin/r1v0").lstrip("/")


def test_a_module_is_named_with_the_python_that_was_typed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, MAIN, ".venv/bin/python")
    assert typed("doctor") == ".venv/bin/python -m r1v0 doctor"
    monkeypatch.setenv("PATH", str(project / ".venv" / "bin"))
    started(monkeypatch, MAIN, "python")
    assert typed("doctor") == "python -m r1v0 doctor"


def test_a_library_reads_the_plain_name() -> None:
    assert typed("plan") == "r1v0 plan"


def test_a_process_names_itself_as_it_was_started(tmp_path: Path) -> None:
    """From the outside: the hint of a verb's mistake can be typed as it stands."""
    environment = {**os.environ, "PYTHONPATH": str(Path(r1v0.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "r1v0", "verify"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(rf"for example: {sys.executable} -m r1v0 verify '\frac{{1}}{{2}}' 0.5")


def test_no_message_names_the_command_in_another_way() -> None:
    """A literal "r1v0 VERB" in the code that is no docstring or comment would be right on some machines only."""
    verbs = "train|eval|sample|plot|verify|doctor|pretrain|plan|bench|presets|config"
    found = []
    for path in Path(command.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        prose = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
        named = re.compile(rf"\br1v0 (?:{verbs})\b")
        found += [f"{path.name}:{text.lineno}" for text in texts if text not in prose and named.search(str(text.value))]
    assert not found

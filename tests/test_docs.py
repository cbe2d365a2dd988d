"""The documents against the code: what they quote, name and link to must be there."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

import r1v0
from r1v0 import config
from r1v0.cli import parser as command_line
from r1v0.grpo.step import train_step
from tests.conftest import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "results").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_quotes_train_step_as_it_is() -> None:
    (quoted,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert quoted == inspect.getsource(train_step)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_can_be_parsed(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `r1v0 VERB ...` line of the documents is one that the command line takes, with settings that exist, and
    files that the same document shows."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")  # a line may go on after a backslash
    monkeypatch.chdir(tmp_path)
    for name, content in re.findall(r"```toml\n# ([\w.]+)\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(content, encoding="utf-8")
    for line in re.findall(r"^(?:\$ |    )(?:\.venv/bin/)?r1v0 (\w+.*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        arguments = command_line().parse_args(words)
        if "set" in arguments:
            config.resolve(arguments.preset, sets=arguments.set)


def test_the_table_of_rooms_is_the_tree() -> None:
    package, page = Path(r1v0.__file__).parent, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    hidden = {"__init__.py", "__main__.py", "py.typed", "assets"}
    found = [path for path in package.iterdir() if path.is_file() or any(path.rglob("*.py"))]
    there = {f"{path.name}/" if path.is_dir() else path.name for path in found if path.name not in hidden}
    assert set(re.findall(r"^\| `([\w.]+/?)` \|", page, re.MULTILINE)) >= there


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1000


def test_settings_that_the_readme_names_are_settings() -> None:
    known = config.keys()
    sections = {key.partition(".")[0] for key in known if "." in key}
    named = re.findall(r"`([a-z]+\.[a-z_0-9]+)(?:=[^`]*)?`", README)
    assert [key for key in named if key.partition(".")[0] in sections and key not in known] == []


RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_tests_that_the_reliability_page_names_exist() -> None:
    """A row of its table that no test shows is a promise."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", RELIABILITY)
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_every_row_of_the_reliability_page_names_a_test() -> None:
    rows = [
        line
        for line in RELIABILITY.splitlines()
        if line.startswith("|") and not re.match(r"\|[-\s|]+$|\| the fault", line)
    ]
    assert len(rows) > 10
    assert [row for row in rows if "`test_" not in row.split("|")[-2]] == []

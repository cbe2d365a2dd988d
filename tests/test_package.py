"""What is built: a wheel and an sdist that hold what they should, and a description without a relative link."""

import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

from r1v0 import __version__
from tests.conftest import ROOT

absolute = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["absolute"]

BUILD = "import setuptools.build_meta as b, sys; getattr(b, 'build_' + sys.argv[1])('dist')"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, built from a copy of what they are built from."""
    copy = tmp_path_factory.mktemp("package") / "copy"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "tests" / "base", copy / "tests")  # must not come along
    for kind in ("sdist", "wheel"):
        done = subprocess.run(
            [sys.executable, "-c", BUILD, kind], cwd=copy, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    return copy / "dist"


def metadata(dist: Path) -> Message:
    with zipfile.ZipFile(dist / f"r1v0-{__version__}-py3-none-any.whl") as wheel:
        return message_from_bytes(wheel.read(f"r1v0-{__version__}.dist-info/METADATA"))


def test_no_link_of_the_description_is_relative(dist: Path) -> None:
    text = metadata(dist).get_payload()
    assert isinstance(text, str)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) > 8
    assert [target for target in targets if not target.startswith("https://")] == []
    picture = f"https://raw.githubusercontent.com/r1v0/r1v0/v{__version__}/results/countdown.png"
    assert f"]({picture})" in text
    assert f"](https://github.com/r1v0/r1v0/blob/v{__version__}/docs/data.md)" in text


def test_the_metadata_say_what_an_index_shows(dist: Path) -> None:
    found = metadata(dist)
    assert found["Description-Content-Type"] == "text/markdown"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.11"
    assert {line.partition(",")[0] for line in found.get_all("Project-URL") or []} == {
        "Source",
        "Documentation",
        "Changelog",
        "Issues",
    }


def test_the_files_that_the_package_reads_are_in_both(dist: Path) -> None:
    package = ROOT / "src" / "r1v0"
    kinds = ("*.py", "*.toml", "*.c", "*.safetensors", "*.json", "py.typed")
    wanted = {f"r1v0/{path.relative_to(package).as_posix()}" for kind in kinds for path in package.rglob(kind)}
    assert len(wanted) > 100
    with zipfile.ZipFile(dist / f"r1v0-{__version__}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    assert wanted - names == set()
    assert {name for name in names if not name.startswith(("r1v0/", f"r1v0-{__version__}.dist-info/"))} == set()
    with tarfile.open(dist / f"r1v0-{__version__}.tar.gz") as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in wanted} | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= packed
    assert {name for name in packed if name.startswith("tests")} == set()


def test_links_become_absolute_and_code_stays() -> None:
    readme = (
        "![A](a/b.png) [`x`](src/x.py#L3) [up](#top) [out](https://example.org/x)\n```python\nx[0](y)\n```\n[z](z)\n"
    )
    assert absolute(readme, "https://github.com/o/r", "1.2") == (
        "![A](https://raw.githubusercontent.com/o/r/v1.2/a/b.png) "
        "[`x`](https://github.com/o/r/blob/v1.2/src/x.py#L3) [up](#top) [out](https://example.org/x)\n"
        "```python\nx[0](y)\n```\n[z](https://github.com/o/r/blob/v1.2/z)\n"
    )


def test_nothing_is_published_before_it_was_tried_everywhere() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["publish"]["needs"] == ["try", "windows"]
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert {jobs[name]["needs"] for name in ("try", "windows")} == {"build"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert jobs["try"]["strategy"]["matrix"]["python"] == claimed == ["3.11", "3.12", "3.13", "3.14"]

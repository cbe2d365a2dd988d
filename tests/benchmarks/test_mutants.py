"""The list of changes that no test can tell: it must speak of lines that are there."""

import tomllib

import pytest

from tests.conftest import ROOT

LISTED = tomllib.loads((ROOT / "benchmarks" / "mutants-equivalent.toml").read_text(encoding="utf-8"))["equivalent"]


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: f"{entry['module']}: {entry['line'][:40]}")
def test_a_listed_change_is_one_of_a_line_that_is_there(entry: dict[str, str | list[str]]) -> None:
    code = next((ROOT / "src" / "r1v0").rglob(f"{entry['module']}.py")).read_text(encoding="utf-8")
    assert entry["line"] in [" ".join(line.split()) for line in code.splitlines()]
    assert entry["line"] not in entry["becomes"]
    assert entry["why"]

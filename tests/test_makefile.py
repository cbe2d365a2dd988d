"""Every verb of the Makefile is a shell script that can be read, also those that no other test runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERBS = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize("verb", VERBS)
def test_the_shell_can_read_every_recipe(verb: str) -> None:
    """With set-up, as on a fresh clone (-B), and without doing anything (-n)."""
    asked = ["make", "-n", "-B", verb, "TORCH_INDEX=https://example.invalid/whl"]
    recipe = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert recipe.strip()
    read = subprocess.run(["sh", "-n"], input=recipe, capture_output=True, text=True, timeout=60)
    assert (read.returncode, read.stderr) == (0, ""), recipe

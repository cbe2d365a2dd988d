"""The memory that a process says it took."""

import subprocess
import sys

import pytest

from r1v0.device import peak_rss


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not start with its parent's peak")
def test_a_process_does_not_start_with_its_parents_peak() -> None:
    held = b"\1" * (800 << 20)
    assert peak_rss() > len(held)
    command = [sys.executable, "-c", "from r1v0.device import peak_rss; print(peak_rss())"]
    child = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 50 << 20 < child < len(held)

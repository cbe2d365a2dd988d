"""What a process says it took, and with how many threads it computes."""

import subprocess
import sys

import pytest
import torch

from r1v0.config import resolve
from r1v0.device import peak_rss, set_threads


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not start with its parent's peak")
def test_a_process_does_not_start_with_its_parents_peak() -> None:
    held = b"\1" * (800 << 20)
    assert peak_rss() > len(held)
    command = [sys.executable, "-c", "from r1v0.device import peak_rss; print(peak_rss())"]
    child = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 50 << 20 < child < len(held)


def test_the_number_of_threads_is_known_also_where_it_is_torchs_choice() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(resolve("countdown", sets=["threads=0"])) == before
        assert set_threads(resolve("countdown", sets=["threads=3"])) == 3 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)

"""What a process says it took, and with how many threads it computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from r1v0.config import resolve
from r1v0.device import peak_rss, set_threads

CPUINFO = Path("/proc/cpuinfo")
FLAGS = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()


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


@pytest.mark.skipif("avx2" not in FLAGS, reason="oneDNN's limits have other names on other processors")
@pytest.mark.parametrize("limit", ["", "AVX2", "AVX512_CORE"])
def test_bfloat16_is_native_where_the_processor_has_it_and_onednn_may_use_it(limit: str) -> None:
    """The processor's flags say what it has; under a limit oneDNN emulates bfloat16, as on a processor without it."""
    command = [sys.executable, "-c", "from r1v0.device import *; print(bfloat16_is_native(), bfloat16_cost())"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN")}
    limits = {"ONEDNN_MAX_CPU_ISA": limit} if limit else {}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment | limits)
    if not limit and "avx_ne_convert" in FLAGS and "avx512_bf16" not in FLAGS:
        pytest.skip("this processor only converts: about as fast as float32")
    assert done.stdout.split()[0] == str(not limit and bool({"avx512_bf16", "amx_bf16"} & FLAGS)), done.stdout

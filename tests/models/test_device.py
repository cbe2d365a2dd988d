"""What a process says it took, and with how many threads it computes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from r1v0.cli import main
from r1v0.config import Config, parse, resolve
from r1v0.models import device
from r1v0.models.device import choose_device, choose_sampling, peak_rss, set_threads, settled

CPUINFO = Path("/proc/cpuinfo")
FLAGS = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not start with its parent's peak")
def test_a_process_does_not_start_with_its_parents_peak() -> None:
    held = b"\1" * (800 << 20)
    assert peak_rss() > len(held)
    command = [sys.executable, "-c", "from r1v0.models.device import peak_rss; print(peak_rss())"]
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
    command = [sys.executable, "-c", "from r1v0.models.device import *; print(bfloat16_is_native(), bfloat16_cost())"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN")}
    limits = {"ONEDNN_MAX_CPU_ISA": limit} if limit else {}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment | limits)
    if not limit and "avx_ne_convert" in FLAGS and "avx512_bf16" not in FLAGS:
        pytest.skip("this processor only converts: about as fast as float32")
    assert done.stdout.split()[0] == str(not limit and bool({"avx512_bf16", "amx_bf16"} & FLAGS)), done.stdout


def config_of(*sets: str) -> Config:
    return resolve("countdown", sets=["compute.device=cpu", *sets])


@pytest.mark.parametrize(
    ("cost", "expected"), [(0.5, "bfloat16"), (1.0, "bfloat16"), (2.5, "float32"), (5.0, "float32")]
)
def test_fastest_is_what_this_cpu_does_well_and_the_config_says_which(
    cost: float, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "bfloat16_cost", lambda: cost)
    chosen = settled(config_of("compute.dtype=fastest"))
    assert chosen == config_of(f"compute.dtype={expected}")
    assert str(choose_device(config_of("compute.dtype=fastest"))[1]) == f"torch.{expected}"
    for dtype in ("auto", "float32", "bfloat16"):
        assert settled(config_of(f"compute.dtype={dtype}")) == config_of(f"compute.dtype={dtype}")
    assert choose_device(config_of())[1] == torch.float32
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("choose", [choose_device, choose_sampling])
@pytest.mark.parametrize(("key", "instead"), [("compute", "float32"), ("sampling", "auto")])
def test_bfloat16_that_is_emulated_is_said_so_in_one_line(
    choose: Callable[[Config], object],
    key: str,
    instead: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(device, "bfloat16_cost", lambda: 4.52)
    choose(config_of(f"{key}.dtype=bfloat16"))
    assert capsys.readouterr().err == (
        f"r1v0: {key}.dtype=bfloat16: this CPU emulates bfloat16, a matrix product takes 4.5 times as long as "
        "in float32; "
        f"{key}.dtype={instead} is faster\n"
    )
    monkeypatch.setattr(device, "bfloat16_cost", lambda: 0.5)
    choose(config_of(f"{key}.dtype=bfloat16"))
    choose(config_of("compute.dtype=fastest"))
    assert capsys.readouterr().err == ""


def test_the_preset_of_a_real_model_asks_for_what_the_processor_does_well() -> None:
    assert resolve("smollm2-135m-sums").compute.dtype == "fastest"


@pytest.mark.parametrize(("cost", "expected"), [(0.5, "bfloat16"), (5.0, "float32")])
def test_a_runs_config_and_record_say_which_it_was(
    cost: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a resumed run keeps it, whatever the processor is by then."""
    monkeypatch.setattr(device, "bfloat16_cost", lambda: cost)
    sets = ["steps=1", "eval.on=[]", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "threads=1"]
    options = [part for item in (*sets, "compute.dtype=fastest") for part in ("--set", item)]
    assert main(["train", "--out", str(tmp_path / "run"), *options]) == 0
    assert parse((tmp_path / "run" / "config.toml").read_text(), "config.toml").compute.dtype == expected
    assert json.loads((tmp_path / "run" / "env.json").read_text())["dtype"] == expected
    monkeypatch.setattr(device, "bfloat16_cost", lambda: 5.5 - cost)
    assert main(["train", "--resume", str(tmp_path / "run"), "--set", "steps=2"]) == 0
    assert parse((tmp_path / "run" / "config.toml").read_text(), "config.toml").compute.dtype == expected

"""Where a run computes: the device and type of the policy, CPU threads, and the memory it took."""

import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from r1v0.base.errors import UserError
from r1v0.base.notes import to_stderr
from r1v0.config import Config

# Times float32's that a bfloat16 product may take where the processor has bfloat16: 0.5 measured, 4 to 5 by emulation.
NATIVE = 1.5


def set_threads(config: Config) -> int:
    """Use `threads` CPU threads; 0 leaves torch's choice, one a core. How many they are."""
    if config.threads:
        torch.set_num_threads(config.threads)
    return torch.get_num_threads()


def device_name(device: torch.device) -> str:
    """The GPU's name; empty on a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def settled(config: Config) -> Config:
    """The config with compute.dtype=fastest replaced by what it is on this machine, so that it alone reproduces the
    run."""
    if config.compute.dtype != "fastest":
        return config
    fast = _device(config).type == "cuda" or bfloat16_is_native()
    return replace(config, compute=replace(config.compute, dtype="bfloat16" if fast else "float32"))


def choose_device(config: Config) -> tuple[torch.device, torch.dtype]:
    """Where and in which type the policy computes; says in one line what a CPU has to emulate. Raises UserError for
    a GPU that is not there."""
    device, chosen = _device(config), settled(config).compute.dtype
    automatic = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = automatic if chosen == "auto" else getattr(torch, chosen)
    if device.type == "cpu" and (dtype == torch.bfloat16 or config.sampling.dtype == "bfloat16"):
        key, other = ("compute", "float32") if dtype == torch.bfloat16 else ("sampling", "auto")
        if not bfloat16_is_native():
            to_stderr(
                f"{key}.dtype=bfloat16: this CPU emulates bfloat16, a matrix product takes "
                f"{bfloat16_cost():.1f} times as "
                f"long as in float32; {key}.dtype={other} is faster"
            )
    return device, dtype


def _device(config: Config) -> torch.device:
    wanted = config.compute.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "compute.device is cuda, but torch sees no GPU: install a CUDA build of torch, or set compute.device=cpu"
        )
    return torch.device("cuda" if wanted == "auto" and torch.cuda.is_available() else wanted.replace("auto", "cpu"))


def choose_sampling(config: Config) -> tuple[torch.device, torch.dtype]:
    """Where and in which type a model computes that only samples: as in training, so that figures compare."""
    device, dtype = choose_device(config)
    return device, dtype if config.sampling.dtype == "auto" else torch.bfloat16


@cache
def bfloat16_cost() -> float:
    """The time of a matrix product in bfloat16 on this CPU, as a multiple of float32's.

    Measured once a process, in some 20 to 100 ms. `torch.ops.mkldnn._is_mkldnn_bf16_supported()` cannot tell: it is
    True for AVX-512 without bfloat16, where the product takes 4 times as long.
    """
    rows, weight = torch.ones(256, 768), torch.ones(768, 768)
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(5):
        for dtype in best:
            x, w = rows.to(dtype), weight.to(dtype)
            start = time.perf_counter()
            F.linear(x, w)
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.bfloat16] / best[torch.float32]


def bfloat16_is_native() -> bool:
    """Whether this CPU computes in bfloat16 itself, or at least no slower than in float32, instead of emulating it."""
    return bfloat16_cost() < NATIVE


def peak_memory_gb(device: torch.device) -> float:
    """Most memory used so far, in GB: the GPU's, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_rss() / 1e9


def peak_rss() -> int:
    """Most memory that this process has held so far, in bytes (Linux and macOS).

    From /proc where there is one: on Linux a new process begins with the `ru_maxrss` of the one that started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

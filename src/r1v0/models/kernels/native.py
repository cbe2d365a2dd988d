"""native.c for this machine: what a decoding step on a CPU does between its matrix products.

Decides: a step of a small model is some hundred operations of microseconds each, and calling them costs more than
what they compute; attention, one call for each row and head inside PyTorch, is a third of it. So where the system
has a C compiler, those steps are compiled when sampling first needs them (half a second; nothing is left on the
disk), tried beside PyTorch's (tried.py), and used if they agree; in every other case PyTorch's own are. With several
threads, attention that is long enough is shared out by OpenMP: by the very pool of threads that PyTorch has, as the
library is linked with no other; where torch has loaded none, attention has one thread. The compiler is the one that
CC names, `cc` by default; an empty CC switches all this off. Sampled logprobs differ from training's by float32
rounding, as between any two kernels.
"""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from r1v0.models.ops import Steps
from r1v0.models.shape import ModelConfig
from r1v0.models.tried import Pairs, leave_out, works

SOURCE = Path(__file__).with_name("native.c")
# No -ffast-math: it would set the whole process to flush denormal numbers, and forget about NaN.
FLAGS = (
    "-std=c11",
    "-ffp-contract=fast",
    "-O3",
    "-march=native",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fassociative-math",
    "-fno-signed-zeros",
)
DTYPES = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}
MOST_QUERIES = 4  # answered together: as many sums as the registers hold
SHORTEST = 1 << 14  # numbers of keys that one call attends over, under which more threads gain nothing


class Kernels:
    """The compiled functions for one head size and type. Tensors are on the CPU, of that type, without gradients."""

    def __init__(self, library: ctypes.CDLL, head_dim: int, queries: int) -> None:
        self.head_dim, self.queries = head_dim, queries
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        for name, kinds in {
            "rms_norm": (number, number, pointer, pointer, ctypes.c_float, pointer),
            "rotate": (number, number, number, pointer, number, pointer, pointer, pointer),
            "swiglu": (number, number, pointer, pointer),
            "attend": (
                *(number,) * 4,
                *(pointer, number) * 3,
                pointer,
                pointer,
                number,
                *(pointer,) * 4,
                number,
                pointer,
                pointer,
                number,
                pointer,
            ),
        }.items():
            function = getattr(library, name)
            function.argtypes, function.restype = kinds, None
            setattr(self, "_" + name, function)
        self._rms_norm: Callable[..., None]
        self._rotate: Callable[..., None]
        self._swiglu: Callable[..., None]
        self._attend: Callable[..., None]
        self.steps: Steps = (self.rms_norm, self.rotate, self.swiglu)

    def threads(self, positions: int) -> int:
        """How many threads an `attend` over this many positions of all rows is worth."""
        return torch.get_num_threads() if positions * self.head_dim >= SHORTEST else 1

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """ops.rms_norm."""
        x = x.contiguous()
        out = torch.empty_like(x)
        width = x.shape[-1]
        self._rms_norm(x.numel() // width, width, x.data_ptr(), weight.data_ptr(), eps, out.data_ptr())
        return out

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """ops.rotate: x [T, heads, head_dim], its last two dimensions contiguous; cos, sin [T, 1, head_dim /
        2]."""
        tokens, heads, dim = x.shape
        out = x.new_empty(tokens, heads, dim)
        self._rotate(tokens, heads, dim // 2, x.data_ptr(), x.stride(0), cos.data_ptr(), sin.data_ptr(), out.data_ptr())
        return out

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """ops.swiglu: [T, 2 x intermediate] contiguous."""
        tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty(tokens, width)
        self._swiglu(tokens, width, gate_up.data_ptr(), out.data_ptr())
        return out

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        prompts: tuple[Tensor, Tensor],
        owners: Tensor,
        starts: Tensor,
        slots: tuple[Tensor, Tensor],
        own: Tensor,
        scratch: Tensor,
    ) -> Tensor:
        """Store one new token's key and value in each row's slot, at `own` [rows], and attend over the row's prompt
        and slot.

        q [rows, heads, head_dim], k, v [rows, kv_heads, head_dim]; keys and values of `prompts` and `slots` [.,
        kv_heads, room, head_dim]; owners, starts [rows]: each row's prompt and its length (0: none); scratch float32
        [threads, `queries` x the longest row]. Returns [rows, heads, head_dim].
        """
        rows, heads, dim = q.shape
        out = q.new_empty(rows, heads, dim)
        self._attend(
            scratch.shape[0],
            rows,
            k.shape[1],
            heads // k.shape[1],
            q.data_ptr(),
            q.stride(0),
            k.data_ptr(),
            k.stride(0),
            v.data_ptr(),
            v.stride(0),
            prompts[0].data_ptr(),
            prompts[1].data_ptr(),
            prompts[0].shape[2],
            owners.data_ptr(),
            starts.data_ptr(),
            slots[0].data_ptr(),
            slots[1].data_ptr(),
            slots[0].shape[2],
            own.data_ptr(),
            scratch.data_ptr(),
            scratch.shape[1],
            out.data_ptr(),
        )
        return out


def kernels(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Kernels | None:
    """The compiled steps for a model that is sampled on this device now; None where PyTorch's are to be used."""
    compiler = os.environ.get("CC", "cc")
    if device.type != "cpu" or dtype not in DTYPES or not compiler:
        return None
    name = f"compiled decoding steps ({str(dtype).removeprefix('torch.')})"
    group = config.heads // config.kv_heads
    queries = max(count for count in range(1, MOST_QUERIES + 1) if group % count == 0)
    found = _built(config.head_dim, queries, dtype, compiler)
    if found is None:
        leave_out(name, f"'{compiler}' is not a C compiler that works here", tell=False)
        return None
    case = (config.hidden, config.intermediate, config.heads, config.kv_heads, config.head_dim, dtype, compiler)
    return found if works(name, case, partial(_trial, found, config, dtype)) else None


@cache
def _built(head_dim: int, queries: int, dtype: torch.dtype, compiler: str) -> Kernels | None:
    """Compiled once a process."""
    library = _compiled(compiler, f"-DDIM={head_dim}", f"-DQUERIES={queries}", *DTYPES[dtype])
    return None if library is None else Kernels(library, head_dim, queries)


def _compiled(compiler: str, *definitions: str) -> ctypes.CDLL | None:
    """native.c as a library; None without a working compiler. The files are gone once it is loaded."""
    if not compiler or os.name != "posix":
        return None
    for openmp in (("-fopenmp",), ()):
        with tempfile.TemporaryDirectory(prefix="r1v0-native-") as folder:
            made, target = str(Path(folder) / "native.o"), str(Path(folder) / "native.so")
            compiling = [*FLAGS, *openmp, *definitions, "-c", "-o", made, str(SOURCE)]
            linking = ["-shared", "-o", target, made, "-lm"]  # not with OpenMP: its functions are torch's
            try:
                for step in (compiling, linking):
                    command = [*compiler.split(), *step]
                    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
                return ctypes.CDLL(target)
            except (OSError, subprocess.SubprocessError):
                continue
    return None


def _trial(found: Kernels, config: ModelConfig, dtype: torch.dtype) -> Pairs:
    """Each function's results for a few rows of this model, and PyTorch's in float64."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    rows, hidden, kv_heads, dim = 3, config.hidden, config.kv_heads, config.head_dim
    group = config.heads // kv_heads
    x, weight, gate_up = random(rows, hidden), random(hidden), random(rows, 2 * config.intermediate) * 9
    gate, up = gate_up.double().chunk(2, -1)
    pairs = [
        (found.rms_norm(x, weight, 1e-6), F.rms_norm(x.double(), (hidden,), weight.double(), 1e-6)),
        (found.swiglu(gate_up), F.silu(gate) * up),
    ]
    qkv, cos, sin = random(rows, (group + 2) * kv_heads, dim), random(rows, 1, dim // 2), random(rows, 1, dim // 2)
    a, b = qkv.double().chunk(2, -1)
    turned = torch.cat([a * cos.double() - b * sin.double(), b * cos.double() + a * sin.double()], -1)
    pairs.append((found.rotate(qkv, cos, sin), turned))

    q, k, v = qkv.split([group * kv_heads, kv_heads, kv_heads], dim=1)
    prompts = random(2, kv_heads, 40, dim), random(2, kv_heads, 40, dim)
    slots = random(rows, kv_heads, 30, dim), random(rows, kv_heads, 30, dim)
    owners, starts, own = torch.tensor([1, 0, 0]), torch.tensor([37, 5, 0]), torch.tensor([0, 29, 16])
    before = [tensor.clone() for tensor in slots]
    scratch = torch.empty(torch.get_num_threads(), found.queries * 70)
    out = found.attend(q, k, v, prompts, owners, starts, slots, own, scratch)
    for row in range(rows):
        seen: list[Tensor] = []
        for shared, mine, new, stored in zip(prompts, before, (k, v), slots, strict=True):
            mine[row, :, own[row]] = new[row]
            pairs.append((stored[row], mine[row].double()))
            past = torch.cat([shared[owners[row], :, : starts[row]], mine[row, :, : own[row] + 1]], dim=1)
            seen.append(past.double().repeat_interleave(group, 0))  # [heads, positions, dim]
        asked = q[row].double()[:, None]
        pairs.append((out[row], F.scaled_dot_product_attention(asked, seen[0], seen[1])[:, 0]))
    return pairs

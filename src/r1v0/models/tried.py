"""Fast operators, each tried once beside PyTorch's plain operation before anything relies on it.

Decides: that an operator is there does not say that it works: the processor may lack what it needs, the compiler may be
broken, another PyTorch may have changed it. So whoever would use one gives a trial: pairs of what the fast operator and
the plain one return, on the shapes of the model at hand. One that raises, or differs by more than rounding, is left out
for the rest of the process. The user is told in one line, env.json has all outcomes, and the run goes on.
"""

from collections.abc import Callable, Hashable, Iterable
from threading import RLock

import torch
from torch import Tensor

from r1v0.base.notes import to_stderr

Pairs = Iterable[tuple[Tensor, Tensor]]
# Of the largest number in a result: some roundings.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
USED = "used"

_works: dict[tuple[str, Hashable], bool] = {}
_outcomes: dict[str, str] = {}
_lock = RLock()  # micro-batches are trained on by several threads


def works(name: str, case: Hashable, trial: Callable[[], Pairs]) -> bool:
    """`tried`, once per name and case."""
    with _lock:
        if (name, case) not in _works:
            _works[name, case] = tried(name, trial)
        return _works[name, case]


def tried(name: str, trial: Callable[[], Pairs]) -> bool:
    """Whether the fast operator `name` returns what the plain one does."""
    wrong = _wrong(trial)
    if wrong:
        leave_out(name, wrong)
    else:
        _outcomes.setdefault(name, USED)
    return not wrong


def leave_out(name: str, why: str, tell: bool = True) -> None:
    """Note that an operator is not used, and tell the user the first time."""
    if tell and not is_left_out(name):
        to_stderr(f"{name}: left out, PyTorch's plain operation runs instead (slower, same results): {why}")
    _outcomes[name] = f"left out: {why}"


def is_left_out(name: str) -> bool:
    return _outcomes.get(name, USED) != USED


def outcomes() -> dict[str, str]:
    """Of each operator that was tried: "used", or why it is left out."""
    return dict(sorted(_outcomes.items()))


def _wrong(trial: Callable[[], Pairs]) -> str:
    """What is wrong with an operator, in one line; empty if nothing is."""
    try:
        for fast, plain in trial():
            error, most = difference(fast, plain), TOLERANCE[fast.dtype]
            if not error <= most:
                return f"its numbers are wrong by {error:.1e} of the largest, and {most:.0e} is rounding"
    except Exception as error:  # whatever it is, the plain operation is there
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ""


def difference(fast: Tensor, plain: Tensor) -> float:
    """The largest difference, as a share of the largest finite number in `plain`. What is not finite must be equal."""
    if fast.shape != plain.shape:
        raise ValueError(f"its result has the shape {list(fast.shape)}, not {list(plain.shape)}")
    fast, plain = fast.detach().double(), plain.detach().double()
    alike = (fast == plain) | (fast.isnan() & plain.isnan())
    largest = plain[plain.isfinite()].abs().max() if plain.isfinite().any() else plain.new_ones(())
    return float(((fast - plain).abs() / largest.clamp_min(1e-30)).masked_fill(alike, 0.0).max())

"""A user's own reward: FILE.py:FUNCTION.

Decides: the file is run in the grading processes only, with their limits and without the trainer's environment.
Whatever is wrong with it is the user's to know: a function that raises anything (`sys.exit()` and Ctrl-C's exception
too), or returns something that is not a score, stops the run with one line. One that takes too long or ends its
process (`os._exit()`, too much memory, a crash in C) is graded 0, and the first time of each kind is told (pool.py).
"""

import contextlib
import importlib.util
import math
import numbers
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError, unknown
from r1v0.tasks.rewards import RewardFunction
from r1v0.types import Problem, Score


def load(name: str) -> RewardFunction:
    """The function, with its result made a Score. Raises UserError if the file cannot be run or has no such
    function."""
    path, _, attribute = name.rpartition(":")
    function = getattr(_module(Path(path).resolve(), name), attribute, None)
    if function is None:
        known = [key for key, value in vars(_module(Path(path).resolve(), name)).items() if callable(value)]
        raise unknown(f"function in {path}", attribute, known)
    if not callable(function):
        raise UserError(
            f"reward '{name}': {attribute} is {_kind(function)}: expected a function (problem, text, finished)"
        )

    def graded(problem: Problem, text: str, finished: bool) -> Score:
        try:
            result = function(problem, text, finished)
            return as_score(result, name)
        except (MemoryError, UserError):
            raise
        except BaseException as error:  # also SystemExit, KeyboardInterrupt and the like
            raise UserError(
                f"reward '{name}' raised {_told(error, path)} on problem {problem.id!r}: fix the function"
            ) from error

    return graded


def as_score(result: Any, name: str) -> Score:
    """A user's result as a Score. A number is a reward, and "correct" from 1 on; one of NumPy's or in an array alone
    is one too. Raises UserError for anything else."""
    if isinstance(result, Score):
        reward = as_score(result.reward, name).reward
        extracted = None if result.extracted is None else str(result.extracted)
        return Score(reward=reward, correct=bool(result.correct), strict=bool(result.strict), extracted=extracted)
    value = _number(result)
    if value is not None and math.isfinite(value):
        return Score(reward=value, correct=value >= 1.0)
    hint = {
        "generator": " (a function with `yield` returns none of its values)",
        "coroutine": " (`async` is not awaited)",
    }
    raise UserError(
        f"reward '{name}' returned {_kind(result)} {_shown(result)}{hint.get(_kind(result), '')}: "
        "expected a Score, a finite number or a bool"
    )


def _number(result: Any) -> float | None:
    """A number, a bool, or an array or tensor that holds one of these alone; None of anything else."""
    with contextlib.suppress(Exception):
        if callable(getattr(result, "item", None)):
            result = result.item()
        if isinstance(result, bool | numbers.Real):
            return float(result)
    return None


def _module(path: Path, name: str) -> Any:
    module_name = f"r1v0_reward_{path.stem}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"reward '{name}': {path} cannot be loaded: give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses in the file look themselves up here
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except MemoryError:
        raise
    except BaseException as error:
        del sys.modules[module_name]
        raise UserError(f"reward '{name}': running the file raised {_told(error, str(path))}: fix the file") from error
    return module


def _told(error: BaseException, path: str) -> str:
    """An exception in one line, with the line of the user's file that it came from."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == Path(path).name
    ]
    where = f" at line {lines[-1]}" if lines else ""
    said = " ".join(_shown(error, str).split())
    return f"{type(error).__name__}{': ' if said else ''}{said}{where}"


def _shown(value: Any, how: Callable[[Any], str] = repr) -> str:
    """A user's object as text, cut short; its own `__repr__` may fail."""
    try:
        return how(value)[:200]
    except Exception:
        return "(which cannot be shown)"


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")

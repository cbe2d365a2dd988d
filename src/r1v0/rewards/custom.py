"""A user's own reward: FILE.py:FUNCTION.

Decides: the file is run in the grading processes only, with their limits and without the trainer's environment. Whatever
is wrong with it is the user's to know: a function that raises, or gives back something that is no score, stops the run
with one line, and is never a silent 0.
"""

import importlib.util
import math
import numbers
import sys
import traceback
from pathlib import Path
from typing import Any

from r1v0.errors import UserError, unknown
from r1v0.rewards import RewardFunction
from r1v0.types import Problem, Score


def load(name: str) -> RewardFunction:
    """The function, with its result made a Score. Raises UserError if the file cannot be run or has no such function."""
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
        except MemoryError:
            raise
        except Exception as error:
            raise UserError(
                f"reward '{name}' raised {_told(error, path)} on problem {problem.id!r}: mend the function"
            ) from error
        return as_score(result, name)

    return graded


def as_score(result: Any, name: str) -> Score:
    """A user's result as a Score. A number is a reward, and "correct" from 1 on. Raises UserError for anything else."""
    if isinstance(result, Score):
        reward = as_score(result.reward, name).reward
        extracted = None if result.extracted is None else str(result.extracted)
        return Score(reward=reward, correct=bool(result.correct), strict=bool(result.strict), extracted=extracted)
    if isinstance(result, bool | numbers.Real) and math.isfinite(result):
        return Score(reward=float(result), correct=float(result) >= 1.0)
    raise UserError(
        f"reward '{name}' gave back {_kind(result)} {result!r:.100}: expected a Score, a finite number or a bool"
    )


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
    except Exception as error:
        del sys.modules[module_name]
        raise UserError(f"reward '{name}': running the file raised {_told(error, str(path))}: mend the file") from error
    return module


def _told(error: Exception, path: str) -> str:
    """An exception in one line, with the line of the user's file that it came from."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == Path(path).name
    ]
    where = f" at line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}"


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")

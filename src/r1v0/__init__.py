"""r1v0: DeepSeek R1-Zero's curves of test-time scaling, redrawn on small models.

    import r1v0
    config = r1v0.load_config("steps=20", "eval.on=[]")
    run = r1v0.train(config, problems=[("1 + 1", "2"), ...], reward=my_function)
    rows = r1v0.evaluate(run, ["countdown"])
    print(r1v0.sample(run, "3 7 4 target 17"))

Everything is loaded when it is asked for: `import r1v0` loads neither torch nor anything else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1v0.config import Config
    from r1v0.jobs.library import evaluate, load_config, sample, train
    from r1v0.types import Batch, Completion, EvalResult, Group, Problem, Prompt, Rollout, Score

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Completion",
    "Config",
    "EvalResult",
    "Group",
    "Problem",
    "Prompt",
    "Rollout",
    "Score",
    "__version__",
    "evaluate",
    "load_config",
    "sample",
    "train",
]


def __getattr__(name: str) -> Any:
    """A name of `__all__`, whose module is loaded then."""
    for module in ("r1v0.types", "r1v0.config", "r1v0.jobs.library") if name in __all__ else ():
        if name in getattr(found := importlib.import_module(module), "__all__", ()) or name in vars(found):
            return getattr(found, name)
    raise AttributeError(f"module 'r1v0' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

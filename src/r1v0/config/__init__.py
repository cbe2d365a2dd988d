"""The settings of a run: what there is (schema), how it is read and layered (load), what is refused (checks), how it is
written (text), and tables about them (names).

Decides: what only names a setting loads schema.py alone; the rest of this face comes when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from r1v0.config.schema import (  # fmt: skip
    CHAT,
    DEFAULT,
    SET,
    VARIANTS,
    CheckpointsConfig,
    ComputeConfig,
    Config,
    DataConfig,
    EvalConfig,
    GrpoConfig,
    HealthConfig,
    LoraConfig,
    OptimizerConfig,
    PromptConfig,
    RewardConfig,
    SamplingConfig,
    is_own_reward,
)

if TYPE_CHECKING:
    from r1v0.config.checks import MAY_CHANGE, MAY_MOVE, need_resumable, validate
    from r1v0.config.load import (  # fmt: skip
        MAX_TOML,
        PRESET_DIR,
        changed,
        layered,
        parse,
        preset_layer,
        preset_text,
        presets,
        read_file,
        read_text,
        resolve,
        resume,
        set_layer,
        with_template,
    )
    from r1v0.config.names import FIRST, LARGEST, REFUSED, RENAMED, TRACKERS
    from r1v0.config.text import described, differences, keys, origins_in, printable, to_toml, toml_value, value_of


def __getattr__(name: str) -> Any:
    """A name of the other files, which are loaded then."""
    for file in ("load", "text", "checks", "names") if name in __all__ else ():
        module = importlib.import_module(f"r1v0.config.{file}")
        if name in vars(module):
            return getattr(module, name)
    raise AttributeError(f"module 'r1v0.config' has no attribute '{name}'")


__all__ = [
    "CHAT", "DEFAULT", "FIRST", "LARGEST", "MAX_TOML", "MAY_CHANGE", "MAY_MOVE", "PRESET_DIR", "REFUSED", "RENAMED",
    "SET", "TRACKERS", "VARIANTS", "CheckpointsConfig", "ComputeConfig", "Config", "DataConfig", "EvalConfig", "GrpoConfig",
    "HealthConfig", "LoraConfig", "OptimizerConfig", "PromptConfig", "RewardConfig", "SamplingConfig", "changed",
    "described", "differences", "is_own_reward", "keys", "layered", "need_resumable", "origins_in", "parse",
    "preset_layer", "preset_text", "presets", "printable", "read_file", "read_text", "resolve", "resume",
    "set_layer", "to_toml", "toml_value", "validate", "value_of", "with_template",
]  # fmt: skip

"""What a run was made of, in words that may be published: its base, its data, its settings.

Decides: names stay and folders go. A setting's path tells a reader nothing but where somebody keeps files.
"""

import re
from pathlib import Path
from typing import Any

from r1v0.config import Config, differences, printable, toml_value, value_of
from r1v0.runs.runlog import CHECKPOINTS
from r1v0.tasks.datasets import DATASETS, eval_name
from r1v0.tasks.reading.source import Generated, Source

TOLD = (
    "model",
    "steps",
    "data.name",
    "reward.name",
    "sampling.max_new_tokens",
    "grpo.variant",
    "grpo.groups",
    "grpo.group_size",
    "optimizer.lr",
)
"""settings that a recipe names also where they are the defaults"""

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_CACHED = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/", re.ASCII)
_FOLDERS = re.compile(r"(?<![\w.-])~?/(?:[^/=,]*/)*")


def base_of(model: str) -> tuple[str, str | None]:
    """What the base of a run is called, without the folders that it lies in; and its hub id, if it has one."""
    if cached := _CACHED.search(model):
        return "/".join(cached.groups()), "/".join(cached.groups())
    if _HUB_ID.fullmatch(model):
        return model, model
    path = Path(model)
    if path.parent.name == CHECKPOINTS:
        return f"{path.parents[1].name}/{path.name}", None
    return path.name, None


def bare(value: Any) -> Any:
    """A setting without the folders of its paths: "math=/home/me/rows.jsonl" is "math=rows.jsonl"."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, list):
        return [bare(entry) for entry in value]
    return {bare(key): entry for key, entry in value.items()} if isinstance(value, dict) else value


def recipe(config: Config) -> str:
    """The settings of TOLD and all that differ from the built-in defaults, as TOML that --config takes."""
    different = differences(Config(), config)
    lines = []
    for key in dict.fromkeys((*TOLD, *different)):
        value = value_of(config, key)
        if key == "model":
            value = base_of(value)[0]
        elif key not in ("prompt.text", "prompt.stop"):  # words of the user's own, in which a "/" is a character
            value = bare(value)
        lines.append(f"{key} = {toml_value(value)}")
    return "\n".join(lines)


def datasets(config: Config) -> tuple[list[str], list[str]]:
    """The datasets that a run was trained on and evaluated on, each in words: "gsm8k (openai/gsm8k)"."""
    trained = [_told(spec, config.data.path) for spec in config.data.name.split("+")]
    return trained, [_told(spec) for spec in config.eval.on]


def hub_ids(config: Config) -> list[str]:
    """The hub ids of the datasets that a run was trained on, where they came from the hub."""
    found = [hub_id(spec, config.data.path) for spec in config.data.name.split("+")]
    return list(dict.fromkeys(filter(None, found)))


def hub_id(spec: str, path: str = "") -> str | None:
    """The hub id of NAME or NAME=PATH, or of a name at `path`; None for local data and data that are made."""
    path = spec.partition("=")[2].strip() or path
    if path:
        found = path.partition(":")[0]
        return found if _HUB_ID.fullmatch(found) else None
    row = DATASETS.get(eval_name(spec))
    return row.hub or None if isinstance(row, Source) else None


def _told(spec: str, path: str = "") -> str:
    name, found = eval_name(spec), hub_id(spec, path)
    path = spec.partition("=")[2].strip() or path
    if found:
        where = found
    elif path:
        where = f"the user's own, {Path(path).name}"
    else:
        where = "made by r1v0" if isinstance(DATASETS.get(name), Generated) else "the user's own"
    return printable(f"{name} ({where})")

"""Which runs are seeds of one setting, told by their settings alone; and names for what differs between them.

Decides: runs whose settings differ in the seed alone are one group, whatever their folders are called. What follows
from another setting is not named beside it: a variant of GRPO or a prompt template stands for all that it sets.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from r1v0 import config
from r1v0.config import Config
from r1v0.runs import records, runlog

SEED = "seed"
OF_TEMPLATE = ("prompt.text", "prompt.stop")


def settings_of(run: Path) -> Config:
    """The settings of a run folder; the built-in ones where it holds none. Raises UserError if they are damaged."""
    if not (run / runlog.CONFIG).is_file():
        return Config()
    return config.parse(records.config_text(run), str(run / runlog.CONFIG))


def model_and_data(run: Path) -> str:
    """What a run trains on what: "tiny on countdown-train"."""
    found = settings_of(run)
    return f"{value_text(found.model)} on {found.data.name}"


def by_settings(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Runs by what their settings differ in but for the seed: "lr=0.0003, group_size=8" -> run folders.

    Groups come in the order of their values, numbers as numbers. Where nothing differs, the one label is empty. Raises
    UserError for settings that cannot be read.
    """
    configs = {run: settings_of(run) for run in runs}
    keys = differing(list(configs.values()))
    names = short_names(keys)
    groups: dict[str, list[Path]] = {}
    for run in sorted(runs, key=lambda run: [_rank(config.value_of(configs[run], key)) for key in keys]):
        said = ((names[key], config.value_of(configs[run], key)) for key in keys)
        groups.setdefault(", ".join(f"{name}={value_text(value)}" for name, value in said), []).append(run)
    return groups


def differing(configs: Sequence[Config]) -> list[str]:
    """The dotted keys, but for the seed, that have several values in these configs and do not follow from another."""

    def values(key: str) -> list[Any]:
        return [config.value_of(one, key) for one in configs]

    found = [key for key in config.described() if key != SEED and any(value != values(key)[0] for value in values(key))]
    if "prompt.template" in found:
        found = [key for key in found if key not in OF_TEMPLATE]
    if "grpo.variant" in found:
        rows = [config.VARIANTS[one.grpo.variant] for one in configs]
        implied = {f"grpo.{name}" for name in rows[0] if [row[name] for row in rows] == values(f"grpo.{name}")}
        found = [key for key in found if key not in implied]
    return found


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys by their last part, or in full where another key has the same last part."""
    keys = list(keys)
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def value_text(value: Any) -> str:
    """A setting's value for people: 0.0003, 1e-05, gspo, ["countdown"]."""
    if isinstance(value, str):
        return Path(value).name if value.startswith("/") else value or '""'
    return f"{value:g}" if isinstance(value, float) else config.toml_value(value)


def _rank(value: Any) -> tuple[str, Any]:
    """Orders values of one setting: numbers by size, all others by their text."""
    return ("number", value) if isinstance(value, int | float) else ("text", value_text(value))

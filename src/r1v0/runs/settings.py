"""What a command works with: one rule for every verb.

    built-in defaults  <  the preset  <  --config  <  --set

Decides: which flags are absent changes nothing in that order. The preset, where none is named, is that of the
model's run (a run folder and each of its checkpoints alike: the settings that the run resolved), else that of the
dataset asked for (its row in data.DATASETS; one made for the very model first), else `countdown` for `tiny`. Any
other model has none.

An evaluation asks each dataset with the dataset's own limits and reward (`asked`); the model or its run brings the
words. Only what is named on the command line, in --config or by --preset goes before them, and, for the datasets
that a run itself was trained or measured on, that run's limit and reward, so that the figure stands beside its
curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1v0 import config as configs
from r1v0.config import DEFAULT, SET, Config
from r1v0.runs import records, runlog
from r1v0.tasks.datasets import DATASETS, eval_name
from r1v0.tasks.reading.source import OWN

TINY = "tiny"
Layer = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Settled:
    """A validated config, where each of its values comes from, and the whole in a line. `preset` is the preset's
    name, if there is one, and `named` says that the user gave it; `run` is the config that stands in its place, of
    the model's run."""

    config: Config
    origins: Mapping[str, str]
    line: str
    preset: str = ""
    named: bool = False
    run: Config | None = None

    def toml(self) -> str:
        """The config as TOML that says in a line what was settled, and behind each value where it comes from."""
        return f"# {configs.printable(self.line)}\n{configs.to_toml(self.config, self.origins)}"

    def of(self, config: Config) -> "Settled":
        """The same with the config that a run made of it: what is "auto" may have become a name."""
        return replace(self, config=config)


def settle(
    model: str | None = None,
    preset: str | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    evaluates: bool = False,
) -> Settled:
    """The settings of a command. `model` is its MODEL, where it has one (training names its own by `model=`);
    `flags` are settings that have an option of their own, by its name; `evaluates`: the dataset asked for is that of
    eval.on.

    Raises UserError as `config.resolve` does, and for a run folder whose settings cannot be read.
    """
    given: list[Layer] = [] if file is None else [(f"--config {file}", configs.read_file(file))]
    given += [*(flags or {}).items(), (SET, configs.set_layer(sets))]
    asked_model = model if model is not None else _text(given, "model")
    run, label, name, layer = None, "", preset or "", dict[str, Any]()
    if preset is not None:
        label, layer = f"preset {preset}", configs.preset_layer(preset)
    elif found := run_settings(asked_model):
        text, where, label = found
        layer, run = configs.read_text(text, where), configs.parse(text, where)
    else:
        name, why = _preset_for(asked_model, given, evaluates)
        if name:
            label, layer = f"preset {name} ({why})", configs.preset_layer(name)
    last = [("MODEL", {"model": model})] if model is not None else []
    config, origins = configs.layered([*([(label, layer)] if label else []), *given, *last])
    return Settled(config, origins, _line(label, given), name, preset is not None, run)


def resumed(folder: Path, sets: Sequence[str]) -> Settled:
    """The settings that a run goes on with: its own, and what `sets` may change. Raises UserError."""
    text, where = records.config_text(folder), str(folder / runlog.CONFIG)
    before = configs.parse(text, where)
    config, given = configs.resume(before, sets), configs.set_layer(sets)
    changed = dict.fromkeys(configs.differences(before, config), f"{SET} of a resumed run")
    origins = dict.fromkeys(configs.keys(), where) | configs.origins_in(text, before) | changed
    return Settled(config, origins, _line(f"run {folder}", [(SET, given)]))


def run_settings(model: str) -> tuple[str, str, str] | None:
    """The text of the settings that a model brings, their file, and what they are called: its run's, else those
    inside the checkpoint. None for a model that no run made. Raises UserError if they cannot be read."""
    if model in ("", TINY) or not Path(model).expanduser().is_dir():
        return None
    folder = Path(model).expanduser()
    checkpoint = folder if folder.parent.name == runlog.CHECKPOINTS else folder.resolve()
    places = {folder / runlog.CONFIG: f"run {folder}"}
    if checkpoint.parent.name == runlog.CHECKPOINTS:
        places[checkpoint.parents[1] / runlog.CONFIG] = f"run {checkpoint.parents[1]}"
    places[folder / "trainer" / runlog.CONFIG] = f"checkpoint {folder}"
    for file, label in places.items():
        if file.is_file():
            return records.text_of(file), str(file), label
    return None


def _preset_for(model: str, given: Sequence[Layer], evaluates: bool) -> tuple[str, str]:
    """The preset where none is named and no run made the model, and why; two empty texts if there is none."""
    dataset = _first_dataset(given, evaluates)
    row = DATASETS.get(dataset)
    if row is not None and row.preset:
        return _made_for(model, dataset) or row.preset, f"for {dataset}"
    if model in ("", TINY):
        return "countdown", f"for {TINY}"
    return "", ""


def _made_for(model: str, dataset: str) -> str:
    """The preset for this model (known by the last part of its name) that trains or measures on the dataset; else
    empty."""
    for name in configs.presets() if model else ():
        config = configs.resolve(name)
        if Path(config.model).name == Path(model).name and dataset in _datasets(config):
            return name
    return ""


def _datasets(config: Config) -> list[str]:
    """The names of what a config trains and measures on."""
    return [eval_name(spec) for spec in (*config.data.name.split("+"), *config.eval.on)]


def _first_dataset(given: Sequence[Layer], evaluates: bool) -> str:
    """The name of the dataset asked for, of several the first; empty if none is."""
    on = _last(given, "eval", "on")
    if evaluates and isinstance(on, list) and on and isinstance(on[0], str):
        return eval_name(on[0])
    return eval_name(_text(given, "data", "name").partition("+")[0])


def _last(given: Sequence[Layer], *keys: str) -> Any:
    """What the last of the layers that has a key says of it; None if none has."""
    found = None
    for _, layer in given:
        value: Any = layer
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        found = found if value is None else value
    return found


def _text(given: Sequence[Layer], *keys: str) -> str:
    value = _last(given, *keys)
    return value if isinstance(value, str) else ""


def _line(label: str, given: Sequence[Layer]) -> str:
    """settings: built-in defaults < preset countdown (for tiny) < --set steps=4"""
    parts = ["built-in defaults", *([label] if label else [])]
    for where, layer in given:
        if where.startswith("--config"):
            parts.append(where)
        elif layer:
            parts.append(f"{where} {' '.join(f'{key}={configs.toml_value(value)}' for key, value in _flat(layer))}")
    return "settings: " + " < ".join(parts)


def _flat(layer: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in layer.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


@dataclass(frozen=True)
class Asked:
    """How one dataset is evaluated: the config, and where its limit, number of problems, reward and the rest come
    from."""

    config: Config
    origins: Mapping[str, str]
    samples: int = 0
    """how many a problem are recommended; 0: no word about it"""


def asked(settled: Settled, spec: str) -> Asked:
    """The settings that a dataset (NAME or NAME=PATH) is evaluated with."""
    config, name = settled.config, eval_name(spec)
    row = DATASETS.get(name, OWN)
    where = f"dataset {name}" if name in DATASETS else "own data"
    origins = dict(settled.origins)
    of_run = settled.run is not None and name in _datasets(settled.run)

    def named(key: str) -> bool:
        """Whether the user said it, or it is a named preset's."""
        return origins[key].startswith("--") or (settled.named and origins[key] != DEFAULT)

    tokens, limit = "eval.max_new_tokens", "sampling.max_new_tokens"
    key = tokens if config.eval.max_new_tokens else limit
    chosen: dict[str, tuple[Any, str]] = {
        tokens: (config.eval.max_new_tokens or config.sampling.max_new_tokens, origins[key])
    }
    if not (named(tokens) or named(limit) or of_run):
        trained = config.sampling.max_new_tokens if settled.run else 0
        chosen[tokens] = (row.tokens, where) if row.tokens >= trained else (trained, origins[limit])
    if not named("eval.max_problems"):
        chosen["eval.max_problems"] = (row.problems, where)
    if not (named("eval.samples") or of_run):
        chosen["eval.samples"] = (1, where)
    if name in DATASETS and not (named("reward.name") or of_run):
        chosen["reward.name"] = (row.reward, where)
    values = {key: value for key, (value, _) in chosen.items()}
    found = configs.changed(config, values)
    return Asked(found, origins | {key: origin for key, (_, origin) in chosen.items()}, row.samples)


def evaluations(settled: Settled) -> list[str]:
    """A line for each dataset of eval.on: what it is evaluated with, and where each of that comes from."""
    lines = []
    for spec in settled.config.eval.on:
        ask = asked(settled, spec)
        keys = ("eval.max_new_tokens", "eval.max_problems", "eval.samples", "reward.name")
        said = (f"{key} = {configs.toml_value(configs.value_of(ask.config, key))} ({ask.origins[key]})" for key in keys)
        lines.append(f"{eval_name(spec)} is evaluated with {', '.join(said)}")
    return lines

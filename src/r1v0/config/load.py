"""What a run is made of: dataclasses, TOML presets, and strict resolution.

Decides: every setting has one place, one default and one help string (the string under the field). Precedence:
defaults < preset < file < --set. An unknown key is an error with a suggestion, never ignored; a value that would make
the numbers wrong is refused (`validate`). `grpo.variant` is a name for a row of settings (`VARIANTS`): it is applied
where it is named, and any setting named beside it wins. The resolved config, written to a run's config.toml, alone
reproduces the run.
"""

import dataclasses
import difflib
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from r1v0.base import reading
from r1v0.base.command import typed
from r1v0.base.errors import UserError, unknown
from r1v0.config.checks import need_resumable, validate
from r1v0.config.names import GONE, REFUSED, RENAMED
from r1v0.config.schema import DEFAULT, SET, VARIANTS, Config
from r1v0.config.text import _first_field, keys, value_of

PRESET_DIR = Path(__file__).parent / "presets"
MAX_TOML = 1 << 20


def presets() -> dict[str, str]:
    """Preset names and the first comment line of each file."""
    found = {}
    for path in sorted(PRESET_DIR.glob("*.toml"), key=lambda path: path.stem):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        found[path.stem] = first.removeprefix("#").strip()
    return found


def preset_text(name: str) -> str:
    """The TOML of a preset, comments and all. Raises UserError for an unknown name."""
    if name not in presets():
        raise unknown("preset", name, presets())
    return (PRESET_DIR / f"{name}.toml").read_text(encoding="utf-8")


def resolve(preset: str | None = None, file: Path | None = None, sets: Iterable[str] = ()) -> Config:
    """Layer defaults < preset < file < `a.b=value` strings into one validated config; settings.py chooses the preset.

    Raises UserError for an unknown preset, key or suggestion, a wrong type, or a combination that `validate` refuses.
    """
    layers = [] if preset is None else [(f"preset {preset}", preset_layer(preset))]
    layers += [] if file is None else [(str(file), read_file(file))]
    return layered([*layers, (SET, set_layer(sets))])[0]


def layered(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Config, dict[str, str]]:
    """Layers over the built-in defaults, each with a word for where it comes from: the validated config, and that
    word of every dotted key (DEFAULT where no layer has it). Raises UserError as `resolve` does."""
    config: Config = Config()
    origins = dict.fromkeys(keys(), DEFAULT)
    for where, layer in layers:
        before, config = config, _apply(config, layer, where)
        named = _named(layer, typing.get_type_hints(Config))
        origins |= {key: where for key in keys() if key in named or value_of(before, key) != value_of(config, key)}
    validate(config)
    return config, origins


def _named(layer: Mapping[str, Any], hints: Mapping[str, Any]) -> set[str]:
    """The dotted keys of a layer that has been applied."""
    found = set()
    for name, value in layer.items():
        found |= {f"{name}.{key}" for key in value} if dataclasses.is_dataclass(hints[name]) else {name}
    return found


def preset_layer(name: str) -> dict[str, Any]:
    """The settings that a preset names. Raises UserError for an unknown name."""
    return tomllib.loads(preset_text(name))


def parse(text: str, where: str) -> Config:
    """The config of a run folder's config.toml. Raises UserError."""
    config: Config = _apply(Config(), read_text(text, where), where)
    validate(config)
    return config


def resume(config: Config, sets: Iterable[str]) -> Config:
    """A run's own config with the few changes that a resumed run may make. Raises UserError for any other."""
    changed: Config = _apply(config, set_layer(sets), "--set")
    validate(changed)
    need_resumable(config, changed)
    return changed


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The same config with other values of some dotted keys."""
    layer: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (layer.setdefault(section, {}) if section else layer)[name] = value
    found: Config = _apply(config, layer, "settings")
    return found


def with_template(config: Config, template: str) -> Config:
    """The same config with another prompt template, of the same kinds as prompt.template. Raises UserError."""
    if template == config.prompt.template:
        return config
    changed: Config = _apply(config, {"prompt": {"template": template}}, "--template")
    return changed


def read_file(path: Path) -> dict[str, Any]:
    """The settings that a TOML file names. Raises UserError if it cannot be read."""
    try:
        text = reading.read(path, MAX_TOML).decode("utf-8-sig")  # some editors begin a file with a BOM
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist: give the path of a TOML file") from None
    except (OSError, ValueError) as error:
        reason = error.__class__.__name__
        raise UserError(f"config file {path} cannot be read ({reason}): give a UTF-8 TOML file") from None
    return read_text(text, str(path))


def _read_template(path: Path) -> dict[str, Any]:
    """`text` and `stop` of a user's prompt template. Raises UserError, with the file's name."""
    what = f"prompt template {path}"
    form = "text = '...{question}...', and if need be stop = ['...']"
    try:
        found = tomllib.loads(reading.read(path, MAX_TOML).decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{what} does not exist: give a TOML file with {form}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what} cannot be read ({reason!s:.200}): expected a TOML file with {form}") from None
    if strange := [name for name in found if name not in ("text", "stop")]:
        raise UserError(f"{what} has the key '{strange[0]}': expected {form}")
    text = _convert(found.get("text", ""), str, "text", str(path))
    stop = _convert(found.get("stop", []), list[str], "stop", str(path))
    if not text:
        raise UserError(f"{what} has no text: expected {form}")
    return {"text": text, "stop": stop}


def read_text(text: str, where: str) -> dict[str, Any]:
    """The settings that a TOML text names. Raises UserError, which says `where`, for what is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, or a number of thousands of digits
        raise UserError(f"config file {where} is not TOML: {error}") from None


def set_layer(sets: Iterable[str]) -> dict[str, Any]:
    """The `a.b=value` strings of --set as one nested dict. Raises UserError for what is not of that form."""
    layer: dict[str, Any] = {}
    for item in sets:
        _insert(layer, item)
    return layer


def _insert(layer: dict[str, Any], item: str) -> None:
    """Put `a.b=value` into a nested dict. The value is TOML; a bare word is taken as a string."""
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {item!r}: expected KEY=VALUE, for example --set optimizer.lr=1e-4")
    value: Any = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        parsed = {}
    if parsed.keys() == {"value"}:  # a line break could smuggle in a second key
        value = parsed["value"]
    node = layer
    *parents, last = key.strip().split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {item!r}: '{parent}' was set to a value before, so it has no keys of its own")
    node[last] = value


def _apply(config: Config, layer: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """A copy of a config (or section) with `layer` on top of it."""
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    if prefix == "grpo." and (name := layer.get("variant")) is not None:
        if not isinstance(name, str) or name not in VARIANTS:
            raise unknown("grpo.variant", str(name), VARIANTS)
        changes.update(VARIANTS[name])
    if prefix == "prompt." and isinstance(name := layer.get("template"), str):
        own = (
            name.endswith(".toml") and "text" not in layer
        )  # a run's config.toml holds the text of the file it began with
        changes.update(_read_template(Path(name)) if own else {"text": "", "stop": []})
    for name, value in layer.items():
        key = prefix + name
        if key in REFUSED:
            raise UserError(f"{key} ({where}) is not a setting: {REFUSED[key]}")
        if key in GONE:
            raise UserError(f"{key} ({where}) is no setting any more: {GONE[key]}")
        if key in RENAMED:
            raise UserError(f"{key} ({where}) was renamed to {RENAMED[key]}: use that name")
        if name not in hints:
            raise _unknown_key(key, where)
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{key} ({where}) is a section: give its keys, for example {key}.{_first_field(hints[name])}=..."
                )
            changes[name] = _apply(getattr(config, name), value, where, key + ".")
        else:
            changes[name] = _convert(value, hints[name], key, where)
    return dataclasses.replace(config, **changes)


def _unknown_key(key: str, where: str) -> UserError:
    leaf = key.rpartition(".")[2]
    names = sorted(keys()) if "." in key else sorted({*keys(), *(known.partition(".")[0] for known in keys())})
    same_leaf = [known for known in keys() if known.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(key, same_leaf, n=1, cutoff=0) or difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"`{typed('presets', '--keys')}` lists all of them"
    return UserError(f"unknown key '{key}' ({where}): {hint}")


def _convert(value: Any, kind: Any, key: str, where: str) -> Any:
    """Check a TOML value against a field's type; an int is taken for a float, nothing else is bent."""

    def wrong(expected: str) -> UserError:
        return UserError(f"{key} ({where}) is {json.dumps(value, default=str)}: expected {expected}")

    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise wrong("one of " + ", ".join(map(str, get_args(kind))))
        return value
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if not isinstance(value, list):
            raise wrong(
                f'a list, for example {key}=["..."]'
                if item is str or get_origin(item) is Literal
                else f"a list of {item.__name__}"
            )
        return [_convert(entry, item, key, where) for entry in value]
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise wrong("a table of names and weights, for example {format = 0.1}")
        return {
            _convert(name, str, key, where): _convert(entry, get_args(kind)[1], f"{key}.{name}", where)
            for name, entry in value.items()
        }
    accepted = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, accepted):
        raise wrong({int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind])
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise wrong("a number of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong("a finite number")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise wrong("a text in UTF-8")
    return float(value) if kind is float else value

"""A config as text: its dotted keys, their help, TOML with where each value comes from."""

import ast
import dataclasses
import inspect
import json
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from r1v0.config.schema import Config


def described() -> dict[str, tuple[str, str]]:
    """Every dotted key with its default, as TOML, and its help."""
    return {key: (toml_value(value_of(Config(), key)), text) for key, text in keys().items()}


def to_toml(config: Config, origins: Mapping[str, str] | None = None) -> str:
    """The config as TOML text that `resolve(file=...)` reads back to an equal config; behind each value, as a comment,
    where it comes from, if `origins` tells."""
    comments = {key: f"  # {printable(where)}" for key, where in (origins or {}).items()}
    scalars, sections = [], []
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if dataclasses.is_dataclass(value):
            lines = [
                f"{s.name} = {toml_value(getattr(value, s.name))}{comments.get(f'{spec.name}.{s.name}', '')}"
                for s in dataclasses.fields(value)
            ]
            sections.append("\n".join([f"[{spec.name}]", *lines]))
        else:
            scalars.append(f"{spec.name} = {toml_value(value)}{comments.get(spec.name, '')}")
    return "\n\n".join(["\n".join(scalars), *sections]) + "\n"


def origins_in(text: str, config: Config) -> dict[str, str]:
    """Where the values of a config come from, as `to_toml` wrote it beside them; a key whose line was changed is
    left out."""
    found, section = {}, ""
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1] + "."
        name = line.partition(" = ")[0]
        if section + name in keys():
            written = f"{name} = {toml_value(value_of(config, section + name))}  # "
            if line.startswith(written):
                found[section + name] = line.removeprefix(written)
    return found


def printable(text: str) -> str:
    """A text that may stand in a comment of TOML, and on one line."""
    return "".join(char if char.isprintable() else "?" for char in text)


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    return {key: (value_of(a, key), value_of(b, key)) for key in keys() if value_of(a, key) != value_of(b, key)}


@cache
def keys() -> dict[str, str]:
    """Every dotted key and its help string."""
    found = {}
    for name, kind in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            found.update({f"{name}.{key}": text for key, text in _field_help(kind).items()})
    return {**_field_help(Config), **found}


def _field_help(cls: Any) -> dict[str, str]:
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for line, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(after, ast.Expr):
            found[line.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _first_field(cls: Any) -> str:
    return dataclasses.fields(cls)[0].name


def toml_value(value: Any) -> str:
    """A setting's value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(name)} = {toml_value(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON lets DEL pass, TOML does not

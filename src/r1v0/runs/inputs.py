"""The user's own files that a run needs: where they are, what they held, and a copy of those that are code.

    RUN/inputs/mine.py     the reward's file as it was when the run began; a changed one is kept beside it
    RUN/env.json           "files": {"/home/me/mine.py": {"sha256": "...", "copy": "inputs/mine.py"}, ...}

Decides: paths become absolute when a run begins, so that it goes on from any directory. Data are hashed, not copied:
they may be large. A file that changed is used as it is now, since that may be the repair that the run waits for, and
one line says so. A reward's file that is gone is replaced by the run's copy.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from r1v0.base import reading
from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic, writing
from r1v0.config import Config
from r1v0.runs.manifest import sha256
from r1v0.tasks.rewards import is_custom, names

INPUTS = "inputs"


def located(config: Config) -> Config:
    """The same config with every local path absolute: model, data, own rewards."""
    reward = replace(
        config.reward,
        name=_reward_at(config.reward.name),
        extra={_reward_at(name): weight for name, weight in config.reward.extra.items()},
    )
    data = replace(
        config.data,
        name="+".join(map(_spec_at, config.data.name.split("+"))),
        path=_at(config.data.path),
        avoid=list(map(_spec_at, config.data.avoid)),
    )
    evals = replace(config.eval, on=list(map(_spec_at, config.eval.on)))
    return replace(config, model=_at(config.model), reward=reward, data=data, eval=evals)


def _at(path: str) -> str:
    local = Path(path).expanduser()
    return str(local.absolute()) if path and path != "tiny" and local.exists() else path


def _spec_at(spec: str) -> str:
    name, is_path, path = spec.partition("=")
    return f"{name}={_at(path.strip())}" if is_path else spec


def _reward_at(name: str) -> str:
    path, colon, function = name.rpartition(":")
    return f"{_at(path)}{colon}{function}" if is_custom(name) else name


def record(config: Config, folder: Path) -> dict[str, dict[str, str]]:
    """Copy the run's own rewards into `folder`; path -> hash, and copy if there is one, of each local file. For data
    that are a folder, the hash is that of its files' names and hashes. Raises UserError if the disk does not take
    it."""
    found = {str(path): {"sha256": _hash(path)} for path in _data(config)}
    for path in _codes(config):
        try:
            code = reading.read(path, reading.MAX_LINE)
        except (OSError, ValueError) as error:
            raise UserError(f"reward file {path} cannot be read ({error}): expected a Python file") from None
        digest = hashlib.sha256(code).hexdigest()
        copy = folder / INPUTS / path.name
        if copy.is_file() and sha256(copy) != digest:
            copy = copy.with_name(f"{path.stem}.{digest[:8]}{path.suffix}")
        if path != copy.absolute():
            with writing(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(copy, code)
        found[str(path)] = {"sha256": digest, "copy": f"{INPUTS}/{copy.name}"}
    return found


def restored(config: Config, folder: Path, env: Mapping[str, Any], note: Callable[[str], None]) -> Config:
    """The config of a resumed run, with its copy in place of a reward's file that is gone. `env` is its env.json.
    `note` is told of files that changed. Raises UserError for data that are gone."""
    before = dict(_recorded(env))
    moved = {}
    for path in [*_data(config), *_codes(config)]:
        was = before.get(str(path)) or _namesake(before, path) or {}
        copy = folder / was.get("copy", "")
        if not path.exists():
            if "copy" not in was or not copy.is_file():
                raise UserError(
                    f"{path} is not there any more, and the run needs it: put it back, or name its new place by --set"
                )
            note(f"{path} is not there any more: the run goes on with its own copy, {copy}")
            moved[str(path)] = str(copy.absolute())
        elif "sha256" in was and _hash(path) != was["sha256"]:
            kept = f"; as it was: {copy}" if "copy" in was else ""
            note(f"warning: {path} was changed since the run read it: the run goes on with it as it is now{kept}")
    rename = {name: _moved(name, moved) for name in names(config.reward)}
    extra = {rename[name]: weight for name, weight in config.reward.extra.items()}
    return replace(config, reward=replace(config.reward, name=rename[config.reward.name], extra=extra))


def _moved(name: str, moved: Mapping[str, str]) -> str:
    path, colon, function = name.rpartition(":")
    return f"{moved.get(path, path)}{colon}{function}"


def _recorded(env: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The files of env.json, those of its last resumed part before those of the first."""
    parts = env.get("resumed")
    found: dict[str, dict[str, str]] = {}
    for part in [env, *(parts if isinstance(parts, list) else [])]:
        files = part.get("files") if isinstance(part, Mapping) else None
        for path, said in files.items() if isinstance(files, Mapping) else ():
            if isinstance(said, Mapping) and all(isinstance(value, str) for value in said.values()):
                found[path] = dict(said)
    return found


def _namesake(before: Mapping[str, dict[str, str]], path: Path) -> dict[str, str] | None:
    """What was recorded of a file of the same name: the file was moved."""
    return next((said for other, said in before.items() if Path(other).name == path.name), None)


def _codes(config: Config) -> list[Path]:
    return [Path(name.rpartition(":")[0]).expanduser() for name in names(config.reward) if is_custom(name)]


def _data(config: Config) -> list[Path]:
    """The local files and folders that a run reads its problems from, also such as are gone."""
    specs = [*config.data.name.split("+"), *config.data.avoid, *config.eval.on]
    paths = [config.data.path, *(spec.partition("=")[2].strip() for spec in specs)]
    found = [Path(path).expanduser() for path in paths if path]
    return list(dict.fromkeys(path for path in found if path.is_absolute() or path.exists()))


def _hash(path: Path) -> str:
    if path.is_file():
        return _digest(path, path.stat().st_size, path.stat().st_mtime_ns)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = "".join(f"{file.relative_to(path)} {_hash(file)}\n" for file in files)
    return hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _digest(path: Path, size: int, written: int) -> str:
    """Once for a file as it is: resuming asks whether large data changed, and then records them."""
    return sha256(path)

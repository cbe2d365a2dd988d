"""A sweep's cells: every combination of the values that were given, each with a folder's name of its own.

    --set optimizer.lr=1e-4,3e-4 --seeds 0,1   ->   lr-1e-4_seed-0   lr-1e-4_seed-1   lr-3e-4_seed-0   lr-3e-4_seed-1

Decides: commas separate values where they stand outside of quotes, brackets and braces. So a list or a table of TOML
stays whole, and a text that holds a comma is quoted. Names come from the words of the command, so the same command
gives the same folders. All cells are settled, as `r1v0 train` would settle them, before the first one starts.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1v0.base.errors import UserError
from r1v0.config import DEFAULT, Config
from r1v0.report.groups import SEED, short_names
from r1v0.runs import settings
from r1v0.tasks.datasets import check as check_data
from r1v0.tasks.prompts import words_of
from r1v0.tasks.rewards import check as check_reward

MOST_CELLS = 1000
LONGEST_WORD, LONGEST_NAME = 40, 120
"""characters; a file's name has 255 bytes at most"""

_TOKENS = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|.', re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its folder's name, its words for `--set`, and what they settle. `own_threads`: the number of
    threads was said by nobody, so it is the sweep's to choose."""

    name: str
    sets: tuple[str, ...]
    config: Config
    own_threads: bool


def make_cells(preset: str | None, file: Path | None, sets: Sequence[str], seeds: str | None) -> list[Cell]:
    """The cells of a command: `sets` are KEY=VALUE[,VALUE...], `seeds` is N[,N...].

    Raises UserError for a setting that no run takes, a key named twice, two equal cells, or a grid of nothing.
    """
    axes = _axes(sets, seeds)
    varied = [key for key, values in axes.items() if len(values) > 1 or (key == SEED and seeds is not None)]
    if not varied:
        raise UserError(
            "a sweep needs something that varies: give a key several values, as --set optimizer.lr=1e-4,3e-4, or --seeds 0,1"
        )
    if (count := _product(axes)) > MOST_CELLS:
        raise UserError(f"these values make {count} runs: expected at most {MOST_CELLS}, so leave some out")
    names = short_names(varied)
    words = {key: _words(axes[key]) for key in varied}
    cells, seen = list[Cell](), list[tuple[Config, str]]()
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        name = _name([f"{names[key]}-{words[key][chosen[key]]}" for key in varied])
        cell = _settled(name, preset, file, tuple(f"{key}={value}" for key, value in chosen.items()))
        if same := next((other for made, other in seen if made == cell.config), None):
            raise UserError(f"{same} and {name} are the same run: give each value once")
        seen.append((cell.config, name))
        cells.append(cell)
    return cells


def split_values(text: str) -> list[str]:
    """The values of "1e-4,3e-4" or of '[],["a", "b"]', without blanks around them."""
    parts, depth = [""], 0
    for token in _TOKENS.findall(text):
        depth += (token in "[{") - (token in "]}")
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def _axes(sets: Sequence[str], seeds: str | None) -> dict[str, list[str]]:
    """Key -> its values, in the order of the command; seeds come last."""
    axes: dict[str, list[str]] = {}
    for item in sets:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {item!r}: expected KEY=VALUE[,VALUE...], for example --set optimizer.lr=1e-4,3e-4")
        if key in axes:
            raise UserError(f"--set {key} is given twice: give all its values at once, as {key}=A,B")
        if key == SEED:
            raise UserError(f"--set {item!r}: give seeds by --seeds, for example --seeds 0,1,2")
        axes[key] = split_values(text)
        if len(axes[key]) > 1 and "" in axes[key]:
            raise UserError(f'--set {item!r}: a value is empty; write "" for an empty text')
    if seeds is not None:
        axes[SEED] = split_values(seeds)
        if not all(re.fullmatch(r"\d{1,18}", seed, re.ASCII) for seed in axes[SEED]):
            raise UserError(f"--seeds {seeds!r}: expected whole numbers, for example --seeds 0,1,2")
    return axes


def _product(axes: dict[str, list[str]]) -> int:
    count = 1
    for values in axes.values():
        count *= len(values)
    return count


def _words(values: Sequence[str]) -> dict[str, str]:
    """Each value as a part of a file's name; those that would look alike have a hash behind them."""
    words = {value: re.sub(r"[^\w.+-]+", "-", value, flags=re.ASCII).strip("-.")[:LONGEST_WORD] for value in values}
    alike = [word.casefold() for word in words.values()]  # some file systems do not tell A from a
    return {
        value: word if word and alike.count(word.casefold()) == 1 else f"{word}-{_hash(value)}".lstrip("-")
        for value, word in words.items()
    }


def _name(parts: Sequence[str]) -> str:
    name = "_".join(parts)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _settled(name: str, preset: str | None, file: Path | None, sets: tuple[str, ...]) -> Cell:
    """A cell with all that can be looked at before a model is loaded. Raises UserError, which names the cell."""
    try:
        settled = settings.settle(None, preset, file, sets)
        words_of(settled.config.prompt)
        check_data(settled.config.eval.on, settled.config.data)
        if settled.config.reward.name != "auto":
            check_reward(settled.config.reward)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return Cell(name, sets, settled.config, settled.origins["threads"] == DEFAULT)

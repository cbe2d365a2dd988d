"""Raw rows: a file, a folder in the hub's own format, or a hub id, as one table.

Decides: `datasets` reads, and memory-maps, whatever is regular; it runs no code of a dataset, and no format but
JSON, parquet, Arrow and CSV is taken (others may hold pickles). JSON files that it refuses or would bend are read
line by line here: it fails on a file with one bad line, turns a column of mixed types into numbers ("007" into 7),
and needs 16 s and 2.5 GB for MetaMathQA's array of 395k objects. Every row has a place, where a bad one is found.
"""

import glob
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1v0.base import hub as the_hub
from r1v0.base.errors import UserError, reason
from r1v0.tasks.reading import json_rows

FORMATS = ("json", "parquet", "arrow", "csv")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?::[\w.-]+)?")
_SUFFIXES = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_HELP = (
    "give a .jsonl, .json or .csv (each also .gz) or .parquet file, a folder in the hub's format, or a hub id "
    "such as openai/gsm8k"
)


@dataclass(frozen=True)
class Table:
    """Rows of `data`, a `datasets.Dataset`. `columns` are all that the source has; of a file read here, `data` holds
    only those that were wanted, as text. `broken` says why a row could not be read at all, `odd[column]` why a cell
    of it is neither text nor a number; `types[column]` names the type of a column that is neither as a whole."""

    where: str
    columns: list[str]
    data: Any
    lines: Sequence[int] = ()
    broken: dict[int, str] = field(default_factory=dict)
    odd: dict[str, dict[int, str]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def place(self, row: int) -> str:
        """Where a user finds the row: FILE:LINE, or the number of the row, from 1."""
        return f"{self.where}:{self.lines[row]}" if self.lines else f"{self.where} row {row + 1}"

    def batches(self, names: list[str]) -> Iterator[Iterable[tuple[Any, ...]]]:
        """All rows in order, as tuples of the named cells, some thousands at a time."""
        start = 0
        for batch in self.data.select_columns(sorted(set(names))).with_format("arrow").iter(5000):
            yield zip(*(self._cells(batch[name], start, name) for name in names), strict=True)
            start += len(batch)

    def _cells(self, column: Any, start: int, name: str) -> list[Any]:
        """A column's cells; one whose bytes are not UTF-8 is None, and `odd`."""
        try:
            cells: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            cells = []
            for row, cell in enumerate(column, start):
                try:
                    cells.append(cell.as_py())
                except UnicodeDecodeError as error:
                    cells.append(None)
                    self.odd.setdefault(name, {})[row] = f"holds text that is not UTF-8 ({reason(error)})"
        return cells


def read(path: str, split: str, preferred: Sequence[str], subsets: Sequence[str], wanted: Collection[str]) -> Table:
    """The table at `path`: a file, a folder or a hub id (`owner/name`, or `owner/name:subset`).

    `split` is the user's; if empty, the first of `preferred` that exists, or (with "*" in it) the only one there is.
    `subsets` are joined. `wanted` are the columns that will be asked for. Raises UserError.
    """
    local = locate(path)
    if local and local.is_file():
        if split:
            raise UserError(f"split '{split}' of {path}: a file is one split, so leave data.split out")
        return _read_file(local, wanted)
    if local:
        return _read_repository(local, "", split, preferred, subsets, wanted)
    hub, _, subset = path.partition(":")
    return _read_repository(None, hub, split, preferred, (subset,) if subset else subsets, wanted)


def locate(path: str) -> Path | None:
    """The file or folder that a data path names; None if it is a hub id. Raises UserError if it is none of these."""
    local = Path(path).expanduser()
    if local.is_file() or local.is_dir():
        return local
    if not _HUB_ID.fullmatch(path) or local.suffix in (*_SUFFIXES, ".gz"):
        raise UserError(f"data path '{path}' does not exist: {_HELP}")
    return None


def _read_file(path: Path, wanted: Collection[str]) -> Table:
    kind = _SUFFIXES.get(path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix)
    if kind is None or (kind == "parquet" and path.suffix == ".gz"):
        raise UserError(f"data path '{path}' is of no known format: {_HELP}")
    if kind == "csv":
        return _held(path, wanted)
    if kind == "json" and (json_rows.layout(path) != "lines" or not json_rows.is_plain(path)):
        return _held(path, wanted)
    with _quiet():
        from datasets import load_dataset

        failure, data = "", None
        try:
            data = load_dataset(
                kind,
                data_files=glob.escape(str(path)),
                split="train",
                cache_dir=the_hub.dataset_cache(),
            )
        except Exception as error:
            failure = reason(error)
    if kind == "json" and (data is None or len(data) < 2 or _bent(data, wanted)):
        return _held(path, wanted)  # whatever `datasets` stumbled over is told there with its line
    if data is None:
        raise UserError(f"{path} cannot be read as parquet: {failure}")
    return _table(str(path), data, wanted)


def _read_repository(
    folder: Path | None, hub: str, split: str, preferred: Sequence[str], subsets: Sequence[str], wanted: Collection[str]
) -> Table:
    where = str(folder or hub)
    with _quiet(bars=folder is None):
        from datasets import concatenate_datasets

        failure: Exception | None = None
        alone = folder is None and the_hub.unreachable(hub)
        try:
            with the_hub.offline() if alone else nullcontext():
                parts = [_prepare(path, name, split, preferred) for path, name in _parts(folder, hub, subsets)]
        except UserError:
            raise
        except Exception as error:
            failure = error
    if failure:  # asked outside of `except`, or the hub's next error would have this one for its cause
        raise _explain_folder(where, failure) if folder else _explain_hub(hub, failure)
    data = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    return _table(f"{where} ({data.split})" if data.split else where, data, wanted)


def _parts(folder: Path | None, hub: str, subsets: Sequence[str]) -> list[tuple[str, str | None]]:
    """What to load: (path, subset). A folder's subsets are declared in its README.md, or are its subfolders, or are
    not."""
    from datasets import get_dataset_config_names

    if folder is None:
        return [(hub, subset or None) for subset in subsets]
    declared = set(subsets) & set(get_dataset_config_names(str(folder)))
    if declared:
        return [(str(folder), subset) for subset in subsets if subset in declared]
    inside = [str(folder / subset) for subset in subsets if subset and (folder / subset).is_dir()]
    return [(path, None) for path in inside or [str(folder)]]


def _prepare(path: str, name: str | None, split: str, preferred: Sequence[str]) -> Any:
    from datasets import load_dataset_builder

    builder = load_dataset_builder(path, name, cache_dir=the_hub.dataset_cache())
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in FORMATS:
        raise UserError(f"{path} holds {kind} files: {_HELP}")
    splits = [str(key) for key in builder.info.splits or builder.config.data_files or ()]
    builder.download_and_prepare()
    return builder.as_dataset(split=_choose(splits, split, preferred, path))


def _choose(splits: list[str], asked: str, preferred: Sequence[str], where: str) -> str:
    for name in (asked,) if asked else preferred:
        if name in splits:
            return name
    if not asked and "*" in preferred and len(splits) == 1:
        return splits[0]
    missing = asked or " or ".join(name for name in preferred if name != "*")
    raise UserError(
        f"{where} has no split '{missing}': it has {', '.join(splits) or 'none'}; set data.split to one of these"
    )


def _table(where: str, data: Any, wanted: Collection[str]) -> Table:
    if not len(data):
        raise UserError(f"{where} holds no rows: {_HELP}")
    return Table(where, list(data.column_names), data, types=_irregular(data, wanted))


def _irregular(data: Any, wanted: Collection[str]) -> dict[str, str]:
    """Wanted columns that are not plain text, numbers or lists of these, with their types."""
    import pyarrow.types as kinds

    plain = (
        kinds.is_string,
        kinds.is_large_string,
        kinds.is_string_view,
        kinds.is_integer,
        kinds.is_floating,
        kinds.is_decimal,
        kinds.is_null,
    )

    def odd(kind: Any) -> bool:
        inner = kind.value_type if kinds.is_list(kind) or kinds.is_large_list(kind) else kind
        inner = inner.value_type if kinds.is_dictionary(inner) else inner
        return not any(is_kind(inner) for is_kind in plain)

    mixed = {name: "mixed" for name, feature in data.features.items() if type(feature).__name__ == "Json"}
    types = {name: data.features.arrow_schema.field(name).type for name in data.column_names if name in wanted}
    return {name: mixed.get(name, str(kind)) for name, kind in types.items() if name in mixed or odd(kind)}


def _bent(data: Any, wanted: Collection[str]) -> bool:
    """Whether `datasets` may have read a JSON file otherwise than it is written: as dates, or large whole numbers as
    floats."""
    import pyarrow.types as kinds

    types = (data.features.arrow_schema.field(name).type for name in data.column_names if name in wanted)
    return bool(_irregular(data, wanted)) or any(map(kinds.is_floating, types))


def _held(path: Path, wanted: Collection[str]) -> Table:
    """A JSON file read by json_rows.py, as a table of text in memory."""
    import pyarrow as pa
    from datasets import Dataset

    rows = json_rows.read(path, wanted)
    if not rows.lines:
        raise UserError(f"{path} holds no rows: {_HELP}")
    if not rows.columns:
        raise UserError(
            f"{path} holds no {'rows' if '.csv' in path.suffixes else 'JSON objects'}: {path}:{rows.lines[0]} "
            f"{rows.broken.get(0, 'is empty')}; "
            "expected UTF-8 text with one object per line, or an array of them"
        )
    data = Dataset(pa.table({name: pa.array(cells, pa.large_string()) for name, cells in rows.cells.items()}))
    return Table(str(path), rows.columns, data, rows.lines, rows.broken, rows.odd)


def _explain_folder(where: str, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"folder {where} holds no data files: {_HELP}")
    return UserError(
        f"folder {where} cannot be read: {reason(error)}; a single file as data.path has its bad rows reported"
    )


def _explain_hub(hub: str, error: Exception) -> UserError:
    """Why a hub dataset could not be had. `datasets` hides the cause, so the hub is asked once more, for access
    only."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    if full := the_hub.unwritten(error):
        return UserError(f"dataset '{hub}' {full}")
    elsewhere = "or set data.path to a local copy (in an evaluation: NAME=PATH)"
    if the_hub.asked_offline():
        return UserError(f"dataset '{hub}' is not in the cache, and HF_HUB_OFFLINE is set: unset it, {elsewhere}")
    try:
        HfApi().auth_check(hub, repo_type="dataset")
    except GatedRepoError:
        page = f"https://huggingface.co/datasets/{hub}"
        return UserError(
            f"dataset '{hub}' is gated: ask for access at {page} and log in with `hf auth login`, {elsewhere}"
        )
    except (RepositoryNotFoundError, HFValidationError):
        return UserError(
            f"no dataset '{hub}' on the hub that you may read, and no such folder: check the name, log in, {elsewhere}"
        )
    except HfHubHTTPError as answer:
        return UserError(f"the hub did not give dataset '{hub}' ({reason(answer)}): try again later, {elsewhere}")
    except Exception as failure:  # of httpx or requests, by the version of huggingface_hub
        return UserError(f"no connection to the hub for dataset '{hub}' ({reason(failure)}): connect, {elsewhere}")
    return UserError(
        f"dataset '{hub}' cannot be read ({reason(error)}): check its subset (OWNER/NAME:SUBSET), {elsewhere}"
    )


@contextmanager
def _quiet(bars: bool = False) -> Iterator[None]:
    """No progress bars (unless `bars`: a download deserves one) and no log lines: what matters is said by an error."""
    import datasets

    level, had_bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not had_bars:
            datasets.enable_progress_bars()

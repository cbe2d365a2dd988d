"""`r1v0 push`: a checkpoint and its model card go to the hub, in one commit.

Decides: what goes is what others load: config, weights, tokenizer, licence, and the adapter where there is one; nothing
of trainer/, no link, no hidden file. The card is written anew, with all that the run holds by now; the checkpoint on
the disk stays as it is. One commit, so that the repository never holds a half. A local path in a config becomes the
base's name: where somebody keeps files is nobody's business.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from r1v0.base import hub
from r1v0.base.errors import UserError
from r1v0.base.reading import read_json
from r1v0.base.writing import amount_of
from r1v0.config import Config, parse
from r1v0.models.families import parse_config, read_otherwise
from r1v0.report.card import CARD, licence_of, model_card
from r1v0.report.recipe import base_of
from r1v0.report.table import text_table
from r1v0.runs import runlog
from r1v0.runs.manifest import TRAINER, checkpoints_in, damage, is_half_way, newest_whole, place
from r1v0.runs.settings import TINY, run_settings

PICTURE = "curves.png"
NAMED = {"config.json": "_name_or_path", "adapter/adapter_config.json": "base_model_name_or_path"}
"""files that may say where the base was read, and by which key"""


@dataclass(frozen=True)
class Upload:
    """What is to go: `files` are name in the repository -> its file, or its bytes; `card` is one of them."""

    checkpoint: Path
    card: str
    files: dict[str, Path | bytes]

    def listed(self) -> str:
        """Each file with its size, a line each."""
        sizes = {
            name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in self.files.items()
        }
        return text_table(["file", "size"], [[name, amount_of(size)] for name, size in sizes.items()], 1)


def push(upload: Upload, name: str, private: bool = False) -> str:
    """Send it to the repository OWNER/NAME, which is made if there is none; the address of the commit.

    `private` holds for one that is made. Raises UserError: no token, not reached, not ours.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{name} is not pushed, HF_HUB_OFFLINE is set: unset it, or write the card alone by --card-only"
        )
    if get_token() is None:
        raise UserError(f"{name} is not pushed, there is no token: log in with `hf auth login`, or set HF_TOKEN")
    if not sys.stderr.isatty():
        disable_progress_bars()
    api, message = HfApi(), f"{upload.checkpoint.name}, by r1v0"
    try:
        api.create_repo(name, private=private or None, exist_ok=True)
        files = [CommitOperationAdd(path, file) for path, file in upload.files.items()]
        return str(api.create_commit(name, files, commit_message=message).commit_url)
    except Exception as error:  # of the hub's own classes, of httpx, of hf_xet
        raise hub.push_failed(name, error) from None


def need_name(name: str | None) -> str:
    """The repository's name. Raises UserError for what is none."""
    if not name:
        raise UserError("no repository is named: give OWNER/NAME, or --card-only")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        raise UserError(
            f"'{name}' is not a repository's name: expected OWNER/NAME, each of letters, digits, '-', '_' and '.'"
        )
    return name


def prepared(folder: Path, name: str = "", step: int | None = None) -> Upload:
    """A checkpoint of a run, with its card. Raises UserError as `checkpoint_of` does, and for damaged files."""
    checkpoint = checkpoint_of(folder, step)
    run = checkpoint.parents[1]
    settings = run_settings(str(checkpoint))
    if settings is None:
        raise UserError(f"run folder {run} has no {runlog.CONFIG}: the card cannot say how the model was made")
    config = parse(*settings[:2])
    files: dict[str, Path | bytes] = {
        path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()
    }
    files = {path: file for path, file in files.items() if _goes(checkpoint, Path(path))}
    for path, key in NAMED.items():
        if path in files and str((raw := read_json(checkpoint / path)).get(key, "")).startswith("/"):
            files[path] = (json.dumps(raw | {key: base_of(config.model)[0]}, indent=2) + "\n").encode()
    picture = run / runlog.FIGURES / PICTURE
    if picture.is_file():
        files[PICTURE] = picture
    card = _card(checkpoint, config, name, PICTURE if PICTURE in files else "")
    return Upload(checkpoint, card, dict(sorted({**files, CARD: card.encode()}.items())))


def checkpoint_of(folder: Path, step: int | None = None) -> Path:
    """A checkpoint itself, or the newest of a run, or that of `step`; a whole one. Raises UserError."""
    given = folder.resolve()
    if given.parent.name == runlog.CHECKPOINTS and given in checkpoints_in(given.parents[1]):
        if step is not None and place(given)[0] != step:
            raise UserError(f"{folder} is not of step {step}: leave out --step, or give the run folder")
        if is_half_way(given):
            raise UserError(f"{folder} stands inside a step, for resuming alone: give one of a whole step")
        return _sound(given)
    runlog.need_run(folder)
    if step is None:
        newest = newest_whole(given, half_way=False)
        if newest is None:
            raise UserError(f"{folder} holds no checkpoint yet: let the run reach one")
        return newest
    there = {place(path)[0]: path for path in checkpoints_in(given) if not is_half_way(path)}
    if step not in there:
        raise UserError(
            f"{folder} holds no checkpoint of step {step}: expected one of {', '.join(map(str, there)) or 'none'}"
        )
    return _sound(there[step])


def _sound(checkpoint: Path) -> Path:
    if wrong := damage(checkpoint):
        raise UserError(f"checkpoint {checkpoint} is damaged ({wrong}): give another by --step")
    return checkpoint


def _card(checkpoint: Path, config: Config, name: str, picture: str) -> str:
    where = checkpoint / "config.json"
    raw = read_json(where)
    # A checkpoint of a release before cards does not say whose licence it has; the base may still be here.
    base = Path(__file__).parents[1] / "assets" / TINY if config.model == TINY else Path(config.model)
    licence = licence_of(checkpoint) or licence_of(base)
    warning = read_otherwise(raw, parse_config(raw, str(where)))
    return model_card(checkpoint.parents[1], place(checkpoint)[0], config, licence, warning, name, picture)


def _goes(checkpoint: Path, path: Path) -> bool:
    """Whether a file of a checkpoint is for others."""
    hidden = any(part.startswith(".") for part in path.parts)
    linked = any((checkpoint / part).is_symlink() for part in (path, *path.parents))
    return not hidden and not linked and path.parts[0] != TRAINER

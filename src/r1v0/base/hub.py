"""The hub and its cache, where they do not work: one line at once, or what is in the cache.

Decides: whether the hub can be reached is asked once, before `datasets` asks six times within 24 s. If it cannot,
the libraries are told to work offline, so that a copy in the cache is used. A cache that cannot be written is named
as such: it is no fault of the network's, and local files need none.
"""

import atexit
import errno
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from r1v0.base.errors import UserError, reason

_NOT_WRITTEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_warn = logging.getLogger("r1v0").warning


def unreachable(dataset: str) -> bool:
    """Whether the hub cannot be asked for a dataset; whatever it answers, it was asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().auth_check(dataset, repo_type="dataset")
    except (HfHubHTTPError, HFValidationError):
        return False
    except Exception:  # of httpx or requests, by the version of huggingface_hub
        return True
    return False


def asked_offline() -> bool:
    """Whether the user wants no dataset from the hub."""
    import datasets

    return bool(datasets.config.HF_HUB_OFFLINE)


@contextmanager
def offline() -> Iterator[None]:
    """The cache alone: as HF_HUB_OFFLINE=1, which the libraries read when they are imported."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


@cache
def dataset_cache() -> str | None:
    """Where `datasets` may keep its copies, if not in its own place: that one cannot be written."""
    import datasets

    own = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        own.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=own).close()
    except OSError:
        other = tempfile.mkdtemp(prefix="r1v0-datasets-")
        atexit.register(shutil.rmtree, other, ignore_errors=True)
        return other
    return None


def unwritten(error: BaseException) -> str:
    """What to say if the cache could not be written; nothing if that is not what happened."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and (seen.errno in _NOT_WRITTEN or _of_cache(seen)):
            return (
                f"cannot be kept in the hub's cache ({reason(seen)}): set HF_HOME to a folder with room that can "
                "be written"
            )
        seen = seen.__cause__ or seen.__context__
    return ""


def _of_cache(error: OSError) -> bool:
    """Whether a folder of the cache could not be made: HOME may not exist."""
    from huggingface_hub import constants

    home = Path(constants.HF_HOME)
    return isinstance(error.filename, str) and (Path(error.filename) in (home, *home.parents))


def model_failed(name: str, error: Exception) -> UserError:
    """The line for a hub id that is no folder here and could not be had."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return UserError(f"model '{name}' is gated: accept its licence on the hub and log in with `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"model '{name}' is neither a folder here nor on the hub: check the spelling, or log in if it is private"
        )
    if constants.HF_HUB_OFFLINE:
        return UserError(
            f"model '{name}' is not a folder here nor in the cache {constants.HF_HUB_CACHE}, and "
            "HF_HUB_OFFLINE is set: "
            "unset it, or give a local folder"
        )
    if full := unwritten(error):
        return UserError(f"model '{name}' {full}")
    if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
        return UserError(
            f"the hub did not give model '{name}' ({reason(error)}): try again later, or give a local folder"
        )
    return UserError(
        f"model '{name}' is not a folder here and the hub cannot be reached ({reason(error)}): "
        "check the connection, or give a local folder"
    )


def push_failed(name: str, error: Exception) -> UserError:
    """The line for a repository on the hub that could not be made or written."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HFValidationError):
        return UserError(f"'{name}' is not a repository's name ({reason(error)}): expected OWNER/NAME")
    if isinstance(error, ValueError):  # what the hub reads otherwise than its client: the card's metadata, an upload
        said = " ".join(str(error).split())
        return UserError(f"{name} is not pushed, the hub takes it otherwise ({said[:200]}): push again later")
    if not isinstance(error, HfHubHTTPError):
        return UserError(f"{name} is not pushed ({reason(error)}): check the connection, and push again")
    status = error.response.status_code
    if status == 401:
        return UserError(f"{name} is not pushed, the hub does not know the token: log in again with `hf auth login`")
    if status in (403, 404):
        return UserError(
            f"{name} is not pushed, the token may not write there (HTTP {status}): give a name under your own, or a token "
            "that may write"
        )
    said = f"HTTP {status}: {error.server_message or 'no reason is given'}"
    return UserError(f"{name} is not pushed, the hub answers {said[:200]}: push again later")

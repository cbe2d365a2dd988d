"""The hub's failures, each by its genuine exception class: one clear line that tells them apart. No network."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from r1v0.base.errors import UserError
from r1v0.config import DataConfig
from r1v0.tasks.datasets import load_eval, load_problems

# httpx, or the fork of it that this version of huggingface_hub uses
CLIENT: Any = sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]
ELSEWHERE = "or set data.path to a local copy (in an evaluation: NAME=PATH)"


def answered(kind: Callable[..., Exception], status: int) -> Exception:
    response = CLIENT.Response(status, request=CLIENT.Request("GET", "https://huggingface.co/api"))
    return kind(f"{status} from the hub\nwith a second line", response=response)


def hub(monkeypatch: pytest.MonkeyPatch, failure: Exception, access: Exception | None) -> None:
    """The hub fails whoever downloads with `failure`, and whoever asks for access with `access`."""

    def download(*_: object, **__: object) -> None:
        raise failure

    def check(*_: object, **__: object) -> None:
        if access:
            raise access

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", check)


@pytest.fixture(autouse=True)
def nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (
            answered(errors.GatedRepoError, 401),
            "dataset 'openai/gsm8k' is gated: ask for access at https://huggingface.co/datasets/openai/gsm8k "
            "and log in with "
            f"`hf auth login`, {ELSEWHERE}",
        ),
        (
            answered(errors.RepositoryNotFoundError, 404),
            "no dataset 'openai/gsm8k' on the hub that you may read, and no such folder: check the name, log "
            f"in, {ELSEWHERE}",
        ),
        (
            answered(errors.HfHubHTTPError, 503),
            "the hub did not give dataset 'openai/gsm8k' (HfHubHTTPError: 503 from the hub with a second "
            "line): try again "
            f"later, {ELSEWHERE}",
        ),
        (
            CLIENT.ConnectError("[Errno -2] Name or service not known"),
            "no connection to the hub for dataset 'openai/gsm8k' (ConnectError: [Errno -2] Name or service not known): "
            f"connect, {ELSEWHERE}",
        ),
        (
            CLIENT.ReadTimeout("timed out"),
            f"no connection to the hub for dataset 'openai/gsm8k' (ReadTimeout: timed out): connect, {ELSEWHERE}",
        ),
        (
            errors.OfflineModeIsEnabled("offline mode is enabled"),
            "no connection to the hub for dataset 'openai/gsm8k' (OfflineModeIsEnabled: offline mode is "
            "enabled): connect, "
            f"{ELSEWHERE}",
        ),
    ],
    ids=["gated", "no such dataset", "hub is down", "no network", "timeout", "offline mode"],
)
def test_each_failure_of_the_hub_has_its_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: str
) -> None:
    hub(monkeypatch, failure, access=copy.copy(failure))
    assert message(lambda: load_problems(DataConfig(name="gsm8k"), 0)) == expected
    assert message(lambda: load_eval("gsm8k", 0)) == expected


def test_a_dataset_that_may_be_read_but_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, RuntimeError("Dataset scripts are no longer supported"), access=None)
    assert message(lambda: load_eval("mine=some/dataset:subset", 0)) == (
        "dataset 'some/dataset' cannot be read (RuntimeError: Dataset scripts are no longer supported): "
        "check its subset "
        f"(OWNER/NAME:SUBSET), {ELSEWHERE}"
    )


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which repository and subsets: a mirror of a known dataset is not assumed to have the original's subsets."""
    import datasets

    asked: list[tuple[str, str | None]] = []

    def builder(path: str, name: str | None = None, **_: object) -> None:
        asked.append((path, name))
        raise RuntimeError("enough")

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    hub(monkeypatch, RuntimeError(), access=None)
    for config in (
        DataConfig(name="gsm8k"),
        DataConfig(name="metamathqa"),
        DataConfig(name="gsm8k", path="a/mirror"),
        DataConfig(name="mine", path="a/mirror:main"),
    ):
        message(lambda config=config: load_problems(config, 0))  # type: ignore[misc]
    message(lambda: load_eval("olympiadbench", 0))
    assert asked == [
        ("openai/gsm8k", "main"),
        ("meta-math/MetaMathQA", None),
        ("a/mirror", None),
        ("a/mirror", "main"),
        ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP"),
    ]

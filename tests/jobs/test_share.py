"""`r1v0 push` as it is typed, against a hub of our own: which files arrive, with which bytes, and what is said where
none can."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fake_hub import FakeHub, fake_hub
from tests.jobs.runs_to_share import pushed_files, run_with_checkpoints

NOWHERE = "http://127.0.0.1:9"  # the port `discard`, which nobody serves


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with_checkpoints(tmp_path_factory.mktemp("share") / "run")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as found:
        yield found


def push(tmp_path: Path, *words: object, **variables: str) -> tuple[int, str, str]:
    """The command in a process of its own: where the hub is is read when its library is imported."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "r1v0", "push", *map(str, words)],
        cwd=tmp_path,
        env=ours | settings | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_exactly_these_files_arrive_with_these_bytes(tmp_path: Path, run: Path, hub: FakeHub) -> None:
    code, out, err = push(tmp_path, run, "me/countdown", HF_ENDPOINT=hub.endpoint, HF_TOKEN="hf_mine")
    assert (code, out) == (0, f"{hub.endpoint}/me/countdown/commit/abc\n"), err
    card = hub.files.pop("README.md")
    assert hub.files == pushed_files(run, "step-00004")
    assert not [name for name in hub.files if "trainer" in name]
    assert b"# countdown\n" in card
    assert b'name = "me/countdown"' in card
    assert b"50 % [40, 60] (step 4)" in card
    assert b"![" in card
    assert hub.tokens == {"Bearer hf_mine"}
    assert [(made["name"], made["organization"], made.get("visibility")) for made in hub.created] == [
        ("countdown", "me", None)
    ]
    assert hub.messages == ["step-00004, by r1v0"]


def test_a_checkpoint_on_the_disk_stays_as_it_was(tmp_path: Path, run: Path, hub: FakeHub) -> None:
    def held() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = held()
    words = (run, "me/countdown", "--step", 2, "--private")
    assert push(tmp_path, *words, HF_ENDPOINT=hub.endpoint, HF_TOKEN="t")[0] == 0
    assert held() == before
    assert hub.files["config.json"] == (run / "checkpoints" / "step-00002" / "config.json").read_bytes()
    assert b"30 % [20, 40] (step 2)" in hub.files["README.md"]
    assert b"(step 4)" not in hub.files["README.md"]
    assert hub.created[0]["visibility"] == "private"


def test_pushing_again_writes_into_the_repository_that_is_there(tmp_path: Path, run: Path, hub: FakeHub) -> None:
    hub.says["/api/repos/create"] = (409, "You already created this model repo")
    code, _, err = push(tmp_path, run, "me/countdown", HF_ENDPOINT=hub.endpoint, HF_TOKEN="t")
    assert code == 0, err
    assert "README.md" in hub.files


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/repos/create", 401, "me/countdown is not pushed, the hub does not know the token: log in again with"),
        ("/api/repos/create", 403, "me/countdown is not pushed, the token may not write there (HTTP 403): give a name"),
        ("/api/models/me/countdown/preupload/main", 403, "the token may not write there (HTTP 403)"),
        ("/api/models/me/countdown/commit/main", 403, "the token may not write there (HTTP 403)"),
        ("/api/models/me/countdown/commit/main", 413, "me/countdown is not pushed, the hub answers HTTP 413: no"),
        ("/api/validate-yaml", 400, "me/countdown is not pushed, the hub takes it otherwise (Invalid metadata"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    tmp_path: Path, run: Path, hub: FakeHub, path: str, status: int, said: str
) -> None:
    hub.says[path] = (status, "no")
    code, out, err = push(tmp_path, run, "me/countdown", HF_ENDPOINT=hub.endpoint, HF_TOKEN="t")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("r1v0: ")
    assert said in last
    assert hub.files == {}


def test_no_token_and_no_network_are_one_line_each(tmp_path: Path, run: Path) -> None:
    words = (run, "me/countdown")
    for variables, said in (
        ({}, "there is no token: log in with `hf auth login`, or set HF_TOKEN"),
        ({"HF_TOKEN": "t"}, "(ConnectError: "),
        ({"HF_TOKEN": "t", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set: unset it"),
    ):
        code, out, err = push(tmp_path, *words, HF_ENDPOINT=NOWHERE, **variables)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("r1v0: me/countdown is not pushed")
        assert said in err


def test_the_card_alone_and_the_list_need_no_network(tmp_path: Path, run: Path, hub: FakeHub) -> None:
    """The hub is there and is not asked."""
    code, card, err = push(tmp_path, run, "--card-only", HF_ENDPOINT=hub.endpoint, HF_TOKEN="t")
    assert (code, err) == (0, "")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert '\nname = "FOLDER"\n' in card
    code, out, err = push(tmp_path, run, "me/countdown", "--dry-run", HF_ENDPOINT=hub.endpoint, HF_TOKEN="t")
    assert (code, err) == (0, "")
    listed = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert listed == sorted([*pushed_files(run, "step-00004"), "README.md"])
    assert out.endswith("step-00004 would go to me/countdown; nothing was sent\n")
    assert hub.asked == []
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir() if path.name != "hf")) == "[]"

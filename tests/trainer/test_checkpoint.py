"""Checkpoints: whole or refused, whatever happened to their files; which ones are kept; which one is the newest."""

import errno
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from r1v0.base.errors import UserError
from r1v0.config import Config, resolve, to_toml
from r1v0.grpo.optimizer import Optimizer, make_optimizer
from r1v0.grpo.readings import UpdateReadings
from r1v0.grpo.step import StepInProgress
from r1v0.models.loading import TINY, Policy, load, resolve_model
from r1v0.runs import manifest
from r1v0.runs.manifest import MANIFEST, checkpoint_name, checkpoints_in, damage, newest_whole, place
from r1v0.trainer import checkpoint as checkpoints
from r1v0.trainer.checkpoint import (
    TrainerState,
    best_checkpoint,
    load_config,
    load_state,
    prune,
    restore,
    save_checkpoint,
)
from r1v0.trainer.half_step import NAME, load_step
from r1v0.types import Completion, Group, Problem, Prompt, Rollout, Score
from tests.helpers import newest

CONFIG = resolve("countdown", sets=["threads=1"])


@pytest.fixture(scope="module")
def trained() -> tuple[Policy, Optimizer]:
    """The embedded model after one update of random gradients."""
    policy = load(TINY)
    optimizer = make_optimizer(policy.model, CONFIG.optimizer)
    update(optimizer, 1)
    return policy, optimizer


def update(optimizer: Optimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    for parameter in optimizer.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step(1e-3)


@pytest.fixture(scope="module")
def original(trained: tuple[Policy, Optimizer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one checkpoint."""
    run = tmp_path_factory.mktemp("original")
    (run / "config.toml").write_text(to_toml(CONFIG))
    save_checkpoint(run, *trained, TrainerState(3, 48), CONFIG)
    return run


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run"


def step(run: Path, number: int = 3) -> Path:
    return run / "checkpoints" / f"step-{number:05d}"


def another(run: Path, number: int, updates: int | None = None) -> Path:
    """A copy of the run's checkpoint under another name."""
    name = checkpoint_name(number, updates)
    shutil.copytree(step(run), run / "checkpoints" / name)
    return run / "checkpoints" / name


FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "trainer/config.toml", "trainer/optimizer.safetensors", "trainer/state.json")  # fmt: skip


def test_a_checkpoint_says_what_it_holds(run: Path) -> None:
    files = json.loads((step(run) / MANIFEST).read_text())["files"]
    assert tuple(sorted(files)) == FILES
    assert {path.relative_to(step(run)).as_posix() for path in step(run).rglob("*") if path.is_file()} == {
        *FILES,
        MANIFEST,
        "README.md",
    }
    assert all(entry["bytes"] == (step(run) / name).stat().st_size for name, entry in files.items())
    assert {path.stat().st_mode & 0o777 for path in step(run).rglob("*") if path.is_file()} == {0o644}
    assert damage(step(run)) is None
    assert load_state(step(run)) == TrainerState(3, 48)
    written = {"step": 3, "cursor": 48, "lr_scale": 1.0, "rollbacks": 0}
    assert json.loads((step(run) / manifest.STATE).read_text()) == {"format": 2, **written}
    assert TrainerState() == TrainerState(step=0, cursor=0, lr_scale=1.0, rollbacks=0)  # how a run begins
    assert load_config(step(run)) == CONFIG
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00003"]


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("how", ["a flipped bit", "cut off", "longer", "emptied", "removed"])
def test_any_damage_to_any_file_is_seen_and_the_checkpoint_before_is_taken(run: Path, name: str, how: str) -> None:
    newer = another(run, 4)
    path = newer / name
    data = bytearray(path.read_bytes())
    if how == "a flipped bit":
        middle = data.index(b"sha256") + 12 if name == MANIFEST else len(data) // 2
        data[middle] ^= 1
    changed = {"cut off": bytes(data[:-1]), "longer": bytes(data) + b"\0", "emptied": b""}.get(how, bytes(data))
    path.unlink() if how == "removed" else path.write_bytes(changed)
    if name == MANIFEST and how == "cut off":  # its last line break
        assert damage(newer) is None
        return
    notes: list[str] = []
    assert newest_whole(run, notes.append) == step(run)
    assert len(notes) == 1
    assert str(newer) in notes[0]
    assert "skipped" in notes[0]
    if (name, how) != (MANIFEST, "a flipped bit"):
        assert Path(name).name in notes[0]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"files": []}',
        '{"files": {}}',
        '{"files": {"model.safetensors": 1}}',
        '{"files": {"model.safetensors": {"bytes": "1", "sha256": 2}}}',
        json.dumps({"files": {name: {"bytes": 1, "sha256": None} for name in FILES}}),
        json.dumps({"files": {name: {"sha256": ""} for name in FILES}}),
        json.dumps({"files": dict.fromkeys(FILES, 1)}),
        "[" * 100_000,
        " " * (manifest.MAX_MANIFEST_BYTES + 1),
    ],
)
def test_a_manifest_that_is_none_is_damage(run: Path, content: str) -> None:
    (step(run) / MANIFEST).write_text(content)
    assert MANIFEST in str(damage(step(run)))
    with pytest.raises(UserError, match="no whole checkpoint"):
        newest_whole(run, lambda _: None)


def test_the_reason_of_damage_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no size shows, one that a size does, a manifest that is as long as one may be, and a disk that fails."""
    path, state = step(run) / manifest.WEIGHTS, step(run) / manifest.STATE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert damage(step(run)) == "model.safetensors is not what was written (SHA-256)"
    for data in (whole[:-10], whole + b"1"):
        path.write_bytes(data)
        assert damage(step(run)) == f"model.safetensors has {len(data)} bytes instead of {len(whole)}"
    path.write_bytes(whole)
    listed = (step(run) / MANIFEST).read_text()
    for size, wrong in ((1 << 20, None), ((1 << 20) + 1, f"{MANIFEST} has {(1 << 20) + 1} bytes")):
        (step(run) / MANIFEST).write_text(listed.ljust(size))
        assert damage(step(run)) == wrong

    def failing(path: Path) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    (step(run) / MANIFEST).write_text(listed)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "sha256", failing)
        named = next(iter(json.loads(listed)["files"]))
        assert damage(step(run)) == f"{step(run) / named} cannot be read: {os.strerror(errno.EIO)}"
    (step(run) / MANIFEST).unlink()
    for size, wrong in (
        (1 << 20, "trainer/manifest.json is missing"),
        ((1 << 20) + 1, f"trainer/state.json has {(1 << 20) + 1} bytes"),
    ):
        state.write_text(state.read_text().strip().ljust(size))
        assert damage(step(run)) == wrong


def test_what_is_no_safetensors_file_has_no_length(tmp_path: Path) -> None:
    """Its header's length, its JSON, its offsets; a header of nothing, of no tensor and of two are fine."""
    path = tmp_path / "x"
    for header, size in (
        (b"{}", 10),
        (b'{"a": {"data_offsets": [0, 7]}, "b": {"data_offsets": [7, 9]}, "__metadata__": {}}', 8 + 82 + 9),
        (b"{", 0),
        (b"[]", 0),
        (b'{"a": {"data_offsets": [1]}}', 0),
        (b'{"a": 5}', 0),
    ):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        assert manifest.safetensors_bytes(path) == size, header
    path.write_bytes(struct.pack("<Q", 1) + b"1")
    assert manifest.safetensors_bytes(path) == 0


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "trainer/../../outside"])
def test_a_manifest_cannot_name_files_elsewhere(run: Path, name: str) -> None:
    path = step(run) / MANIFEST
    raw = json.loads(path.read_text())
    raw["files"][name] = {"bytes": 1, "sha256": ""}
    path.write_text(json.dumps(raw))
    assert "outside" in str(damage(step(run)))


def test_a_run_with_damaged_checkpoints_only_is_an_error_of_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (step(run) / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no whole checkpoint") as error:
        newest_whole(run)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="no whole checkpoint"):
        resolve_model(str(run))
    shutil.rmtree(run / "checkpoints")
    assert newest_whole(run) is None


def old_format(path: Path) -> None:
    """What the release before manifests wrote."""
    (path / MANIFEST).unlink()
    (path / "trainer" / "config.toml").unlink()
    (path / "trainer" / "state.json").write_text('{"step": 3, "cursor": 48}\n')


def test_a_checkpoint_of_the_last_release_still_loads(run: Path, trained: tuple[Policy, Optimizer]) -> None:
    old_format(step(run))
    assert newest_whole(run) == step(run)
    assert load_state(step(run)) == TrainerState(3, 48)
    assert load_config(step(run)) is None
    restore(*trained, step(run))


@pytest.mark.parametrize("name", ["model.safetensors", "trainer/optimizer.safetensors"])
def test_without_a_manifest_the_files_must_have_their_length(run: Path, name: str) -> None:
    path = step(run) / name
    data = path.read_bytes()
    old_format(step(run))
    header = struct.unpack("<Q", data[:8])[0]
    for changed in (data[:-1], data[: 8 + header], data[:9], b"", data + b"\0", b"\xff" * 8 + data[8:]):
        path.write_bytes(changed)
        assert name in str(damage(step(run)))
    path.unlink()
    assert damage(step(run)) == f"{name} is missing"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"step": -1, "cursor": 0}',
        '{"step": true, "cursor": 0}',
        '{"step": 1}',
        '{"step": 1.0, "cursor": 0}',
        '{"step": "1", "cursor": 0}',
        '{"step": 1, "cursor": 0, "lr_scale": "1"}',
    ],
)
def test_counters_that_are_none_are_named(run: Path, content: str) -> None:
    (step(run) / "trainer" / "state.json").write_text(content)
    with pytest.raises(UserError, match=r"state\.json") as error:
        load_state(step(run))
    assert "\n" not in str(error.value)


def test_a_live_run_gets_back_what_it_was(run: Path, trained: tuple[Policy, Optimizer]) -> None:
    policy, optimizer = trained
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    moments = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    update(optimizer, 2)
    assert not all(torch.equal(before[name], p) for name, p in policy.model.named_parameters())
    assert restore(policy, optimizer, step(run)) == TrainerState(3, 48)
    assert all(torch.equal(before[name], p) for name, p in policy.model.named_parameters())
    now = optimizer.state_tensors()
    assert now.keys() == moments.keys()
    assert all(torch.equal(now[name], moments[name]) for name in now)
    (step(run) / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        restore(policy, optimizer, step(run))
    assert all(torch.equal(before[name], p) for name, p in policy.model.named_parameters())


def test_saving_over_a_damaged_checkpoint_replaces_it(run: Path, trained: tuple[Policy, Optimizer]) -> None:
    (step(run) / "model.safetensors").write_bytes(b"")
    assert save_checkpoint(run, *trained, TrainerState(3, 48), CONFIG) == step(run)
    assert damage(step(run)) is None
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00003"]


@pytest.mark.parametrize("call", ["save", "saved.write", "seal", "flush"])
def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(
    run: Path, trained: tuple[Policy, Optimizer], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"r1v0.trainer.checkpoint.{call}", full)
    with pytest.raises(UserError, match=r"step-00004 cannot be written \(No space left on device\): .+ free") as error:
        save_checkpoint(run, *trained, TrainerState(4, 64), CONFIG)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert newest(run).name in ("step-00003", "step-00004" if call == "flush" else "")
    assert not list((run / "checkpoints").glob(".*"))


def test_a_checkpoint_that_does_not_fit_is_refused_before_it_is_written(
    run: Path, trained: tuple[Policy, Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(UserError, match=r"it takes \d\.\d+ MB, 1 MB are free") as error:
        save_checkpoint(run, *trained, TrainerState(4, 64), CONFIG)
    assert "keep_last" in str(error.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00003"]


@pytest.mark.parametrize(("free", "fits"), [(-1, True), (0, False), (999, False), (1000, True), (1001, True)])
def test_room_for_a_checkpoint_is_asked_for(free: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """-1: the system does not say."""
    monkeypatch.setattr(checkpoints, "free_bytes", lambda _: free)
    if fits:
        checkpoints.need_room(Path("x"), 1000)
    else:
        with pytest.raises(UserError, match=f"it takes 1 KB, {free} B are free there"):
            checkpoints.need_room(Path("x"), 1000)


def config(*sets: str) -> Config:
    return resolve("countdown", sets=["checkpoints.every=1", *sets])


def evaluated(run: Path, accuracies: dict[int, float]) -> None:
    both = [
        (at, name, a if name == "countdown" else 1 - a)
        for at, a in accuracies.items()
        for name in ("countdown", "other")
    ]
    rows = [{"step": at, "dataset": name, "accuracy": accuracy} for at, name, accuracy in both]
    (run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("sets", "kept"),
    [
        ([], "1 2 3 4 5 6"),
        (["checkpoints.keep_last=2"], "5 6"),
        (["checkpoints.keep_last=1"], "6"),
        (["checkpoints.keep_last=9"], "1 2 3 4 5 6"),
        (["checkpoints.keep_last=2", "checkpoints.keep_best=1"], "2 5 6"),
        (["checkpoints.keep_last=1", "checkpoints.keep_best=2"], "2 4 6"),
        (["checkpoints.keep_last=1", "checkpoints.keep_best=9"], "1 2 3 4 6"),  # 5 was not evaluated
        (["checkpoints.keep_best=1"], "1 2 3 4 5 6"),
        # those of odd steps are there only because the run was stopped
        (["checkpoints.every=2", "checkpoints.keep_last=2"], "4 6"),
        (["checkpoints.every=3", "checkpoints.keep_last=1", "checkpoints.keep_best=1"], "3 6"),
    ],
)
def test_the_last_and_the_best_are_kept(run: Path, sets: list[str], kept: str) -> None:
    for number in (1, 2, 4, 5, 6):
        another(run, number)
    for number, updates in ((3, 0), (4, 2), (6, 0)):
        another(run, number, updates)
    evaluated(run, {0: 0.9, 1: 0.1, 2: 0.5, 3: 0.2, 4: 0.5, 6: 0.05})
    if "checkpoints.keep_best=1" in sets:
        evaluated(run, {0: 0.9, 1: 0.1, 2: 0.6, 3: 0.2, 4: 0.5, 6: 0.05})
    newest = step(run, 6)
    prune(run, config(*sets), "countdown", newest)
    names = [checkpoint_name(int(number)) for number in kept.split()]
    assert [path.name for path in checkpoints_in(run)] == [*names, "step-00006.00"]
    assert not list((run / "checkpoints").glob(".*"))


def test_a_checkpoint_inside_a_step_keeps_the_whole_ones_before_it(run: Path) -> None:
    another(run, 2)
    half = another(run, 3, 1)
    another(run, 3, 0)
    prune(run, config("checkpoints.keep_last=1"), None, half)
    assert [path.name for path in checkpoints_in(run)] == ["step-00003", "step-00003.01"]


def test_the_best_is_the_most_accurate_whole_one(run: Path) -> None:
    notes: list[str] = []
    assert best_checkpoint(run, "countdown", notes.append) is None
    for number in (4, 5, 6):
        another(run, number)
    another(run, 6, 1)
    evaluated(run, {0: 1.0, 3: 0.2, 4: 0.5, 5: 0.9, 6: 0.5})
    assert best_checkpoint(run, "countdown", notes.append) == step(run, 5)
    assert best_checkpoint(run, "other", notes.append) == step(run, 3)
    assert best_checkpoint(run, "countdown", notes.append, every=2) == step(run, 6)  # of equals, the later
    (step(run, 5) / "config.json").write_text("{}")
    assert notes == []
    assert best_checkpoint(run, "countdown", notes.append) == step(run, 6)
    assert len(notes) == 1
    assert best_checkpoint(run, "elsewhere") is None


def test_names_order_checkpoints(run: Path) -> None:
    for number, updates in ((2, None), (10, None), (3, 0), (3, 12), (3, 2)):
        another(run, number, updates)
    for name in ("step-3", "step-00003.", "step-00003.1", "step-00004.tmp", ".step-00009.writing", "step-٠٠٠١٠"):
        (run / "checkpoints" / name).mkdir()
    names = ["step-00002", "step-00003", "step-00003.00", "step-00003.02", "step-00003.12", "step-00010"]
    assert [path.name for path in checkpoints_in(run)] == names
    assert place(Path("step-00003.12")) == (3, 12)
    assert place(Path("step-00003")) == (3, -1)
    assert newest_whole(run) == step(run, 10)
    shutil.rmtree(step(run, 10))
    assert newest(run).name == "step-00003.12"
    assert resolve_model(str(run)) == step(run)  # not one inside a step


def graded(seed: int) -> Group:
    """Two rollouts with what a file could lose: rare floats, odd characters, empty texts."""
    prompt = Prompt(Problem(f"p{seed}", "1 \u2028 2\ud800", "é", "s"), "Q: \0", [seed, 2])
    completions = [Completion([3, 1], [-0.1, -1e-45], "stop"), Completion([4], [float("-inf")], "length")]
    scores = [Score(1 / 3, True, True, {"format": 0.1}, "x"), Score(0.0, False, failure="timeout")]
    return Group(prompt, [Rollout(prompt, c, t, s) for c, t, s in zip(completions, ("a\n", ""), scores, strict=True)])


def test_a_step_that_was_stopped_half_way_comes_back_as_it_was(run: Path, trained: tuple[Policy, Optimizer]) -> None:
    sampled = [graded(seed) for seed in range(3)]
    done = [UpdateReadings([3, 4], [0.1, float("nan")], [1.0, 2.0], [1e-9, 0.0], [0, 1], [0.0, 0.0], 1 / 3)]
    useful = [sampled[2], sampled[0]][::-1]
    pending = StepInProgress(6, sampled, useful, 77, 1.5, 0.25, 0.5, {"verify/timeouts": 1}, done)
    path = save_checkpoint(run, *trained, TrainerState(3, 48), CONFIG, pending)
    assert path.name == "step-00003.01"
    assert damage(path) is None
    assert NAME in json.loads((path / MANIFEST).read_text())["files"]
    found = load_step(path, 6)
    assert found is not None
    assert found.sampled == sampled
    assert [sampled.index(group) for group in found.groups] == [0, 2]
    assert all(any(group is other for other in found.sampled) for group in found.groups)
    assert (found.cursor, found.counted) == (77, {"verify/timeouts": 1})
    assert repr(found.done) == repr(done)
    assert load_step(step(run), 6) is None
    whole = (path / NAME).read_bytes()
    for damaged in (whole[:-9], whole[:40], b"", b"\x1f\x8b", whole[:30] + b"xx" + whole[32:]):
        (path / NAME).write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            load_step(path, 6)


def test_a_kill_while_saving_leaves_the_checkpoints_before(
    run: Path, trained: tuple[Policy, Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every rename and every flush in turn."""

    class Killed(BaseException):
        pass

    calls = 0

    def killed_at(number: int, function: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise Killed
            return function(*args, **named)

        return call

    for number in range(1, 100):
        calls = 0
        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "replace"), (Path, "rename")):
                patch.setattr(owner, name, killed_at(number, getattr(owner, name)))
            try:
                save_checkpoint(run, *trained, TrainerState(4, 64), CONFIG)
            except Killed:
                pass
            else:
                break
        assert damage(newest(run)) is None
    assert number > 10
    assert newest_whole(run) == step(run, 4)

"""What of a run goes to others: which checkpoint, which files, and what is not in them."""

import json
import shutil
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.config import resolve, to_toml
from r1v0.grpo.optimizer import Optimizer
from r1v0.jobs.push import checkpoint_of, need_name, prepared
from r1v0.models.loading import TINY, load
from r1v0.models.lora import Lora, add_adapters
from r1v0.runs.manifest import seal
from r1v0.trainer.checkpoint import TrainerState, save_checkpoint
from tests.jobs.runs_to_share import pushed_files, run_with_checkpoints


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with_checkpoints(tmp_path_factory.mktemp("push") / "run")


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run"


def step(run: Path, number: int) -> Path:
    return run / "checkpoints" / f"step-{number:05d}"


def test_the_newest_whole_checkpoint_goes_unless_another_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(step(run, 4), run / "checkpoints" / "step-00004.02")
    assert checkpoint_of(run) == step(run, 4)
    assert checkpoint_of(run, 2) == step(run, 2)
    assert checkpoint_of(step(run, 2)) == step(run, 2)
    assert checkpoint_of(step(run, 2), 2) == step(run, 2)
    monkeypatch.chdir(step(run, 2))
    assert checkpoint_of(Path(".")) == step(run, 2)
    (step(run, 4) / "config.json").write_text("{}")
    assert checkpoint_of(run) == step(run, 2)
    assert "step-00004 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "number", "said"),
    [
        (".", 3, "holds no checkpoint of step 3: expected one of 2, 4"),
        ("checkpoints/step-00002", 4, "is not of step 4: leave out --step"),
        ("checkpoints/step-00004.02", None, "stands inside a step, for resuming alone"),
        ("checkpoints/step-00004", None, r"is damaged \(config.json has 2 bytes instead of \d+\): give another"),
        (".", 4, r"is damaged \(config.json has 2 bytes"),
        ("checkpoints", None, "is not a run folder"),
        ("nowhere", None, "does not exist"),
    ],
)
def test_what_cannot_go_is_one_line(run: Path, given: str, number: int | None, said: str) -> None:
    shutil.copytree(step(run, 4), run / "checkpoints" / "step-00004.02")
    (step(run, 4) / "config.json").write_text("{}")
    with pytest.raises(UserError, match=said) as error:
        checkpoint_of(run / given, number)
    assert "\n" not in str(error.value)


def test_a_run_without_a_checkpoint_or_settings_is_one_line(run: Path) -> None:
    for path in (run / "config.toml", step(run, 4) / "trainer" / "config.toml"):
        path.unlink()
    (step(run, 4) / "trainer" / "manifest.json").unlink()
    seal(step(run, 4))
    with pytest.raises(UserError, match=r"has no config\.toml: the card cannot say how"):
        prepared(run)
    shutil.rmtree(run / "checkpoints")
    (run / "config.toml").touch()
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        checkpoint_of(run)


def test_what_goes_is_what_others_load(run: Path, tmp_path: Path) -> None:
    """Neither trainer/ nor a hidden file nor a link; a licence does."""
    (tmp_path / "secret").write_text("key")
    checkpoint = step(run, 4)
    (checkpoint / "linked.json").symlink_to(tmp_path / "secret")
    (checkpoint / "folder").symlink_to(tmp_path)
    (checkpoint / ".cache").mkdir()
    (checkpoint / ".cache" / "x").write_text("x")
    (checkpoint / ".env").write_text("HF_TOKEN=x")
    (checkpoint / "LICENSE").write_text("terms")
    upload = prepared(run, "me/x")
    files = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in upload.files.items()}
    assert files.pop("README.md") == upload.card.encode()
    assert files == {**pushed_files(run, "step-00004"), "LICENSE": b"terms"}


def test_the_card_is_written_anew_and_a_figure_may_be_missing(run: Path) -> None:
    assert "(step 4)" not in (step(run, 4) / "README.md").read_text()  # it was saved before it was evaluated
    assert "| 50 % [40, 60] (step 4) |" in prepared(run).card
    assert "](curves.png)" in prepared(run).card
    shutil.rmtree(run / "figures")
    upload = prepared(run)
    assert "curves.png" not in upload.files
    assert "curves.png" not in upload.card


def test_a_checkpoint_of_an_older_release_has_the_licence_of_its_base(run: Path) -> None:
    (step(run, 4) / "README.md").write_text("---\nlicense: mit\n---\n")
    assert "\nlicense: mit\n" in prepared(run).card
    (step(run, 4) / "README.md").unlink()
    assert "\nlicense: apache-2.0\n" in prepared(run).card
    config = run / "config.toml"
    config.write_text(config.read_text().replace('model = "tiny"', 'model = "me/gone"'))
    assert "its licence: not known" in prepared(run).card


def test_an_adapter_goes_too_and_no_folder_of_this_machine_with_it(tmp_path: Path) -> None:
    run, base = tmp_path / "run", tmp_path / "models" / "base"
    shutil.copytree(TINY, base)
    config = resolve("countdown", sets=[f"model={base}", "lora.rank=2", "steps=1"])
    run.mkdir()
    (run / "config.toml").write_text(to_toml(config))
    policy = load(base)
    add_adapters(policy.model, Lora(2, 16.0, config.model), seed=0)
    save_checkpoint(run, policy, Optimizer(policy.model, config.optimizer), TrainerState(1, 0), config)
    upload = prepared(run, "me/x")
    names = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model.safetensors"}
    assert names <= upload.files.keys()
    rewritten = upload.files["adapter/adapter_config.json"]
    assert isinstance(rewritten, bytes)
    before = json.loads((step(run, 1) / "adapter" / "adapter_config.json").read_text())
    assert before["base_model_name_or_path"] == str(base)
    assert json.loads(rewritten) == before | {"base_model_name_or_path": "base"}
    for file in upload.files.values():
        assert str(tmp_path).encode() not in (file if isinstance(file, bytes) else file.read_bytes())
    assert "`adapter/` holds it alone" in upload.card


def test_a_shape_that_vllm_misreads_is_told_in_the_card(run: Path) -> None:
    path = step(run, 4) / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"head_dim": 16}))
    (step(run, 4) / "trainer" / "manifest.json").unlink()
    seal(step(run, 4))
    assert "Beware: head_dim is 16, but vLLM takes hidden_size / num_attention_heads = 32" in prepared(run).card


@pytest.mark.parametrize("name", ["me", "me/x/y", "/x", "me/", "", None, "-me/x", "me/x y", "https://hub/me/x", "é/x"])
def test_what_is_no_repository_is_one_line(name: str | None) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        need_name(name)
    assert need_name("me-2/Qwen2.5-1.5B_math") == "me-2/Qwen2.5-1.5B_math"


def test_sizes_are_listed(run: Path) -> None:
    lines = prepared(run).listed().splitlines()
    assert lines[0].split() == ["file", "size"]
    assert "curves.png                 18 B" in lines

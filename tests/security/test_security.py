"""Models, tokenizers, data and rollouts come from strangers: what they may not do to us.

No text is run as code (tests/test_layers.py forbids `eval`, pickles, shells and remote code); whatever else reaches
out of the process is listed here with its reason. What is read is bounded before it is held. What is graded runs
elsewhere, with limits and without secrets (tests/tasks/test_verifier.py has the limits and the deadlines).
"""

import ast
import gzip
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1v0 import config
from r1v0.base import reading
from r1v0.base.errors import UserError
from r1v0.base.reading import read_json
from r1v0.config import RewardConfig
from r1v0.models import loading
from r1v0.models.checks import parameter_count
from r1v0.models.loading import TINY, load, save
from r1v0.models.transformer import Transformer
from r1v0.runs import records, written
from r1v0.tasks.datasets import load_eval
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.grading.processes import environment
from r1v0.tasks.reading import json_rows
from r1v0.types import Problem
from tests.test_layers import MODULES

# Calls that start a process, load code or go to the network, and why each of them may.
REACHES_OUT = (
    "subprocess.",
    "ctypes.",
    "os.exec",
    "os.spawn",
    "os.fork",
    "importlib.",
    "urllib.",
    "http.",
    "socket.create",
)
LOADS = (
    ".exec_module",
    ".import_module",
    "snapshot_download",
    "hf_hub_download",
    "from_pretrained",
    "urlopen",
    "hub.load",
    "torchrun",
    "TCPStore",
)
ALLOWED = {
    ("r1v0.runs.provenance", "subprocess.run"): "git describes the code of a run: a list of words, no shell",
    ("r1v0.tasks.chat", "subprocess.run"): "renders a model's chat template: our own Python, a list of words",
    (
        "r1v0.tasks.grading.processes",
        "subprocess.Popen",
    ): "starts the grading processes: our own Python, a list of words",
    ("r1v0.models.kernels.native", "subprocess.run"): "the C compiler on our own native.c: a list of words, no shell",
    ("r1v0.models.kernels.native", "ctypes.CDLL"): "what it made, from a folder that only this process had",
    ("r1v0.report.progress", "ctypes.CDLL"): "malloc_trim of the C library: what drawing held goes back to the system",
    ("r1v0.tasks.grading.worker", "ctypes.CDLL"): "prctl of the C library: a grading process ends with the trainer",
    ("r1v0.config", "importlib.import_module"): "its own three files, by name",
    ("r1v0", "importlib.import_module"): "its own modules, by the names that the package offers",
    ("r1v0.tasks.rewards", "importlib.import_module"): "a module of the table REWARDS, never a name that a user gives",
    (
        "r1v0.tasks.grading.custom",
        "importlib.util.spec_from_file_location",
    ): "the user's own reward, in grading processes only",
    ("r1v0.tasks.grading.custom", "importlib.util.module_from_spec"): "as above",
    ("r1v0.tasks.grading.custom", "spec.loader.exec_module"): "as above",
    (
        "r1v0.models.loading",
        "snapshot_download",
    ): "a hub id that the user names; .json, .safetensors and .jinja files, its README and licence only",
    (
        "r1v0.jobs.sweep.work",
        "subprocess.Popen",
    ): "this program, once for each run of a sweep: a list of words, no shell",
    ("r1v0.jobs.launch", "torchrun"): "this program in several processes: a list of words, no shell",
    ("r1v0.models.processes", "TCPStore"): "meets the run's other processes, where torchrun says",
    ("r1v0.jobs.plan.shapes", "snapshot_download"): "config.json of a hub id that the user names",
}


def reaching_out(tree: ast.AST) -> set[str]:
    names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    harmless = (
        ".find_spec",
        ".version",
        ".prctl",
    )  # ask what is installed, and the one function of libc that is called
    return {
        name for name in names if name.startswith(REACHES_OUT) or name.endswith(LOADS) if not name.endswith(harmless)
    }


def test_whatever_leaves_the_process_is_listed_with_its_reason() -> None:
    found = {(module, name) for module, tree in MODULES.items() for name in reaching_out(tree)}
    assert found <= ALLOWED.keys()
    bad = "importlib.import_module(x)\nsubprocess.run(y)\nurllib.request.urlopen(z)\nAutoModel.from_pretrained(m)\nf(a)"
    assert len(reaching_out(ast.parse(bad))) == 4


# Files


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", 10_000)
    monkeypatch.setattr(reading, "MAX_FILE", 100_000)
    monkeypatch.setattr(json_rows, "MAX_ARRAY", 10_000)


def bomb(size: int) -> bytes:
    """`size` zeros, gzipped a thousand to one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(10_000)) for _ in range(size // 10_000)) + packer.flush()


HOSTILE_LINES = {
    "a line without an end": b'{"problem": "' + b"a" * 20_000,
    "lines without an end": b"{}\n" * 40_000,
}


@pytest.mark.parametrize("data", HOSTILE_LINES.values(), ids=HOSTILE_LINES)
def test_no_reader_holds_more_than_its_bound(data: bytes, tmp_path: Path, small_bounds: None) -> None:
    packed = gzip.compress(data)
    (tmp_path / "config.toml").touch()
    (tmp_path / "metrics.jsonl").write_bytes(data)
    assert "more than" in message(lambda: records.read_metrics(tmp_path))
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "step-00000.jsonl.gz").write_bytes(packed)
    assert "is damaged" in message(lambda: written.answers_at(tmp_path, 0))
    (tmp_path / "eval.json").write_text("{}")
    (tmp_path / "answers.jsonl").write_bytes(data)
    assert "more than" in message(lambda: written.evaluation_answers(tmp_path))
    for name, held in (("rows.jsonl", data), ("rows.jsonl.gz", packed)):
        path = tmp_path / name
        path.write_bytes(held)
        assert "more than" in message(lambda path=path: load_eval(f"mine={path}", 0))  # type: ignore[misc]


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Hundreds of megabytes in one: given up at the first line's bound, in memory of that size."""
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(bomb(300 << 20))
    assert path.stat().st_size < 1 << 20
    assert "more than" in message(lambda: load_eval(f"mine={path}", 0))


def test_a_long_array_is_not_held(tmp_path: Path, small_bounds: None) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"problem": "a" * 20_000, "answer": "1"}]))
    assert "more than 10000 bytes" in message(lambda: load_eval(f"mine={tmp_path / 'rows.json'}", 0))


def test_deep_nesting_is_no_row(tmp_path: Path) -> None:
    rows = [json.dumps({"problem": f"p{i}", "answer": "1"}) for i in range(300)]
    for depth in (700, 100_000):
        rows[7] = '{"problem": "p", "answer": ' + "[" * depth + '"1"' + "]" * depth + "}"
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        notes: list[str] = []
        assert len(load_eval(f"mine={tmp_path / 'rows.jsonl'}", 0, note=notes.append)) == 299
        assert "rows.jsonl:8" in notes[0]


def test_an_endless_text_is_no_question(tmp_path: Path) -> None:
    rows = [{"problem": f"p{i}", "answer": "1"} for i in range(300)] + [{"problem": "a" * 200_000, "answer": "1"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes: list[str] = []
    assert len(load_eval(f"mine={tmp_path / 'rows.jsonl'}", 0, note=notes.append)) == 300
    assert "more than 100000 characters" in notes[0]


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        list(reading.lines(tmp_path / "pipe.jsonl"))
    assert "config.toml" not in message(lambda: load_eval(f"mine={tmp_path / 'pipe.jsonl'}", 0))
    message(lambda: read_json(tmp_path / "zero.json"))
    message(lambda: config.resolve(file=tmp_path / "zero.json"))


# Models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded model."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in TINY.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_parameters_are_counted() -> None:
    model = load(TINY).model
    assert parameter_count(model.config) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 10**12},
        {"hidden_size": 1 << 30, "intermediate_size": 1 << 30},
        {"intermediate_size": 1 << 36},
        {"head_dim": 1 << 38},
        {"num_attention_heads": 10**9},
        {"num_hidden_layers": 999},
        {"num_hidden_layers": 1 << 39},
    ],
    ids=str,
)
def test_a_shape_that_the_files_do_not_bear_out_is_refused_before_anything_is_made(
    sizes: dict[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "config.json", **sizes)
    monkeypatch.setattr(loading, "Transformer", None)
    said = message(lambda: load(folder))
    assert "config.json" in said
    assert "parameters" in said or "at most 1000" in said


def header(data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(data) if length is None else length) + data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", header(b"{}", 1 << 62), header(b"{}", 99_000_000), header(b'{"a":' * 50_000), header(b"[]"), header(b"\xff"),
        header(b'{"norm": {"dtype": "F32", "shape": [4294967296], "data_offsets": [0, 17179869184]}}'),
        header(b'{"norm": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}'),
    ],
    ids=lambda data: repr(data[:40]),
)  # fmt: skip
def test_hostile_weights_are_one_line(data: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(data)
    said = message(lambda: load(folder))
    assert "model.safetensors" in said or "the weights have" in said


def test_weights_that_are_quantised_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: (100 * tensor).to(torch.int32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    assert "has the type I32: expected one of F64" in message(lambda: load(folder))


TOKENIZERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "{}": lambda raw: {},
    "a list": lambda raw: [1],
    "deep": lambda raw: "[" * 100_000,
    "a broken expression": lambda raw: {**raw, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "((a*"}}},
    "numbers past the end": lambda raw: {
        **raw, "model": {**raw["model"], "vocab": {word: i + 10**6 for word, i in raw["model"]["vocab"].items()}},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_hostile_tokenizer_is_one_line(name: str, folder: Path) -> None:
    path = folder / "tokenizer.json"
    made = TOKENIZERS[name](json.loads(path.read_text()))
    path.write_text(made if isinstance(made, str) else json.dumps(made))
    assert "tokenizer.json" in message(lambda: load(folder))


def test_a_huge_tokenizer_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(folder / "tokenizer.json", "r+b") as file:
        file.truncate(65 << 20)  # a hole in the file: nothing is written
    monkeypatch.setattr(loading, "Tokenizer", None)
    assert "at most 67108864" in message(lambda: load(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_link_out_of_the_folder_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text((folder / name).read_text() if (folder / name).exists() else "mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    assert f"link out of its folder, to {secret}" in message(lambda: load(folder))


def test_links_of_the_hubs_cache_are_read_and_saved_as_files(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "0123").mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(cache / "blobs" / path.name)
        (cache / "snapshots" / "0123" / path.name).symlink_to(f"../../blobs/{path.name}")
    out = tmp_path / "out"
    out.mkdir()
    save(load(cache / "snapshots" / "0123"), out)
    assert not any(path.is_symlink() for path in out.iterdir())


@pytest.mark.parametrize("shard", ["../a.safetensors", "/etc/a.safetensors", "a\\b.safetensors", "pytorch_model.bin"])
def test_a_shard_stays_in_its_folder(shard: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "names a shard outside its folder" in message(lambda: load(folder))


def test_nothing_of_a_model_is_used_but_numbers_and_text(folder: Path) -> None:
    """Code and pickles beside the weights are not touched, whatever config.json says of them."""
    (folder / "modeling_tiny.py").write_text("raise SystemExit('remote code ran')")
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch /tmp/owned'\ntR.")
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_tiny.Model"})
    assert isinstance(load(folder).model, Transformer)
    (folder / "model.safetensors").unlink()
    assert "pickled weights are not read" in message(lambda: load(folder))


# Grading

SECRETS = (
    "HF_TOKEN HUGGING_FACE_HUB_TOKEN WANDB_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN "
    "GITHUB_TOKEN "
    "OPENAI_API_KEY ANTHROPIC_API_KEY GOOGLE_APPLICATION_CREDENTIALS AZURE_CLIENT_SECRET KUBECONFIG "
    "SSH_AUTH_SOCK NETRC "
    "DATABASE_URL HTTPS_PROXY PIP_INDEX_URL MY_OWN_SECRET"
)


@pytest.fixture
def own_reward(tmp_path: Path) -> RewardConfig:
    """A user's reward that tells what it sees."""
    path = tmp_path / "own_reward_of_this_test.py"
    path.write_text(
        "import json, os, resource, sys\nfrom r1v0.types import Score\n"
        "def see(problem, text, finished):\n"
        "    limits = [resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0] for name in ('AS', 'CORE')]\n"
        "    return Score(1.0, True, extracted=json.dumps([os.getpid(), dict(os.environ), limits, 'torch' in "
        "sys.modules]))\n"
    )
    return RewardConfig(name=f"{path}:see", workers=1, memory_mb=1024)


def test_a_users_reward_runs_elsewhere_with_limits_and_without_secrets(
    own_reward: RewardConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is made of a list of what is passed on, so a secret of any name stays here."""
    for name in SECRETS.split():
        monkeypatch.setenv(name, "hunter2")
    with Verifier(own_reward) as verifier:
        verifier.submit(0, Problem("p", "", "", ""), "text", True)
        seen = json.loads(verifier.collect()[0].extracted or "")
    process, variables, limits, has_torch = seen
    assert process != os.getpid()
    assert not variables.keys() & set(SECRETS.split())
    assert "hunter2" not in json.dumps(variables)
    assert variables.keys() - {"LC_CTYPE"} == environment().keys()
    assert limits == [1024 << 20, 0]
    assert not has_torch
    assert not any("own_reward_of_this_test" in module for module in sys.modules)

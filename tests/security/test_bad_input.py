"""The bad-input table: whatever a user gets wrong is exit code 2 and one line that names it, and nothing new on disk.

Each row is a command, what lies in the working folder before it, and words of the line: what was given, and what to do.
"""

import gzip
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from r1v0.cli import main
from r1v0.models.loading import TINY

RUN: list[Path] = []  # a finished run of one step, made once
LONG = "9" * 400
ANSWER = dict(
    dataset="countdown",
    template="countdown",
    problem="p",
    sample=0,
    question="q",
    gold="g",
    completion="t",
    tokens=1,
    cut_off=False,
    reward=0.0,
)
BENT = gzip.compress(
    json.dumps({**ANSWER, "sample": "0", **dict.fromkeys(("correct", "strict", "extracted", "failure"))}).encode()
)


class Case(NamedTuple):
    command: str | Sequence[str]
    words: Sequence[str]
    given: Callable[[], object] | None = None

    def __str__(self) -> str:
        return " ".join(self.arguments)[:100]

    @property
    def arguments(self) -> list[str]:
        return self.command.split() if isinstance(self.command, str) else list(self.command)


def sets(*items: str) -> list[str]:
    return ["train", *(word for item in items for word in ("--set", item))]


def file(name: str, content: str | bytes = b"") -> Callable[[], object]:
    """A file in the working folder."""

    def make() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def rows(name: str, *lines: Any) -> Callable[[], object]:
    return file(name, "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def model(hurt: Callable[[Path], object]) -> Callable[[], object]:
    """A copy of the embedded model in "model", with something wrong."""

    def make() -> None:
        shutil.copytree(
            TINY, "model", copy_function=lambda here, there: Path(there).write_bytes(Path(here).read_bytes())
        )
        hurt(Path("model"))

    return make


def edit(name: str, **changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        held = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**held, **changes}))

    return change


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def run(*hurts: Callable[[Path], object]) -> Callable[[], object]:
    """A copy of a finished run in "run", with something wrong."""

    def make() -> None:
        shutil.copytree(RUN[0], "run")
        for hurt in hurts:
            hurt(Path("run"))

    return make


CHECKPOINT = "checkpoints/step-00001/"


def flip(name: str) -> Callable[[Path], object]:
    """One bit of a file's middle byte."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(bytes(data))

    return change


def halve(name: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


DATA = ["data.name=mine", "data.path=mine.jsonl", "eval.on=[]"]
ROW = {"problem": "1+1", "answer": "2"}

CONFIG = [
    Case(sets("grpo.group_sise=4"), ["grpo.group_sise", "did you mean 'grpo.group_size'?"]),
    Case(sets("grup.size=4"), ["'grup'", "did you mean 'grpo'?"]),
    Case(sets("steps=many"), ["steps", '"many"', "whole number"]),
    Case(sets("steps=1.5"), ["steps", "1.5", "whole number"]),
    Case(sets("steps=-1"), ["steps is -1", "0 or more"]),
    Case(sets("steps=true"), ["steps", "true", "whole number"]),
    Case(sets(f"steps={LONG}"), ["steps", "64 bits"]),
    Case(sets("steps=1000000000"), ["steps is 1000000000", "at most 999999999"]),
    Case(sets("sampling.max_sequences=9223372036854775807"), ["sampling.max_sequences", "at most"]),
    Case(sets("reward.workers=1000000"), ["reward.workers", "at most 1024"]),
    Case(sets("optimizer.lr=inf"), ["optimizer.lr", "finite"]),
    Case(sets("optimizer.lr=nan"), ["optimizer.lr", "finite"]),
    Case(sets("optimizer.lr="), ["optimizer.lr", "a number"]),
    Case(sets("optimizer=3"), ["optimizer", "section", "optimizer.lr="]),
    Case(sets("seed"), ["'seed'", "KEY=VALUE"]),
    Case(sets("=3"), ["'=3'", "KEY=VALUE"]),
    Case(sets("grpo.group_size=1"), ["grpo.group_size is 1", "at least 2"]),
    Case(sets("grpo.variant=grop"), ["grop", "did you mean 'grpo'?"]),
    Case(sets("compute.dtype=int8"), ["compute.dtype", "int8", "bfloat16"]),
    Case(sets("sampling.top_p=0.9"), ["sampling.top_p", "logprobs"]),
    Case(sets('eval.on="math500"'), ["eval.on", "a list"]),
    Case(sets('eval.on=["countdown", "countdown"]'), ["eval.on", "each dataset once"]),
    Case(sets("model=\udcff"), ["model", "UTF-8"]),
    Case("train --config none.toml", ["none.toml", "does not exist"]),
    Case("train --config .", ["config file .", "cannot be read"]),
    Case("train --config a.toml", ["a.toml", "not TOML"], file("a.toml", "steps = ")),
    Case("train --config a.toml", ["a.toml", "not TOML", "line 2"], file("a.toml", "seed = 1\nseed = 2\n")),
    Case("train --config a.toml", ["a.toml", "cannot be read", "UTF-8"], file("a.toml", b"\xff\xfe\x00")),
    Case("train --config a.toml", ["a.toml", "cannot be read"], file("a.toml", b"#" * (2 << 20))),
    Case("train --config a.toml", ["a.toml", "not TOML"], file("a.toml", "a=" + "[" * 50_000)),
    Case("train --config a.toml", ["'stepz' (--config a.toml)", "did you mean 'steps'?"], file("a.toml", "stepz = 3")),
    Case(
        "train --config a.toml", ["optimizer.lr (--config a.toml)", "finite"], file("a.toml", "[optimizer]\nlr = nan")
    ),
    Case("train --config a.toml", ["steps (--config a.toml)", "whole number"], file("a.toml", "steps = 2024-01-01")),
    Case("train --config link.toml", ["link.toml", "does not exist"], lambda: Path("link.toml").symlink_to("nowhere")),
]

CLI = [
    Case([], ["VERB"]),
    Case("trian", ["trian", "train"]),
    Case("train --sets seed=1", ["--sets", "--help"]),
    Case("train --set", ["--set", "one argument"]),
    Case("train --preset countdwn", ["'countdwn'", "did you mean 'countdown'?"]),
    Case("train --preset ../countdown", ["'../countdown'"]),
    Case(sets("data.name=cuontdown-train"), ["cuontdown-train", "did you mean 'countdown-train'?"]),
    Case(sets('eval.on=["cuontdown"]'), ["cuontdown", "did you mean 'countdown'?"]),
    Case(sets("reward.name=cuontdown"), ["cuontdown", "did you mean 'countdown'?"]),
    Case(sets("prompt.template=cuontdown"), ["cuontdown", "did you mean 'countdown'?"]),
    Case(sets("compute.device=cuda"), ["compute.device"]),
    Case(sets("data.name=countdown"), ["'countdown'", "for evaluation", "countdown-train"]),
    Case(["train", "--out", ""], ["--out", "the path is empty"]),
    Case("train --out file", ["file", "choose another"], file("file", "mine")),
    Case("train --out file/run", ["file/run", "choose another"], file("file", "mine")),
    Case("train --resume none", ["none", "does not exist"]),
    Case("train --resume .", ["not a run folder"]),
    Case("train --resume . --out other", ["--resume", "--out"]),
    Case("eval no/where/at/all --on countdown", ["no/where/at/all"]),
    Case("eval tiny --on cuontdown", ["cuontdown", "did you mean 'countdown'?"]),
    Case(["eval", "tiny", "--on", 'a"b'], ['a"b']),
    Case(["eval", "tiny", "--on", ""], ["dataset ''"]),
    Case(["eval", "tiny", "--on", "a\nb"], [r"a\nb"]),
    Case("eval tiny --samples 0", ["eval.samples"]),
    Case("eval tiny --samples two", ["--samples", "two"]),
    Case("eval tiny --samples 1e99", ["--samples", "1e99"]),
    Case("eval tiny --template cuontdown", ["cuontdown", "did you mean 'countdown'?"]),
    Case("eval tiny --against none", ["none", "holds no evaluation"]),
    Case("eval tiny --out full", ["full", "choose another --out"], file("full/mine", "mine")),
    Case("sample tiny", ["PROBLEM", "--help"]),
    Case(["sample", "no/where/at/all", "3 7 4 target 17"], ["no/where/at/all"]),
    Case(["sample", "tiny", "3 7 4 target 17", "--samples", "0"], ["--samples", "at least 1"]),
    Case(["sample", "tiny", "\udcff"], ["'cli'", "not UTF-8"]),
    Case("sample tiny 3 --samples 100000000000", ["--samples is 100000000000", "at most 65536"]),
    Case("eval tiny --set eval.on=[]", ["eval.on is []", "--on countdown"]),
    Case(["train", "--set", "model=" + "a" * 5000], ["aaa", "name too long"]),
    Case("plot", ["RUN"]),
    Case("plot none", ["none", "does not exist"]),
    Case("plot .", ["not a run folder"]),
    Case("plot file", ["file"], file("file", "mine")),
    Case("plot label=", ["label=", "expected RUN or label=RUN"]),
    Case("verify 1", ["gold"]),
    Case(["verify", " ", "2"], ["gold answer is empty"]),
    Case("verify --batch none.jsonl", ["none.jsonl"]),
    Case("verify --batch .", [". cannot be read"]),
    Case("verify 1 2 --batch a.jsonl", ["GOLD ANSWER or --batch"]),
    Case("verify 1 2 --reward maht", ["maht", "did you mean 'math'?"]),
    Case("verify 1 2 --reward own.py:f", ["own.py"]),
    Case("verify 1 2 --reward own.py:", ["own.py:", "FILE.py:FUNCTION"], file("own.py")),
    Case("pretrain", ["--out"]),
    Case("pretrain --out base --steps 0", ["--steps", "at least 1"]),
    Case("pretrain --out file --steps 1", ["file"], file("file", "mine")),
    Case("presets countdwn", ["countdwn", "did you mean 'countdown'?"]),
]

DATA_FILES = [
    Case(sets("data.name=mine", "data.path=none.jsonl"), ["none.jsonl", "does not exist", "give a .jsonl"]),
    Case(sets(*DATA), ["mine.jsonl", "holds no rows"], file("mine.jsonl")),
    Case(sets(*DATA), ["mine.jsonl", "no JSON objects"], file("mine.jsonl", b"\x89PNG\r\n\0\xff")),
    Case(sets(*DATA), ["mine.jsonl", "no JSON objects"], rows("mine.jsonl", [1], [2])),
    Case(sets(*DATA), ["mine.jsonl", "question_column"], rows("mine.jsonl", {"a": "b"})),
    Case(sets(*DATA), ["mine.jsonl:2", "malformed"], rows("mine.jsonl", ROW, "{")),
    Case(sets(*DATA), ["mine.jsonl", "malformed", "'answer'"], rows("mine.jsonl", {"problem": "a", "answer": None})),
    Case(sets(*DATA), ["must tell rows apart", "'1'"], rows("mine.jsonl", {**ROW, "id": 1}, {**ROW, "id": 1})),
    Case(sets(*DATA, "data.levels=[3]"), ["data.levels", "no column 'level'"], rows("mine.jsonl", ROW)),
    Case(sets(*DATA, "data.split=test"), ["split 'test'", "leave data.split out"], rows("mine.jsonl", ROW)),
    Case(sets(*DATA, "data.answer_column=x"), ["data.answer_column 'x'", "problem, answer"], rows("mine.jsonl", ROW)),
    Case(sets("data.name=mine", "data.path=mine.jsonl", 'eval.on=["x=mine.jsonl"]'), ["no problem is left", "mine.jsonl"],
         rows("mine.jsonl", ROW)),
    Case(sets("data.name=mine", "data.path=mine.txt"), ["mine.txt", "no known format"], file("mine.txt", "hello")),
    Case(sets("data.name=mine", "data.path=mine.pkl"), ["mine.pkl", "no known format"], file("mine.pkl", b"\x80\x04.")),
    Case(sets("data.name=mine", "data.path=a.json"), ["a.json", "not JSON"], file("a.json", "[" * 100_000)),
    Case(sets("data.name=mine", "data.path=a.jsonl.gz"), ["a.jsonl.gz", "cannot be read"], file("a.jsonl.gz", "no gzip")),
    Case(sets("data.name=mine", "data.path=a.jsonl.gz"), ["a.jsonl.gz", "more than"],
         file("a.jsonl.gz", gzip.compress(bytes(20 << 20)))),
    Case(sets("data.name=mine", "data.path=a.parquet"), ["a.parquet", "parquet"], file("a.parquet", b"PAR1")),
    Case(sets("data.name=mine", "data.path=folder"), ["folder", "no data files"], lambda: Path("folder").mkdir()),
    Case(sets("data.name=mine", "data.path=loop.jsonl"), ["loop.jsonl"], lambda: Path("loop.jsonl").symlink_to("loop.jsonl")),
    Case(sets("data.name=countdown-train+gsm8k"), ["countdown-train", "cannot be mixed"]),
    Case("verify --batch a.jsonl", ["a.jsonl, line 2", "not JSON"], rows("a.jsonl", {"gold": "1", "completion": "1"}, "{")),
    Case("verify --batch a.jsonl", ["line 1", "'completion'", "expected a text"], rows("a.jsonl", {"gold": "1", "completion": 1})),
    Case("verify --batch a.jsonl", ["line 1", "'gold' is empty"], rows("a.jsonl", {"gold": " ", "completion": "1"})),
    Case("verify --batch a.jsonl", ["a.jsonl", "UTF-8"], file("a.jsonl", b"\xff\xff\n")),
]  # fmt: skip

SAMPLE = ["sample", "model", "3 7 4 target 17", "--preset", "countdown"]
MODEL = [
    Case(sets("model=no/where/at/all"), ["no/where/at/all", "does not exist", "hub id"]),
    Case(sets("model=."), ["'.'", "without config.json"]),
    Case("eval some/model", ["nothing says what to measure", "--on math500"]),
    Case(sets("model=file"), ["'file' is a file", "config.json"], file("file", "mine")),
    Case(sets("model="), ["model is empty", "hub id"]),
    Case(SAMPLE, ["bert", "qwen2"], model(edit("config.json", model_type="bert"))),
    Case(SAMPLE, ["model_type", "['llama']", "qwen2, qwen3, llama"], model(edit("config.json", model_type=["llama"]))),
    Case(SAMPLE, ["hidden_size", "'48'", "positive number"], model(edit("config.json", hidden_size="48"))),
    Case(SAMPLE, ["num_hidden_layers", "whole number"], model(edit("config.json", num_hidden_layers=1.5))),
    Case(SAMPLE, ["rms_norm_eps", "positive"], model(edit("config.json", rms_norm_eps=math.nan))),
    Case(SAMPLE, ["rope_scaling", "expected an object"], model(edit("config.json", rope_scaling=5))),
    Case(SAMPLE, ["rope_theta", "positive"], model(edit("config.json", rope_parameters={"rope_theta": "x"}))),
    Case(SAMPLE, ["yarn", "not supported"], model(edit("config.json", rope_scaling={"type": "yarn"}))),
    Case(SAMPLE, ["quantization_config"], model(edit("config.json", quantization_config={"bits": 4}))),
    Case(SAMPLE, ["parameters", "the weights have"], model(edit("config.json", vocab_size=10**12))),
    Case(SAMPLE, ["num_hidden_layers", "at most 1000"], model(edit("config.json", num_hidden_layers=10**9))),
    Case(SAMPLE, ["config.json", "cannot be read as JSON"], model(put("config.json", "{"))),
    Case(SAMPLE, ["config.json", "cannot be read as JSON"], model(put("config.json", b"\xff\0"))),
    Case(SAMPLE, ["config.json", "RecursionError"], model(put("config.json", '{"a":' * 100_000))),
    Case(SAMPLE, ["config.json", "expected a JSON object"], model(put("config.json", "[]"))),
    Case(SAMPLE, ["no model.safetensors", "pickled weights"], model(drop("model.safetensors"))),
    Case(SAMPLE, ["the weights have 0 bytes"], model(put("model.safetensors", b""))),
    Case(SAMPLE, ["model.safetensors", "not a whole safetensors file"], model(halve("model.safetensors"))),
    Case(SAMPLE, ["no tokenizer.json"], model(drop("tokenizer.json"))),
    Case(SAMPLE, ["tokenizer.json", "not a tokenizer"], model(put("tokenizer.json", "{}"))),
    Case(
        SAMPLE,
        ["end token 100000", "generation_config.json"],
        model(put("generation_config.json", '{"eos_token_id": 100000}')),
    ),
    Case(SAMPLE, ["generation_config.json", "expected a JSON object"], model(put("generation_config.json", "3"))),
    Case(["sample", "tiny", " ", "--preset", "countdown", "--set", "prompt.template=plain"], ["no tokens"]),
]

SMALL = [
    "grpo.groups=1",
    "grpo.group_size=2",
    "sampling.max_new_tokens=8",
    "eval.max_problems=2",
    "steps=1",
    "threads=1",
]
RESUME = ["train", "--resume", "run", "--set", "steps=2"]
CHECKPOINTS = [
    Case(
        "sample run 3",
        ["run", "without a checkpoint"],
        run(lambda folder: shutil.rmtree(folder / "checkpoints/step-00001")),
    ),
    Case(RESUME, ["run", "whole checkpoint"], run(drop(CHECKPOINT + "model.safetensors"))),
    Case(RESUME, ["run", "whole checkpoint"], run(halve(CHECKPOINT + "model.safetensors"))),
    Case(RESUME, ["run", "whole checkpoint"], run(flip(CHECKPOINT + "model.safetensors"))),
    Case(RESUME, ["run", "whole checkpoint"], run(flip(CHECKPOINT + "trainer/optimizer.safetensors"))),
    Case(RESUME, ["run", "whole checkpoint"], run(drop(CHECKPOINT + "trainer/optimizer.safetensors"))),
    Case(RESUME, ["run", "whole checkpoint"], run(put(CHECKPOINT + "trainer/state.json", "{}"))),
    Case(RESUME, ["run", "whole checkpoint"], run(put(CHECKPOINT + "trainer/manifest.json", "[]"))),
    Case(RESUME, ["run", "whole checkpoint"], run(put(CHECKPOINT + "trainer/manifest.json", b"\xff" * 99))),
    Case(RESUME, ["run", "whole checkpoint"], run(put(CHECKPOINT + "tokenizer.json", "{}"))),
    Case("sample run 3", ["run", "whole checkpoint"], run(flip(CHECKPOINT + "model.safetensors"))),
    Case("eval run", ["run", "checkpoint"], run(lambda folder: shutil.rmtree(folder / "checkpoints/step-00001"))),
    Case("eval run", ["run", "whole checkpoint"], run(halve(CHECKPOINT + "trainer/manifest.json"))),
]

RUNS = [
    Case("train --out run", ["run already holds a run", "--resume run"], run()),
    Case("pretrain --out run --steps 1", ["run", "not empty"], run()),
    Case("train --resume run --set seed=1", ["seed", "cannot become", "only steps"], run()),
    Case("train --resume run --set steps=x", ["steps", "whole number"], run()),
    Case("train --resume run --preset countdown", ["--resume", "--preset"], run()),
    Case(RESUME, ["run/config.toml", "cannot be read"], run(drop("config.toml"))),
    Case(RESUME, ["run/config.toml", "not TOML"], run(put("config.toml", "steps = "))),
    Case(RESUME, ["run/config.toml", "cannot be read"], run(put("config.toml", b"\xff\xff"))),
    Case(RESUME, ["'stepz' (run/config.toml)", "did you mean"], run(put("config.toml", "stepz = 3"))),
    Case(RESUME, ["run/metrics.jsonl line 1", "damaged"], run(put("metrics.jsonl", 'x\n{"step": 1}\n'))),
    Case(RESUME, ["run/metrics.jsonl line 1", "damaged"], run(put("metrics.jsonl", '{"step": "1"}\n{"step": 1}\n'))),
    Case(RESUME, ["run/evals.jsonl line 1", "damaged"], run(put("evals.jsonl", "[]\n[]\n"))),
    Case(RESUME, ["step-00000.jsonl.gz", "damaged"], run(put("answers/step-00000.jsonl.gz", b"\x1f\x8b"))),
    Case(RESUME, ["step-00000.jsonl.gz", "not a graded answer"], run(put("answers/step-00000.jsonl.gz", gzip.compress(b"{}\n")))),
    Case(RESUME, ["step-00000.jsonl.gz", "not a graded answer"], run(put("answers/step-00000.jsonl.gz", BENT))),
    Case("plot run", ["run/metrics.jsonl line 1", "damaged"], run(put("metrics.jsonl", f'{{"step": {LONG}}}\n{{"step": 1}}\n'))),
    Case("plot run", ["run/metrics.jsonl line 2", "damaged"], run(put("metrics.jsonl", '{"step": 1}\n\0\0\n{"step": 2}\n'))),
    Case("plot run", ["run/evals.jsonl", "cannot be read"], run(drop("evals.jsonl"), lambda folder: (folder / "evals.jsonl").mkdir())),
    Case("plot run --out run/curves.txt", ["curves.txt"], run()),
    Case("train --resume run/metrics.jsonl", ["run/metrics.jsonl"], run()),
    Case("train --resume run/checkpoints", ["run/checkpoints", "not a run folder"], run()),
]  # fmt: skip

TABLE = {"config": CONFIG, "cli": CLI, "data": DATA_FILES, "model": MODEL, "checkpoint": CHECKPOINTS, "run": RUNS}


@pytest.fixture(scope="module", autouse=True)
def _finished(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bad") / "run"
    assert main([*sets(*SMALL), "--out", str(folder)]) == 0
    shutil.rmtree(folder / "figures", ignore_errors=True)
    RUN[:] = [folder]


def snapshot() -> dict[str, bytes | None]:
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in Path(".").rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{kind}: {case}") for kind in TABLE for case in TABLE[kind]])
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if case.given:
        case.given()
    before = snapshot()
    capsys.readouterr()
    code = main(case.arguments)
    out, err = capsys.readouterr()
    *notes, line, rest = err.split("\n")
    assert (code, out, rest) == (2, "", "")
    assert line.startswith("r1v0: ")
    assert line.isprintable()
    assert len(line) < 700
    assert ": " in line[6:] or "which has" in line, "says nothing of what to do"
    for word in case.words:
        assert word in line
    assert all(note.startswith("r1v0: checkpoint ") and "damaged" in note for note in notes)
    assert snapshot() == before


def test_the_table_has_every_kind_of_input() -> None:
    assert {kind: len(cases) >= 10 for kind, cases in TABLE.items()} == dict.fromkeys(TABLE, True)
    assert sum(map(len, TABLE.values())) >= 40

"""The command line as a user meets it: exit codes, one line for a mistake, nothing overwritten, and a whole small
run."""

import gzip
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from r1v0 import __version__, config
from r1v0.cli import main
from tests.config.test_config import TYPES

VERBS = ("train", "eval", "sample", "plot", "verify", "pretrain", "presets")
SMALL = [
    "grpo.groups=2",
    "grpo.group_size=4",
    "sampling.max_new_tokens=24",
    "eval.max_problems=6",
    "eval.every=2",
    "checkpoints.every=2",
    "threads=1",
]


def sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def r1v0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse's own way out of --help
            code = int(exit.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def fails(result: Result, *words: str) -> None:
    """A user's mistake: exit code 2, nothing on stdout, one line on stderr that has these words."""
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.startswith("r1v0: ")
    assert result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with two checkpoints, made by the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--out", str(folder), *sets("steps=4", *SMALL)]) == 0
    return folder


# Help


def test_help_lists_every_verb(r1v0: Command) -> None:
    result = r1v0("--help")
    assert result.code == 0
    assert all(f"\n    {verb} " in result.out for verb in VERBS)
    for verb in VERBS:
        assert r1v0(verb, "--help").code == 0
    assert r1v0("--version").out == f"r1v0 {__version__}\n"


def test_help_is_there_at_once() -> None:
    """Half a second of processor time at most, whatever else the machine does."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "r1v0", "--help"], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_presets_are_listed_shown_and_explained(r1v0: Command) -> None:
    listed = r1v0("presets")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == sorted(config.presets())
    shown = r1v0("presets", "countdown")
    assert shown.out == (config.PRESET_DIR / "countdown.toml").read_text(encoding="utf-8")
    explained = r1v0("presets", "--keys").out
    assert all(f"{key} = " in explained for key in TYPES)
    fails(r1v0("presets", "countdwn"), "'countdwn'", "did you mean 'countdown'?")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    piped = f"{sys.executable} -m r1v0 presets --keys | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# A whole run


def test_a_run_leaves_what_is_promised(finished: Path) -> None:
    found = {path.name for path in finished.iterdir()}
    assert {"config.toml", "env.json", "metrics.jsonl", "evals.jsonl", "rollouts", "checkpoints", "figures"} <= found
    assert "report.html" in found
    assert config.resolve(file=finished / "config.toml").steps == 4
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step-00002", "step-00004"]
    assert (finished / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    metrics = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    evals = [json.loads(line) for line in (finished / "evals.jsonl").read_text().splitlines()]
    assert [(row["step"], row["dataset"]) for row in evals] == [
        (step, name) for step in (0, 2, 4) for name in ("countdown", "countdown-hard")
    ]
    with gzip.open(finished / "rollouts" / "step-00001.jsonl.gz", "rt") as lines:
        assert len(list(lines)) == 2 * 4


METRICS = [
    "step",
    "reward/mean",
    "reward/strict",
    "length/mean",
    "length/finished",
    "length/correct",
    "length/wrong",
    "length/truncated_frac",
    "groups/flat_frac",
    "groups/all_correct_frac",
    "groups/all_wrong_frac",
    "tokens/sampled",
    "tokens/trained",
    "policy/entropy",
    "policy/mismatch_kl",
    "policy/clip_frac",
    "policy/grad_norm",
    "policy/lr",
    "reflection/frac",
    "verify/timeouts",
    "verify/disagreements",
    "time/sample_s",
    "time/verify_s",
    "time/train_s",
    "time/step_s",
    "memory/peak_gb",
]
EVALUATION = [
    "step",
    "dataset",
    "problems",
    "samples",
    "accuracy",
    "ci_low",
    "ci_high",
    "strict_accuracy",
    "pass_at_k",
    "length",
    "length_finished",
    "truncated_frac",
    "reflection_frac",
]


def test_the_logs_have_the_keys_that_are_relied_on(finished: Path) -> None:
    for row in map(json.loads, (finished / "metrics.jsonl").read_text().splitlines()):
        assert set(METRICS) <= row.keys()
    for row in map(json.loads, (finished / "evals.jsonl").read_text().splitlines()):
        assert set(EVALUATION) <= row.keys()
        assert 0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1


def test_a_run_is_never_overwritten(finished: Path, r1v0: Command) -> None:
    before = snapshot(finished)
    fails(r1v0("train", "--out", finished, *sets("steps=1", *SMALL)), str(finished), "--resume")
    fails(r1v0("pretrain", "--out", finished, "--steps", "1"), "not empty")
    fails(r1v0("train", "--resume", finished, "--set", "seed=1"), "seed", "cannot become")
    assert snapshot(finished) == before


def test_an_unnamed_run_takes_the_next_free_folder(r1v0: Command) -> None:
    small = sets("steps=0", *SMALL, "eval.on=[]")
    Path("runs").mkdir()
    for number in (1, 2):
        assert r1v0("train", *small).code == 0
        assert sorted(path.name for path in Path("runs").iterdir())[-1].endswith(f"{number:03d}")


def test_resuming_adds_steps(finished: Path, r1v0: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    result = r1v0("train", "--resume", copy, "--set", "steps=5")
    assert result.code == 0, result.err
    assert any(str(copy / "figures") in line for line in result.out.splitlines()[-4:])  # a run ends with where to look
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    assert lines[:4] == (finished / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_resuming_a_run_that_is_done_says_so(finished: Path, r1v0: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    result = r1v0("train", "--resume", copy)
    assert result.code == 0, result.err
    assert "the run has done its 4 steps; to go on, add --set steps=N with more" in result.out + result.err
    before = snapshot(copy)
    fails(r1v0("train", "--resume", copy, "--set", "steps=3"), "is at step 4 and steps is 3", "set more")
    assert snapshot(copy) == before


def test_a_step_without_any_gradient_is_no_error(r1v0: Command) -> None:
    """DAPO may find no group with a gradient: here one token is too short for any right answer."""
    tight = sets(
        "grpo.variant=dapo", "grpo.max_refills=1", "steps=1", *SMALL, "sampling.max_new_tokens=1", "eval.on=[]"
    )
    result = r1v0("train", "--out", "run", *tight)
    assert result.code == 0, result.err
    row = json.loads(Path("run/metrics.jsonl").read_text())
    assert (row["groups/flat_frac"], row["groups/sampled"], row["tokens/trained"]) == (1, 4, 0)


def test_damaged_files_are_named(finished: Path, r1v0: Command) -> None:
    shutil.copytree(finished, "run")
    answers = Path("run/answers/step-00000.jsonl.gz")
    for damage in (b"\x1f\x8b", gzip.compress(b'{"a": 1}\n'), gzip.compress(b"[]\n"), gzip.compress(b"{")):
        answers.write_bytes(damage)
        result = r1v0("train", "--resume", "run", "--set", "steps=6")
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert str(answers) in result.err
    small = sets(*SMALL)
    assert r1v0("eval", "tiny", "--on", "countdown", "--out", "answers", *small).code == 0
    for text in ("{", "[]", "null"):
        Path("answers/eval.json").write_text(text)
        fails(r1v0("eval", "tiny", "--on", "countdown", "--out", "answers", *small), "answers")


def test_the_other_verbs_take_a_run_folder(finished: Path, r1v0: Command) -> None:
    small = sets(*SMALL)
    evaluated = r1v0("eval", finished, "--on", "countdown", "--samples", "2", "--out", "answers", *small)
    assert evaluated.code == 0, evaluated.err
    assert "countdown" in evaluated.out
    row = json.loads(Path("answers/evals.jsonl").read_text())
    assert (row["dataset"], row["problems"], row["samples"]) == ("countdown", 6, 2)
    assert len(Path("answers/answers.jsonl").read_text().splitlines()) == 12
    assert "positions" not in evaluated.out + evaluated.err
    longer = r1v0("eval", finished, "--on", "countdown", "--out", "longer", *small, "--set", "eval.max_new_tokens=1024")
    assert longer.code == 0, longer.err
    assert "1024 more go past the 1024 positions" in longer.out + longer.err
    sampled = r1v0("sample", finished, "3 7 4 target 17", "--samples", "3", *small)
    assert sampled.code == 0
    assert len(sampled.out.splitlines()) == 3
    drawn = r1v0("plot", f"one={finished}", f"two={finished}", "--out", "both.png")
    assert drawn.out == "both.png\n"
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_gives_the_same_answers(r1v0: Command) -> None:
    ask = ["sample", "tiny", "3 7 4 target 17", "--samples", "4", *sets(*SMALL)]
    assert r1v0(*ask).out == r1v0(*ask).out
    assert r1v0(*ask).out != r1v0(*ask, "--set", "seed=1").out


def test_verify_says_whether_and_why(r1v0: Command) -> None:
    right, wrong = r1v0("verify", r"\frac{1}{2}", "0.5"), r1v0("verify", r"\frac{1}{2}", "0.6")
    assert (right.code, wrong.code) == (0, 1)
    assert right.out != wrong.out
    Path("pairs.jsonl").write_text('{"gold": "1/2", "completion": "0.5"}\n{"gold": "1/2", "completion": "0.6"}\n')
    batch = r1v0("verify", "--batch", "pairs.jsonl")
    assert batch.code == 1
    graded = [json.loads(line) for line in batch.out.splitlines()]
    assert [row["correct"] for row in graded] == [True, False]
    assert all({"correct", "strict", "extracted", "seconds"} <= row.keys() for row in graded)
    Path("pairs.jsonl").write_text('{"gold": "1/2", "completion": "0.5"}\n')
    assert r1v0("verify", "--batch", "pairs.jsonl").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interruption_leaves_a_checkpoint_to_go_on_from(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "r1v0", "train", "--out", str(folder)]
    command += sets("steps=100000", *SMALL, "eval.on=[]", "checkpoints.every=100000")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and not (folder / "metrics.jsonl").exists():
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"--resume {folder}" in out + err
    steps = len((folder / "metrics.jsonl").read_text().splitlines())
    # Behind a whole step, or with the samples of the next one where the signal came between sampling and the update.
    assert len(list((folder / "checkpoints").iterdir())) == 1
    assert next((folder / "checkpoints").iterdir()).name in (f"step-{steps:05d}", f"step-{steps:05d}.00")
    assert main(["train", "--resume", str(folder), "--set", f"steps={steps + 1}"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == steps + 1

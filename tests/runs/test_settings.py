"""One rule for settings: built-in defaults < the preset < --config < --set, whatever is absent, in every verb."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from r1v0 import config
from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.config import Config, resolve, to_toml
from r1v0.models.loading import TINY
from r1v0.rollouts.collect import reward_settings
from r1v0.runs.settings import Settled, asked, resumed, settle

SMALL = ["steps=1", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "eval.on=[]", "threads=1"]


def sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose template is another than its preset's and than the built-in one."""
    folder = tmp_path_factory.mktemp("settings") / "run"
    assert main(["train", "--out", str(folder), *sets(*SMALL, "prompt.template=plain", "seed=5")]) == 0
    return folder


def without_model(settled: Settled) -> Config:
    return dataclasses.replace(settled.config, model="")


# The preset, where none is named


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "[grpo]\n"])
def test_a_file_that_says_nothing_changes_nothing(text: str) -> None:
    Path("empty.toml").write_text(text)
    file = Path("empty.toml")
    assert settle(file=file).config == settle().config == resolve("countdown")
    for model in ("tiny", str(TINY), "Qwen/Qwen2.5-1.5B"):
        for on in ({}, {"--on": {"eval": {"on": ["math500"]}}}):
            assert (
                settle(model, file=file, flags=on, evaluates=True).config
                == settle(model, flags=on, evaluates=True).config
            )


def test_each_layer_goes_over_the_one_below() -> None:
    Path("mine.toml").write_text("seed = 3\nsteps = 7\n[grpo]\ngroups = 4\n")
    file = Path("mine.toml")
    found = settle(file=file, sets=["steps=9"])
    assert (found.config.seed, found.config.steps, found.config.grpo.groups) == (3, 9, 4)
    assert (found.config.prompt.template, found.config.grpo.aggregation, found.config.threads) == (
        "countdown",
        "token",
        1,
    )
    assert found.origins["seed"] == "--config mine.toml"
    assert found.origins["steps"] == "--set"
    assert found.origins["threads"] == "preset countdown (for tiny)"
    assert found.origins["grpo.kl_coef"] == "default"
    assert (
        found.line == "settings: built-in defaults < preset countdown (for tiny) < --config mine.toml < --set steps=9"
    )
    assert settle(preset="r1-v0", file=file).config == resolve("r1-v0", file)


def test_a_variant_says_where_its_six_settings_come_from() -> None:
    origins = settle(sets=["grpo.variant=dapo"]).origins
    assert origins["grpo.variant"] == origins["grpo.clip_high"] == origins["grpo.refill"] == "--set"
    assert origins["grpo.clip_low"] == "default"  # 0.2 in both


@pytest.mark.parametrize(
    ("data", "preset"),
    [
        ("gsm8k", "qwen2.5-0.5b-gsm8k"),
        ("math", "qwen2.5-1.5b-math"),
        ("math+gsm8k", "qwen2.5-1.5b-math"),
        ("metamathqa", "r1-v0"),
        ("countdown-train", "countdown"),
        ("gsm8k=here.jsonl", "qwen2.5-0.5b-gsm8k"),
    ],
)
def test_training_takes_the_preset_of_its_dataset(data: str, preset: str) -> None:
    assert settle(sets=[f"data.name={data}"]).config == resolve(preset, sets=[f"data.name={data}"])
    Path("data.toml").write_text(f'data.name = "{data}"\n')
    assert settle(file=Path("data.toml")).config == resolve(preset, sets=[f"data.name={data}"])


def test_the_preset_for_the_model_comes_before_that_of_the_dataset() -> None:
    gsm8k = {"--on": {"eval": {"on": ["gsm8k"]}}}
    for model in ("HuggingFaceTB/SmolLM2-135M-Instruct", "models/SmolLM2-135M-Instruct"):
        assert settle(model, flags=gsm8k, evaluates=True).preset == "smollm2-135m-gsm8k"
    assert settle("some/other", flags=gsm8k, evaluates=True).preset == "qwen2.5-0.5b-gsm8k"


def test_another_model_without_a_dataset_has_the_built_in_settings() -> None:
    found = settle(sets=["model=some/model"])
    assert found.config == resolve(sets=["model=some/model"])
    assert found.line == 'settings: built-in defaults < --set model="some/model"'
    own = ["data.name=mine", "data.path=mine.jsonl"]
    assert settle(sets=own).preset == "countdown"
    assert settle(sets=[*own, "model=some/model"]).config == resolve(sets=[*own, "model=some/model"])


# Runs and their checkpoints


def test_a_run_and_its_checkpoints_bring_the_same_settings(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = run / "checkpoints" / "step-00001"
    expected = dataclasses.replace(config.parse((run / "config.toml").read_text(), "run"), model="")
    assert expected.prompt.template == "plain"
    assert expected.seed == 5
    copy = Path(shutil.copytree(checkpoint, "alone"))  # away from its run it still has its own
    Path("empty.toml").touch()
    for model in (run, checkpoint, copy, Path(os.path.relpath(checkpoint))):
        assert without_model(settle(str(model), evaluates=True)) == expected
        assert without_model(settle(str(model), file=Path("empty.toml"))) == expected
        trained = settle(sets=[f"model={model}", "seed=6"])
        assert without_model(trained) == dataclasses.replace(expected, seed=6)
        assert trained.config.model == str(model)
    monkeypatch.chdir(checkpoint)
    assert without_model(settle(".")) == expected
    assert settle(str(run), sets=["prompt.template=r1-zero"]).config.prompt.template == "r1-zero"
    assert settle(str(run), "countdown").config.prompt.template == "countdown"


def test_a_base_a_run_and_its_checkpoint_are_asked_in_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", "run", *sets(*SMALL)]) == 0
    small = sets("eval.max_problems=2", "eval.max_new_tokens=4", "threads=1")
    for number, model in enumerate(("tiny", str(TINY), "run", "run/checkpoints/step-00001")):
        assert main(["eval", model, "--on", "countdown", "--out", f"e{number}", *small]) == 0, capsys.readouterr().err
        answers = [json.loads(line) for line in (Path(f"e{number}") / "answers.jsonl").read_text().splitlines()]
        assert [answer["template"] for answer in answers] == ["countdown", "countdown"]


def test_a_damaged_config_of_a_run_is_named(run: Path) -> None:
    folder = Path(shutil.copytree(run, "damaged"))
    (folder / "config.toml").write_text("stepz = 3")
    with pytest.raises(UserError, match=r"'stepz' \(damaged/config.toml\)"):
        settle("damaged/checkpoints/step-00001")


# What is written and printed


def test_the_resolved_config_alone_reproduces_it(run: Path) -> None:
    text = (run / "config.toml").read_text()
    assert text.startswith("# settings: built-in defaults < preset countdown (for tiny) < --set steps=1 ")
    assert '\ntemplate = "plain"  # --set\n' in text
    assert "\nkl_coef = 0.0  # default\n" in text
    assert "\nthreads = 1  # --set\n" in text
    given = [*SMALL, "prompt.template=plain", "seed=5"]
    assert resolve(file=run / "config.toml") == settle(sets=given).config == resolve("countdown", sets=given)


def test_the_origins_survive_strange_names() -> None:
    strange = Path("a # b\x07\nc.toml")
    strange.write_text("seed = 4\n")
    found = settle(file=strange, sets=['model="x  # y"', 'data.name="q = 1"'])
    text = found.toml()
    assert config.parse(text, "config.toml") == found.config
    origins = config.origins_in(text, found.config)
    assert origins.keys() == config.keys().keys()
    assert (origins["model"], origins["data.name"], origins["steps"]) == ("--set", "--set", found.origins["steps"])
    assert origins["seed"] == "--config a # b??c.toml"


def test_a_resumed_run_keeps_where_its_settings_came_from(run: Path) -> None:
    folder = Path(shutil.copytree(run, "again"))
    found = resumed(folder, ["steps=3", "health.action=stop"])
    assert found.origins["seed"] == found.origins["prompt.template"] == "--set"
    assert found.origins["grpo.groups"] == "--set"
    assert found.origins["optimizer.lr"] == "preset countdown (for tiny)"
    assert found.origins["steps"] == found.origins["health.action"] == "--set of a resumed run"
    assert main(["train", "--resume", "again", *sets("steps=2")]) == 0
    text = (folder / "config.toml").read_text()
    assert "\nsteps = 2  # --set of a resumed run\n" in text
    assert "\nseed = 5  # --set\n" in text
    old = Path(shutil.copytree(run, "old"))
    (old / "config.toml").write_text(to_toml(config.parse(text, "x")).replace("lr = 0.0003", "lr = 3e-4"))
    assert resumed(old, []).origins["optimizer.lr"] == "old/config.toml"  # a file without comments


@pytest.mark.parametrize("verb", ["train", "eval", "sample", "plan"])
def test_every_verb_says_in_a_line_what_it_settled_on(verb: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.toml").touch()
    words = {
        "train": sets(*SMALL, f"model={run}"),
        "eval": [str(run), "--on", "countdown", *sets("eval.max_problems=2")],
        "sample": [str(run), "3 7 4 target 17"],
        "plan": sets(f"model={run}"),
    }
    assert main([verb, *words[verb], "--config", "empty.toml"]) in (0, 1)
    printed = capsys.readouterr()
    (line,) = [line for line in (printed.out + printed.err).splitlines() if line.startswith("settings: ")]
    assert line.startswith(f"settings: built-in defaults < run {run} < --config empty.toml")


def test_config_prints_what_the_other_verbs_would_use(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(run), "--set", "seed=8"]) == 0
    Path("printed.toml").write_text(text := capsys.readouterr().out)
    assert resolve(file=Path("printed.toml")) == settle(str(run), sets=["seed=8"]).config
    assert f'\ntemplate = "plain"  # run {run}\n' in text
    assert "\nseed = 8  # --set\n" in text
    assert main(["config", "--preset", "r1-v0"]) == 0
    assert config.parse(capsys.readouterr().out, "x") == resolve("r1-v0")
    assert main(["config", "--set", "stepz=1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["config"]) == 0
    assert config.parse(capsys.readouterr().out, "x") == resolve("countdown")


# Folders


def test_runs_that_start_together_have_a_folder_each() -> None:
    command = [sys.executable, "-m", "r1v0", "train", *sets(*SMALL, "steps=0")]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in begun]
    assert [process.returncode for process in begun] == [0, 0, 0], ended
    assert sorted(path.name for path in Path("runs").iterdir()) == [f"countdown-{i:03d}" for i in (1, 2, 3)]
    assert all((path / "config.toml").is_file() for path in Path("runs").iterdir())


@pytest.mark.parametrize("verb", [["train", *sets("data.name=countdown")], ["eval", "nowhere", "--on", "countdown"]])
def test_a_command_that_fails_leaves_no_folder(verb: list[str]) -> None:
    assert main(verb) == 2
    assert list(Path().iterdir()) == []


# Evaluations: a dataset brings its own limits, reward and number of problems


def asked_with(settled: Settled, spec: str) -> tuple[int, int, str]:
    found = asked(settled, spec).config
    return found.eval.max_new_tokens, found.eval.max_problems, reward_settings(found, spec.partition("=")[0]).name


@pytest.mark.parametrize("model", ["tiny", "Qwen/Qwen2.5-1.5B", "run"])
def test_a_dataset_brings_its_own_limits_and_reward(model: str, run: Path) -> None:
    model = str(run) if model == "run" else model
    for on, expected in {
        "math500": (4096, 0, "math"),
        "aime24": (4096, 0, "math"),
        "gsm8k": (1024, 0, "math"),
        "math500=copy.jsonl": (4096, 0, "math"),
        "sums": (256, 256, "math"),
    }.items():
        both = settle(model, flags={"--on": {"eval": {"on": ["countdown", on]}}}, evaluates=True)
        assert asked_with(both, on) == expected, (model, on)
        assert asked_with(both, "countdown")[1:] == (256, "countdown"), (model, on)
        assert asked(both, on).config.eval.samples == 1
    assert asked_with(settle("some/model"), "mine=copy.jsonl") == (2048, 0, "math")


def test_what_is_named_goes_before_the_datasets_own() -> None:
    Path("mine.toml").write_text('[eval]\nmax_new_tokens = 100\nmax_problems = 7\n[reward]\nname = "gsm8k"\n')
    on = {"--on": {"eval": {"on": ["math500"]}}}
    for more in (
        {"file": Path("mine.toml")},
        {"sets": ["eval.max_new_tokens=100", "eval.max_problems=7", "reward.name=gsm8k"]},
    ):
        assert asked_with(settle("some/model", flags=on, evaluates=True, **more), "math500") == (100, 7, "gsm8k")
    found = settle("some/model", sets=["sampling.max_new_tokens=50"], flags=on, evaluates=True)
    assert asked_with(found, "math500")[0] == 50
    named = settle("some/model", "qwen2.5-1.5b-math", flags=on, evaluates=True)
    preset = resolve("qwen2.5-1.5b-math")
    assert asked_with(named, "math500")[0] == (preset.eval.max_new_tokens or preset.sampling.max_new_tokens)


def test_a_runs_own_datasets_keep_the_limit_that_its_curve_has(run: Path) -> None:
    on = {"--on": {"eval": {"on": ["countdown", "math500"]}}}
    found = settle(str(run), flags=on, evaluates=True)
    assert found.config.sampling.max_new_tokens == 8
    assert asked_with(found, "countdown")[0] == 320  # that run measured nothing: eval.on was []
    few = sets(*SMALL, 'eval.on=["countdown"]', "eval.max_problems=2")
    assert main(["train", "--out", "measured", *few]) == 0
    found = settle("measured", flags=on, evaluates=True)
    assert asked_with(found, "countdown")[0] == 8
    assert asked_with(found, "math500")[0] == 4096


def test_the_line_above_the_table_says_what_was_used(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": f"{i} + {i}", "solution": "", "answer": str(2 * i)} for i in range(3)]
    Path("copy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "tiny",
        "--on",
        "countdown,aime24=copy.jsonl",
        *sets("eval.max_new_tokens=6", "threads=1", "eval.max_problems=4"),
    ]
    assert main(["eval", *words, "--template", "countdown,r1-zero"]) == 0
    out, err = capsys.readouterr()
    lines = out[out.index("countdown: 4 problems") :].splitlines()
    limits = "at most 6 tokens"
    assert (
        lines[0]
        == f"countdown: 4 problems x 1, {limits}, reward countdown, templates countdown, r1-zero, temperature 1"
    )
    assert lines[1] == f"aime24: 3 problems x 1, {limits}, reward math, templates countdown, r1-zero, temperature 1"
    assert lines[3].startswith("dataset")
    assert (
        "aime24 has few problems: 32 answers per problem are recommended (--samples 32), and this takes 1" in out + err
    )
    assert main(["eval", *words, "--samples", "32"]) == 0
    assert "recommended" not in "".join(capsys.readouterr())


def test_config_says_how_each_dataset_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "some/model", "--on", "math500,aime24", "--set", "eval.max_problems=9"]) == 0
    text = capsys.readouterr().out
    on = {"--on": {"eval": {"on": ["math500", "aime24"]}}}
    found = settle("some/model", sets=["eval.max_problems=9"], flags=on, evaluates=True)
    assert config.parse(text, "x") == found.config
    limits = "eval.max_new_tokens = 4096 (dataset math500), eval.max_problems = 9 (--set)"
    assert f"# math500 is evaluated with {limits}, " in text

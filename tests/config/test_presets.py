"""Every preset loads, names what exists and keeps training and evaluation apart; and a step of each is run, with a
small model and small files in place of the real ones."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.config import Config, presets, resolve, to_toml
from r1v0.models.families import parse_config
from r1v0.models.loading import write_weights
from r1v0.models.transformer import Transformer, initialise
from r1v0.rollouts.collect import reward_settings
from r1v0.runs.progress import Progress
from r1v0.runs.records import read_evals, read_metrics
from r1v0.runs.runlog import create
from r1v0.tasks.datasets import DATASETS, eval_name, reward_of
from r1v0.tasks.prompts import words_of
from r1v0.tasks.reading.source import Generated, Source
from r1v0.tasks.rewards import check as check_reward
from r1v0.trainer.setup import prepare
from tests.tasks.test_data import jsonl, own_cache  # noqa: F401 (a fixture)

MODELS = {  # the presets of this file's own, and their models
    "r1-v0": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-1.5b-math": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-0.5b-gsm8k": "Qwen/Qwen2.5-0.5B",
    "smollm2-135m-gsm8k": "HuggingFaceTB/SmolLM2-135M-Instruct",
}


def parts(config: Config) -> list[str]:
    return config.data.name.split("+")


def test_the_presets() -> None:
    assert {name: resolve(name).model for name in MODELS} == MODELS
    assert all(len(text) <= 110 for text in presets().values())  # a line of `r1v0 presets`


@pytest.mark.parametrize("name", sorted(presets()))
def test_what_a_preset_names_is_there(name: str) -> None:
    config = resolve(name)
    words_of(config.prompt)
    check_reward(reward_settings(config, config.data.name))
    for part in parts(config):
        source = DATASETS[part]
        assert source.train if isinstance(source, Source) else source.drawn
        assert reward_of(part) == reward_of(config.data.name)
    for spec in config.eval.on:
        found = DATASETS[spec]
        assert found.test if isinstance(found, Source) else found.listed


@pytest.mark.parametrize("name", sorted(presets()))
def test_no_preset_is_evaluated_on_what_it_trains_on(name: str) -> None:
    """By name; or, within one dataset, by split."""
    config = resolve(name)
    for part in set(parts(config)) & set(config.eval.on):
        source = DATASETS[part]
        assert isinstance(source, Source), part
        assert source.train != source.test, part
    hubs = {(source.hub, source.train) for part in parts(config) if isinstance(source := DATASETS[part], Source)}
    for spec in config.eval.on:
        found = DATASETS[spec]
        assert isinstance(found, Generated) or (found.hub, found.test) not in hubs


def test_the_settings_that_the_presets_are_about() -> None:
    original, twin = resolve("r1-v0"), resolve("qwen2.5-1.5b-math")
    assert (original.grpo.groups, original.grpo.group_size, original.grpo.keep_per_group) == (512, 4, 1)
    assert original.grpo.groups * original.grpo.keep_per_group / original.grpo.minibatches == 32
    assert (original.sampling.temperature, original.sampling.max_new_tokens) == (0.9, 8000)
    assert (original.grpo.clip_low, original.grpo.clip_high, original.grpo.kl_coef) == (0.2, 0.2, 0)
    assert (twin.data.name, twin.data.levels) == ("math+gsm8k", [3, 4, 5])
    assert (twin.grpo.clip_low, twin.grpo.clip_high, twin.grpo.keep_per_group) == (0.2, 0.28, 0)
    assert (twin.grpo.refill, twin.grpo.aggregation, twin.grpo.advantage_scale) == (True, "token", "none")
    for config in (original, twin):
        assert config.optimizer.lr == 1e-6
        assert config.optimizer.grad_clip == 1
        assert config.compute.checkpoint_activations


# A step of each


WORDS = ["<eos>", "<unk>", "so", *(f"\\boxed{{{answer}}}" for answer in ("3", "3.0", "\\frac{6}{2}", "4"))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose words are boxes: about half of its answers are 3, some of them in another form."""
    folder = tmp_path_factory.mktemp("model")
    config = {
        "model_type": "qwen2", "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    transformer = Transformer(parse_config(config, "config.json"))
    initialise(transformer, torch.Generator().manual_seed(0))
    write_weights(transformer, folder / "model.safetensors", torch.float32)
    return folder


def files(folder: Path) -> dict[str, dict[str, Path]]:
    """For each dataset of the presets, a file for training and one for evaluation in the form of the hub's copy."""
    forms: dict[str, Callable[[str], dict[str, object]]] = {
        "metamathqa": lambda q: {"type": "GSM", "query": q, "original_question": q, "response": "so. The answer is: 3"},
        "math": lambda q: {"problem": q, "level": "Level 4", "type": "Algebra", "solution": "so \\boxed{3}"},
        "gsm8k": lambda q: {"question": q, "answer": "1 + 2 = <<1+2=3>>3\n#### 3"},
        "math500": lambda q: {"problem": q, "solution": "s", "answer": "3", "level": 4, "unique_id": q},
        "aime24": lambda q: {"id": q, "problem": q, "solution": "s", "answer": "003", "url": "u", "year": "2024"},
    }
    return {
        name: {
            use: jsonl(folder / f"{name}-{use}.jsonl", [form(f"{use} {name} {i}: what is 1 + 2?") for i in range(5)])
            for use in ("train", "test")
        }
        for name, form in forms.items()
    }


def one_step(name: str, model: str, folder: Path, *more: str) -> Config:
    """A preset's settings with a small model, small files and a small step."""
    local, config = files(folder), resolve(name)
    train_on = "+".join(f"{part}={local[part]['train']}" for part in parts(config))
    evaluate_on = [f"{spec}={local[spec]['test']}" for spec in config.eval.on]
    sizes = ["steps=1", "threads=1", "sampling.max_new_tokens=16", "sampling.max_sequences=16", "eval.max_problems=3"]
    places = [f"model={json.dumps(model)}", f"data.name={json.dumps(train_on)}", f"eval.on={json.dumps(evaluate_on)}"]
    patience = ["reward.workers=1", "reward.timeout_s=60"]
    return resolve(name, sets=[*sizes, *places, *patience, *more])


@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_every_preset(name: str, model: Path, tmp_path: Path) -> None:
    config = one_step(name, str(model), tmp_path, "grpo.groups=8")
    prepare(config).run(create(tmp_path / "run", to_toml(config), {}), Progress())
    (row,) = read_metrics(tmp_path / "run")
    assert 0.1 < row["reward/correct"] < 0.9
    assert row["policy/grad_norm"] > 0
    assert row["verify/timeouts"] == row["verify/crashes"] == 0
    assert row["length/truncated_frac"] < 0.5
    assert row["groups/sampled"] >= 8
    kept = (config.grpo.keep_per_group or config.grpo.group_size) / config.grpo.group_size
    assert 0 < row["tokens/trained"] <= 2 * kept * row["tokens/sampled"]
    assert row["verify/disagreements"] > 0  # 3.0 and 6/2, by symbolic mathematics where the reward is "math"
    assert ("reward/format_box" in row) is ("format_box" in config.reward.extra)
    evals = read_evals(tmp_path / "run")
    names = [eval_name(spec) for spec in config.eval.on]
    assert [(entry["step"], entry["dataset"]) for entry in evals] == [(step, name) for step in (0, 1) for name in names]
    assert {(entry["problems"], entry["samples"]) for entry in evals} == {(3, config.eval.samples)}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_answer_is_no_error(name: str, tmp_path: Path) -> None:
    """The embedded model knows countdown's words only: every word of these questions is <unk>, and nothing is right."""
    config = one_step(name, "tiny", tmp_path, "grpo.groups=4", "grpo.group_size=4", "grpo.max_refills=1", "eval.on=[]")
    prepare(config).run(create(tmp_path / "run", to_toml(config), {}), Progress())
    (row,) = read_metrics(tmp_path / "run")
    assert (row["reward/correct"], row["groups/all_wrong_frac"]) == (0, 1)
    # A box by chance is worth its extra reward where there is one; nothing else is.
    assert row["reward/mean"] == sum(weight * row[f"reward/{extra}"] for extra, weight in config.reward.extra.items())
    assert (row["tokens/trained"] == 0) is (row["reward/mean"] == 0)
    assert row["groups/sampled"] == (8 if config.grpo.refill else 4)


def test_what_was_left_out_of_the_data_is_said_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside of pytest nobody has set up logging: then a warning is its bare text."""
    exam, own = files(tmp_path)["gsm8k"]["test"], files(tmp_path)["gsm8k"]["train"]
    own.write_text(own.read_text() + exam.read_text().splitlines()[2] + "\n")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    places = [f"data.name=gsm8k={own}", f'eval.on=["gsm8k={exam}"]', "model=tiny"]
    sizes = ["steps=0", "threads=1", "sampling.max_new_tokens=1"]
    run = tmp_path / "run"
    sets = [word for item in places + sizes for word in ("--set", item)]
    assert main(["train", "--preset", "smollm2-135m-gsm8k", "--out", str(run), *sets]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "1 of 6 problems of gsm8k are also in evaluation sets and are dropped (1 in gsm8k)"
    assert [line.partition(":")[2][:9] for line in told[1:]] == [" warning:"]  # the embedded model cannot read them
    about = json.loads((run / "env.json").read_text())
    assert about["data"] == {"problems": 5, "malformed": 0, "dropped": {"gsm8k": 1}}


# Mistakes that one makes when changing a preset


@pytest.mark.parametrize(
    ("preset", "sets", "expected"),
    [
        ("r1-v1", [], "unknown preset 'r1-v1': did you mean 'r1-v0'?"),
        ("qwen2.5-1.5b", [], "unknown preset 'qwen2.5-1.5b': did you mean 'qwen2.5-1.5b-math'?"),
        ("r1-v0", ["sampling.top_p=0.95"], "sampling.top_p (--set) is not a setting: "),
        ("r1-v0", ["grpo.keep_per_group=5"], "grpo.keep_per_group is 5: expected 0 (all) up to grpo.group_size"),
        ("r1-v0", ["grpo.group_size=1"], "grpo.group_size is 1: expected at least 2"),
        ("r1-v0", ["grpo.groups=2", "grpo.group_size=4"], "grpo.minibatches is 16: expected at most groups x group_size"),
        ("qwen2.5-1.5b-math", ["data.level=[3]"], "unknown key 'data.level' (--set): did you mean 'data.levels'?"),
        ("qwen2.5-1.5b-math", ["data.levels=3"], "data.levels (--set) is 3: expected a list of int"),
        ("qwen2.5-1.5b-math", ["grpo.variant=drgrpo"], "unknown grpo.variant 'drgrpo': did you mean 'dr_grpo'?"),
        ("smollm2-135m-gsm8k", ["reward.extra=0.1"], "reward.extra (--set) is 0.1: expected a table"),
    ],
)  # fmt: skip
def test_a_change_that_is_refused(preset: str, sets: Sequence[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(preset, sets=sets)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("preset", "sets", "expected"),
    [
        ("smollm2-135m-gsm8k", ["reward.extra.format_bx=0.1"], "unknown reward 'format_bx': did you mean 'format_box'?"),
        ("qwen2.5-1.5b-math", ["data.name=math+countdown-train"], "dataset 'countdown-train' is made, not read"),
        ("qwen2.5-1.5b-math", ["data.path=math.jsonl"], "data.path is 'math.jsonl', but data.name 'math+gsm8k' is a mix"),
        ("qwen2.5-0.5b-gsm8k", ["data.path=gsm8k.jsonl"], "data path 'gsm8k.jsonl' does not exist: "),
        ("qwen2.5-0.5b-gsm8k", ["prompt.template=question-boxed"], "unknown prompt template 'question-boxed': "),
    ],
)  # fmt: skip
def test_a_change_that_the_run_refuses(
    preset: str, sets: Sequence[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--preset", preset, *(word for item in sets for word in ("--set", item))]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"r1v0: {expected}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

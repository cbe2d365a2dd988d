"""What may be published of a run's settings: names, and no folder of anybody's machine."""

import tomllib
from typing import Any

import pytest

from r1v0.config import parse, resolve
from r1v0.report.recipe import bare, base_of, datasets, hub_id, hub_ids, recipe


@pytest.mark.parametrize(
    ("model", "called", "hub"),
    [
        ("tiny", "tiny", None),
        ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
        ("/home/me/models/Qwen2.5-1.5B", "Qwen2.5-1.5B", None),
        ("/home/me/runs/math-001/checkpoints/step-00080", "math-001/step-00080", None),
        ("/x/hub/models--Qwen--Qwen2.5-1.5B/snapshots/8faed7/", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
        ("../models/base", "base", None),
    ],
)
def test_a_base_is_called_by_its_name(model: str, called: str, hub: str | None) -> None:
    assert base_of(model) == (called, hub)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("math=/home/me/a b/rows.jsonl+gsm8k=/d/x.jsonl", "math=rows.jsonl+gsm8k=x.jsonl"),
        ("/home/me/mine.py:reward", "mine.py:reward"),
        ("~/mine.py:reward", "mine.py:reward"),
        ("openai/gsm8k:main", "openai/gsm8k:main"),
        (["countdown", "mine=/d/x.jsonl"], ["countdown", "mine=x.jsonl"]),
        ({"/d/mine.py:tidy": 0.1, "format": 0.2}, {"mine.py:tidy": 0.1, "format": 0.2}),
        (0.5, 0.5),
        ("", ""),
    ],
)
def test_folders_go_and_names_stay(value: Any, left: Any) -> None:
    assert bare(value) == left


def test_a_recipe_names_the_main_settings_and_all_that_differ() -> None:
    config = resolve(sets=["optimizer.lr=0.001", "seed=7", "data.name=math=/home/me/m.jsonl", "reward.name=math",
                           "prompt.text=Say either / or: {question}", "prompt.template=mine"])  # fmt: skip
    text = recipe(config)
    assert tomllib.loads(text) == {
        "model": "tiny",
        "steps": 80,
        "seed": 7,
        "data": {"name": "math=m.jsonl"},
        "reward": {"name": "math"},
        "sampling": {"max_new_tokens": 320},
        "grpo": {"variant": "grpo", "groups": 16, "group_size": 8},
        "optimizer": {"lr": 0.001},
        "prompt": {"template": "mine", "text": "Say either / or: {question}"},
    }
    assert "/home" not in text


def test_a_recipe_makes_the_config_again() -> None:
    """As `--config FILE` reads it, where no path of the user's own is in it."""
    config = resolve("countdown", sets=["grpo.variant=cispo", "eval.on=[]", "lora.rank=4"])
    assert parse(recipe(config), "recipe.toml") == config


@pytest.mark.parametrize(
    ("name", "path", "told", "hub"),
    [
        ("countdown-train", "", "countdown-train (made by r1v0)", []),
        ("math+gsm8k=/d/g.jsonl", "", "math (EleutherAI/hendrycks_math), gsm8k (the user's own, g.jsonl)",
         ["EleutherAI/hendrycks_math"]),
        ("gsm8k", "", "gsm8k (openai/gsm8k)", ["openai/gsm8k"]),
        ("mine", "/home/me/rows.parquet", "mine (the user's own, rows.parquet)", []),
        ("mine", "me/puzzles:easy", "mine (me/puzzles)", ["me/puzzles"]),
        ("own", "", "own (the user's own)", []),
    ],
)  # fmt: skip
def test_data_are_told_in_words(name: str, path: str, told: str, hub: list[str]) -> None:
    values = {"data.name": name, "data.path": path, "reward.name": "math", "eval.on": ["countdown", "math500"]}
    config = parse("\n".join(f"{key} = {value!r}" for key, value in values.items()), "x")
    trained, held_out = datasets(config)
    assert ", ".join(trained) == told
    assert held_out == ["countdown (made by r1v0)", "math500 (HuggingFaceH4/MATH-500)"]
    assert hub_ids(config) == hub


def test_what_is_local_has_no_hub_id() -> None:
    assert hub_id("math500") == "HuggingFaceH4/MATH-500"
    assert hub_id("math500=/data/m.jsonl") is None
    assert hub_id("math500", "./m.jsonl") is None
    assert hub_id("anything") is None

"""Which runs are seeds of one setting, and what settings are called."""

from pathlib import Path

import pytest

from r1v0 import config
from r1v0.base.errors import UserError
from r1v0.report import parse_groups
from r1v0.report.groups import by_settings, short_names, value_text
from r1v0.report.series import parse_settings
from tests.run_folders import write_run


def run(folder: Path, *sets: str) -> Path:
    write_run(folder, [], [])
    (folder / "config.toml").write_text(config.to_toml(config.resolve("countdown", sets=sets)))
    return folder


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"{i}", f"seed={i}") for i in range(3)]
    assert by_settings(runs) == {"": runs}
    assert parse_settings([str(tmp_path)]) == {"tiny on countdown-train": runs}
    assert parse_groups([str(tmp_path)]) == {tmp_path.name: runs}


def test_settings_are_named_by_what_differs_and_come_in_order_of_their_numbers(tmp_path: Path) -> None:
    b = [run(tmp_path / f"b{i}", "optimizer.lr=1e-3", f"seed={i}") for i in range(2)]
    a = run(tmp_path / "c", "optimizer.lr=3e-5")
    assert by_settings([*b, a]) == {"lr=3e-05": [a], "lr=0.001": b}
    assert list(by_settings([*b, a])) == ["lr=3e-05", "lr=0.001"]
    other = run(tmp_path / "d", "optimizer.lr=3e-5", "eval.max_new_tokens=40", "sampling.max_new_tokens=30")
    assert set(by_settings([a, other])) == {
        "sampling.max_new_tokens=320, eval.max_new_tokens=0",
        "sampling.max_new_tokens=30, eval.max_new_tokens=40",
    }


def test_what_follows_from_a_variant_or_a_template_is_not_named(tmp_path: Path) -> None:
    both = [
        run(tmp_path / name, f"grpo.variant={name}", f"prompt.template={template}")
        for name, template in (("grpo", "question"), ("dapo", "countdown"))
    ]
    words = (both[1] / "config.toml").read_text().replace('text = ""', 'text = "words"')
    (both[1] / "config.toml").write_text(words)
    assert set(by_settings(both)) == {"template=question, variant=grpo", "template=countdown, variant=dapo"}
    clipped = run(tmp_path / "own", "grpo.variant=dapo", "prompt.template=countdown", "grpo.clip_high=0.5")
    assert "template=countdown, variant=dapo, clip_high=0.5" in by_settings([both[0], clipped])


def test_a_folder_of_settings_is_drawn_setting_by_setting_and_a_label_joins_it(tmp_path: Path) -> None:
    a, b = (run(tmp_path / "sweep" / f"lr-{lr}", f"optimizer.lr={lr}") for lr in ("1e-4", "3e-4"))
    c = run(tmp_path / "other")
    folder = tmp_path / "sweep"
    assert parse_groups([str(folder)]) == {"lr=0.0001": [a], "lr=0.0003": [b]}
    assert parse_groups([str(folder), str(c)]) == {"sweep: lr=0.0001": [a], "sweep: lr=0.0003": [b], "other": [c]}
    assert parse_groups([f"all={folder}"]) == {"all": [a, b]}
    assert parse_settings([str(folder), f"x={c}"]) == {"lr=0.0001": [a], "lr=0.0003": [b], "x": [c]}


def test_runs_of_several_folders_are_grouped_together(tmp_path: Path) -> None:
    a = run(tmp_path / "one" / "run", "optimizer.lr=1e-4")
    b = run(tmp_path / "two" / "run", "optimizer.lr=1e-4", "seed=1")
    assert parse_settings([str(a), str(b)]) == {"tiny on countdown-train": [a, b]}
    with pytest.raises(UserError, match="given twice"):
        parse_settings([str(a), f"x={a}"])


def test_damaged_settings_are_told_by_their_file(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    (folder / "config.toml").write_text("steps = 'many'")
    with pytest.raises(UserError, match=r"config\.toml"):
        by_settings([folder])


def test_names_and_values() -> None:
    assert short_names(["optimizer.lr", "seed", "a.x", "b.x"]) == {
        "optimizer.lr": "lr", "seed": "seed", "a.x": "a.x", "b.x": "b.x"
    }  # fmt: skip
    assert [value_text(value) for value in (3e-4, 8, True, "gspo", "", "/data/m/qwen", ["a", "b"])] == [
        "0.0003", "8", "true", "gspo", '""', "qwen", '["a", "b"]',
    ]  # fmt: skip

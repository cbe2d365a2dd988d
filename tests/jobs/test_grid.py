"""A sweep's cells: what the words of a command become, and what is refused before anything starts."""

import re
import shlex
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.cli import parser
from r1v0.jobs.sweep.grid import make_cells, split_values
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-4", ["1e-4"]),
        ("1e-4, 3e-4", ["1e-4", "3e-4"]),
        ('[],["a", "b"]', ["[]", '["a", "b"]']),
        ("{a = 1, b = [2, 3]},{}", ["{a = 1, b = [2, 3]}", "{}"]),
        ('"a, b",c', ['"a, b"', "c"]),
        ("'[,',x", ["'[,'", "x"]),
        (r'"say \"1, 2\"",x', [r'"say \"1, 2\""', "x"]),
        ("don't,stop", ["don't", "stop"]),
        ("", [""]),
        ("1,", ["1", ""]),
    ],
)
def test_commas_outside_of_quotes_and_brackets_separate_values(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_cells_are_every_combination_named_by_what_varies() -> None:
    cells = make_cells(None, None, ["optimizer.lr=1e-4,3e-4", "steps=7", "grpo.variant=grpo,dapo"], "0,1")
    assert [cell.name for cell in cells] == [
        f"lr-{lr}_variant-{variant}_seed-{seed}" for lr in ("1e-4", "3e-4") for variant in ("grpo", "dapo") for seed in (0, 1)
    ]  # fmt: skip
    last = cells[-1]
    assert last.sets == ("optimizer.lr=3e-4", "steps=7", "grpo.variant=dapo", "seed=1")
    assert (last.config.optimizer.lr, last.config.steps, last.config.seed) == (3e-4, 7, 1)
    assert last.config.grpo.refill
    assert not cells[0].config.grpo.refill


def test_seeds_alone_are_a_sweep_and_the_preset_is_that_of_a_run() -> None:
    (cell,) = make_cells(None, None, [], "3")
    assert cell.name == "seed-3"
    assert cell.config.data.name == "countdown-train"
    assert not cell.own_threads  # the countdown preset says threads = 1
    (cell,) = make_cells(None, None, ["data.name=sums-train", "model=somewhere"], "3")
    assert cell.own_threads


def test_lists_tables_and_texts_with_commas_are_values() -> None:
    cells = make_cells("countdown", None, ['eval.on=[],["countdown", "countdown-hard"]'], None)
    assert [cell.config.eval.on for cell in cells] == [[], ["countdown", "countdown-hard"]]
    assert cells[1].name == "on-countdown-countdown-hard"
    (cell,) = make_cells("countdown", None, ['prompt.stop=["a, b"]'], "0")
    assert cell.config.prompt.stop == ["a, b"]


def test_names_are_safe_and_differ_also_where_a_file_system_ignores_case() -> None:
    values = ["a/b", "a:b", "A-b", "../..", "x" * 90, "x" * 91]
    cells = make_cells("countdown", None, [f"model={','.join(values)}"], None)
    names = [cell.name for cell in cells]
    assert len({name.casefold() for name in names}) == 6
    assert all(re.fullmatch(r"model-[\w.+-]+", name) and len(name) < 60 for name in names)
    same = make_cells("countdown", None, [f"model={','.join(values)}"], None)
    assert names == [cell.name for cell in same]


def test_keys_with_one_last_part_are_told_apart() -> None:
    cells = make_cells("countdown", None, ["sampling.max_new_tokens=20,30", "eval.max_new_tokens=40,50"], None)
    assert cells[0].name == "sampling.max_new_tokens-20_eval.max_new_tokens-40"


@pytest.mark.parametrize(
    ("sets", "seeds", "words"),
    [
        ([], None, ["something that varies"]),
        (["steps=3"], None, ["something that varies"]),
        (["optimizer.lr"], "0", ["KEY=VALUE"]),
        (["optimizer.lr=1e-4,"], None, ["a value is empty"]),
        (["optimizer.lr=1e-4", "optimizer.lr=3e-4"], "0", ["given twice"]),
        (["seed=0,1"], None, ["--seeds"]),
        (["optimizer.lr=1e-4,0.0001"], None, ["lr-1e-4 and lr-0.0001", "the same run"]),
        (["optimizer.lr=1e-4,fast"], None, ["lr-fast", "expected a number"]),
        (["optimizer.lrr=1e-4,2e-4"], None, ["did you mean"]),
        (["grpo.group_size=1,8"], None, ["group_size-1", "at least 2"]),
        (["eval.on=[],[\"nosuch\"]"], None, ["nosuch"]),
        (["reward.name=math,nosuch"], None, ["nosuch"]),
        (["prompt.template=question,nosuch"], None, ["nosuch"]),
        ([], "0,one", ["whole numbers"]),
        ([], "-1", ["whole numbers"]),
        ([f"steps={','.join(map(str, range(1001)))}"], None, ["1001 runs", "at most 1000"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_anything_starts(sets: list[str], seeds: str | None, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make_cells("countdown", None, sets, seeds)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_the_commands_of_the_page_are_sweeps() -> None:
    page = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^    r1v0 (sweep .*)$", page, re.MULTILINE)
    assert lines
    for line in lines:
        given = parser().parse_args(shlex.split(line))
        assert make_cells(given.preset, given.config, given.grid, given.seeds)
        assert given.out == Path(given.out)

"""The table of results: every number by hand."""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.report.results import HEADS, NUMBERS, results, written
from r1v0.report.series import load
from r1v0.report.table import latex_table, latex_text
from tests.run_folders import evals_row, metrics_row, write_run


def seeds(tmp_path: Path, last: int = 10) -> list[Path]:
    """Three runs: .2, .3, .1 before and .5, .6, .7 after 10 steps."""
    found = []
    for i, (first, then) in enumerate([(0.2, 0.5), (0.3, 0.6), (0.1, 0.7)]):
        rows = [evals_row(0, accuracy=first), evals_row(last, accuracy=then, length=100.0 + i, truncated_frac=0.1 * i)]
        found.append(write_run(tmp_path / f"seed-{i}", [metrics_row(step) for step in (1, 2)], rows))
    return found


def test_several_seeds_have_students_interval_over_them(tmp_path: Path) -> None:
    """t(2) is 4.30265. Accuracies .5, .6, .7: s = .1, so .6 -+ 4.30265 x .1 / sqrt(3) = .6 -+ .24841. Gains .3, .3,
    .6: s = .173205, so .4 -+ .43027. A run sampled 1000 + 2000 tokens; it took 2 x 1.75 s and 2 evaluations of 2 s."""
    (row,), notes = results(load({"grpo": seeds(tmp_path)}))
    assert notes == []
    assert (row.setting, row.dataset, row.seeds, row.step, row.over) == ("grpo", "countdown", 3, 10, "seeds")
    assert row.accuracy == pytest.approx((0.6, 0.35159, 0.84841), abs=1e-5)
    assert row.gain == pytest.approx((0.4, -0.03027, 0.83027), abs=1e-5)
    assert [row.length, row.cut_off, row.tokens, row.hours] == pytest.approx([101, 0.1, 3000, 7.5 / 3600])


def test_an_interval_of_accuracy_stays_between_nothing_and_all(tmp_path: Path) -> None:
    for i, value in enumerate((0.0, 0.9)):
        write_run(tmp_path / f"{i}", [], [evals_row(5, accuracy=value)])
    (row,), _ = results(load({"a": sorted(tmp_path.iterdir())}))
    assert row.accuracy == (0.45, 0.0, 1.0)


def test_one_seed_has_its_evaluations_own_intervals_and_says_so(tmp_path: Path) -> None:
    last = evals_row(10, accuracy=0.45, gain=0.25, gain_low=0.2, gain_high=0.3) | {"ci_low": 0.4, "ci_high": 0.5}
    run = write_run(tmp_path / "run", [], [evals_row(0, accuracy=0.2), last])
    (row,), _ = results(load({"a": [run]}))
    assert (row.accuracy, row.gain, row.over) == ((0.45, 0.4, 0.5), (0.25, 0.2, 0.3), "problems")


def test_a_run_that_has_only_begun_has_no_gain(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{i}", [], [evals_row(0, accuracy=0.2)]) for i in range(2)]
    assert [row.gain for row in results(load({"a": runs[:1], "b": runs}))[0]] == [None, None]


def test_what_is_not_there_yet_is_left_out_and_told(tmp_path: Path) -> None:
    runs = seeds(tmp_path)
    behind = write_run(tmp_path / "behind", [], [evals_row(0), evals_row(5)])
    empty = write_run(tmp_path / "empty", [metrics_row(1)], [])
    rows, notes = results(load({"a": [*runs, behind, empty], "b": [empty]}))
    assert [(row.setting, row.seeds, row.step) for row in rows] == [("a", 3, 10)]
    assert notes == [
        "a: 2 of 5 runs have no evaluation at step 10 yet, left out",
        "b: no evaluation on countdown yet, left out",
    ]
    with pytest.raises(UserError, match="no evaluation yet"):
        results(load({"b": [empty]}))


def test_datasets_are_chosen_by_name(tmp_path: Path) -> None:
    rows = [evals_row(0, "x"), evals_row(0, "y")]
    entries = load({"a": [write_run(tmp_path / "a", [], rows)], "b": [write_run(tmp_path / "b", [], rows[:1])]})
    assert [(row.dataset, row.setting) for row in results(entries)[0]] == [("x", "a"), ("x", "b"), ("y", "a")]
    assert [row.dataset for row in results(entries, ["y"])[0]] == ["y"]
    with pytest.raises(UserError, match="known: x, y"):
        results(entries, ["z"])


def test_the_three_forms(tmp_path: Path) -> None:
    rows, _ = results(load({"lr=0.1 & 5 %": seeds(tmp_path)}))
    markdown = written(rows, "markdown").splitlines()
    assert markdown[0] == f"| {' | '.join(HEADS)} |"
    assert markdown[2] == (
        "| lr=0.1 & 5 % | countdown | 3 | 10 | 0.600 [0.352, 0.848] | +0.400 [-0.030, +0.830] | seeds | 101 | 10 % | "
        "3000 | 0.0021 |"
    )
    (row,) = csv.DictReader(io.StringIO(written(rows, "csv")))
    assert tuple(row) == NUMBERS
    assert float(row["gain_low"]) == pytest.approx(-0.03027, abs=1e-5)
    assert row["setting"] == "lr=0.1 & 5 %"
    latex = written(rows, "latex").splitlines()
    assert latex[0] == r"\begin{tabular}{llrrrrrrrrr}"
    assert latex[4] == (
        r"lr=0.1 \& 5 \% & countdown & 3 & 10 & 0.600 {[}0.352, 0.848{]} & +0.400 {[}$-$0.030, +0.830{]} & seeds & "
        r"101 & 10 \% & 3000 & 0.0021 \\"
    )
    assert latex[-1] == r"\end{tabular}"


def test_latex_prints_any_text_as_it_is() -> None:
    assert latex_text("a_b 5 % $1 #2 {x}") == r"a\_b 5 \% \$1 \#2 \{x\}"
    assert latex_text("~^\\<>|") == (
        r"\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}\textbar{}"
    )
    assert latex_text("-0.5, 1e-05, lr-3, -") == "$-$0.5, 1e-05, lr-3, -"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    table = latex_table(["a", "b"], [['[x] 50% a_b & c\\d #1 {x} ~^<>|"$', "[1, -2]"], ["y", "-0.5"]], 1)
    text = f"\\documentclass{{article}}\n\\begin{{document}}\n{table}\n\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-500:]
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")

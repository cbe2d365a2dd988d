"""Figures: what is drawn is what was logged."""

import itertools
import re
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from r1v0.base.errors import UserError
from r1v0.grpo.readings import UpdateReadings, policy_metrics
from r1v0.report import (
    compute,
    figures,
    parse_groups,
    plot,
    plot_groups,
    style,
)
from r1v0.report.scale import Unit, finish_axes, push_apart, value_text
from r1v0.report.series import Curve, aggregate, datasets, load, smooth, smoothing_width
from r1v0.rollouts.evaluate import Gain
from r1v0.runs.health import Alarm
from r1v0.runs.watchers import WATCHERS
from r1v0.runs.written import Answer, TrainingRollout
from r1v0.tasks.grading.pool import Counters
from r1v0.trainer.metrics import step_row
from r1v0.types import Completion, EvalResult, Group, Problem, Prompt, Rollout, Score
from tests.run_folders import evals, evals_row, metrics_row, write_run

ALL = {"curves.png", "length.png", "reflection.png", "health.png", "compute.png"}


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 30)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "demo", [metrics_row(step) for step in range(1, 11)], evals())


def drawn(name: str, *arguments: str) -> Figure:
    """A figure as `plot` draws it."""
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        figure = figures.FIGURES[name](load(parse_groups(arguments)))
    assert figure is not None
    return figure


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    found = [np.asarray(line.get_xydata(), dtype=float) for line in axes.get_lines()]
    return [(points[:, 0].tolist(), points[:, 1].tolist()) for points in found]


def band(axes: Axes) -> set[tuple[float, float]]:
    """The corners of the only filled area."""
    (area,) = (found for found in axes.collections if isinstance(found, PolyCollection))
    corners = np.asarray(area.get_paths()[0].vertices, dtype=float)
    return {(round(x), round(y, 3)) for x, y in corners.tolist()}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


# ---- series ----


def test_aggregate_is_mean_lowest_and_highest_on_shared_steps() -> None:
    curve = aggregate([{0: 1.0, 10: 2.0, 20: 9.0}, {0: 3.0, 10: 7.0}, {0: 5.0, 10: 0.0, 30: 1.0}, {}])
    assert curve == Curve({0: 3.0, 10: 3.0}, {0: 1.0, 10: 0.0}, {0: 5.0, 10: 7.0})
    assert aggregate([{1: 2.0}]) == Curve({1: 2.0}, {}, {})
    assert aggregate([]) == Curve({}, {}, {})


def test_smooth_weighs_neighbours_linearly_and_keeps_the_ends() -> None:
    assert smooth({1: 0.0, 2: 0.0, 3: 4.0, 4: 0.0, 9: 8.0}, 2) == {1: 0.0, 2: 1.0, 3: 2.0, 4: 3.0, 9: 16 / 3}
    assert smooth({1: 5.0, 2: 7.0}, 1) == {1: 5.0, 2: 7.0}
    assert smooth({}, 3) == {}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_smooth_stays_within_the_values(values: list[float]) -> None:
    smoothed = smooth(dict(enumerate(values)), smoothing_width(len(values)))
    assert list(smoothed) == list(range(len(values)))
    assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for value in smoothed.values())


def test_what_is_no_finite_number_is_not_in_a_curve(tmp_path: Path) -> None:
    values = [None, "0.5", [1], {"a": 1}, True, 0.5, 10**400, -3]
    run = write_run(
        tmp_path / "a", [{"step": i, "x": value} for i, value in enumerate(values)] + [{"step": 5, "x": 0.75}], []
    )
    (entry,) = load({"a": [run]})
    assert entry.runs[0].train("x") == {4: 1.0, 5: 0.75, 7: -3.0}  # step 5 was logged twice: the later one counts
    assert entry.runs[0].train("y") == {}


def test_datasets_keep_the_order_of_the_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [], [evals_row(0, name) for name in ("z", "a", "z", "m")])
    assert datasets(load({"a": [run]})) == ["z", "a", "m"]


def test_groups_of_the_command_line(tmp_path: Path) -> None:
    for name in ("x/seed-0", "x/seed-1", "y/seed-0", "z", "eq=al"):
        write_run(tmp_path / name, [], [])
    (tmp_path / "x" / "notes").mkdir()
    x0, x1, y0, z, odd = (tmp_path / name for name in ("x/seed-0", "x/seed-1", "y/seed-0", "z", "eq=al"))
    assert parse_groups([str(z)]) == {"z": [z]}
    assert parse_groups([f"all={x0},{x1}", str(z)]) == {"all": [x0, x1], "z": [z]}
    assert parse_groups([str(tmp_path / "x")]) == {"x": [x0, x1]}
    assert parse_groups([f"seeds={tmp_path / 'x'},{z}"]) == {"seeds": [x0, x1, z]}
    assert parse_groups([str(x0), str(y0)]) == {"x/seed-0": [x0], "y/seed-0": [y0]}
    assert parse_groups([str(odd)]) == {"eq=al": [odd]}


@pytest.mark.parametrize("given", ["nowhere", "a=nowhere", "=z", "a=", "a=,", "."])
def test_groups_without_a_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    write_run(tmp_path / "deep" / "er" / "z", [], [])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        parse_groups([given])
    assert "\n" not in str(error.value)


def test_a_label_given_twice_is_refused(run: Path) -> None:
    for arguments in ([f"a={run}", f"a={run}"], [str(run), str(run)], [str(run), f"demo={run}"]):
        with pytest.raises(UserError, match="given twice"):
            parse_groups(arguments)


# ---- figures ----


def test_curves_show_the_logged_values(run: Path) -> None:
    figure = drawn("curves", str(run))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "Accuracy on countdown",
        "Accuracy on countdown-hard",
        "Response length",
        "Training reward",
    ]
    accuracy = panel(figure, "Accuracy on countdown")
    assert lines(accuracy) == [([0, 5, 10], [0.2, 0.325, 0.45])]
    assert band(accuracy) == {(0, 0.15), (5, 0.275), (10, 0.4), (0, 0.25), (5, 0.375), (10, 0.5)}
    assert "45 %" in texts(accuracy)
    assert "256 held-out problems; band: 95 % interval" in texts(accuracy)
    held, thin = lines(panel(figure, "Response length"))
    assert held == ([0, 5, 10], [30, 35, 40])
    assert thin == (list(range(1, 11)), [40.0 + step for step in range(1, 11)])
    bold, raw = lines(panel(figure, "Training reward"))
    assert raw == (list(range(1, 11)), [step / 20 for step in range(1, 11)])
    assert bold == raw  # ten steps are too few to smooth
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 10.0)}
    assert all(axes.get_ylim()[0] == 0 for axes in figure.axes)


def test_a_run_has_all_its_figures_in_its_folder(run: Path) -> None:
    before = dict(matplotlib.rcParams)
    paths = plot([run])
    assert {path.name for path in paths} == ALL
    assert {path.parent for path in paths} == {run / "figures"}
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in paths)
    assert {path.name for path in (run / "figures").iterdir()} == ALL
    assert dict(matplotlib.rcParams) == before


def test_runs_keep_their_colour_in_every_panel_and_the_legend(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [metrics_row(s, groups__flat_frac=0.5) for s in range(1, 6)], evals(5))
    for name in ("curves", "length", "reflection", "health"):
        figure = drawn(name, str(run), str(other))
        for axes in figure.axes:
            assert [to_hex(str(line.get_color())).upper() for line in axes.get_lines()] == list(style.CYCLE[:2]), name
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["demo", "other"]
    health = drawn("health", str(run), str(other))
    assert {"flat", "all right", "all wrong"} == {
        t.partition(": ")[2] for a in health.axes if ": " in (t := a.get_title(loc="left"))
    }


def test_a_dataset_keeps_to_its_panel_whatever_a_runs_own_order(run: Path, tmp_path: Path) -> None:
    rows = [evals_row(0, "countdown-hard", accuracy=0.01), evals_row(0, "countdown", accuracy=0.99)]
    other = write_run(tmp_path / "other", [], rows)
    figure = drawn("curves", str(run), str(other))
    assert lines(panel(figure, "Accuracy on countdown"))[1] == ([0.0], [0.99])
    assert lines(panel(figure, "Accuracy on countdown-hard"))[1] == ([0.0], [0.01])


def test_noise_below_zero_has_no_place_on_a_logarithm(tmp_path: Path) -> None:
    noise = [metrics_row(s, policy__mismatch_kl=-4e-9) for s in (1, 2)]
    run = write_run(tmp_path / "noise", noise, [])
    assert "Sampler against trainer (KL)" not in {a.get_title(loc="left") for a in drawn("health", str(run)).axes}
    run = write_run(tmp_path / "some", [*noise, metrics_row(3, policy__mismatch_kl=2e-6)], [])
    axes = panel(drawn("health", str(run)), "Sampler against trainer (KL)")
    assert lines(axes)[0] == ([3.0], [2e-6])
    assert axes.get_yscale() == "log"


def test_seeds_are_drawn_as_mean_and_range(tmp_path: Path) -> None:
    for seed, shift in enumerate((0.0, 0.1, -0.1)):
        rows = [evals_row(step, accuracy=0.3 + shift + step / 100) for step in (0, 10)]
        write_run(tmp_path / "runs" / f"seed-{seed}", [metrics_row(1)], rows)
    axes = panel(drawn("curves", f"grpo={tmp_path / 'runs'}"), "Accuracy on countdown")
    ((steps, values),) = lines(axes)
    assert steps == [0, 10]
    assert values == pytest.approx([0.3, 0.4])
    assert band(axes) == {(0, 0.2), (10, 0.3), (0, 0.4), (10, 0.5)}
    assert "256 held-out problems; mean and range of 3 runs" in texts(axes)
    out = tmp_path / "seeds.png"
    assert plot_groups({"grpo": sorted((tmp_path / "runs").iterdir())}, out) == [out]


@pytest.mark.parametrize(
    ("metrics", "evaluations", "names"),
    [
        ([], [], set()),
        ([], evals(0), {"curves.png", "length.png", "reflection.png"}),
        ([metrics_row(1)], [], ALL),
        ([{"step": 1, "reward/mean": 0.5}, {"step": 2, "reward/mean": -0.5}], [{"step": 0, "dataset": "x", "accuracy": 0}], {"curves.png"}),
        ([{"step": 1}], [{"step": 0, "dataset": "x"}, {"step": 0}], set()),
        ([metrics_row(s, reward__mean=None, policy__mismatch_kl=0.0) for s in (1, 2)], [evals_row(0, length=None)], ALL),
    ],
)  # fmt: skip
def test_what_is_not_logged_is_left_out(
    tmp_path: Path, metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]], names: set[str]
) -> None:
    run, empty = write_run(tmp_path / "r", metrics, evaluations), write_run(tmp_path / "empty", [], [])
    for folders in ([run], [run, empty], [empty, run]):
        entries = load(parse_groups(map(str, folders)))
        assert {f"{name}.png" for name, draw in figures.FIGURES.items() if draw(entries)} == names


def test_the_shortest_runs_can_be_drawn(tmp_path: Path) -> None:
    one, none = write_run(tmp_path / "one", [metrics_row(1)], evals(0)), write_run(tmp_path / "none", [], [])
    assert {path.name for path in plot([one])} == ALL
    assert plot([none]) == []
    assert not (none / "figures").exists()
    assert plot([none, one], tmp_path / "both.png") == [tmp_path / "both.png"]


@pytest.mark.parametrize("name", ["$x^{", "{data}%s", "數學 😀", "x" * 200])
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "r", [], [evals_row(step, name) for step in (0, 1)])
    out = tmp_path / "out.png"
    assert plot_groups({name: [run], "other": [run]}, out) == [out]
    shown = name if len(name) < 200 else "x" * 31 + "…"
    assert panel(drawn("curves", str(run)), f"Accuracy on {shown}")


@pytest.mark.parametrize("value", [1e300, -1e9])
def test_any_value_can_be_drawn(tmp_path: Path, value: float) -> None:
    rows = [{key: value if isinstance(old, float) else old for key, old in metrics_row(s).items()} for s in (1, 2)]
    run = write_run(tmp_path / "r", rows, [evals_row(s, accuracy=value, length=value) for s in (0, 2)])
    assert len(plot([run], None if value > 0 else run / "c.png")) == (len(ALL) if value > 0 else 1)


def test_numbers_past_all_reason_are_left_out(tmp_path: Path) -> None:
    rows = [metrics_row(s, reward__mean=sign * 1.7e308, length__mean=10**400) for s, sign in ((1, 1), (2, -1))]
    assert plot([write_run(tmp_path / "r", rows, [])])


@settings(max_examples=40)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.sampled_from(["share", "number", "log"]))
def test_any_two_values_have_few_ticks(a: float, b: float, unit: Unit) -> None:
    axes = Figure().subplots()
    finish_axes(axes, 10, unit, [a, b])
    if axes.get_yscale() == "linear":
        assert 1 <= len(axes.get_yticks()) <= 8
        assert axes.get_ylim()[0] <= min(a, b, 0) <= max(a, b, 0) <= axes.get_ylim()[1]


def test_many_datasets_and_samples_get_a_figure_with_each_ones_own_k(tmp_path: Path) -> None:
    rows = [evals_row(s, "math500", samples=4, pass_at_k={"1": 0.4, "2": 0.5, "4": 0.6}, maj_at_k=0.45) for s in (0, 5)]
    rows += [evals_row(s, "aime24", samples=16, pass_at_k={"1": 0.1, "16": 0.3, "x": 1}, maj_at_k=0.15) for s in (0, 5)]
    rows += [evals_row(s, "gsm8k") for s in (0, 5)]
    run = write_run(tmp_path / "r", [], rows)
    assert "evals.png" in {path.name for path in plot([run])}
    figure = drawn("evals", str(run))
    assert [y for _, y in lines(panel(figure, "Accuracy on math500"))][1:] == [[0.6, 0.6], [0.45, 0.45]]
    assert {"pass@16 30 %", "majority 15 %"} <= set(texts(panel(figure, "Accuracy on aime24")))
    assert len(lines(panel(figure, "Accuracy on gsm8k"))) == 1


def test_zeros_that_say_nothing_are_left_out(run: Path, tmp_path: Path) -> None:
    titles = {axes.get_title(loc="left") for axes in drawn("health", str(run)).axes}
    assert "Tokens clipped" not in titles
    assert "Flat groups (no gradient)" in titles
    clipped = write_run(tmp_path / "c", [metrics_row(s, policy__clip_frac=0.01, policy__kl=0.1) for s in (1, 2)], [])
    assert {"Tokens clipped", "KL to the starting model"} <= {
        a.get_title(loc="left") for a in drawn("health", str(clipped)).axes
    }


def test_where_the_time_went_adds_up(run: Path) -> None:
    (entry,) = load({"a": [run]})
    expected = {"training": 10.0, "sampling": 5.0, "grading": 1.25, "other": 1.25, "evaluation": 12.0}
    assert compute.totals(entry.runs[0]) == pytest.approx(expected)
    figure = drawn("compute", str(run))
    bars = panel(figure, "Where the time went")
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(list(expected.values()))  # type: ignore[attr-defined]
    assert {"10 s", "12 s", "30 s"} <= set(texts(bars))
    tokens = panel(figure, "Completion tokens per step")
    assert "25 % of the sampled ones were not trained on" in texts(tokens)
    assert {"sampled 10.0k", "trained 7,500"} <= set(texts(tokens))


@pytest.mark.parametrize(("factor", "text"), [(1, "all were trained on"), (2, "each was trained on 2.0 times")])
def test_tokens_trained_on_again_are_told(tmp_path: Path, factor: int, text: str) -> None:
    rows = [metrics_row(s, tokens__sampled=1000, tokens__trained=1000 * factor) for s in (1, 2)]
    figure = drawn("compute", str(write_run(tmp_path / "r", rows, [])))
    assert text in texts(panel(figure, "Completion tokens per step"))


def test_out_is_a_file_or_a_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plot([run], tmp_path / "new" / "c.svg") == [tmp_path / "new" / "c.svg"]
    assert (tmp_path / "new" / "c.svg").read_bytes().startswith(b"<?xml")
    assert {path.name for path in plot([run], tmp_path / "all")} == ALL
    monkeypatch.chdir(tmp_path)
    assert plot([run, run], labels=["a", "b"]) == [Path("compare.png")]
    assert not (run / "figures").exists()
    for wrong in (tmp_path / "c.txt", run / "metrics.jsonl" / "c.png"):
        with pytest.raises(UserError) as error:
            plot([run], wrong)
        assert "\n" not in str(error.value)


def test_wrong_runs_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        plot([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no run to plot"):
        plot([])
    for labels in (["a", "b"], [], ["a", "a"]):
        with pytest.raises(UserError, match="label"):
            plot([run] * max(1, len(labels) - (len(set(labels)) > 1)), labels=labels)
    (run / "metrics.jsonl").write_text('{"step": 1}\noops\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 is damaged"):
        plot([run])


def test_a_figure_that_fails_leaves_the_old_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = plot([run], run / "c.png")
    old = path.read_bytes()

    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError):
        plot([run], path)
    assert path.read_bytes() == old
    assert {p.name for p in run.iterdir()} == {"metrics.jsonl", "evals.jsonl", "c.png"}


def test_figures_need_neither_pyplot_nor_torch(run: Path) -> None:
    code = (
        "import sys; from r1v0.report import plot; assert 'matplotlib' not in sys.modules and 'rich' not in "
        "sys.modules;"
        f"r = __import__('pathlib').Path({str(run)!r}); plot([r], r / 'c.png');"
        f"print(sorted({{'torch', 'matplotlib.pyplot', 'rich'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.7421, "share", "74 %"), (0.0312, "share", "3.1 %"), (0.0, "share", "0 %"), (0.0996, "share", "10 %"), (1.0, "share", "100 %"),
        (118.2, "number", "118"), (2310.4, "number", "2,310"), (14659.0, "number", "14.7k"), (273_456.0, "number", "273k"),
        (0.4248, "number", "0.42"), (1.634, "number", "1.63"), (12.34, "number", "12.3"), (0.0123, "number", "0.0123"),
        (3e-4, "number", "3e-4"), (0, "number", "0"), (-0.25, "number", "-0.25"), (2.4e-9, "log", "2e-9"), (4e-4, "log", "4e-4"),
    ],
)  # fmt: skip
def test_values_beside_a_line(value: float, unit: Unit, text: str) -> None:
    assert value_text(value, unit) == text


@pytest.mark.parametrize(
    ("highest", "unit", "ticks"),
    [
        (0.8, "share", ["0 %", "20 %", "40 %", "60 %", "80 %"]),
        (0.097, "share", ["0 %", "5 %", "10 %"]),
        (0.0, "share", ["0 %", "2 %", "4 %"]),
        (118.0, "number", ["0", "50", "100"]),
        (0.9, "number", ["0", "0.2", "0.4", "0.6", "0.8"]),
        (16_000.0, "number", ["0", "5k", "10k", "15k"]),
        (3e7, "number", ["0", "1.0e7", "2.0e7", "3.0e7"]),
        (3e-6, "number", ["0", "1e-6", "2e-6", "3e-6"]),
    ],
)
def test_ticks_are_round_and_start_at_zero(highest: float, unit: Unit, ticks: list[str]) -> None:
    axes = Figure().subplots()
    finish_axes(axes, 10, unit, [highest])
    assert [label.get_text() for label in axes.get_yticklabels()] == ticks


def test_every_run_has_a_look_of_its_own(run: Path, tmp_path: Path) -> None:
    looks = [(colour, str(dash)) for colour, dash in map(style.look, range(28))]
    assert len(set(looks)) == 28
    assert [colour for colour, dash in looks if dash == "-"] == list(style.CYCLE)
    figure = drawn("curves", *(f"r{i}={run}" for i in range(9)))
    (legend,) = figure.legends
    handles = [(str(line.get_color()), str(line.get_linestyle())) for line in legend.get_lines()]
    assert len(set(handles)) == 9
    for axes in figure.axes:
        assert [(str(line.get_color()), str(line.get_linestyle())) for line in axes.get_lines()] == handles


@pytest.mark.parametrize("count", [1, 8, 12, 20, 40])
def test_labels_of_many_runs_stay_beside_their_axes(count: int) -> None:
    axes = Figure(figsize=(4, 2.75)).subplots()
    finish_axes(axes, 10, "share", [0.8])
    style.end_labels(axes, [(0.8, f"{i}", "#000000") for i in range(count)])
    heights = sorted(float(text.xy[1]) for text in axes.texts)  # type: ignore[attr-defined]
    assert heights[0] >= -0.1
    assert heights[-1] <= 1.1
    gaps = [b - a for a, b in pairwise(heights)]
    sizes = [float(text.get_fontsize()) for text in axes.texts]
    assert all(gap * style.PANEL_HEIGHT * 72 > 0.95 * sizes[0] or sizes[0] < 5 for gap in gaps)


def test_evaluations_of_several_sizes_are_told(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{n}", [], [evals_row(0, problems=n), evals_row(5, problems=n)]) for n in (8, 16)]
    figure = drawn("curves", *map(str, runs))
    assert "8 to 16 held-out problems" in texts(panel(figure, "Accuracy on countdown"))[0]


def test_finished_answers_stand_beside_all(tmp_path: Path) -> None:
    held = [evals_row(step, length=100.0 + step, length_finished=60.0 + step) for step in (0, 10)]
    axes = panel(drawn("curves", str(write_run(tmp_path / "run", [], held))), "Response length")
    assert [found for found in lines(axes) if found[0]] == [([0, 10], [100, 110]), ([0, 10], [60, 70])]
    assert texts(axes)[-2:] == ["all 110", "finished 70"]
    assert axes.get_ylabel() == "tokens"


def test_every_panel_names_its_axis(run: Path) -> None:
    for name in ("curves", "length", "reflection", "health"):
        assert all(axes.get_ylabel() for axes in drawn(name, str(run)).axes), name


def test_a_pdf_has_real_type_at_its_printed_size(run: Path, tmp_path: Path) -> None:
    (path,) = plot([run], tmp_path / "c.pdf")
    data = path.read_bytes()
    assert b"/FontType 42" in data or b"/CIDFontType2" in data
    assert b"/Type3" not in data
    box = re.search(rb"/MediaBox \[ ?([\d. ]+) ?\]", data)
    assert box is not None
    assert float(box[1].split()[2]) == pytest.approx(6.5 * 72)


def test_chosen_panels_are_one_picture_in_their_order(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    save = style.save

    def saved(figure: Figure, path: Path) -> Path:
        titles[:] = [axes.get_title(loc="left") for axes in figure.axes]
        return save(figure, path)

    monkeypatch.setattr(style, "save", saved)
    one = {"a": [run]}
    assert plot_groups(one, None, ["entropy", "hard-accuracy"]) == [run / "figures" / "panels.png"]
    assert titles == ["Entropy", "Accuracy on countdown-hard"]
    assert plot_groups(one, tmp_path / "x", ["length-by-verdict"]) == [tmp_path / "x" / "panels.png"]
    assert titles == ["Length by verdict"]
    both = {"a": [run], "b": [run]}
    plot_groups(both, tmp_path / "c.png", ["length-by-verdict"])
    assert titles == ["Length by verdict: right", "Length by verdict: wrong"]
    plot_groups(both, tmp_path / "c.png")
    assert {"Length by verdict: right", "Length by verdict: wrong", "Entropy", "Training reward"} <= set(titles)
    plot_groups(one, tmp_path / "c.png")
    assert "Entropy" not in titles
    with pytest.raises(UserError, match="did you mean 'entropy'"):
        plot_groups(one, tmp_path / "c.png", ["entrpy"])


def test_every_panel_has_a_name() -> None:
    named = list(figures.PANELS.values())
    assert named == [*figures.CURVES, *figures.LENGTH, *figures.HEALTH, *figures.WORDS]
    assert figures.PANELS["hard-accuracy"].dataset == 1
    assert figures.PANELS["mismatch-kl"].lines[0].train == "policy/mismatch_kl"
    assert figures.PANELS["kl"].lines[0].train == "policy/kl"
    assert figures.PANELS["clipped"].lines[0].train == "policy/clip_frac"


@pytest.mark.parametrize(("width", "columns"), [(3.3, 1), (5.5, 2), (9.0, 2)])
def test_a_figure_is_as_wide_as_its_page(
    run: Path, tmp_path: Path, width: float, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: found.append(figure))
    plot_groups({"a": [run]}, tmp_path / "c.png", (), width)
    (figure,) = found
    assert figure.get_figwidth() == width
    place = figure.axes[0].get_subplotspec()
    assert place is not None
    assert place.get_gridspec().ncols == columns
    assert figure.get_figheight() / place.get_gridspec().nrows >= 1.95
    assert figure.axes[0].yaxis.label.get_fontsize() == 8


@pytest.mark.parametrize("width", [-1.0, 0.0, 1.9, 41.0, float("nan"), float("inf")])
def test_a_width_without_room_is_refused(run: Path, tmp_path: Path, width: float) -> None:
    with pytest.raises(UserError, match="--width"):
        plot_groups({"a": [run]}, tmp_path / "c.png", (), width)


def test_a_printed_pdf_has_the_width_that_was_asked_for(run: Path, tmp_path: Path) -> None:
    (path,) = plot_groups({"a": [run]}, tmp_path / "c.pdf", ["accuracy"], 3.3)
    box = re.search(rb"/MediaBox \[ ?([\d. ]+) ?\]", path.read_bytes())
    assert box is not None
    assert float(box[1].split()[2]) == pytest.approx(3.3 * 72, abs=0.1)


def test_subtitles_are_folded_where_a_panel_ends() -> None:
    text = "256 held-out problems; mean and range of 3 runs"
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        assert style.fold(text, 2) == text
    with matplotlib.rc_context(style.RC | style.PRINTED | {"figure.figsize": (5.5, 4)}):  # type: ignore[arg-type]
        assert style.fold(text, 2) == "256 held-out problems;\nmean and range of 3 runs"
        assert style.fold(text, 1) == text


def test_a_legend_has_room_on_its_page() -> None:
    labels = [f"variant=dapo, lr=0.000{i}" for i in range(1, 9)]  # 23 letters each
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        assert style.legend_columns(labels) == 3
        assert style.legend_columns(["a", "b"]) == 2
        assert style.legend_height(["a"]) == 0
        assert style.legend_height(["a", "b"]) == pytest.approx(0.35)
    with matplotlib.rc_context(style.RC | style.PRINTED | {"figure.figsize": (3.3, 4)}):  # type: ignore[arg-type]
        assert style.legend_columns(labels) == 1


# ---- evaluations ----


def evaluation(folder: Path, *rows: dict[str, Any]) -> Path:
    write_run(folder, [], list(rows))
    for name in ("config.toml", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
    (folder / "eval.json").write_text("{}")
    return folder


def answered(dataset: str, template: str, accuracy: float, **more: Any) -> dict[str, Any]:
    return evals_row(0, dataset, accuracy=accuracy, ci_low=accuracy - 0.1, ci_high=accuracy + 0.1, **more) | {
        "template": template
    }


def bars(figure: Figure) -> list[float]:
    return [round(float(patch.get_width()), 3) for patch in figure.axes[0].patches]  # type: ignore[attr-defined]


def test_an_evaluation_is_a_bar_for_each_dataset_and_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures_: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures_.append(figure))
    rows = [answered(data, template, p) for (data, template), p in zip(
        itertools.product(("easy", "hard"), ("plain", "r1-zero")), (0.2, 0.4, 0.3, 0.5), strict=True)]  # fmt: skip
    folder = evaluation(tmp_path / "e", *rows)
    assert plot([folder]) == [folder / "figures" / "evaluation.png"]
    (figure,) = figures_
    assert bars(figure) == [0.2, 0.4, 0.3, 0.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "r1-zero"]
    assert [text for text in texts(figure.axes[0]) if "problems" in text] == [
        "easy  (256 problems)",
        "hard  (256 problems)",
    ]
    other = evaluation(tmp_path / "f", answered("hard", "plain", 0.6, samples=4, pass_at_k={"4": 0.9}))
    assert plot_groups({"one": [folder], "two": [other]}, tmp_path / "both.png") == [tmp_path / "both.png"]
    assert bars(figures_[1]) == [0.2, 0.4, 0.3, 0.5, 0.6]
    assert [text.get_text() for text in figures_[1].legends[0].get_texts()] == [
        "one, plain",
        "one, r1-zero",
        "two, plain",
    ]
    assert "pass@4 90 %" in texts(figures_[1].axes[0])


def test_an_evaluation_and_a_run_are_not_drawn_together(run: Path, tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e", answered("easy", "plain", 0.2))
    with pytest.raises(UserError, match=r"is an evaluation and .* a run: draw them apart"):
        plot([run, folder])
    with pytest.raises(UserError, match="needs a label of its own"):
        plot_groups({"both": [folder, folder]})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_labels_are_pushed_apart_in_order(wanted: list[float]) -> None:
    placed = push_apart(wanted, 0.08)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(placed[b] - placed[a] > 0.07 for a, b in pairwise(order))
    assert min(placed) >= -1e-9
    if len(wanted) == 1:
        assert placed == wanted


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.61, "0.6 s"), (41, "41 s"), (99.6, "1.7 min"), (720, "12 min"), (6000, "1.7 h"), (61200, "17 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert compute.duration(seconds) == text


# ---- docs/metrics.md ----


def test_every_logged_key_is_explained_and_every_explained_key_is_logged() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    training, _, rest = text.partition("## Alarms")
    alarms, _, rest = rest.partition("## Evaluations")
    evaluation, _, texts = rest.partition("## What the model wrote")
    problem = Problem("p", "q", "a", "s")
    rollout = Rollout(Prompt(problem, "q", [1]), Completion([1], [-1.0], "stop"), "a", Score(1.0, True, True))
    row = step_row(
        1,
        [Group(rollout.prompt, [rollout])],
        policy_metrics([UpdateReadings([1], [0.0], [0.0], [0.0], [0], [0.0], 0.0)], 0.0, True),
        {},
    )
    trainer = (root / "src" / "r1v0" / "trainer" / "metrics.py").read_text(encoding="utf-8")
    logged = set(row) | set(re.findall(r'"((?:time|memory)/\w+)":', trainer)) | Counters().since(Counters()).keys()
    assert explained(training) == logged | {"reward/<name>"}
    lines = {field.name for field in fields(Alarm)} - {"fatal"} | {"action", "to_step", "lr_scale"}
    assert explained(alarms) == lines | set(WATCHERS)
    keys = {field.name for kind in (EvalResult, Gain) for field in fields(kind)}
    assert explained(evaluation) == keys | {"step", "time_s", "template"}
    assert explained(texts) == {field.name for kind in (Answer, TrainingRollout) for field in fields(kind)}


def explained(text: str) -> set[str]:
    """The keys in the first column of the tables."""
    return {
        key
        for line in text.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`([^`]+)`", line.split("|")[1])
    }

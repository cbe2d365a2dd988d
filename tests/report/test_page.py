"""The report's page: complete, small, and deaf to what a model wrote."""

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from r1v0 import config
from r1v0.base.errors import UserError
from r1v0.report import style
from r1v0.report.page import chart, facts, render, texts
from r1v0.report.panels import Line, Panel
from r1v0.report.scale import Scale
from r1v0.report.series import load
from tests.run_folders import answer, evals, evals_row, metrics_row, write_run

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def write_texts(run: Path, part: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    (run / part).mkdir(exist_ok=True)
    with gzip.open(run / part / f"step-{step:05d}.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def rollout(group: int, sample: int, **changes: Any) -> dict[str, Any]:
    row = asdict(answer(sample=sample, problem=f"p{group}", completion=f"group {group} sample {sample}"))
    for name in ("template", "correct_boxed", "correct_last"):
        del row[name]
    return row | {"group": group, "prompt": "Q", "parts": {}} | changes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten steps, two problems answered before and after, a group of two rollouts."""
    folder = write_run(tmp_path / "demo", [metrics_row(step) for step in range(1, 11)], evals())
    (folder / "config.toml").write_text(config.to_toml(config.resolve("countdown", sets=["seed=7"])))
    write_texts(folder, "answers", 0, [asdict(answer(problem=name)) for name in ("p0", "p1")])
    after = [
        answer(problem="p0", correct=True, completion="Wait, let me check that"),
        answer(problem="p1", cut_off=True),
    ]
    write_texts(folder, "answers", 10, [asdict(one) for one in after])
    write_texts(folder, "rollouts", 3, [rollout(0, 0), rollout(0, 1)])
    return folder


def page_of(*runs: Path, findings: Mapping[Path, Any] | None = None) -> str:
    return render.report({run.name: [run] for run in runs}, findings or {}).decode("utf-8")


def data_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def test_a_page_holds_what_the_run_left(run: Path) -> None:
    page = page_of(run, findings={run: [("warning", "length", "grew")]})
    for told in ("countdown-train", "10 of 80", "Accuracy on countdown-hard", "45 % [40, 50]", "grew", "seed"):
        assert told in page, told
    data = data_of(page)
    held = [item for item in data["items"] if item["kind"] == "held out"]
    assert [(item["step"], item["since"]) for item in held] == [(10, 0), (10, 0)]
    assert held[0]["texts"][0]["after"]["text"] == "Wait, let me check that"
    assert held[0]["texts"][0]["before"]["text"] == "text"
    named = [[data["filters"][mark] for mark in item["texts"][0]["marks"]] for item in held]
    assert named == [["newly right", "right", "reflects"], ["wrong", "cut off"]]
    (group,) = [item for item in data["items"] if item["kind"] == "training"]
    assert [text["after"]["text"] for text in group["texts"]] == ["group 0 sample 0", "group 0 sample 1"]


def test_a_page_is_one_file_with_a_policy_of_its_own_script_and_style_alone(run: Path) -> None:
    page = page_of(run)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.replace("&#39;", "'").split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (css,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'{render.digest(script)}'",
        "style-src": f"'{render.digest(css)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert re.findall(r"""(?:https?:|\bsrc=|url\(|@import|<link|\sstyle=|\son[a-z]+=)""", page) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(", script) == []


def test_the_digest_is_that_of_the_standard() -> None:
    # The example of CSP level 2, section 4.2.5.
    assert render.digest("alert('Hello, world.');") == "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="


def hostile(folder: Path) -> Path:
    """A run whose every text wants to be a page."""
    rows = [evals_row(step, HOSTILE) for step in (0, 5)]
    run = write_run(folder, [metrics_row(step) for step in range(1, 6)], rows)
    (run / "config.toml").write_text(config.to_toml(config.resolve("countdown", sets=[f"model={json.dumps(HOSTILE)}"])))
    (run / "env.json").write_text(json.dumps({"command": ["r1v0", HOSTILE], "cpu": HOSTILE, "packages": HOSTILE}))
    bad = dict(question=HOSTILE, gold=HOSTILE, completion=HOSTILE, extracted=HOSTILE, why=HOSTILE, dataset=HOSTILE)
    for step in (0, 5):
        write_texts(run, "answers", step, [asdict(answer(**bad))])
    write_texts(run, "rollouts", 1, [rollout(0, 0, **bad | {"completion": "<!--<script> \u2028\ud800\u202e"})])
    return run


def test_nothing_that_a_run_holds_becomes_markup(tmp_path: Path) -> None:
    run = hostile(tmp_path / "run")
    page = page_of(run, findings={run: [("problem", HOSTILE, HOSTILE)]})
    assert "<img" not in page
    assert re.findall(r"<script[^>]*>", page) == [
        '<script type="application/json" id="hover">',
        '<script type="application/json" id="data">',
        "<script>",
    ]
    items = data_of(page)["items"]
    assert items[0]["texts"][0]["after"]["text"] == HOSTILE
    assert items[1]["texts"][0]["after"]["text"] == "<!--<script> \u2028\ud800\u202e"
    assert "\u2028" not in page
    assert "<img" not in render.index(tmp_path, [run]).decode("utf-8")


def test_json_for_a_script_has_no_character_that_ends_it() -> None:
    assert texts.inline_json(["</script>&\u2028", 1.5]) == r'["\u003c/script\u003e\u0026\u2028",1.5]'


def test_a_page_of_many_long_texts_keeps_its_size_and_says_what_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = len(page_of(run)) + 5000
    monkeypatch.setattr(render, "MOST_BYTES", bare + 60_000)
    for step in range(4, 10):
        write_texts(run, "rollouts", step, [rollout(group, 0, completion="é<" * 500) for group in range(20)])
    page = render.report({"demo": [run]}, {})
    assert bare + 30_000 < len(page) <= bare + 60_000
    assert "rollouts of all 7 training steps, as many as fit on this page (the rest is in rollouts/)" in page.decode()
    steps = [item["step"] for item in data_of(page.decode())["items"] if item["kind"] == "training"]
    assert set(steps) == {3, 4, 5, 6, 7, 8, 9}


def test_a_long_text_loses_its_middle_and_says_so(run: Path) -> None:
    write_texts(run, "rollouts", 3, [rollout(0, 0, completion="a" * 4000 + "b" * 17 + "c" * 2000)])
    page = page_of(run)
    (group,) = [item for item in data_of(page)["items"] if item["kind"] == "training"]
    assert group["texts"][0]["after"]["text"] == ["a" * 4000, 17, "c" * 2000]
    assert "texts of more than 6,000 characters are shown without their middle" in page


def test_an_even_choice_has_both_ends() -> None:
    assert texts.evenly([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert texts.evenly([1, 2, 3], 5) == [1, 2, 3]
    assert (texts.evenly([1, 2, 3], 1), texts.evenly([1, 2, 3], 0)) == ([3], [])


def test_of_a_group_too_large_for_its_step_some_rollouts_stay(run: Path) -> None:
    write_texts(run, "rollouts", 3, [rollout(0, sample, completion="x" * 1000) for sample in range(16)])
    found = texts.texts_of([("demo", run)], 12_000)
    (group,) = [item for item in found.items if item["kind"] == "training"]
    assert 4 <= len(group["texts"]) < 16
    assert f"{len(group['texts'])} of the 16 rollouts" in found.notes[0]


def test_a_run_without_texts_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "bare", [metrics_row(1)], evals())
    page = page_of(run)
    assert "no texts in the run&#39;s folder" in page
    assert 'id="controls"' not in page
    assert "no config.toml" in page or "config.toml cannot be read" in page


def test_a_run_that_has_logged_nothing_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "new", [], [])
    assert "Nothing is logged yet" in page_of(run)


def test_damaged_texts_leave_the_rest_of_the_page(run: Path) -> None:
    (run / "rollouts" / "step-00004.jsonl.gz").write_bytes(b"torn")
    (run / "answers" / "step-00010.jsonl.gz").write_bytes(b"torn")
    page = page_of(run)
    assert page.count("is damaged") == 2
    assert [item["kind"] for item in data_of(page)["items"]] == ["training"]


def test_runs_are_compared_with_a_legend_and_their_settings_side_by_side(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [metrics_row(step) for step in range(1, 6)], evals(5))
    (other / "config.toml").write_text(config.to_toml(config.resolve("countdown", sets=["steps=5"])))
    page = page_of(run, other)
    assert page.count('<ul class="legend">') == 3  # of the curves, and of each run's time
    assert "demo, other" in page
    assert data_of(page)["runs"] == ["demo", "other"]
    told = [facts.facts_of(folder.name, folder, load({"x": [folder]})[0].runs[0]) for folder in (run, other)]
    rows = {key: (usual, values) for key, usual, values in facts.together(told)}
    assert rows["seed"] == ("0", ["7", "0"])
    assert rows["steps"][1] == ["80", "5"]


def test_settings_are_compared_with_the_preset_that_the_run_names(run: Path) -> None:
    chosen = config.resolve("countdown", sets=["seed=7"])
    origins = dict.fromkeys(config.keys(), "preset countdown (for tiny)")
    (run / "config.toml").write_text(config.to_toml(chosen, origins | {"seed": "--set"}))
    found = facts.facts_of("demo", run, load({"x": [run]})[0].runs[0])
    assert found.against == "the preset countdown"
    assert found.changed == [facts.Changed("seed", "0", "7")]


def test_an_index_links_the_reports_that_are_there(run: Path, tmp_path: Path) -> None:
    odd = write_run(tmp_path / "javascript:alert(1)#", [metrics_row(1)], evals(5))
    torn = write_run(tmp_path / "torn", [], [])
    (torn / "metrics.jsonl").write_text("{\n{}\n")
    (odd / "report.html").write_text("")
    page = render.index(tmp_path, [run, odd, torn]).decode("utf-8")
    assert re.findall(r'href="([^#"]*)"', page) == ["./javascript%3Aalert%281%29%23/report.html"]
    assert "20 % → 45 % [40, 50]" in page
    assert "metrics.jsonl line 1 is damaged" in page
    assert "script-src" not in page
    assert "<script" not in page


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        render.write(tmp_path / "file" / "report.html", b"")
    render.write(tmp_path / "deep" / "report.html", b"whole")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_of_very_many_evaluations_an_even_choice_is_in_the_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long", [metrics_row(1)], [evals_row(step) for step in range(0, 600, 2)])
    rows = facts.evaluations(load({"x": [run]})[0].runs[0])
    assert (len(rows), rows[0]["step"], rows[-1]["step"]) == (60, "0", "598")
    assert "240 evaluations between these are left out here" in page_of(run)


@pytest.mark.parametrize("value", [None, "text", [], {}, True, -1, 10**400, 1e300, 0, "<b>"])
def test_rows_of_any_values_have_a_page(tmp_path: Path, value: Any) -> None:
    rows = [dict.fromkeys(metrics_row(1), value) | {"step": step} for step in (1, 999_999_999)]
    measured = [dict.fromkeys(evals_row(1), value) | {"step": step} for step in (0, 7)]
    run = write_run(tmp_path / "odd", rows, measured)
    (run / "env.json").write_text(
        json.dumps(dict.fromkeys(("command", "cpu", "cpu_count", "packages", "resumed"), value))
    )
    assert "<b>" not in page_of(run)
    assert "999,999,999" in page_of(run)
    assert "odd" in render.index(tmp_path, [run]).decode("utf-8")


# Charts


def test_a_path_is_where_its_values_are() -> None:
    scale = Scale(0.0, 1.0, {})
    left, right, top, bottom = chart.LEFT, chart.RIGHT, chart.TOP, chart.BOTTOM
    points = {0: 0.0, 5: 0.5, 10: 1.0}
    middle = f"{(left + right) / 2:.1f} {(top + bottom) / 2:.1f}"
    assert chart.path(points, scale, 10) == f"M{left}.0 {bottom}.0L{middle}L{right}.0 {top}.0"
    assert chart.path({10: 2.0}, scale, 10) == f"M{right}.0 {top}.0h.1"
    assert chart.path({}, scale, 10) == ""


def test_a_logarithmic_axis_places_decades_evenly() -> None:
    scale = Scale(1e-4, 1.0, {}, log=True)
    assert [scale.place(value) for value in (0.0, 1e-4, 1e-2, 1.0)] == pytest.approx([0, 0, 0.5, 1])


def test_thinning_keeps_the_spikes_and_the_ends() -> None:
    points = dict.fromkeys(range(10_000), 1.0) | {4321: 9.0, 7777: -3.0}
    found = chart.thinned(points, 100)
    assert len(found) <= 2 * 50 + 2
    assert (found[4321], found[7777]) == (9.0, -3.0)
    assert {0, 9_999} <= found.keys()
    assert chart.thinned({1: 1.0}, 100) == {1: 1.0}


def test_values_are_read_off_with_their_interval(run: Path) -> None:
    entries = load({"demo": [run]})
    panel = Panel("Accuracy", (Line(style.BLUE, held="accuracy"),), "share", data="countdown")
    drawn = chart.chart_of(panel, entries)
    assert drawn.hover == [
        {"name": "", "colour": "blue", "points": [[0, "20 % [15, 25]"], [5, "32 % [28, 38]"], [10, "45 % [40, 50]"]]}
    ]
    assert drawn.summary == "Accuracy: 20 % at step 0, 45 % at step 10"
    assert [label.text for label in drawn.ends] == ["45 %"]


def test_every_colour_of_a_figure_has_one_on_the_page() -> None:
    css = (render.HERE / "page.css").read_text()
    assert {*style.CYCLE, style.GREY} == chart.COLOURS.keys()
    assert all(css.count(f"--{name}:") == css.count(f"--{name}-text:") == 2 for name in chart.COLOURS.values())
    assert [chart.dashes(dash) for dash in style.DASHES] == ["", "8 3", "2 2.4", "10 2.4 2 2.4"]


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    whole = colour.removeprefix("#")
    whole = "".join(2 * digit for digit in whole) if len(whole) == 3 else whole
    parts = [int(whole[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_has_contrast_on_both_backgrounds_light_and_dark() -> None:
    assert (luminance("#fff"), luminance("#000")) == pytest.approx((1.0, 0.0))
    css = (render.HERE / "page.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#\w+);", block))
        written = {name for name in colours if name.endswith("-text")} | {"fg", "dim", "link", "good", "bad", "care"}
        assert len(written) == 14
        pairs = {(name, back) for name in written for back in ("bg", "soft")} | {("fg", "hit"), ("dim", "hit")}
        for name, back in pairs - {("dim", "hit")}:
            dark, light = sorted((luminance(colours[name]), luminance(colours[back])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, back)


# A browser

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000", "--dump-dom"),
)


def shown(page: Path, profile: Path) -> str:
    """A page's tree once its script has run, in a real browser."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(profile)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser_hostile_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    run = hostile(tmp_path / "run")
    page = render.write(tmp_path / "report.html", render.report({"run": [run]}, {}))
    tree = shown(page, tmp_path / "profile")
    assert "<title>run - r1v0</title>" in tree
    assert "<img" not in tree
    assert "1 texts found, 1 of them below" in tree  # so the page's own script has run
    assert '<p class="question" dir="auto">&lt;/script&gt;&lt;script&gt;document.title=' in tree


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser_a_script_that_got_into_the_page_would_not_run(run: Path, tmp_path: Path) -> None:
    """The policy holds where escaping would have failed: the same page with raw markup in it."""
    raw = page_of(run).replace("<h1>", f"<h1>{HOSTILE}<b>", 1)
    page = render.write(tmp_path / "report.html", raw.encode("utf-8"))
    tree = shown(page, tmp_path / "profile")
    assert "<title>demo - r1v0</title>" in tree
    assert "<img" in tree
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", raw)
    page = render.write(tmp_path / "open.html", without.encode("utf-8"))
    assert "<title>taken</title>" in shown(page, tmp_path / "profile")  # so the test can fail

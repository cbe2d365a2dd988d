"""The pages: a run's or several runs' report, and the index of a folder of runs.

Decides: a page is one file that asks no network for anything. Its policy allows the page's own script and style, by
their hashes, and nothing else; so no attribute of style and no handler may stand in a template. A page is at most
MOST_BYTES: what is left beside everything else goes to the texts.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic
from r1v0.report import compute, figures
from r1v0.report.page import facts
from r1v0.report.page.chart import COLOURS, FRAME, Chart, chart_of, dashes, path
from r1v0.report.page.texts import NAMES, Texts, inline_json, texts_of
from r1v0.report.panels import Line, Panel, with_data
from r1v0.report.scale import Scale
from r1v0.report.series import Entry, Points, Run, datasets, load
from r1v0.report.status import share
from r1v0.report.style import BLUE, ORANGE, look
from r1v0.runs import runlog

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
MOST_BYTES = 3_000_000
Told = tuple[str, str, str]
"""a finding: how bad (problem, warning, ok), about what, and in words"""
TIME = (
    Panel("Seconds per step", (Line(ORANGE, "time/step_s"),), y="seconds"),
    Panel(
        "Completion tokens per step",
        (Line(BLUE, "tokens/sampled", label="sampled"), Line(ORANGE, "tokens/trained", label="trained")),
        y="tokens",
    ),
)
STAGES = dict(zip(compute.STAGES, ("orange", "blue", "purple", "grey", "green"), strict=True))


@dataclass(frozen=True)
class Group:
    """Charts under a heading."""

    name: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Spent:
    """Where an entry's seconds went: (stage, colour, left, width, text), in hundredths of the longest entry's bar."""

    label: str
    total: str
    parts: Sequence[tuple[str, str, float, float, str]]


def report(groups: Mapping[str, Sequence[Path]], findings: Mapping[Path, Sequence[Told]]) -> bytes:
    """The page of label -> run folders (several: seeds of the label). `findings` of those that have some.

    Raises UserError for a folder that is no run, or whose logs are damaged.
    """
    entries = load(groups)
    runs = [
        (_name(label, folder, len(folders)), folder, run)
        for (label, folders), entry in zip(groups.items(), entries, strict=True)
        for folder, run in zip(folders, entry.runs, strict=True)
    ]
    charts = _charts(entries)
    told = [facts.facts_of(name, folder, run) for name, folder, run in runs]
    shown: dict[str, Any] = {
        "title": ", ".join(groups) if len(groups) < 4 else f"{len(groups)} runs compared",
        "runs": told,
        "legend": _legend(entries),
        "groups": charts,
        "hover": inline_json(
            {"frame": FRAME, "charts": [_read_off(chart) for group in charts for chart in group.charts]}
        ),
        "tables": [_table(name, run, len(runs)) for name, _, run in runs if run.evals],
        "gains": [
            (name, facts.clipped(data), *facts.change(run, data))
            for data in datasets(entries)
            for name, _, run in runs
            if run.evals
        ],
        "findings": [(name, findings[folder]) for name, folder, _ in runs if findings.get(folder)],
        "spent": _spent(entries),
        "together": facts.together(told),
        "filters": NAMES,
    }
    bare = _page("report.html.jinja", **shown, notes=[], texts=_payload([], []), script="page.js")
    room = MOST_BYTES - len(bare) - 2000 - 400 * len(runs)
    texts = texts_of([(name, folder) for name, folder, _ in runs], room)
    return _page("report.html.jinja", **shown, **_browser(texts, [name for name, _, _ in runs]), script="page.js")


def index(folder: Path, runs: Sequence[Path]) -> bytes:
    """The page that lists the runs of a folder; a run that cannot be read is a row that says so."""
    rows = [_index_row(folder, run) for run in runs]
    rows.sort(key=lambda row: row["started"], reverse=True)
    return _page("index.html.jinja", title=f"Runs in {folder}", rows=rows, script="")


def write(path: Path, page: bytes) -> Path:
    """Write a page aside and rename it. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page)
    except OSError as error:
        raise UserError(f"report {path} cannot be written ({error.strerror}): choose another --out") from None
    return path


def _charts(entries: Sequence[Entry]) -> list[Group]:
    panels = {
        "Accuracy, length, reward": figures.CURVES,
        "Each dataset": figures.measured(entries),
        "Length, reflection, health, time": (*figures.LENGTH, *figures.WORDS, *figures.HEALTH, *TIME),
    }
    groups = [
        Group(name, [chart_of(panel, entries) for panel in with_data(row, entries)]) for name, row in panels.items()
    ]
    return [group for group in groups if group.charts]


def _table(name: str, run: Run, runs: int) -> tuple[str, list[dict[str, str]], int]:
    """A run's evaluations and how many are left out: the more runs there are, the fewer of each."""
    rows = facts.evaluations(run, min(facts.MOST_ROWS, max(2, 4 * facts.MOST_ROWS // runs)))
    return name, rows, len(run.evals) - len(rows)


def _read_off(chart: Chart) -> dict[str, Any]:
    return {"last": chart.last, "lines": chart.hover}


def _legend(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """(label, colour, dash) of several entries."""
    looks = [look(i) for i in range(len(entries))]
    labels = [entry.label + (f" ({len(entry.runs)} runs)" if len(entry.runs) > 1 else "") for entry in entries]
    found = [(label, COLOURS[colour], dashes(dash)) for label, (colour, dash) in zip(labels, looks, strict=True)]
    return found if len(entries) > 1 else []


def _spent(entries: Sequence[Entry]) -> list[Spent]:
    """Of each entry with steps, the mean of its runs."""
    entries = [entry for entry in entries if any(run.train("time/step_s") for run in entry.runs)]
    each = [[compute.totals(run) for run in entry.runs] for entry in entries]
    means = [{stage: sum(total[stage] for total in totals) / len(totals) for stage in STAGES} for totals in each]
    longest = max((sum(mean.values()) for mean in means), default=0.0) or 1.0
    found = []
    for entry, mean in zip(entries, means, strict=True):
        whole, left = sum(mean.values()), 0.0
        parts = []
        for stage, seconds in mean.items():
            if seconds > 0:
                text = f"{compute.duration(seconds)} ({share(seconds / whole)})"
                parts.append((stage, STAGES[stage], round(left, 2), round(100 * seconds / longest, 2), text))
                left += 100 * seconds / longest
        found.append(Spent(entry.label, compute.duration(whole), parts))
    return found


def _index_row(folder: Path, run: Path) -> dict[str, Any]:
    try:
        log = load({run.name: [run]})[0].runs[0]
    except UserError as error:
        return {"name": run.name, "started": "", "error": str(error)}
    found, data = facts.facts_of(run.name, run, log), next(iter(datasets([Entry(run.name, [log])])), "")
    accuracy, length = facts.change(log, data)
    there = (run / runlog.REPORT).is_file()
    return {
        "name": run.name,
        "started": found.started,
        "error": "",
        "facts": found,
        "link": f"./{quote(run.name)}/{runlog.REPORT}" if there else "",
        "measured": facts.clipped(data),
        "accuracy": accuracy,
        "length": length,
        "spark": _spark(log, data),
    }


def _spark(run: Run, data: str) -> str:
    """The path of a small curve of the accuracy, in the axes of a chart; empty where there are not two values."""
    points: Points = run.held_out(data, "accuracy")
    return path(points, Scale(0.0, 1.0, {}), max(1, *points)) if len(points) > 1 else ""


def _name(label: str, folder: Path, count: int) -> str:
    return label if count == 1 else f"{label}: {folder.name}"


def _browser(texts: Texts, names: Sequence[str]) -> dict[str, Any]:
    return {"notes": texts.notes, "texts": _payload(texts.items, names)}


def _payload(items: Sequence[Any], names: Sequence[str]) -> str:
    """What the page's script reads; empty where there are no texts."""
    return inline_json({"filters": NAMES, "runs": list(names), "items": items}) if items else ""


def _page(template: str, script: str, **values: Any) -> bytes:
    from markupsafe import Markup

    for name in ("hover", "texts"):  # escaped for where they stand
        if name in values:
            values[name] = Markup(values[name])
    style, code = _part("page.css"), _part(script) if script else ""
    policy = ["default-src 'none'", f"style-src '{digest(style)}'", "img-src data:", "base-uri 'none'"]
    policy += ["form-action 'none'"] + ([f"script-src '{digest(code)}'"] if code else [])
    page = _templates().get_template(template)
    text = page.render(**values, style=Markup(style), code=Markup(code), policy="; ".join(policy))
    return text.encode("utf-8", "replace")


def digest(text: str) -> str:
    """A text as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


@cache
def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.globals["frame"] = FRAME
    return found

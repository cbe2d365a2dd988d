"""`r1v0 report`: the page of a run, of several compared, or of a folder of runs.

Decides: the doctor stands above the page, so its findings are computed here and handed down; the page that a run
rewrites at each evaluation is made by the same function. A doctor that fails leaves his part out of the page.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.jobs import doctor
from r1v0.report.page import render
from r1v0.report.series import parse_groups
from r1v0.runs import runlog

COMPARED, INDEX = "report.html", "index.html"


def write(run: Path) -> Path:
    """RUN/report.html, written anew. Raises UserError for a damaged log or a file that cannot be written."""
    return write_groups({run.name: [run]})


def write_groups(groups: Mapping[str, Sequence[Path]], out: Path | None = None) -> Path:
    """The page of label -> run folders (several: seeds of the label) in `out`: by default RUN/report.html, of several
    runs ./report.html. Raises UserError as `write` does, and for an evaluation."""
    runs = [run for folders in groups.values() for run in folders]
    for run in runs:
        runlog.need_run(run)
        if runlog.is_evaluation(run):
            raise UserError(f"{run} is an evaluation: expected the folder of a run; {typed('plot', run)} draws it")
    found = {run: _findings(run) for run in runs}
    if out is None:
        out = runs[0] / runlog.REPORT if len(runs) == 1 else Path(COMPARED)
    return render.write(_page_name(out), render.report(groups, found))


def write_index(folder: Path, out: Path | None = None) -> Path:
    """The page that lists the runs in a folder, by default in its index.html; evaluations are left out. Raises
    UserError."""
    runs = [run for run in runs_in(folder) if not runlog.is_evaluation(run)]
    return render.write(_page_name(out or folder / INDEX), render.index(folder, runs))


def runs_in(folder: Path) -> list[Path]:
    """The run folders that a folder holds, by name; empty for a run folder itself."""
    if not folder.is_dir() or runlog.is_run(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and runlog.is_run(path))


def write_asked(arguments: Sequence[str], out: Path | None) -> Path:
    """What the verb writes for its arguments, as `parse_groups` reads them; a folder of runs alone gets its index."""
    if len(arguments) == 1 and runs_in(folder := Path(arguments[0])):
        return write_index(folder, out)
    return write_groups(parse_groups(arguments), out)


def _findings(run: Path) -> list[render.Told]:
    try:
        return [(finding.mark, finding.topic, finding.text) for finding in doctor.examine(run)]
    except UserError as error:
        return [("warning", "doctor", f"could not look at the run: {error}")]


def _page_name(out: Path) -> Path:
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UserError(f"--out {out} is not a page: expected a file's name that ends in .html")
    return out

"""`r1v0 doctor RUN`: reads a run folder and tells what went well or wrong, each with the figure that shows it.

    record.py      a folder -> Record, whatever of it can be read
    checks.py      did it learn, did it collapse, what did grading do
    hacking.py     did it learn the task, or only the reward
    operations.py  is the log whole, where did the time go

Decides: a check is a function (Record) -> findings in one of three tables; the report is ordered by how bad a finding
is, and within that by the tables. The doctor never changes a run, and a run without some file is not an error.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from r1v0.base.shown import shown
from r1v0.jobs.doctor.checks import LEARNING, Finding
from r1v0.jobs.doctor.hacking import HACKING
from r1v0.jobs.doctor.operations import OPERATIONS
from r1v0.jobs.doctor.record import read

MARKS = ("problem", "warning", "ok")


def examine(folder: Path) -> list[Finding]:
    """All findings about a run folder, the worst first. Raises UserError only if `folder` is not a run folder."""
    record = read(folder)
    found = [finding for check in (*LEARNING, *HACKING, *OPERATIONS) for finding in check(record)]
    return sorted(found, key=lambda finding: MARKS.index(finding.mark))


def report(folder: Path, findings: Sequence[Finding], width: int) -> str:
    """Findings as text of at most `width` columns."""
    counts = [(sum(finding.mark == mark for finding in findings), mark) for mark in MARKS]
    head = ", ".join(f"{count} {mark if count == 1 or mark == 'ok' else mark + 's'}" for count, mark in counts if count)
    topics = max((len(finding.topic) for finding in findings), default=0)
    lines = [f"{folder}: {head}"]
    for finding in findings:
        lines += lines_of(finding, topics, width)
    return "\n".join(lines)


def lines_of(finding: Finding, topics: int, width: int) -> list[str]:
    """A finding in lines of at most `width` columns, its topic in `topics` of them."""
    start = f"  {finding.mark:<8} {finding.topic:<{topics}}  "
    body = textwrap.wrap(
        shown(finding.text), max(30, width - len(start)), break_long_words=False, break_on_hyphens=False
    )
    return [start + body[0], *(" " * len(start) + line for line in body[1:])]


def as_json(found: Sequence[tuple[Path, Sequence[Finding]]]) -> str:
    """The findings of several runs as a JSON array of {"run", "findings"}."""
    runs = [{"run": str(folder), "findings": [asdict(finding) for finding in findings]} for folder, findings in found]
    return json.dumps(runs, indent=2)

"""`r1v0 report`: what it writes, where, and what it refuses."""

import os
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.jobs import doctor, report
from r1v0.jobs.doctor.checks import Finding
from tests.run_folders import evals, metrics_row, write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder runs/ with two runs and an evaluation, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, [metrics_row(step) for step in range(1, 11)], evals())
    evaluation = tmp_path / "runs" / "eval-001"
    evaluation.mkdir()
    (evaluation / "eval.json").write_text("{}")
    (evaluation / "config.toml").write_text("")
    return Path("runs")


def wrong(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a call that is a user's mistake."""
    assert main(["report", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_one_run_gets_its_page_with_the_doctors_findings(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs/a"]) == 0
    assert capsys.readouterr().out == "runs/a/report.html\n"
    page = (runs / "a" / "report.html").read_text(encoding="utf-8")
    topics = {finding.topic for finding in doctor.examine(runs / "a")}
    assert "learning" in topics
    assert all(f"<b>{topic}</b>" in page for topic in topics)
    assert sorted(path.name for path in (runs / "a").iterdir()) == ["evals.jsonl", "metrics.jsonl", "report.html"]


def test_several_runs_get_a_page_in_the_working_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "first=runs/a", "both=runs/a,runs/b"]) == 0
    assert capsys.readouterr().out == "report.html\n"
    page = Path("report.html").read_text(encoding="utf-8")
    assert "<title>first, both - r1v0</title>" in page
    assert "both (2 runs)" in page
    assert "both: b" in page
    assert main(["report", "runs/a", "runs/b", "--out", "x/two.html"]) == 0
    assert Path("x/two.html").is_file()


def test_a_folder_of_runs_gets_an_index_without_its_evaluations(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.write(runs / "b")
    assert main(["report", "runs"]) == 0
    assert capsys.readouterr().out == "runs/index.html\n"
    page = (runs / "index.html").read_text(encoding="utf-8")
    assert '<a href="./b/report.html">b</a>' in page
    assert '<th scope="row">a</th>' in page
    assert "eval-001" not in page


def test_mistakes_are_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is an evaluation" in wrong(capsys, "runs/eval-001")
    assert "does not exist" in wrong(capsys, "runs/none")
    assert "ends in .html" in wrong(capsys, "runs/a", "--out", "page.pdf")
    assert "ends in .html" in wrong(capsys, "runs", "--out", "runs")
    Path("file").write_text("")
    assert "choose another --out" in wrong(capsys, "runs/a", "--out", "file/page.html")
    (runs / "a" / "evals.jsonl").write_text("{\n{}\n")
    assert "evals.jsonl line 1 is damaged" in wrong(capsys, "runs/a")
    assert list(runs.rglob("*.html")) == []


def test_a_doctor_that_cannot_look_leaves_the_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: Path) -> list[Finding]:
        raise UserError("health.jsonl line 1 is damaged")

    monkeypatch.setattr(doctor, "examine", fails)
    page = report.write(runs / "a").read_text(encoding="utf-8")
    assert "could not look at the run: health.jsonl line 1 is damaged" in page


def test_a_page_replaces_the_one_before_whole(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report.write(runs / "a").read_bytes()

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        report.write(runs / "a")
    assert (runs / "a" / "report.html").read_bytes() == before
    assert [path.name for path in (runs / "a").glob(".*")] == []

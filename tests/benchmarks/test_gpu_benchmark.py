"""benchmarks/gpu.py cannot rot: all of it runs on the CPU, in toy sizes."""

import json
from pathlib import Path

import pytest
from benchmarks.gpu_tools import Bench, Row

from benchmarks import gpu


def test_every_section_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--dry-run", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["dry_run"]
    assert list(written["sections"]) == list(gpu.SECTIONS)
    assert all(section["rows"] and not section["error"] for section in written["sections"].values())
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith((tmp_path / "gpu.md").read_text().rstrip())
    assert "these numbers mean nothing" in shown


def test_a_section_that_fails_is_recorded_and_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bench: Bench, rows: list[Row]) -> None:
        rows.append(Row("so far", 1.0))
        raise ArithmeticError("no such card")

    def wrong(bench: Bench, rows: list[Row]) -> None:
        rows.append(Row("error", float("nan"), "", "<= 1", False))

    monkeypatch.setitem(gpu.SECTIONS, "logits", fails)
    monkeypatch.setitem(gpu.SECTIONS, "kernels", wrong)
    assert gpu.main(["--out", str(tmp_path), "--only", "logits,kernels,machine"]) == 1
    table = (tmp_path / "gpu.md").read_text()
    assert "| logits | so far | 1 |" in table
    assert "| logits | ArithmeticError: no such card | | | | FAILED |" in table
    assert "| kernels | error | nan |  | <= 1 | NOT AS EXPECTED |" in table
    assert "copy bandwidth" in table


def test_an_unknown_section_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu.main(["--out", str(tmp_path), "--only", "decode,trainig"])
    assert caught.value.code == 2
    assert "no section trainig: there are machine, kernels" in capsys.readouterr().err

"""The benchmark itself: every engine gets the same work, and the arithmetic of its tables is right."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from r1v0.cli import main
from r1v0.jobs.bench import cases, own, table, workload
from r1v0.jobs.bench.timing import interleaved
from r1v0.jobs.plan.shapes import Shape
from r1v0.models.families import parse_config
from r1v0.sampling.sampler import generate
from tests.conftest import script

ROOT = Path(__file__).resolve().parents[2]


peers: Any = script(ROOT / "benchmarks" / "peers.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workload.random_model_folder(tmp_path_factory.mktemp("bench") / "random", layers=1, hidden=64)


@pytest.fixture
def work(folder: Path) -> workload.Work:
    return workload.random_work(folder, prompts=3, group_size=4, limit=60)


def test_the_random_model_has_5_m_parameters() -> None:
    """Embeddings 4096 x 256; six blocks of 256 x 512 + 512 (qkv), 256 x 256, 3 x 256 x 704, and two norms; a last
    norm."""
    shape = Shape(parse_config(workload.RANDOM_5M, "test"), "")
    assert shape.parameters == 4096 * 256 + 6 * (131_584 + 65_536 + 540_672 + 512) + 256 == 5_478_656


def test_lengths_are_those_of_the_work(work: workload.Work) -> None:
    drawn = generate(work.policy.model, workload.requests(work), workload.sampling(work, slots=5))
    found = sorted(len(completion.token_ids) for _, _, completion in drawn)
    assert found == sorted(n for row in work.lengths for n in row)
    assert len(set(found)) > 3


def test_a_whole_step_samples_the_work(work: workload.Work) -> None:
    before = work.policy.model.norm.detach().clone()
    assert own.step(work, own.optimizer_of(work), 0.0) == sum(n for row in work.lengths for n in row)
    assert not torch.equal(before, work.policy.model.norm)


@pytest.mark.parametrize(("flat", "expected"), [(0.0, 0), (0.25, 4), (0.5, 8)])
def test_so_many_groups_are_flat(flat: float, expected: int) -> None:
    rewards = [[own.reward(group, sample, 8, flat) for sample in range(8)] for group in range(16)]
    assert sum(min(row) == max(row) for row in rewards) == expected
    assert all(sum(row) in (0, 4) for row in rewards)


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return 7

    rows = list(interleaved({"a": lambda: run("a"), "b": lambda: (run("b"), {"seconds": 5.0})}, 2, case="c"))
    assert order == ["a", "b", "a", "b"]
    assert [row["round"] for row in rows] == [0, 0, 1, 1]
    assert rows[1]["seconds"] == 5.0
    assert {row["tokens"] for row in rows} == {7}


def measured(contender: str, number: int, seconds: float, tokens: int = 10) -> dict[str, Any]:
    return {"setting": "s", "contender": contender, "round": number, "seconds": seconds, "tokens": tokens}


def test_a_ratio_is_of_medians_a_token() -> None:
    rows = [
        measured(cases.OWN, 0, 1.0),
        measured("peer", 0, 6.0, 20),
        measured(cases.OWN, 1, 2.0),
        measured("peer", 1, 8.0, 20),
    ]
    rows += [measured(cases.OWN, 2, 1.0), measured("peer", 2, 10.0, 20)]
    mine, theirs = table.lines(rows)
    assert (mine.ratio, mine.tokens_per_s) == (1.0, 10.0)
    assert theirs.ratio == pytest.approx(4.0)  # 8 s / 20 tokens over 1 s / 10 tokens
    assert [theirs.low, theirs.high] == pytest.approx([2.0, 5.0])


def test_a_skipped_contender_has_no_line() -> None:
    assert table.lines([{"case": "c", "setting": "s", "contender": "TRL", "skipped": "why"}]) == []
    alone = table.lines([measured("peer", 0, 1.0)])
    assert table.cells(alone[0])[-2:] == ("", "")


def test_without_peers_the_cases_run_and_say_so(work: workload.Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda name: None)
    rows: list[cases.Row] = []
    peers.sampling(work, 1, rows.append)
    peers.whole_step(work, 1, rows.append)
    assert [row["skipped"] for row in rows if "skipped" in row] == ["transformers is not installed"] * 2
    assert [row["contender"] for row in rows if "seconds" in row] == [cases.OWN] * 3


def test_the_verb_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["bench", "--quick", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert out.startswith("embedded base: 329,664 parameters, 2 prompts x 2 completions")
    assert "tokens/s" in out
    assert "50% flat" in out


def test_the_verb_refuses_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rounds", "0"]) == 2
    assert "--rounds is 0: expected at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_generate_samples_the_same_lengths(work: workload.Work) -> None:
    model = peers.load_peer_model(work)
    assert peers.run_generate(model, work, 8) == sum(n for row in work.lengths for n in row)


@pytest.mark.slow
def test_continuous_batching_samples_the_same_lengths(work: workload.Work) -> None:
    tokens, reading = peers.run_continuous_batching(peers.load_peer_model(work), work, 4, 120)
    assert tokens == sum(n for row in work.lengths for n in row)
    assert reading["seconds"] > 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed (the bench extra)")
@pytest.mark.filterwarnings("ignore")
def test_trl_samples_the_same_lengths(work: workload.Work) -> None:
    seen: list[tuple[int, int]] = []
    peers.run_trl(work, [0.0, 0.5], lambda number, reading, tokens: seen.append((number, tokens)))
    wanted = sum(n for row in work.lengths for n in row)
    assert seen == [(0, wanted), (1, wanted)]


@pytest.mark.slow
def test_every_own_case_runs_in_a_toy_size(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "performance.py"
    named = "layout,sparse,head,lengths,groups,rows,memory"
    command = [sys.executable, str(script), "--quick", "--threads", "1", "--only", named, "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    assert {path.stem for path in tmp_path.glob("*.json")} == set(named.split(","))
    rows = json.loads((tmp_path / "layout.json").read_text())["rows"]
    assert max(row["gradient_error"] for row in rows) < 1e-5
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n## ") == 7
    assert (tmp_path / "performance.png").read_bytes().startswith(b"\x89PNG")

"""Several processes at one run: one torchrun of three, and everything that it does held against one process."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._C._distributed_c10d import HashStore, PrefixStore
from torch.distributed import DistBackendError

from r1v0.base.errors import Lost, Told, UserError
from r1v0.config import resolve
from r1v0.grpo import parallel
from r1v0.grpo.parallel import each, first, meeting, part, size, together
from r1v0.models import processes
from r1v0.rollouts.exchange import Part, Spent, packed, unpacked
from r1v0.runs.records import read_evals, read_health, read_metrics
from r1v0.types import Completion, Score
from tests.conftest import ROOT
from tests.grpo.parallel_worker import MATRIX, run
from tests.helpers import newest

WORKER = ROOT / "tests" / "grpo" / "parallel_worker.py"
COUNTS = ("tokens/sampled", "tokens/trained", "groups/sampled", "policy/skipped", "reward/mean", "length/mean")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that three processes filled."""
    out = tmp_path_factory.mktemp("ranks")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "3",
        str(WORKER),
        str(out),
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def seen(made: Path) -> list[dict[str, Any]]:
    """What each process saw."""
    return [json.loads((made / f"found-{rank}.json").read_text()) for rank in range(3)]


def test_alone_there_is_no_exchange() -> None:
    kept = object()
    assert (size(), list(part(5))) == (1, [0, 1, 2, 3, 4])
    assert each(lambda: kept) == [kept]
    assert first(lambda: kept) is kept
    assert together(lambda: kept) is kept


def test_everybody_has_what_everybody_returned(seen: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(seen):
        found = one["phases"]
        assert found["each"] == [{"rank": r, "half": 0.1} for r in range(3)]
        assert found["first"] == "of 0"
        assert found["together"] == rank
        assert found["parts"] == [[0, 1], [2, 3], [4, 5, 6]]
        assert found["empty"] == [0, 5, 10]
        assert found["sums"] == [[6.0] * 3, [3.0] * 4]


def test_what_gloo_says_of_a_lost_process_is_one_line_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "gone", lambda: [1, 3])
    with pytest.raises(Lost, match=r"^process 1, 3 of the run is gone \("), meeting():
        raise RuntimeError("[/x/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    monkeypatch.setattr(parallel, "gone", list)
    with pytest.raises(Lost, match=r"^another process of the run is gone "), meeting():
        raise DistBackendError("NCCL communicator was aborted")
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory$"), meeting():
        raise RuntimeError("CUDA out of memory")


def test_who_is_gone_is_told_by_process_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    monkeypatch.setattr(processes, "REAPED_S", 0.0)
    monkeypatch.setattr(processes, "HERE", {0: os.getpid(), 2: dead.pid})
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert processes.gone() == [2]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_first_that_noticed_says_it_and_the_first_process_leaves_first(monkeypatch: pytest.MonkeyPatch) -> None:
    store = PrefixStore("r1v0/0", HashStore())
    assert [processes._is_first_to_say(store) for _ in range(3)] == [True, False, False]
    monkeypatch.setattr(processes, "PARTING", timedelta(seconds=0.05))
    began = time.monotonic()
    processes._leave(store, 1)  # the first process never says that it has left
    assert time.monotonic() - began > 0.04
    processes._leave(store, 0)
    monkeypatch.setattr(processes, "PARTING", timedelta(minutes=5))
    processes._leave(store, 1)


def test_restarts_on_several_machines_need_a_store_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would wait for each other for ever: torchrun counts restarts on each machine apart."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    for number, kind in enumerate((UserError, Told)):
        with pytest.raises(UserError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1") as found:
            processes._store(number, 2)
        assert type(found.value) is kind


def test_errors_and_wishes_to_stop_travel(seen: list[dict[str, Any]]) -> None:
    found = [one["phases"] for one in seen]
    assert [one["wrong"] for one in found] == [["UserError", "give another path"], *[["Told", "give another path"]] * 2]
    assert [one["stop"] for one in found] == [["Interrupted", ""]] * 3
    told = ["RuntimeError", "process 1 failed: ValueError: what"]
    assert [one["broken"] for one in found] == [told, ["ValueError", "what"], told]


def test_the_summed_gradient_is_that_of_one_process(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        (many, counts), (few, some) = one["gradients"]
        assert many < 1e-6
        assert few < 1e-6
        assert counts[2] >= 3 * counts[0]
        assert 0 in some or sum(some) >= 3


def test_a_fault_of_one_process_is_dealt_with_by_all(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        found = one["faults"]
        assert (found["skipped"], found["same"]) == (True, True)
        assert found["memory"] < 1e-6
        weights, start = found["told"]
        assert "the weights of process 2 are not those of process 0 at step-00001" in weights
        assert "process 2 of the run has another settings than process 0" in start
    rolled = [one["rollback"] for one in seen]
    assert rolled[0] == rolled[1] == rolled[2]
    assert rolled[0][2] is True


def test_a_divided_optimizer_keeps_twelve_bytes_over_the_processes(seen: list[dict[str, Any]]) -> None:
    """4 of the master and 8 of the moments per weight, a third of them in each of three processes."""
    assert [one["optimizer"] for one in seen] == pytest.approx([4.0] * 3, rel=0.01)


def test_a_rollback_is_logged_once(made: Path, seen: list[dict[str, Any]]) -> None:
    back = [row for row in read_health(made / "rollback") if row["action"] == "rollback"]
    assert len({row["step"] for row in back}) == seen[0]["rollback"][0]


@pytest.mark.parametrize("name", MATRIX)
def test_three_processes_make_the_run_of_one(name: str, made: Path, tmp_path: Path) -> None:
    if name == "8bit":
        pytest.importorskip("bitsandbytes", reason="8-bit states need bitsandbytes (the 8bit extra)")
    run(name, tmp_path / "one", "optimizer.shard=false")
    one, three = tmp_path / "one", made / name.replace(" ", "-")
    rounded = "compute.dtype=bfloat16" in MATRIX[name]  # where a sum over processes is rounded otherwise, tokens part
    for a, b in list(zip(read_metrics(one), read_metrics(three), strict=True))[: 1 if rounded else None]:
        assert {key: a[key] for key in COUNTS} == {key: b[key] for key in COUNTS}
        assert a["policy/loss"] == pytest.approx(b["policy/loss"], rel=2e-6, abs=2e-7)
        assert a["policy/grad_norm"] == pytest.approx(b["policy/grad_norm"], rel=1e-2 if rounded else 1e-4)
    if rounded:
        return
    texts = [[json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()] for path in rollouts(one)]
    assert texts == [
        [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()] for path in rollouts(three)
    ]
    timeless = [[{k: v for k, v in row.items() if k != "time_s"} for row in read_evals(path)] for path in (one, three)]
    assert timeless[0] == timeless[1]
    weights = [load_file(newest(path) / "model.safetensors") for path in (one, three)]
    most = 1e-5 if name == "8bit" else 5e-6
    assert max(float((weights[0][key].float() - weights[1][key].float()).abs().max()) for key in weights[0]) <= most


def rollouts(run: Path) -> list[Path]:
    return sorted((run / "rollouts").iterdir())


def test_a_part_comes_back_as_it_was() -> None:
    done = [(3, 1, Completion([5, 70000], [-0.5, -0.25], "length"), "a\n", Score(0.5, True, parts={"x": 1.0}))]
    part = Part(done, 1.5, 0.25, {"verify/timeouts": 2})
    assert asdict(unpacked(json.loads(json.dumps(packed(part))))) == asdict(part)


def test_what_a_round_took_is_the_slowest_and_the_sum() -> None:
    parts = [Part([], 3.0, 1.0, {"verify/timeouts": 1}), Part([], 1.0, 1.0, {"verify/timeouts": 2})]
    assert Spent.by(parts) == Spent(3.0, 1.0, 1.0, {"verify/timeouts": 3})


@pytest.mark.parametrize("name", ["shard", "shard, bfloat16"])
def test_a_sharded_checkpoint_is_what_one_process_writes(name: str, made: Path, tmp_path: Path) -> None:
    run(name, tmp_path / "one", "optimizer.shard=false", "steps=1")
    run(name, tmp_path / "alone", "steps=1")
    one, alone = (load_file(newest(tmp_path / folder) / "trainer/optimizer.safetensors") for folder in ("one", "alone"))
    assert one.keys() == alone.keys()
    assert all(torch.equal(one[key], alone[key]) for key in one)
    three = load_file(newest(made / name.replace(" ", "-")) / "trainer/optimizer.safetensors")
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in three.items()} == {
        key: (tensor.shape, tensor.dtype) for key, tensor in one.items()
    }
    assert {int(tensor) for key, tensor in three.items() if key.startswith("step/")} == {2}


def test_what_does_not_go_with_shards_is_refused() -> None:
    for other in ("lora.rank=4", "optimizer.moments=8bit", "optimizer.offload=true"):
        with pytest.raises(UserError, match=r"optimizer\.shard is true: expected false where"):
            resolve("countdown", sets=["optimizer.shard=true", other])

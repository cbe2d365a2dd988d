"""A plan for several cards: bytes and seconds by hand, and the page."""

import shlex

import pytest

from r1v0 import config
from r1v0.cli import main
from r1v0.cli import parser as command_line
from r1v0.jobs.plan import EXACT, Plan, make_plan, remedies
from r1v0.jobs.plan.cluster import alone_on, exchange_s, gradient_bytes, gradient_s, limits, step_on
from r1v0.jobs.plan.cost import Cluster
from r1v0.jobs.plan.memory import count_memory
from r1v0.jobs.plan.report import report
from r1v0.jobs.plan.shapes import find_shape
from r1v0.models.sizes import GIB

SMALL, LARGE = find_shape("Qwen/Qwen2.5-1.5B"), find_shape("Qwen/Qwen2.5-7B")


def asked(*sets: str) -> config.Config:
    return config.resolve("qwen2.5-1.5b-math", sets=["grpo.refill=false", *sets])


def planned(cluster: Cluster, *sets: str) -> Plan:
    return make_plan(asked(*sets), "h100", length=1000, cluster=cluster)


@pytest.mark.parametrize(("processes", "bytes_a_weight"), [(1, 16), (2, 10), (4, 7), (8, 5.5), (16, 4.75)])
def test_a_sharded_optimizer_takes_4_bytes_and_12_divided(processes: int, bytes_a_weight: float) -> None:
    whole = count_memory(asked(), SMALL, True, 1024, processes)
    parts = count_memory(asked("optimizer.shard=true"), SMALL, True, 1024, processes)
    assert parts.resident + parts.gradients == pytest.approx(bytes_a_weight * SMALL.parameters)
    assert whole.resident + whole.gradients == pytest.approx(16 * SMALL.parameters)
    assert parts.masters + parts.moments == pytest.approx((bytes_a_weight - 4) * SMALL.parameters)


def test_a_sharded_float32_model_has_masters_beside_its_weights() -> None:
    """4 of weights, 4 of gradients, and halves of 4 + 8."""
    parts = count_memory(asked("optimizer.shard=true", "compute.dtype=float32"), SMALL, True, 1024, 2)
    assert parts.resident + parts.gradients == pytest.approx(14 * SMALL.parameters)


def test_gradients_are_summed_in_two_float32_copies_of_the_largest_matrix() -> None:
    """The embeddings: 151,936 x 1536 weights, once in float32 in one process, twice where there are several."""
    one, two = (count_memory(asked(), SMALL, True, 1024, processes).update for processes in (1, 2))
    assert (one, two) == (4 * 151_936 * 1536, 8 * 151_936 * 1536)
    lonely = count_memory(asked("optimizer.shard=true"), SMALL, True, 1024, 1)
    assert lonely.update == pytest.approx(2 * SMALL.parameters)  # gradients of 2 bytes become pieces of 4


def test_7b_fits_where_its_optimizer_is_divided() -> None:
    assert not planned(Cluster(8), "model=Qwen/Qwen2.5-7B").fits
    plan = planned(Cluster(8), "model=Qwen/Qwen2.5-7B", "optimizer.shard=true")
    assert plan.fits
    assert (plan.memory.resident + plan.memory.gradients) / GIB == pytest.approx(5.5 * 7.6156 * 1e9 / GIB, rel=1e-4)
    assert plan.rows == 128  # of 1024 completions


def test_a_shard_is_recommended_and_is_the_same_gradient() -> None:
    plan = planned(Cluster(8), "model=Qwen/Qwen2.5-7B")
    best = remedies(plan)[0]
    assert (best.kind, best.settings) == (EXACT, ("optimizer.shard=true",))
    page = report(plan, ["--set", "model=Qwen/Qwen2.5-7B"])
    assert page.splitlines()[-1].endswith("of each card as it is; it does with: --set optimizer.shard=true")
    assert "what limits: memory" in page
    line = next(line for line in page.splitlines() if "optimizer.shard=true" in line and " train " in line)
    arguments = command_line().parse_args(shlex.split(line)[shlex.split(line).index("train") :])
    assert arguments.processes == 8
    assert config.resolve(sets=arguments.set).optimizer.shard
    alone = make_plan(asked("model=Qwen/Qwen2.5-7B"), "h100")
    assert not any("shard" in setting for remedy in remedies(alone) for setting in remedy.settings)


def test_bytes_of_gradients_by_hand() -> None:
    """An all-reduce in float32 sends 2 x 7/8 x 4 = 7 bytes a weight; reduce-scatter and all-gather 3.5 + 1.75."""
    plan = planned(Cluster(8))
    assert gradient_bytes(plan, plan.cluster) == (7 * 1_543_714_304, 0)
    assert sum(gradient_s(plan, plan.cluster)) == pytest.approx(7 * 1_543_714_304 / 350e9)
    plan = planned(Cluster(4, 2), "optimizer.shard=true")
    assert gradient_bytes(plan, plan.cluster) == (3.5 * 1_543_714_304, 1.75 * 1_543_714_304)
    assert sum(gradient_s(plan, plan.cluster)) == pytest.approx(5.25 * 1_543_714_304 / 12.5e9)
    assert gradient_bytes(plan, Cluster()) == (0, 0)
    adapters = planned(Cluster(8), "lora.rank=64")
    assert gradient_bytes(adapters, adapters.cluster) == (7 * 73_859_072, 0)


def test_rollouts_are_told_by_hand() -> None:
    """A million tokens, 15 MB, to 2 processes: half of them written at .12 us, all read at .16 us, 15 MB at 1 GB/s. Two
    nodes of 8 over 10 Gbit/s: 8 times half of 15 MB each way."""
    assert exchange_s(1e6, Cluster()) == 0
    assert exchange_s(1e6, Cluster(2)) == pytest.approx(0.06 + 0.16 + 0.015)
    assert exchange_s(1e6, Cluster(8, 2, 10e9 / 8)) == pytest.approx(0.12 / 16 + 0.16 + 8 * 7.5e6 / 1.25e9)


def test_training_is_divided_and_the_longest_completion_is_not() -> None:
    """No card can be faster than 4,096 steps that each read all weights: 3.09 GB at 65 % of 3.35 TB/s, and 28 x 10 us.
    Two cards in the same node wait for the slower; with 128 rows each of 8 has half of what it could decode."""
    plan = planned(Cluster(8))
    one, eight = alone_on(plan), step_on(plan, plan.cluster)
    least = 4096 * (2 * (SMALL.matrices + SMALL.embedding) / (0.65 * 3.35e12) + 28e-5)
    assert least < eight.sampling_s < 2 * least
    assert eight.training_s == pytest.approx(one.training_s / 8)
    assert 3 < one.seconds / eight.seconds < 5
    assert (one.wait_s, one.exchange_s, one.sum_s) == (0, 0, 0)
    assert 0 < eight.wait_s < 0.2 * eight.sampling_s
    assert eight.tokens == one.tokens == 128 * 8 * 1000
    assert limits(plan, one, eight).startswith("the longest completion (")


def test_rows_of_one_length_have_no_longest() -> None:
    """All at the limit, two updates a step over 1 Gbit/s: what limits is the network; over NVLink small batches."""
    slow = make_plan(asked(), "h100", length=4096, cluster=Cluster(1, 2, 1e9 / 8))
    assert "adding up gradients" in limits(slow, alone_on(slow), step_on(slow, slow.cluster))
    many = make_plan(asked(), "h100", length=4096, cluster=Cluster(64))
    step = step_on(many, many.cluster)
    assert step.wait_s == pytest.approx(0)
    assert "a small batch: 16 rows a card" in limits(many, alone_on(many), step)


def test_refills_come_one_after_the_other() -> None:
    """128 groups, then 64, 32, 16 and 8."""
    plan = make_plan(config.resolve("qwen2.5-1.5b-math"), "h100", length=1000, cluster=Cluster(8))
    assert step_on(plan, plan.cluster).tokens == (128 + 64 + 32 + 16 + 8) * 8 * 1000
    assert step_on(plan, plan.cluster).sampling_s > 3 * step_on(planned(Cluster(8)), Cluster(8)).sampling_s


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--preset", "qwen2.5-1.5b-math", "--card", "h100", "--gpus", "8", "--nodes", "2"]
    assert main([*command, "--set", "optimizer.shard=true"]) == 0
    page = capsys.readouterr().out
    for said in (
        "on 16 cards (2 nodes of 8, one process a card), each H100 80 GB",
        "float32, 1/16 of all",
        "1 card  16 cards",
        "GB/s between cards, 100 Gbit/s of a node",
        "what limits: the longest completion",
        "that can be used of 80 GiB of each card",
    ):
        assert said in page
    assert max(map(len, page.splitlines())) <= 130


def test_one_card_has_the_page_of_one_card(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--gpus", "1", "--nodes", "1", "--network", "10"]):
        assert main(["plan", "--preset", "r1-v0", "--card", "a100", *more]) == 0
    first, second = capsys.readouterr().out.split("settings:")[1:]
    assert first == second
    assert "what limits" not in first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "4"], "--gpus is 4, --nodes 1: say which GPU, by --card or --gpu-memory"),
        (["--gpus", "0", "--card", "h100"], "--gpus is 0: expected 1 to 1024"),
        (["--nodes", "-1", "--card", "h100"], "--nodes is -1: expected 1 to 1024"),
        (["--gpus", "64", "--nodes", "64", "--card", "h100"], "--gpus x --nodes is 4096: expected at most 1024"),
        (["--gpus", "2", "--network", "nan", "--card", "h100"], "--network is nan: expected Gbit/s of a node"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1

"""The plan against published sizes and by hand: shapes, times, what makes a run fit, and the page."""

import shlex
from pathlib import Path

import pytest

from r1v0 import config
from r1v0.cli import main
from r1v0.cli import parser as command_line
from r1v0.jobs.plan import ADAPTERS, EXACT, PROMPT, ROUNDED, make_plan, remedies
from r1v0.jobs.plan.cost import CARDS, cost, find_card, work_of
from r1v0.jobs.plan.report import report, seconds
from r1v0.jobs.plan.shapes import KNOWN, TINY, find_shape
from r1v0.models.sizes import GIB

QWEN = find_shape("Qwen/Qwen2.5-1.5B")

# Parameters as the models' own safetensors on the hub count them.
PUBLISHED = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}


def settings(*sets: str) -> config.Config:
    return config.resolve(sets=['model="Qwen/Qwen2.5-1.5B"', *sets])


def test_the_table_counts_what_is_published() -> None:
    assert {name: find_shape(f"owner/{name}").parameters for name in KNOWN} == PUBLISHED


def test_variants_have_the_shape_of_their_model() -> None:
    assert find_shape("Qwen/Qwen2.5-Math-1.5B-Instruct").config == QWEN.config
    assert "built-in table" in QWEN.source


def test_the_embedded_model_is_counted_from_its_file() -> None:
    shape = find_shape("tiny")
    assert (shape.parameters, shape.source) == (329_664, "the embedded model")


def test_a_folder_and_a_run_folder(tmp_path: Path) -> None:
    raw = (TINY / "config.json").read_text()
    for folder in (tmp_path / "model", tmp_path / "run" / "checkpoints" / "step-00004"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(raw)
    assert find_shape(str(tmp_path / "model")).parameters == find_shape(str(tmp_path / "run")).parameters == 329_664


def test_adapters_of_rank_64() -> None:
    assert (
        QWEN.adapters(64) == 73_859_072
    )  # 28 x 64 x (2 x 1536 + 2 x (1536 + 256) + 2 x 1536 + 3 x (1536 + 8960)) by hand: 73.9 M


def test_operations_are_six_or_eight_a_weight_and_token() -> None:
    """At short contexts a token costs 2 M forward, 6 M in training, 8 M with checkpointing."""
    work = work_of(settings("sampling.max_new_tokens=8"), 1, 8)
    matrices = QWEN.matrices + QWEN.embedding
    for sets, factor in (((), 6), (("compute.checkpoint_activations=true",), 8)):
        found = cost(settings(*sets), QWEN, work, CARDS["a100"], 64, 28_672, (2, 2))
        assert found.training_flops / work.sampled == pytest.approx(factor * matrices, rel=0.05)
        assert found.sampling_flops / work.sampled == pytest.approx(2 * matrices, rel=0.05)


def test_decoding_is_bound_by_bandwidth() -> None:
    """64 rows at a mean context of 1000: (3.09 GB + 64 x 1000 x 28,672 B) / 1.555 TB/s = 3.2 ms at full bandwidth."""
    work = work_of(settings("sampling.max_new_tokens=2000", "grpo.groups=8"), 1, 1998)
    found = cost(settings(), QWEN, work, CARDS["a100"], 64, 28_672, (2, 2))
    step = found.sampling_s / 1998
    assert step == pytest.approx(3.17e-3 / 0.65 + 28 * 1e-5, rel=0.05)


def test_40_gb_hold_the_original_run_and_24_need_help() -> None:
    r1 = config.resolve("r1-v0")
    plan = make_plan(r1, gpu_memory=40)
    assert plan.fits
    assert plan.kv_tokens == pytest.approx(614_000, rel=0.1)
    small = make_plan(r1, "4090")
    assert not small.fits
    found = remedies(small)
    assert found[-1].plan.fits
    assert [(remedy.kind, remedy.settings) for remedy in found] == [
        (EXACT, ("optimizer.offload=true",)),
        (ROUNDED, ("optimizer.moments=8bit",)),
        (ADAPTERS, ("lora.rank=64",)),
    ]
    again = make_plan(config.resolve("r1-v0", sets=found[0].settings), "4090")
    assert again.fits
    assert again.peak == found[0].plan.peak


ASKED = [
    (model, memory, sets)
    for model in ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "qwen3-4b")
    for memory in (4, 8, 11, 16, 24, 40, 80)
    for sets in (
        (),
        ("optimizer.moments=8bit",),
        ("optimizer.offload=true",),
        ("lora.rank=16",),
        ("sampling.max_new_tokens=8000",),
    )
]


@pytest.mark.parametrize(("model", "memory", "sets"), ASKED)
def test_every_recommendation_is_accepted_and_fits(model: str, memory: int, sets: tuple[str, ...]) -> None:
    """Fed back as `r1v0 train` gets it, and as `r1v0 plan` does."""
    given = [f"model={model}", *sets]
    plan = make_plan(config.resolve("qwen2.5-1.5b-math", sets=given), gpu_memory=memory)
    found = remedies(plan)
    assert not (found and plan.fits)
    kinds = [remedy.kind for remedy in found]
    assert kinds == [kind for kind in (EXACT, ROUNDED, ADAPTERS) if kind in kinds]
    page = report(plan, ["--preset", "qwen2.5-1.5b-math", *(word for item in given for word in ("--set", item))])
    lines = [line for line in page.splitlines() if line.startswith("    ") and " train " in line]
    assert len(lines) == len(found)
    for line, remedy in zip(lines, found, strict=True):
        words = shlex.split(line[line.index(" train ") :])[1:]
        arguments = command_line().parse_args(["train", *words])
        accepted = config.resolve(arguments.preset, sets=arguments.set)
        again = make_plan(accepted, gpu_memory=memory)
        assert again.fits
        assert again.peak == remedy.plan.peak


def test_recommendations_on_a_cpu_do_not_offload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1v0.jobs.plan._ram", lambda: 24 * GIB)
    found = remedies(make_plan(config.resolve("qwen2.5-1.5b-math")))
    assert found
    assert not any("offload" in setting for remedy in found for setting in remedy.settings)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("rtx4090", "RTX 4090 24 GB"),
        ("RTX 4090", "RTX 4090 24 GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090 24 GB"),
        ("A100-80GB", "A100 80 GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80 GB"),
        ("h100-80", "H100 80 GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80 GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe 80 GB"),
        ("NVIDIA H200", "H200 141 GB"),
        ("a6000", "RTX A6000 48 GB"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada 48 GB"),
        ("NVIDIA L4", "L4 24 GB"),
        ("L40S", "L40S 48 GB"),
    ],
)
def test_a_card_goes_by_its_usual_names(name: str, title: str) -> None:
    found = find_card(name)
    assert found is not None
    assert found.title == title


@pytest.mark.parametrize("name", ["a1000", "v100", "rtx", "", "80", "4090 ti"])
def test_an_unknown_card_is_not_guessed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--card", name]) == 2
    error = capsys.readouterr().err
    assert "a6000" in error
    assert "--gpu-memory GB" in error


def test_a_memory_alone_is_no_named_card() -> None:
    for memory in (24, 40):
        assert "\non a GPU, as fast as an A100, with " in report(make_plan(config.resolve("r1-v0"), gpu_memory=memory))
    assert "\non RTX 4090 24 GB\n" in report(make_plan(config.resolve("r1-v0"), "4090"))


def test_float32_on_a_gpu_and_bfloat16_on_a_cpu_have_their_own_rates() -> None:
    half, whole = (make_plan(settings(f"compute.dtype={dtype}"), "a100-80") for dtype in ("bfloat16", "float32"))
    assert whole.typical.training_s == pytest.approx(16 * half.typical.training_s, rel=0.01)
    small = ("model=smollm2-135m", "compute.dtype=bfloat16", "threads=1")
    native, emulated = (make_plan(config.resolve(sets=small), bfloat16=times) for times in (0.5, 5.0))
    assert emulated.typical.training_s == pytest.approx(10 * native.typical.training_s)
    sampled = make_plan(
        config.resolve(sets=["model=smollm2-135m", "sampling.dtype=bfloat16", "threads=1"]), bfloat16=5.0
    )
    assert sampled.typical.training_s == pytest.approx(emulated.typical.training_s / 5)


def test_refills_are_sampled_and_not_trained_on() -> None:
    plain, refilled = (make_plan(settings(f"grpo.refill={refill}"), "a100") for refill in ("false", "true"))
    assert refilled.typical.sampling_flops == pytest.approx(
        (1 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16) * plain.typical.sampling_flops
    )
    assert refilled.longest.sampling_flops == pytest.approx(5 * plain.longest.sampling_flops)
    assert refilled.typical.training_flops == plain.typical.training_flops
    assert "refilled (limit: all, 4 times)" in report(refilled)


def test_evaluations_are_counted() -> None:
    asked = ("steps=20", "eval.every=10", 'eval.on=["math500","countdown-hard"]', "eval.max_problems=0",
             "sampling.max_new_tokens=8000")  # fmt: skip
    plan = make_plan(settings(*asked), "a100")
    assert plan.evaluations == 3
    assert plan.run_s[0] > 20 * (plan.typical.sampling_s + plan.typical.training_s)
    twice = make_plan(settings(*asked, "eval.samples=2"), "a100")
    assert twice.evaluation[0].sampling_flops == pytest.approx(2 * plan.evaluation[0].sampling_flops, rel=0.05)
    assert make_plan(settings("eval.on=[]"), "a100").evaluations == 0


def test_times_are_said_as_a_person_says_them() -> None:
    assert [seconds(n) for n in (12, 300, 7200, 7960 * 3600)] == ["12.0 s", "5.0 min", "2.0 h", "331.7 days"]


def test_a_hopeless_model_is_told_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--set", "model=Qwen/Qwen2.5-7B", "--gpu-memory", "8"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("does not fit into 8 GiB")
    assert "smaller model" in last


def test_the_page_says_what_fits_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--preset", "qwen2.5-1.5b-math", "--gpu-memory", "40"]) == 0
    page = capsys.readouterr().out
    assert page.splitlines()[-1].startswith("fits: the peak is ")
    assert "28,672 bytes per token" in page
    assert max(map(len, page.splitlines())) <= 130


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_has_a_plan(preset: str) -> None:
    assert "\n\n" in report(make_plan(config.resolve(preset), "a100"))


def test_a_cpu_is_the_plan_without_a_card() -> None:
    plan = make_plan(config.resolve("countdown"))
    assert plan.fits
    assert not plan.gpu
    assert plan.memory.masters == 0
    assert plan.whole == PROMPT + 320


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu-memory", "-3"], "--gpu-memory is -3: expected"),
        (["--gpu-memory", "nan"], "--gpu-memory is nan: expected"),
        (["--length", "999999"], "--length is 999999: expected 1 to"),
        (["--set", "model=nowhere"], "model 'nowhere' does not exist"),
        (["--set", "compute.device=cuda"], "say which GPU"),
        (["--set", "compute.device=cpu", "--card", "l4"], "compute.device is cpu"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_damaged_config_json_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": ')
    assert main(["plan", "--set", f"model={tmp_path}"]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err

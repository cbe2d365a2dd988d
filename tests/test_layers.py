"""The house's walls: who may import whom, what is heavy, and what is never used."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import r1v0
from tests.conftest import ROOT

PACKAGE = Path(r1v0.__file__).parent

# Rooms from the roof to the ground. A module imports from rooms below its own, for types too: no exceptions.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("jobs",),
    ("trainer",),
    ("rollouts",),
    ("sampling", "grpo"),
    ("models",),
    ("report",),
    ("runs",),
    ("tasks",),
    ("config",),
    ("types",),
    ("base",),
)
TEXT_ONLY = {"report", "runs", "tasks", "config", "types", "base"}  # for grading processes and plots: no torch
OF_THE_METRICS = {"r1v0.jobs.doctor", "r1v0.jobs.plan", "r1v0.models.sizes"}  # and these, which answer at once
# Modules whose test has another name: where each is tested. All others have a tests/.../test_NAME.py of their own.
TESTED_IN = {
    "base/test_stats": "base/means",
    "config/test_config": "config/checks config/load config/names config/schema config/text",
    "faults/test_faults": "base/writing",
    "grpo/test_budget": "grpo/memory_probe trainer/probe",
    "grpo/test_losses": "grpo/advantages types",
    "grpo/test_optimizer": "grpo/offload",
    "grpo/test_parallel": "grpo/shard models/processes rollouts/exchange trainer/same",
    "jobs/test_bench": (
        "jobs/bench/cases jobs/bench/own jobs/bench/table jobs/bench/timing jobs/bench/verb jobs/bench/workload"
    ),
    "jobs/test_doctor": "jobs/doctor/checks jobs/doctor/hacking jobs/doctor/operations jobs/doctor/record",
    "jobs/test_eval": "rollouts/evaluate",
    "jobs/test_read": "jobs/read/keys jobs/read/screen jobs/read/shelf",
    "jobs/test_plan": "jobs/plan/cost jobs/plan/report",
    "jobs/test_sweep": "jobs/sweep/record jobs/sweep/work",
    "jobs/test_plan_memory": "jobs/plan/memory jobs/plan/shapes",
    "models/test_attention": "models/kernels/block_attention",
    "models/test_device": "models/memory",
    "models/test_models": "models/families models/loading models/shape models/transformer",
    "models/test_triton_decode": "models/kernels/triton_layers",
    "models/test_tried": "models/ops",
    "report/test_page": "report/page/chart report/page/facts report/page/render report/page/texts",
    "report/test_figures": ("report/bars report/compute report/panel_names report/panels report/series report/style"),
    "report/test_progress": "report/live report/status report/table",
    "runs/test_health": "runs/history runs/watchers",
    "runs/test_runlog": "runs/records",
    "runs/test_settings": "runs/claim",
    "runs/test_trackers": "jobs/verbs/export",
    "sampling/test_pages": "sampling/engine sampling/graphs",
    "security/test_fuzz": "tasks/countdown/reward",
    "security/test_security": (
        "models/checks tasks/grading/custom tasks/grading/processes tasks/grading/worker tasks/reading/json_rows"
    ),
    "tasks/test_countdown": "tasks/countdown/corpus",
    "tasks/test_data": "tasks/datasets tasks/reading/tables",
    "tasks/test_data_gold": "tasks/math/gold",
    "tasks/test_data_kinds": "tasks/reading/csv_rows",
    "tasks/test_data_mix": "tasks/reading/source",
    "tasks/test_data_problems": "tasks/problems",
    "tasks/test_data_sums": "tasks/sums",
    "tasks/test_reward_countdown": "tasks/countdown/problems",
    "tasks/test_rewards": "tasks/math/answers",
    "tasks/test_rewards_dots": "tasks/math/dots",
    "tasks/test_rewards_equal": "tasks/math/symbolic",
    "tasks/test_rewards_extract": "tasks/math/boxes tasks/math/extract tasks/math/marks",
    "tasks/test_rewards_forms": (
        "tasks/math/families tasks/math/forms tasks/math/latex tasks/math/letters tasks/math/numbers "
        "tasks/math/ranges tasks/math/tex tasks/math/units tasks/math/values"
    ),
    "tasks/test_rewards_unstated": "tasks/math/unstated",
    "tasks/test_verifier": "tasks/grading/pool",
    "tasks/test_verifier_batch": "tasks/grading/verify",
    "test_cli": "base/interrupts jobs/arguments jobs/verbs/models jobs/verbs/runs jobs/verbs/settings",
    "trainer/test_checkpoint": "base/notes runs/manifest trainer/half_step",
    "trainer/test_loop": "grpo/step trainer/setup",
    "trainer/test_metrics": "grpo/readings",
    "trainer/test_recovery": "base/keys",
}
HEAVY = {
    "datasets",
    "sympy",
    "math_verify",
    "latex2sympy2_extended",
    "matplotlib",
    "jinja2",
    "rich",
    "pandas",
    "pyarrow",
    "wandb",
    "trackio",
    "tensorboardX",
}
LAZY = {"r1v0.report.live"}  # modules that are themselves imported only inside functions
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "transformers", "trl", "vllm"}


class Import(NamedTuple):
    by: str
    target: str
    line: int
    when: Literal["load", "call", "types"]

    @property
    def place(self) -> str:
        return f"{self.by}:{self.line} imports {self.target}"


def modules() -> dict[str, ast.Module]:
    """Dotted names of all modules of the package, and their syntax trees."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("r1v0", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports_in(by: str, node: ast.AST, when: Literal["load", "call", "types"] = "load") -> Iterator[Import]:
    """Every import under `node`: when its module loads, when a function is called, or for type checkers alone."""
    if isinstance(node, ast.Import):
        yield from (Import(by, alias.name, node.lineno, when) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{by}:{node.lineno} imports relatively: write the whole name"
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            yield Import(by, submodule if submodule in MODULES else str(node.module), node.lineno, when)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.body:
            yield from imports_in(by, statement, "types")
        for statement in node.orelse:
            yield from imports_in(by, statement, when)
    else:
        inside = when == "load" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from imports_in(by, child, "call" if inside else when)


def room(module: str) -> str:
    """r1v0.models.attention -> models; the package's own __init__ has no room."""
    return module.split(".")[1] if "." in module else ""


def top(name: str) -> str:
    return name.partition(".")[0]


def forbidden(tree: ast.AST) -> list[str]:
    """Ways to run a text as code: eval, exec, a shell, a pickle, a hub's own code."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        named = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if (
            name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput")
            or name.endswith("sympify")
            or named.get("shell", "False") != "False"
            or named.get("trust_remote_code", "False") != "False"
            or (name in ("torch.load", "np.load", "numpy.load") and named.get("weights_only") != "True")
        ):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


IMPORTS = [found for name, tree in MODULES.items() for found in imports_in(name, tree)]
OWN = [found for found in IMPORTS if top(found.target) == "r1v0" and room(found.target)]
OUTSIDE = [found for found in IMPORTS if top(found.target) != "r1v0"]


def test_every_module_has_a_room_and_every_room_is_built() -> None:
    assert {room(name) for name in MODULES} - {""} == {name for floor in FLOORS for name in floor}
    # A folder without a source is what an older commit compiled.
    rooms = [path for path in PACKAGE.iterdir() if path.is_file() or any(x.suffix != ".pyc" for x in path.rglob("*.*"))]
    assert len({path.name for path in rooms} - {"__init__.py", "__main__.py", "py.typed"}) <= 14


def test_imports_go_downward_only() -> None:
    depth = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    inside = [found for found in OWN if room(found.by) and room(found.by) != room(found.target)]
    assert [found.place for found in inside if depth[room(found.by)] >= depth[room(found.target)]] == []


def test_every_module_has_a_test_of_its_name_or_a_line_that_says_where_it_is_tested() -> None:
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    modules = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")}
    modules = {name for name in modules if not name.endswith(("__init__", "__main__"))}
    elsewhere = [name for names in TESTED_IN.values() for name in names.split()]
    assert len(elsewhere) == len(set(elsewhere))
    assert set(elsewhere) <= modules
    assert all((ROOT / "tests" / f"{place}.py").is_file() for place in TESTED_IN)
    assert {name for name in modules if name.rpartition("/")[2] not in tests} <= set(elsewhere)


def test_no_two_modules_need_each_other_to_load() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in OWN:
        if found.when == "load":
            graph[found.by].add(found.target)
    assert set(graphlib.TopologicalSorter(graph).static_order()) == MODULES.keys()  # raises CycleError


def test_the_ground_floor_is_standard_library_only() -> None:
    outside = [found for found in OUTSIDE if room(found.by) == "base" and found.when == "load"]
    assert [found.place for found in outside if top(found.target) not in sys.stdlib_module_names] == []


def test_text_rooms_never_import_torch() -> None:
    torch = {"torch", "safetensors"}
    text = [found for found in OUTSIDE if room(found.by) in TEXT_ONLY or found.by.startswith(tuple(OF_THE_METRICS))]
    wrong = [found for found in text if top(found.target) in torch]
    assert [found.place for found in wrong if found.by != "r1v0.types"] == []  # types names Tensor, for readers
    assert all(found.when == "types" for found in wrong)


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    at_load = [found for found in IMPORTS if found.when == "load"]
    assert [found.place for found in at_load if top(found.target) in HEAVY and found.by not in LAZY] == []
    assert [found.place for found in at_load if found.target in LAZY] == []


def test_what_is_never_imported() -> None:
    never = [found for found in OUTSIDE if top(found.target) in NEVER]
    assert [found.place for found in never] == []


def test_no_text_is_run_as_code() -> None:
    assert {name: found for name, tree in MODULES.items() if (found := forbidden(tree))} == {}


def test_the_checks_above_can_fail() -> None:
    source = (
        "import os\ndef f():\n    import torch.nn as nn\nif TYPE_CHECKING:\n    from r1v0 import config, __version__\n"
    )
    assert [found[1:] for found in imports_in("x", ast.parse(source))] == [
        ("os", 1, "load"),
        ("torch.nn", 3, "call"),
        ("r1v0.config", 5, "types"),
        ("r1v0", 5, "types"),
    ]
    bad = ["eval(x)", "exec(x)", "run(x, shell=True)", "torch.load(f)", "g(trust_remote_code=y)", "sympy.sympify(x)"]
    assert [len(forbidden(ast.parse(line))) for line in bad] == [1] * len(bad)
    fine = ["model.eval()", "re.compile(x)", "run(x, shell=False)", "torch.load(f, weights_only=True)"]
    assert [forbidden(ast.parse(line)) for line in fine] == [[]] * len(fine)


def loaded_by(code: str) -> set[str]:
    """Top-level modules in `sys.modules` of a fresh Python that has run `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


CALL = "from r1v0.cli import main\ntry:\n    main({})\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize(
    "code",
    [
        "import r1v0",
        "import r1v0.config, r1v0.types, r1v0.runs.runlog, r1v0.tasks.datasets, r1v0.tasks.rewards, r1v0.tasks.prompts",
        "import r1v0.cli",
        "import r1v0.models.sizes",
        CALL.format(["--help"]),
        CALL.format(["train", "--help"]),
        CALL.format(["plot", "--help"]),
        CALL.format(["sweep", "--help"]),
        CALL.format(["table", "nowhere"]),
        CALL.format(["presets"]),
        CALL.format(["plan", "--card", "a100"]),
        CALL.format(["doctor", "nowhere"]),
        CALL.format(["read", "nowhere"]),
        CALL.format(["report", "nowhere"]),
        CALL.format(["train", "--set", "grpo.group_sise=3"]),
    ],
)
def test_what_answers_at_once_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) & ({"torch", "transformers", "numpy", "safetensors"} | HEAVY - {"rich"}) == set()


def test_a_plot_does_not_load_torch(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    rows = [{"step": step, "reward/mean": step / 10, "length/mean": 50.0 + step} for step in range(1, 6)]
    evals = [{"step": step, "dataset": "countdown", "accuracy": 0.3 + step / 10, "length": 60.0} for step in (0, 5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evals))
    (run / "config.toml").write_text("")
    loaded = loaded_by(CALL.format(["plot", str(run), "--out", str(tmp_path / "curves.png")]))
    assert "matplotlib" in loaded
    assert loaded & {"torch", "transformers", "datasets", "sympy"} == set()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

"""Fixtures of the whole suite."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

# Tests run side by side, one thread each, on the CPU alone, and Triton's kernels in its interpreter; before torch is
# imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and tokenizers, which is not part of the project."""
    folder = Path(os.environ.get("R1V0_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no folder with real data: set R1V0_SHARED to one to run this test")
    return folder


def script(path: Path) -> ModuleType:
    """A program of scripts/ or benchmarks/, which are not part of the package, as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

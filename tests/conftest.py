"""Fixtures of the whole suite."""

import os
from pathlib import Path

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

"""What a run ran on: the content of env.json.

Decides: enough to explain a number that differs on another machine (versions, processor, threads, commit, command
line), and nothing private: no environment variables, no host name, no path but those the user gave.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1v0 import __version__

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "datasets",
    "math-verify",
    "matplotlib",
    "jinja2",
)


def environment(device: str = "", threads: int = 0) -> dict[str, Any]:
    """A JSON object of versions, machine and command line. `device` is the accelerator's name, if one is used: this
    module does not import torch to ask. `threads` 0: not known."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["r1v0", *sys.argv[1:]],
        "r1v0": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": threads or None,
        "device": device or None,
    }


def _cpu_name() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _git_commit() -> str | None:
    """The commit of r1v0's own checkout, "+" behind it if files were changed; None for an installed package.

    A repository further up is some other project's (a virtual environment lies inside it), so only ours is asked.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None

#!/usr/bin/env python3
"""Try a wheel as a user meets it: in a fresh environment, from an empty folder, each verb's first example in order.

    python scripts/try_wheel.py dist/*.whl                     installs its libraries too (minutes, gigabytes)
    python scripts/try_wheel.py dist/*.whl --borrow            takes the libraries of this Python

Examples are read off the wheel's own `r1v0 VERB --help`, so a new verb is tried as soon as it has one. `--borrow` puts
this environment's libraries behind the fresh one's own by a .pth file: what is tried is the wheel, and not whether an
index can be reached; a release tries both. Only the standard library is needed, so any Python can run it.
"""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
LIMIT_S = 900


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--borrow", action="store_true", help="take the libraries of the Python that runs this")
    parser.add_argument(
        "--torch-index", default="", metavar="URL", help="where torch comes from (default: pip's index)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="r1v0-wheel-") as folder:
        venv, work = Path(folder, "venv"), Path(folder, "work")
        work.mkdir()
        environment = outside(venv)
        install(arguments.wheel.resolve(), venv, arguments.borrow, arguments.torch_index, environment)
        where = told("import r1v0; print(r1v0.__file__)", venv, work, environment)
        if not Path(where).is_relative_to(venv.resolve()) and not Path(where).is_relative_to(venv):
            sys.exit(f"not the wheel is imported, but {where}")
        return try_examples(work, environment)


def outside(venv: Path) -> dict[str, str]:
    """The environment of a shell in which the fresh one is active, and nothing leads to this repository."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "R1V0_SHARED"}
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"PATH": path}


def install(wheel: Path, venv: Path, borrow: bool, torch_index: str, environment: dict[str, str]) -> None:
    """The wheel into a new environment, and its libraries: installed, or those of this Python."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, env=environment)
    pip = [venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    started = time.monotonic()
    if borrow:
        subprocess.run([*pip, "install", "--no-deps", wheel], check=True, env=environment)
        own = told("import sysconfig; print(sysconfig.get_paths()['purelib'])", venv, venv, environment)
        borrowed = dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
        Path(own, "borrowed.pth").write_text("".join(f"{place}\n" for place in borrowed), encoding="utf-8")
    else:
        if torch_index:
            asked = ["--no-deps", "--index-url", torch_index, "-c", CONSTRAINTS, "torch"]
            subprocess.run([*pip, "install", *asked], check=True, env=environment)
        # With the extra that an example needs.
        subprocess.run([*pip, "install", "-c", CONSTRAINTS, f"{wheel}[tensorboard]"], check=True, env=environment)
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, env=environment)
    if wrong := [line for line in checked.stdout.splitlines() if line.startswith("r1v0 ")]:
        sys.exit("\n".join(wrong))
    print(f"{wheel.name}, Python {sys.version.split()[0]}: installed in {time.monotonic() - started:.0f} s", flush=True)


def told(code: str, venv: Path, work: Path, environment: dict[str, str]) -> str:
    """What `code` prints in the fresh environment."""
    command = [venv / "bin" / "python", "-c", code]
    return subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def try_examples(work: Path, environment: dict[str, str]) -> int:
    """Run each verb's first example in `work`, one after another. 0, or 1 if one of them failed."""
    verbs = re.findall(r"^    (\w+) ", shown("r1v0 --help", work, environment).stdout, re.MULTILINE)
    failed = []
    for verb in verbs:
        found = re.search(r"^examples?:\n  (r1v0 .*)$", shown(f"r1v0 {verb} --help", work, environment).stdout, re.M)
        if not found:
            failed.append(f"r1v0 {verb} --help has no example")
            continue
        started = time.monotonic()
        done = shown(found[1], work, environment)
        print(f"{time.monotonic() - started:6.1f} s  exit code {done.returncode}  {found[1]}", flush=True)
        if done.returncode:
            failed.append(f"{found[1]}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    print("\n".join(failed) if failed else f"all {len(verbs)} verbs: the first example of their help runs")
    return int(bool(failed) or not verbs)


def shown(line: str, work: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A line as a user types it into a shell, in `work`."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


if __name__ == "__main__":
    sys.exit(main())

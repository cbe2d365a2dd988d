"""`r1v0 train --processes N`: the same command under torchrun, in N processes of this machine.

Decides: torchrun is the launcher, with the cores divided. It turns every exit code of its processes into a failure of
its own with a page of text, so an end that is no failure (a user's mistake, a graceful stop) is left in a file, and is
this command's exit code.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

EXIT = "R1V0_EXIT"
"""the environment variable that names the file"""
GRACEFUL = (2, 130)


def launch(count: int) -> int:
    """Run this process's own command line in `count` processes; the exit code."""
    threads = max(1, (os.cpu_count() or 1) // count)
    with tempfile.TemporaryDirectory() as folder:
        left = Path(folder) / "exit"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | {EXIT: str(left)}
        process = subprocess.Popen([*command, "-m", "r1v0", *sys.argv[1:]], env=environment)
        # A terminal's Ctrl-C reaches torchrun and its processes by itself; what reaches this process alone is passed on.
        old = {
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        }
        try:
            code = process.wait()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        return int(left.read_text()) if left.exists() else min(code, 1) if code >= 0 else 128 - code


def end(code: int) -> int:
    """The exit code to end a process with: what torchrun would take for a failure is left for `launch` instead."""
    if EXIT in os.environ and code in GRACEFUL:
        Path(os.environ[EXIT]).write_text(str(code))
        return 0
    return code

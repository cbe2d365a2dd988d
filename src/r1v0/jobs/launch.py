"""`r1v0 train --processes N`: the same command under torchrun, in N processes of this machine.

Decides: torchrun is the launcher, and runs in this process, with the cores divided. It turns every exit code of its
processes into a failure of its own with a page of text, so an end that is no failure (a user's mistake, a graceful
stop) is left in a file, and is this command's exit code; torchrun's own lines are not shown.
"""

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

EXIT = "R1V0_EXIT"
"""the environment variable that names the file"""
GRACEFUL = (2, 130)
SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120"
"""torchrun's own variable: seconds in which processes that are told to stop may save, before they are killed"""


def launch(count: int) -> int:
    """Run this process's own command line in `count` processes; the exit code: 0, 1 (a defect, or a process that was
    killed), 2 (a mistake, or what a process was told of another's end), 130 (stopped)."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ.setdefault(*SHUTDOWN)
    with tempfile.TemporaryDirectory() as folder:
        left = Path(folder) / "exit"
        os.environ[EXIT] = str(left)
        code = 0
        try:
            torchrun(["--standalone", "--nproc-per-node", str(count), "-m", "r1v0", *sys.argv[1:]])
        except SignalException:
            code = 130
        except ChildFailedError as failed:
            code = 1
            number, failure = failed.get_first_failure()
            if failure.exitcode < 0 and not left.exists():
                name = signal.Signals(-failure.exitcode).name
                print(f"r1v0: process {number} of the run was ended by {name}", file=sys.stderr)
        finally:
            del os.environ[EXIT]
        return int(left.read_text()) if left.exists() else code


def end(code: int) -> int:
    """The exit code to end a process with: what torchrun would take for a failure is left for `launch` instead."""
    if EXIT in os.environ and code in GRACEFUL:
        Path(os.environ[EXIT]).write_text(str(code))
        return 0
    return code

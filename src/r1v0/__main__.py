import os
import sys

from r1v0.base.notes import launched
from r1v0.cli import main

code = main()
if launched() > 1:
    # In 3 of 11 runs a process aborted while Python took itself apart, after everything was done (torch 2.13, gloo:
    # "terminate called without an active exception"); torchrun then kills the first process at its figures.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)

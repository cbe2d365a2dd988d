import sys

from r1v0.cli import main

sys.exit(main())

"""python -m sweeps run FILE.toml."""

import sys

from sweeps.cli import leave
from sweeps.run import run

leave(run(sys.argv[1:]))

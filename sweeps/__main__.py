"""python -m sweeps run FILE.toml."""

import sys

from sweeps.run import run
from trainables.interruption import leave

leave(run(sys.argv[1:]))

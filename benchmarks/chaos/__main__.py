"""python -m benchmarks.chaos: kill anything, anywhere, and see whether the results are the same.

Runs a small real sweep once undisturbed, then once for each seed under randomly timed faults, resuming it until it is
complete, and compares: trials, epochs, metrics to the last bit, results.parquet, exports, tables, MLflow's runs and
points. The exit code is 1 if anything differs.
"""

import sys

import tyro
from rich.console import Console

from benchmarks.chaos.chaos import Chaos, run
from vqcore.config import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, 1 if anything differs, 2 for what was asked wrongly, 130 after Ctrl-C."""
    chaos = tyro.cli(Chaos, prog="python -m benchmarks.chaos", args=arguments)
    try:
        return run(chaos, Console(highlight=False))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; every process that was started has been ended.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

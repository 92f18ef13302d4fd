"""python -m sweeps.sync NAME: tell MLflow what it missed of a sweep. Sending twice changes nothing."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from trainables.commands import exit_code
from trainables.runs import find_run
from trainables.tracking import sync


def main(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    out: Path = Path("runs"),
    tracking_uri: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None,
) -> int:
    """Send what a sweep's journal holds to MLflow.

    Args:
        name: The sweep's name, a path to its folder, or `latest`.
        out: The folder of all runs.
        tracking_uri: sqlite:///FILE or http://HOST:PORT; by default the one that the run was started with.
    """

    def work() -> None:
        run = find_run(name, out)
        runs = sync(run, tracking_uri)
        print(f"{run}: MLflow has all of it: the sweep, and trials: {runs - 1}")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(tyro.cli(main, prog="python -m sweeps.sync"))

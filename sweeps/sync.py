"""python -m sweeps.sync NAME: tell MLflow what it missed of a run. Sending twice changes nothing."""

from pathlib import Path
from typing import Annotated

import tyro

from trainables.commands import run_command
from trainables.runs import find_run
from trainables.tracking import sync

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
Uri = Annotated[str | None, tyro.conf.arg(metavar="URI")]


def main(name: Name, out: Path = Path("runs"), tracking_uri: Uri = None) -> None:
    """Send what a run's journal holds to MLflow.

    Args:
        name: The run's name, a path to its folder, or `latest`.
        out: The folder of all runs.
        tracking_uri: sqlite:///FILE or http://HOST:PORT; by default the one that the run was started with.
    """
    run = find_run(name, out)
    print(f"{run}: MLflow has all of it: the sweep, and trials: {sync(run, tracking_uri) - 1}")


if __name__ == "__main__":
    run_command(main)

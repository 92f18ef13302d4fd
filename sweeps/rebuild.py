"""python -m sweeps.rebuild NAME: make everything of a run again from its journal: TOML, Parquet, report, MLflow."""

from pathlib import Path
from typing import Annotated

import tyro
from filelock import FileLock, Timeout

from trainables.commands import Terminal, run_command
from trainables.journal import RunRecord, read
from trainables.runs import JOURNAL, LOCK, TOML_HEADER, find_run
from trainables.storage import replace_file
from trainables.tracking import sync
from vqcore.config import ConfigError, toml_text


def main(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    out: Path = Path("runs"),
    tracking_uri: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None,
) -> None:
    """Make everything of a run again from its journal alone: sweep.toml, Parquet, tables, figures, exports, MLflow.

    Args:
        name: The run's name, a path to its folder, or `latest`.
        out: The folder of all runs.
        tracking_uri: sqlite:///FILE or http://HOST:PORT; by default the one that the run was started with.
    """
    from analysis.report import analyse  # --help need not wait for torch and scipy

    folder, terminal = find_run(name, out), Terminal()
    try:
        with FileLock(folder / LOCK, timeout=0):
            run = read(folder / JOURNAL)
            if "toml" not in run.sweep:
                raise ConfigError([f"{folder / JOURNAL}: does not say what the sweep is; nothing can be made of it"])
            replace_file(folder / "sweep.toml", toml_text(run.sweep["toml"], TOML_HEADER).encode())
            terminal.print(summary(folder, run))
            terminal.print(analyse(folder).renderable())
            runs = sync(folder, tracking_uri)
            terminal.print(f"MLflow has all of it: the sweep, and trials: {runs - 1}")
    except Timeout:
        raise ConfigError([f"{folder}: a driver is at work on this run; wait for it, or end it"]) from None


def summary(folder: Path, run: RunRecord) -> str:
    """The content of a journal in a line."""
    trials = list(run.trials.values())
    states = [trial.status if not trial.waits else "at a rung" for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    damaged = f", {run.damaged} damaged lines passed over; --resume fills what they held" if run.damaged else ""
    return f"{folder}: {len(trials)} trials ({counts}), {sum(len(trial.epochs) for trial in trials)} epochs{damaged}"


if __name__ == "__main__":
    run_command(main)

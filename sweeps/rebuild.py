"""python -m sweeps.rebuild NAME: make everything of a run again from its journal: TOML, Parquet, report, MLflow."""

from pathlib import Path

from filelock import FileLock, Timeout

from sweeps import sync
from trainables.commands import Terminal, run_command
from trainables.journal import read
from trainables.runs import JOURNAL, LOCK, ONE_TRAINING, TOML_HEADER, command_line, find_run
from trainables.storage import replace_file
from vqcore.config import ConfigError, toml_text


def main(name: sync.Name, out: Path = Path("runs"), tracking_uri: sync.Uri = None) -> None:
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
            if run.sweep.get("sweep") in ONE_TRAINING:
                again = command_line("analysis.report", folder)
                send = command_line("sweeps.sync", folder)
                raise ConfigError(
                    [f"{folder}: is one training and no sweep; for its report {again}, for MLflow {send}"]
                )
            if "toml" not in run.sweep:
                raise ConfigError([f"{folder / JOURNAL}: does not say what the sweep is; nothing can be made of it"])
            replace_file(folder / "sweep.toml", toml_text(run.sweep["toml"], TOML_HEADER).encode())
            epochs = sum(len(trial.epochs) for trial in run.trials.values())
            terminal.print(f"{folder}: {len(run.trials)} trials, {epochs} epochs, {run.damaged} damaged lines")
            terminal.print(analyse(folder).renderable())
            sync.main(str(folder), out, tracking_uri)
    except Timeout:
        raise ConfigError([f"{folder}: a driver is at work on this run; wait for it, or end it"]) from None


if __name__ == "__main__":
    run_command(main)

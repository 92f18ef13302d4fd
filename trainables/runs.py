"""Where runs are, and how a command that goes on with one is written on this machine."""

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vqcore.errors import ConfigError

PROCESS_STARTED = round(time.time(), 3)
"""When this process was new, which with its host and its id tells it from every other."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a run may be called."""

SHORT = {"commitment_weight": "beta", "codebook_size": "K", "dim": "D", "learning_rate": "lr"}
"""Fields as people call them."""

PRIOR_RUN = "prior"
"""The kind of a run that trained a learned prior, and the name of the folder of such runs."""

ONE_TRAINING = ("final", PRIOR_RUN)
"""Kinds of runs that are one training and no sweep."""

JOURNAL = "journal.jsonl"
"""The file that makes a folder a run."""

PICTURES = "reconstructions.npy"
"""The file of a trial's reconstructions, beside its checkpoints."""

USAGE = "usage.npy"
"""The file of how often each code was used on the test set, beside the reconstructions."""

SNAPSHOT = re.compile(r"snapshot-(\d{5,9})\.npz")
"""The files of a trial's snapshots, by their epochs."""

MLFLOW_PAGES = "mlflow.json"
"""The file of a run with the address of each trial's page in MLflow, by key, for the report."""

SUMMARY = "summary.json"
"""The file of a run with what its analysis found, for who shows a run without analysing it: MLflow's sender."""

LOCK = ".lock"
"""Held by the driver at work on a run; the system releases it when the driver dies, in whatever way."""

TOML_HEADER = "This run, as it was last started."
"""Of its ``sweep.toml``."""


def find_run(name: str, out: Path) -> Path:
    """The folder of a run: ``<out>/<sweep>/NAME``, or a path to it, or the ``latest`` sweep that was written to.

    No run of ``ONE_TRAINING`` is a sweep. ``ConfigError`` when there is none (it lists the latest names), or
    when several sweeps have one of that name.
    """
    journals = sorted(out.glob(f"*/*/{JOURNAL}"), key=lambda journal: journal.stat().st_mtime, reverse=True)
    runs = [journal.parent for journal in journals]
    sweeps = [run for run in runs if run.parent.name not in ONE_TRAINING]
    if name == "latest" and sweeps:
        return sweeps[0]
    found = [run for run in runs if name in (run.name, f"{run.parent.name}/{run.name}")]
    if not found and name and os.path.isfile(Path(name, JOURNAL)):  # noqa: PTH113 (a name may be too long for a file)
        found = [Path(name).absolute()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError([f"{name}: several runs have this name; give one as a path: {', '.join(map(str, found))}"])
    latest = ", ".join(run.name for run in runs[:5])
    there_is = f"the latest are {latest}" if runs else "there are none yet; start one with `python -m sweeps.<sweep>`"
    raise ConfigError([f"{name!r}: no such run in {out}; {there_is}"])


def described(config: dict[str, Any], names: Iterable[str], exact: bool = False) -> str:
    """The named fields as text: ``rotation, beta 0.25``; numbers as ``value_text`` has them unless ``exact``."""

    def text(name: str) -> str:
        value = str(config[name]) if exact else value_text(config[name])
        return value if name == "estimator" else f"{SHORT.get(name, name)} {value}"

    return ", ".join(text(name) for name in names if name in config)


def value_text(value: object) -> str:
    """A field's value as it is read: what was drawn with four digits, what was chosen, such as 0.99995, in full."""
    exact = str(value)
    rounded = f"{value:.4g}" if isinstance(value, float) else exact
    return exact if isinstance(value, float) and len(exact) <= 7 and float(rounded) != value else rounded


def usable_cpus() -> int:
    """CPUs that this process may use: fewer than there are inside a cpuset or a batch job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def command_line(module: str, *arguments: object) -> str:
    """``python -m module arguments``, quoted for this shell in this folder; ``module`` may be a script.

    ``python`` is written out as a path where the interpreter of that name is another one: a venv need not be active.
    """
    here, found = Path(sys.executable), shutil.which("python")
    path = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    python = "python" if found and Path(found).parent == here.parent else shlex.quote(str(path))
    by_module = "" if module.endswith(".py") else "-m "
    return f"{python} {by_module}{shlex.join([module, *map(str, arguments)])}"

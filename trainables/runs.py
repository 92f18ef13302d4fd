"""Where a run is: the folder under ``--out`` that a name on a command line means."""

import os
import re
from pathlib import Path

from vqcore.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a run may be called."""

SHORT = {"commitment_weight": "beta", "codebook_size": "K", "dim": "D", "learning_rate": "lr"}
"""Fields as people say them."""

JOURNAL = "journal.jsonl"
"""The file that makes a folder a run."""

LOCK = ".lock"
"""Held by the driver at work on a run; the system releases it when the driver dies, however that is."""

TOML_HEADER = "This run, as it was last started."
"""Of its ``sweep.toml``."""


def find_run(name: str, out: Path) -> Path:
    """The folder of a run: ``<out>/<sweep>/NAME``, or a path to it, or the ``latest`` sweep that was written to.

    Raises ``ConfigError`` when there is none (it lists the latest names), or when several sweeps have one of that name.
    """
    runs = _runs(out)
    sweeps = [run for run in runs if run.parent.name != "final"]
    if name == "latest" and sweeps:
        return sweeps[0]
    found = [run for run in runs if name in (run.name, f"{run.parent.name}/{run.name}")]
    path = Path(name)
    if not found and name and os.path.isfile(path / JOURNAL):  # noqa: PTH113 (a name may be too long for a file)
        found = [path if path.name else path.resolve()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError([f"{name}: several runs have this name; give one as a path: {', '.join(map(str, found))}"])
    latest = ", ".join(run.name for run in runs[:5])
    there_is = f"the latest are {latest}" if runs else "there are none yet; start one with `python -m sweeps.<sweep>`"
    raise ConfigError([f"{name!r}: no such run in {out}; {there_is}"])


def _runs(out: Path) -> list[Path]:
    """Every run folder, the one written to last first."""
    journals = sorted(out.glob(f"*/*/{JOURNAL}"), key=lambda journal: journal.stat().st_mtime, reverse=True)
    return [journal.parent for journal in journals]

"""This machine, and how commands are said on it."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def usable_cpus() -> int:
    """CPUs that this process may use: fewer than there are inside a cpuset or a batch job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def command_line(module: str, *words: object) -> str:
    """``python -m module words`` as it can be pasted into this shell, in this folder; ``module`` may be a script."""
    by_module = "" if module.endswith(".py") else "-m "
    return f"{_python()} {by_module}{shlex.join([module, *map(str, words)])}"


def _python() -> str:
    """``python`` where that is this interpreter, else the path to it: a venv need not be active."""
    here, found = Path(sys.executable), shutil.which("python")
    if found and Path(found).parent == here.parent:
        return "python"
    return shlex.quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))

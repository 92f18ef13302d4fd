"""Where results come from: commit, packages, hardware, command."""

import platform
import re
from importlib import metadata
from pathlib import Path

from sweeps.engine.resources import gpus
from trainables.revision import commit
from trainables.runs import usable_cpus
from trainables.tracking_uri import started_with

PACKAGES = ("vqsweep", "torch", "ray", "optuna", "mlflow", "numpy")


def provenance() -> dict[str, str]:
    """Facts about this code and this machine, as short texts by name. Holds no environment value and no password."""
    return {
        "commit": commit(),
        "command": started_with(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "hardware": hardware(),
    }


def hardware() -> str:
    """CPU, usable cores, GPUs."""
    cpu = f"{_cpu_name()}, {usable_cpus()} cores"
    names = [gpu.name for gpu in gpus()]
    return ", ".join([cpu, *(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))])


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")  # of Linux
    name = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return name[1] if name else platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"

"""Ray: started on this machine, or joined where it runs; what its nodes offer, and the code that they run.

Every trial's process, also one started days later on a node that has only just joined, imports the code as it was when
the sweep began: Ray keeps a copy of the packages.
"""

import gc
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import ray

from sweeps.engine.resources import Available
from trainables.errors import one_line
from vqcore.config import ConfigError
from vqcore.registry import ARCHITECTURES, ESTIMATORS

PACKAGES = ("vqcore", "trainables", "analysis", "sweeps")
"""Ours, that trials' processes import from."""

PROBE_SECONDS, JOIN_SECONDS = 5.0, 60.0
"""How long it may take until an address answers at all, and until a cluster is joined."""


def start(num_cpus: int, num_gpus: int) -> None:
    """Start a Ray of this process's own, for as long as the sweep runs."""
    _connect(address="local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False)


def join(address: str) -> Available:
    """Join the cluster at ``address``; what can be booked there. ``ConfigError`` if it takes no driver from here."""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdigit() or "/" in host):
        raise ConfigError([f"--address {address}: must be host:port of a head node (6379 there), auto, or inline"])
    attempt = [sys.executable, "-c", "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)", address]
    try:
        if address != "auto":  # at once where nothing listens: Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
        # in a process of its own, since Ray's C++ ends the one that a cluster refuses
        subprocess.run(attempt, capture_output=True, text=True, timeout=JOIN_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        printed = (getattr(error, "stderr", None) or "").strip().splitlines()
        late = isinstance(error, subprocess.TimeoutExpired)
        reason = f"no answer within {JOIN_SECONDS:.0f} s" if late else printed[-1][:200] if printed else one_line(error)
        raise ConfigError(
            [
                f"--address {address}: no Ray cluster can be joined there ({reason}); start one with `ray start "
                "--head`, and run the sweep on a node of it, best on its head, and with its token if it has one: in "
                "RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
            ]
        ) from error
    _connect(address=address)
    return available(address)


def available(address: str) -> Available:
    """What the cluster's live nodes offer now: nodes leave and join."""
    totals = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus, gpus = (int(sum(total.get(kind, 0) for total in totals)) for kind in ("CPU", "GPU"))
    return Available(cpus, gpus, f"the cluster at {address}")


def disconnect() -> None:
    """Leave Ray, ending it if ``start`` started it.

    Ray's C++ ends the whole process if another thread lets go of one of Ray's objects meanwhile, be it by collecting
    garbage. So that is done before, and not again until Ray is gone.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def last_errors() -> str:
    """The last errors that Ray's own processes have logged on this machine, at most 600 characters."""
    logs = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "session_latest", "logs")
    written = sorted(logs.glob("*.*"), key=lambda file: file.stat().st_mtime)
    lines = [line for file in written for line in file.read_text(errors="replace").splitlines() if "rror" in line]
    return " | ".join(lines[-3:])[-600:] or f"none in {logs}"


def pickle_own_code_by_value() -> None:
    """Let estimators and networks of the user's own travel whole, as they are now: no node need have their module."""
    networks = [part for entry in ARCHITECTURES.values() for part in (entry.encoder, entry.decoder)]
    for part in (*ESTIMATORS.values(), *networks):
        name = getattr(part, "func", part).__module__  # of a partial, the function's
        if name.partition(".")[0] not in PACKAGES and name != "__main__" and name in sys.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]


def _connect(**where: Any) -> None:
    pickle_own_code_by_value()
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what fails is in the journal and on the screen
    script = str(Path(sys.argv[0]).absolute().parent)
    # after our packages as they are now, a trial finds the user's own modules where this process does
    folders = [str(Path.cwd()), *([script] if script in sys.path else [])]  # with `python -m` the latter is not
    with tempfile.TemporaryDirectory(prefix="vqsweep-code-") as code:
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("embedded", "__pycache__")
            shutil.copytree(str(files(package)), Path(code, package), ignore=ignored)
        runtime_env = {"working_dir": code, "env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}
        if where["address"] == "local":  # Ray starts a trial's process by a line of shell
            runtime_env["py_executable"] = shlex.quote(sys.executable)
        ray.init(runtime_env=runtime_env, log_to_driver=False, logging_level=logging.CRITICAL, **where)

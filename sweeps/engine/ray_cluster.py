"""Ray: started on this machine, or joined where it runs; what its nodes offer, and the code that they run.

Every trial's process, also one started days later on a node that has only just joined, imports the code as it was when
the sweep began: Ray keeps a copy of the packages.
"""

import gc
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray

from sweeps.engine.resources import Available
from vqcore.config import ConfigError
from vqcore.registry import ARCHITECTURES, ESTIMATORS

PACKAGES = ("vqcore", "trainables", "analysis", "sweeps")
"""Ours, that trials' processes import from."""

JOIN_SECONDS = 60.0
"""How long it may take to join a cluster; Ray itself would try for longer, and end this process where it may not."""


def start(num_cpus: int, num_gpus: int) -> None:
    """Start a Ray of this process's own, for as long as the sweep runs."""
    _connect(address="local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False)


def join(address: str) -> Available:
    """Join the cluster at ``address``; what can be booked there. ``ConfigError`` if it takes no driver from here."""
    attempt = [sys.executable, "-c", "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)", address]
    try:
        # in a process of its own, since Ray's C++ ends the one that a cluster refuses
        done = subprocess.run(attempt, capture_output=True, text=True, timeout=JOIN_SECONDS, check=False)
        refusal = _reason(done.stderr) if done.returncode else ""
    except subprocess.TimeoutExpired:
        refusal = f"no answer within {JOIN_SECONDS:.0f} s"
    if refusal:
        raise ConfigError(
            [
                f"--address {address}: no Ray cluster can be joined there ({refusal}); run the sweep on a node of it, "
                "best on its head, and with its token if it has one: in RAY_AUTH_TOKEN, in the file that "
                "RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
            ]
        )
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
    files = sorted(logs.glob("*.*"), key=lambda file: file.stat().st_mtime) if logs.is_dir() else []
    lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
    return " | ".join([line for line in lines if " E " in line or "rror" in line][-3:])[-600:] or f"none in {logs}"


def _connect(**where: Any) -> None:
    # estimators and networks of the user's own travel whole, as they are now: no node need have their module
    networks = [part for entry in ARCHITECTURES.values() for part in (entry.encoder, entry.decoder)]
    for part in (*ESTIMATORS.values(), *networks):
        name = getattr(part, "func", part).__module__  # of a partial, the function's
        if name.partition(".")[0] not in PACKAGES and name != "__main__" and name in sys.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what fails is in the journal and on the screen
    script = str(Path(sys.argv[0]).absolute().parent)
    # after our packages as they are now, a trial finds the user's own modules where this process does
    folders = [str(Path.cwd()), *([script] if script in sys.path else [])]  # with `python -m` the latter is not
    with tempfile.TemporaryDirectory(prefix="vqsweep-code-") as code:
        for package in PACKAGES:
            spec = find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            ignored = shutil.ignore_patterns("embedded", "__pycache__")
            shutil.copytree(Path(spec.origin).parent, Path(code, package), ignore=ignored)
        runtime_env = {"working_dir": code, "env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}
        if where["address"] == "local":  # Ray starts a trial's process by a line of shell
            runtime_env["py_executable"] = shlex.quote(sys.executable)
        ray.init(runtime_env=runtime_env, log_to_driver=False, logging_level=logging.CRITICAL, **where)


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it ended without a word"

"""MLflow as a view of the journal: a parent run for a sweep, a child for each trial, found again by their tags.

A process of its own (``trainables.mlflow_sender``) reads the journal while the driver writes it and sends what MLflow
lacks through MLflow's client. It is a process since that client takes seconds to import and milliseconds for a report,
for which no driver of hundreds of trials should wait. Sending again changes nothing: MLflow
keeps a metric's point once for its step, time and value, and the journal keeps each epoch's time. So whatever fails is
sent again, and ``python -m sweeps.sync`` is the same process without ``--follow``. Nothing of MLflow's is deleted.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from trainables.errors import LOG
from trainables.journal import read
from trainables.runs import JOURNAL, command_line
from trainables.tracking_uri import accept, default_uri, is_server, mask, sqlite_path, without_password
from vqcore.errors import ConfigError

__all__ = [
    "Tracker",
    "accept",
    "browse_command",
    "check",
    "default_uri",
    "recorded_uri",
    "sync",
    "sync_command",
    "without_password",
]

RESTART = 75
"""Exit code of the process when only a fresh one can go on: its database was deleted or replaced."""

LONGEST_WAIT = 30.0
"""Seconds between two attempts, at most."""

_ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the process sends again by itself
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""How MLflow's client behaves in the process, unless the user's environment says otherwise."""


@dataclass(frozen=True)
class Status:
    """How far MLflow is behind the journal, as the process reports it in lines of JSON."""

    problem: str | None = None
    """Why nothing can be sent now, in one line without secrets."""
    refused: str | None = None
    """A value that MLflow does not take, however often it is sent."""
    runs: int = 0
    """Runs that MLflow has, the parent included."""
    closing: bool = False
    """Whether the sweep had ended before this attempt began."""
    sent: bool = False
    """Whether MLflow has all, up to the sweep's end."""


class Tracker:
    """Follows the journal of a running sweep in a process. Never blocks its caller, never raises, never gives up.

    ``uri`` is what ``accept`` takes; ``ConfigError`` otherwise. Nothing is started or imported before ``start``.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder.absolute(), accept(uri)
        self._status = Status()
        self._error: str | None = None
        self._connected = False
        """Whether anything was ever sent."""
        self._process: subprocess.Popen[str] | None = None
        self._closing, self._stop, self._starting = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep_following, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to follow the journal, which need not exist yet."""
        self._thread.start()

    def close(self, timeout: float = 30.0) -> bool:
        """Send the rest, for ``timeout`` seconds at most; whether all of it was sent.

        One attempt is enough where every one before had failed. After False the caller prints ``sync_command``.
        """
        failing, deadline = self.problem is not None or not self._connected, time.monotonic() + timeout
        self._closing.set()
        with self._starting:
            self._announce_end()
        while self._thread.is_alive() and time.monotonic() < deadline:
            if failing and self._status.closing and self._status.problem:
                break
            self._thread.join(0.05)
        self._stop.set()
        with self._starting:
            if self._process is not None:
                self._process.kill()
        if self._thread.is_alive():
            self._thread.join(1.0)
        return self._status.sent and self._status.refused is None

    @property
    def problem(self) -> str | None:
        """Why MLflow is behind, in one line without secrets; None while it is not."""
        return self._error or self._status.problem or self._status.refused

    def _keep_following(self) -> None:
        """Start the process again whenever it ends before its work does."""
        wait = 1.0
        while not (self._stop.is_set() or self._status.sent):
            try:
                code = self._follow()
            except OSError as error:  # no memory, no processes left, no disk
                self._error, code = mask(str(error), self._uri), None
            if code == RESTART or self._status.sent or self._stop.is_set():
                continue
            self._error = self._error or f"the process that sends to MLflow ended, with code {code}"
            self._stop.wait(wait)
            wait = 1.0 if self._closing.is_set() else min(2 * wait, LONGEST_WAIT)

    def _follow(self) -> int:
        """One process, from its start to its end; its exit code."""
        with self._starting:
            if self._stop.is_set():
                return RESTART
            self._process = _start(self._uri, self._folder, "--follow")
            if self._closing.is_set():
                self._announce_end()
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                self._status, self._error = Status(**json.loads(line)), None
                self._connected = self._connected or self._status.problem is None
        return process.returncode

    def _announce_end(self) -> None:
        process = self._process
        if process is not None and process.stdin is not None and process.poll() is None:
            with suppress(OSError):  # it ended just now
                process.stdin.write("close\n")
                process.stdin.flush()


def _start(uri: str, folder: Path, mode: str) -> "subprocess.Popen[str]":
    """The process. The URI goes to its standard input: arguments are public, and a URI may hold a password."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    with (folder / LOG).open("ab") if folder.is_dir() else Path(os.devnull).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainables.mlflow_sender", str(folder), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**_ENVIRONMENT, **os.environ, "PYTHONPATH": path},
            text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which decides what is sent before the end
        )
    assert process.stdin is not None
    with suppress(OSError):  # it ended just now
        process.stdin.write(json.dumps(uri) + "\n")
        process.stdin.flush()
    return process


def _status_of(uri: str, folder: Path, mode: str, timeout: float | None = None) -> Status | None:
    """The last status of a process that runs to its end; None where it ended without any or had no time left."""
    process = _start(uri, folder, mode)
    try:
        lines = process.communicate(timeout=timeout)[0].splitlines()
    except subprocess.TimeoutExpired:
        return Status(problem=f"no answer within {timeout:g} s")
    finally:
        process.kill()
        process.wait()
    if process.returncode == RESTART:
        return _status_of(uri, folder, mode, timeout)
    return Status(**json.loads(lines[-1])) if lines else None


def check(uri: str, timeout: float = 20.0) -> str | None:
    """One line if nothing can be sent to ``uri`` now, else None; within ``timeout`` seconds.

    A server is asked by MLflow's own client, which alone knows every way in (certificates, ``.netrc``, tokens), in a
    process. A sweep goes on after a warning, since its journal keeps everything. ``ConfigError`` as ``accept``.
    """
    uri = accept(uri)
    problem = unreachable(uri, timeout)
    if problem is None and sqlite_path(uri) is None:
        status = _status_of(uri, Path(os.devnull), "--check", timeout)  # no run: its log goes nowhere
        problem = status.problem if status else "MLflow's client ended without an answer"
    if problem is None:
        return None
    where = f"--tracking-uri {shlex.quote(without_password(uri))}"
    return f"{where}: {problem}; put it right, then send with `python -m sweeps.sync NAME {where}`"


def unreachable(uri: str, timeout: float = 5.0) -> str | None:
    """Why it is useless to import MLflow's client: no folder that can be written to, nobody who listens at an address.

    None where there is no such reason. Where a proxy stands between, only the client knows.
    """
    if (path := sqlite_path(uri)) is not None:
        return _unwritable(path)
    if not is_server(uri) or getproxies():
        return None
    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname or "", parts.port or (80, 443)[parts.scheme == "https"]), timeout)
    except OSError as error:
        return f"no answer ({error.strerror or error})"
    return None


def _unwritable(path: Path) -> str | None:
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return f"{folder} is not a folder that can be written to"
    if not path.exists():
        return None
    try:
        with path.open("r+b") as file:
            start = file.read(16)
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return None if start in (b"", b"SQLite format 3\0") else "is not a SQLite database"


def sync(folder: Path, uri: str | None = None) -> int:
    """Send all that the journal of the run ``folder`` holds; returns the number of runs, the parent included.

    ``uri`` is the run's own unless given. What MLflow has already stays. Nobody writes the journal now, so a run that
    was killed is closed as such. ``ConfigError`` if the journal is empty, a sweep is sending it now, or MLflow fails.
    """
    uri = accept(recorded_uri(folder) if uri is None else uri)
    problem, status = unreachable(uri), None
    if problem is None:
        status = _status_of(uri, folder.absolute(), "--once")
        problem = status.problem if status else f"the process that sends ended early; {folder / LOG} says why"
    if problem is not None:
        raise ConfigError([f"--tracking-uri {without_password(uri)}: {problem}; run the same again"])
    assert status is not None
    if status.refused:
        raise ConfigError([f"{folder.name}: all but this was sent: {status.refused}"])
    if not status.runs:
        raise ConfigError([f"{folder}: its {JOURNAL} is missing or empty: there is nothing to send"])
    return status.runs


def recorded_uri(folder: Path) -> str:
    """The tracking URI that a run was last started with; by default the database beside the runs."""
    sweep = read(folder / JOURNAL).sweep
    flags = sweep.get("toml", {}).get("flags")
    recorded = sweep.get("tracking_uri") or (flags.get("tracking_uri") if isinstance(flags, dict) else None)
    return recorded if isinstance(recorded, str) else default_uri(folder.absolute().parent.parent)


def sync_command(folder: Path, uri: str) -> str:
    """The command that sends later what could not be sent to ``uri``; a password in it is left for its owner to add."""
    given = [] if uri == default_uri(folder.absolute().parent.parent) else ["--tracking-uri", without_password(uri)]
    return command_line("sweeps.sync", folder, *given)


def browse_command(out: Path) -> str:
    """The command that shows the embedded database in a browser: make's in a checkout, elsewhere the one behind it."""
    if not (Path("Makefile").is_file() and Path("trainables").is_dir()):
        return command_line("trainables.mlflow_sender", out, "--ui")
    return "make ui" if str(out) == "runs" else f"make ui RUNS={shlex.quote(str(out))}"

"""MLflow as a view of the journal: a parent run for a sweep, a child for each trial, found again by their tags.

A process of its own (``trainables.mlflow_sender``) reads the journal while the driver writes it and sends what is new
through MLflow's client, which takes seconds to import and milliseconds for a report: no driver of hundreds of trials
should wait for it. Whatever fails ends that process, and a new one, half a minute later, sends everything again: MLflow
keeps a metric's point once for its step, time and value, and the journal keeps each epoch's time. ``python -m
sweeps.sync`` is the same process on a journal that does not grow. Nothing of MLflow's is deleted.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from trainables.errors import LOG
from trainables.journal import read
from trainables.runs import JOURNAL, command_line
from trainables.tracking_uri import accept, default_uri, sqlite_path, without_password
from vqcore.errors import ConfigError

__all__ = ["Tracker", "accept", "browse_command", "check", "default_uri", "sync", "sync_command", "without_password"]

RETRY_SECONDS = 30.0
"""From the end of a process that failed to the start of the next one."""

_ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the next process sends again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # a connection that is kept would write to a deleted file
}
"""How MLflow's client behaves in the process, unless the user's environment says otherwise."""


@dataclass(frozen=True)
class Status:
    """How far MLflow is behind the journal, as the process reports it in lines of JSON."""

    problem: str | None = None
    """Why MLflow is behind, in one line without secrets."""
    runs: int = 0
    """Runs that MLflow has, the parent included."""
    sent: bool = False
    """Whether MLflow has all up to the sweep's end, but for what it does not take."""


class Tracker:
    """Follows the journal of a running sweep in a process. Never blocks its caller, and never raises.

    ``uri`` is what ``accept`` takes; ``ConfigError`` otherwise. Nothing is started or imported before ``start``.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder.absolute(), accept(uri)
        self._status = Status()
        self._process: subprocess.Popen[str] | None = None
        self._closing, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to follow the journal, which need not exist yet."""
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why MLflow is behind, in one line without secrets; None while it is not."""
        return self._status.problem

    def close(self, timeout: float = 30.0) -> bool:
        """Send the rest, for ``timeout`` seconds at most; whether all of it was sent.

        What fails now is not tried again: after False the caller prints ``sync_command``.
        """
        self._closing.set()
        self._announce_end()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._stop.set()
        if self._process is not None:
            self._process.kill()
        return self._status.sent and self.problem is None

    def _follow(self) -> None:
        """Start the process, and another whenever it ends before its work does."""
        last = False
        while not (last or self._stop.is_set() or self._status.sent):
            last = self._closing.is_set()
            try:
                self._follow_once()
            except OSError as error:  # no memory, no processes left, no disk
                self._status = Status(f"the process that sends to MLflow could not be started ({error.strerror})")
            self._closing.wait(RETRY_SECONDS)

    def _follow_once(self) -> None:
        with _process(self._uri, self._folder, "--follow") as self._process:
            if self._closing.is_set():
                self._announce_end()
            if self._stop.is_set():
                self._process.kill()
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self._status = Status(**json.loads(line))
        if self._process.returncode and not self._stop.is_set():
            self._status = Status(f"the process that sends to MLflow ended, with code {self._process.returncode}")

    def _announce_end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError, ValueError):  # it ended just now
                self._process.stdin.write("the sweep is over\n")
                self._process.stdin.flush()


def _process(uri: str, folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """The process. Arguments are public, and a URI may hold a password: it stands in the environment."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "trainables.mlflow_sender", str(folder), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**_ENVIRONMENT, **os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": uri},
            text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which decides what is sent before the end
        )


def _send_once(uri: str, folder: Path, timeout: float | None = None) -> Status:
    """Send what there is in ``folder``, if anything, within ``timeout`` seconds."""
    with _process(uri, folder) as process:
        try:
            lines = process.communicate(timeout=timeout)[0].splitlines()
        except subprocess.TimeoutExpired:
            return Status(f"no answer within {timeout:g} s")
        finally:
            process.kill()
    return Status(**json.loads(lines[-1])) if lines else Status(f"its process ended, with code {process.returncode}")


def check(uri: str, timeout: float = 20.0) -> str | None:
    """One line if nothing can be sent to the server ``uri`` now, else None; within ``timeout`` seconds.

    MLflow's own client asks, which alone knows every way in (certificates, ``.netrc``, tokens), in a process. A sweep
    goes on after a warning, since its journal keeps everything. ``ConfigError`` as ``accept``.
    """
    uri = accept(uri)
    if sqlite_path(uri) is not None:
        return None
    with TemporaryDirectory() as empty:
        problem = _send_once(uri, Path(empty), timeout).problem
    if problem is None:
        return None
    where = f"--tracking-uri {shlex.quote(without_password(uri))}"
    return f"{where}: {problem}; put it right, then send with `python -m sweeps.sync NAME {where}`"


def sync(folder: Path, uri: str | None = None) -> int:
    """Send all that the journal of the run ``folder`` holds; returns the number of runs, the parent included.

    ``uri`` is the one that the run was last started with unless given. What MLflow has already stays. Nobody writes the
    journal now, so a run that was killed is closed as such. ``ConfigError`` if the journal is empty, a sweep is sending
    it now, or MLflow fails.
    """
    sweep = read(folder / JOURNAL).sweep
    if not sweep:
        raise ConfigError([f"{folder}: its {JOURNAL} is missing or empty: there is nothing to send"])
    flags = sweep.get("toml", {}).get("flags")
    recorded = sweep.get("tracking_uri") or (flags.get("tracking_uri") if isinstance(flags, dict) else None)
    uri = accept(uri or str(recorded or default_uri(folder.absolute().parent.parent)))
    status = _send_once(uri, folder.absolute())
    if status.problem is not None:
        place = f"--tracking-uri {without_password(uri)}"
        raise ConfigError([f"{folder.name}: {place}: {status.problem}; put it right, and run the same again"])
    return status.runs


def sync_command(folder: Path, uri: str) -> str:
    """The command that sends later what could not be sent to ``uri``; a password in it is left for its owner to add."""
    given = [] if uri == default_uri(folder.absolute().parent.parent) else ["--tracking-uri", without_password(uri)]
    return command_line("sweeps.sync", folder, *given)


def browse_command(out: Path) -> str:
    """The command that shows the embedded database in a browser: make's in a checkout, elsewhere the one behind it."""
    if not (Path("Makefile").is_file() and Path("trainables").is_dir()):
        return command_line("trainables.mlflow_sender", out, "--ui")
    return "make ui" if str(out) == "runs" else f"make ui RUNS={shlex.quote(str(out))}"

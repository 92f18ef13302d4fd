"""What MLflow is told: a view of the journal, sent by a process of its own, which may be behind, or find nobody.

The journal file is the queue: the driver writes it and gives nothing to anybody. Beside it ``trainables.follower``
reads what was written, folds it into what MLflow should show (``trainables.mirror``), and sends the difference
(``trainables.sender``). It is a process, since MLflow's client costs milliseconds of Python for each report, for which
a driver of hundreds of trials must not wait; its import takes seconds and 200 MB, which the driver never spends.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from trainables.follower import AGAIN, LONGEST_WAIT, POLL, Said
from trainables.runs import JOURNAL, command_line
from trainables.sender import Sender
from trainables.tracking_uri import accept, check, default_uri, mask, one_line, without_password
from vqcore.errors import ConfigError

__all__ = ["Tracker", "accept", "check", "default_uri", "sync", "sync_command", "without_password"]


class Tracker:
    """Follows the journal of a running sweep and tells MLflow. Never blocks its caller, never raises, never gives up.

    ``uri`` is what ``accept`` takes; ``ConfigError`` otherwise. Nothing is started or imported before ``start``.
    """

    def __init__(self, run_folder: Path, uri: str) -> None:
        self._uri = accept(uri)
        self._task = json.dumps({"folder": str(run_folder.absolute()), "uri": self._uri})
        self._said = Said()
        self._error: str | None = None
        self._through = False
        """Whether anything ever was."""
        self._process: subprocess.Popen[str] | None = None
        self._closing, self._stop, self._writing = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to follow the journal, in a process; the journal need not exist yet."""
        self._thread.start()

    def close(self, timeout: float = 30.0) -> bool:
        """Send what is left, for ``timeout`` seconds at most; whether all of it was sent.

        Where nothing got through before, once more is enough. After False the caller says: ``python -m sweeps.sync NAME
        --tracking-uri URI``.
        """
        failing, late = self.problem is not None or not self._through, time.monotonic() + timeout
        self._closing.set()
        with self._writing:
            self._write("close")
        while self._thread.is_alive() and time.monotonic() < late:
            if failing and self._said.over and self._said.problem:
                break
            self._thread.join(0.05)
        self._stop.set()
        with self._writing:
            if self._process is not None:
                self._process.kill()
        if self._thread.is_alive():
            self._thread.join(1.0)
        return self._said.caught_up and self._said.refused is None

    @property
    def problem(self) -> str | None:
        """Why MLflow is behind, in one line without secrets; None while it is not."""
        return self._error or self._said.problem or self._said.refused

    def _keep(self) -> None:
        """A follower as long as it is needed: one that was killed is followed by another."""
        wait = POLL
        while not (self._stop.is_set() or self._said.caught_up):
            try:
                code = self._follow()
            except OSError as error:  # no memory, no processes left
                self._error, code = one_line(error, self._uri), None
            else:
                if code != AGAIN and not self._said.caught_up and not self._stop.is_set():
                    self._error = f"the process that tells MLflow ended, with code {code}"
            if code != AGAIN and not self._said.caught_up:
                self._stop.wait(wait)
                wait = POLL if self._closing.is_set() else min(2 * wait, LONGEST_WAIT)

    def _follow(self) -> int:
        """One follower, from its start to its end; its exit code."""
        with self._writing:
            if self._stop.is_set():
                return AGAIN
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainables.follower"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": _python_path()},
                text=True,
                start_new_session=True,  # Ctrl-C is for the driver
            )
            self._write(self._task)  # not among its arguments: those anybody may read, and a URI may hold a password
            if self._closing.is_set():
                self._write("close")
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                self._said, self._error = Said(**json.loads(line)), None
                self._through = self._through or self._said.problem is None
        return process.returncode

    def _write(self, line: str) -> None:
        process = self._process
        if process is not None and process.stdin is not None and process.poll() is None:
            with contextlib.suppress(OSError):  # it ended just now
                process.stdin.write(line + "\n")
                process.stdin.flush()


def _python_path() -> str:
    """So that the process finds this package, wherever the driver was started."""
    here = str(Path(__file__).parents[1])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def sync(run_folder: Path, uri: str) -> int:
    """Tell MLflow everything that the journal of ``run_folder`` holds; returns the number of runs, parent included.

    What is there already stays as it is. Nobody writes the journal now, so a run that was killed is closed as such.
    Raises ``ConfigError`` if the journal is empty, a sweep is sending it at this moment, or the server fails.
    """
    uri = accept(uri)
    sender = Sender(run_folder, uri)
    if unreachable := check(uri):
        raise ConfigError([unreachable])
    try:
        sender.update(nobody_writes=True)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([f"--tracking-uri {mask(uri, uri)}: {one_line(error, uri)}; run the same again"]) from error
    finally:
        sender.release()
    if sender.refused:
        raise ConfigError([f"{run_folder.name}: all but this was sent: {sender.refused}"])
    if not sender.runs:
        raise ConfigError([f"{run_folder}: its {JOURNAL} is missing or empty: there is nothing to send"])
    return sender.runs


def sync_command(run_folder: Path, uri: str) -> str:
    """The command that sends later what could not be sent to ``uri``; a password in it is left for its owner to add."""
    words = [] if uri == default_uri(run_folder.parent.parent) else ["--tracking-uri", without_password(uri)]
    return command_line("sweeps.sync", run_folder, *words)

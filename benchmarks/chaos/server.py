"""The MLflow server that a sweep tells, and what can happen to it."""

import signal
import socket
import sqlite3
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

from benchmarks.chaos.processes import Started, send, until


class Server:
    """``mlflow server`` as docs/tracking.md starts it, on loopback and a SQLite file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "mlflow.db"
        folder.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._started: Started | None = None

    def wait(self) -> None:
        """Return once it answers. ``RuntimeError`` if it does not."""
        if not until(self.answers, 120):
            said = self._started.said() if self._started else "it was not started"
            raise RuntimeError(f"the MLflow server does not answer after two minutes: {said[-2000:]}")

    def start(self) -> None:
        """Start it; it answers some seconds later. Where it ends by itself, it is started again, as a service is."""
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self._port]
        words += [
            "--workers",
            1,
            "--app-name",
            "vqsweep",
            "--backend-store-uri",
            f"sqlite:///{self.database.absolute()}",
        ]
        words += ["--artifacts-destination", (self.folder / "artifacts").absolute()]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        words = ["/bin/sh", "-c", 'while :; do "$@"; sleep 1; done', "sh", *words]
        self._started = Started(words, self.folder / "server.log", quiet, self.folder)

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
        except OSError:
            return False
        return True

    def kill(self) -> bool:
        """Kill it, whole, at once; whether there was one."""
        if self._started is None:
            return False
        killed = self._started.end()
        self._started = None
        return bool(killed)

    def stop(self) -> bool:
        """Let it keep its connections and answer nothing, until ``go_on``; whether there was one."""
        return self._tell(signal.SIGSTOP)

    def go_on(self) -> None:
        """After ``stop``."""
        self._tell(signal.SIGCONT)

    def lock(self) -> sqlite3.Connection | None:
        """Take its database for oneself, until the connection is closed; None if that failed."""
        own = sqlite3.connect(self.database, timeout=2, isolation_level=None)
        try:
            own.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            own.close()
            return None
        return own

    def close(self) -> None:
        """End it."""
        self.kill()

    def _tell(self, number: int) -> bool:
        members = self._started.members() if self._started is not None else []
        return sum(send(process.pid, number) for process in members) > 0


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""What a run of chaos relies on, and what can fail it: an MLflow server, a small disk."""

import socket
import subprocess
import sys
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Command, until


class Server:
    """``mlflow server`` on loopback and a SQLite file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self._port}"
        self._command: Command | None = None

    def start(self) -> None:
        """Start it; it answers some seconds later."""
        words: list[object] = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self._port]
        words += ["--workers", 1, "--backend-store-uri", f"sqlite:///{self.folder.absolute() / 'mlflow.db'}"]
        words += ["--artifacts-destination", self.folder.absolute() / "artifacts"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._command = Command(words, self.folder / "server.log", quiet)

    def wait(self) -> None:
        """Return once it answers. ``RuntimeError`` after two minutes."""
        if not until(self._answers, 120):
            raise RuntimeError(f"the MLflow server does not answer: {self.folder / 'server.log'}")

    def kill(self) -> bool:
        """Kill it, whole, at once; whether there was one."""
        command, self._command = self._command, None
        if command is not None:
            command.end()
        return command is not None

    def _answers(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
            return True
        return False


@dataclass(frozen=True)
class Disk:
    """A small disk (tmpfs) at ``folder``."""

    folder: Path

    @classmethod
    def mounted(cls, folder: Path, megabytes: int) -> "Disk | None":
        """A new one; None where none can be mounted, which only root may."""
        folder.mkdir(parents=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "chaos", str(folder)]
        return None if subprocess.run(words, capture_output=True, check=False).returncode else cls(folder)

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    def free(self) -> None:
        """Undo ``fill``."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, lazily: a process that is just ending may have a file open there."""
        subprocess.run(["umount", "-l", self.folder], check=False)

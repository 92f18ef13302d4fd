"""The processes of chaos: commands with all their descendants, the MLflow server, a small disk.

A command started here leads a session of its own, in which Ray's servers and workers stay also after their driver died.
Reads ``/proc``, so Linux only.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Command:
    """A command under way in a session of its own; its output goes to ``log``."""

    def __init__(self, words: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as screen:
            self._process = subprocess.Popen(
                [str(word) for word in words], cwd=ROOT, env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; minus the signal's number after a kill, None while the command runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """All that the command has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int, group: bool = False) -> bool:
        """Send a signal to the process or, as a terminal does, to its group; whether it still ran."""
        if self.code is not None:
            return False
        os.killpg(self.pid, number) if group else self._process.send_signal(number)
        return True

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if the command still runs after ``seconds``."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def members(self) -> dict[int, str]:
        """Process ids and command lines of the command and its descendants, those that are alive."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, IndexError, ValueError):
                # the name, in parentheses, may hold anything: the fields follow the last one
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state not in "ZX":
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = words.decode(errors="replace").strip()
        return found

    def end(self) -> None:
        """Kill the command and its descendants, by process id."""
        while living := self.members():
            for pid in living:
                kill(pid)
            self._process.poll()  # reaps it
            time.sleep(0.05)
        self._process.poll()


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


def kill(pid: int) -> bool:
    """SIGKILL; whether there was such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, ``seconds`` at most; whether it does."""
    late = time.monotonic() + seconds
    while not true():
        if time.monotonic() > late:
            return False
        time.sleep(0.05)
    return True

"""Commands that benchmarks start, each with all its descendants: watched, measured and ended by their ids.

Descendants are found by a variable that they inherit, since they may have left the command's session and may outlive
it. Reads ``/proc``, so Linux only.
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Command:
    """A command under way; its output goes to ``log``."""

    def __init__(
        self, words: Sequence[object], log: Path, environment: Mapping[str, str] | None = None, checkout: Path = ROOT
    ) -> None:
        self.words, self.log = [str(word) for word in words], log
        self._mark = uuid.uuid4().hex
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as screen:
            self.started = time.time()
            self._process = subprocess.Popen(
                self.words,
                cwd=checkout,
                env={
                    **os.environ,
                    "PYTHONPATH": str(checkout),
                    "BENCHMARK_COMMAND": self._mark,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.peak_bytes = 0
        """The most memory that it had in use at once, as ``watch`` last saw it."""

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

    def watch(self, look: Callable[[], object] = lambda: None) -> float:
        """Wait for its end, looking now and then; its wall time in seconds.

        ``RuntimeError`` with its last lines if it failed. Whatever it has left behind is ended.
        """
        try:
            while self.code is None:
                with suppress(OSError):
                    used = Path(f"/proc/{self.pid}/status").read_text().partition("VmHWM:")[2]
                    self.peak_bytes = int(used.split()[0]) * 1024 if used else self.peak_bytes
                look()
                time.sleep(0.05)
            wall = time.time() - self.started
        finally:
            self.end()
        if self.code:
            last = "\n".join(self.output.splitlines()[-20:])
            raise RuntimeError(f"{' '.join(self.words[1:4])} ended with exit code {self.code}:\n{last}")
        return wall

    def members(self) -> dict[int, str]:
        """Process ids and command lines of the command and its descendants, those that are alive."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or is another user's
                if f"BENCHMARK_COMMAND={self._mark}".encode() in (entry / "environ").read_bytes():
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


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; 0 of one that has ended."""
    with suppress(OSError):  # the name, in parentheses, may hold anything: the fields follow the last one
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


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

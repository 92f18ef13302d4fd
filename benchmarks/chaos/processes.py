"""Processes that chaos starts, each with all its descendants: found by their session, ended by their ids.

A process started here leads a session of its own, and Ray's servers and workers stay in that of their driver, also
after it died. Reads ``/proc``, so Linux only.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OF_RAY = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own processes that call themselves as its workers do."""


@dataclass(frozen=True)
class Process:
    """A live process, as ``/proc`` had it."""

    pid: int
    words: str
    """Its command line."""

    @property
    def is_trial(self) -> bool:
        """Whether it is a Ray worker that has been given a trial."""
        return self.words.startswith("ray::") and not self.words.startswith(OF_RAY)

    @property
    def is_raylet(self) -> bool:
        """Whether it is Ray's server of this node."""
        return self.words.split(" ")[0].endswith("/raylet")


PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def _die_with_me() -> None:
    """In a child: be killed when chaos is, so that nothing outlives even that."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Started:
    """A command under way, in a session of its own; what it says goes to ``log``."""

    def __init__(self, words: Sequence[object], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.words, self.log = [str(word) for word in words], log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as screen:
            self._process = subprocess.Popen(
                self.words,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_me,
            )
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; minus the signal's number for one that was killed, None while it runs."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        """Whether it runs; what it started may outlive it."""
        return self.code is None

    def said(self) -> str:
        """All that it wrote by now."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> bool:
        """Send a signal to it alone; whether it still ran."""
        if not self.alive:
            return False
        self._process.send_signal(number)
        return True

    def signal_group(self, number: int) -> bool:
        """Send a signal to its process group, as a terminal does with Ctrl-C; whether it still ran."""
        if not self.alive:
            return False
        os.killpg(self.pid, number)
        return True

    def wait(self, seconds: float) -> int | None:
        """The exit code, waiting for it; None if it still runs after ``seconds``."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def members(self) -> list[Process]:
        """It and its descendants, those that live."""
        return of_session(self.pid)

    def end(self) -> list[Process]:
        """Kill whatever lives of it, by process id; gives back what had to be killed."""
        killed: dict[int, Process] = {}
        while living := self.members():
            for process in living:
                killed[process.pid] = process
                send(process.pid, signal.SIGKILL)
            self._process.poll()  # reaps it
            time.sleep(0.05)
        self._process.poll()
        return list(killed.values())


def of_session(session: int) -> list[Process]:
    """The processes of a session that live; one that is dead and not yet reaped does not."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError, ValueError):
            # the name, in parentheses, may hold anything: what follows the last one counts
            state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state not in "ZX":
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(Process(int(entry.name), words))
    return sorted(found, key=lambda process: process.pid)


def send(pid: int, number: int) -> bool:
    """Send a signal; whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, ``seconds`` at most; whether it is."""
    late = time.monotonic() + seconds
    while not true():
        if time.monotonic() > late:
            return False
        time.sleep(0.02)
    return True

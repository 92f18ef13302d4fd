"""How a run ends early, and with which exit code.

Ctrl-C ends it now: what was recorded is analysed, and a second Ctrl-C does without that. SIGTERM comes from a scheduler
that wants the machine: the trials finish their epoch, and the exit code says "start me again".
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C: the run can be resumed."""

PREEMPTED = 75
"""Exit code after SIGTERM: resume it. EX_TEMPFAIL of sysexits.h, "try again later"."""

GRACE_SECONDS = 20.0
"""For the epoch in progress, after SIGTERM. Slurm and Kubernetes kill after 30 seconds unless configured otherwise."""


class Preempted(BaseException):  # as KeyboardInterrupt: no `except Exception` may take it
    """SIGTERM came, and its grace period has ended."""


class Interruption:
    """A context manager, for the main thread, that handles the signals of this process."""

    def __init__(self) -> None:
        self.terminating = False
        """Whether SIGTERM came: run to the end of the epoch, and no further."""
        self._finishing = False

    def __enter__(self) -> "Interruption":
        self._before = [
            (number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        ]
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in self._before:
            signal.signal(number, before)

    def listen(self) -> None:
        """Install the handlers; once more after a library has installed its own."""
        signal.signal(signal.SIGINT, self._on_ctrl_c)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGALRM, self._on_sigterm)

    def finish(self) -> None:
        """Ignore SIGTERM from now on: what remains is short and must be whole. Only Ctrl-C can still cut it off."""
        self._finishing = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_ctrl_c(self, number: int, frame: FrameType | None) -> None:
        """End the work; the second time end the process, as after a kill: the journal has every event."""
        if not self._finishing:
            self._finishing = True
            raise KeyboardInterrupt
        cursor = "\x1b[?25h" if os.isatty(1) else ""  # a live table had hidden it
        with suppress(OSError):  # the reader of the output may be gone
            os.write(1, f"{cursor}\nStopped at once; a resume goes on from what is recorded.\n".encode())
        os._exit(INTERRUPTED)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Begin the grace period; at its end, or at a second SIGTERM, end the work."""
        if self.terminating:
            raise Preempted
        self.terminating = True
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)


def leave(code: int) -> NoReturn:
    """Exit with ``code``, now: all is written and closed, and no signal may change the code any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, its reader gone, or None since the start
            stream.flush()
    os._exit(code)  # tearing down torch, ray and mlflow module by module costs another second or two

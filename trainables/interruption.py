"""How a run ends early, and with which exit code.

Ctrl-C ends it now: what was recorded is analysed, and a second Ctrl-C does without that. SIGTERM comes from a scheduler
that wants the machine: the trials finish their epoch, and the exit code says "start me again".
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise ``Preempted`` in the main thread meanwhile; in another thread, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def preempt(number: int, frame: FrameType | None) -> None:
        raise Preempted

    before = signal.signal(signal.SIGTERM, preempt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruption:
    """A context manager, for the main thread, that handles the signals of this process.

    ``next_step`` is the command, or flag, that goes on with the run; the second Ctrl-C prints it.
    """

    def __init__(self, next_step: str = "--resume") -> None:
        self._next_step = next_step
        self.terminating = False
        """Whether SIGTERM came: run to the end of the epoch, and no further."""
        self._ctrl_c = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            self._before[number] = signal.getsignal(number)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = self._hook
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def listen(self) -> None:
        """Install the handlers; once more after a library has installed its own."""
        signal.signal(signal.SIGINT, self._on_ctrl_c)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGALRM, self._on_end_of_grace)

    def finish(self) -> None:
        """Ignore SIGTERM from now on: what remains is short and must be whole. Only Ctrl-C can still cut it off."""
        self._ctrl_c = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_ctrl_c(self, number: int, frame: FrameType | None) -> None:
        if self._ctrl_c:
            _leave_at_once(self._next_step)
        self._ctrl_c = True
        raise KeyboardInterrupt

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self.terminating:
            raise Preempted
        self.terminating = True
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _on_end_of_grace(self, number: int, frame: FrameType | None) -> None:
        raise Preempted

    def _unraisable(self, lost: "sys.UnraisableHookArgs") -> None:
        """Send the signal again, a moment later, if its exception was raised in a ``__del__``, which drops it."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            self._ctrl_c, number = False, signal.SIGINT
        elif isinstance(lost.exc_value, Preempted):
            number = signal.SIGTERM
        else:
            self._hook(lost)
            return
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.05, signal.pthread_kill, (main, number)).start()


def _leave_at_once(next_step: str) -> None:
    """End this process, as after a kill: the journal has every event, and the rest can be made from it."""
    cursor = "\x1b[?25h" if os.isatty(1) else ""  # a live table had hidden it
    with suppress(OSError):  # the reader of the output may be gone
        os.write(1, f"{cursor}\nStopped at once; {next_step} goes on from what is recorded.\n".encode())
    os._exit(INTERRUPTED)


def leave(code: int) -> NoReturn:
    """Exit with ``code``, now: all is written and closed, and no signal may change the code any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, its reader gone, or None since the start
            stream.flush()
    # tearing down torch, ray and mlflow module by module costs another second or two
    os._exit(code)

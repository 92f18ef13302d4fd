"""How a run is asked to end, and with which code it then exits.

Ctrl-C ends it now: what was recorded is analysed, and a second Ctrl-C does without that. SIGTERM is a scheduler that
wants the machine: the trials finish the epoch that they are in, and the exit code says "start me again".
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C: the run can be resumed."""

PREEMPTED = 75
"""Exit code after SIGTERM: resume it. EX_TEMPFAIL of sysexits.h, "try again later"."""

GRACE_SECONDS = 20.0
"""For the epoch in progress, after SIGTERM. Slurm and Kubernetes kill after 30 seconds unless told otherwise."""


def while_importing() -> None:
    """Take signals from the first moment of a command: what it imports takes seconds, and nothing has begun yet.

    Only in a process that was started as ``python -m``: whoever imports a package keeps its signals.
    """
    if sys.argv[:1] == ["-m"]:  # so runpy has it while it imports the package
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: os._exit(PREEMPTED))


class Preempted(BaseException):  # as KeyboardInterrupt: no `except Exception` may take it
    """SIGTERM came, and its grace is over."""


class Interruption:
    """While entered, takes the signals of this process; only its main thread can enter.

    ``again`` is what goes on with the run, in words, for who ends it at once.
    """

    def __init__(self, again: str = "--resume") -> None:
        self._again = again
        self.asked = False
        """Whether SIGTERM came: run to the end of the epoch, and no further."""
        self._ctrl_c = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            self._before[number] = signal.getsignal(number)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = self._hook
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def listen(self) -> None:
        """Take the signals, anew where a library took them in between."""
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGALRM, self._grace_is_over)

    def finish(self) -> None:
        """What remains is short and must be whole: only a second Ctrl-C may still cut it off."""
        self._ctrl_c = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._ctrl_c:
            leave_at_once(self._again)
        self._ctrl_c = True
        raise KeyboardInterrupt

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise Preempted
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _lost(self, lost: "sys.UnraisableHookArgs") -> None:
        """A signal met a ``__del__``, which lets no exception out: let it come again, a moment later."""
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

    def _grace_is_over(self, number: int, frame: FrameType | None) -> None:
        raise Preempted


def leave_at_once(again: str) -> None:
    """End this process, as after a kill: the journal has every event, and what was not made can be made from it."""
    cursor = "\x1b[?25h" if os.isatty(1) else ""  # a live table had hidden it
    with suppress(OSError):  # nobody may read it any more
        os.write(1, f"{cursor}\nStopped at once; {again} goes on from what is recorded.\n".encode())
    os._exit(INTERRUPTED)


def leave(code: int) -> NoReturn:
    """Exit with ``code``, now. All is written and closed, so that no signal changes what is told of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # taking torch, ray and mlflow apart module by module costs another second or two
    os._exit(code)


class HaltError(OSError):
    """What ends the run and no single trial, since no other could do better: a full disk, damaged data."""


def said(error: OSError) -> str:
    """An error of the system as a person would say it."""
    if not error.strerror:
        return str(error)
    return f"{error.filename or 'the system'}: {error.strerror or error}"

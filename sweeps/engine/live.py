"""The report while the sweep runs: a process of its own writes ``report.html`` every so often.

The driver imports nothing of it, and it takes at most a hundredth of one core.
"""

import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

SECONDS = 30.0
"""From the end of one writing to the start of the next, and from load to load of a page that is open, at least."""

SHARE = 0.01
"""Of one core, at most."""

logger = logging.getLogger(__name__)


class LiveReport:
    """Writes the report of a run while the context is open; never raises, never keeps a trial waiting."""

    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-m", "analysis.page", str(folder.absolute()), "--refresh", f"{SECONDS:.0f}"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="report", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Returns once nothing writes any more: the last report must not be overwritten by an older one."""
        self._stop.set()
        self._thread.join()

    def _repeat(self) -> None:
        wait = SECONDS
        while not self._stop.wait(wait):
            began = time.monotonic()
            self._write()
            wait = max(SECONDS, (time.monotonic() - began) / SHARE)

    def _write(self) -> None:
        try:
            # a session of its own: Ctrl-C is meant for the driver
            with subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            ) as process:  # fmt: skip
                said = self._said(process)
            if process.returncode and not self._stop.is_set():
                logger.warning("report.html could not be written while the sweep ran: %s", said)
        except OSError as error:
            logger.warning("report.html could not be written while the sweep ran: %s", error)

    def _said(self, process: subprocess.Popen[bytes]) -> str:
        """What it wrote, read as it comes: a pipe that is full would hold it for ever."""
        while True:
            try:
                return process.communicate(timeout=0.2)[1].decode(errors="replace")
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C does: it then leaves no half-written file."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()

"""The frame of a process that drives a run, a sweep's or a final training's: lock, signals, log, journal, MLflow."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.text import Text

from trainables.errors import LOG, one_line, run_log
from trainables.interruption import INTERRUPTED, PREEMPTED, Interruption, Preempted
from trainables.recorder import JournalWriter, fill_gaps
from trainables.runs import LOCK, PROCESS_STARTED
from trainables.tracking import Tracker, check, sync_command
from vqcore.errors import ConfigError

LATE_SECONDS = 1.0
"""After which a part of the run without trials is said to go on."""

logger = logging.getLogger(__name__)


class RunSession:
    """A run while this process drives it."""

    def __init__(self, folder: Path, trials: str, tracking_uri: str, console: Console, signals: Interruption) -> None:
        self.folder, self.tracking_uri, self.console, self.signals = folder, tracking_uri, console, signals
        self.log = folder / LOG
        self.writer = JournalWriter(folder)
        self.gaps = fill_gaps(self.writer, trials)
        """What was taken from the checkpoints in ``trials``, for the screen; empty if the journal was whole."""
        self.tracker = Tracker(folder, tracking_uri)
        self._unreachable: str | None = None
        self._laps: dict[str, float] = {}
        self._lap_began = PROCESS_STARTED

    def lap(self, part: str) -> None:
        """Take the time of a part of the run that ends now."""
        now = time.time()
        self._laps[part], self._lap_began = now - self._lap_began, now

    def print_laps(self) -> None:
        """Print how long each part of the run took."""
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self._laps.items())
        self.console.print(f"Took {sum(self._laps.values()):.0f} s: {parts}.")

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Say ``what`` goes on meanwhile, if it takes longer than ``LATE_SECONDS``: no trial tells then."""
        line = threading.Timer(LATE_SECONDS, lambda: self.console.print(f"{what} ..."))
        line.start()
        try:
            yield
        finally:
            line.cancel()

    def warn(self, *notes: str | None) -> None:
        """Print notes, a line each; those that are None or empty are left out."""
        for note in filter(None, notes):
            self.console.print(Text(note, style="yellow"), soft_wrap=True)

    def check_tracking(self) -> None:
        """Find out whether MLflow can be reached, and say so if not: the run goes on without."""
        self._unreachable = check(self.tracking_uri)
        if self._unreachable:
            self.warn(f"MLflow: {self._unreachable}. The run goes on; what is missing is sent later.")

    def run(self, work: Callable[[], None]) -> int:
        """Call ``work``, which trains; the exit code: 0, 130 after Ctrl-C, 75 after SIGTERM, 1 after an error.

        An error that ``work`` raises is no trial's: a full disk, a cluster that is gone. The run can go on later.
        SIGTERM is ignored from then on, since what remains is short.
        """
        try:
            work()
        except KeyboardInterrupt:
            self.console.print("Stopping; everything recorded is kept.")
            return INTERRUPTED
        except (Exception, Preempted) as error:
            # a batch system that ends all processes of a job at once has ended Ray's too
            if isinstance(error, Preempted) or self.signals.terminating:
                self.console.print("Ended by SIGTERM; everything recorded is kept.")
                return PREEMPTED
            self._print_error("The run cannot go on", error)
            return 1
        finally:
            self.signals.finish()
        return 0

    def record_end(self, complete: bool) -> bool:
        """Record how the run ended, as the last event; whether that was possible."""
        try:
            self.writer.write("done" if complete else "pause")
        except OSError as error:
            self._print_error("Its end could not be recorded", error)
            return False
        finally:
            self.writer.close()
        return True

    def close_tracking(self, patient: bool) -> str | None:
        """Send MLflow what it lacks, within seconds unless ``patient``; the command that sends the rest, if any."""
        # no waiting for a server that has been failing, or after Ctrl-C: what is missing can be sent later
        seconds = 60 if patient and not self._unreachable and not self.tracker.problem else 5
        with self.stage(f"MLflow gets what it lacks, for {seconds} s at most"):
            if self.tracker.close(timeout=seconds):
                return None
        self.warn(f"MLflow is behind: {self.tracker.problem or 'it is slow'}")
        return sync_command(self.folder, self.tracking_uri)

    def print_next(self, commands: Sequence[tuple[str, str | None]]) -> None:
        """Print which commands to run next, each with what it does; those that are None are left out."""
        commands = [(purpose, command) for purpose, command in commands if command]
        if commands:
            self.console.print("Next:")
        for purpose, command in commands:
            # soft_wrap: a command that the terminal breaks cannot be copied
            self.console.print(Text(f"  {purpose + ':':<18}{command}"), soft_wrap=True)

    def _print_error(self, what: str, error: BaseException) -> None:
        logger.error(what, exc_info=error)
        line = f"{what}: {one_line(error)} (in full: {self.log})"
        self.console.print(Text(line, style="red"), soft_wrap=True)


@contextmanager
def open_session(folder: Path, trials: str, tracking_uri: str, console: Console) -> Iterator[RunSession]:
    """Drive the run in ``folder``, whose trials keep their files in the location ``trials``.

    ``ConfigError`` if another process drives it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0), Interruption() as signals, run_log(folder):
            yield RunSession(folder, trials, tracking_uri, console, signals)
    except Timeout:
        raise ConfigError([f"{folder}: another process drives this run; wait for it, or end it"]) from None

"""What every command line shares: the terminal it prints on, errors as plain lines, and the exit code."""

import math
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import tyro
from rich.console import Console

from trainables.errors import one_line
from trainables.interruption import INTERRUPTED, PREEMPTED, Preempted
from vqcore.errors import ConfigError

USAGE_ERROR = 2
"""Exit code of a command that was given something wrong: the error stands on standard error."""


class Terminal(Console):
    """Standard output, 80 columns wide where the environment says ``COLUMNS=0``, quiet once its reader has gone."""

    def __init__(self) -> None:
        super().__init__(highlight=False, width=80 if os.environ.get("COLUMNS") == "0" else None)

    def on_broken_pipe(self) -> None:
        """Go on without a reader: what a command writes to files does not depend on who reads its lines."""
        self.quiet = True
        _discard_output()


def exit_code(work: Callable[[], int | None], when: str = "") -> int:
    """Call ``work``; the exit code of a command: what it returns, or 0.

    The errors that a user can act on, ``ConfigError`` and ``OSError``, become lines on standard error and 2. Ctrl-C
    gives 130 and SIGTERM 75, with a line that says ``when``. A reader that closed standard output gives 0, since nobody
    misses the lines.
    """
    try:
        return work() or 0
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:
        _discard_output()
        return 0
    except OSError as error:
        print(one_line(error), file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"Interrupted{when}.")
        return INTERRUPTED
    except Preempted:
        print(f"Ended by SIGTERM{when}.")
        return PREEMPTED


def duration(seconds: float, to: float | None = None) -> str:
    """A time as one says it, rounded up and never nothing: ``40 s``, ``12 min``, ``2 h 30 min``, ``12 to 30 min``."""
    if to is not None:
        low, high = duration(seconds), duration(to)
        number, _, unit = low.partition(" ")
        return high if low == high else f"{number if high.partition(' ')[2] == unit else low} to {high}"
    if seconds <= 90:
        return f"{max(5, 5 * math.ceil(seconds / 5))} s"
    if (minutes := math.ceil(seconds / 60)) <= 90:
        return f"{minutes} min"
    if (minutes := 5 * math.ceil(minutes / 5)) <= 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = math.ceil(minutes / 60)
    return f"{hours // 24} d" + (f" {hours % 24} h" if hours % 24 else "")


def run_command(main: Callable[..., None]) -> NoReturn:
    """Call ``main`` with the command line's arguments (tyro reads its signature and docstring), and exit."""

    def work() -> None:
        tyro.cli(main)
        if sys.stdout is not None:
            sys.stdout.flush()

    sys.exit(exit_code(work))


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

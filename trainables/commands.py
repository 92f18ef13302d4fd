"""The frame of every command line: the terminal it prints on, errors as plain lines, and the exit code."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import tyro
from rich.console import Console

from trainables.errors import one_line
from trainables.interruption import INTERRUPTED, PREEMPTED, Preempted, sigterm_raises
from vqcore.errors import ConfigError

USAGE_ERROR = 2
"""Exit code of a command that was given something wrong: the error stands on standard error."""


class Terminal(Console):
    """Standard output, 80 columns wide where the environment says ``COLUMNS=0``, quiet once its reader has gone."""

    def __init__(self, markup: bool = True) -> None:
        super().__init__(highlight=False, markup=markup)
        if self.width < 1:
            self.width = 80

    def on_broken_pipe(self) -> None:
        """Go on without a reader: what a command writes to files does not depend on who reads its lines."""
        self.quiet = True
        _discard_output()


@dataclass
class ExitStatus:
    """The exit code of a command."""

    code: int = 0


@contextmanager
def exit_status(interrupted: str = "Interrupted.", preempted: str = "Ended by SIGTERM.") -> Iterator[ExitStatus]:
    """Turn the errors that a user can act on into lines on standard error and an exit code.

    ``ConfigError`` and ``OSError`` give 2. Ctrl-C gives 130 with the line ``interrupted``, SIGTERM 75 with the line
    ``preempted``, also while the command is still importing what it needs. A reader that closed standard output gives
    0, since nobody misses the lines.
    """
    status = ExitStatus()
    try:
        with sigterm_raises():
            yield status
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        status.code = USAGE_ERROR
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        print(one_line(error), file=sys.stderr)
        status.code = USAGE_ERROR
    except KeyboardInterrupt:
        print(interrupted)
        status.code = INTERRUPTED
    except Preempted:
        print(preempted)
        status.code = PREEMPTED


def run_command(main: Callable[..., None]) -> NoReturn:
    """Call ``main`` with the command line's arguments (tyro reads its signature and docstring), and exit."""
    with exit_status() as status:
        tyro.cli(main)
        if sys.stdout is not None:
            sys.stdout.flush()
    sys.exit(status.code)


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Errors: one line for the screen, the whole traceback for the run's ``log.txt``."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vqcore.errors import ConfigError

LOG = "log.txt"
"""The file of a run's folder that takes its warnings and tracebacks."""


class FatalRunError(OSError):
    """An error that ends the run and not one trial, as no other trial could do better: a full disk, damaged data."""


def one_line(error: BaseException) -> str:
    """An error in one line of at most 500 characters.

    A ``ConfigError`` gives its problems, an error of the operating system its file and its reason. Any other error
    gives its type, its message and the line of code that raised it.
    """
    if isinstance(error, OSError) and error.strerror and type(error).__str__ is OSError.__str__:
        text = f"{error.filename or 'the system'}: {error.strerror}"
    elif isinstance(error, ConfigError | OSError) and str(error):
        text = str(error)
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" ({Path(frame[0].filename).name}:{frame[0].lineno})" if frame else ""
        text = f"{type(error).__name__}: {error}{place}"
    text = " ".join(text.split())
    return text if len(text) <= 500 else f"{text[:497]}..."


def check_text(name: str, value: str) -> None:
    """``ConfigError`` unless the path ``value`` can be written as UTF-8, as journal, MLflow and Parquet write it."""
    try:
        str(Path(value).absolute()).encode()
    except UnicodeEncodeError as error:
        rule = "its name, or that of a folder above it, is no UTF-8; rename it, or reach it through a link"
        raise ConfigError([f"{name} = {value!r}: {rule}"]) from error


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """A full disk must not print tracebacks between the lines of the screen."""


@contextmanager
def run_log(folder: Path) -> Iterator[Path]:
    """Send what this process logs, and Python's warnings, to ``log.txt`` of a run's folder; its path.

    For the process that drives the run. Modules log as libraries do: ``logging.getLogger(__name__)``, and
    ``logger.exception`` wherever an error ends in one line on the screen.
    """
    handler = _LogFile(folder / LOG, encoding="utf-8", errors="backslashreplace")
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield folder / LOG
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()

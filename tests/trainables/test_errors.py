"""Errors in a line for the screen; whole in a run's log."""

import logging
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.data import DamagedDataError
from trainables.errors import FatalRunError, one_line, run_log
from trainables.storage import StorageError
from vqcore.errors import ConfigError, DivergedError


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a/b"), "/a/b: No such file or directory"),
        (OSError(28, "No space left on device"), "the system: No space left on device"),
        (OSError("the server\nis gone"), "the server is gone"),
        (FatalRunError(5, "the storage is gone"), "the system: the storage is gone"),
        (ConfigError(["--x 1: must be 2", "--y 3: must be 4"]), "--x 1: must be 2 --y 3: must be 4"),
        (ValueError("a\n  b"), "ValueError: a b"),
        (OSError(), "OSError:"),
        (RuntimeError("x" * 900), "RuntimeError: " + "x" * 483 + "..."),
    ],
)
def test_any_error_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_a_line_ends_with_the_place_in_the_code() -> None:
    assert one_line(raised(KeyError("mse"))).startswith("KeyError: 'mse' (test_errors.py:")


def test_the_log_of_a_run_has_whole_tracebacks_and_warnings(tmp_path: Path) -> None:
    logger, handlers = logging.getLogger("someone.s.library"), list(logging.getLogger().handlers)
    for error in ("first", "after a resume"):
        with run_log(tmp_path) as path:
            logger.info("nothing of interest")
            warnings.warn("old-fashioned", DeprecationWarning, stacklevel=1)
            try:
                raise RuntimeError(error)
            except RuntimeError:
                logger.exception("it went wrong")
    logger.warning("after the run")
    text = path.read_text()
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError: first" in text
    assert "RuntimeError: after a resume" in text
    assert text.count("DeprecationWarning: old-fashioned") == 2
    assert "nothing of interest" not in text
    assert "after the run" not in text
    assert logging.getLogger().handlers == handlers


def test_a_full_disk_does_not_print_tracebacks(
    disk_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = disk_of("16k")
    with run_log(disk):
        for _ in range(50):
            logging.getLogger("x").warning("y" * 1000)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(["--x 1: must be 2", "--y 3: must be 4"]),
        StorageError(5, "gone", "s3://b"),
        DamagedDataError(5, "not what it was", "/a"),
        DivergedError("the loss is inf in epoch 2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_the_same_in_the_process_that_receives_it(error: Exception) -> None:
    received = pickle.loads(pickle.dumps(error))
    assert (type(received), str(received), received.args) == (type(error), str(error), error.args)

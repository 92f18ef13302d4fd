"""Everything that can be wrong with a sweep, found before its first trial and told at once."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from trainables.checkpoint import checkpoint_bytes
from trainables.runs import JOURNAL, NAME
from vqcore.config import ConfigError, TrialConfig

T = TypeVar("T")


class Problems:
    """Collects what several checks complain of."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def of(self, make: Callable[[], T]) -> T | None:
        """What ``make()`` gives; None, and its problems kept, if it raises ``ConfigError``."""
        try:
            return make()
        except ConfigError as error:
            self._told += error.problems
            return None

    def add(self, problem: str) -> None:
        """Keep a problem."""
        self._told.append(problem)

    def raise_any(self) -> None:
        """Raise one ``ConfigError`` with all that was kept, if anything was."""
        raise_any(self._told)


def raise_any(problems: Iterable[str]) -> None:
    """Raise one ``ConfigError`` with all of ``problems``, if there is any."""
    if told := list(problems):
        raise ConfigError(told)


def check_name(name: str, folder: Path) -> None:
    """``ConfigError`` unless ``name`` is a plain, new folder name."""
    if not NAME.fullmatch(name) or name == "latest":
        raise ConfigError(
            [
                f"--name {name!r}: must be letters, digits, '.', '_' and '-', starting with a letter or digit, "
                "100 at most, without path separators and not 'latest'; --out chooses the folder"
            ]
        )
    journal = folder / name / JOURNAL
    if journal.exists() and journal.stat().st_size:  # an empty one is of a run that was stopped before it began
        raise ConfigError([f"--name {name}: that run exists; --resume {name} goes on with it, or choose another name"])


def checkpoints_bytes(configs: tuple[TrialConfig, ...], slots: int, early: bool = False) -> int:
    """Disk that the checkpoints of a sweep take at most.

    One a trial that has ended; two a trial that has not, of which there are twice the slots in a grid's last turns and
    any number with ``early`` stopping; and a third in each slot, while it is written.
    """
    sizes = sorted((checkpoint_bytes(config) for config in configs), reverse=True)
    unended = len(sizes) if early else 2 * slots
    return sum(sizes) + sum(sizes[:unended]) + sum(sizes[:slots])

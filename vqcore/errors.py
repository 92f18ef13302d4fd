"""Errors: the problems of a configuration or a request, all at once; a training that diverged. Imports no torch."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, a line each: the value, the rule, the next step."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...]]]:
        return ConfigError, (self.problems,)  # else a process that receives it would make a problem of each letter


class DivergedError(ArithmeticError):
    """The loss is not finite any more; the message says where."""


def problems_of(make: Callable[[], object]) -> tuple[str, ...]:
    """The problems that ``make()`` raises as ``ConfigError``; none if it succeeds."""
    try:
        make()
    except ConfigError as error:
        return error.problems
    return ()


class Problems:
    """Collects the problems that several checks find, to raise them as one ``ConfigError``."""

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self._problems = list(problems)

    def of(self, make: Callable[[], T]) -> T | None:
        """The result of ``make()``; None, and its problems kept, if it raises ``ConfigError``."""
        try:
            return make()
        except ConfigError as error:
            self._problems += error.problems
            return None

    def add(self, *problems: str) -> None:
        """Keep problems."""
        self._problems += problems

    def raise_any(self) -> None:
        """Raise one ``ConfigError`` with all problems, if there are any."""
        if self._problems:
            raise ConfigError(self._problems)

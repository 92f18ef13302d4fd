"""What is wrong with what was asked, all of it at once. Imports nothing: processes without torch need it."""

from collections.abc import Callable, Iterable


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, a line each: the value, the rule, the next step."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


def problems_of(make: Callable[[], object]) -> tuple[str, ...]:
    """The problems that ``make()`` raises as ``ConfigError``; none if it succeeds."""
    try:
        make()
    except ConfigError as error:
        return error.problems
    return ()

"""Fields of configurations that are checked as they are made: each names its rule, and a broken one is told with it."""

import dataclasses
import sys
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, get_args

from vqcore.errors import ConfigError

MOST = 2**24
"""Of anything that a tensor is as large as; more overflows somewhere, and fits nowhere."""


def whole(default: int, least: int, most: int = MOST) -> Any:
    """A field that takes whole numbers."""
    rule = f"must be a whole number, {least} to {most:,}"
    return field(default=default, metadata={"rule": rule, "holds": lambda value: least <= value <= most})


def number(default: float, rule: str, holds: Callable[[float], bool]) -> Any:
    """A field that takes finite numbers."""
    return field(default=default, metadata={"rule": f"must be {rule}", "holds": holds})


def name_from(default: str, names: Callable[[], Iterable[str]]) -> Any:
    """A field that takes a name from a registry."""
    return field(default=default, metadata={"names": names})


def _broken_rule(one: dataclasses.Field[Any], value: Any) -> str:
    """The rule that the value of a field breaks; nothing if it keeps to it."""
    names = tuple(one.metadata["names"]()) if "names" in one.metadata else get_args(one.type)  # a Literal's
    if names:
        return "" if value in names else f"there are {', '.join(names)}"
    if one.type in (bool, str):
        return "" if isinstance(value, one.type) else f"must be {'true or false' if one.type is bool else 'text'}"
    number = isinstance(value, int if one.type is int else int | float) and not isinstance(value, bool)
    # compared, not converted: an integer may be no float at all
    fits = number and abs(value) <= sys.float_info.max and one.metadata["holds"](value)
    return "" if fits else one.metadata["rule"]


class Checked:
    """A dataclass that refuses to exist with problems."""

    def __post_init__(self) -> None:
        fields: list[dataclasses.Field[Any]] = [*dataclasses.fields(self)]  # type: ignore[arg-type]
        plain = {one: getattr(self, one.name) for one in fields if one.default is not dataclasses.MISSING}
        broken = [(one, rule) for one, value in plain.items() if (rule := _broken_rule(one, value))]
        problems = [f"{one.name} = {plain[one]!r}: {rule}" for one, rule in broken]
        if problems := [*problems, *self._contradictions()]:
            raise ConfigError(problems)
        for one, value in plain.items():
            if one.type is float:  # 1 and 1.0 are equal, and must give a trial one key
                object.__setattr__(self, one.name, float(value))

    def _contradictions(self) -> Iterable[str]:
        """Combinations that mean nothing, each with why."""
        return ()

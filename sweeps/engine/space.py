"""What a sweep varies and what it wants: values or ranges of flat configuration fields, and bounds on the results."""

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from vqcore.config import FIELDS, ConfigError, Scalar, TrialConfig, meaningless


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; of a field that counts, the whole ones."""

    low: float
    high: float
    log: bool = False
    """Even in the logarithm: as much between 0.1 and 1 as between 1 and 10."""

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


Choice = tuple[Scalar, ...] | Range
Space = Mapping[str, Choice]
"""By flat field name (``vqcore.config.FIELDS``)."""

SIZE = "parameters"
"""The column that is known before a training."""

MOST_CORNERS = 512
"""Combinations that are checked before a sweep; of more, as many are drawn, and every value among them."""

_KINDS = {name: type(value) for name, value in TrialConfig().flat().items()}
_NOT_SWEPT = {
    "seed": "repeats configurations and is not one of their fields; --seeds says how often",
    "epochs": "is the budget of all trials alike; --epochs sets it",
}


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, or on ``parameters``, the size of the model."""

    column: str
    relation: Literal["<=", ">="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Constraint":
        """``"perplexity >= 200"`` as a constraint. Raises ``ConfigError``."""
        match = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*", text)
        with suppress(ValueError):
            if match and math.isfinite(bound := float(match[3])):
                return cls(match[1], "<=" if match[2] == "<=" else ">=", bound)
        raise ConfigError([f"constraint {text!r}: must be a column, <= or >=, and a number, such as perplexity >= 200"])

    def violation(self, value: float) -> float:
        """By how much ``value`` misses the bound, as a share of it; 0 or less where it is met."""
        missed = value - self.bound if self.relation == "<=" else self.bound - value
        return missed / (abs(self.bound) or 1.0)  # Optuna adds those of several constraints, whatever their units

    def __str__(self) -> str:
        return f"{self.column} {self.relation} {self.bound:g}"


def resolve(base: TrialConfig, changes: Mapping[str, Scalar]) -> TrialConfig:
    """``base`` with flat fields changed; what then changes nothing is put back to its default.

    So two draws that differ only in a field without a meaning are one configuration, with one key. Raises
    ``ConfigError`` where the fields contradict each other.
    """
    before: dict[str, Any] = {}
    flat: dict[str, Any] = {**base.flat(), **changes}
    while flat != before:  # what is put back may have been what another field needed
        before, flat = flat, {**flat, **meaningless(flat)}
    return TrialConfig.from_flat(flat)


def check_space(space: Space, base: TrialConfig) -> None:
    """Raise ``ConfigError`` with everything that is wrong with varying ``space`` over ``base``."""
    problems = [] if space else ["space: nothing varies; name a field and its values, such as commitment_weight"]
    wrong = {name: tuple(choice_problems(name, choice)) for name, choice in space.items()}
    problems += itertools.chain(*wrong.values())
    sound = {name: choice for name, choice in space.items() if not wrong[name]}
    idle = dict.fromkeys(sound)
    for changes in corners(sound):
        try:
            without = meaningless(resolve(base, changes).flat())
            idle = {name: None for name in idle if name in without}
        except ConfigError as error:
            problems += error.problems
    if not problems:  # else those that were refused may be the ones in which a field has a meaning
        problems = [f"{name}: changes nothing here, whatever the others are; vary what it needs" for name in idle]
    if problems:
        raise ConfigError(problems)


def corners(space: Space) -> Iterator[dict[str, Scalar]]:
    """Combinations of all values and both ends of every range; at most ``MOST_CORNERS``, with every value in one."""
    ends = [(choice.low, choice.high) if isinstance(choice, Range) else choice for choice in space.values()]
    combined: Iterator[tuple[Scalar, ...]] = itertools.product(*ends)
    if math.prod(map(len, ends)) > MOST_CORNERS:
        rng = random.Random(0)
        columns = [list(itertools.islice(itertools.cycle(values), MOST_CORNERS)) for values in ends]
        combined = zip(*(rng.sample(column, MOST_CORNERS) for column in columns), strict=True)
    return (dict(zip(space, values, strict=True)) for values in combined)


def is_finite(space: Space) -> bool:
    """Whether the configurations can be listed: no field has a range of real numbers."""
    return all(isinstance(choice, tuple) or is_whole(name) for name, choice in space.items())


def every(space: Space, base: TrialConfig) -> Iterator[TrialConfig]:
    """All configurations of a finite space, each once; combinations that contradict themselves are left out."""
    values = [range(int(c.low), int(c.high) + 1) if isinstance(c, Range) else c for c in space.values()]
    configs: dict[TrialConfig, None] = {}
    for combination in itertools.product(*values):
        with suppress(ConfigError):
            configs[resolve(base, dict(zip(space, combination, strict=True)))] = None
    yield from configs


def contains(choice: Choice, value: Scalar) -> bool:
    """Whether ``value`` is one of a field's choices."""
    if isinstance(choice, tuple):
        return value in choice
    return _is_number(value) and choice.low <= float(value) <= choice.high


def numbers(choice: Choice) -> tuple[Scalar, ...]:
    """The numbers that a field chooses from, in order; none if it is a range, or chooses among words."""
    return tuple(sorted(choice)) if isinstance(choice, tuple) and all(map(_is_number, choice)) else ()


def is_whole(name: str) -> bool:
    """Whether a field counts."""
    return _KINDS[name] is int


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choice_problems(name: str, choice: Choice) -> Iterator[str]:
    """The first thing that is wrong with a field and its choice, if any."""
    if name not in _KINDS:
        yield f"{name}: no such field; there are {', '.join(FIELDS)}"
    elif name in _NOT_SWEPT:
        yield f"{name}: {_NOT_SWEPT[name]}"
    elif isinstance(choice, Range) and _KINDS[name] not in (int, float):
        yield f"{name}: a range is of numbers; name the values of {name} one by one"
    elif isinstance(choice, Range):
        if not _is_sound(choice, is_whole(name)):
            yield (
                f"{name} from {choice.low!r} to {choice.high!r}, log = {choice.log!r}: must go from a finite number up "
                "to a larger one, in whole numbers where the field counts; log is true or false, and true only above 0"
            )
    elif not choice:
        yield f"{name}: no values to sweep"
    elif len(set(choice)) < len(choice):
        yield f"{name} = {choice}: each value once; seeds repeat it"


def _is_sound(choice: Range, whole: bool) -> bool:
    return (
        all(_is_number(end) and math.isfinite(end) for end in (choice.low, choice.high))
        and not (whole and not (isinstance(choice.low, int) and isinstance(choice.high, int)))
        and choice.low < choice.high
        and isinstance(choice.log, bool)
        and not (choice.log and choice.low <= 0)
    )

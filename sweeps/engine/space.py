"""What a sweep varies: values or ranges of flat configuration fields, and the configurations they make.

Every field of a space can also be named by a share, a number in [0, 1): so that those who draw need not know whether it
is a word, a whole number or a rate. Numbers keep their order in it, and a logarithmic range is even in its logarithm.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

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

MOST_CORNERS = 512
"""Combinations that are checked before a sweep; of more, as many are drawn, and every value among them."""

_KINDS = {name: type(value) for name, value in TrialConfig().flat().items()}
_NOT_SWEPT = {
    "seed": "repeats configurations and is not one of their fields; --seeds says how often",
    "epochs": "is the budget of all trials alike; --epochs sets it",
}


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
    wrong = {name: tuple(_problems(name, choice)) for name, choice in space.items()}
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


def combinations(space: Space) -> int:
    """Of all values and both ends of every range."""
    return math.prod(map(len, _ends(space)))


def corners(space: Space) -> Iterator[dict[str, Scalar]]:
    """The ``combinations``; at most ``MOST_CORNERS``."""
    ends = _ends(space)
    combined: Iterator[tuple[Scalar, ...]] = itertools.product(*ends)
    if combinations(space) > MOST_CORNERS:
        rng = random.Random(0)
        often = [list(itertools.islice(itertools.cycle(values), MOST_CORNERS)) for values in ends]
        combined = zip(*(rng.sample(values, len(values)) for values in often), strict=True)
    return (dict(zip(space, values, strict=True)) for values in combined)


def is_finite(space: Space) -> bool:
    """Whether the configurations can be listed: no field has a range of real numbers."""
    return all(isinstance(choice, tuple) or _whole(name) for name, choice in space.items())


def every(space: Space, base: TrialConfig) -> Iterator[TrialConfig]:
    """All configurations of a finite space, each once; combinations that contradict themselves are left out."""
    values = [range(int(c.low), int(c.high) + 1) if isinstance(c, Range) else c for c in space.values()]
    seen: set[TrialConfig] = set()
    for combination in itertools.product(*values):
        try:
            config = resolve(base, dict(zip(space, combination, strict=True)))
        except ConfigError:
            continue
        if config not in seen:
            seen.add(config)
            yield config


def words(choice: Choice) -> int:
    """How many words a field chooses from: values without an order. 0 if it chooses numbers."""
    return len(choice) if isinstance(choice, tuple) and not all(map(_is_number, choice)) else 0


def value_at(name: str, choice: Choice, share: float) -> Scalar:
    """The value at ``share`` in [0, 1) of a field."""
    if isinstance(choice, tuple):
        return _ordered(choice)[min(int(share * len(choice)), len(choice) - 1)]
    whole, (low, high) = _whole(name), _edges(name, choice)
    value = low * (high / low) ** share if choice.log else low + share * (high - low)
    value = min(max(math.floor(value) if whole else value, choice.low), choice.high)
    return int(value) if whole else float(value)


def share_of(name: str, choice: Choice, value: Scalar) -> float | None:
    """Where ``value_at`` gives ``value``; None if it is none of the field's values."""
    if isinstance(choice, tuple):
        return _middles(name, choice).get(value)
    if isinstance(value, str | bool) or not choice.low <= value <= choice.high:
        return None
    (low, high), middle = _edges(name, choice), value + 0.5 * _whole(name)
    return math.log(middle / low) / math.log(high / low) if choice.log else (middle - low) / (high - low)


def _ends(space: Space) -> list[tuple[Scalar, ...]]:
    return [(choice.low, choice.high) if isinstance(choice, Range) else choice for choice in space.values()]


def _edges(name: str, choice: Range) -> tuple[float, float]:
    """A whole number n is the numbers from n to n + 1, so that the last one has its share too."""
    return float(choice.low), float(choice.high) + _whole(name)


def _ordered(choice: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    return choice if words(choice) else tuple(sorted(choice))


@cache
def _middles(name: str, choice: tuple[Scalar, ...]) -> dict[Scalar, float]:
    """The share of each value. ``name`` tells (1, 0) from (True, False), which are equal."""
    return {value: (place + 0.5) / len(choice) for place, value in enumerate(_ordered(choice))}


def _whole(name: str) -> bool:
    return _KINDS[name] is int


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _problems(name: str, choice: Choice) -> Iterator[str]:
    if name not in _KINDS:
        yield f"{name}: no such field; there are {', '.join(FIELDS)}"
    elif name in _NOT_SWEPT:
        yield f"{name}: {_NOT_SWEPT[name]}"
    elif isinstance(choice, Range):
        yield from _range_problems(name, choice)
    elif not choice:
        yield f"{name}: no values to sweep"
    elif len(set(choice)) < len(choice):
        yield f"{name} = {choice}: each value once; seeds repeat it"


def _range_problems(name: str, choice: Range) -> Iterator[str]:
    ends = (choice.low, choice.high)
    if _KINDS[name] not in (int, float):
        yield f"{name}: a range is of numbers; name the values of {name} one by one"
    elif not all(_is_number(end) and math.isfinite(end) for end in ends):
        yield f"{name} from {choice.low!r} to {choice.high!r}: both ends must be finite numbers"
    elif _whole(name) and not all(isinstance(end, int) for end in ends):
        yield f"{name} from {choice.low!r} to {choice.high!r}: both ends must be whole numbers"
    elif choice.low >= choice.high:
        yield f"{name} from {choice.low!r} to {choice.high!r}: the second end must be above the first"
    elif choice.log and choice.low <= 0:
        yield f"{name} from {choice.low!r} to {choice.high!r}: a logarithmic range must begin above 0"

"""What a sweep is to be good at: a column of the results and a direction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from analysis.columns import measured, named
from analysis.fronts import Direction
from vqcore.config import ConfigError

USUAL: dict[str, Direction] = {
    "mse": "min",
    "perplexity": "max",
    "usage": "max",
    "bits": "min",
}
"""The direction that is meant where none is said. ``bits`` is the rate of an image under an ideal entropy coder."""


@dataclass(frozen=True)
class Objective:
    """A column to be small or large."""

    column: str
    direction: Direction = "min"

    def minimised(self, metrics: Mapping[str, float]) -> float:
        """The column's value with the sign that makes less better; NaN if it is not there."""
        return self.signed(float(metrics.get(self.column, float("nan"))))

    def signed(self, value: float) -> float:
        """A value of the column with the sign that makes less better."""
        return value if self.direction == "min" else -value

    @property
    def name(self) -> str:
        """The column as people say it."""
        return named(self.column)

    @property
    def best(self) -> str:
        """The column at its best, in words: ``lowest MSE``."""
        return f"{'lowest' if self.direction == 'min' else 'highest'} {self.name}"

    @property
    def better(self) -> str:
        """The column where it is better, in words: ``lower MSE``."""
        return f"{'lower' if self.direction == 'min' else 'higher'} {self.name}"

    @property
    def unit(self) -> str:
        """What its values are of, to follow a number: ``on [-1, 1]``."""
        if self.column in ("mse", "bits"):
            return "on [-1, 1]" if self.column == "mse" else "bits an image"
        return "of the training set" if self.column.startswith("train_") else "of the whole test set"

    @property
    def measured(self) -> str:
        """Name, unit and set of images, for an axis."""
        return measured(self.column)

    def __str__(self) -> str:
        return f"{self.column}:{self.direction}"


DEFAULT = (Objective("mse", "min"), Objective("perplexity", "max"))
"""What is asked of a sweep that says nothing else."""


def objectives(words: Iterable[str]) -> tuple[Objective, ...]:
    """``["mse", "usage:max"]`` as objectives. ``ConfigError`` with every problem."""
    found: list[Objective] = []
    problems = []
    for word in words:
        column, _, direction = word.partition(":")
        direction = direction or USUAL.get(column, "")
        if direction not in get_args(Direction):
            problems.append(f"objective {word!r}: say whether less or more is better, as {column}:min or {column}:max")
        elif column in (objective.column for objective in found):
            problems.append(f"objective {word!r}: {column} is there already; name each column once")
        else:
            found.append(Objective(column, direction))  # type: ignore[arg-type]
    if not found and not problems:
        problems.append("objectives: none is given; mse perplexity is usual")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def recorded(words: Any) -> tuple[Objective, Objective]:
    """The two objectives of a run's front, from what it recorded: ``"mse:min bits:min"``.

    What is missing (all of it in older runs) or cannot be read comes from ``DEFAULT``.
    """
    try:
        asked = objectives(str(words or "").split())
    except ConfigError:
        asked = ()
    missing = (objective for objective in DEFAULT if objective.column not in {found.column for found in asked})
    first, second, *_ = (*asked, *missing)
    return first, second

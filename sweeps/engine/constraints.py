"""What a configuration must meet to be wanted: bounds on metrics, and on the size of the model."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from sweeps.engine.space import MOST_CORNERS, Range, Space, combinations, corners, resolve, words
from vqcore.config import ConfigError, ModelConfig, TrialConfig
from vqcore.vqvae import VQVAE, parameter_count

SIZE = "parameters"
"""The column that is known before a training."""


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


def parameters(config: TrialConfig) -> int:
    """Parameters of the model, counted without making it."""
    # the numbers that are no whole ones shape nothing: one count serves all their values
    shape = {name: value for name, value in config.flat().items() if not isinstance(value, float)}
    return _parameters(resolve(TrialConfig(), shape).model)


@lru_cache(maxsize=4096)
def _parameters(model: ModelConfig) -> int:
    with torch.device("meta"):
        return parameter_count(VQVAE(model))


def never_met(space: Space, base: TrialConfig, constraints: Sequence[Constraint]) -> Iterator[str]:
    """A line for each bound on the size of the model that no configuration of ``space`` over ``base`` keeps."""
    flat = base.flat()
    ends = {  # the model grows with every whole number: its extremes are at theirs
        name: choice if isinstance(choice, Range) or words(choice) else (min(choice), max(choice))
        for name, choice in space.items()
        if not isinstance(flat[name], float)
    }
    of_size = [constraint for constraint in constraints if constraint.column == SIZE]
    if not of_size or combinations(ends) > MOST_CORNERS:
        return
    sizes = {parameters(resolve(base, changes)) for changes in corners(ends)}
    for constraint in of_size:
        if all(constraint.violation(size) > 0 for size in sizes):
            span = f"{min(sizes):,} to {max(sizes):,}"
            yield f"constraint {constraint}: no configuration of this sweep meets it; they have {span} parameters"

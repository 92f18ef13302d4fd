"""What a sweep is: a base configuration, what varies, seeds."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vqcore.config import ConfigError, Scalar, TrialConfig


@dataclass(frozen=True)
class SweepSpec:
    """The trials of a sweep: the grid of ``space`` over ``base``, each with seeds 0 .. ``seeds`` - 1."""

    sweep: str
    """Name of the sweep, as in ``python -m sweeps.<sweep>``."""
    base: TrialConfig
    """What all trials share; its ``epochs`` is the budget of each."""
    space: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    """Values by flat field name (``vqcore.config.FIELDS``)."""
    seeds: int = 3
    """Repetitions of every configuration; the same seeds, and so the same data order, for all."""

    @property
    def swept(self) -> tuple[str, ...]:
        """Fields that vary, the seed aside."""
        return tuple(name for name, values in self.space.items() if len(values) > 1) or tuple(self.space)

    def configs(self) -> tuple[TrialConfig, ...]:
        """Every trial, seed by seed, so that a part of the sweep already compares all configurations.

        Raises ``ConfigError`` with the problems of all trials at once.
        """
        problems: list[str] = []
        if self.seeds < 1:
            problems.append(f"seeds = {self.seeds}: must be at least 1; 3 or more give an interval")
        problems += [f"{name}: no values to sweep" for name, values in self.space.items() if not values]
        problems += [
            f"{n} = {v}: each value once; seeds repeat it" for n, v in self.space.items() if len(set(v)) < len(v)
        ]
        configs: list[TrialConfig] = []
        for seed in range(max(1, self.seeds)):
            for values in itertools.product(*self.space.values()):
                changes: dict[str, Any] = dict(zip(self.space, values, strict=True))
                try:
                    configs.append(self.base.replace(**changes, seed=seed))
                except ConfigError as error:
                    problems += error.problems
        if problems:
            raise ConfigError(problems)
        return tuple(configs)

"""What a sweep is: what varies, how trials are chosen and stopped, how often each is repeated."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analysis.objectives import Objective, objectives
from sweeps.engine.space import Constraint, Range, Space, choice_problems, every
from sweeps.engine.stopping import Rule
from vqcore.config import Scalar, TrialConfig
from vqcore.errors import Problems

if TYPE_CHECKING:  # optuna and torch take seconds to import, which --help need not wait for
    from trainables.job import Collapse


Kind = Literal["tpe", "nsga2", "gp", "random"]
"""Optuna's samplers: tree-structured Parzen estimators, a genetic algorithm, Gaussian processes, chance."""

MOST_SEEDS, MOST_TRIALS = 1000, 10**6
"""Of what a sweep repeats and draws: more is a slip of the fingers, and would not end."""


@dataclass(frozen=True)
class Search:
    """How a sweep chooses its trials and stops them early. Without it every point of the grid is trained in full."""

    objectives: tuple[Objective, ...] = field(default_factory=lambda: objectives(["mse", "perplexity"]))
    sampler: Kind | None = None
    """Who draws configurations; None takes every point of the grid, in an order drawn by chance."""
    trials: int = 0
    """Configurations that the sampler draws; for each value of ``SweepSpec.stratify_by``."""
    rule: Rule | None = None
    """Early stopping; none trains every trial to its budget."""
    budget: int | None = None
    """Epochs that may be trained in all."""
    constraints: tuple[Constraint, ...] = ()
    """What a configuration must meet to be wanted."""
    warm_start: Path | None = None
    """The folder of a run whose trials the sampler knows from the beginning."""
    seed: int = 0
    """Of what is drawn by chance: configurations, the order of a grid."""
    collapse: Collapse | None = None
    """Whether a trial stops when its codebook collapses."""

    def summary(self) -> dict[str, str]:
        """The search for a reader of the results, by name."""
        return {
            "objectives": " ".join(map(str, self.objectives)),
            "sampler": self.sampler or "grid",
            "early_stopping": self.rule.name if self.rule else "none",
            "budget": str(self.budget or "none"),
            "constraints": "; ".join(map(str, self.constraints)),
        }


@dataclass(frozen=True)
class SweepSpec:
    """The trials of a sweep: points of ``space`` over ``base``, each with seeds 0 .. ``seeds`` - 1."""

    space: Space = field(default_factory=dict)
    """Values, or a range, by flat field name (``vqcore.config.FIELDS``)."""
    seeds: int = 3
    """Repetitions of a configuration; the same seeds, and so the same data order, for all. With a ``search`` one seed
    screens, and only what is near the front gets the others."""
    search: Search | None = None
    stratify_by: str = ""
    """A field each value of which gets a sampler and ``Search.trials`` trials of its own, for a fair comparison."""
    base: TrialConfig = field(default_factory=TrialConfig)
    """What all trials share; its ``epochs`` is the budget of each."""

    @property
    def swept(self) -> tuple[str, ...]:
        """Fields that vary, the seed aside."""
        varies = (name for name, values in self.space.items() if isinstance(values, Range) or len(values) > 1)
        return tuple(varies) or tuple(self.space)

    @property
    def drawn(self) -> bool:
        """Whether a sampler draws the configurations."""
        return self.search is not None and self.search.sampler is not None

    @property
    def strata(self) -> dict[Scalar, Space]:
        """The space of each value of ``stratify_by``, by that value; the whole under an empty name without it."""
        if not self.stratify_by:
            return {"": self.space}
        values = self.space[self.stratify_by]
        assert not isinstance(values, Range)
        return {value: {**self.space, self.stratify_by: (value,)} for value in values}

    @property
    def drawn_trials(self) -> int:
        """Configurations that samplers draw in all; 0 for a grid."""
        return self.search.trials * len(self.strata) if self.search and self.drawn else 0

    def expected_epochs(self, trials: int) -> int:
        """Epochs of so many trials in all, with early stopping or a budget, of which it leaves nothing."""
        epochs, search = self.base.training.epochs, self.search or Search()
        if search.budget is not None:
            return min(trials * epochs, search.budget)
        return search.rule.expected_epochs(trials, epochs) if search.rule else trials * epochs

    def tables(self) -> dict[str, Any]:
        """``space`` as TOML and MLflow hold it."""
        return {n: asdict(values) if isinstance(values, Range) else list(values) for n, values in self.space.items()}

    def configs(self) -> tuple[TrialConfig, ...]:
        """Every trial that is known beforehand: none if they are drawn, those of one seed if that screens.

        Seed by seed, so that a part of the sweep already compares all configurations. Raises ``ConfigError`` with the
        problems of all trials at once.
        """
        problems = Problems()
        if not 1 <= self.seeds <= MOST_SEEDS:
            problems.add(f"seeds = {self.seeds}: must be 1 to {MOST_SEEDS:,}; 3 to 10 are usual")
        for name, choice in self.space.items():
            problems.add(*choice_problems(name, choice))
            if isinstance(choice, Range) and not self.drawn:
                problems.add(f"{name}: a range has no grid; name its values, or let a sampler draw (--sampler tpe)")
        if self.search:
            problems.raise_any()
            return () if self.drawn else tuple(every(self.space, self.base))
        grid = {name: choice for name, choice in self.space.items() if not isinstance(choice, Range)}
        combined = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        configs = [problems.of(partial(self.base.replace, **changes)) for changes in combined]
        problems.raise_any()
        return tuple(config.replace(seed=seed) for seed in range(self.seeds) for config in configs if config)

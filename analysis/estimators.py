"""Estimators compared fairly: each at its best after the same search, on seeds that had no say in the choice.

One decay may suit one estimator and not another, so each tunes what it has to (Godbole et al. 2023, "Deep Learning
Tuning Playbook": scientific and nuisance hyperparameters). Of many tried, the best by one seed is in part the luckiest:
the seed that chose is left out of the test.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from analysis.columns import least
from analysis.comparisons import Comparison, paired, together
from analysis.estimates import Estimate
from analysis.groups import Group, described, seed_of
from analysis.objectives import Objective
from analysis.results import Results
from analysis.tuning import TuningCurve, tuning_curve
from trainables.journal import TrialRecord

LEAST = 3
"""Trials that an estimator must have tried to be compared as tuned."""
_ALIKE = 1.1
"""Budgets are called equal up to this ratio."""


@dataclass(frozen=True)
class Tuned:
    """One estimator, and what was tried and spent to tune it."""

    name: str
    tried: tuple[TrialRecord, ...]
    """The trials of the screening seed that have ended, stopped and failed ones included."""
    groups: tuple[Group, ...]
    """Its configurations that completed with the screening seed."""
    seed: int
    """The screening seed."""
    all_epochs: int
    """Epochs that all its trials were trained, those of further seeds included."""

    @property
    def epochs(self) -> int:
        """Epochs that the tuning took."""
        return sum(trial.last_epoch for trial in self.tried)

    def count(self, *statuses: str) -> int:
        """How many of the tried ended so."""
        return sum(trial.status in statuses for trial in self.tried)

    def best(self, objective: Objective) -> Group:
        """The configuration that the screening seed puts first. There must be one that completed."""
        return min(self.groups, key=lambda group: objective.signed(group.by_seed(objective.column)[self.seed]))

    def fresh(self, objective: Objective) -> dict[int, float]:
        """The values of its best configuration with the seeds that did not choose it."""
        by_seed = self.best(objective).by_seed(objective.column)
        return {seed: value for seed, value in by_seed.items() if seed != self.seed}

    def told(self, objective: Objective) -> Estimate:
        """What its best reaches: over the seeds that did not choose it, or with the one that did if there are none."""
        values = list(self.fresh(objective).values())
        screened = self.best(objective).by_seed(objective.column)[self.seed]
        return Estimate.of(values or [screened], least(objective.column))

    def curve(self, objective: Objective) -> TuningCurve:
        """The best after n trials. A trial that was stopped or failed was tried, and is as bad as can be."""
        reached = {
            trial.key: trial.epochs[group.epoch][objective.column] for group in self.groups for trial in group.trials
        }
        return tuning_curve([reached.get(trial.key, float("nan")) for trial in self.tried], objective.direction)


@dataclass(frozen=True)
class Duel:
    """Two estimators, each at its best by ``objective``."""

    objective: Objective
    one: Tuned
    other: Tuned
    comparison: Comparison

    @property
    def words(self) -> str:
        """One minus the other, and how much that is in standard deviations."""
        pair, difference = f"{self.one.name} minus {self.other.name}", self.comparison.difference
        if difference is None or difference.n < 2:
            return f"{pair} (too few seeds)"
        size = "" if self.comparison.effect is None else f"{self.comparison.effect:.1f} standard deviations, "
        return f"{pair} {difference.show(difference.mean)} ({size}n = {difference.n})"


@dataclass(frozen=True)
class Contest:
    """The estimators of a run that were tuned."""

    results: Results
    tuned: tuple[Tuned, ...]

    @cached_property
    def duels(self) -> list[Duel]:
        """Each pair by each objective, the better mean first; all of them corrected together."""
        pairs = [(objective, *pair) for objective in self.results.objectives for pair in self._pairs(objective)]
        compared = together([paired(one.fresh(objective), other.fresh(objective)) for objective, one, other in pairs])
        return [Duel(*pair, comparison) for pair, comparison in zip(pairs, compared, strict=True)]

    def ranked(self, objective: Objective) -> list[Tuned]:
        """The estimators, the best first."""
        return sorted(self.tuned, key=lambda one: objective.signed(one.told(objective).mean))

    def _pairs(self, objective: Objective) -> Iterator[tuple[Tuned, Tuned]]:
        return combinations(self.ranked(objective), 2)

    @property
    def seed(self) -> int:
        """The seed that chose."""
        return self.tuned[0].seed

    @property
    def searched(self) -> str:
        """The fields that were tuned, in words."""
        return ", ".join(name for name in self.results.swept if name != "estimator") or "nothing"


def contest(results: Results) -> Contest | None:
    """The estimators that were tuned; none unless two have at least ``LEAST`` trials and one of them completed."""
    if "estimator" not in results.swept or not results.groups:
        return None
    seed = min(seed_of(trial) for trial in results.trials)
    everyone = list(dict.fromkeys(_estimator(trial.config) for trial in results.trials))
    tuned = [_tuned(results, name, seed) for name in everyone]
    able = tuple(one for one in tuned if len(one.tried) >= LEAST and one.groups)
    return Contest(results, able) if len(able) > 1 else None


def _tuned(results: Results, name: str, seed: int) -> Tuned:
    trials = [trial for trial in results.trials if _estimator(trial.config) == name]
    tried = tuple(trial for trial in trials if seed_of(trial) == seed and trial.status != "running")
    groups = tuple(group for group in results.groups if _estimator(group.config) == name and seed in group.seeds)
    return Tuned(name, tried, groups, seed, sum(trial.last_epoch for trial in trials))


def _estimator(config: dict[str, Any]) -> str:
    return str(config.get("estimator", ""))


def estimator_words(results: Results) -> list[str]:
    """How the estimators compare, each at its best, and what each was given; nothing if none was tuned."""
    made = contest(results)
    if made is None:
        return []
    return [*(_ranking(made, objective) for objective in results.objectives), budget_words(made.tuned)]


def _ranking(made: Contest, objective: Objective) -> str:
    first, *_ = order = made.ranked(objective)
    named = "; ".join(f"{one.name} {one.told(objective).text}" for one in order)
    said = f"Estimators by {objective.name}, each at its best by seed {made.seed}: {named}."
    duels = [duel for duel in made.duels if duel.objective == objective and duel.one is first]
    if all(math.isnan(duel.comparison.p) for duel in duels):
        return f"{said} Fewer than two further seeds: an order, not a claim."
    apart, alike = ([duel for duel in duels if duel.comparison.told_apart is so] for so in (True, False))
    parts = [f" {what}: {'; '.join(d.words for d in some)}." for what, some in _verdicts(apart, alike) if some]
    return f"{said}{''.join(parts)}"


def _verdicts(apart: list[Duel], alike: list[Duel]) -> list[tuple[str, list[Duel]]]:
    how = "paired t tests over the other seeds, Holm's correction"
    return [(f"Told apart ({how})", apart), ("Not told apart" + ("" if apart else f" ({how})"), alike)]


def budget_words(tuned: Sequence[Tuned]) -> str:
    """What each estimator was given, and whether that was the same."""
    given = "; ".join(f"{one.name} {len(one.tried)} trials, {one.epochs:,} epochs" for one in tuned)
    counts = {"trials": [len(one.tried) for one in tuned], "epochs": [one.epochs for one in tuned]}
    uneven = [what for what, spent in counts.items() if max(spent) > _ALIKE * min(spent)]
    if not uneven:
        return f"Budget to tune each: {given}."
    differ = f"These differ by more than 10 % in {' and '.join(uneven)}: the comparison is not fair"
    return f"Budget to tune each: {given}. {differ}."


def configuration(group: Group, results: Results) -> str:
    """A group's label without its estimator."""
    return described(group.config, [name for name in results.swept if name != "estimator"]) or group.label

"""Estimators compared fairly: each at its best after the same search, on seeds that had no part in the choice.

One decay may suit one estimator and not another, so each tunes what it has to (Godbole et al. 2023, "Deep Learning
Tuning Playbook": scientific and nuisance hyperparameters). Of many tried, the best by one seed is in part the luckiest:
the seed that chose is left out of the test.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from analysis.layout import Row, Table
from analysis.objectives import Objective
from analysis.results import Group, Results, seed_of
from analysis.stats import Estimate, PairedTest, TuningCurve, corrected, paired_test, tuning_curve
from trainables.journal import TrialRecord
from trainables.runs import described

LEAST = 3
"""Trials that an estimator must have tried to be compared as tuned."""


@dataclass(frozen=True)
class TunedEstimator:
    """One estimator with the trials and epochs that tuned it."""

    name: str
    tried: tuple[TrialRecord, ...]
    """The trials of the screening seed that have ended, stopped and failed ones included."""
    groups: tuple[Group, ...]
    """Its configurations that completed with the screening seed."""
    seed: int
    """The screening seed."""

    @property
    def epochs(self) -> int:
        """Epochs that the tuning took."""
        return sum(trial.last_epoch for trial in self.tried)

    def best(self, objective: Objective) -> Group:
        """The configuration that the screening seed puts first. There must be one that completed."""
        return min(self.groups, key=lambda group: objective.signed(self.value(group, objective)))

    def value(self, group: Group, objective: Objective) -> float:
        """What a configuration has with the screening seed."""
        return (group.screening or group).by_seed(objective.column)[self.seed]

    def fresh(self, objective: Objective) -> dict[int, float]:
        """The values of its best configuration with the seeds that did not choose it."""
        by_seed = self.best(objective).by_seed(objective.column)
        return {seed: value for seed, value in by_seed.items() if seed != self.seed}

    def estimate(self, objective: Objective) -> Estimate:
        """Its best over the seeds that did not choose it, or with the one that did if there are none."""
        values = [*self.fresh(objective).values()] or [self.value(self.best(objective), objective)]
        return Estimate.of(values, objective.metric.least)

    def text(self, objective: Objective) -> str:
        """Mean ± sd of its best; the value of the seed that chose it, called so, if there is no other."""
        text = self.estimate(objective).text
        return text if self.fresh(objective) else f"{text} by seed {self.seed} alone"

    def curve(self, objective: Objective) -> TuningCurve:
        """The best after n trials. A trial that was stopped or failed was tried, and is as bad as can be."""
        screened = [trial for group in self.groups for trial in (group.screening or group).trials]
        reached = {trial.key: trial.epochs[self.groups[0].epoch][objective.column] for trial in screened}
        return tuning_curve([reached.get(trial.key, math.nan) for trial in self.tried], objective.direction)


@dataclass(frozen=True)
class EstimatorPair:
    """Two estimators, each at its best by ``objective``."""

    objective: Objective
    one: TunedEstimator
    other: TunedEstimator
    test: PairedTest

    @property
    def name(self) -> str:
        """The difference that is tested."""
        return f"{self.one.name} minus {self.other.name}"


@dataclass(frozen=True)
class EstimatorComparison:
    """The tuned estimators of a run."""

    results: Results
    tuned: tuple[TunedEstimator, ...]

    @cached_property
    def pairs(self) -> list[EstimatorPair]:
        """Each pair by each objective, the better mean first; all of them corrected together."""
        pairs = [(by, *pair) for by in self.results.objectives for pair in combinations(self.ranked(by), 2)]
        tests = corrected([paired_test(one.fresh(by), other.fresh(by)) for by, one, other in pairs])
        return [EstimatorPair(*pair, test) for pair, test in zip(pairs, tests, strict=True)]

    def ranked(self, objective: Objective) -> list[TunedEstimator]:
        """The estimators, the best first; last those whose best has only the seed that chose it."""

        def place(one: TunedEstimator) -> tuple[bool, float]:
            return not one.fresh(objective), objective.signed(one.estimate(objective).mean)

        return sorted(self.tuned, key=place)

    @property
    def seed(self) -> int:
        """The screening seed, which chose each estimator's best."""
        return self.tuned[0].seed

    @property
    def sampler_note(self) -> str:
        """A caveat to the tuning curves where a sampler chose each trial by those before it; else nothing."""
        sampler = str(self.results.metadata("sampler") or "grid")
        if sampler in ("grid", "random", "qmc"):
            return ""
        return f"The sampler ({sampler}) learned from earlier trials: this is of its trials in random order."

    @property
    def budget(self) -> str:
        """The trials and epochs of each estimator, and whether they are alike."""
        given = "; ".join(f"{one.name} {len(one.tried)} trials, {one.epochs:,} epochs" for one in self.tuned)
        counts = {"trials": [len(one.tried) for one in self.tuned], "epochs": [one.epochs for one in self.tuned]}
        uneven = " and ".join(kind for kind, spent in counts.items() if max(spent) > 1.1 * min(spent))
        unfair = f" These differ by more than 10 % in {uneven}: the comparison is not fair." if uneven else ""
        return f"Budget to tune each: {given}.{unfair}"


def estimator_comparison(results: Results) -> EstimatorComparison | None:
    """The tuned estimators; none unless two have at least ``LEAST`` trials and one of those completed."""
    if "estimator" not in results.swept or not results.groups:
        return None
    seed = min(seed_of(trial) for trial in results.trials)
    tuned = []
    ended = [trial for trial in results.trials if seed_of(trial) == seed and trial.status != "running"]
    for name in dict.fromkeys(str(trial.config.get("estimator")) for trial in ended):
        tried = tuple(trial for trial in ended if trial.config.get("estimator") == name)
        ours = (group for group in results.groups if group.estimator == name)
        groups = tuple(group for group in ours if seed in (group.screening or group).seeds)
        if len(tried) >= LEAST and groups:
            tuned.append(TunedEstimator(name, tried, groups, seed))
    return EstimatorComparison(results, tuple(tuned)) if len(tuned) > 1 else None


def estimator_sentences(results: Results) -> list[str]:
    """How the estimators compare, each at its best, and the budget of each; nothing if none was tuned."""
    comparison = estimator_comparison(results)
    if comparison is None:
        return []
    return [*(_ranking(comparison, objective) for objective in results.objectives), comparison.budget]


def _ranking(comparison: EstimatorComparison, objective: Objective) -> str:
    first, *_ = order = comparison.ranked(objective)
    named = "; ".join(f"{one.name} {one.text(objective)}" for one in order)
    how = f"each at its best by seed {comparison.seed}, over its other seeds"
    ranking = f"Estimators by {objective.name}, {how}: {named}."
    pairs = [pair for pair in comparison.pairs if pair.objective == objective and pair.one is first]
    if all(math.isnan(pair.test.p) for pair in pairs):
        return f"{ranking} Too few other seeds: an order, not a claim."
    for significant, told in ((True, "Told apart"), (False, "Not told apart, which does not mean equal")):
        if found := "; ".join(_difference(pair) for pair in pairs if pair.test.significant == significant):
            ranking += f" {told} (paired t tests, Holm's correction): {found}."
    return ranking


def _difference(pair: EstimatorPair) -> str:
    """``rotation is lower than ste by 0.0031 (n = 4)``."""
    difference = pair.test.difference
    if not difference.n:
        return f"{pair.one.name} and {pair.other.name} share no seed"
    lower = "lower" if difference.mean < 0 else "higher"
    by = difference.show(abs(difference.mean))
    return f"{pair.one.name} is {lower} than {pair.other.name} by {by} (n = {difference.n})"


def estimator_tables(results: Results) -> list[Table]:
    """Each estimator's best, and the tests; none unless two were tuned."""
    made = estimator_comparison(results)
    return [_best_table(made), _test_table(made)] if made else []


def _best_table(made: EstimatorComparison) -> Table:
    results, rows = made.results, list[Row]()
    searched = [name for name in results.swept if name != "estimator"]
    for objective in results.objectives:
        for one in made.ranked(objective):
            group, estimate = one.best(objective), one.estimate(objective)
            screened, fresh = one.value(group, objective), len(one.fresh(objective))
            label = described(group.config, searched) or group.label
            numbers = (estimate.text, estimate.interval_text()) if fresh else ("–", "–")
            rows.append((objective.name, one.name, label, estimate.show(screened), str(fresh), *numbers))
    columns = ("by", "estimator", "its best", f"seed {made.seed}", "n", "other seeds", "95 % interval")
    notes = (
        f"its best: of what it completed, the best with seed {made.seed}, which is left out of n and of the tests: of "
        "many tried, the best by one seed is in part the luckiest; intervals: each by itself",
        f"tuned for each estimator: {', '.join(searched) or 'nothing'}; {results.data}, after epoch {results.epoch}",
        made.budget,
    )
    return Table("Each estimator at its best", columns, tuple(rows), notes, left=3)


def _test_table(made: EstimatorComparison) -> Table:
    rows: list[Row] = []
    for pair in made.pairs:
        test, difference = pair.test, pair.test.difference
        p = "–" if math.isnan(test.adjusted) else f"{test.adjusted:.2g}"
        verdict = "too few seeds" if math.isnan(test.adjusted) else "yes" if test.significant else "no"
        numbers = (str(difference.n), difference.mean_text, difference.interval_text(test.confidence), p)
        rows.append((pair.objective.name, pair.name, *numbers, verdict))
    columns = ("by", "pair", "n", "difference", "interval", "p", "told apart")
    notes = (
        "paired over the n seeds that both have besides the one that chose; p: paired t tests, Holm's correction for "
        "all rows; intervals: all rows' together hold with 95 % (Bonferroni; Holm's test tells a little more apart)",
    )
    return Table("Told apart?", columns, tuple(rows), notes, left=2)

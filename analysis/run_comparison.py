"""Several runs at one epoch: what of their trials is equal to the last bit, and which differences are real.

The first run is the reference of the others. What is compared: the trials of the same configuration, seed and data, bit
by bit; the configurations that two runs share, paired by seed; and the fronts, by the area that they cover.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from analysis import fronts
from analysis.fronts import Point
from analysis.objectives import DEFAULT, Objective, reported
from analysis.results import Group, Results, seed_of
from analysis.stats import LEVEL, Estimate, PairedTest, SeedValues, corrected, paired_test
from trainables.journal import TrialRecord
from vqcore.config import TrialConfig

Configuration = frozenset[tuple[str, Any]]
"""A flat configuration without seed and epochs; a field that an older version did not have is at its default."""

NOT_TOLD_APART = "not told apart"
"""The verdict where the seeds' spread could make the difference."""

_DRAWS = 2000
_BEYOND = 0.1
"""How far beyond the worst seed the reference point of hypervolumes lies, as a share of the range."""


@dataclass(frozen=True)
class Run:
    """One of the runs compared."""

    letter: str
    results: Results
    """As it was recorded, except that its groups are compared after the epoch that all have."""
    obstacle: str = ""
    """Why it cannot be compared with the reference; empty if it can."""

    @property
    def name(self) -> str:
        """``beta_ablation/mine``."""
        return f"{self.results.record.sweep.get('sweep') or self.results.folder.parent.name}/{self.results.name}"

    def by_configuration(self, without: Iterable[str] = ()) -> dict[Configuration, Group]:
        """Its groups by their configuration, ``without`` some fields."""
        return {_configuration(group.config, without): group for group in self.results.groups}

    def fixed(self) -> dict[str, Any]:
        """The fields that are the same in all its groups."""
        each = [set(configuration) for configuration in self.by_configuration()]
        return dict(set.intersection(*each)) if each else {}


@dataclass(frozen=True)
class Replay:
    """The trials that a run has in common with the reference, those without an end among them."""

    letter: str
    trials: int
    """Pairs of trials of one configuration, seed and data, with an epoch that both have."""
    equal: int
    """Those of them whose metrics are all equal to the last bit, after each epoch that both have."""
    epochs: int
    """The epochs that were compared, of all pairs together."""


@dataclass(frozen=True)
class Effect:
    """One metric of a configuration in a run and in the reference."""

    letter: str
    label: str
    objective: Objective
    reference: Estimate
    """Over the seeds that both have."""
    test: PairedTest
    """The run minus the reference."""
    mean: bool = False
    """Whether it is the mean over the configurations that both have."""

    @property
    def equal(self) -> bool:
        """Whether no seed differs in the last bit."""
        return self.test.difference.n > 0 and not self.test.difference.mean and not self.test.difference.sd

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``not told apart``, or why there is none."""
        if self.equal:
            return "equal to the last bit"
        if math.isnan(self.test.p):
            return "no claim from one common seed" if self.test.difference.n else "no common seed"
        if not self.test.significant:
            return NOT_TOLD_APART
        return "better" if self.objective.signed(self.test.difference.mean) < 0 else "worse"


@dataclass(frozen=True)
class Cover:
    """The area that a run's front covers, as a share of the box between the best and the reference point."""

    letter: str
    share: float
    interval: tuple[float, float]
    lead: tuple[float, float, float] | None = None
    """What it covers more than the reference run, and the ends of that interval; none of the reference itself."""


@dataclass(frozen=True)
class Covers:
    """How much the fronts of several runs cover."""

    reference: Point
    """The point up to which areas are counted, in the units of both objectives."""
    each: tuple[Cover, ...]


def at_one_epoch(runs: Sequence[Results], letters: str) -> list[Run]:
    """The runs after the last epoch that all have, each with what stands in the way of a comparison, if anything."""
    obstacles = ["", *(_other_data(one, runs[0], letters[0]) for one in runs[1:])]
    alike = [results for results, obstacle in zip(runs, obstacles, strict=True) if not obstacle]
    epoch = max(set.intersection(*map(_epochs, alike)), default=0)
    if not epoch:
        none = f"no epoch is recorded of all compared trials of {', '.join(letters[: len(runs)])}"
        obstacles = [obstacle or none for obstacle in obstacles]
    return [
        Run(letter, results if obstacle else _after(results, epoch), obstacle)
        for letter, results, obstacle in zip(letters, runs, obstacles, strict=False)
    ]


def objectives_of(runs: Sequence[Run]) -> tuple[Objective, Objective]:
    """The objectives that all runs have; MSE and perplexity, which every trial reports, where they differ."""
    distinct = {run.results.objectives for run in runs}
    return distinct.pop() if len(distinct) == 1 else (DEFAULT[0], DEFAULT[1])


def changed(run: Run, reference: Run) -> list[str]:
    """The fields that each of the two has one value of, and not the same: what was changed from one to the other."""
    mine, theirs = run.fixed(), reference.fixed()
    return sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])


def replays(runs: Sequence[Run]) -> list[Replay]:
    """What each run repeats of the reference: the same configuration, seed and data, under another code or machine."""
    first, *others = (_trials(run.results) for run in runs)
    found = []
    for run, trials in zip(runs[1:], others, strict=True):
        epochs = [_compared(first[key], trials[key]) for key in first.keys() & trials.keys()]
        epochs = [equal for equal in epochs if equal]
        if epochs and not run.obstacle:
            found.append(Replay(run.letter, len(epochs), sum(map(all, epochs)), sum(map(len, epochs))))
    return found


def effects(runs: Sequence[Run]) -> list[Effect]:
    """Each configuration that a run shares with the reference, by both objectives, all tests corrected together.

    What was ``changed`` from one run to the other aside: it is then that whose effect is tested. Of a search only the
    seeds that count. Of several shared configurations also their mean, over the seeds that all of them have in both.
    """
    found = [one for run in runs[1:] if not run.obstacle for one in _effects(run, runs[0], objectives_of(runs))]
    usable = [one for one in found if not one.equal]
    tests = dict(zip(map(id, usable), corrected([one.test for one in usable]), strict=True))
    return [replace(one, test=tests.get(id(one), one.test)) for one in found]


def covers(runs: Sequence[Run]) -> Covers | None:
    """The area that each run's front covers, of its configurations with several seeds; none of less than two such runs.

    The reference point is the same for all: a tenth of the range beyond the worst seed in each objective. The intervals
    are from ``fronts.drawn_means``: draws for all runs at once, in which equal seeds move together. A front of noisy
    means covers more than that of the true ones, and that of their draws once more so. Hence an interval reaches over
    both, the quantiles of the draws and the same laid off from the estimate in the other direction (percentile and
    basic bootstrap, Davison and Hinkley 1997, chapter 5). Those of the leads hold together (Bonferroni).
    """
    aims = objectives_of(runs)
    directions = (aims[0].direction, aims[1].direction)
    usable = [run for run in runs if not run.obstacle and run.results.several]
    if runs[0] not in usable or len(usable) < 2:
        return None
    points = [[group.points(aims[0].column, aims[1].column) for group in run.results.several] for run in usable]
    ideal, reference = _box([place for of_run in points for by_seed in of_run for place in by_seed.values()], aims)
    box = abs((reference[0] - ideal[0]) * (reference[1] - ideal[1])) or 1.0
    draws_DCO = fronts.drawn_means([by_seed for of_run in points for by_seed in of_run], _DRAWS)

    def share(means: Iterable[Sequence[float]]) -> float:
        return fronts.hypervolume([(x, y) for x, y in means], reference, directions) / box

    shares = [share(_mean(by_seed) for by_seed in of_run) for of_run in points]
    ends = np.cumsum([0, *map(len, points)]).tolist()
    drawn_RD = [np.array([*map(share, draws_DCO[:, start:end].tolist())]) for start, end in pairwise(ends)]
    found: list[Cover] = []
    for run, value, drawn_D in zip(usable, shares, drawn_RD, strict=True):
        lead, level = value - shares[0], LEVEL / (len(usable) - 1)
        ahead = (lead, *_interval(lead, drawn_D - drawn_RD[0], level)) if found else None
        low, high = _interval(value, drawn_D, LEVEL)
        found.append(Cover(run.letter, value, (max(low, 0.0), high), ahead))
    return Covers(reference, tuple(found))


def _interval(estimate: float, drawn_D: fronts.Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn_D, [level / 2, 1 - level / 2]).tolist()
    return min(low, 2 * estimate - high), max(high, 2 * estimate - low)


def _box(points: Sequence[Point], aims: Sequence[Objective]) -> tuple[Point, Point]:
    """The best of each objective, and beyond the worst of each."""
    ideal, reference = [], []
    for axis, aim in enumerate(aims):
        values = sorted((point[axis] for point in points), key=aim.signed)
        ideal.append(values[0])
        reference.append(max(values[-1] + _BEYOND * (values[-1] - values[0]), aim.metric.least))
    return (ideal[0], ideal[1]), (reference[0], reference[1])


def _mean(by_seed: fronts.SeedPoints) -> Point:
    xs, ys = zip(*by_seed.values(), strict=True)
    return fmean(xs), fmean(ys)


def _other_data(results: Results, reference: Results, letter: str) -> str:
    """Why metrics of the two are not on one scale, if they are not: other images."""
    names = ("data_hash", "image_size")
    mine, theirs = ([results.metadata(name) for name in names] for results in (results, reference))
    if None in (mine[0], theirs[0]):
        return "the hash of its data, or that of the reference, is not recorded"
    if mine == theirs:
        return ""
    sizes = f" of {mine[1]} pixels" if mine[1] != theirs[1] else ""
    return f"its images are not those of {letter}: {results.data}{sizes}, hash {mine[0]}, and not {theirs[0]}"


def _epochs(results: Results) -> set[int]:
    """The epochs after which every compared trial has reported what is compared."""
    needed = {"mse", "perplexity", *results.columns}
    trials = [trial for group in results.groups for trial in (*group.trials, *filter(None, [group.screened]))]
    return set.intersection(*({e for e, report in trial.epochs.items() if needed <= report.keys()} for trial in trials))


def _after(results: Results, epoch: int) -> Results:
    return replace(results, epoch=epoch, groups=tuple(replace(group, epoch=epoch) for group in results.groups))


def _configuration(config: dict[str, Any], without: Iterable[str] = ()) -> Configuration:
    fields = {**TrialConfig().flat(), **config}
    return frozenset((name, value) for name, value in fields.items() if name not in ("seed", "epochs", *without))


def _trials(results: Results) -> dict[tuple[Configuration, int], TrialRecord]:
    return {(_configuration(trial.config), seed_of(trial)): trial for trial in results.trials}


def _compared(one: TrialRecord, other: TrialRecord) -> list[bool]:
    """Of each epoch that both have, whether every metric that both report is equal to the last bit."""
    measured = set(reported()) - {"seconds"}
    equal = []
    for epoch in one.epochs.keys() & other.epochs.keys():
        mine, theirs = one.epochs[epoch], other.epochs[epoch]
        names = measured & mine.keys() & theirs.keys()
        equal.append(bool(names) and all(mine[name] == theirs[name] for name in names))
    return equal


def _effects(run: Run, reference: Run, aims: Iterable[Objective]) -> Iterator[Effect]:
    names = changed(run, reference)
    mine, theirs = run.by_configuration(names), reference.by_configuration(names)
    both = [(mine[key], theirs[key]) for key in theirs if key in mine]
    both = [(one, other) for one, other in both if one.trials and other.trials]
    for aim in aims:
        pairs = [(one.by_seed(aim.column), other.by_seed(aim.column)) for one, other in both]
        for pair, (_, group) in zip(pairs, both, strict=True):
            yield _effect(run.letter, group.label, aim, *pair)
        seeds = set.intersection(*(one.keys() & other.keys() for one, other in pairs)) if pairs else set()
        if len(pairs) > 1 and len(seeds) > 1:
            means = ({seed: fmean(pair[side][seed] for pair in pairs) for seed in seeds} for side in (0, 1))
            yield replace(_effect(run.letter, f"all {len(pairs)}, on average", aim, *means), mean=True)


def _effect(letter: str, label: str, aim: Objective, mine: SeedValues, theirs: SeedValues) -> Effect:
    common = [theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    return Effect(letter, label, aim, Estimate.of(common, aim.metric.least), paired_test(mine, theirs))

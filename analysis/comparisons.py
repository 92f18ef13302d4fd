"""Comparing fairly: paired tests over shared seeds, corrected for how many there are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from analysis.estimates import Estimate
from analysis.student import t_p_value, t_quantile

# Shape suffixes: C configurations, S seeds.
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int_]

LEVEL = 0.05
"""The chance of a false rejection, of all comparisons together."""

BySeed = Mapping[int, float]
"""One configuration: a metric of each of its seeds. Equal seeds share initial weights and data order."""


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for being several: reject those at most 0.05, and a false rejection has a chance of 5 %.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the k-th smallest of m times m - k + 1, no
    smaller than the one before it, at most 1. A NaN was no test: it stays, and does not count.
    """
    adjusted = [math.nan] * len(p_values)
    tested = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__)
    highest = 0.0
    for k, i in enumerate(tested):
        highest = adjusted[i] = max(highest, min(1.0, p_values[i] * (len(tested) - k)))
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """Two configurations, seed by seed."""

    difference: Estimate | None
    """One minus the other over the seeds that both have, in the metric's unit; none if they share no seed, or if a
    value is not finite: that a trial failed is not a matter of means."""
    p: float
    """Two-sided, of the paired t test that the mean difference is 0; NaN from fewer than two shared seeds."""
    adjusted: float
    """``p``, corrected for the other comparisons (``holm``)."""
    together: int = 1
    """How many comparisons were tested together."""

    @property
    def told_apart(self) -> bool:
        """Whether the two differ by more than the seeds' spread, at 5 % for all comparisons together."""
        return self.adjusted <= LEVEL

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the mean difference; all of those made together hold with 95 % (Bonferroni).

        Holm's test tells a little more apart than these intervals do; it has no two-sided ones of its own.
        """
        return self.difference.interval_at(1 - LEVEL / self.together) if self.difference else None

    @property
    def effect(self) -> float | None:
        """Mean difference by its standard deviation over seeds, without the bias of few seeds; none from fewer than 3.

        Hedges 1981's correction of Cohen's d for paired values: mean / sd * J(n - 1), J(v) = gamma(v/2) / (sqrt(v/2)
        gamma((v - 1)/2)). Infinite for a difference that is the same for all seeds.
        """
        if self.difference is None or self.difference.sd is None or self.difference.n < 3:
            return None
        v = self.difference.n - 1
        bias = math.exp(math.lgamma(v / 2) - math.lgamma((v - 1) / 2)) / math.sqrt(v / 2)
        return bias * _ratio(self.difference.mean, self.difference.sd)


def paired(one: BySeed, other: BySeed) -> Comparison:
    """One configuration against another, as the only comparison."""
    differences = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    if not differences or not all(map(math.isfinite, differences)):
        return Comparison(None, math.nan, math.nan)
    difference = Estimate.of(differences)
    if difference.sd is None:
        return Comparison(difference, math.nan, math.nan)
    p = t_p_value(_ratio(difference.mean, difference.sd) * math.sqrt(difference.n), difference.n - 1)
    return Comparison(difference, p, p)


def against(one: BySeed, others: Iterable[BySeed]) -> list[Comparison]:
    """One configuration, chosen beforehand, against each of the others, corrected for their number.

    If ``one`` was chosen because it came out best, that is a choice among all pairs: use ``pairwise``, or other seeds
    than it was chosen by.
    """
    return together([paired(one, other) for other in others])


def pairwise(configurations: Sequence[BySeed]) -> dict[tuple[int, int], Comparison]:
    """Every pair (i, j), i < j: the i-th configuration against the j-th, corrected for the number of pairs."""
    pairs = list(combinations(range(len(configurations)), 2))
    compared = together([paired(configurations[i], configurations[j]) for i, j in pairs])
    return dict(zip(pairs, compared, strict=True))


def told_apart_from(place: int, configurations: Sequence[BySeed]) -> list[bool]:
    """Of each configuration, whether ``pairwise`` tells it apart from the one at ``place``; it from itself not.

    Two thousand configurations make two million pairs: here they are arrays, and Holm's test goes by t values.
    """
    seeds = sorted({seed for values in configurations for seed in values})
    there_CS = np.array([[seed in values for seed in seeds] for values in configurations], bool)
    values_CS = np.array([[values.get(seed, 0.0) for seed in seeds] for values in configurations], np.float64)
    tested: dict[int, list[Floats]] = {}
    for first in range(len(configurations)):
        later = slice(first + 1, None)
        t_C, freedom_C = _paired_t(values_CS[first], there_CS[first], values_CS[later], there_CS[later])
        for freedom in map(int, np.unique(freedom_C[freedom_C > 0])):
            tested.setdefault(freedom, []).append(t_C[freedom_C == freedom])
    needed = _holm_t({freedom: np.sort(np.concatenate(t)) for freedom, t in tested.items()})
    t_C, freedom_C = _paired_t(values_CS[place], there_CS[place], values_CS, there_CS)
    pairs = enumerate(zip(t_C.tolist(), freedom_C.tolist(), strict=True))
    return [other != place and freedom > 0 and t >= needed[freedom] for other, (t, freedom) in pairs]


def _paired_t(one_S: Floats, has_S: Bools, others_CS: Floats, have_CS: Bools) -> tuple[Floats, Ints]:
    """The t values of ``paired`` without their signs, and the degrees of freedom: 0 where nothing can be tested."""
    shared_CS = has_S & have_CS
    with np.errstate(all="ignore"):
        difference_CS = np.where(shared_CS, one_S - others_CS, 0.0)
        n_C = shared_CS.sum(axis=1)
        mean_C = difference_CS.sum(axis=1) / n_C
        off_CS = np.where(shared_CS, difference_CS - mean_C[:, None], 0.0)
        sd_C = np.sqrt((off_CS**2).sum(axis=1) / (n_C - 1))
        t_C = np.where(mean_C == 0, 0.0, np.abs(mean_C) / sd_C * np.sqrt(n_C))
    testable_C = (n_C > 1) & np.isfinite(difference_CS).all(axis=1)
    return t_C, np.where(testable_C, n_C - 1, 0)


def _holm_t(tested: Mapping[int, Floats]) -> dict[int, float]:
    """By degrees of freedom, the t value from which Holm's test rejects; of all that were tested, ascending.

    With k rejected, the next must have a p value of at most ``LEVEL`` / (m - k): those that have are rejected at once.
    """
    total, rejected = sum(map(len, tested.values())), 0
    while True:
        level = LEVEL / max(1, total - rejected)
        needed = {freedom: t_quantile(freedom, 1 - level) for freedom in tested}
        count = sum(len(t) - int(np.searchsorted(t, needed[freedom])) for freedom, t in tested.items())
        if count <= rejected:
            return needed
        rejected = count


def together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons, corrected for being several (``holm``)."""
    adjusted = holm([comparison.p for comparison in comparisons])
    tested = max(sum(not math.isnan(p) for p in adjusted), 1)
    return [replace(made, adjusted=p, together=tested) for made, p in zip(comparisons, adjusted, strict=True)]


def _ratio(mean: float, sd: float) -> float:
    return mean / sd if sd else math.copysign(math.inf, mean) if mean else 0.0

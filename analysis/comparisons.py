"""Comparing fairly: paired tests over shared seeds, corrected for how many there are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from analysis.estimates import Estimate
from analysis.student import t_p_value

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
        return self.adjusted <= 0.05

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the mean difference; all of those made together hold with 95 % (Bonferroni).

        Holm's test tells a little more apart than these intervals do; it has no two-sided ones of its own.
        """
        return self.difference.interval_at(1 - 0.05 / self.together) if self.difference else None

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


def together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons, corrected for being several (``holm``)."""
    adjusted = holm([comparison.p for comparison in comparisons])
    tested = max(sum(not math.isnan(p) for p in adjusted), 1)
    return [replace(made, adjusted=p, together=tested) for made, p in zip(comparisons, adjusted, strict=True)]


def _ratio(mean: float, sd: float) -> float:
    return mean / sd if sd else math.copysign(math.inf, mean) if mean else 0.0

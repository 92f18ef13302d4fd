"""Statistics of a few seeds and of many trials: estimates, intervals of whichever is picked, paired tests with Holm's
correction, tuning curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from statistics import fmean, variance
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, stdtr, stdtrit

from analysis.objectives import Direction, sign

# Shape suffixes: C configurations, O the two objectives, S seeds, V values (one a configuration and seed),
# P pairs of configurations, N trials that were run.
Floats = NDArray[np.float64]
Ints = NDArray[np.int_]

LEVEL = 0.05
"""The probability of a false rejection among all tests that are corrected together."""

POOLED = 5
"""Configurations, the nearest by their means, that tell together how far seeds spread. With 3 seeds each they leave 8
degrees of freedom for it where one alone leaves 2; more would be less alike."""

SeedValues = Mapping[int, float]
"""A metric of one configuration by seed. Equal seeds share initial weights and the order of the data."""


@cache
def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """Student's t that is exceeded, in either direction, with probability ``1 - confidence``: 4.3027 for 2 degrees."""
    return -float(stdtrit(freedom, (1 - confidence) / 2))


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, in the metric's unit."""

    mean: float
    sd: float | None
    """Sample standard deviation over seeds; none for one seed."""
    n: int
    least: float = -math.inf
    """The smallest possible value of the metric."""
    margin: float | None = None
    """Half the width of the interval where it is one of several that hold together (``simultaneous_margins``)."""

    @classmethod
    def of(cls, values: Sequence[float], least: float = -math.inf) -> "Estimate":
        """The estimate from one value a seed; from none its mean is NaN."""
        mean, n = fmean(values) if values else math.nan, len(values)
        # not statistics.stdev: exact fractions take most of the time where hundreds of pairs are compared
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return cls(mean, sd, n, least)

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """The mean's t interval, or that of its ``margin``, cut off at the least possible value; none for one seed.

        For m intervals that hold together with 95 %, ``confidence`` is 1 - 0.05 / m (Bonferroni).
        """
        if self.sd is None:
            return None
        half = t_quantile(self.n - 1, confidence) * self.sd / math.sqrt(self.n) if self.margin is None else self.margin
        return max(self.mean - half, self.least), self.mean + half

    def show(self, value: float) -> str:
        """``value`` with two digits of this estimate's spread; without a spread, with four digits of the mean."""
        if not math.isfinite(value):
            return "–"
        scale, digits = (self.sd, 2) if self.sd else (abs(self.mean), 4)
        decimals = min(max(digits - 1 - math.floor(math.log10(scale)), 0), 7) if scale else 1
        return f"{value:.{decimals}f}"

    @property
    def text(self) -> str:
        """Mean ± sd, or the bare value of one seed."""
        return self.mean_text + (f" ± {self.show(self.sd)}" if self.sd is not None else "")

    @property
    def mean_text(self) -> str:
        """The mean with as many decimals as its spread allows."""
        return self.show(self.mean)

    def interval_text(self, confidence: float = 0.95) -> str:
        """The interval in brackets, or ``one seed``; a dash of none."""
        interval = self.interval(confidence)
        return "[{}, {}]".format(*map(self.show, interval)) if interval else "one seed" if self.n else "–"

    def record(self, name: str) -> dict[str, float | None]:
        """Mean, sd and the ends of the 95 % interval under names of columns: ``mse_mean``, ``mse_sd``, ..."""
        low, high = self.interval() or (None, None)
        return {f"{name}_mean": self.mean, f"{name}_sd": self.sd, f"{name}_low": low, f"{name}_high": high}


def simultaneous_margins(configurations: Sequence[SeedValues], places: Sequence[tuple[float, float]]) -> list[float]:
    """Half the width of each one's interval around its mean; all of them hold together with 95 %.

    So the interval of whichever is picked holds: the best by any objective, the knee, all of a front. A report quotes
    several such picks, and its reader makes more. A method for one rule of picking would hold for that one alone, and
    needs a known covariance (conditional and hybrid inference on winners: Andrews, Kitagawa and McCloskey 2024) or more
    seeds to resample than the usual three (a bootstrap that repeats the selection).

    A value is taken as the sum of its configuration, its seed, which does something to all alike, and a rest, the last
    two normal. Their variances come from an additive fit to the ``POOLED`` configurations that are nearest in
    ``places``, the means of both objectives, each in units of its sd over the configurations. The rest is what luck
    picks by: its t quantile has Bonferroni's correction for all configurations that have a value. What a seed does to
    all picks none: its t quantile has none. The squares of the two margins are added (Graybill and Wang 1980).
    Pooling assumes that neighbours spread alike: where a configuration's own seeds spread more, it is widened to that.

    NaN for fewer than two seeds or a value that is not finite. Of one configuration it is the plain t interval's.
    ``benchmarks/selection.py`` measures how often it holds, and how wide it is.
    """
    usable = [by_seed if all(map(math.isfinite, by_seed.values())) else {} for by_seed in configurations]
    seeds = sorted(set().union(*usable))
    values_CS = np.array([[by_seed.get(seed, math.nan) for seed in seeds] for by_seed in usable], dtype=np.float64)
    confidence = 1 - LEVEL / max(sum(map(bool, usable)), 1)
    margins = [math.nan] * len(usable)
    several_C = np.array([c for c, by_seed in enumerate(usable) if len(by_seed) > 1], dtype=np.int_)
    if not len(several_C):
        return margins
    places_CO = np.array(places, dtype=np.float64)[several_C]
    scaled_CO = places_CO / np.where(places_CO.std(axis=0) > 0, places_CO.std(axis=0), 1.0)
    for c, place_O in zip(several_C.tolist(), scaled_CO, strict=True):
        nearest_C = several_C[np.argsort(((scaled_CO - place_O) ** 2).sum(axis=1), kind="stable")[:POOLED]]
        rest, shared = _variances(values_CS[nearest_C])
        t, t_shared = t_quantile(rest.freedom, confidence), t_quantile(shared.freedom)
        squared = t**2 * rest.value + t_shared**2 * shared.value
        own = variance(usable[c].values()) / ((rest.value + shared.value) or 1.0)
        margins[c] = math.sqrt(max(own, 1.0) * squared / len(usable[c]))
    return margins


class _Variance(NamedTuple):
    value: float
    freedom: int


def _variances(values_CS: Floats) -> tuple[_Variance, _Variance]:
    """Of a value's own luck, and of what its seed does to all; the second is 0 where the two cannot be told apart."""
    there_CS = np.isfinite(values_CS)
    weights_CS = there_CS / there_CS.sum(axis=1, keepdims=True)
    configurations_V, seeds_V = np.nonzero(there_CS)
    means_C = (np.nan_to_num(values_CS) * weights_CS).sum(axis=1)
    deviations_V = values_CS[there_CS] - means_C[configurations_V]
    marks_VS = np.eye(values_CS.shape[1])[seeds_V] - weights_CS[configurations_V]
    effects_S, _, rank, _ = np.linalg.lstsq(marks_VS, deviations_V, rcond=None)
    rest_V, freedom = deviations_V - marks_VS @ effects_S, len(deviations_V) - len(values_CS)
    total = float(deviations_V @ deviations_V) / freedom
    if freedom == rank:
        return _Variance(total, freedom), _Variance(0.0, freedom)
    rest = float(rest_V @ rest_V) / (freedom - rank)
    return _Variance(rest, int(freedom - rank)), _Variance(max(total - rest, 0.0), int(rank))


@dataclass(frozen=True)
class PairedTest:
    """Two configurations compared seed by seed."""

    difference: Estimate
    """The first minus the second over the seeds that both have, in the metric's unit; of no seed if a value is not
    finite, since a trial that failed is not a matter of means."""
    p: float
    """Two-sided, of the paired t test that the mean difference is 0; NaN from fewer than two shared seeds."""
    adjusted: float
    """``p`` corrected for the other tests (``holm``)."""
    tests: int = 1
    """The number of tests that were corrected together."""

    @property
    def significant(self) -> bool:
        """Whether the two differ by more than the seeds' spread, at 5 % for all tests together."""
        return self.adjusted <= LEVEL

    @property
    def confidence(self) -> float:
        """Of the interval of the mean difference, so that those of all tests together hold with 95 % (Bonferroni).

        Holm's test rejects a little more than these intervals exclude 0; it has no two-sided intervals of its own.
        """
        return 1 - LEVEL / self.tests


def paired_test(one: SeedValues, other: SeedValues) -> PairedTest:
    """One configuration against another, as the only test."""
    differences = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    difference = Estimate.of(differences if all(map(math.isfinite, differences)) else [])
    if difference.sd is None:
        return PairedTest(difference, math.nan, math.nan)
    error = difference.sd / math.sqrt(difference.n)
    t = abs(difference.mean) / error if error else math.inf if difference.mean else 0.0
    p = 2 * float(stdtr(difference.n - 1, -t))
    return PairedTest(difference, p, p)


def corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests, corrected for being several (``holm``)."""
    adjusted_P = holm(np.array([test.p for test in tests], dtype=np.float64))
    count = max(int(np.isfinite(adjusted_P).sum()), 1)
    return [replace(test, adjusted=p, tests=count) for test, p in zip(tests, adjusted_P.tolist(), strict=True)]


def significant_differences(place: int, configurations: Sequence[SeedValues]) -> list[bool]:
    """Of each configuration, whether it differs from the one at ``place``, with all pairs corrected together.

    All pairs, not those with ``place`` alone: it is the winner, chosen among them by the same numbers.
    """
    pairs = list(combinations(range(len(configurations)), 2))
    tests = corrected([paired_test(configurations[first], configurations[second]) for first, second in pairs])
    apart = {i for pair, test in zip(pairs, tests, strict=True) if place in pair and test.significant for i in pair}
    return [i in apart and i != place for i in range(len(configurations))]


def holm(p_P: Floats) -> Floats:
    """The p values adjusted for being several: reject those at most 0.05, and a false rejection has a chance of 5 %.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the k-th smallest of m times m - k + 1, no
    smaller than the one before it, at most 1. A NaN was no test: it stays, and does not count.
    """
    order = np.argsort(p_P, kind="stable")[: int(np.isfinite(p_P).sum())]  # NaN comes last
    adjusted_P = np.full(len(p_P), math.nan)
    adjusted_P[order] = np.maximum.accumulate(np.minimum(p_P[order] * np.arange(len(order), 0, -1), 1.0))
    return adjusted_P


def expected_best(values: Sequence[float], n: int, direction: Direction = "min") -> float:
    """The mean, over all ways to draw ``n`` of the trials, of the best value among them.

    Unbiased for n trials of the same random search: drawn without replacement, the i-th best of N counts
    C(N - i, n - 1) / C(N, n), so n is at most N (Tang et al. 2020, "Showing your work doesn't always work").

    A trial that failed, its value not finite, counts as much as the worst that did not; NaN if all failed. Where n is
    more than the failures, that makes no difference. ``ValueError`` if ``n`` is not possible.
    """
    if not 1 <= n <= len(values):
        raise ValueError(f"the best of {n} trials: there are {len(values)} to draw from")
    ordered_N = _best_first(values, direction)
    worst = ordered_N[np.isfinite(ordered_N)].max(initial=-math.inf)
    filled_N = np.where(np.isfinite(ordered_N), ordered_N, worst if np.isfinite(worst) else math.nan)
    worse_N = np.arange(len(values))[::-1]
    chances_N = np.exp(_log_choose(worse_N, n - 1) - _log_choose(np.array(len(values)), n))
    return sign(direction) * float(filled_N @ chances_N)


@dataclass(frozen=True)
class TuningCurve:
    """The best after 1, 2, ... trials of a random search, in the metric's unit; one value for each number of trials."""

    expected: tuple[float, ...]
    """``expected_best``."""
    median: tuple[float, ...]
    """The value that half of such searches reach; infinitely bad where half of them only fail."""
    low: tuple[float, ...]
    """The lower end of the median's 95 % interval; infinite where so many trials do not bound it."""
    high: tuple[float, ...]
    """The upper end of the median's 95 % interval; infinite where so many trials do not bound it."""


def tuning_curve(values: Sequence[float], direction: Direction = "min") -> TuningCurve:
    """The best after 1 trial, 2, and on to all of them: the same budget for each method compared.

    The median of the best of n is the quantile 1 - 0.5^(1/n) of single trials, and a quantile has an exact interval
    between two order statistics, whatever the distribution (the number of trials beyond it is binomial). So each n's
    interval holds with 95 % at least: Lourie et al. 2024, "Show your work with confidence", who also make them hold
    for all n at once. Trials that are not finite are the worst.

    Only a random search is such a curve's subject: no trial may depend on an earlier one.
    """
    counts = range(1, len(values) + 1)
    expected = tuple(expected_best(values, n, direction) for n in counts)
    ordered_N = _best_first(values, direction)
    ends = [sorted(sign(direction) * end for end in _median_of_best(ordered_N, n)) for n in counts]
    low, middle, high = (tuple(three[k] for three in ends) for k in range(3))
    return TuningCurve(expected, middle, low, high)


def _median_of_best(ordered_N: Floats, n: int) -> tuple[float, float, float]:
    """Lower end, estimate and upper end, of values that ascend from the best."""
    from scipy.stats import binom  # half a second, and only tables and pictures of tuning wait for it

    total, quantile = len(ordered_N), 1 - 0.5 ** (1 / n)
    # The l-th is beyond with P(fewer than l are), the u-th short of it with P(at least u are); either at most the tail.
    lower, upper = map(int, binom.ppf([0.025, 0.975], total, quantile))
    padded = np.concatenate([[-math.inf], ordered_N, [math.inf]])
    return float(padded[lower]), float(padded[max(math.ceil(quantile * total), 1)]), float(padded[upper + 1])


def _best_first(values: Sequence[float], direction: Direction) -> Floats:
    """Ascending from the best, their sign such that less is better; infinite where a trial failed."""
    signed = sign(direction) * np.asarray(values, dtype=np.float64)
    return np.sort(np.where(np.isfinite(signed), signed, math.inf))


def _log_choose(several: Ints, few: int) -> Floats:
    """log C(several, few); minus infinity where there are too few to choose from."""
    with np.errstate(all="ignore"):
        logs = gammaln(several + 1) - gammaln(few + 1) - gammaln(np.abs(several - few) + 1)
    return np.where(few <= several, logs, -math.inf)

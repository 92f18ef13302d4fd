"""What tuning is worth: the best value to be had after n trials of a random search, whatever n one can afford."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from analysis.fronts import Direction

# Shape suffixes: D draws, T numbers of trials, N the trials that were run.
Floats = NDArray[np.float64]
Ints = NDArray[np.int_]


def expected_best(values: Sequence[float], n: int, direction: Direction = "min", replacement: bool = False) -> float:
    """The mean, over all ways to draw ``n`` of the trials, of the best value among them.

    Without replacement, the default, it is unbiased for n trials of the same random search: the i-th best of N counts
    C(N - i, n - 1) / C(N, n), so n is at most N (Tang et al. 2020, "Showing your work doesn't always work"). With
    replacement it is that of Dodge et al. 2019, "Show your work", section 3.2: ((N - i + 1)/N)^n - ((N - i)/N)^n, for
    any n, and too pessimistic, the more so the nearer n comes to N.

    A trial that failed, its value not finite, counts as much as the worst that did not; NaN if all failed. Where n is
    more than the failures, and without replacement, that makes no difference. ``ValueError`` if ``n`` is not possible.
    """
    return float(_best_first(_filled(values, direction), direction) @ _weights(len(values), n, replacement))


def expected_interval(
    values: Sequence[float],
    n: int,
    direction: Direction = "min",
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """A bootstrap interval of ``expected_best``, without replacement, over the trials that there might have been.

    Too narrow unless ``n`` is far below the number of trials, since no resample knows a better trial than the best:
    simulated coverage of 95 % with 60 trials is 90 % for n = 1, 80 to 94 % for 5, 73 to 93 % for 10, 50 to 77 % for 30.
    ``tuning_curve`` has intervals that hold.
    """
    picks_DN = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    means_D = _best_first(_filled(values, direction)[picks_DN], direction) @ _weights(len(values), n, False)
    low, high = np.quantile(means_D, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class TuningCurve:
    """The best after 1, 2, ... trials of a random search, in the metric's unit; one value for each number of trials."""

    expected: tuple[float, ...]
    """``expected_best``."""
    median: tuple[float, ...]
    """What half of such searches reach; infinitely bad where half of them only fail."""
    low: tuple[float, ...]
    """The lower end of the median's interval; infinite where so many trials say nothing of it."""
    high: tuple[float, ...]
    """The upper end of the median's interval; infinite where so many trials say nothing of it."""


def tuning_curve(
    values: Sequence[float], direction: Direction = "min", most: int | None = None, confidence: float = 0.95
) -> TuningCurve:
    """The best after 1 trial, 2, and on to ``most`` (all, by default): the same budget for each method compared.

    The median of the best of n is the quantile 1 - 0.5^(1/n) of single trials, and a quantile has an exact interval
    between two order statistics, whatever the distribution (the number of trials beyond it is binomial). So each n's
    interval holds with ``confidence`` at least: Lourie et al. 2024, "Show your work with confidence", who also make
    them hold for all n at once. Trials that are not finite are the worst.

    Only a random search is such a curve's subject: no trial may know of an earlier one.
    """
    counts = range(1, (len(values) if most is None else min(most, len(values))) + 1)
    best_N = _best_first(_filled(values, direction), direction)
    expected = tuple(float(best_N @ _weights(len(values), n, False)) for n in counts)  # ``expected_best``
    sign, ordered_N = (1.0 if direction == "min" else -1.0), _ordered(values, direction)
    ends = [sorted(sign * end for end in _median_of_best(ordered_N, n, confidence)) for n in counts]
    low, middle, high = (tuple(three[k] for three in ends) for k in range(3))
    return TuningCurve(expected, middle, low, high)


def _median_of_best(ordered_N: Floats, n: int, confidence: float) -> tuple[float, float, float]:
    """Lower end, estimate and upper end, of values that ascend from the best."""
    total = len(ordered_N)
    share = 1 - 0.5 ** (1 / n)
    # so far from the middle that nothing is left: of ten thousand trials a few hundred numbers are enough
    reach = 20 + 10 * math.sqrt(total * share * (1 - share))
    least = max(0, math.floor(total * share - reach))
    k = np.arange(least, min(total, math.ceil(total * share + reach)) + 1)
    log_chances = _log_choose(np.array(total), k) + k * math.log(share) + (total - k) * math.log1p(-share)
    below = np.cumsum(np.exp(log_chances))  # P(at most k trials are beyond the quantile)
    tail = (1 - confidence) / 2
    # The l-th is beyond with P(fewer than l are), the u-th short of it with P(at least u are); either at most the tail.
    lower, upper = least + int(np.sum(below <= tail)), least + int(np.sum(below < 1 - tail)) + 1
    padded = np.concatenate([[-math.inf], ordered_N, [math.inf]])
    return float(padded[lower]), float(padded[max(math.ceil(share * total), 1)]), float(padded[upper])


def _ordered(values: Sequence[float], direction: Direction) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    return np.sort(np.where(np.isfinite(given), given if direction == "min" else -given, math.inf))


def _filled(values: Sequence[float], direction: Direction) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    finite = given[np.isfinite(given)]
    worst = (finite.max() if direction == "min" else finite.min()) if finite.size else math.nan
    return np.where(np.isfinite(given), given, worst)


def _best_first(values: Floats, direction: Direction) -> Floats:
    ascending: Floats = np.sort(values, axis=-1)
    return ascending if direction == "min" else ascending[..., ::-1]


def _weights(total: int, n: int, replacement: bool) -> Floats:
    """The chance of each, from the best of ``total`` to the worst, to be the best of n. They sum to 1."""
    if n < 1 or total < 1 or (n > total and not replacement):
        raise ValueError(f"the best of {n} trials: there are {total} to draw from, and without replacement no more")
    worse = np.arange(total)[::-1]
    if replacement:
        return ((worse + 1) / total) ** n - (worse / total) ** n
    return np.exp(_log_choose(worse, np.array(n - 1)) - _log_choose(np.array(total), np.array(n)))


def _log_choose(several: Ints, few: Ints) -> Floats:
    """log C(several, few); minus infinity where there are too few to choose from."""
    log_factorial = _log_factorials(int(max(several.max(), few.max())))
    logs = log_factorial[several] - log_factorial[few] - log_factorial[np.abs(several - few)]
    return np.where(few <= several, logs, -math.inf)


@lru_cache(maxsize=16)
def _log_factorials(most: int) -> Floats:
    return np.cumsum(np.log(np.maximum(np.arange(most + 1), 1)))

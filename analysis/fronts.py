"""Two objectives at once: fronts and their ranks, the area they cover, their knee, and how sure a front of means is.

The fronts of given points are exact, by a sort. For a front of means over a few seeds, the true means are drawn from
the distribution that the seeds leave for them (``drawn_means``), and the front is taken of every draw.
"""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from analysis.objectives import Direction, sign

# Shape suffixes: D draws, C configurations, A places, S seeds, R single residuals, O the two objectives.
Floats = NDArray[np.float64]

Point = tuple[float, float]
Directions = tuple[Direction, Direction]

DOUBT = 0.05
"""A configuration counts as on the front, or off it, where the other is less probable than this."""

DRAWS = 1000
"""Draws of the true means; the standard error of a probability is then at most 0.016."""

SeedPoints = Mapping[int, Point]
"""Both objectives of one configuration by seed. Equal seeds share initial weights and the order of the data."""


def _minimised(points: Sequence[Point], directions: Directions) -> list[Point]:
    first, second = map(sign, directions)
    return [(first * x, second * y) for x, y in points]


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def front(points: Sequence[Point], directions: Directions = ("min", "min")) -> list[int]:
    """Indices of the points that no other dominates, from the best in the first objective to the best in the second.

    A point dominates another if it is nowhere worse and somewhere better; equal points stay together, in their order.
    A point that is not finite is on no front.
    """
    values = _minimised(points, directions)
    finite = [i for i, point in enumerate(values) if _finite(point)]
    chosen: list[int] = []
    for i in sorted(finite, key=values.__getitem__):
        if not chosen or values[i][1] < values[chosen[-1]][1] or values[i] == values[chosen[-1]]:
            chosen.append(i)
    return chosen


def ranks(points: Sequence[Point], directions: Directions = ("min", "min")) -> list[int]:
    """How many fronts have to be taken away before a point is on one: 0 for ``front``, which equal points share.

    Points that are not finite share the rank after the last, never 0. A sort and a search: O(n log n), by Jensen 2003,
    "Reducing the run-time complexity of multiobjective EAs".
    """
    values = _minimised(points, directions)
    found: dict[Point, int] = {}
    # In this order a front dominates the next point if its last point is no worse in the second objective; the lasts
    # ascend from front to front, so the first front that does not is found by bisection.
    lasts: list[float] = []
    for point in sorted(filter(_finite, set(values))):
        rank = found[point] = bisect_right(lasts, point[1])
        lasts[rank : rank + 1] = [point[1]]
    after = max(len(lasts), 1)
    return [found.get(point, after) for point in values]


def crowding(points: Sequence[Point]) -> list[float]:
    """How far apart the neighbours of each point of a front are, summed over the objectives; the ends are infinite.

    Each objective is scaled to [0, 1] over the points: Deb et al. 2002, "A fast and elitist multiobjective genetic
    algorithm: NSGA-II", section III-B. There equal points crowd by the luck of a sort; here a repeat of an earlier
    point has 0, as has one that is not finite, and neither crowds the others.
    """
    distances = [0.0] * len(points)
    firsts = {points[i]: i for i in reversed(range(len(points))) if _finite(points[i])}
    for axis in (0, 1):
        order = sorted(firsts.values(), key=lambda i: points[i][axis])
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            gap = points[after][axis] - points[before][axis]
            distances[i] += gap / (points[order[-1]][axis] - points[order[0]][axis]) if gap else 0.0
        for end in order[:1] + order[-1:]:
            distances[end] = math.inf
    return distances


def best_first(points: Sequence[Point], directions: Directions = ("min", "min"), most: int | None = None) -> list[int]:
    """Indices, ordered as NSGA-II does: by rank, and within a rank by crowding, the loneliest first.

    All of them, or the first ``most``.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i, rank in enumerate(ranks(points, directions)):
        members[rank].append(i)
    ordered: list[int] = []
    for _, front_of_rank in sorted(members.items()):
        if most is not None and len(ordered) >= most:
            break
        lonely = crowding([points[i] for i in front_of_rank])
        ordered += [i for _, i in sorted(zip(lonely, front_of_rank, strict=True), key=lambda pair: -pair[0])]
    return ordered[:most]


def hypervolume(points: Sequence[Point], reference: Point, directions: Directions = ("min", "min")) -> float:
    """The area that the points dominate, up to ``reference``; points not better than it in both add nothing."""
    (right, top) = _minimised([reference], directions)[0]
    values = _minimised(points, directions)
    area, ceiling = 0.0, top
    for x, y in (values[i] for i in front(values)):
        if x < right and y < ceiling:
            area += (right - x) * (ceiling - y)
            ceiling = y
    return area


def knee(points: Sequence[Point], directions: Directions = ("min", "min")) -> int | None:
    """The index of the front's point farthest from the chord between the front's ends, towards the ideal corner.

    Both objectives are first scaled to [0, 1] over the front; this is the bulge of Das 1999, "On characterizing the
    'knee' of the Pareto curve based on Normal-Boundary Intersection". Where nothing bulges (two points, a straight or a
    hollow front) it is the end that is best in the first objective; of one point, that point; of none, ``None``.
    """
    chosen = front(points, directions)
    if not chosen:
        return None
    values = _minimised(points, directions)
    (x0, y1), (x1, y0) = values[chosen[0]], values[chosen[-1]]
    if x0 == x1:
        return chosen[0]

    def bulge(i: int) -> float:
        x, y = values[i]
        # Rounded, so that arithmetic dust on a straight front makes no knee.
        return round(1 - (x - x0) / (x1 - x0) - (y - y0) / (y1 - y0), 9)

    return max(chosen, key=bulge)


def probability_on_front(configurations: Sequence[SeedPoints], directions: Directions = ("min", "min")) -> list[float]:
    """The probability that no other configuration's true mean dominates each one's: its share of ``drawn_means``.

    NaN, for unknown, as long as no configuration has two seeds; 0 for one without a seed or with a value that is not
    finite.

    Simulated (40 to 100 configurations with one seed, the best 10 to all of them with 2, 3 or 5): of those below 0.05,
    at most 1 % were on the front, and of those above 0.95, 98 to 100 %. Between, it is cautious: of those in 0.8 to
    0.95, 91 to 96 % were.
    """
    draws_DCO = drawn_means(configurations).tolist()
    counts = Counter(i for draw in draws_DCO for i in front([(x, y) for x, y in draw], directions))
    unknown = not any(len(_usable(by_seed)) > 1 for by_seed in configurations)
    return [
        math.nan if unknown and _usable(by_seed) else counts[i] / len(draws_DCO)
        for i, by_seed in enumerate(configurations)
    ]


def settled(probabilities: Sequence[float]) -> bool:
    """Whether each is on the front, or off it, but for a probability of less than ``DOUBT``; false where unknown."""
    return all(p < DOUBT or p > 1 - DOUBT for p in probabilities)


def near_front(
    configurations: Sequence[SeedPoints],
    probabilities: Sequence[float],
    most: int,
    directions: Directions = ("min", "min"),
) -> list[int]:
    """The configurations worth another seed, the most worth first, at most ``most``.

    Those that are not ``settled``, the nearest to even odds first, and those that fewer than three seeds put on the
    front: the first of them chose, and no claim is made from one other. While the probabilities are unknown, the best
    of the means by rank, then by crowding.
    """
    if any(map(math.isnan, probabilities)):
        points = [_mean(_usable(by_seed)) for by_seed in configurations]
        return [i for i in best_first(points, directions) if math.isfinite(points[i][0])][:most]
    few = [len(by_seed) < 3 for by_seed in configurations]
    worth = [i for i, p in enumerate(probabilities) if p >= DOUBT and (p <= 1 - DOUBT or few[i])]
    return sorted(worth, key=lambda i: abs(probabilities[i] - 0.5))[:most]


def band(
    configurations: Sequence[SeedPoints], at: Sequence[float], directions: Directions = ("min", "min")
) -> tuple[Floats, Floats]:
    """The front as a curve: the 2.5 % and 97.5 % quantiles, at each place of the first objective, of the second.

    The quantiles are of what the draws (``drawn_means``) attain there, in the second objective's unit, low and high for
    each place; infinitely bad where so many draws attain nothing. This is the attainment surface of Fonseca and Fleming
    1996 and Grunert da Fonseca et al. 2001, with draws for runs; for one place at a time, not for all at once. Of
    configurations with several seeds only: among many single values the luckiest would pull the front. NaN if there is
    none.

    Simulated coverage of 95 % (10 to 150 configurations): 81 to 94 % with 2 seeds, 90 to 93 % with 3, 93 to 95 % with 5
    and 8, where the plain bootstrap has 46 to 52 %, 73 to 77 % and 82 to 90 %. The rest lies on the far side: of many
    configurations the luckiest look like the front.
    """
    several = [by_seed for by_seed in configurations if len(_usable(by_seed)) > 1]
    if not several:
        return np.full(len(at), math.nan), np.full(len(at), math.nan)
    first, second = map(sign, directions)
    means_DCO = drawn_means(several) * (first, second)
    attained_DA = np.array([_attained(means_CO, first * np.array(at)) for means_CO in means_DCO])
    # Of the draws, without interpolation: between a number and infinity there is none.
    best_A, worst_A = second * np.quantile(attained_DA, [0.025, 0.975], axis=0, method="inverted_cdf")
    return np.minimum(best_A, worst_A), np.maximum(best_A, worst_A)


def _attained(means_CO: Floats, at_A: Floats) -> Floats:
    """The least of the second objective among those that have at most ``at_A`` of the first; both down."""
    order_C = np.argsort(means_CO[:, 0])
    least_C = np.minimum.accumulate(means_CO[order_C, 1])
    reached_A = np.searchsorted(means_CO[order_C, 0], at_A, side="right")
    return np.where(reached_A > 0, least_C[reached_A - 1], np.inf)


def drawn_means(configurations: Sequence[SeedPoints], draws: int = DRAWS) -> Floats:
    """Draws of the configurations' true means given their seeds: (draws, configurations, 2), in the objectives' units.

    With n > 1 seeds: mean + t / sqrt(n (n - 1)) * sum over seeds of g[seed] * (value - mean). The weights g are
    standard normal and shared by all configurations in a draw, so that what a seed does to all of them cancels in their
    differences; t = sqrt((n - 1) / chi²(n - 1)). The difference of two configurations with the same seeds then follows
    exactly its paired Student's t. This is a smooth paired bootstrap; the plain one, which resamples seeds, has
    (n - 1) / n of the variance, three outcomes from 2 seeds, and does not know that its variance is a guess.

    With one seed there is no spread to see. The value is moved by a residual of a configuration that has several (as in
    Budszuhn et al. 2025, arXiv 2503.21495), times a normal weight and a t for the degrees of freedom of all residuals;
    nothing is assumed to cancel. Where the spread grows with the value, hand over logarithms: their order is the same.

    NaN where a configuration has no seed, a value that is not finite, or nothing that tells its spread.
    """
    rng = np.random.default_rng(0)
    usable = [_usable(by_seed) for by_seed in configurations]
    n_C = np.array([len(by_seed) for by_seed in usable], dtype=int)
    rows = {number: s for s, number in enumerate(sorted(set().union(*usable)))}
    means_CO: Floats = np.array([_mean(by_seed) for by_seed in usable]).reshape(-1, 2)
    residuals_SCO = np.full((len(rows), len(usable), 2), np.nan)
    for c, by_seed in enumerate(usable):
        for number, point in by_seed.items():
            residuals_SCO[rows[number], c] = np.array(point) - means_CO[c]

    moves_DCO = np.full((draws, len(usable), 2), np.nan)
    several, single = n_C > 1, n_C == 1
    if several.any():
        residuals_SCO, n = residuals_SCO[:, several], n_C[several]
        pool_RO = (residuals_SCO * np.sqrt(n / (n - 1))[:, None])[np.isfinite(residuals_SCO[..., 0])]
        moves_DCO[:, several] = _paired(rng, np.nan_to_num(residuals_SCO), n, draws)
        moves_DCO[:, single] = _pooled(rng, pool_RO, int((n - 1).sum()), (draws, int(single.sum())))
    return moves_DCO + means_CO


def _paired(rng: np.random.Generator, residuals_SCO: Floats, n_C: NDArray[np.int_], draws: int) -> Floats:
    weights_DS = rng.standard_normal((draws, len(residuals_SCO)))
    # One chi a draw for all: a cumulative sum of squares, so that it is nearly shared between unequal n, too.
    squares = rng.standard_normal((draws, n_C.max() - 1)) ** 2
    t_DC = 1 / np.sqrt(np.cumsum(squares, axis=1) / np.arange(1, n_C.max()))[:, n_C - 2]
    # Not a matrix product: its rounding depends on the column, and equal configurations have to stay equal.
    sums_DCO = np.zeros((draws, *residuals_SCO.shape[1:]))
    for weights_D, residuals_CO in zip(weights_DS.T, residuals_SCO, strict=True):
        sums_DCO += weights_D[:, None, None] * residuals_CO
    moves_DCO: Floats = sums_DCO * (t_DC / np.sqrt(n_C * (n_C - 1)))[..., None]
    return moves_DCO


def _pooled(rng: np.random.Generator, pool_RO: Floats, freedom: int, shape: tuple[int, int]) -> Floats:
    residuals_DCO = pool_RO[rng.integers(len(pool_RO), size=shape)]
    t_D = np.sqrt(freedom / rng.chisquare(freedom, shape[0]))
    moves_DCO: Floats = residuals_DCO * rng.standard_normal((*shape, 1)) * t_D[:, None, None]
    return moves_DCO


def _usable(by_seed: SeedPoints) -> SeedPoints:
    return by_seed if all(map(_finite, by_seed.values())) else {}


def _mean(by_seed: SeedPoints) -> Point:
    points = [by_seed[number] for number in sorted(by_seed)]
    if not points:
        return math.nan, math.nan
    # From the first value on, so that what is the same for all seeds, a fixed rate say, is its mean to the last digit.
    x, y = points[0]
    return x + fmean(point[0] - x for point in points), y + fmean(point[1] - y for point in points)

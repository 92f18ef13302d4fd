"""Two objectives at once: who is dominated by nobody, how much a front covers, and where it bends. Exact, by a sort."""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

Direction = Literal["min", "max"]
Point = tuple[float, float]
Directions = tuple[Direction, Direction]


def _minimised(points: Sequence[Point], directions: Directions) -> list[Point]:
    first, second = (1.0 if direction == "min" else -1.0 for direction in directions)
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


def contributions(points: Sequence[Point], reference: Point, directions: Directions = ("min", "min")) -> list[float]:
    """The area that each point of the front dominates alone, up to ``reference``; 0 for all other points.

    Equal points have 0: one of them can go and the area stays. What a dominated point would take over is not counted.
    """
    (right, top) = _minimised([reference], directions)[0]
    values = _minimised(points, directions)
    inside = (values[i] for i in front(values))
    steps = [(x, y) for x, y in dict.fromkeys(inside) if x < right and y < top]
    fence = [(-math.inf, top), *steps, (right, -math.inf)]
    neighbours = zip(fence, steps, fence[2:], strict=False)
    alone = {(x, y): (next_x - x) * (last_y - y) for (_, last_y), (x, y), (next_x, _) in neighbours}
    times = Counter(values)
    return [alone.get(point, 0.0) if times[point] == 1 else 0.0 for point in values]


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

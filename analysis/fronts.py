"""Two objectives at once: who is dominated by nobody, how much a front covers, and where it bends. Exact, by a sort."""

import math
from collections.abc import Sequence
from typing import Literal

Direction = Literal["min", "max"]
Point = tuple[float, float]
Directions = tuple[Direction, Direction]


def _minimised(points: Sequence[Point], directions: Directions) -> list[Point]:
    first, second = (1.0 if direction == "min" else -1.0 for direction in directions)
    return [(first * x, second * y) for x, y in points]


def front(points: Sequence[Point], directions: Directions = ("min", "min")) -> list[int]:
    """Indices of the points that no other dominates, from the best in the first objective to the best in the second.

    A point dominates another if it is nowhere worse and somewhere better; equal points stay together, in their order.
    A point that is not finite is on no front.
    """
    values = _minimised(points, directions)
    finite = [i for i, point in enumerate(values) if all(map(math.isfinite, point))]
    chosen: list[int] = []
    for i in sorted(finite, key=values.__getitem__):
        if not chosen or values[i][1] < values[chosen[-1]][1] or values[i] == values[chosen[-1]]:
            chosen.append(i)
    return chosen


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

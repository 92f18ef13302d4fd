"""Names beside points, none over another: each takes the emptiest of the places around its point."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

Label = tuple[str, float, float, str]
"""Text, x, y (in data), colour."""
Pixels = NDArray[np.float64]


def place(axes: Axes, labels: Sequence[Label], obstacles: Iterable[tuple[float, float]]) -> list[Annotation]:
    """Write the labels; ``obstacles`` are places in data coordinates to be kept clear as far as possible.

    Call it last: it measures texts in the layout as it stands.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    FigureCanvasAgg(figure)  # measures as it will be saved
    figure.draw_without_rendering()
    points = axes.transData.transform(np.array(list(obstacles)).reshape(-1, 2))
    taken: list[Bbox] = []
    placed = []
    for text, x, y, colour in labels:
        note = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", color=colour, size=8, ha="center", va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 4},
            parse_math=False, zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
        note.set_in_layout(False)
        half = np.array(note.get_window_extent().size) / 2
        centre, pixels = axes.transData.transform((x, y)), figure.dpi / 72
        boxes = {offset: _box(centre + np.array(offset) * pixels, half) for offset in _around(*half / pixels)}
        costs = {
            offset: 0.08 * math.hypot(*offset) + _crowding(box, _leader(centre, box), taken, points, axes.bbox)
            for offset, box in boxes.items()
        }
        best = min(costs, key=costs.__getitem__)
        note.set_position(best)
        taken.append(boxes[best])
        points = np.concatenate([points, _leader(centre, boxes[best])])
        placed.append(note)
    return placed


def _box(centre: Pixels, half: Pixels) -> Bbox:
    return Bbox(np.array([centre - half, centre + half]))


def _around(width: float, height: float) -> Iterable[tuple[float, float]]:
    """Offsets in points for a text of this half width and height, nearest first."""
    for gap in (5, 12, 22, 36, 55):
        for step in range(16):
            angle = step * math.pi / 8
            yield math.cos(angle) * (width + gap), math.sin(angle) * (height + gap)


def _leader(centre: Pixels, box: Bbox) -> Pixels:
    """Places along the line from a point to its name."""
    middle = (np.array(box.min) + np.array(box.max)) / 2
    return np.array(centre + np.linspace(0, 1, 16)[:, None] * (middle - centre))


def _crowding(box: Bbox, leader: Pixels, taken: Sequence[Bbox], points: Pixels, frame: Bbox) -> float:
    """How bad a place is: names under it or its line count most, then leaving the frame, then places with ink."""
    near = box.padded(4)
    covered = float(_inside(points, near).sum())
    struck = sum(bool(_inside(leader, other).any()) for other in taken)
    out = not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
    return 100.0 * (sum(map(near.overlaps, taken)) + struck) + min(covered, 20.0) + 60.0 * out


def _inside(points: Pixels, box: Bbox) -> NDArray[np.bool_]:
    left, low, right, high = box.extents
    x, y = points.T
    return np.asarray((left < x) & (x < right) & (low < y) & (y < high))

"""The look of the pictures: colours that everybody can tell apart, and titles that name the measurement."""

import math
import re
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.results import Group, Results
from analysis.snapshots import Shown, Snapshot

LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}

COLUMN = 3.25
"""The width of a paper's column, in inches."""

PAPER: Any = {
    "figure.figsize": (COLUMN, 2.4),
    "font.size": 7,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "vqsweep",  # equal pictures are equal files
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
}
"""matplotlib's settings (``matplotlib.rc_context``) for pictures of a paper's column, with fonts of 7 and 8 points."""

USED, DEAD, DATA = "#0072B2", "#D55E00", "0.75"
"""Of used codes, of codes that were never used, and of encoder outputs; each has a marker of its own as well."""

_USED: dict[str, Any] = {"color": USED, "marker": "o", "ls": "", "ms": 2, "mew": 0, "zorder": 4}
_DEAD: dict[str, Any] = {"color": DEAD, "marker": "x", "ls": "", "ms": 3, "mew": 0.4, "zorder": 3}
"""Larger than what is drawn over them, under which many may lie in one place."""

MOST_VECTORS = 300
"""Marks of a picture that are kept as shapes in SVG and PDF; more become pixels, and a page stays quick to turn."""

APART = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito 2008, without yellow, which is too light for lines on white."""


def estimator_colours(groups: Sequence[Group]) -> list[str]:
    """A colour a group: by its estimator where that is swept, else as ``shades``."""
    several = len({group.estimator for group in groups}) > 1
    return _by_estimator(groups, APART) if several else shades(groups)


def shades(groups: Collection[Any]) -> list[str]:
    """A colour each, such as a group: from dark to light in their order."""
    return [to_hex(colormaps["viridis"](0.8 * i / max(len(groups) - 1, 1))) for i in range(len(groups))]


def dashes(groups: Sequence[Group]) -> list[str]:
    """A line style a group: by its estimator."""
    return _by_estimator(groups, ("-", "--", ":", "-."))


def _by_estimator(groups: Sequence[Group], looks: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(group.estimator for group in groups))
    return [looks[names.index(group.estimator) % len(looks)] for group in groups]


def narrow() -> bool:
    """Whether pictures are made for a paper's column (``PAPER``)."""
    width: float = rcParams["figure.figsize"][0]
    return width <= COLUMN


def small() -> float:
    """The size of ticks, legends and notes, in points."""
    return 7 if narrow() else 8


def figure(width: float, height: float, column: float | None = None) -> Figure:
    """An empty figure, in inches, whose panels make room for what stands around them.

    In a paper's column it is as wide as that, and ``column`` high.
    """
    size = (COLUMN, column or height * COLUMN / width) if narrow() else (width, height)
    return Figure(figsize=size, layout="constrained")


def panels(figure: Figure, count: int, **settings: Any) -> list[Axes]:
    """Panels side by side; in a paper's column below each other."""
    rows, columns = (count, 1) if narrow() else (1, count)
    return list(figure.subplots(rows, columns, squeeze=False, **settings).flat)


def titles(axes: Axes, title: str, below: str) -> None:
    """A bold title and a plain line below it, never read as mathematics; in a paper they are left to its caption."""
    describe(axes.figure, title, below)
    if narrow():
        return
    lines = textwrap.wrap(below, 110, max_lines=3, placeholder=" …")
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "parse_math": False}
    text = axes.text(0, 1.02, "\n".join(lines), size=8, color="0.35", **place)
    text.set_in_layout(False)  # the title's pad keeps its height free, and its width may reach over the next panel
    axes.set_title(title, loc="left", size=10.5, weight="bold", pad=8 + 11 * len(lines), parse_math=False)


def heading(figure: Figure, title: str, below: str) -> None:
    """A title over all panels; in a paper it is left to its caption."""
    describe(figure, title, below)
    if not narrow():
        lines = "\n".join(textwrap.wrap(below, int(15.5 * figure.get_figwidth())))
        figure.suptitle(f"{title}\n{lines}", x=0.01, ha="left", size=9, parse_math=False)


def describe(figure: FigureBase, title: str, below: str) -> None:
    """Let the figure know its title and the sentences below it: the metadata of its file, and a caption."""
    figure.set_label(f"{title}\n{' '.join(below.split())}")


def finish(axes: Axes, across: str, up: str) -> None:
    """Name the axes, and leave only the two that carry numbers, on a light grid."""
    axes.set_xlabel(fitting(across, 42), size=small() + 1)
    axes.set_ylabel(fitting(up, _characters(axes)), size=small() + 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=small())
    axes.ticklabel_format(axis="y", useOffset=False)  # an offset would stand on the line below the title


def legend(figure: Figure, handles: Sequence[Artist], title: str | None = None, beside: bool = False) -> None:
    """A legend below the panels, in as many columns as its longest entry leaves; ``beside`` them on a screen."""
    look = {**LEGEND, "fontsize": small(), "title_fontsize": small()}
    if beside and not narrow():
        figure.legend(handles=list(handles), loc="outside right center", title=title, **look)
        return
    labels = [fitting(str(handle.get_label()), 52) for handle in handles]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    columns = max(1, int((18 if narrow() else 16) * figure.get_figwidth()) // (8 + longest))
    figure.legend(list(handles), labels, loc="outside lower left", title=title, ncols=columns, **look)
    if narrow():  # the panels keep their height
        lines = sum(label.count("\n") + 1 for label in labels) / columns + bool(title)
        figure.set_figheight(figure.get_figheight() + 0.1 + 0.135 * math.ceil(lines))


def _characters(axes: Axes) -> int:
    """How many fit along the height of a panel."""
    place = axes.get_subplotspec()
    rows = place.get_gridspec().nrows if place else 1
    return int(15 * (axes.figure.get_figure(root=True).get_figheight() / rows - 0.45))


def fitting(text: str, characters: int) -> str:
    """``text`` in lines of so many characters in a paper's column, else as it is; no-break spaces stay."""
    return textwrap.fill(re.sub(r"[ \n]+", " ", text), characters) if narrow() else text


def at(snapshot: Snapshot) -> str:
    """When a snapshot was taken."""
    return f"epoch {snapshot.epoch:,}" if snapshot.epoch else "before training"


def of(found: Shown) -> str:
    """Which trial is shown, as the end of a title; empty of a run with one."""
    return f", {found.label}" if found.label else ""


def codes(axes: Axes, places: NDArray[np.float64], used: NDArray[np.bool_]) -> None:
    """Codes at their places (K, 2): dots if they are used, crosses if not."""
    for these, look in ((~used, _DEAD), (used, _USED)):
        axes.plot(*places[these].T, **look, rasterized=len(places) > MOST_VECTORS)


def code_handles(counts: NDArray[np.int64] | None = None) -> list[Line2D]:
    """The entries of ``codes`` in a legend, with their numbers if ``counts`` are given."""
    numbers = ("", "") if counts is None else (f": {(counts > 0).sum():,}", f": {(counts == 0).sum():,}")
    words = ("used codes", "codes not used on the test set")
    looks = ({**_USED, "ms": 4}, {**_DEAD, "ms": 4})
    return [Line2D([], [], label=w + n, **look) for w, n, look in zip(words, numbers, looks, strict=True)]


def square(axes: Axes, points: NDArray[np.float64]) -> None:
    """A square around all ``points`` (N, 2), without numbers: the places of a projection have no unit."""
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    (x, y), half = (low + high) / 2, 0.54 * (high - low).max()
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("0.8")


def plain(name: str) -> str:
    """A name for a legend, which would read mathematics between two dollar signs."""
    return name.replace("$", r"\$")


def spread(results: Results, several: str) -> str:
    """``several``, the sentence on how spread is drawn, or that one seed has none."""
    return several if results.several else "One seed a configuration: an order, and no spread."

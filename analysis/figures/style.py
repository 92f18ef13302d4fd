"""The look of the pictures: colours that everybody can tell apart, and titles that name the measurement."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.results import Group, Results

LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}

APART = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito 2008, without yellow, which is too light for lines on white."""


def estimator_colours(groups: Sequence[Group]) -> list[str]:
    """A colour a group: by its estimator where that is swept, else as ``shades``."""
    several = len({group.estimator for group in groups}) > 1
    return _by_estimator(groups, APART) if several else shades(groups)


def shades(groups: Sequence[Group]) -> list[str]:
    """A colour a group: from dark to light in the groups' order."""
    return [to_hex(colormaps["viridis"](0.8 * i / max(len(groups) - 1, 1))) for i in range(len(groups))]


def dashes(groups: Sequence[Group]) -> list[str]:
    """A line style a group: by its estimator."""
    return _by_estimator(groups, ("-", "--", ":", "-."))


def _by_estimator(groups: Sequence[Group], looks: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(group.estimator for group in groups))
    return [looks[names.index(group.estimator) % len(looks)] for group in groups]


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose panels make room for what stands around them."""
    return Figure(figsize=(width, height), layout="constrained")


def titles(axes: Axes, title: str, below: str) -> None:
    """A bold title and a plain line below it, never read as mathematics."""
    lines = textwrap.wrap(below, 110, max_lines=3, placeholder=" …")
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "parse_math": False}
    text = axes.text(0, 1.02, "\n".join(lines), size=8, color="0.35", **place)
    text.set_in_layout(False)  # the title's pad keeps its height free, and its width may reach over the next panel
    axes.set_title(title, loc="left", size=10.5, weight="bold", pad=8 + 11 * len(lines), parse_math=False)


def finish(axes: Axes, across: str, up: str) -> None:
    """Name the axes, and leave only the two that carry numbers, on a light grid."""
    axes.set_xlabel(across, size=9)
    axes.set_ylabel(up, size=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.ticklabel_format(axis="y", useOffset=False)  # an offset would stand on the line below the title


def plain(name: str) -> str:
    """A name for a legend, which would read mathematics between two dollar signs."""
    return name.replace("$", r"\$")


def spread(results: Results, several: str) -> str:
    """``several``, the sentence on how spread is drawn, or that one seed has none."""
    return several if results.several else "One seed a configuration: an order, and no spread."

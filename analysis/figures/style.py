"""How the pictures look: colours that everybody can tell apart, and titles that say what was measured."""

import re
import textwrap
from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from analysis.groups import Group
from analysis.results import Results

DPI = 160
MOST = 12
"""So many configurations can be told apart by name or colour in one picture."""

# Okabe and Ito 2008, without yellow, which is too light for lines on white.
_APART = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")


def estimator_colours(groups: Sequence[Group]) -> list[str]:
    """A colour a group: by its estimator where that is swept, else as ``shades``."""
    names = list(dict.fromkeys(estimator(group) for group in groups))
    if len(names) < 2:
        return shades(groups)
    return [_APART[names.index(estimator(group)) % len(_APART)] for group in groups]


def by_estimator(groups: Sequence[Group]) -> dict[str, str]:
    """The colours of the estimators."""
    return dict(zip(map(estimator, groups), estimator_colours(groups), strict=True))


def shades(groups: Sequence[Group]) -> list[str]:
    """A colour a group: from dark to light in the groups' order, equal for groups that differ in the estimator only."""
    rest = [repr(sorted((k, v) for k, v in group.config.items() if k != "estimator")) for group in groups]
    order = list(dict.fromkeys(rest))
    if len(order) == 1:
        return [_APART[i % len(_APART)] for i in range(len(groups))]
    ramp = colormaps["viridis"]
    return [to_hex(ramp(0.8 * order.index(name) / (len(order) - 1))) for name in rest]


def dashes(groups: Sequence[Group]) -> list[str]:
    """A line style a group: by its estimator."""
    names = list(dict.fromkeys(estimator(group) for group in groups))
    return [LINES[names.index(estimator(group)) % len(LINES)] for group in groups]


def estimator(group: Group) -> str:
    """The name of a group's estimator."""
    return str(group.config.get("estimator", ""))


def titles(axes: Axes, title: str, below: str) -> None:
    """A bold title and a plain line below it, never read as mathematics."""
    lines = textwrap.wrap(below, 110, max_lines=3, placeholder=" …")
    words = "\n".join(lines)
    text = axes.text(0, 1.02, words, transform=axes.transAxes, size=8, color="0.35", va="bottom", parse_math=False)
    text.set_in_layout(False)  # the title's pad keeps its height free, and its width may reach over the next panel
    axes.set_title(title, loc="left", size=10.5, weight="bold", pad=8 + 11 * len(lines), parse_math=False)


def plain(name: str) -> str:
    """A name for a legend, which cannot be told not to read mathematics in it, nor to show what begins with ``_``."""
    return re.sub(r"^_", "\u2009_", name.replace("$", r"\$"))


def spread(results: Results, several: str) -> str:
    """How spread is drawn, in the words of ``several``; or that one seed has none."""
    one = all(len(group.seeds) == 1 for group in results.groups)
    return "One seed a configuration, so no spread." if one else several


def data(results: Results) -> str:
    """The data set's name, short enough for a title."""
    return results.data if len(results.data) <= 40 else results.data[:39] + "…"


def bare(axes: Axes) -> None:
    """Only the two axes that carry numbers, on a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)

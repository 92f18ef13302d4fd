"""How often each code is used, from the most used to the least: codes that are never used end a line early."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.results import Results
from analysis.snapshots import Counts, entropy, thinned
from analysis.snapshots import usage as last_usage

_LOG_FROM = 30
"""How many times as often as the least used code the most used one is, from which on the axis is logarithmic."""


def usage(results: Results) -> Figure | None:
    """A line a configuration; of a run with one, a line a snapshot. None if no trial kept how often codes are used."""
    lines, title = _lines(results)
    lines = {name: counts for name, counts in lines.items() if counts.sum()}
    if not lines:
        return None
    figure = style.figure(7.4, 4.6, 2.1)
    axes = figure.subplots()
    looks = zip(style.shades(lines), ("-", "--", ":", "-.") * len(lines), strict=False)
    for (name, counts), (colour, dash) in zip(lines.items(), looks, strict=False):
        _line(axes, f"{name}: {_in_words(counts)}", counts, colour, dash)
    sizes = {len(counts) for counts in lines.values()}
    if len(sizes) == 1:
        axes.axhline(1 / min(sizes), color="0.5", lw=0.8, ls=(0, (1, 2)), zorder=1, label="all codes alike")
    style.finish(axes, "codes, the most used first", "share of the test set's codes")
    if any(counts.max() > _LOG_FROM * counts[counts > 0].min() for counts in lines.values()):
        axes.set_yscale("log")
    axes.set_xlim(0, 1.02 * max(sizes))
    style.titles(
        axes,
        title,
        "Perplexity is 2 to the entropy of this distribution: so many codes, used alike, carry as much. A line ends at "
        "the last code that is used; dead codes are used nowhere in the test set.",
    )
    style.legend(figure, axes.lines, "entropy, perplexity of so many codes, dead codes")
    return figure


def _lines(results: Results) -> tuple[dict[str, Counts], str]:
    """The counts by what they are of, and a title."""
    found = results.shown
    if found.lost:
        return {}, ""
    if found.snapshots and len(results.groups) <= 1:
        lines = {style.at(one): one.counts for one in thinned(found.snapshots, 6)}
        return lines, f"Codes by use, by epoch: {results.data}{style.of(found)}"
    return dict(_by_group(results)), f"Codes by use: {results.data}, the lowest seed of each, after its last epoch"


def _by_group(results: Results) -> Iterator[tuple[str, Counts]]:
    for group in results.featured():
        for trial in (*group.trials, *filter(None, [group.screened])):
            if (counts := last_usage(results, trial)) is not None:
                yield group.label, counts
                break


def _line(axes: Axes, label: str, counts: Counts, colour: str, dash: str) -> None:
    shares = np.sort(counts[counts > 0])[::-1] / counts.sum()
    places = np.arange(1, len(shares) + 1)
    axes.plot(places, shares, color=colour, ls=dash, lw=1.4, label=style.plain(label), zorder=3)
    axes.scatter(places[-1:], shares[-1:], color=colour, s=14, zorder=4)


def _in_words(counts: Counts) -> str:
    bits, dead = entropy(counts), int((counts == 0).sum())
    words = f"{bits:.2f} bits, {2**bits:,.0f} of {len(counts):,}, "
    return words + (f"{dead:,} dead" if dead else "none dead")

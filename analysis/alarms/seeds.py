"""Alarms about claims that a few seeds do not carry."""

import math
from statistics import fmean, median

from analysis import fronts
from analysis.alarms.alarm import Alarm
from analysis.alarms.effects import as_text, mean_level, seed_noise
from analysis.effects import level
from analysis.layout import counted, enumerated
from analysis.results import Group, Results, ranked
from analysis.stats import POOLED

_SURE = 1.96 + 0.84
"""Standard errors between two means that a test at 5 % tells apart in four of five repetitions."""

_ODD = 3
"""Standard errors from its configuration's other seeds, beyond which a seed is odd."""

_MOST_SEEDS = 100


def best_within_noise(results: Results) -> Alarm | None:
    """The first three by the first aim, where another seed does more than all that lies between them."""
    aim = results.aims[0]
    order = ranked(results.several, aim)
    noise = seed_noise(order[:POOLED], aim.column).sd
    if len(order) < 3 or not noise > 0:
        return None
    first, second, third = order[:3]
    gaps = [mean_level(other, aim) - mean_level(first, aim) for other in (second, third)]
    if not noise > gaps[1]:
        return None
    fewest = min(len(group.seeds) for group in (first, second, third))
    needed = [_seeds(noise, gap) - fewest for gap in gaps]
    if needed[1] <= 0:
        return None
    return Alarm(
        "the best three are within the noise of a seed",
        f"By {aim.name} they lie within {as_text(aim.column, gaps[1])} of each other, and another seed alone "
        f"moves one by {as_text(aim.column, noise)} (sd): {first.label}; {second.label}; {third.label}.",
        f"Take any of them, or run more seeds: {_more(needed[1])} would tell the first from the third, "
        f"{_more(needed[0])} the first from the second.",
    )


def _seeds(noise: float, gap: float) -> float:
    """Seeds a configuration that tell a gap of two means from 0, by the normal approximation."""
    return math.ceil(2 * (_SURE * noise / gap) ** 2) if gap > noise / _MOST_SEEDS else math.inf


def _more(seeds: float) -> str:
    return f"about {max(int(seeds), 1)} more" if seeds <= _MOST_SEEDS else f"more than {_MOST_SEEDS}"


def front_of_one_seed(results: Results) -> Alarm | None:
    """Configurations that are on the front of the means by one odd seed, and off it in most of the others.

    Odd, since among configurations that lie close together some place always hangs on some seed.
    """
    found = {}
    if len(results.aims) > 1:
        on_front = [group for group in results.front if len(group.seeds) > 2]
        found = {group.label: seed for group in on_front if (seed := _deciding(results, group)) is not None}
    if not found:
        return None
    told = [f"{label} (seed {seed})" for label, seed in found.items()]
    return Alarm(
        "places on the front that one seed decides",
        f"{len(found)} of {counted(len(results.front), 'configuration')} on the front of the means would not be there "
        f"without one seed, which lies more than 3 sds of a seed from its others: {enumerated(told, most=3)}.",
        "Do not choose them by their place on the front before they have more seeds.",
    )


def _deciding(results: Results, group: Group) -> int | None:
    """The one odd seed without which a configuration leaves the front, if most seeds alone leave it off, too."""
    deciding = [seed for seed in group.seeds if not _on_front(results, group, {*group.seeds} - {seed})]
    alone = sum(_on_front(results, group, {seed}) for seed in group.seeds)
    if len(deciding) != 1 or 2 * alone >= len(group.seeds):
        return None
    return deciding[0] if any(_odd(results, group, deciding[0], aim.column) for aim in results.aims) else None


def _odd(results: Results, group: Group, seed: int, column: str) -> bool:
    """Whether a seed lies far from the others of its configuration, beside what it does to other configurations."""
    others = [other for other in results.several if other is not group and seed in other.seeds]
    noise = seed_noise(others, column)
    if noise.freedom < 2:
        return False
    usual = median(_deviation(other, seed, column) for other in others)
    error = noise.sd * math.sqrt(1 + 1 / (len(group.seeds) - 1))
    return abs(_deviation(group, seed, column) - usual) > _ODD * error


def _deviation(group: Group, seed: int, column: str) -> float:
    """How far a seed lies from the mean of the configuration's others, in ``level``."""
    levels = {other: level(column, value) for other, value in group.by_seed(column).items()}
    return levels[seed] - fmean(value for other, value in levels.items() if other != seed)


def _on_front(results: Results, group: Group, seeds: set[int]) -> bool:
    """Whether a configuration is on the front of the means over these seeds, among those that have one of them."""
    means = []
    for other in results.estimated:
        points = [point for seed, point in other.points(*results.columns).items() if seed in seeds]
        sums = [sum(values) for values in zip(*points, strict=True)] or [math.nan, math.nan]
        means.append((sums[0] / max(len(points), 1), sums[1] / max(len(points), 1)))
    return results.estimated.index(group) in fronts.front(means, results.directions)

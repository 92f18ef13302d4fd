"""What each swept field does to each objective, with intervals and a sentence that says what to conclude. Pure.

In a grid with seeds, every value of a field was tried with the same other fields and the same seed, so the values are
compared within each seed, as means over the other fields: the interval holds for other seeds, in this grid. In a search
they were not, so all fields are fitted at once, to the seed that screens: what a configuration is beyond their sum is
noise, too. Trials that were not trained in full are in the fit with draws of their forecast ends: without them, of bad
values only the luckiest trials would be left, and look good.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.special import fdtrc

from analysis.contrasts import Contrasts, paired, regression
from analysis.ends import ScreenedEnds, screened_ends
from analysis.layout import counted, enumerated
from analysis.objectives import Objective, metric_of, sign
from analysis.results import Results, estimator_first, once, seed_of
from analysis.stats import Floats
from trainables.runs import described, value_text

# Shape suffixes: N trials, M of them forecast, D draws, L values of a field, S seeds, B settings of the other fields.

_LISTED = 6
"""Numbers of a field in a search that are compared one by one; more are taken together by ranges."""

_A_RANGE = 12
"""Trials of a search for each range, of which there are two to four."""

_DEPENDS = 0.01
"""The p value below which an effect is said to depend on the other fields."""

_DRAWS = 20
"""Of the ends of trials that were not trained in full."""

_FAR = 20.0
"""Of a logarithm: what is further is shown as that."""

_TOGETHER = "intervals of all pairs of a field's values hold together with 95 % (Bonferroni)"


@dataclass(frozen=True)
class LevelEffect:
    """One value of a field, or a range of its values, against the best one."""

    label: str
    """``rotation``, ``0.25`` or ``0.05 to 0.31``."""
    low: float | None
    """The least of its numbers; None of words."""
    high: float | None
    """The most of its numbers; None of words."""
    trials: int
    mean: float
    """Of the objective over its trials, in the objective's unit; geometric where values are compared by their ratio."""
    difference: float
    """From the best, in ``FieldEffect.unit``: 0 of the best itself."""
    interval: tuple[float, float] | None
    """Of the difference; those of all values of the field hold together with 95 %, whichever is the best. None of the
    best, and where nothing tells the noise."""

    @property
    def told(self) -> bool:
        """Whether it differs from the best by more than noise."""
        return self.interval is not None and self.interval[0] * self.interval[1] > 0


@dataclass(frozen=True)
class FieldEffect:
    """What a field does to an objective."""

    field: str
    objective: Objective
    unit: str
    """Of the differences: ``%`` of the best one's value, or the objective's own."""
    levels: tuple[LevelEffect, ...]
    """In order: numbers ascend."""
    best: int
    """The place of the best among them."""
    told: bool
    """Whether any differs from the best by more than noise."""
    paired: bool
    """Whether values are compared within seeds."""
    sentence: str
    """What to conclude."""
    note: str
    """How it was found, and what it does not say."""


class _Row(NamedTuple):
    """A trial, or a configuration as the mean over its seeds."""

    config: dict[str, Any]
    seed: int
    values: tuple[float, ...]
    """Of the objective, as ``level``: one, or draws of it where the trial's end is forecast, as many for all rows."""


class _Levels(NamedTuple):
    """The values of a field, or ranges of them."""

    labels: list[str]
    ends: Sequence[tuple[float | None, float | None]]
    places: list[int]
    """Of each row, its place among them."""
    at: str
    """The word before a label in a sentence."""


class _Block(NamedTuple):
    """One setting of the other fields with every value and seed."""

    label: str
    values: Floats
    """(S, L)."""


def level(column: str, value: float) -> float:
    """A metric as it is compared: its logarithm where two values are compared by their ratio. NaN where it has none."""
    if not metric_of(column).ratio:
        return value
    return math.log(value) if value > 0 else math.nan


@once
def field_effects(results: Results) -> tuple[FieldEffect, ...]:
    """Every swept field with both objectives, the estimator first; nothing while no trial has an end to compare."""
    fields = estimator_first(results.swept)
    ends = screened_ends(results, results.objectives) if results.searched else None
    found = [
        effect
        for aim in results.objectives
        for effect in (_in_grid(results, aim, fields) if ends is None else _in_search(results, aim, fields, ends))
    ]
    return tuple(sorted(found, key=lambda effect: fields.index(effect.field)))


def _in_grid(results: Results, aim: Objective, fields: Sequence[str]) -> list[FieldEffect]:
    """Paired over seeds; where they are too few, by regression over the configurations."""
    rows = _rows(results, aim.column)
    by_regression = _fitted(aim, _means(rows), fields, len(rows), None)
    effects = []
    for name, otherwise in zip(fields, by_regression, strict=bool(rows)):
        levels = _levels([row.config.get(name) for row in rows], len(rows))
        blocks = _blocks(results, rows, levels, name) if len(levels.labels) > 1 else []
        contrasts = paired(np.mean([block.values for block in blocks], axis=0)) if blocks else None
        if contrasts is not None:
            otherwise = _effect(aim, name, rows, levels, contrasts, "", blocks, _paired_note(blocks))
        effects.append(otherwise)
    return effects


def _in_search(results: Results, aim: Objective, fields: Sequence[str], ends: ScreenedEnds) -> list[FieldEffect]:
    return _fitted(aim, _screened(results, aim, ends), fields, _LISTED, ends)


def _fitted(
    aim: Objective, rows: Sequence[_Row], fields: Sequence[str], listed: int, ends: ScreenedEnds | None
) -> list[FieldEffect]:
    """By regression on all fields; nothing of no row."""
    if not rows:
        return []
    levels = {name: _levels([row.config.get(name) for row in rows], listed) for name in fields}
    varied = [name for name in fields if len(levels[name].labels) > 1]
    marks = [np.eye(len(levels[name].labels))[levels[name].places] for name in varied]
    fits = regression(marks, np.array([row.values for row in rows]))
    found = dict(zip(varied, fits or [], strict=fits is not None))
    untold = f"noise by {counted(len(rows), 'configuration')}" if fits is None else "those of fields it varies with"
    note = _regression_note(rows, fits is not None, ends)
    return [_effect(aim, name, rows, levels[name], found.get(name), untold, [], note) for name in fields]


def _rows(results: Results, column: str) -> list[_Row]:
    """The trials of a grid that are compared."""
    rows = []
    for group in results.groups:
        for seed, value in group.by_seed(column).items():
            if math.isfinite(as_compared := level(column, value)):
                rows.append(_Row(group.config, seed, (as_compared,)))
    return rows


def _means(rows: Sequence[_Row]) -> list[_Row]:
    """One row a configuration."""
    by_config: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        by_config[id(row.config)].append(row)
    return [some[0]._replace(values=(fmean(row.values[0] for row in some),)) for some in by_config.values()]


def _screened(results: Results, aim: Objective, ends: ScreenedEnds) -> list[_Row]:
    """The trials of a search's first seed, recorded and forecast."""
    column = results.objectives.index(aim)
    means_M, deviations_M = ends.ends.means[:, column], ends.ends.deviations[:, column]
    draws = _DRAWS if ends.forecast else 1
    drawn_MD = means_M[:, None] + deviations_M[:, None] * np.random.default_rng(0).normal(size=(len(means_M), draws))
    known_ND = np.repeat(ends.values[:, column : column + 1], draws, axis=1)
    trials = (*ends.recorded, *ends.forecast)
    values_ND = sign(aim.direction) * np.concatenate([known_ND, drawn_MD])  # from "less is better" to the metric
    return [
        _Row(trial.config, seed_of(trial), tuple(values_D))
        for trial, values_D in zip(trials, values_ND.tolist(), strict=True)
    ]


def _levels(values: Sequence[Any], listed: int) -> _Levels:
    """The values one by one; of more than ``listed`` numbers ranges that hold as many trials each."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = sorted(set(values)) if numeric else sorted(set(values), key=str)
    if not numeric or len(distinct) <= listed:
        labels = [value_text(value) for value in distinct]
        ends = [(float(value), float(value)) if numeric else (None, None) for value in distinct]
        places = {value: place for place, value in enumerate(distinct)}
        return _Levels(labels, ends, [places[value] for value in values], "at" if numeric else "with")
    ranges = min(4, max(2, len(values) // _A_RANGE))
    numbers_N = np.array(values, dtype=np.float64)
    edges = np.quantile(numbers_N, np.arange(1, ranges) / ranges)
    _, of_N = np.unique(np.searchsorted(edges, numbers_N, side="right"), return_inverse=True)
    members = [numbers_N[of_N == place] for place in range(of_N.max() + 1)]
    spans: list[tuple[float | None, float | None]] = [(float(some.min()), float(some.max())) for some in members]
    return _Levels([f"{low:.3g} to {high:.3g}" for low, high in spans], spans, of_N.tolist(), "at")


def _blocks(results: Results, rows: Sequence[_Row], levels: _Levels, name: str) -> list[_Block]:
    """The settings of the other fields in which all values completed with the same two seeds or more."""
    others: dict[frozenset[tuple[str, Any]], dict[int, dict[int, _Row]]] = defaultdict(lambda: defaultdict(dict))
    for row, place in zip(rows, levels.places, strict=True):
        others[frozenset(item for item in row.config.items() if item[0] != name)][row.seed][place] = row
    whole = {
        other: {seed for seed, of_seed in seeds.items() if len(of_seed) == len(levels.labels)}
        for other, seeds in others.items()
    }
    by_number = [seed for seed, _ in Counter(chain(*whole.values())).most_common()]
    chosen, kept = list[int](), list[frozenset[tuple[str, Any]]]()
    for count in range(2, len(by_number) + 1):  # in a run that is not finished fewer seeds may have more blocks
        some = [other for other, seeds in whole.items() if seeds.issuperset(by_number[:count])]
        if (count - 1) * len(some) > (len(chosen) - 1) * len(kept):
            chosen, kept = by_number[:count], some
    names = [field for field in estimator_first(results.swept) if field != name]
    blocks = []
    for other in kept:
        values = [[row.values[0] for _, row in sorted(others[other][seed].items())] for seed in chosen]
        blocks.append(_Block(described(dict(other), names), np.array(values)))
    return blocks


def _effect(
    aim: Objective,
    name: str,
    rows: Sequence[_Row],
    levels: _Levels,
    contrasts: Contrasts | None,
    untold: str,
    blocks: Sequence[_Block],
    note: str,
) -> FieldEffect:
    """``untold``: from what the effect cannot be told, where there are no ``contrasts``."""
    ratio = aim.metric.ratio
    members: list[list[float]] = [[] for _ in levels.labels]
    for row, place in zip(rows, levels.places, strict=True):
        members[place].append(fmean(row.values))
    means = [fmean(some) for some in members]
    effects = means if contrasts is None else contrasts.effects.tolist()
    best = min(range(len(effects)), key=lambda place: aim.signed(effects[place]))
    found = []
    for place, (label, (low, high)) in enumerate(zip(levels.labels, levels.ends, strict=True)):
        interval = None
        if contrasts is not None and place != best:
            least, most = contrasts.interval(place, best)
            interval = _shown(ratio, least), _shown(ratio, most)
        difference = _shown(ratio, effects[place] - effects[best])
        mean = math.exp(means[place]) if ratio else means[place]
        found.append(LevelEffect(label, low, high, len(members[place]), mean, difference, interval))
    apart = [place for place, one in enumerate(found) if one.told]
    far = max(apart or range(len(found)), key=lambda place: abs(effects[place] - effects[best]))
    said = _sentence(aim, levels.at, found, best, far, untold) + _dependence(aim, levels, blocks, best, far)
    unit = "%" if ratio else aim.metric.scale
    sentence = f"{name.replace('_', ' ')}: {said}"
    return FieldEffect(name, aim, unit, tuple(found), best, bool(apart), bool(blocks), sentence, note)


def _shown(ratio: bool, difference: float) -> float:
    """A difference of ``level``, in per cent where that is a logarithm."""
    return 100 * math.expm1(min(max(difference, -_FAR), _FAR)) if ratio else difference


def _sentence(aim: Objective, at: str, levels: Sequence[LevelEffect], best: int, far: int, untold: str) -> str:
    """The best, and how far the one at ``far`` is from it, if that is told."""
    intervals = [one.interval for one in levels if one.interval is not None]
    if len(levels) == 1:
        return f"only {levels[0].label} was trained to the end."
    if not intervals:
        return f"its effect on {aim.name} cannot be told from {untold}."
    one = levels[far]
    if not one.told or one.interval is None:
        bound = max(abs(end) for interval in intervals for end in interval)
        if bound == 0:
            return f"{aim.name} is the same at every value."
        return f"no effect on {aim.name} beyond noise; differences of up to {_size(aim, bound)} are not ruled out."
    near = [other.label for other in levels if other.interval is not None and not other.told]
    tied = f" (not told apart from {enumerated(near, most=3)})" if near else ""
    least, most = sorted(map(abs, one.interval))
    return (
        f"{aim.name} is {aim.best.split()[0]} {at} {levels[best].label}{tied}; {at} {one.label} it is "
        f"{_size(aim, one.difference)} {_way(one.difference)} ({_size(aim, least, unit=False)} to {_size(aim, most)})."
    )


def _way(shown: float) -> str:
    return "higher" if shown > 0 else "lower"


def _size(aim: Objective, shown: float, unit: bool = True) -> str:
    """The size of a difference as ``_shown``, in words."""
    size = abs(shown)
    number = f"{size:,.0f}" if size >= 10 else f"{size:.2g}"
    words = " %" if aim.metric.ratio else f" {aim.metric.scale}" if aim.metric.scale else ""
    return number + (words if unit else "")


def _dependence(aim: Objective, levels: _Levels, blocks: Sequence[_Block], best: int, far: int) -> str:
    """Where the difference of two values is not the same whatever the other fields are: how it varies.

    An F test of the settings of the other fields against what seeds do to the difference.
    """
    if len(blocks) < 2 or best == far:
        return ""
    differences_BS = np.array([block.values[:, far] - block.values[:, best] for block in blocks])
    settings, seeds = differences_BS.shape
    means_B = differences_BS.mean(axis=1)
    noise = float(differences_BS.var(axis=1, ddof=1).mean())
    between = seeds * float(means_B.var(ddof=1))
    if between <= 0 or (noise > 0 and fdtrc(settings - 1, settings * (seeds - 1), between / noise) > _DEPENDS):
        return ""
    order = sorted(range(settings), key=lambda b: aim.signed(means_B[b]))
    told = []
    for b in (order[0], order[-1]):
        shown = _shown(aim.metric.ratio, float(means_B[b]))
        told.append(f"{_size(aim, shown)} {_way(shown)} with {blocks[b].label}")
    return f" It depends on the other fields: {levels.at} {levels.labels[far]} it is {' and '.join(told)}."


def _paired_note(blocks: Sequence[_Block]) -> str:
    over = f", each the mean over {len(blocks)} settings of the other fields" if len(blocks) > 1 else ""
    seeds = len(blocks[0].values)
    return f"Paired over {counted(seeds, 'seed')}{over}; {_TOGETHER}. They hold for other seeds in this grid."


def _regression_note(rows: Sequence[_Row], fitted: bool, ends: ScreenedEnds | None) -> str:
    configurations = counted(len(rows), "configuration")
    if not fitted:
        return f"{configurations}: too few for so many values. Means, no claim."
    parts = [
        f"Least squares on all swept fields at once, over {configurations}; noise is all that their sum does not "
        f"explain; {_TOGETHER}."
    ]
    if ends is not None and ends.forecast:
        parts.append(
            f"{len(ends.forecast)} of them were not trained in full: their ends are drawn {_DRAWS} times from "
            "forecasts, and how the draws differ is part of the noise."
        )
    if ends is not None and (out := len(ends.unknown) + len(ends.broken)):
        parts.append(f"{counted(out, 'trial')} without an end left out.")
    return " ".join(parts)

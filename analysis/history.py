"""What a search had found after each epoch that it spent, beside what random search is expected to find. Pure.

Random search's expectation is of the same trials: in random orders, one after the other, each trained in full. How a
trial would have ended that was not trained in full nobody knows. It counts as its forecast from those that were
(``analysis.stopping.forecast_ends``), since the simpler ways mislead: a stopped trial's last report is no end, and the
completed alone are the pick of the search that random search is compared with. The forecast's mean, and no draws of
it: the best of many independent draws would be better than any end.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from analysis.forecast import thinned
from analysis.fronts import Point, front, hypervolume
from analysis.improvement import scaled, unscaled
from analysis.layout import counted
from analysis.objectives import Objective
from analysis.results import Results, seed_of
from analysis.stats import Floats
from analysis.stopping import forecast_ends
from trainables.journal import TrialRecord

# Shape suffixes: M trials to forecast, O objectives, R random orders, A places on the axis of cost.

ORDERS = 100
"""Random orders of the trials; the standard error of their mean is a tenth of their spread."""

_PLACES = 121
"""On the axis of cost."""

_MOST = 0.95
"""The share of what was found by which a search and random search are compared in words."""


@dataclass(frozen=True)
class Spending:
    """What was found, over one kind of cost."""

    unit: str
    """``epochs``, ``seconds of trials`` or ``GPU-seconds``."""
    spent: tuple[float, ...]
    """Ascending from 0: where ``found`` grew, then all that was spent."""
    found: tuple[float, ...]
    """From there to the next, as a share of what was found in the end: steps from 0 to 1."""
    at: tuple[float, ...]
    """Where random search is told, evenly from 0 to all that was spent."""
    expected: tuple[float, ...]
    """Random search's mean over orders, as a share of what the run found; may exceed 1."""
    low: tuple[float, ...]
    """The 5 % quantile over orders."""
    high: tuple[float, ...]
    """The 95 % quantile over orders."""


@dataclass(frozen=True)
class History:
    """The course of a search, by the seed that screens."""

    what: str
    """What was found: ``hypervolume of MSE and perplexity``, or ``lowest MSE`` of a search with one objective."""
    epochs: Spending
    seconds: Spending | None
    """None where no time is recorded."""
    sentence: str
    """What to conclude."""
    note: str
    """The scale, the reference, and what random search's expectation assumes."""


class _Drawn(NamedTuple):
    """A trial that random search draws, too."""

    trial: TrialRecord
    point: Point | None
    """At the compared epoch, objectives to be small, as ``scaled``; None where nothing is found, or it is forecast."""
    epochs: int
    """That it takes."""
    seconds: float
    """That it takes."""


def hypervolume_history(results: Results) -> History | None:
    """What was found over what was spent; None for fewer than two trials with an end at the compared epoch.

    Costs and ends are of the lowest seed: in a search, the one that screens.
    """
    screens = min(map(seed_of, results.trials), default=0)
    trials = [trial for trial in results.trials if seed_of(trial) == screens and trial.epochs]
    ends = {trial.key: point for trial in trials if (point := _point(results, trial)) is not None}
    if len(ends) < 2:
        return None
    reference = reference_point(list(ends.values()))
    if len(results.aims) == 1:
        reference = reference[0], 1.0
    whole = hypervolume(list(ends.values()), reference)
    if whole <= 0:  # values so large that nothing lies between them and the reference
        return None
    spent, areas = _course(trials, ends, results.epoch, reference)
    found = [area / whole for area in areas]
    known, unknown = _drawn_from(results, trials, ends)
    forecast = _forecast(results, known, unknown)
    candidates = [*known, *forecast]
    orders = [random.Random(order).sample(candidates, len(candidates)) for order in range(ORDERS)]
    growth = [[area / whole for area in _areas((one.point for one in order), reference)] for order in orders]

    taken = [list(accumulate(float(one.epochs) for one in order)) for order in orders]
    epochs = _spending("epochs", [float(cost[0]) for cost in spent], found, taken, growth)
    share = _gpu_share(results, trials)
    unit, factor = ("seconds of trials", 1.0) if share is None else ("GPU-seconds", share)
    times = [factor * cost[1] for cost in spent]
    taken = [list(accumulate(factor * one.seconds for one in order)) for order in orders]
    seconds = _spending(unit, times, found, taken, growth) if times[-1] > 0 else None
    note = _note(results, screens, reference, candidates, len(forecast), len(unknown))
    return History(_what(results.aims), epochs, seconds, _sentence(results.aims, epochs), note)


def reference_point(points: Sequence[Point]) -> Point:
    """Beyond the worst of the front and the median of all: one bad trial must not make all others equal.

    Of at least one point, less is better in both.
    """
    ends = []
    on_front = [points[i] for i in front(points)]
    for axis in (0, 1):
        values, best = sorted(point[axis] for point in points), min(point[axis] for point in on_front)
        worst = max(*(point[axis] for point in on_front), values[len(values) // 2])
        ends.append(worst + 0.1 * (worst - best) + 1e-9)
    return ends[0], ends[1]


def _point(results: Results, trial: TrialRecord) -> Point | None:
    """A trial's end, objectives to be small, as ``scaled``; the second is 0 where there is one objective."""
    metrics = trial.epochs.get(results.epoch, {})
    end_O = scaled(results.aims, np.array([[aim.minimised(metrics) for aim in results.aims]]))[0]
    return _pair(end_O) if trial.status not in ("failed", "diverged") and np.isfinite(end_O).all() else None


def _pair(end_O: Floats) -> Point:
    return float(end_O[0]), float(end_O[1]) if len(end_O) > 1 else 0.0


def _seconds(trial: TrialRecord, epochs: int) -> float:
    """Of a training of so many epochs; those that it did not have take as long as the others did on average."""
    taken = [metrics.get("seconds", 0.0) for _, metrics in sorted(trial.epochs.items())][:epochs]
    return sum(taken) / len(taken) * epochs


def _course(
    trials: Sequence[TrialRecord], ends: dict[str, Point], last: int, reference: Point
) -> tuple[list[tuple[float, float]], list[float]]:
    """Epochs and seconds spent after each report, from nothing on, and the area found by then."""
    reports = [(arrival, epoch, trial) for trial in trials for epoch, arrival in trial.arrivals.items()]
    spent, points = [(0.0, 0.0)], list[Point | None]()
    for _, epoch, trial in sorted(reports, key=lambda report: report[:2]):
        epochs, seconds = spent[-1]
        spent.append((epochs + 1, seconds + trial.epochs[epoch].get("seconds", 0.0)))
        points.append(ends.get(trial.key) if epoch == last else None)
    return spent, [0.0, *_areas(points, reference)]


def _areas(points: Iterable[Point | None], reference: Point) -> list[float]:
    """The hypervolume after each point."""
    best: list[Point] = []
    areas, area = [], 0.0
    for point in points:
        if point is not None and not any(x <= point[0] and y <= point[1] for x, y in best):
            best = [(x, y) for x, y in best if not (point[0] <= x and point[1] <= y)] + [point]
            area = max(area, hypervolume(best, reference))
        areas.append(area)
    return areas


def _drawn_from(
    results: Results, trials: Sequence[TrialRecord], ends: dict[str, Point]
) -> tuple[list[_Drawn], list[_Drawn]]:
    """What random search draws from: trials whose end is known, and those whose end can at best be forecast.

    One that diverged or failed does so there, too, at the same cost, and nothing is found.
    """
    known, unknown = list[_Drawn](), list[_Drawn]()
    for trial in trials:
        point = ends.get(trial.key)
        if trial.status in ("failed", "diverged"):
            known.append(_Drawn(trial, None, len(trial.epochs), _seconds(trial, len(trial.epochs))))
            continue
        drawn = _Drawn(trial, point, results.epoch, _seconds(trial, results.epoch))
        now = [aim.minimised(trial.epochs[trial.last_epoch]) for aim in results.aims]
        told = trial.last_epoch < results.epoch and np.isfinite(scaled(results.aims, np.array([now]))).all()
        (unknown if point is None and told else known).append(drawn)
    return known, unknown


def _forecast(results: Results, known: Sequence[_Drawn], unknown: Sequence[_Drawn]) -> list[_Drawn]:
    """The unknown with their ends as forecast; none of them where too few are through."""
    through = [one.trial for one in known if one.point is not None]
    some = [through[place] for place in thinned(len(through))]
    in_order = sorted(unknown, key=lambda one: one.trial.last_epoch)
    ends = forecast_ends(results.aims, some, [one.trial for one in in_order], results.epoch)
    if ends is None:
        return []
    found = np.array([one.point for one in known if one.point is not None])[:, : len(results.aims)]
    best_O, worst_O = found.min(axis=0), found.max(axis=0)
    means_MO = np.maximum(
        ends.means, best_O - (worst_O - best_O)
    )  # few trials forecast wild ends of what is unlike them
    return [one._replace(point=_pair(end_O)) for one, end_O in zip(in_order, means_MO, strict=True)]


def _gpu_share(results: Results, trials: Sequence[TrialRecord]) -> float | None:
    """Of a GPU, that each trial booked; None where some trained on a CPU, or it is not recorded."""
    flags = (results.record.sweep.get("toml") or {}).get("flags") or {}
    packed = flags.get("trials_per_gpu")
    devices = {str(trial.info.get("device", "cpu")) for trial in trials}
    return 1 / packed if isinstance(packed, int | float) and packed >= 1 and "cpu" not in devices else None


def _spending(
    unit: str,
    spent: Sequence[float],
    found: Sequence[float],
    taken: Sequence[Sequence[float]],
    growth: Sequence[Sequence[float]],
) -> Spending:
    """Of each random order: the cost until each trial is through (``taken``), and what is then found (``growth``)."""
    steps = [place for place in range(1, len(found)) if found[place] > found[place - 1]]
    kept = [0, *steps, len(found) - 1]
    at_A = np.linspace(0.0, spent[-1], _PLACES)
    reached_RA = np.array(
        [
            np.array([0.0, *areas])[np.searchsorted(np.array(costs) - 1e-9, at_A, side="right")]
            for costs, areas in zip(taken, growth, strict=True)
        ]
    )
    low_A, high_A = np.quantile(reached_RA, (0.05, 0.95), axis=0)
    curves = (at_A, reached_RA.mean(axis=0), low_A, high_A)
    at, expected, low, high = (tuple(map(float, curve)) for curve in curves)
    return Spending(unit, tuple(spent[k] for k in kept), tuple(found[k] for k in kept), at, expected, low, high)


def _what(aims: Sequence[Objective]) -> str:
    return aims[0].best if len(aims) == 1 else f"hypervolume of {aims[0].name} and {aims[1].name}"


def _sentence(aims: Sequence[Objective], over: Spending) -> str:
    """When the most of it was found, and when random search is expected to have it."""
    most = f"{_MOST:.0%} of it"
    ours = over.spent[bisect_right(over.found, _MOST - 1e-9)]
    theirs = next((at for at, share in zip(over.at, over.expected, strict=True) if share >= _MOST), None)
    what = _what(aims)
    said = f"{what[0].upper()}{what[1:]}: {most} was found after {ours:,.0f} of {over.spent[-1]:,.0f} epochs"
    if theirs is not None:
        return f"{said}; the same trials in random order, each in full, are expected to have it after {theirs:,.0f}."
    low, mean, high = (values[-1] for values in (over.low, over.expected, over.high))
    return (
        f"{said}; the same trials in random order, each in full, are expected to have {mean:.0%} after all of them "
        f"(5 to 95 %: {low:.0%} to {high:.0%})."
    )


def _note(
    results: Results,
    seed: int,
    reference: Point,
    candidates: Sequence[_Drawn],
    forecast: int,
    unknown: int,
) -> str:
    aims = results.aims
    edges_O = unscaled(aims, np.array([reference[: len(aims)]]))[0]
    edges = " and ".join(f"{aim.name} {aim.signed(edge):.4g}" for aim, edge in zip(aims, edges_O, strict=True))
    ratios = [aim.name for aim in aims if aim.metric.ratio]
    logarithms = f", {' and '.join(ratios)} in logarithms" if ratios else ""
    note = (
        f"By seed {seed}, after epoch {results.epoch}; as a share of what the run found{logarithms}, up to {edges}: a "
        "little beyond the worst of the front and the median trial. Random search: the mean and the 5 and 95 % "
        f"quantiles over {ORDERS} random orders of the same {counted(len(candidates), 'trial')}, one after the other, "
        "each trained in full."
    )
    if forecast:
        note += (
            f" {forecast} of them were not, and nobody knows how they would have ended: they count as forecast from "
            "those that were, and the quantiles are of the order alone."
        )
    elif unknown:
        note += (
            f" {counted(unknown, 'trial')} that were not trained in full are left out, since too few others are "
            "through to forecast them: that favours random search, as it draws from what the search kept."
        )
    sampler = str(results.metadata("sampler") or "grid")
    if sampler not in ("grid", "random", "qmc"):
        note += f" The configurations were chosen by a sampler ({sampler}): those of a random search may be worse."
    return note

"""What a search had found after each epoch that it spent, beside what random search is expected to find. Pure.

Random search's expectation is of the same trials: in random orders, one after the other, each trained in full. How a
trial would have ended that was not trained in full nobody knows. It counts as its forecast from those that were
(``analysis.ends``), since the simpler ways mislead: a stopped trial's last report is no end, and the
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

from analysis.ends import ScreenedEnds, screened_ends
from analysis.fronts import Point, front, hypervolume
from analysis.improvement import unscaled
from analysis.layout import counted
from analysis.objectives import Objective
from analysis.results import Results, once, seed_of
from analysis.stats import Floats
from trainables.journal import TrialRecord

# Shape suffixes: O objectives, R random orders, A places on the axis of cost.

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

    point: Point | None
    """Its end, objectives to be small, as ``scaled``; None where nothing is found."""
    epochs: int
    """That it takes."""
    seconds: float
    """That it takes."""


@once
def hypervolume_history(results: Results) -> History | None:
    """What was found over what was spent; None for fewer than two trials with an end at the compared epoch.

    Costs and ends are of the lowest seed: in a search, the one that screens.
    """
    ends = screened_ends(results, results.aims)
    found_by = {trial.key: _pair(end_O) for trial, end_O in zip(ends.recorded, ends.values, strict=True)}
    if len(found_by) < 2:
        return None
    reference = reference_point(list(found_by.values()))
    if len(results.aims) == 1:
        reference = reference[0], 1.0
    whole = hypervolume(list(found_by.values()), reference)
    if whole <= 0:  # values so large that nothing lies between them and the reference
        return None
    trials = (*ends.recorded, *ends.forecast, *ends.unknown, *ends.broken)
    spent, areas = _course(trials, found_by, results.epoch, reference)
    found = [area / whole for area in areas]
    candidates = _candidates(ends, results.epoch)
    orders = [random.Random(order).sample(candidates, len(candidates)) for order in range(ORDERS)]
    growth = [[area / whole for area in _areas((one.point for one in order), reference)] for order in orders]

    taken = [list(accumulate(float(one.epochs) for one in order)) for order in orders]
    epochs = _spending("epochs", [float(cost[0]) for cost in spent], found, taken, growth)
    share = _gpu_share(results, trials)
    unit, factor = ("seconds of trials", 1.0) if share is None else ("GPU-seconds", share)
    times = [factor * cost[1] for cost in spent]
    taken = [list(accumulate(factor * one.seconds for one in order)) for order in orders]
    seconds = _spending(unit, times, found, taken, growth) if times[-1] > 0 else None
    note = _note(results, reference, ends)
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


def _pair(end_O: Floats) -> Point:
    return float(end_O[0]), float(end_O[1]) if len(end_O) > 1 else 0.0


def _seconds(trial: TrialRecord, epochs: int) -> float:
    """Of a training of so many epochs; those that it did not have take as long as the others did on average."""
    taken = [metrics.get("seconds", 0.0) for _, metrics in sorted(trial.epochs.items())][:epochs]
    return sum(taken) / len(taken) * epochs


def _course(
    trials: Sequence[TrialRecord], found_by: dict[str, Point], last: int, reference: Point
) -> tuple[list[tuple[float, float]], list[float]]:
    """Epochs and seconds spent after each report, from nothing on, and the area found by then."""
    reports = [(arrival, epoch, trial) for trial in trials for epoch, arrival in trial.arrivals.items()]
    spent, points = [(0.0, 0.0)], list[Point | None]()
    for _, epoch, trial in sorted(reports, key=lambda report: report[:2]):
        epochs, seconds = spent[-1]
        spent.append((epochs + 1, seconds + trial.epochs[epoch].get("seconds", 0.0)))
        points.append(found_by.get(trial.key) if epoch == last else None)
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


def _candidates(ends: ScreenedEnds, epochs: int) -> list[_Drawn]:
    """What random search draws from: all trials but those of whose end nothing can be told.

    One that diverged or failed does so there, too, at the same cost, and nothing is found.
    """
    whole = [*zip(ends.recorded, ends.values, strict=True), *zip(ends.forecast, ends.ends.means, strict=True)]
    drawn = [_Drawn(_pair(end_O), epochs, _seconds(trial, epochs)) for trial, end_O in whole]
    broken = [(len(trial.epochs), trial) for trial in ends.broken]
    return [*drawn, *(_Drawn(None, count, _seconds(trial, count)) for count, trial in broken)]


def _gpu_share(results: Results, trials: Sequence[TrialRecord]) -> float | None:
    """Of a GPU, that each trial booked; None where some trained on a CPU, or it is not recorded."""
    tables = results.record.sweep.get("toml") or {}
    flags = tables.get("flags") or {}
    processes = (tables.get("sharing") or flags).get("trials_per_gpu")  # measured, or as it was given
    devices = {str(trial.info.get("device", "cpu")) for trial in trials}
    if not isinstance(processes, int | float) or processes < 1 or "cpu" in devices:
        return None
    return 1 / (processes * int(flags.get("pack", 1)))


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


def _note(results: Results, reference: Point, ends: ScreenedEnds) -> str:
    aims, seed = results.aims, min(map(seed_of, results.trials))
    edges_O = unscaled(aims, np.array([reference[: len(aims)]]))[0]
    edges = " and ".join(f"{aim.name} {aim.signed(edge):.4g}" for aim, edge in zip(aims, edges_O, strict=True))
    ratios = " and ".join(aim.name for aim in aims if aim.metric.ratio)
    drawn, forecast, unknown = (len(ends.recorded) + len(ends.forecast) + len(ends.broken), ends.forecast, ends.unknown)
    sampler = str(results.metadata("sampler") or "grid")
    parts = [
        f"By seed {seed}, after epoch {results.epoch}; as a share of what the run found"
        f"{f', {ratios} in logarithms' if ratios else ''}, up to {edges}: a little beyond the worst of the front and "
        "the median trial.",
        f"Random search: the mean and the 5 and 95 % quantiles over {ORDERS} random orders of the same "
        f"{counted(drawn, 'trial')}, one after the other, each trained in full.",
        f"{len(forecast)} of them were not, and nobody knows how they would have ended: they count as forecast from "
        "those that were, and the quantiles are of the order alone."
        if forecast
        else "",
        f"{counted(len(unknown), 'trial')} not trained in full left out, since too few others are through to forecast "
        "them: that favours random search, as it draws from what the search kept."
        if unknown
        else "",
        f"The configurations were chosen by a sampler ({sampler}): those of a random search may be worse."
        if sampler not in ("grid", "random", "qmc")
        else "",
    ]
    return " ".join(filter(None, parts))

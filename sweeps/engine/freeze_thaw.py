"""Early stopping that learns during the sweep when it is safe: freeze-thaw search. Pure.

Swersky, Snoek and Adams 2014, "Freeze-Thaw Bayesian Optimization": trials pause, their ends are forecast from those
that are through, and a free slot goes where it may improve most. Here a trial pauses at each rung; of the trials that
wait there, and of those that are known and have not begun, the one with the largest expected improvement for each epoch
that it still needs goes on. Some trials are never stopped, whatever is forecast of them: the audit, which forecasts are
learnt from first, and without which they would learn from what they chose alone.

The order depends on the results that have arrived, in the order in which they arrived, and on nothing else; how far
down that order a sweep goes depends on its free slots.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from analysis.forecast import LEAST_FITTED, Config, Fields, Floats, Forecast, rungs, thinned, told_by
from analysis.fronts import Point, front
from analysis.improvement import Ends, improvement, scaled, unscaled
from analysis.objectives import Objective
from vqcore.config import Scalar

AUDITED = 8
"""One in so many of the trials that begin is never stopped, and the first ``LEAST_FITTED`` are not either."""

REFIT_GROWTH = 1.1
"""How many times as many trials must be through before forecasts are fitted anew."""


@dataclass
class _Trial:
    config: Config
    group: Scalar | None
    audited: bool | None = None
    """Not known until its first result: by the order in which those arrive, so that a resumed sweep audits the same."""
    reached: dict[int, Floats] = field(default_factory=dict)
    """The objectives, scaled and finite, at rungs and at the end."""
    rung: int = 0
    """At which it stands last; 0 before the first."""
    ends: Ends | None = None
    """The forecast made of it there, by the latest fit."""

    def forecastable_at(self, rung: int) -> bool:
        return not rung or rung in self.reached


class _Entry(NamedTuple):
    """A place in the order of the trials that may go on."""

    small: bool
    """Whether its chance is; those are last."""
    cost: float
    """The improvement expected for each epoch that it still needs, negated."""
    key: str
    rung: int
    chance: float


class FreezeThawSearch:
    """Which trials wait, and which of them goes on. The same results in the same order, the same decisions."""

    def __init__(self, aims: tuple[Objective, ...], max_epochs: int, chance: float, group_by: str | None) -> None:
        """``chance``: a trial that waits is stopped if it is less probable than that to end beyond what was found."""
        self.aims, self.max_epochs, self.chance, self.group_by = aims, max_epochs, chance, group_by
        self._rungs = rungs(max_epochs)
        self._trials: dict[str, _Trial] = {}
        self._begun: list[_Trial] = []
        """In the order of their first results."""
        self._new: dict[str, None] = {}
        self._waiting: dict[str, None] = {}
        self._through: list[_Trial] = []
        self._found: dict[Scalar | None, list[Point]] = {}
        """The objectives of the trials that are through, by group."""
        self._fitted_to = 0
        self._forecasts: dict[int, Forecast] = {}
        """By rung."""
        self._fields: Fields | None = None
        self._reference: Point = (np.inf, np.inf)
        self._order: list[_Entry] | None = None
        """A heap of those that may go on, and of some that no longer may; None where it is to be made anew."""

    def add(self, key: str, config: Config) -> None:
        """Take note of a trial that may begin."""
        if key not in self._trials:
            self._trials[key] = _Trial(config, config.get(self.group_by) if self.group_by else None)
            self._new[key] = None
            self._enter(key)

    def next_rung(self, epoch: int) -> int:
        """The epoch up to which a trial with ``epoch`` epochs trains: a rung's, or the last."""
        return next((rung for rung in self._rungs if rung > epoch), self.max_epochs)

    def on_result(self, key: str, config: Config, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of a trial's metrics after ``epoch``; whether it now waits at a rung."""
        self.add(key, config)
        self.promote(key)
        trial = self._trials[key]
        if trial.audited is None:
            trial.audited = len(self._begun) < LEAST_FITTED or len(self._begun) % AUDITED == 0
            self._begun.append(trial)
        if (epoch not in self._rungs and epoch < self.max_epochs) or epoch in trial.reached:
            return False  # the last: it went on, and came back without another epoch
        values_O = np.array([aim.minimised(metrics) for aim in self.aims])
        scaled_O = scaled(self.aims, values_O[None])[0]
        finite = bool(np.isfinite(scaled_O).all())
        if finite:
            trial.reached[epoch] = scaled_O
        if epoch >= self.max_epochs:
            if finite:
                self._is_through(trial, values_O)
            return False
        trial.rung, trial.ends = epoch, None
        if trial.audited:
            return False
        self._waiting[key] = None
        self._enter(key)
        return True

    def choose(self, draw: Callable[[], str | None], spare: bool) -> str | None:
        """The trial that gets a slot: one that waits, one that is known and has not begun, or one that ``draw`` gives.

        ``spare``: whether epochs are left to be spent, so that those go on too whose chance is small.
        """
        if not self._forecasts:
            finite = (key for key in self._waiting if self._trials[key].forecastable_at(self._trials[key].rung))
            furthest = max(finite, key=lambda key: self._trials[key].rung, default=None)
            return furthest or next(iter(self._new), None) or draw()
        first = self._first()
        if first is not None and (first.rung == 0 or first.chance >= self.chance):
            return first.key
        return draw() or (first.key if first is not None and spare else None)

    def promote(self, key: str) -> None:
        """Let a trial begin, or go on from the rung at which it waits."""
        self._waiting.pop(key, None)
        self._new.pop(key, None)

    def drop(self, key: str) -> None:
        """Let a trial go no further: it has ended. What it reached still counts."""
        self.promote(key)

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""
        return key in self._waiting

    def reason(self, key: str) -> str:
        """Where a waiting trial stands, in words: why it was stopped, if it goes no further."""
        trial = self._trials[key]
        self._forecast([trial])
        if trial.ends is None:
            finite = trial.forecastable_at(trial.rung)
            return f"forecast: {'none can be made yet' if finite else 'none, as an objective is not finite'}"
        chance = improvement(self.aims, self._found.get(trial.group, []), self._reference, trial.ends).chance[0]
        among = f" of {self.group_by} {trial.group}" if trial.group is not None else ""
        what = "with the best" if len(self.aims) == 1 else "on the front"
        return f"forecast: {chance:.1%} probable to end {what}{among}"

    def _enter(self, key: str) -> None:
        """Put a trial into the order, unless that is made anew anyway."""
        if self._order is not None:
            self._forecast([self._trials[key]])
            self._put([key])

    def _is_through(self, trial: _Trial, values_O: Floats) -> None:
        self._through.append(trial)
        found = self._found.setdefault(trial.group, [])
        found.append(_point(values_O))
        if len(found) - 1 in front(found):
            self._order = None
        if len(self._through) >= max(LEAST_FITTED, REFIT_GROWTH * self._fitted_to):
            self._fit_anew()

    def _fit_anew(self) -> None:
        """Fit all forecasts, and take the reference point from the ends they foresee: the worst, and as much of the
        range beyond it. A nearer one would give up the ends of the front."""
        self._fitted_to, self._order = len(self._through), None
        self._fields = fields = Fields([trial.config for trial in self._begun])
        fits = ((rung, self._fit(rung, fields)) for rung in (0, *self._rungs))
        self._forecasts = {rung: fit for rung, fit in fits if fit is not None}
        for trial in self._trials.values():
            trial.ends = None
        under_way = [trial for trial in self._begun if self.max_epochs not in trial.reached]
        self._forecast(under_way)
        foreseen = [trial.ends.means[0] for trial in under_way if trial.ends is not None]
        ends_MO = np.array(foreseen + [trial.reached[self.max_epochs] for trial in self._through])
        worst_O = ends_MO.max(axis=0)
        range_O = np.maximum(worst_O - ends_MO.min(axis=0), 1e-3 * np.abs(worst_O) + 1e-9)
        self._reference = _point(unscaled(self.aims, (worst_O + range_O)[None])[0])

    def _fit(self, rung: int, fields: Fields) -> Forecast | None:
        through = [trial for trial in self._through if trial.forecastable_at(rung)]
        if len(through) < LEAST_FITTED:
            return None
        few = [through[place] for place in thinned(len(through))]
        ends_NO = np.array([trial.reached[self.max_epochs] for trial in few])
        return Forecast(fields, [trial.config for trial in few], _reached(few, rung, len(self.aims)), ends_NO)

    def _first(self) -> _Entry | None:
        """The first in the order of those that may go on."""
        if self._order is None:
            self._order = []
            candidates = [*self._new, *self._waiting]
            self._forecast(map(self._trials.__getitem__, candidates))
            self._put(candidates)
        while self._order:
            entry = self._order[0]
            ready = entry.key in self._new or entry.key in self._waiting
            if ready and entry.rung == self._trials[entry.key].rung:
                return entry
            heapq.heappop(self._order)
        return None

    def _forecast(self, trials: Iterable[_Trial]) -> None:
        """Forecast the ends of those that have no forecast, where there can be one."""
        by_rung: dict[int, list[_Trial]] = {}
        for trial in trials:
            known = self._fields is not None and self._fields.know(trial.config)
            if trial.ends is None and known and trial.rung in self._forecasts and trial.forecastable_at(trial.rung):
                by_rung.setdefault(trial.rung, []).append(trial)
        for rung, those in by_rung.items():
            reached_MEO = _reached(those, rung, len(self.aims))
            ends = self._forecasts[rung].ends([trial.config for trial in those], reached_MEO)
            for place, trial in enumerate(those):
                trial.ends = ends.of(slice(place, place + 1))

    def _put(self, keys: Iterable[str]) -> None:
        """Put trials into the order, by improvement for each epoch still to come.

        First those of which nothing can be foreseen, as the first with another layer: they are what tells.
        """
        assert self._order is not None
        by_group: dict[Scalar | None, list[tuple[str, _Trial, Ends]]] = {}
        for key in keys:
            trial = self._trials[key]
            if trial.ends is not None:
                by_group.setdefault(trial.group, []).append((key, trial, trial.ends))
            elif trial.forecastable_at(trial.rung):
                heapq.heappush(self._order, _Entry(False, -math.inf, key, trial.rung, 1.0))
        for group, those in by_group.items():
            joined = Ends.joined([ends for *_, ends in those])
            expected_M, chance_M = improvement(self.aims, self._found.get(group, []), self._reference, joined)
            for (key, trial, _), expected, chance in zip(those, expected_M, chance_M, strict=True):
                small = trial.rung > 0 and chance < self.chance
                worth = float(expected) / (self.max_epochs - trial.rung)
                heapq.heappush(self._order, _Entry(small, -worth, key, trial.rung, float(chance)))


def _point(values_O: Floats) -> Point:
    return float(values_O[0]), float(values_O[1]) if len(values_O) > 1 else 0.0


def _reached(trials: Iterable[_Trial], rung: int, objectives: int) -> Floats:
    told = told_by(rung)
    rows = [[trial.reached.get(epoch, trial.reached[rung]) for epoch in told] for trial in trials]
    return np.array(rows).reshape(len(rows), len(told), objectives)

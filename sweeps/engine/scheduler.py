"""Early stopping in one or two objectives: asynchronous successive halving by non-dominated rank. Pure.

A trial that reaches a rung waits there. Of the trials seen at a rung, 1 in ``reduction_factor`` is promoted: the best
by non-dominated rank, and within a rank those that keep the front spread. A trial that waits may still be promoted when
worse ones have come (promotion-type ASHA, Li et al. 2020, algorithm 2): waiting costs nothing, since a trial resumes to
the last bit from its checkpoint. A trial that still waits at the end of a sweep was stopped there, and the reason says
with which rank.

Decisions are a function of the results that have arrived and of who was promoted: after the results of a journal have
been taken in again, in their order, the same trials are promoted.
"""

import itertools
import math
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Literal

from analysis.fronts import Point, best_first
from analysis.objectives import Objective, objectives
from sweeps.engine.forecast import Config, Forecast
from vqcore.config import ConfigError, Scalar

Rounding = Literal["down", "up", "all"]
"""How many of n trials may leave a rung: n / reduction_factor rounded down while trials are still to come, up once a
slot would stand still, and all where a budget is left to be spent."""

FORECAST_FROM = 6
"""Finished trials from which the others are forecast."""

REFIT_GROWTH = 1.1
"""How many times as many they must be before the forecast is fitted anew, which costs a look at every trial that waits.
"""


@dataclass(frozen=True)
class Rule:
    """How a sweep stops trials early."""

    objectives: tuple[Objective, ...]
    """One or two."""
    grace_period: int = 2
    """The epoch of the first rung."""
    reduction_factor: float = 3.0
    """Of the trials at a rung, 1 in ``reduction_factor`` is promoted."""
    group_by: str | None = "codebook_size"
    """A field of the configuration: trials are compared where they are equal in it. Perplexity is bounded by the number
    of codes, and stopping across sizes leaves no small codebook. None compares all."""
    spacing: float | None = None
    """Each rung's epoch divided by that of the rung before; ``reduction_factor`` unless given."""
    breadth_first: bool = False
    """Whether every trial is brought to the first rung before any is promoted."""
    forecast: bool = False
    """Whether trials are compared by what they are forecast to end with, from the finished ones, instead of by what
    they have reached."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= len(self.objectives) <= 2:
            problems.append(f"objectives = {' '.join(map(str, self.objectives))}: early stopping takes one or two")
        if self.grace_period < 1:
            problems.append(f"grace = {self.grace_period}: must be at least 1 epoch")
        if not (math.isfinite(self.reduction_factor) and self.reduction_factor > 1):
            problems.append(f"reduction = {self.reduction_factor:g}: must be above 1; 3 keeps one trial in three")
        if self.spacing is not None and not (math.isfinite(self.spacing) and self.spacing > 1):
            problems.append(f"spacing = {self.spacing:g}: must be above 1, or left out")
        if problems:
            raise ConfigError(problems)

    def point(self, metrics: Mapping[str, float]) -> Point:
        """The objectives, both to be small."""
        first, *rest = [objective.minimised(metrics) for objective in self.objectives]
        return first, rest[0] if rest else 0.0

    def rungs(self, max_epochs: int) -> tuple[int, ...]:
        """The epochs below ``max_epochs`` at which a trial waits."""
        epochs, step = [], float(self.grace_period)
        while round(step) < max_epochs:
            epochs += [round(step)] if round(step) not in epochs else []
            step *= self.spacing or self.reduction_factor
        return tuple(epochs)

    def plan(self, trials: int, max_epochs: int) -> list[tuple[int, int]]:
        """(epoch, trials trained until there) for each rung and ``max_epochs``, if all are of one group.

        With forecasts it is the least: as they change, others are promoted too.
        """
        stops = (*self.rungs(max_epochs), max_epochs)
        return [(epoch, math.ceil(trials / self.reduction_factor**place)) for place, epoch in enumerate(stops)]

    def expected_epochs(self, trials: int, max_epochs: int) -> int:
        """The epochs that ``plan`` adds up to."""
        steps = itertools.pairwise([(0, 0), *self.plan(trials, max_epochs)])
        return sum(reached * (epoch - before) for (before, _), (epoch, reached) in steps)


def automatic(aims: tuple[Objective, ...], epochs: int, known: bool) -> Rule:
    """The rule that replay found best for these objectives (docs/early-stopping.md), for trials of so many ``epochs``.

    ``known``: whether the trials are known beforehand, as those of a grid, or drawn one after the other.
    """
    early, columns = max(1, round(epochs / 20)), {aim.column for aim in aims}
    if columns == {"mse"}:  # the best at each codebook size: a slow start with a good end, only forecasts foresee
        both = objectives(["mse", "perplexity"])
        return Rule(both, early, reduction_factor=2, spacing=8, breadth_first=known, forecast=True)
    if "bits" in columns:  # codebooks fill up late, and an early rate says little
        return Rule(aims, max(1, round(epochs / 4)), reduction_factor=2, group_by=None)
    return Rule(aims, early, reduction_factor=3)


class SuccessiveHalving:
    """The rungs of a sweep, and which trials wait there. The same results in the same order, the same decisions."""

    def __init__(self, rule: Rule | None, max_epochs: int = sys.maxsize) -> None:
        """Without a rule there are no rungs."""
        self.rule, self.max_epochs = rule, max_epochs
        self._epochs = rule.rungs(max_epochs) if rule else ()
        self._rungs: dict[tuple[int, Scalar | None], _Rung] = {}
        """By epoch and group."""
        self._levels: dict[int, _Level] = {epoch: _Level() for epoch in self._epochs}
        self._waiting: dict[str, _Rung] = {}

    def next_rung(self, epoch: int) -> int:
        """The epoch up to which a trial with ``epoch`` epochs trains: a rung's, or the last."""
        return next((rung for rung in self._epochs if rung > epoch), self.max_epochs)

    def on_result(self, key: str, config: Config, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of a trial's metrics after ``epoch``; whether it now waits at a rung.

        One that waits at an earlier rung was promoted, else it would not have got here.
        """
        self.promote(key)
        rule = self.rule
        if rule is not None and rule.forecast and epoch >= self.max_epochs:
            for level in self._levels.values():
                level.finished(key, rule.point(metrics))
        if rule is None or epoch not in self._levels:
            return False
        group = config.get(rule.group_by) if rule.group_by else None
        level = self._levels[epoch]
        rung = self._rungs.setdefault((epoch, group), _Rung(epoch, rule.reduction_factor, level))
        if key in rung.points:  # it was promoted, and came back without another epoch
            return False
        rung.points[key] = rule.point(metrics)
        level.seen[key] = config, rung.points[key]
        self._waiting[key] = rung
        return True

    def promotable(self, rounding: Rounding = "down", among: Container[str] | None = None) -> str | None:
        """The trial to promote, from the highest rung that may give one; None if there is none.

        Only one of ``among``, where that is given.
        """
        for rung in sorted(self._rungs.values(), key=lambda rung: (-rung.epoch, rung.promoted / len(rung.points))):
            for key in rung.best(rounding):
                waits = self._waiting.get(key) is rung and all(map(math.isfinite, rung.points[key]))
                if waits and (among is None or key in among):
                    return key
        return None

    def promote(self, key: str) -> None:
        """Let a trial go on from the rung at which it waits, if it waits at one."""
        if (rung := self._waiting.pop(key, None)) is not None:
            rung.promoted += 1

    def drop(self, key: str) -> None:
        """Never promote a trial: it has ended. What it reached still counts."""
        self._waiting.pop(key, None)

    @property
    def waiting(self) -> int:
        """How many trials wait at rungs."""
        return len(self._waiting)

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""
        return key in self._waiting

    def reason(self, key: str) -> str:
        """Where a waiting trial stands, in words: why it was stopped, if it goes no further."""
        return self._waiting[key].reason(key)


@dataclass
class _Level:
    """The rungs of all groups at one epoch: what the finished trials tell of the others."""

    seen: dict[str, tuple[Config, Point]] = field(default_factory=dict)
    fitted_to: int = 0
    _finals: dict[str, Point] = field(default_factory=dict)
    _forecast: Forecast | None = None
    _ends: dict[str, Point] = field(default_factory=dict)
    """Forecast ends, of the trials that were asked for."""

    def finished(self, key: str, final: Point) -> None:
        if key not in self.seen or not all(map(math.isfinite, (*final, *self.seen[key][1]))):
            return
        self._finals[key] = final
        if len(self._finals) >= max(FORECAST_FROM, REFIT_GROWTH * self.fitted_to):
            self.fitted_to = len(self._finals)
            configs, points = zip(*(self.seen[finished] for finished in self._finals), strict=True)
            self._forecast = Forecast(configs, points, list(self._finals.values()))
            self._ends.clear()

    def compared(self, keys: list[str]) -> list[Point]:
        """The points by which ``keys`` are ranked."""
        if self._forecast is None:
            return [self.seen[key][1] for key in keys]
        if new := [key for key in keys if key not in self._ends]:
            configs, points = zip(*(self.seen[key] for key in new), strict=True)
            self._ends.update(zip(new, self._forecast.ends(configs, points), strict=True))
        return [self._ends[key] for key in keys]


@dataclass
class _Rung:
    epoch: int
    reduction_factor: float
    level: _Level
    points: dict[str, Point] = field(default_factory=dict)
    promoted: int = 0
    _ranked: dict[Rounding, tuple[tuple[int, int, int], list[str]]] = field(default_factory=dict)
    """The ranking made last, with the places, the number of trials and the forecast that it was made for."""

    def best(self, rounding: Rounding) -> list[str]:
        """The trials that may leave the rung or have left it, the best first."""
        count = len(self.points)
        places = count if rounding == "all" else math.ceil(count / self.reduction_factor)
        if rounding == "down":  # ranked anew when there is a place more and not at each arrival, which takes time
            places = math.floor(count / self.reduction_factor)
            count = math.ceil(places * self.reduction_factor)
        of = (places, count, self.level.fitted_to)
        ranked_for, ranked = self._ranked.get(rounding, ((0, 0, 0), []))
        if ranked_for != of:
            keys = list(self.points)[:count]
            ranked = [keys[i] for i in best_first(self.level.compared(keys), most=places)]
            self._ranked[rounding] = of, ranked
        return ranked

    def reason(self, key: str) -> str:
        seen = len(self.points)
        rank = self.best("all").index(key) + 1
        how = " by forecast" if self.level.fitted_to else ""
        return f"rung {self.epoch}: rank {rank} of {seen}{how}, kept 1 in {self.reduction_factor:g}"

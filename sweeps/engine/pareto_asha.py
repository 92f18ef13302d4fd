"""Who goes on, in two objectives: asynchronous successive halving by non-dominated rank. Pure.

A trial that reaches a rung waits there. Of those seen at a rung, 1 in ``reduction`` may go on: the best by
non-dominated rank, and within a rank those that keep the front spread. A trial that waits may still be promoted when
worse ones have come (promotion-type ASHA, Li et al. 2020, algorithm 2): waiting costs nothing here, since a trial
resumes to the last bit from its checkpoint. Those that wait in the end were stopped, each for a reason in words.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from analysis.fronts import Point, best_first
from analysis.objectives import Objective, objectives
from sweeps.engine.forecast import Config, Forecast
from vqcore.config import ConfigError, Scalar

Room = Literal["down", "up", "all"]
"""How many of n may leave a rung: n / reduction rounded down while trials are still to come, up once a slot would stand
still, and all where a budget is left to be spent."""

ENOUGH = 6
"""Trials that are through before others are forecast from them."""
MANY = 100
"""Places from which on a rung is ranked anew for each fiftieth part of them, not for each."""
AGAIN = 1.1
"""By how much they grow in number before a forecast is fitted anew: it costs a look at every trial that waits."""


@dataclass(frozen=True)
class Rule:
    """How a sweep stops trials early."""

    objectives: tuple[Objective, ...]
    """One or two."""
    grace: int = 2
    """The epoch of the first rung."""
    reduction: float = 3.0
    """Of the trials at a rung, 1 in ``reduction`` goes on."""
    group_by: str | None = "codebook_size"
    """Trials are compared where they are equal in this field. Perplexity is bounded by the number of codes, and
    stopping across sizes leaves no small codebook; None compares all."""
    spacing: float | None = None
    """How many times as far the next rung is, each; ``reduction`` unless told."""
    breadth_first: bool = False
    """Bring every trial that is known to the first rung before one goes on."""
    forecast: bool = False
    """Compare what trials are forecast to end with, from those that are through, instead of where they stand."""
    brackets: int = 1
    """Rung ladders that trials are dealt to; each starts one rung later than the one before (Hyperband's hedge)."""
    seed: int = 0
    """Of the deal."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= len(self.objectives) <= 2:
            problems.append(f"objectives = {' '.join(map(str, self.objectives))}: early stopping takes one or two")
        if self.grace < 1:
            problems.append(f"grace = {self.grace}: must be at least 1 epoch")
        if not (math.isfinite(self.reduction) and self.reduction > 1):
            problems.append(f"reduction = {self.reduction:g}: must be above 1; 3 keeps one trial in three")
        if self.spacing is not None and not (math.isfinite(self.spacing) and self.spacing > 1):
            problems.append(f"spacing = {self.spacing:g}: must be above 1, or left out")
        if self.brackets < 1:
            problems.append(f"brackets = {self.brackets}: must be at least 1")
        if problems:
            raise ConfigError(problems)

    def rungs(self, budget: int, number: int = 0) -> tuple[int, ...]:
        """The epochs below ``budget`` at which trial ``number`` waits."""
        epochs, step = [], float(self.grace)
        while round(step) < budget:
            epochs += [round(step)] if round(step) not in epochs else []
            step *= self.spacing or self.reduction
        return tuple(epochs[self._bracket(number, len(epochs)) :])

    def plan(self, trials: int, budget: int) -> list[tuple[int, int]]:
        """(epoch, trials trained until there) for each rung and the budget, if all are of one group.

        With forecasts it is the least: as they change, others are promoted too.
        """
        rungs = (*self.rungs(budget), budget)
        return [(epoch, math.ceil(trials / self.reduction**place)) for place, epoch in enumerate(rungs)]

    def expected_epochs(self, trials: int, budget: int) -> int:
        """What ``plan`` comes to, in epochs."""
        total, before = 0, 0
        for epoch, reached in self.plan(trials, budget):
            total, before = total + reached * (epoch - before), epoch
        return total

    def _bracket(self, number: int, rungs: int) -> int:
        # from the trial's number, not from a stream: a resumed sweep deals the same
        most = min(self.brackets, rungs + 1)
        return random.Random(f"{self.seed}/{number}").randrange(most) if most > 1 else 0


def automatic(aims: tuple[Objective, ...], epochs: int, known: bool) -> Rule:
    """The rule that replay found best for a question (docs/early-stopping.md), for trials of so many ``epochs``.

    ``known``: whether the trials are known beforehand, as those of a grid, or drawn one after the other.
    """
    early, columns = max(1, round(epochs / 20)), {aim.column for aim in aims}
    if columns == {"mse"}:  # the best at each codebook size: who starts slowly and ends well, only forecasts tell
        both = objectives(["mse", "perplexity"])
        return Rule(both, early, reduction=2, spacing=8, breadth_first=known, forecast=True)
    if "bits" in columns:  # codebooks fill up late, and an early rate says little
        return Rule(aims, max(1, round(epochs / 4)), reduction=2, group_by=None)
    return Rule(aims, early, reduction=3)


@dataclass
class Ladder:
    """The rungs of a sweep and who waits where. Same arrivals in the same order, same decisions."""

    rule: Rule
    _rungs: dict[tuple[int, Scalar | None], "_Rung"] = field(default_factory=dict)
    """By epoch and group; brackets share them."""
    _waiting: dict[str, "_Rung"] = field(default_factory=dict)
    _levels: dict[int, "_Level"] = field(default_factory=dict)
    """By epoch."""

    def milestone(self, number: int, epoch: int, budget: int) -> int:
        """The epoch up to which a trial with ``epoch`` epochs may train before it is judged: a rung or the budget."""
        return next((rung for rung in self.rule.rungs(budget, number) if rung > epoch), budget)

    def arrive(
        self, key: str, number: int, config: Mapping[str, Scalar], epoch: int, budget: int, metrics: Mapping[str, float]
    ) -> bool:
        """Take note of a trial's metrics after ``epoch``; whether it now waits for its promotion there."""
        if epoch >= budget and self.rule.forecast:
            for level in self._levels.values():
                level.through(key, self._point(metrics))
        if epoch not in self.rule.rungs(budget, number):
            return False
        group = config.get(self.rule.group_by) if self.rule.group_by else None
        level = self._levels.setdefault(epoch, _Level())
        rung = self._rungs.setdefault((epoch, group), _Rung(epoch, self.rule.reduction, level))
        if key in rung.points:  # it was judged, went on, and came back without another epoch
            return False
        rung.points[key], level.seen[key] = self._point(metrics), (config, self._point(metrics))
        self._waiting[key] = rung
        return True

    def promotable(self, room: Room = "down") -> str | None:
        """The trial to go on with, from the highest rung that has room; None if there is none."""
        return next((key for rung in self._in_order() if (key := rung.next(room)) is not None), None)

    def recall(self, key: str | None) -> None:
        """Be as after a ``promotable()`` that gave ``key``, without ranking anybody."""
        for rung in self._in_order() if key else self._rungs.values():
            if key is not None and self._waiting[key] is rung:
                return
            rung.found_nobody()

    def _in_order(self) -> list["_Rung"]:
        return sorted(self._rungs.values(), key=lambda rung: (-rung.epoch, rung.promoted_share))

    def promote(self, key: str) -> None:
        """Let ``key`` go on."""
        rung = self._waiting.pop(key)
        rung.promoted.add(key)

    def drop(self, key: str) -> None:
        """Let ``key`` never go on: it ended. What it reached still counts."""
        if (rung := self._waiting.pop(key, None)) is not None:
            rung.dropped.add(key)

    def waits(self, key: str) -> bool:
        """Whether ``key`` waits at a rung."""
        return key in self._waiting

    def reason(self, key: str) -> str:
        """Where a waiting trial stands, in words: why it was stopped, if it goes no further."""
        return self._waiting[key].reason(key)

    def _point(self, metrics: Mapping[str, float]) -> Point:
        first, *rest = [objective.minimised(metrics) for objective in self.rule.objectives]
        return first, rest[0] if rest else 0.0


@dataclass
class _Level:
    """The rungs of all groups at one epoch: what those that are through tell of the others."""

    seen: dict[str, tuple[Config, Point]] = field(default_factory=dict)
    fitted_to: int = 0
    _finals: dict[str, Point] = field(default_factory=dict)
    _forecast: Forecast | None = None
    _ends: dict[str, Point] = field(default_factory=dict)
    """What ``_forecast`` says, of those that were asked for."""

    def through(self, key: str, final: Point) -> None:
        if key not in self.seen or not all(map(math.isfinite, (*final, *self.seen[key][1]))):
            return
        self._finals[key] = final
        if len(self._finals) >= max(ENOUGH, AGAIN * self.fitted_to):
            self.fitted_to = len(self._finals)
            configs, points = zip(*(self.seen[known] for known in self._finals), strict=True)
            self._forecast = Forecast(configs, points, list(self._finals.values()))
            self._ends.clear()

    def compared(self, keys: list[str]) -> list[Point]:
        """What to rank ``keys`` by."""
        if self._forecast is None:
            return [self.seen[key][1] for key in keys]
        if new := [key for key in keys if key not in self._ends]:
            configs, points = zip(*(self.seen[key] for key in new), strict=True)
            self._ends.update(zip(new, self._forecast.ends(configs, points), strict=True))
        return [self._ends[key] for key in keys]


@dataclass
class _Rung:
    epoch: int
    reduction: float
    level: _Level
    points: dict[str, Point] = field(default_factory=dict)
    promoted: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    _nobody: dict[Room, tuple[int, int]] = field(default_factory=dict)
    """For the room in which nobody was found, among how many, and by which forecast."""
    _best: list[str] = field(default_factory=list)
    _best_of: tuple[int, int, int] = (0, 0, 0)
    """The places, the number of trials and the forecast that ``_best`` is of."""

    @property
    def promoted_share(self) -> float:
        return len(self.promoted) / len(self.points)

    def next(self, room: Room) -> str | None:
        count, fitted_to = len(self.points), self.level.fitted_to
        places, before, fitted_before = self._places(room, count), *self._nobody.get(room, (0, 0))
        # while more are to come, look again when there is more room and not at each arrival: ranking takes time
        same = places == self._places(room, before) and fitted_to == fitted_before
        if same and (room == "down" or count == before):
            return None
        for key in self.best(places, 0 if room == "down" and places >= MANY else count):
            if key not in self.promoted and key not in self.dropped and all(map(math.isfinite, self.points[key])):
                return key
        self.found_nobody(room)
        return None

    def found_nobody(self, room: Room = "down") -> None:
        """Remember it, and look again when there is more room."""
        self._nobody[room] = len(self.points), self.level.fitted_to

    def _places(self, room: Room, count: int) -> int:
        """How many of ``count`` trials may go on."""
        if room == "all":
            return count
        places = (math.floor if room == "down" else math.ceil)(count / self.reduction)
        if room == "down" and places >= MANY:  # ranking thousands at each arrival would be most of the work
            places -= places % (places // (MANY // 2))
        return places

    def best(self, places: int, seen: int) -> list[str]:
        of = (places, seen, self.level.fitted_to)
        if self._best_of != of:
            keys = list(self.points)
            self._best_of = of
            self._best = [keys[i] for i in best_first(self.level.compared(keys), most=places)]
        return self._best

    def reason(self, key: str) -> str:
        seen = len(self.points)
        place = self.best(seen, seen).index(key) + 1
        how = " by forecast" if self.level.fitted_to else ""
        return f"rung {self.epoch}: rank {place} of {seen}{how}, kept 1 in {self.reduction:g}"

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
from analysis.objectives import Objective
from vqcore.config import ConfigError, Scalar

Room = Literal["down", "up", "all"]
"""How many of n may leave a rung: n / reduction rounded down while trials are still to come, up once a slot would stand
still, and all where a budget is left to be spent."""


@dataclass(frozen=True)
class Rule:
    """How a sweep stops trials early."""

    objectives: tuple[Objective, ...]
    """One or two."""
    grace: int = 2
    """The epoch of the first rung; the next ones are ``reduction`` times as far, each."""
    reduction: float = 3.0
    """Of the trials at a rung, 1 in ``reduction`` goes on."""
    group_by: str | None = "codebook_size"
    """Trials are compared where they are equal in this field. Perplexity is bounded by the number of codes, and
    stopping across sizes leaves no small codebook; None compares all."""
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
        if self.brackets < 1:
            problems.append(f"brackets = {self.brackets}: must be at least 1")
        if problems:
            raise ConfigError(problems)

    def rungs(self, budget: int, number: int = 0) -> tuple[int, ...]:
        """The epochs below ``budget`` at which trial ``number`` waits."""
        epochs, step = [], float(self.grace)
        while round(step) < budget:
            epochs += [round(step)] if round(step) not in epochs else []
            step *= self.reduction
        return tuple(epochs[self._bracket(number, len(epochs)) :])

    def plan(self, trials: int, budget: int) -> list[tuple[int, int]]:
        """(epoch, trials trained until there) for each rung and the budget, if all are of one group."""
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


def automatic(objectives: tuple[Objective, ...], epochs: int) -> Rule | None:
    """The rule that replay found best for these objectives; None where none beat training every trial in full."""
    return Rule(objectives, grace=max(1, round(epochs / 10)))


@dataclass
class Ladder:
    """The rungs of a sweep and who waits where. Same arrivals in the same order, same decisions."""

    rule: Rule
    _rungs: dict[tuple[int, Scalar | None], "_Rung"] = field(default_factory=dict)
    """By epoch and group; brackets share them."""
    _waiting: dict[str, "_Rung"] = field(default_factory=dict)

    def milestone(self, number: int, epoch: int, budget: int) -> int:
        """The epoch up to which a trial with ``epoch`` epochs may train before it is judged: a rung or the budget."""
        return next((rung for rung in self.rule.rungs(budget, number) if rung > epoch), budget)

    def arrive(
        self, key: str, number: int, config: Mapping[str, Scalar], epoch: int, budget: int, metrics: Mapping[str, float]
    ) -> bool:
        """Take note of a trial's metrics after ``epoch``; whether it now waits for its promotion there."""
        if epoch not in self.rule.rungs(budget, number):
            return False
        group = config.get(self.rule.group_by) if self.rule.group_by else None
        rung = self._rungs.setdefault((epoch, group), _Rung(epoch, self.rule.reduction))
        if key in rung.points:  # it was judged, went on, and came back without another epoch
            return False
        rung.add(key, self._point(metrics))
        self._waiting[key] = rung
        return True

    def promotable(self, room: Room = "down") -> str | None:
        """The trial to go on with, from the highest rung that has room; None if there is none."""
        rungs = sorted(self._rungs.values(), key=lambda rung: (-rung.epoch, rung.promoted_share))
        return next((key for rung in rungs if (key := rung.next(room)) is not None), None)

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
class _Rung:
    epoch: int
    reduction: float
    points: dict[str, Point] = field(default_factory=dict)
    promoted: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    _nobody: dict[Room, tuple[int, int]] = field(default_factory=dict)
    """The room in which nobody was found, and of how many."""
    _best: list[str] = field(default_factory=list)
    _best_of: tuple[int, int] = (0, 0)
    """The places and the number of trials that ``_best`` is of."""

    @property
    def promoted_share(self) -> float:
        return len(self.promoted) / len(self.points)

    def add(self, key: str, point: Point) -> None:
        self.points[key] = point

    def next(self, room: Room) -> str | None:
        places, seen = self.room(room), len(self.points)
        before_places, before_seen = self._nobody.get(room, (0, 0))
        # while more are to come, look again when there is more room and not at each arrival: ranking takes time
        if places == before_places and (room == "down" or seen == before_seen):
            return None
        for key in self.best(places):
            if key not in self.promoted and key not in self.dropped and all(map(math.isfinite, self.points[key])):
                return key
        self._nobody[room] = (places, seen)
        return None

    def room(self, room: Room) -> int:
        share = len(self.points) / self.reduction
        return {"down": math.floor(share), "up": math.ceil(share), "all": len(self.points)}[room]

    def best(self, places: int) -> list[str]:
        of = (places, len(self.points))
        if self._best_of != of:
            keys = list(self.points)
            self._best_of = of
            self._best = [keys[i] for i in best_first(list(self.points.values()), most=places)]
        return self._best

    def reason(self, key: str) -> str:
        seen = len(self.points)
        place = self.best(seen).index(key) + 1
        return f"rung {self.epoch}: rank {place} of {seen}, kept 1 in {self.reduction:g}"

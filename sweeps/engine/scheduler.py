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
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Literal

from analysis.fronts import Point, best_first
from analysis.objectives import Objective
from sweeps.engine.stopping import objectives_problems
from vqcore.config import ConfigError, Scalar

Config = Mapping[str, Scalar]
Rounding = Literal["down", "up", "all"]
"""How many of n trials may leave a rung: n / reduction_factor rounded down while trials are still to come, up once a
slot would stand still, and all where a budget is left to be spent."""


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving, with its usual parameters."""

    objectives: tuple[Objective, ...]
    """One or two."""
    grace_period: int = 2
    """The epoch of the first rung."""
    reduction_factor: float = 3.0
    """Of the trials at a rung, 1 in ``reduction_factor`` is promoted."""
    group_by: str | None = "codebook_size"
    """A field of the configuration: trials are compared where they are equal in it. Perplexity is bounded by the number
    of codes, and stopping across sizes leaves no small codebook. None compares all."""

    def __post_init__(self) -> None:
        problems = objectives_problems(self.objectives)
        if self.grace_period < 1:
            problems.append(f"grace = {self.grace_period}: must be at least 1 epoch")
        if not (math.isfinite(self.reduction_factor) and self.reduction_factor > 1):
            problems.append(f"reduction = {self.reduction_factor:g}: must be above 1; 3 keeps one trial in three")
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
            step *= self.reduction_factor
        return tuple(epochs)

    @property
    def name(self) -> str:
        """The rule and its parameters, in a few words."""
        return f"asha, 1 in {self.reduction_factor:g} from epoch {self.grace_period}, by {self.group_by or 'all'}"

    def start(self, max_epochs: int) -> "SuccessiveHalving":
        """For the trials of one run, of so many epochs each."""
        return SuccessiveHalving(self, max_epochs)

    def plan(self, trials: int, max_epochs: int) -> str:
        """How many of so many trials are trained until when, in words, if all are of one group."""
        return ", ".join(f"{count} to epoch {epoch}" for epoch, count in self._reached(trials, max_epochs))

    def expected_epochs(self, trials: int, max_epochs: int) -> int:
        """The epochs that ``plan`` adds up to."""
        steps = itertools.pairwise([(0, 0), *self._reached(trials, max_epochs)])
        return sum(reached * (epoch - before) for (before, _), (epoch, reached) in steps)

    def _reached(self, trials: int, max_epochs: int) -> list[tuple[int, int]]:
        stops = (*self.rungs(max_epochs), max_epochs)
        return [(epoch, math.ceil(trials / self.reduction_factor**place)) for place, epoch in enumerate(stops)]


class SuccessiveHalving:
    """The rungs of a sweep, and which trials wait there. The same results in the same order, the same decisions."""

    def __init__(self, rule: Halving, max_epochs: int) -> None:
        self.rule, self.max_epochs = rule, max_epochs
        self._epochs = rule.rungs(max_epochs)
        self._rungs: dict[tuple[int, Scalar | None], _Rung] = {}
        """By epoch and group."""
        self._waiting: dict[str, _Rung] = {}

    def add(self, key: str, config: Config) -> None:
        """A trial that has not begun is in no rung."""

    def next_rung(self, epoch: int) -> int:
        """The epoch up to which a trial with ``epoch`` epochs trains: a rung's, or the last."""
        return next((rung for rung in self._epochs if rung > epoch), self.max_epochs)

    def on_result(self, key: str, config: Config, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of a trial's metrics after ``epoch``; whether it now waits at a rung.

        One that waits at an earlier rung was promoted, else it would not have got here.
        """
        self.promote(key)
        rule = self.rule
        if epoch not in self._epochs:
            return False
        group = config.get(rule.group_by) if rule.group_by else None
        rung = self._rungs.setdefault((epoch, group), _Rung(epoch, rule.reduction_factor))
        if key in rung.points:  # it was promoted, and came back without another epoch
            return False
        rung.points[key] = rule.point(metrics)
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

    def choose(self, draw: Callable[[], str | None], spare: bool) -> str | None:
        """The trial that gets a slot: a new one, which ``draw`` gives, unless a rung has a place to give.

        ``spare``: whether epochs are left to be spent, so that all go on once nothing else is left.
        """
        return self.promotable("down") or draw() or self.promotable("all" if spare else "up")

    def promote(self, key: str) -> None:
        """Let a trial go on from the rung at which it waits, if it waits at one."""
        if (rung := self._waiting.pop(key, None)) is not None:
            rung.promoted += 1

    def drop(self, key: str) -> None:
        """Never promote a trial: it has ended. What it reached still counts."""
        self._waiting.pop(key, None)

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""
        return key in self._waiting

    def reason(self, key: str) -> str:
        """Where a waiting trial stands, in words: why it was stopped, if it goes no further."""
        return self._waiting[key].reason(key)


@dataclass
class _Rung:
    epoch: int
    reduction_factor: float
    points: dict[str, Point] = field(default_factory=dict)
    promoted: int = 0
    _ranked: dict[Rounding, tuple[tuple[int, int], list[str]]] = field(default_factory=dict)
    """The ranking made last, with the places, and the number of trials that it was made for."""

    def best(self, rounding: Rounding) -> list[str]:
        """The trials that may leave the rung or have left it, the best first."""
        count = len(self.points)
        places = count if rounding == "all" else math.ceil(count / self.reduction_factor)
        if rounding == "down":  # ranked anew when there is a place more and not at each arrival, which takes time
            places = math.floor(count / self.reduction_factor)
            count = math.ceil(places * self.reduction_factor)
        of = (places, count)
        ranked_for, ranked = self._ranked.get(rounding, ((0, 0), []))
        if ranked_for != of:
            keys = list(self.points)[:count]
            ranked = [keys[i] for i in best_first([self.points[key] for key in keys], most=places)]
            self._ranked[rounding] = of, ranked
        return ranked

    def reason(self, key: str) -> str:
        seen = len(self.points)
        rank = self.best("all").index(key) + 1
        return f"rung {self.epoch}: rank {rank} of {seen}, kept 1 in {self.reduction_factor:g}"

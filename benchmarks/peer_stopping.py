"""Early stopping of the peers in a replay: their own classes decide, without their runtimes.

Both are of the stopping type: a trial keeps its slot until it is told to stop, and is never taken up again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from analysis.objectives import Objective
from benchmarks.curves import Metrics
from trainables.job import TrialJob

Stops = Callable[[str, int, Metrics], bool]
"""Whether a trial is to stop, from its key, its epoch and what that epoch reported."""


def ray_asha(objective: Objective, epochs: int, grace: int, reduction: float) -> Stops:
    """Ray Tune's ``AsyncHyperBandScheduler``."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    asha: Any = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=objective.column,
        mode=objective.direction,
        max_t=epochs,
        grace_period=grace,
        reduction_factor=reduction,
    )

    def stops(key: str, epoch: int, metrics: Metrics) -> bool:
        trial = SimpleNamespace(trial_id=key)  # all that it looks at; and never at a controller
        if epoch == 1:
            asha.on_trial_add(None, trial)
        return bool(asha.on_trial_result(None, trial, {**metrics, "epoch": epoch}) == TrialScheduler.STOP)

    return stops


def moasha(objectives: Sequence[Objective], epochs: int, grace: int, reduction: float, seed: int = 0) -> Stops:
    """Syne Tune's ``MOASHA``. It minimises all or maximises all: what is to be large is handed over negated."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.scheduler import SchedulerDecision
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    names = [objective.column for objective in objectives]
    random = np.random.RandomState(seed)
    asha = MOASHA(
        {}, names, time_attr="epoch", max_t=epochs, grace_period=grace, reduction_factor=reduction, random_seed=seed
    )
    trials: dict[str, Trial] = {}

    def stops(key: str, epoch: int, metrics: Metrics) -> bool:
        before = np.random.get_state()  # it draws from numpy's one global stream, whatever its random_seed
        np.random.set_state(random.get_state())
        try:
            if epoch == 1:
                trials[key] = Trial(len(trials), {}, None)
                asha.on_trial_add(trials[key])
            values = {objective.column: objective.minimised(metrics) for objective in objectives}
            decision = asha.on_trial_result(trials[key], {**values, "epoch": epoch})
        finally:
            random.set_state(np.random.get_state())
            np.random.set_state(before)
        return bool(decision == SchedulerDecision.STOP)

    return stops


@dataclass
class InOrder:
    """A ``Scheduler``: trials begin in the order given and keep their slots until they end or ``stops`` says so."""

    jobs: Sequence[TrialJob]
    stops: Stops
    slots: int
    budget: int
    """Epochs that may be trained in all."""
    _begun: int = 0
    _running: set[str] = field(default_factory=set)

    def next(self) -> str | None:
        """A new trial, while a slot is free and the budget has an epoch left for each that runs."""
        full = len(self._running) >= self.slots or len(self._running) >= self.budget
        return None if full or self._begun == len(self.jobs) else self.jobs[self._begun].key

    def begin(self, key: str) -> None:
        """Give it the slot."""
        self._begun += 1
        self._running.add(key)

    def on_result(self, key: str, epoch: int, metrics: Metrics) -> bool:
        """Whether the trial keeps its slot."""
        self.budget -= 1
        goes_on = not self.stops(key, epoch, metrics) and len(self._running) <= self.budget
        if not goes_on:
            self._running.discard(key)
        return goes_on

    def ended(self, key: str) -> None:
        """Free its slot."""
        self._running.discard(key)

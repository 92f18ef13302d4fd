"""Early stopping of the peers in a replay: their own classes decide, without their runtimes.

All are of the stopping type: a trial keeps its slot until it is told to stop, and is never taken up again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from analysis.objectives import Objective
from benchmarks.curves import Metrics
from trainables.job import TrialJob

Stops = Callable[[str, int, Metrics], bool]
"""Whether a trial is to stop, from its key, its epoch and what that epoch reported."""

Aims = Sequence[Objective]
"""Peers that take one objective take the first."""


def ray_asha(aims: Aims, epochs: int, grace: int, reduction: float, brackets: int = 1) -> Stops:
    """Ray Tune's ``AsyncHyperBandScheduler``."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    return _ray(
        AsyncHyperBandScheduler(
            **_of_epochs(aims),
            max_t=epochs,
            grace_period=grace,
            reduction_factor=reduction,
            brackets=brackets,
        )
    )


def hyperband(aims: Aims, epochs: int, grace: int, reduction: float) -> Stops:
    """The same class with three brackets: asynchronous Hyperband, as Ray documents it."""
    return ray_asha(aims, epochs, grace, reduction, brackets=3)


def median_stopping(aims: Aims, epochs: int, grace: int) -> Stops:
    """Ray Tune's ``MedianStoppingRule``. As it is told of no trial that waits, it never pauses one to let others by."""
    from ray.tune.schedulers import MedianStoppingRule

    return _ray(MedianStoppingRule(**_of_epochs(aims), grace_period=grace, min_samples_required=3, hard_stop=True))


def _of_epochs(aims: Aims) -> dict[str, Any]:
    return {"time_attr": "epoch", "metric": aims[0].column, "mode": aims[0].direction}


@dataclass(frozen=True)
class _RayTrial:
    trial_id: str
    """All that Ray's schedulers look at; and they keep trials in dictionaries."""


def _ray(scheduler: Any) -> Stops:
    from ray.tune.schedulers import TrialScheduler

    controller = SimpleNamespace(get_live_trials=list)
    random = np.random.RandomState(0)

    def stops(key: str, epoch: int, metrics: Metrics) -> bool:
        trial = _RayTrial(key)
        with _global_stream(random):  # a bracket is drawn from it
            if epoch == 1:
                scheduler.on_trial_add(controller, trial)
            decision = scheduler.on_trial_result(controller, trial, {**metrics, "epoch": epoch})
        return bool(decision == TrialScheduler.STOP)

    return stops


def moasha(aims: Aims, epochs: int, grace: int, reduction: float) -> Stops:
    """Syne Tune's ``MOASHA``. It minimises all or maximises all: what is to be large is handed over negated."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.scheduler import SchedulerDecision
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    names = [objective.column for objective in aims]
    asha = MOASHA(
        {}, names, time_attr="epoch", max_t=epochs, grace_period=grace, reduction_factor=reduction, random_seed=0
    )
    random = np.random.RandomState(0)
    trials: dict[str, Trial] = {}

    def stops(key: str, epoch: int, metrics: Metrics) -> bool:
        values = {objective.column: objective.minimised(metrics) for objective in aims}
        with _global_stream(random):  # it draws from it, whatever its random_seed
            if epoch == 1:
                trials[key] = Trial(len(trials), {}, None)
                asha.on_trial_add(trials[key])
            decision = asha.on_trial_result(trials[key], {**values, "epoch": epoch})
        return bool(decision == SchedulerDecision.STOP)

    return stops


@contextmanager
def _global_stream(random: np.random.RandomState) -> Iterator[None]:
    """Let numpy's one global stream be ``random``, so that a replay repeats, and nobody else's is changed."""
    before = np.random.get_state()
    np.random.set_state(random.get_state())
    try:
        yield
    finally:
        random.set_state(np.random.get_state())
        np.random.set_state(before)


@dataclass
class InOrder:
    """A ``Scheduler``: trials begin in the order given and keep their slots until they end or ``stops`` says so."""

    jobs: Sequence[TrialJob]
    stops: Stops
    slots: int
    _begun: int = 0
    _running: set[str] = field(default_factory=set)

    def next(self) -> str | None:
        """A new trial, while a slot is free."""
        full = len(self._running) >= self.slots or self._begun == len(self.jobs)
        return None if full else self.jobs[self._begun].key

    def begin(self, key: str) -> None:
        """Give it the slot."""
        self._begun += 1
        self._running.add(key)

    def on_result(self, key: str, epoch: int, metrics: Metrics) -> bool:
        """Whether the trial keeps its slot."""
        if self.stops(key, epoch, metrics):
            self._running.discard(key)
        return key in self._running

    def ended(self, key: str) -> None:
        """Free its slot."""
        self._running.discard(key)

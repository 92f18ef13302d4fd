"""Which trial gets a free slot, and for how many epochs: pure.

A trial resumes to the last bit from its checkpoint on any slot, so it need not keep the slot it started on. Trials run
to their end while there are plenty; in the tail of a sweep, when the trials left are fewer than twice the slots, they
take turns, the one that is furthest behind first. Five equal trials on two slots then take 2.5 times as long as one,
not 3 (McNaughton's bound for preemptive scheduling), and no slot idles while a last trial runs alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from trainables.trial import TrialJob

TURNS = 8
"""Turns that a budget is cut into in the tail: short enough to even out, long enough not to notice the switch."""


@dataclass(frozen=True)
class Slice:
    """Train ``job`` until it has ``until`` epochs."""

    job: TrialJob
    until: int


@dataclass
class _Progress:
    job: TrialJob
    epoch: int
    running: bool = False


@dataclass
class Slices:
    """Hands out slices of trials to ``slots`` slots. ``jobs`` in the order wanted, with the epochs each already has."""

    slots: int
    _open: dict[str, _Progress] = field(default_factory=dict)

    def add(self, jobs: Iterable[tuple[TrialJob, int]]) -> None:
        """Trials to finish, with the epochs that each has."""
        for job, epoch in jobs:
            self._open[job.key] = _Progress(job, epoch)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to hand out or to wait for."""
        return not self._open

    def next(self) -> Slice | None:
        """The next slice; None while every open trial is running."""
        ready = [trial for trial in self._open.values() if not trial.running]
        if not ready:
            return None
        tail = len(self._open) < 2 * self.slots and len(self._open) > self.slots
        # max and min keep the first of equals: the order given
        trial = min(ready, key=lambda t: t.epoch) if tail else max(ready, key=lambda t: t.epoch)
        trial.running = True
        budget = trial.job.config.training.epochs
        turn = max(1, budget // TURNS)
        return Slice(trial.job, min(budget, trial.epoch + turn) if tail else budget)

    def returned(self, key: str, epoch: int, ended: bool) -> None:
        """A slice is over: the trial has ``epoch`` epochs, and is open no more if it ``ended``."""
        trial = self._open[key]
        trial.running, trial.epoch = False, epoch
        if ended:
            del self._open[key]

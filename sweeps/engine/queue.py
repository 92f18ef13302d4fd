"""Which trial gets a free slot, and up to which epoch: pure.

A trial resumes to the last bit from its checkpoint on any slot, so it need not keep the slot it started on. Trials run
to their end while there are plenty; in the tail of a sweep, when fewer trials are left than twice the slots, they take
turns, the one that is furthest behind first. Five equal trials on two slots then take 2.5 times as long as one, not 3
(McNaughton's bound for preemptive scheduling), and no slot idles while a last trial runs alone.

With early stopping a trial pauses at each rung, holding no slot, until it is chosen; one that is itself the choice
keeps its slot. Every decision is a function of the results that have arrived, so that a resumed sweep decides as the
one that was interrupted would have.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sweeps.engine.stopping import EarlyStopping
from trainables.job import TrialJob

TURNS = 8
"""Turns that a training is cut into in the tail: short enough to even out, long enough not to notice the switch."""


@dataclass
class _Trial:
    job: TrialJob
    epoch: int
    place: int
    """In the order in which trials are wanted."""
    until: int = 0
    """The epoch at which it gives up its slot."""

    @property
    def last(self) -> int:
        return self.job.config.training.epochs


class TrialQueue:
    """The trials that are not finished, and the slots that they run on."""

    def __init__(
        self,
        slots: int,
        stopping: EarlyStopping | None = None,
        draw: Callable[[], TrialJob | None] | None = None,
        budget: int | None = None,
        spent: int = 0,
    ) -> None:
        """Every trial runs to its last epoch unless there is ``stopping``.

        ``draw`` gives a new trial when a slot has nothing else to do, None when there are no more. ``budget`` epochs
        may be trained in all, of which ``spent`` have been; what early stopping leaves goes to the best that wait.
        """
        self.slots, self.budget = slots, budget
        self.running: set[str] = set()
        """The keys of trials that have a slot."""
        self._stopping = stopping
        self._draw, self._booked = draw, spent
        self._added = 0
        self._open: dict[str, _Trial] = {}
        """In the order in which they are wanted."""
        self._new: dict[str, None] = {}
        """Those that had no slot yet: thousands, so that the first is taken without looking at the others."""
        self._begun: dict[str, None] = {}
        """Those that lost their slot, the ones that wait at a rung among them."""
        self._interrupted: dict[str, None] = {}
        """With early stopping: trials that lost their slot by an accident go on before anyone is promoted."""

    def add(self, jobs: Iterable[tuple[TrialJob, int]]) -> None:
        """Trials to finish, in the order wanted, each with the epochs that it has."""
        for job, epoch in jobs:
            self._open[job.key] = _Trial(job, epoch, self._added)
            self._added += 1
            if epoch > 0:
                self._begun[job.key] = None
                self._note_interrupted(job.key)
            else:
                self._new[job.key] = None
                if self._stopping is not None:
                    self._stopping.add(job.key, job.config.flat())

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none is left to run; those that are still open go no further."""
        return not self.running and self._choose() is None

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""
        return self._stopping is not None and self._stopping.waits(key)

    def next(self) -> str | None:
        """The key of the trial that gets the next slot; None while no slot is free, or no trial may have it."""
        return None if len(self.running) >= self.slots else self._choose()

    def begin(self, key: str) -> TrialJob:
        """Give a slot to the trial that ``next`` named."""
        trial = self._open[key]
        self._run_on(trial)
        for ready in (self._new, self._begun, self._interrupted):
            ready.pop(key, None)
        self.running.add(key)
        return trial.job

    def on_result(self, key: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note that a running trial has ``epoch`` epochs, with these metrics; whether it keeps its slot."""
        trial = self._open[key]
        trial.epoch = epoch
        if self._keeps_slot(trial, metrics):
            if epoch >= trial.until:
                self._run_on(trial)
            if epoch < trial.until:
                return True
        self._release(key)
        if epoch < trial.last:
            self._note_interrupted(key)  # by the end of the budget, of which another may yet leave something
        return False

    def _keeps_slot(self, trial: _Trial, metrics: Mapping[str, float]) -> bool:
        key, epoch = trial.job.key, trial.epoch
        if self._stopping is None:
            return epoch < trial.until
        waits = self._stopping.on_result(key, trial.job.config.flat(), epoch, metrics)
        return not waits or (len(self.running) <= self.slots and self._choose() == key)

    def interrupted(self, key: str) -> None:
        """Take a slot from a trial that goes on later, from its checkpoint."""
        self._release(key)
        self._note_interrupted(key)

    def ended(self, key: str) -> None:
        """Forget a trial that has ended; its results still count at the rungs."""
        self._release(key)
        if self._stopping is not None:
            self._stopping.drop(key)
        for held in (self._new, self._begun, self._interrupted, self._open):
            held.pop(key, None)

    def stopped(self) -> Iterator[tuple[TrialJob, str]]:
        """Once ``finished``: the trials that go no further, each with the reason."""
        spent = self.budget is not None and self._booked >= self.budget
        for key, trial in self._open.items():
            budget = f"the budget of {self.budget} epochs is spent"
            yield trial.job, budget if spent or self._stopping is None else self._stopping.reason(key)

    def _run_on(self, trial: _Trial) -> None:
        """Fix the epoch up to which a trial has its slot."""
        trial.until = trial.last
        if self._stopping is not None:
            self._stopping.promote(trial.job.key)
            trial.until = min(trial.last, self._stopping.next_rung(trial.epoch))
        elif self._in_tail:
            trial.until = min(trial.last, trial.epoch + max(1, trial.last // TURNS))
        if self.budget is not None:
            trial.until = min(trial.until, trial.epoch + self.budget - self._booked)
        self._booked += trial.until - trial.epoch

    def _release(self, key: str) -> None:
        if key in self.running:
            self.running.discard(key)
            trial = self._open[key]
            self._booked += trial.epoch - trial.until  # it may give up its slot before it had to
            self._begun[key] = None

    def _note_interrupted(self, key: str) -> None:
        if self._stopping is not None and not self.waits(key):
            self._interrupted.setdefault(key)

    @property
    def _in_tail(self) -> bool:
        return self._draw is None and self.slots < len(self._open) < 2 * self.slots

    def _choose(self) -> str | None:
        """The key of the trial to run next, whether a slot is free or not."""
        if self.budget is not None and self._booked >= self.budget:  # an end that was not recorded costs no epoch
            return next((key for key in self._begun if self._open[key].epoch >= self._open[key].last), None)
        if self._interrupted:
            return next(iter(self._interrupted))
        if self._stopping is not None:
            return self._stopping.choose(self._fresh, spare=self.budget is not None)
        return self._first()

    def _first(self) -> str | None:
        """The trial that is furthest, in the tail the one furthest behind; a new one if none has begun."""
        if self._in_tail and (ready := [*self._new, *self._begun]):
            return min(ready, key=lambda key: (self._open[key].epoch, self._open[key].place))
        if self._begun:
            return max(self._begun, key=lambda key: (self._open[key].epoch, -self._open[key].place))
        return self._fresh()

    def _fresh(self) -> str | None:
        """A trial that has not begun: the first that is known, or one that is drawn."""
        if not self._new:
            if self._draw is None or (job := self._draw()) is None:
                self._draw = None
                return None
            self.add([(job, 0)])
        return next(iter(self._new))

"""Which trial gets a free slot, and up to which epoch: pure.

A trial resumes to the last bit from its checkpoint on any slot, so it need not keep the slot it started on. Trials run
to their end while there are plenty; in the tail of a sweep, when fewer trials are left than twice the slots, they take
turns, the one that is furthest behind first. Five equal trials on two slots then take 2.5 times as long as one, not 3
(McNaughton's bound for preemptive scheduling), and no slot idles while a last trial runs alone.

With early stopping a trial pauses at each rung, holding no slot, until it is promoted. Every decision is a function of
the results that have arrived, so that a resumed sweep decides as the one that was interrupted would have.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sweeps.engine.scheduler import Rounding, SuccessiveHalving
from trainables.trial import TrialJob

TURNS = 8
"""Turns that a training is cut into in the tail: short enough to even out, long enough not to notice the switch."""


@dataclass
class _Trial:
    job: TrialJob
    epoch: int
    order: int
    """In which it is wanted."""
    until: int = 0
    """The epoch at which it gives up its slot."""


class TrialQueue:
    """The trials that are not finished, and the slots that they run on."""

    def __init__(
        self,
        slots: int,
        halving: SuccessiveHalving | None = None,
        draw: Callable[[], TrialJob | None] | None = None,
        budget: int | None = None,
        spent: int = 0,
    ) -> None:
        """Every trial runs to its last epoch unless there is ``halving``.

        ``draw`` gives a new trial when a slot has nothing else to do, None when there are no more. ``budget`` epochs
        may be trained in all, of which ``spent`` have been; what halving leaves of it goes to the best that wait.
        """
        self.slots, self.halving, self.budget = slots, halving, budget
        self.halted = False
        """Whether no further slot is given: the run ends here and is resumed another time."""
        self._draw, self._booked = draw, spent
        self._open: dict[str, _Trial] = {}
        self._running: set[str] = set()
        self._waiting: set[str] = set()
        self._ready: list[tuple[int, int, str]] = []
        """A heap of trials without a slot: the furthest first, then as wanted. Entries that are out of date are passed
        over."""
        self._interrupted: list[str] = []
        """Trials that lost their slot by an accident: with halving they go on before anyone is promoted."""
        self._next: str | None = None
        self._added = 0

    def add(self, jobs: Iterable[tuple[TrialJob, int]]) -> None:
        """Trials to finish, in the order wanted, each with the epochs that it has."""
        for job, epoch in jobs:
            self._add(job, epoch)

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return len(self._running)

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none is left to run; those that are still open go no further."""
        if self._running:
            return False
        more = self._draw is not None or self._moving > 0
        if self._spent:
            return self._unended() is None
        return not (more or self._promotable(self._last_rounding))

    def job(self, key: str) -> TrialJob:
        """An open trial."""
        return self._open[key].job

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""
        return key in self._waiting

    def is_running(self, key: str) -> bool:
        """Whether a trial has a slot."""
        return key in self._running

    def next(self) -> str | None:
        """The key of the trial that gets the next slot; None while no slot is free, or no trial may have it."""
        if self.halted or len(self._running) >= self.slots:
            return None
        if self._spent:
            return self._unended()
        if self._next is None:
            self._next = self._choose()
        return self._next

    def begin(self, key: str) -> TrialJob:
        """Give a slot to the trial that ``next`` named."""
        trial, self._next = self._open[key], None
        if key in self._waiting:
            assert self.halving is not None
            self.halving.promote(key)
            self._waiting.discard(key)
        last = trial.job.config.training.epochs
        until = self.halving.next_rung(trial.epoch) if self.halving else last
        if self._in_tail:
            until = min(until, trial.epoch + max(1, last // TURNS))
        if self.budget is not None:
            until = min(until, trial.epoch + self.budget - self._booked)
        trial.until = until
        self._booked += until - trial.epoch
        self._running.add(key)
        return trial.job

    def on_result(self, key: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note that a running trial has ``epoch`` epochs, with these metrics; whether it keeps its slot."""
        trial = self._open[key]
        trial.epoch = epoch
        if self.halving is not None and self.halving.on_result(key, trial.job.config.flat(), epoch, metrics):
            self._waiting.add(key)
        if epoch < trial.until and key not in self._waiting and not self.halted:
            return True
        self._release(trial)
        return False

    def interrupted(self, key: str) -> None:
        """Take a slot from a trial whose process is gone. It goes on later from its checkpoint."""
        self._release(self._open[key])
        self._interrupted.append(key)

    def ended(self, key: str) -> None:
        """Forget a trial that has ended; its results still count at the rungs."""
        self._release(self._open[key])
        if self.halving is not None:
            self.halving.drop(key)
        self._waiting.discard(key)
        del self._open[key]

    def stopped(self) -> Iterator[tuple[TrialJob, str]]:
        """Once ``finished``: the trials that go no further, each with the reason."""
        for key, trial in self._open.items():
            if self.halving is not None and key in self._waiting:
                yield trial.job, self.halving.reason(key)
            else:
                yield trial.job, f"the budget of {self.budget} epochs is spent"

    def _add(self, job: TrialJob, epoch: int) -> str:
        self._added += 1
        trial = self._open[job.key] = _Trial(job, epoch, self._added)
        if self.halving is not None and self.halving.waits(job.key):
            self._waiting.add(job.key)
            return job.key
        self._push(trial)
        if epoch:
            self._interrupted.append(job.key)
        return job.key

    def _release(self, trial: _Trial) -> None:
        key, self._next = trial.job.key, None
        if key in self._running:
            self._running.discard(key)
            self._booked += trial.epoch - trial.until  # it may give up its slot before it had to
        if key not in self._waiting:
            self._push(trial)

    def _push(self, trial: _Trial) -> None:
        heapq.heappush(self._ready, (-trial.epoch, trial.order, trial.job.key))

    @property
    def _moving(self) -> int:
        """Open trials that do not wait at a rung."""
        return len(self._open) - len(self._waiting)

    @property
    def _spent(self) -> bool:
        return self.budget is not None and self._booked >= self.budget

    @property
    def _in_tail(self) -> bool:
        return self._draw is None and self.slots < self._moving < 2 * self.slots

    @property
    def _last_rounding(self) -> Rounding:
        """How many are promoted when nothing else is left to do: some, or all that the budget allows."""
        return "up" if self.budget is None else "all"

    def _choose(self) -> str | None:
        breadth_first = self.halving is not None and self.halving.rule.breadth_first
        return (
            self._first_interrupted()
            or (None if breadth_first else self._promotable("down"))
            or self._first_ready()
            or self._drawn()
            or self._promotable("down")
            or self._promotable(self._last_rounding)
        )

    def _unended(self) -> str | None:
        """A trial that has all its epochs but no recorded end, which costs no epoch of the budget."""
        open_trials = self._open.items()
        ready = (key for key, trial in open_trials if trial.epoch >= trial.job.config.training.epochs)
        return next(filter(self._is_ready, ready), None)

    def _promotable(self, rounding: Rounding) -> str | None:
        return self.halving.promotable(rounding) if self.halving is not None else None

    def _is_ready(self, key: str) -> bool:
        return key in self._open and key not in self._running and key not in self._waiting

    def _first_interrupted(self) -> str | None:
        while self.halving is not None and self._interrupted:
            if self._is_ready(self._interrupted[0]):
                return self._interrupted[0]
            self._interrupted.pop(0)
        return None

    def _first_ready(self) -> str | None:
        if self._in_tail:  # few: look at all
            ready = [key for key in self._open if self._is_ready(key)]
            return min(ready, key=lambda key: self._open[key].epoch, default=None)
        while self._ready:
            epoch, _, key = self._ready[0]
            if self._is_ready(key) and self._open[key].epoch == -epoch:
                return key
            heapq.heappop(self._ready)
        return None

    def _drawn(self) -> str | None:
        job = self._draw() if self._draw is not None else None
        if job is None:
            self._draw = None
            return None
        return self._add(job, 0)

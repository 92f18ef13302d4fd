"""Which trial gets a free slot, and up to which epoch: pure.

A trial resumes to the last bit from its checkpoint on any slot, so it need not keep the slot it started on. Trials run
to their end while there are plenty; in the tail of a sweep, when fewer trials are left than twice the slots, they take
turns, the one that is furthest behind first. Five equal trials on two slots then take 2.5 times as long as one, not 3
(McNaughton's bound for preemptive scheduling), and no slot idles while a last trial runs alone.

With early stopping a trial pauses at each rung, holding no slot, until it is promoted. Every decision is a function of
the results that have arrived, so that a resumed sweep decides as the one that was interrupted would have.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sweeps.engine.scheduler import Rounding, SuccessiveHalving
from trainables.trial import TrialJob

TURNS = 8
"""Turns that a training is cut into in the tail: short enough to even out, long enough not to notice the switch."""


class _Place(NamedTuple):
    """Of a trial that could run, among those without a slot: the least runs first."""

    uninterrupted: bool
    """With early stopping, those that lost their slot by an accident go on before anyone is promoted."""
    rank: int
    """The furthest first; of the interrupted, as they were interrupted."""
    order: int
    """In which it is wanted."""
    key: str


@dataclass
class _Trial:
    job: TrialJob
    epoch: int
    order: int
    """In which it is wanted."""
    until: int = 0
    """The epoch at which it gives up its slot."""
    place: _Place | None = None
    """None while it has a slot, and while it waits at a rung."""


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
        self.slots, self.budget = slots, budget
        self.halted = False
        """Whether no further slot is given: the run ends here and is resumed another time."""
        self.running: set[str] = set()
        """The keys of trials that have a slot."""
        self._halving = halving or SuccessiveHalving(None)
        self._draw, self._booked = draw, spent
        self._open: dict[str, _Trial] = {}
        self._ready: list[_Place] = []
        """A heap of trials without a slot that wait at no rung. A place that its trial has left is passed over."""
        self._count = itertools.count()

    def add(self, jobs: Iterable[tuple[TrialJob, int]]) -> None:
        """Trials to finish, in the order wanted, each with the epochs that it has."""
        for job, epoch in jobs:
            trial = self._open[job.key] = _Trial(job, epoch, next(self._count))
            if not self.waits(job.key):
                self._push(trial, interrupted=epoch > 0)

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none is left to run; those that are still open go no further."""
        return not self.running and self._choose() is None

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""
        return self._halving.waits(key)

    def next(self) -> str | None:
        """The key of the trial that gets the next slot; None while no slot is free, or no trial may have it."""
        return None if self.halted or len(self.running) >= self.slots else self._choose()

    def begin(self, key: str) -> TrialJob:
        """Give a slot to the trial that ``next`` named."""
        trial = self._open[key]
        self._halving.promote(key)
        last = trial.job.config.training.epochs
        until = min(last, self._halving.next_rung(trial.epoch))
        if self._in_tail:
            until = min(until, trial.epoch + max(1, last // TURNS))
        if self.budget is not None:
            until = min(until, trial.epoch + self.budget - self._booked)
        trial.until, trial.place = until, None
        self._booked += until - trial.epoch
        self.running.add(key)
        return trial.job

    def on_result(self, key: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note that a running trial has ``epoch`` epochs, with these metrics; whether it keeps its slot."""
        trial = self._open[key]
        trial.epoch = epoch
        waits = self._halving.on_result(key, trial.job.config.flat(), epoch, metrics)
        if epoch < trial.until and not waits and not self.halted:
            return True
        self._release(trial)
        return False

    def interrupted(self, key: str) -> None:
        """Take a slot from a trial whose process is gone. It goes on later from its checkpoint."""
        self._release(self._open[key], interrupted=True)

    def ended(self, key: str) -> None:
        """Forget a trial that has ended; its results still count at the rungs."""
        self._release(self._open[key])
        self._halving.drop(key)
        del self._open[key]

    def stopped(self) -> Iterator[tuple[TrialJob, str]]:
        """Once ``finished``: the trials that go no further, each with the reason."""
        for key, trial in self._open.items():
            spent = f"the budget of {self.budget} epochs is spent"
            yield trial.job, self._halving.reason(key) if self.waits(key) else spent

    def _release(self, trial: _Trial, interrupted: bool = False) -> None:
        key = trial.job.key
        if key in self.running:
            self.running.discard(key)
            self._booked += trial.epoch - trial.until  # it may give up its slot before it had to
        if not self.waits(key):
            self._push(trial, interrupted)

    def _push(self, trial: _Trial, interrupted: bool) -> None:
        first = interrupted and self._halving.rule is not None
        rank = next(self._count) if first else -trial.epoch
        trial.place = _Place(not first, rank, trial.order, trial.job.key)
        heapq.heappush(self._ready, trial.place)

    @property
    def _in_tail(self) -> bool:
        moving = len(self._open) - self._halving.waiting
        return self._draw is None and self.slots < moving < 2 * self.slots

    def _choose(self) -> str | None:
        """The key of the trial to run next, whether a slot is free or not."""
        if self.budget is not None and self._booked >= self.budget:
            return self._unended()
        first = self._first_ready()
        if first is not None and not first.uninterrupted:
            return first.key
        breadth_first = self._halving.rule is not None and self._halving.rule.breadth_first
        last: Rounding = "up" if self.budget is None else "all"
        return (
            (None if breadth_first else self._halving.promotable("down"))
            or (first.key if first is not None else self._drawn())
            or self._halving.promotable("down")
            or self._halving.promotable(last)
        )

    def _unended(self) -> str | None:
        """A trial that has all its epochs but no recorded end, which costs no epoch of the budget."""
        for key, trial in self._open.items():
            if trial.place is not None and trial.epoch >= trial.job.config.training.epochs:
                return key
        return None

    def _first_ready(self) -> _Place | None:
        while self._ready:
            first = self._ready[0]
            if first.key in self._open and self._open[first.key].place == first:
                break
            heapq.heappop(self._ready)
        else:
            return None
        if first.uninterrupted and self._in_tail:  # few: look at all
            ready = (trial for trial in self._open.values() if trial.place is not None)
            return min(ready, key=lambda trial: trial.epoch).place
        return first

    def _drawn(self) -> str | None:
        job = self._draw() if self._draw is not None else None
        if job is None:
            self._draw = None
            return None
        self.add([(job, 0)])
        return job.key

"""Which trial gets a free slot, and for how many epochs: pure.

A trial resumes to the last bit from its checkpoint on any slot, so it need not keep the slot it started on. Trials run
to their end while there are plenty; in the tail of a sweep, when the trials left are fewer than twice the slots, they
take turns, the one that is furthest behind first. Five equal trials on two slots then take 2.5 times as long as one,
not 3 (McNaughton's bound for preemptive scheduling), and no slot idles while a last trial runs alone.

With early stopping a slice ends at a rung. There a trial waits, holding no slot, until the ladder promotes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainables.trial import TrialJob

if TYPE_CHECKING:  # a trial's process imports the runner and with it this module, and ranks nobody
    from sweeps.engine.pareto_asha import Ladder, Room

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
    place: int
    """In the order wanted."""
    until: int = 0
    """Where its slice ends."""
    running: bool = False
    waiting: bool = False

    @property
    def ready(self) -> bool:
        return not (self.running or self.waiting)


@dataclass
class Slices:
    """Hands out slices of trials to ``slots`` slots."""

    slots: int
    ladder: Ladder | None = None
    """Early stopping; every trial runs to its budget without one."""
    draw: Callable[[], TrialJob | None] | None = None
    """A new trial to begin, asked when a slot has nothing else to do; None when there are no more."""
    budget: int | None = None
    """Epochs that may be trained in all. What the ladder leaves of it goes to the best of those that wait."""
    booked: int = 0
    """Of the budget, what is trained or handed out; at first what was trained before, in all."""
    halted: bool = False
    """Nothing more is handed out: the run ends here, and is resumed another time."""
    _open: dict[str, _Progress] = field(default_factory=dict)
    _queue: list[tuple[int, int, str]] = field(default_factory=list)
    """A heap of those that are ready: the furthest first, then as wanted. What is running or waiting is passed over."""
    _cut_off: list[_Progress] = field(default_factory=list)
    """Trials whose slice was: with a ladder they go on before anyone is promoted, as they would have."""
    _moving: int = 0
    """Open trials that do not wait at a rung."""
    _running: int = 0

    def add(self, jobs: Iterable[tuple[TrialJob, int]]) -> None:
        """Trials to finish, in the order wanted, with the epochs that each has; those that the ladder knows wait."""
        for job, epoch in jobs:
            waits = self.ladder is not None and self.ladder.waits(job.key)
            trial = self._open[job.key] = _Progress(job, epoch, len(self._open), waiting=waits)
            if not waits:
                self._moving += 1
                self._make_ready(trial)
                if epoch:
                    self._cut_off.append(trial)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to hand out or to wait for; who is still open was stopped."""
        if self._running:
            return False
        more = self.draw is not None or self._moving > 0
        return self._spent or not (more or self._promotable(last_resort(self.budget)))

    def next(self) -> Slice | None:
        """The next slice; None while there is none."""
        if self._spent or self.halted:
            return None
        breadth_first = self.ladder is not None and self.ladder.rule.breadth_first
        trial = self._resumed()
        trial = trial or (None if breadth_first else self._promoted("down"))
        trial = trial or self._ready() or self._drawn() or self._promoted("down")
        trial = trial or self._promoted(last_resort(self.budget))
        if trial is None:
            return None
        trial.running = True
        self._running += 1
        budget = trial.job.config.training.epochs
        until = self.ladder.milestone(trial.job.number, trial.epoch, budget) if self.ladder else budget
        until = min(until, trial.epoch + max(1, budget // TURNS)) if self._tail else until
        if self.budget is not None:
            until = min(until, trial.epoch + self.budget - self.booked)
        trial.until = until
        self.booked += until - trial.epoch
        return Slice(trial.job, until)

    def returned(self, key: str, epoch: int, ended: bool, metrics: Mapping[str, float] | None = None) -> bool:
        """A slice is over: the trial has ``epoch`` epochs with ``metrics`` last, and is open no more if it ``ended``.

        Whether it now waits at a rung.
        """
        trial = self._open[key]
        self.booked += epoch - trial.until  # a trial may end before its slice does
        trial.running, trial.epoch = False, epoch
        self._running -= 1
        job, budget = trial.job, trial.job.config.training.epochs
        if self.ladder is not None and (epoch >= budget or not ended):  # what broke off goes nowhere
            trial.waiting = self.ladder.arrive(key, job.number, job.config.flat(), epoch, budget, metrics or {})
        if ended:
            del self._open[key]
        if ended or trial.waiting:
            self._moving -= 1
        else:
            self._make_ready(trial)
        return trial.waiting

    def again(self, key: str, epoch: int) -> None:
        """A slice came to nothing that counts: the trial has ``epoch`` epochs, and is to go on."""
        trial = self._open[key]
        self.booked += epoch - trial.until
        trial.running, trial.epoch = False, epoch
        self._running -= 1
        self._make_ready(trial)
        self._cut_off.append(trial)

    def stopped(self) -> Iterator[tuple[TrialJob, str]]:
        """When all is ``finished``: the trials that go no further, each with the reason."""
        for key, trial in self._open.items():
            if self.ladder is not None and trial.waiting:
                yield trial.job, self.ladder.reason(key)
            else:
                yield trial.job, f"the budget of {self.budget} epochs is spent"

    @property
    def _spent(self) -> bool:
        return self.budget is not None and self.booked >= self.budget

    @property
    def _tail(self) -> bool:
        return self.draw is None and self.slots < self._moving < 2 * self.slots

    def _promotable(self, room: Room) -> str | None:
        return self.ladder.promotable(room) if self.ladder is not None else None

    def _promoted(self, room: Room) -> _Progress | None:
        key = self._promotable(room)
        if self.ladder is None or key is None:
            return None
        self.ladder.promote(key)
        trial = self._open[key]
        trial.waiting = False
        self._moving += 1
        return trial

    def _resumed(self) -> _Progress | None:
        while self._cut_off and self.ladder is not None:
            if (trial := self._cut_off.pop(0)).ready:
                return trial
        return None

    def _make_ready(self, trial: _Progress) -> None:
        heapq.heappush(self._queue, (-trial.epoch, trial.place, trial.job.key))

    def _ready(self) -> _Progress | None:
        if self._tail:  # few: look at all
            ready = [trial for trial in self._open.values() if trial.ready]
            return min(ready, key=lambda trial: trial.epoch) if ready else None
        while self._queue:
            epoch, _, key = heapq.heappop(self._queue)
            trial = self._open.get(key)
            if trial is not None and trial.ready and trial.epoch == -epoch:
                return trial
        return None

    def _drawn(self) -> _Progress | None:
        job = self.draw() if self.draw is not None else None
        if job is None:
            self.draw = None
            return None
        self._moving += 1
        self._open[job.key] = _Progress(job, 0, len(self._open))
        return self._open[job.key]


def last_resort(budget: int | None) -> Room:
    """Whom the ladder promotes when nothing else is left to do, and what is to be spent is ``budget`` epochs."""
    return "up" if budget is None else "all"

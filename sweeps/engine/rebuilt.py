"""The ladder as it stood when a run was interrupted, from what the journal says of its trials.

Whom a ladder promotes depends also on when it was asked before: where nobody was found it does not look again until
there is more room. One slot asked it each time a slice was over, so that with one slot the ladder stands again to the
last detail. With several, when it was asked is not known, and it looks anew.
"""

import math
from collections.abc import Iterator

from sweeps.engine.pareto_asha import Ladder, Room, Rule
from trainables.journal import RunRecord, TrialRecord
from trainables.trial import COLLAPSED


def rebuilt(rule: Rule, run: RunRecord, budget: int, slots: int, last_resort: Room) -> Ladder:
    """Let the trials of ``run`` arrive at their rungs again, in the order they did."""
    ladder = Ladder(rule)
    trials = [trial for trial in run.trials.values() if trial.config.get("seed") == 0]
    events = sorted(event for trial in trials for event in _events(trial))
    looks = _Looks(ladder, events, last_resort, begun=any(not trial.epochs for trial in trials)) if slots == 1 else None
    for index, (_, epoch, key) in enumerate(events):
        trial = run.trials[key]
        if ladder.waits(key):
            if epoch == math.inf and _stopped_where_it_stood(trial):
                ladder.drop(key)
                continue
            if looks is not None:
                looks.before_promotion(index)
            ladder.promote(key)
        if epoch == math.inf:
            over = trial.ended < budget
        else:
            config, metrics = trial.config, trial.epochs[int(epoch)]
            over = ladder.arrive(key, trial.number, config, int(epoch), budget, metrics) or epoch >= budget
        if over and looks is not None:
            looks.after_slice(index)
    return ladder


class _Looks:
    """When the driver of one slot asked the ladder, which remembers where nobody was found."""

    def __init__(self, ladder: Ladder, events: list["_Event"], last_resort: Room, begun: bool) -> None:
        self._ladder, self._last_resort, self._found = ladder, last_resort, ""
        self._keys = [key for _, _, key in events]
        first = {key: index for index, key in reversed(list(enumerate(self._keys)))}
        # up to here new trials were to be had, so that whoever went on had been found at once
        self._drawing = len(events) if begun else max(first.values(), default=0)

    def after_slice(self, index: int) -> None:
        """A slice was over, and somebody went on or began: the next to be heard of."""
        if self._ladder.rule.breadth_first:
            return  # what begins comes first
        if index >= self._drawing:
            self._found = self._ladder.promotable() or ""
            return
        following = self._keys[index + 1] if index + 1 < len(self._keys) else ""
        self._ladder.recall(following if self._ladder.waits(following) else None)

    def before_promotion(self, index: int) -> None:
        """The trial of this event went on."""
        key = self._keys[index]
        if index > self._drawing and self._found != key and self._ladder.promotable() != key:
            self._ladder.promotable(self._last_resort)


_Event = tuple[float, float, str]
"""When, which epoch (infinity: the end), of which trial."""


def _events(trial: TrialRecord) -> Iterator[_Event]:
    """When each epoch arrived, and then the end. One that was lost and comes later in the journal had come before."""
    arrived = math.inf
    if trial.status != "running":
        arrived = trial.end_arrival
        yield arrived, math.inf, trial.key
    for epoch in sorted(trial.epochs, reverse=True):
        arrived = min(arrived, trial.arrivals[epoch], trial.rungs.get(epoch, math.inf))
        yield arrived, epoch, trial.key


def _stopped_where_it_stood(trial: TrialRecord) -> bool:
    """Whether it never went on from its rung; a trial that collapses did, and found out then."""
    return trial.status == "stopped" and not trial.reason.startswith(COLLAPSED)

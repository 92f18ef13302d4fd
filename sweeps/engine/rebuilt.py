"""The ladder as it stood when a run was interrupted, from what the journal says of its trials.

Whom a ladder promotes depends also on when it was asked before: where nobody was found it does not look again until
there is more room. So it is asked as the driver asked it, each time a slot became free. With one slot it stands again
to the last detail; with several, what the journal says of who went on is followed.
"""

import math
from collections.abc import Iterator

from sweeps.engine.pareto_asha import Ladder, Room, Rule
from trainables.journal import RunRecord, TrialRecord
from trainables.trial import COLLAPSED


def rebuilt(rule: Rule, run: RunRecord, budget: int, last_resort: Room) -> Ladder:
    """Let the trials of ``run`` arrive at their rungs again, in the order they did."""
    ladder, found = Ladder(rule), None
    trials = [trial for trial in run.trials.values() if trial.config.get("seed") == 0]
    for _, epoch, key in sorted(event for trial in trials for event in _events(trial)):
        trial = run.trials[key]
        if ladder.waits(key):
            if epoch == math.inf and _stopped_where_it_stood(trial):
                ladder.drop(key)
                continue
            if found != key and ladder.promotable("down") != key:
                ladder.promotable(last_resort)
            ladder.promote(key)
        if epoch == math.inf:
            over = trial.ended < budget
        else:
            config, metrics = trial.config, trial.epochs[int(epoch)]
            over = ladder.arrive(key, trial.number, config, int(epoch), budget, metrics) or epoch >= budget
        if over and not rule.breadth_first:
            found = ladder.promotable("down")
    return ladder


def _events(trial: TrialRecord) -> Iterator[tuple[float, float, str]]:
    """When each epoch arrived, and then the end. One that was lost and comes later in the journal had come before."""
    arrived = math.inf
    if trial.status != "running":
        arrived = trial.end_arrival
        yield arrived, math.inf, trial.key
    for epoch in sorted(trial.epochs, reverse=True):
        arrived = min(arrived, trial.epochs.arrival(epoch), trial.rungs.get(epoch, math.inf))
        yield arrived, epoch, trial.key


def _stopped_where_it_stood(trial: TrialRecord) -> bool:
    """Whether it never went on from its rung; a trial that collapses did, and found out then."""
    return trial.status == "stopped" and not trial.reason.startswith(COLLAPSED)

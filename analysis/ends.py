"""How the trials of the seed that screens end at the compared epoch: as recorded, or as forecast. Pure.

Early stopping leaves the trials that it chose. What is said of these alone is wrong of all: of bad estimators only the
luckiest trials are left. That a trial was stopped follows from its configuration and its reports, and its forecast
(``analysis.forecast``) is made from both, so recorded and forecast ends together are of all trials again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.forecast import Floats, thinned
from analysis.improvement import Ends, scaled
from analysis.objectives import Objective
from analysis.results import Results, once, seed_of
from analysis.stopping import forecast_ends
from trainables.journal import TrialRecord

# Shape suffixes: N trials with a recorded end, M with a forecast, O objectives.


@dataclass(frozen=True)
class ScreenedEnds:
    """Trials that have had an epoch, by what is known of their ends; objectives to be small, as ``scaled``."""

    recorded: tuple[TrialRecord, ...]
    values: Floats
    """Of those, (N, O)."""
    forecast: tuple[TrialRecord, ...]
    """Stopped, or not finished."""
    ends: Ends
    """Of those."""
    unknown: tuple[TrialRecord, ...]
    """Stopped or not finished, too, and too few others are through to tell how they would end."""
    broken: tuple[TrialRecord, ...]
    """Diverged or failed."""


@once
def screened_ends(results: Results, aims: Sequence[Objective]) -> ScreenedEnds:
    """By the lowest seed: in a search, the one that screens."""
    screens = min(map(seed_of, results.trials), default=0)
    recorded, under_way, unknown, broken = (list[TrialRecord]() for _ in range(4))
    for trial in results.trials:
        if seed_of(trial) != screens or not trial.epochs:
            continue
        if trial.status in ("failed", "diverged"):
            broken.append(trial)
        elif np.isfinite(_values(aims, trial, results.epoch)).all():
            recorded.append(trial)
        else:
            told = trial.last_epoch < results.epoch and np.isfinite(_values(aims, trial, trial.last_epoch)).all()
            (under_way if told else unknown).append(trial)
    values_NO = np.array([_values(aims, trial, results.epoch) for trial in recorded]).reshape(-1, len(aims))
    under_way.sort(key=lambda trial: trial.last_epoch)  # as forecast_ends orders them
    through = [recorded[place] for place in thinned(len(recorded))] if recorded else []
    ends = forecast_ends(aims, through, under_way, results.epoch) if under_way else None
    if ends is None:
        unknown, under_way = [*unknown, *under_way], []
        ends = Ends(np.zeros((0, len(aims))), np.zeros((0, len(aims))), np.zeros(0))
    else:
        best_O, worst_O = values_NO.min(axis=0), values_NO.max(axis=0)
        ends = ends._replace(means=np.maximum(ends.means, best_O - (worst_O - best_O)))
    return ScreenedEnds(tuple(recorded), values_NO, tuple(under_way), ends, tuple(unknown), tuple(broken))


def _values(aims: Sequence[Objective], trial: TrialRecord, epoch: int) -> Floats:
    """At an epoch; NaN where it was not recorded."""
    metrics = trial.epochs.get(epoch, {})
    values_O: Floats = scaled(aims, np.array([[aim.minimised(metrics) for aim in aims]]))[0]
    return values_O

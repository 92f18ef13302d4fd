"""ParetoASHA for anyone's own Tuner: successive halving by non-dominated rank, of any class trainable that saves."""

import logging
import math
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from analysis.objectives import Direction, Objective
from sweeps.engine.scheduler import Halving, Rounding

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class ParetoASHA(FIFOScheduler):
    """Early stopping in one or two objectives, for ``tune.TuneConfig(scheduler=...)``.

    At epochs ``grace_period``, ``grace_period * reduction_factor``, ... a trial pauses, and Tune keeps its checkpoint.
    Of the trials seen there, 1 in ``reduction_factor`` goes on: the best by non-dominated rank, and within a rank those
    that keep the front spread. When nothing else is left to run, the rest is stopped. ``Tuner.restore`` is not
    supported: it would let every paused trial go on.

    Promotion-type ASHA is Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2.
    """

    metrics: tuple[str, ...] = ("mse", "perplexity")
    """One or two names of the results."""
    modes: tuple[Direction, ...] = ("min", "max")
    """For each of them, ``min`` or ``max``."""
    max_t: int = 100
    """The value of ``time_attr`` at which a trial has ended."""
    grace_period: int = 1
    """The value of ``time_attr`` at the first rung."""
    reduction_factor: float = 3
    """Of the trials at a rung, 1 in so many goes on."""
    group_by: str | None = None
    """A field of the flat configuration: trials are compared where they are equal in it. ``codebook_size`` is a good
    choice where perplexity is an objective, which the number of codes bounds."""
    time_attr: str = "training_iteration"
    """The name of the results that counts epochs."""

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if len(self.metrics) != len(self.modes) or not set(self.modes) <= {"min", "max"}:
            raise ValueError(f"modes = {self.modes}: must be min or max for each of metrics = {self.metrics}")
        aims = tuple(map(Objective, self.metrics, self.modes))
        self._halving = Halving(aims, self.grace_period, self.reduction_factor, self.group_by).start(self.max_t)
        self._next_rung: dict[str, int] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a trial run to the first rung."""
        self._next_rung[trial.trial_id] = self._halving.next_rung(0)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial at ``max_t`` or when a metric is not finite, pause it at a rung.

        ``ValueError`` if a metric or ``time_attr`` is not in the result.
        """
        missing = [name for name in (self.time_attr, *self.metrics) if name not in result]
        if missing:
            raise ValueError(f"{', '.join(missing)}: not in the results of {trial}, which are {', '.join(result)}")
        unfit = [name for name in self.metrics if not math.isfinite(result[name])]
        if unfit:
            logger.warning("%s is stopped: %s is %s", trial, unfit[0], result[unfit[0]])
            return str(self.STOP)
        time, rung = result[self.time_attr], self._next_rung[trial.trial_id]
        if time < rung:
            return str(self.CONTINUE)
        if time < self.max_t:
            # a trial may report less often than once a unit of time; it counts at the rung that it has passed
            self._next_rung[trial.trial_id] = self._halving.next_rung(time)
            self._halving.on_result(trial.trial_id, trial.config, rung, result)
            return str(self.PAUSE)
        return str(self.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A paused trial that is promoted; Tune starts new ones by itself."""
        trials = tune_controller.get_trials()
        paused = {trial.trial_id: trial for trial in trials if trial.status == Trial.PAUSED}
        if not paused:
            return None
        busy = any(trial.status in (Trial.RUNNING, Trial.PENDING) for trial in trials)
        rounding: Rounding = "down" if busy else "up"
        key = self._halving.promotable(rounding, among=paused)
        if key is not None:
            self._halving.promote(key)
            trial: Trial = paused[key]
            return trial
        if not busy:
            for trial in paused.values():
                tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        """A line of Tune's own table."""
        return f"ParetoASHA: {' '.join(self.metrics)}"

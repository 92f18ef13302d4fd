"""What looks wrong in a run, each with its evidence and what to do (docs/alarms.md).

To add an alarm: write a function of the results that gives an alarm or None, and name it in ``ALARMS``. It has to be
silent on healthy data: a sweep of a hundred trials always has something odd, and a page of trifles is not read.
"""

from collections.abc import Callable

from analysis.alarms.alarm import Alarm
from analysis.alarms.comparison import identical_metrics, mixed_budgets, mixed_machines, values_without_end
from analysis.alarms.seeds import best_within_noise, front_of_one_seed
from analysis.alarms.space import best_on_bound, field_without_effect, flat_end
from analysis.alarms.training import codes_lost, collapsed, nothing_learned, slow_trials, training_like_test
from analysis.results import Results, once

__all__ = ["Alarm", "alarms"]

ALARMS: tuple[Callable[[Results], Alarm | None], ...] = (
    identical_metrics,
    training_like_test,
    nothing_learned,
    collapsed,
    mixed_machines,
    mixed_budgets,
    values_without_end,
    codes_lost,
    best_on_bound,
    field_without_effect,
    front_of_one_seed,
    best_within_noise,
    flat_end,
    slow_trials,
)
"""Those first that put most in doubt: a screen shows the first few."""


@once
def alarms(results: Results) -> tuple[Alarm, ...]:
    """The alarms of a run, finished or not, at most one of a kind; none of a healthy one."""
    return tuple(filter(None, (check(results) for check in ALARMS)))

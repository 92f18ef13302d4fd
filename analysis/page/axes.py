"""Fields of the configuration and objectives as axes: numbers on a scale, anything else as steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.objectives import METRICS
from analysis.page.svg import Scale
from analysis.page.view import View
from trainables.journal import TrialRecord
from trainables.runs import SHORT, value_text

EPOCHS = "epochs trained"
"""The axis that is neither a field nor an objective."""

FEW = 7
"""The most values of a numeric field that are shown as steps and not on a scale."""


@dataclass(frozen=True)
class Axis:
    """A field or an objective as an axis: a scale of numbers, or its values as steps."""

    name: str
    label: str
    scale: Scale
    ticks: tuple[tuple[float, str], ...]
    values: tuple[Any, ...] = ()
    """The steps; empty of a scale."""

    def __call__(self, value: Any) -> float | None:
        """The pixel of a value; none where it has no place."""
        if self.values:
            return self.scale(self.values.index(value)) if value in self.values else None
        number = isinstance(value, int | float) and math.isfinite(value) and (value > 0 or not self.scale.log)
        return self.scale(min(max(value, self.scale.low), self.scale.high)) if number else None


def axis(name: str, values: Sequence[Any], start: float, end: float) -> Axis:
    """The axis of these values of a field or a metric, from pixel ``start`` to ``end``."""
    label = METRICS[name].name if name in METRICS else SHORT.get(name, name).replace("_", " ")
    seen = list(dict.fromkeys(value for value in values if value is not None))
    numbers = [v for v in seen if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) == len(seen) and (len(numbers) > FEW or (name in METRICS and len(numbers) > 1)):
        positive = min(numbers) > 0 and max(numbers) / min(numbers) > 8
        scale = Scale.over(numbers, start, end, 0.03, positive)
        return Axis(name, label, scale, tuple(scale.ticks()))
    steps = tuple(sorted(seen) if len(numbers) == len(seen) else sorted(seen, key=str))
    edge = 0.35 if len(steps) > 1 else 0.5
    scale = Scale(-edge, max(len(steps) - 1, 0) + edge, start, end)
    return Axis(name, label, scale, tuple(enumerate(map(value_text, steps))), steps)


def axes(view: View, start: float = 0.0, end: float = 1.0) -> list[Axis]:
    """What tells trials apart: swept fields, epochs trained, objectives; each axis from ``start`` to ``end``."""
    told = [trial for trial in view.trials if trial.epochs]
    names = (*view.results.swept, EPOCHS, *view.results.columns)
    return [axis(name, [value(trial, name) for trial in told], start, end) for name in names]


def value(trial: TrialRecord, name: str) -> Any:
    """A field, or the last report of a metric; none where there is neither."""
    if name == EPOCHS:
        return trial.last_epoch
    return trial.config.get(name, trial.epochs.get(trial.last_epoch, {}).get(name))

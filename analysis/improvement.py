"""How much a trial may still improve what was found, from the forecast of its end. Pure.

An end is normal, in the logarithm for metrics that are compared by ratio. With one objective it is the expected
improvement in that scale (Jones et al. 1998, equation 15); with two the expected growth of the hypervolume (Emmerich et
al. 2011), where the errors of both forecasts go together: a trial that uses more codes than was forecast has a higher
rate and a lower error, and is beyond the front less often than if the two were independent. The first objective is
summed over intervals, the second integrated in closed form.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from analysis.fronts import Point, front
from analysis.objectives import Objective, sign

# Shape suffixes: M trials, O objectives, Q places of the first objective.
Floats = NDArray[np.float64]

_EDGES = np.concatenate([[-np.inf], np.linspace(-3.5, 3.5, 31), [np.inf]])
_WEIGHTS_Q = np.diff(ndtr(_EDGES))
_PLACES_Q = -np.diff(np.exp(-(_EDGES**2) / 2)) / np.sqrt(2 * np.pi) / _WEIGHTS_Q
"""The mean of a normal variable in each of 32 intervals, fine in the tails too: what improves mostly lies there."""

LEAST = 1e-3
"""Of the range between the best found and the reference: what is nearer is equal, as usage where all codes are used."""


class Ends(NamedTuple):
    """Forecasts of the ends of trials, as ``scaled``."""

    means: Floats
    """(trials, objectives)."""
    deviations: Floats
    """Standard deviations, (trials, objectives)."""
    correlations: Floats
    """Of the errors of the two objectives, (trials)."""

    def of(self, which: slice) -> "Ends":
        """Of some of the trials."""
        return Ends(*(values[which] for values in self))

    @classmethod
    def joined(cls, parts: Sequence["Ends"]) -> "Ends":
        """Of the trials of all parts."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class Improvement(NamedTuple):
    """Of each trial."""

    expected: Floats
    """Growth of what was found: of the best in its scale, or of the hypervolume in the objectives' units."""
    chance: Floats
    """The probability to end beyond what was found."""


def scaled(aims: Sequence[Objective], points_MO: Floats) -> Floats:
    """Objectives to be small, as they are forecast; not finite where there is no logarithm."""
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [
            sign(aim.direction) * np.log(sign(aim.direction) * values_M) if aim.metric.ratio else values_M
            for aim, values_M in zip(aims, points_MO.T, strict=True)
        ]
    return np.column_stack(columns)


def unscaled(aims: Sequence[Objective], points_MO: Floats) -> Floats:
    """Objectives to be small in their own units, from those of ``scaled``."""
    columns = [_value(aim, values_M) for aim, values_M in zip(aims, points_MO.T, strict=True)]
    return np.column_stack(columns)


def improvement(aims: Sequence[Objective], found: Sequence[Point], reference: Point, ends: Ends) -> Improvement:
    """What trials that end like this may add to ``found``, of which nothing beyond ``reference`` counts.

    ``found`` and ``reference`` are objectives to be small, in their own units; with one objective the second is unused.
    Where nothing is found the chance is 1. An end that is beyond by less than ``LEAST`` of the range is not.
    """
    mean_M, sd_M = ends.means[:, 0], ends.deviations[:, 0]
    if not found:
        return improvement(aims, [reference], reference, ends)._replace(chance=np.ones_like(mean_M))
    if len(aims) == 1:
        best = scaled(aims, np.array([min(found)[:1]]))[0, 0]
        z_M = (best - mean_M) / sd_M
        return Improvement((best - mean_M) * ndtr(z_M) + sd_M * _density(z_M), ndtr(z_M))
    first_MQ = _value(aims[0], mean_M[:, None] + sd_M[:, None] * _PLACES_Q)
    both_M1, rest_M1 = ends.correlations[:, None], np.sqrt(1 - ends.correlations[:, None] ** 2)
    mean_MQ = ends.means[:, 1:] + both_M1 * ends.deviations[:, 1:] * _PLACES_Q
    rest_MQ = np.broadcast_to(ends.deviations[:, 1:] * rest_M1, mean_MQ.shape)
    inside = [found[i] for i in front(found) if found[i][0] < reference[0] and found[i][1] < reference[1]]
    edges = [point[0] for point in inside] + [reference[0]]
    ceilings = [reference[1]] + [point[1] for point in inside]
    less = LEAST * (reference[1] - min((point[1] for point in inside), default=reference[1]))
    expected_MQ, chance_MQ, before = np.zeros_like(mean_MQ), np.zeros_like(mean_MQ), -np.inf
    for edge, ceiling in zip(edges, ceilings, strict=True):
        width_MQ = np.clip(edge - first_MQ, 0.0, edge - before)
        expected_MQ += width_MQ * _shortfall(aims[1], ceiling, mean_MQ, rest_MQ)
        under_MQ = 1.0 if before == -np.inf else _below(aims[1], ceiling - less, mean_MQ, rest_MQ)
        last = edge == edges[-1]
        chance_MQ += ((first_MQ >= before) & (last | (first_MQ < edge))) * under_MQ
        before = edge
    return Improvement(expected_MQ @ _WEIGHTS_Q, chance_MQ @ _WEIGHTS_Q)


def _value(aim: Objective, scaled_M: Floats) -> Floats:
    direction = sign(aim.direction)
    return np.asarray(direction * np.exp(direction * scaled_M)) if aim.metric.ratio else scaled_M


def _below(aim: Objective, edge: float, mean_M: Floats, sd_M: Floats) -> Floats:
    """The probability that an objective to be small ends below ``edge``."""
    return np.asarray(ndtr((scaled([aim], np.array([[edge]]))[0, 0] - mean_M) / sd_M))


def _shortfall(aim: Objective, edge: float, mean_M: Floats, sd_M: Floats) -> Floats:
    """By how much an objective to be small ends below ``edge``, expected; 0 where it ends above."""
    if not aim.metric.ratio:
        z_M = (edge - mean_M) / sd_M
        return np.asarray((edge - mean_M) * ndtr(z_M) + sd_M * _density(z_M))
    if aim.direction == "min":  # the value is exp(u)
        z_M = (np.log(max(edge, 1e-300)) - mean_M) / sd_M
        return np.asarray(edge * ndtr(z_M) - np.exp(mean_M + sd_M**2 / 2) * ndtr(z_M - sd_M))
    value_M = np.exp(-mean_M + sd_M**2 / 2)  # the value is -exp(-u)
    if edge >= 0:
        return np.asarray(edge + value_M)
    z_M = (-mean_M - np.log(-edge)) / sd_M
    return np.asarray(value_M * ndtr(z_M + sd_M) + edge * ndtr(z_M))


def _density(z_M: Floats) -> Floats:
    return np.asarray(np.exp(-(z_M**2) / 2) / np.sqrt(2 * np.pi))

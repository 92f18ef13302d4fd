"""What a trial will come to, from those that are through: a ridge regression. Pure.

Its columns are the objectives at a rung and the fields of the configuration that vary; what it forecasts is each
objective at the end. That a large commitment weight starts slowly and ends well, no rung can tell: those that are
through can.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.fronts import Point
from vqcore.config import Scalar

# Shape suffixes: N trials, F columns, O the two objectives.
Floats = NDArray[np.float64]
Config = Mapping[str, Scalar]

PENALTY = 1.0
"""Of the squares of standardised coefficients: as much as one trial weighs."""


class Forecast:
    """Fitted to trials that are through: their configurations, objectives at a rung and final objectives.

    Objectives are finite and to be small; a forecast is so too, on a scale of its own.
    """

    def __init__(self, configs: Sequence[Config], points: Sequence[Point], finals: Sequence[Point]) -> None:
        self._fields = {name: values for name in configs[0] if len(values := _distinct(configs, name)) > 1}
        self._log_O = _one_sign([*points, *finals])
        columns_NF = self._columns(configs, points)
        self._middle_F, spread_F = columns_NF.mean(axis=0), columns_NF.std(axis=0)
        self._scale_F = np.where(spread_F > 0, spread_F, np.inf)  # what does not vary tells nothing
        x_NF, y_NO = (columns_NF - self._middle_F) / self._scale_F, _scaled(finals, self._log_O)
        self._level_O = y_NO.mean(axis=0)
        penalty_FF = PENALTY * np.eye(x_NF.shape[1])
        self._weights_FO = np.linalg.solve(x_NF.T @ x_NF + penalty_FF, x_NF.T @ (y_NO - self._level_O))

    def ends(self, configs: Sequence[Config], points: Sequence[Point]) -> list[Point]:
        """What trials at the rung will come to."""
        x_NF = (self._columns(configs, points) - self._middle_F) / self._scale_F
        return [(float(first), float(second)) for first, second in x_NF @ self._weights_FO + self._level_O]

    def _columns(self, configs: Sequence[Config], points: Sequence[Point]) -> Floats:
        columns = [*_scaled(points, self._log_O).T]
        for name, known in self._fields.items():
            values = [config[name] for config in configs]
            if all(isinstance(value, int | float) for value in known):  # its place among those known
                columns.append(np.interp(np.array(values, float), np.array(known, float), np.arange(len(known))))
            else:
                columns += [np.array([float(value == word) for value in values]) for word in known[1:]]
        return np.column_stack(columns)


def _one_sign(points: Sequence[Point]) -> NDArray[np.bool_]:
    negative_NO = np.signbit(np.array(points, float))
    return np.asarray(negative_NO.all(axis=0) | ~negative_NO.any(axis=0))


def _scaled(points: Sequence[Point], log_O: NDArray[np.bool_]) -> Floats:
    """Logarithms of magnitudes, as errors and perplexities are compared; the order stays."""
    values_NO = np.array(points, float)
    logs_NO = np.copysign(1.0, values_NO) * np.log(np.maximum(np.abs(values_NO), 1e-12))
    return np.where(log_O, logs_NO, values_NO)


def _distinct(configs: Sequence[Config], name: str) -> list[Scalar]:
    return sorted({config[name] for config in configs}, key=lambda value: (isinstance(value, str), value))

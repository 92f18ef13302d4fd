"""The end of a training, forecast from its beginning by those that are through: a Gaussian process. Pure.

Its columns are the fields of the configuration that vary, the objectives reached and their change since the rung
before; what it forecasts is each objective's change still to come. That a large commitment weight starts slowly and
ends well, no value at a rung can tell: trials that are through can. Its kernel is a linear one, which a few trials
suffice for, and a squared exponential one; how much of the change is noise is chosen by the marginal likelihood, and
the scale is integrated out (Rasmussen and Williams 2006, sections 2.2 and 5.4.1; O'Hagan 1994, section 9.2).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.improvement import Ends
from vqcore.config import Scalar

# Shape suffixes: N trials that are through, M trials to forecast, E epochs, F columns, O objectives.
Floats = NDArray[np.float64]
Config = Mapping[str, Scalar]

NOISE = 10.0 ** np.arange(-1.5, 1.1, 0.5)
"""Variances of the noise to choose from, as multiples of the kernel's scale."""

LEAST_FITTED, MOST_FITTED = 4, 300
"""Trials that a forecast is fitted to: fewer tell nothing; it takes time with their cube, and more tell little more."""

FURTHEST = 3.0
"""How many standard deviations a trial may differ from those that are through: from further nothing can be told."""

RUNG_GROWTH = 1.5
"""Each rung's epoch divided by that of the rung before."""


def rungs(max_epochs: int) -> tuple[int, ...]:
    """The epochs below ``max_epochs`` at which trials are forecast: 1, 2, 3, 5, 8, 12, 18, ..."""
    epochs, step = [], 1
    while step < max_epochs:
        epochs.append(step)
        step = max(step + 1, math.floor(step * RUNG_GROWTH + 0.5))
    return tuple(epochs)


def told_by(epoch: int) -> tuple[int, ...]:
    """The epochs that tell how a trial ends which has had ``epoch``: that, and the rung before; none at 0."""
    return tuple(dict.fromkeys(max(1, round(past)) for past in (epoch / RUNG_GROWTH, epoch))) if epoch else ()


def thinned(trials: int) -> list[int]:
    """The places of ``MOST_FITTED`` of so many trials, evenly spread; of all where they are fewer."""
    return list(map(round, np.linspace(0, trials - 1, min(trials, MOST_FITTED))))


class Fields:
    """The fields of configurations as columns of numbers."""

    def __init__(self, known: Sequence[Config]) -> None:
        """Those that vary among ``known`` tell trials apart; of another value than theirs nothing can be told."""
        names = dict.fromkeys(name for config in known for name in config)
        self._values = {name: _distinct(known, name) for name in names}
        varying = {name: values for name, values in self._values.items() if len(values) > 1}
        self._words = {name: values for name, values in varying.items() if not all(map(_is_number, values))}
        self._numbers = {name: np.array(values, float) for name, values in varying.items() if name not in self._words}
        self._middle_F, self._scale_F = _middle_and_scale(self._raw(known))

    def know(self, config: Config) -> bool:
        """Whether it differs from those known in nothing but numbers that vary among them."""
        return config.keys() <= self._values.keys() and all(
            _is_number(config.get(name)) if name in self._numbers else config.get(name) in values
            for name, values in self._values.items()
        )

    def columns(self, configs: Sequence[Config]) -> Floats:
        """(configurations, columns), with mean 0 and standard deviation 1 over those known."""
        return _standard(self._raw(configs), self._middle_F, self._scale_F)

    def _raw(self, configs: Sequence[Config]) -> Floats:
        columns = [
            np.interp([float(config[name]) for config in configs], known, np.arange(len(known)))  # its place among them
            for name, known in self._numbers.items()
        ]
        for name, words in self._words.items():
            columns += [np.array([float(config.get(name) == word) for config in configs]) for word in words]
        return np.column_stack(columns) if columns else np.zeros((len(configs), 0))


class Forecast:
    """Fitted to trials that are through."""

    def __init__(self, fields: Fields, configs: Sequence[Config], reached_NEO: Floats, ends_NO: Floats) -> None:
        """``reached_NEO``: each trial's objectives at the rung before and at the rung (E is 2), at the first rung (1),
        or nothing for trials that have not begun (0). All finite; two trials at least."""
        self._fields = fields
        self._middle_F, self._scale_F = _middle_and_scale(_told(reached_NEO))
        self._x_NF = self._columns(configs, reached_NEO)
        change_NO = ends_NO - _now(reached_NEO)
        self._mean_O, self._sd_O = change_NO.mean(axis=0), np.maximum(change_NO.std(axis=0), 1e-9)
        y_NO = (change_NO - self._mean_O) / self._sd_O
        eigen_N, turn_NN = np.linalg.eigh(_kernel(self._x_NF, self._x_NF))
        self._noise_O = np.array([_likeliest(eigen_N, turn_NN.T @ y_N) for y_N in y_NO.T])
        inverses = [(turn_NN / (eigen_N + noise)) @ turn_NN.T for noise in self._noise_O]
        self._inverses = inverses
        self._weights_NO = np.column_stack([inverse @ y_N for inverse, y_N in zip(inverses, y_NO.T, strict=True)])
        squares_O = (y_NO * self._weights_NO).sum(axis=0)
        self._variance_O = (squares_O + 2) / len(y_NO)  # of the predictive t distribution
        left_out_NO = self._weights_NO / np.column_stack([np.diag(inverse) for inverse in inverses])
        self._correlation = _correlation(left_out_NO)

    def ends(self, configs: Sequence[Config], reached_MEO: Floats) -> Ends:
        """The objectives at the end of trials at the rung."""
        x_MF = self._columns(configs, reached_MEO)
        k_MN = _kernel(x_MF, self._x_NF)
        own_M = (x_MF**2).sum(axis=1) / max(1, x_MF.shape[1]) + 2.0
        told_MO = np.column_stack([((k_MN @ inverse) * k_MN).sum(axis=1) for inverse in self._inverses])
        variance_MO = np.maximum(own_M[:, None] + self._noise_O - told_MO, self._noise_O) * self._variance_O
        mean_MO = _now(reached_MEO) + self._mean_O + self._sd_O * (k_MN @ self._weights_NO)
        return Ends(mean_MO, self._sd_O * np.sqrt(variance_MO), np.full(len(configs), self._correlation))

    def _columns(self, configs: Sequence[Config], reached_MEO: Floats) -> Floats:
        told_MF = _standard(_told(reached_MEO), self._middle_F, self._scale_F)
        return np.concatenate([self._fields.columns(configs), told_MF], axis=1)


def _told(reached_MEO: Floats) -> Floats:
    """What a rung tells: the objectives, and their change since the rung before."""
    now = reached_MEO[:, -1:]
    return np.concatenate([now, now - reached_MEO[:, -2:-1]] if reached_MEO.shape[1] > 1 else [now], axis=1).reshape(
        len(reached_MEO), -1
    )


def _standard(columns_MF: Floats, middle_F: Floats, scale_F: Floats) -> Floats:
    standard: Floats = np.clip((columns_MF - middle_F) / scale_F, -FURTHEST, FURTHEST)
    return standard


def _middle_and_scale(columns_NF: Floats) -> tuple[Floats, Floats]:
    spread_F = columns_NF.std(axis=0)
    return columns_NF.mean(axis=0), np.where(spread_F > 1e-9, spread_F, np.inf)  # what does not vary tells nothing


def _now(reached_MEO: Floats) -> Floats:
    trials, epochs, objectives = reached_MEO.shape
    return reached_MEO[:, -1] if epochs else np.zeros((trials, objectives))


def _kernel(x_MF: Floats, x_NF: Floats) -> Floats:
    columns = max(1, x_NF.shape[1])
    inner_MN = x_MF @ x_NF.T
    squares_MN = (x_MF**2).sum(axis=1)[:, None] + (x_NF**2).sum(axis=1) - 2 * inner_MN
    length_squared = 0.49 * columns
    radial: Floats = np.exp(-np.maximum(squares_MN, 0.0) / (2 * length_squared))
    kernel: Floats = inner_MN / columns + 2 * radial
    return kernel


def _likeliest(eigen_N: Floats, turned_N: Floats) -> float:
    """The noise with the largest marginal likelihood, under an inverse gamma(1, 1) prior of the scale."""

    def log_likelihood(noise: float) -> float:
        squares = float((turned_N**2 / (eigen_N + noise)).sum())
        determinant = float(np.log(eigen_N + noise).sum())
        return -0.5 * determinant - (len(turned_N) + 2) / 2 * math.log((squares + 2) / 2)

    return max((float(noise) for noise in NOISE), key=log_likelihood)


def _correlation(errors_NO: Floats) -> float:
    """Of the errors of both objectives about zero, drawn towards none as if by two trials more."""
    if errors_NO.shape[1] < 2:
        return 0.0
    first_N, second_N = errors_NO.T
    size = math.sqrt(float(first_N @ first_N) * float(second_N @ second_N))
    trials = len(errors_NO)
    return float(first_N @ second_N) / size * trials / (trials + 2) if size else 0.0


def _is_number(value: Scalar | None) -> bool:
    return isinstance(value, int | float)


def _distinct(configs: Sequence[Config], name: str) -> list[Scalar | None]:
    values = {config.get(name) for config in configs}
    return sorted(values, key=lambda value: (isinstance(value, str | None), value if value is not None else ""))

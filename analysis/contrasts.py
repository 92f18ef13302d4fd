"""How the values of a field differ: estimates and intervals of which all of a field hold together. Pure.

Two ways. Paired: every value was tried under the same conditions, say with each seed, whose own part then cancels.
Regression: values were tried under whatever else a search drew, and all fields are fitted at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.stats import LEVEL, Floats, t_quantile

# Shape suffixes: R repetitions, L values of a field, N trials, M draws of what is not known, P columns of a regression.

LEAST_FREEDOM = 2
"""Degrees of freedom of the noise below which there is no interval: of three seeds and two values, there are two."""

LEAST_LEFT = 4
"""Degrees of freedom that a regression leaves to the noise, below which it tells nothing."""

_OPEN = 1e-6
"""What is less is rounding: a combination of columns that the trials do determine."""

_LEVERAGE = 0.95
"""The most that counts of a trial's pull on its own fit: of the only one of its kind the rest is nothing by nothing."""


class Contrasts(NamedTuple):
    """Of the values of one field."""

    effects: Floats
    """Of each value, (L); their differences are what counts."""
    variances: Floats
    """Of the difference of each two, (L, L)."""
    freedom: Floats
    """Degrees of freedom of those, (L, L)."""

    def interval(self, one: int, other: int) -> tuple[float, float]:
        """Of the first value's effect less the other's; those of all pairs of the field hold together with 95 %.

        Bonferroni over all pairs: so it holds also for the pair that is picked because it differs most.
        """
        pairs = max(len(self.effects) * (len(self.effects) - 1) // 2, 1)
        half = t_quantile(int(self.freedom[one, other]), 1 - LEVEL / pairs) * math.sqrt(self.variances[one, other])
        difference = float(self.effects[one] - self.effects[other])
        return difference - half, difference + half


def paired(values_RL: Floats) -> Contrasts | None:
    """Each value with each repetition. None where fewer than two repetitions or values leave no noise to be seen.

    The noise is pooled over all values, as the rest of the sum of a repetition and a value; where two values differ by
    more than that from repetition to repetition, theirs is taken.
    """
    repetitions, values = values_RL.shape
    freedom = (repetitions - 1) * (values - 1)
    if freedom < LEAST_FREEDOM:
        return None
    rest_RL = values_RL - values_RL.mean(axis=1, keepdims=True)
    effects_L = rest_RL.mean(axis=0)
    rest_RL = rest_RL - effects_L
    pooled = 2 * float((rest_RL**2).sum()) / freedom
    own_LL = ((rest_RL[:, :, None] - rest_RL[:, None, :]) ** 2).sum(axis=0) / (repetitions - 1)
    return Contrasts(effects_L, np.maximum(pooled, own_LL) / repetitions, np.full_like(own_LL, freedom))


def regression(fields: Sequence[Floats], y_NM: Floats) -> list[Contrasts | None] | None:
    """All fields at once, by least squares on the sum of a part of each.

    ``fields``: of each one, which value each trial has, as marks (N, L). ``y_NM``: what the trials came to; where that
    is not known of some, several draws of it, whose differences become part of the variance (multiple imputation:
    Rubin 1987; its degrees of freedom, too).

    The noise is all that the sum does not explain: another seed, and also what a configuration is beyond the sum. It is
    pooled, or each trial's own (HC3: MacKinnon and White 1985; Long and Ervin 2000), whichever gives more.
    None for a field whose values cannot be told from another's, and instead of all where too few degrees of freedom
    are left.
    """
    x_NP = np.column_stack([np.ones(len(y_NM)), *fields])
    inverse_PN = np.linalg.pinv(x_NP)
    solved_PP = inverse_PN @ x_NP
    freedom = len(y_NM) - round(float(np.trace(solved_PP)))
    if freedom < LEAST_LEFT:
        return None
    beta_PM = inverse_PN @ y_NM
    rest_NM = y_NM - x_NP @ beta_PM
    leverage_N = np.minimum((x_NP * inverse_PN.T).sum(axis=1), _LEVERAGE)
    plain = float((rest_NM**2).sum(axis=0).mean()) / freedom
    own_N = (rest_NM**2).mean(axis=1) / (1 - leverage_N) ** 2
    found: list[Contrasts | None] = []
    start = 1
    for marks_NL in fields:
        of = slice(start, start := start + marks_NL.shape[1])
        open_LP = (np.eye(len(beta_PM)) - solved_PP)[of]  # differs between values that the trials do not tell apart
        if np.abs(open_LP - open_LP[:1]).max() > _OPEN:
            found.append(None)
            continue
        part_LN = inverse_PN[of]
        within_LL = np.maximum(
            _of_differences(plain * part_LN @ part_LN.T), _of_differences(part_LN * own_N @ part_LN.T)
        )
        found.append(_combined(beta_PM[of], within_LL, freedom))
    return found


def _of_differences(covariance_LL: Floats) -> Floats:
    own_L = np.diag(covariance_LL)
    variances: Floats = np.maximum(own_L[:, None] + own_L - 2 * covariance_LL, 0.0)
    return variances


def _combined(effects_LM: Floats, within_LL: Floats, freedom: int) -> Contrasts:
    """Over draws: Rubin's rules."""
    draws = effects_LM.shape[1]
    if draws < 2:
        return Contrasts(effects_LM[:, 0], within_LL, np.full_like(within_LL, freedom))
    between_LL = (1 + 1 / draws) * (effects_LM[:, None] - effects_LM[None]).var(axis=2, ddof=1)
    share_LL = between_LL / np.maximum(within_LL + between_LL, 1e-300)
    freedom_LL = np.minimum((draws - 1) / np.maximum(share_LL, 1e-3) ** 2, freedom)
    return Contrasts(effects_LM.mean(axis=1), within_LL + between_LL, np.maximum(np.floor(freedom_LL), 1.0))

"""Student's t: how rare a t value is, and which t value is that rare."""

import math
from functools import cache


def t_p_value(t: float, freedom: int) -> float:
    """The two-sided p value: the chance of a t value at least as far from 0. NaN for NaN.

    P(|T| >= |t|) = I_x(v/2, 1/2), x = v / (v + t²), v the degrees of freedom (DLMF 8.17, Abramowitz and Stegun 26.7.1);
    to 10 digits, far tails included.
    """
    square = t * t
    if math.isinf(square):
        return 0.0
    # both parts as quotients: 1 - x would lose the digits of a small t
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square))


@cache
def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t value that is exceeded, either way, with chance ``1 - confidence``: 4.3027 for 95 % and 2 degrees."""
    low, high = 0.0, 1.0
    while t_p_value(high, freedom) > 1 - confidence:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_p_value(middle, freedom) > 1 - confidence else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised I_x(a, b), where ``rest`` is 1 - x."""
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, the other side's is fast
        return 1 - _incomplete_beta(b, a, rest, x)
    if not x > 0:
        return x  # 0, or NaN
    log_front = a * math.log(x) + b * math.log(rest) - math.log(a)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(log_front - log_beta) / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction 1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22, by Lentz's method."""
    value = above = 1.0
    below = 0.0
    for step in range(1, 10_000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = 1 / (1 + d * below)
        above = 1 + d / above
        value *= above * below
        if abs(above * below - 1) < 1e-15:
            break
    return value

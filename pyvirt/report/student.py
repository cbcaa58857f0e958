"""Quantiles of Student's t distribution, without SciPy.

The distribution function is a regularised incomplete beta function, which a continued fraction
gives (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.5.8 and 26.7.1); the quantile
is found by bisection, to 2**-50 of the value.
"""

from __future__ import annotations

import math

from pyvirt.errors import InvalidValueError

__all__ = ["t_quantile"]

MOST_TERMS = 10_000
#: Half the least number that is added to 1.
EPSILON = 2.0**-53
TINY = 1e-300


def t_quantile(probability: float, freedom: float) -> float:
    """Give the value that a t variable exceeds with probability 1 - `probability`.

    Parameters
    ----------
    probability : float
        Above 0 and below 1.
    freedom : float
        Degrees of freedom, above 0.

    Returns
    -------
    float

    Raises
    ------
    InvalidValueError
        A number outside these ranges.

    Examples
    --------
    >>> round(t_quantile(0.975, 9), 6)
    2.262157
    """
    if not 0 < probability < 1:
        raise InvalidValueError(f"probability must be above 0 and below 1, got {probability!r}")
    if not 0 < freedom < math.inf:
        raise InvalidValueError(f"freedom must be above 0 and finite, got {freedom!r}")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    tail = 1 - probability
    if tail == 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while _tail(high, freedom) > tail and high < 1e300:
        low, high = high, 2 * high
    while high - low > high * 2.0**-50:
        middle = (low + high) / 2
        if _tail(middle, freedom) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _tail(t: float, freedom: float) -> float:
    """Give the probability of more than a `t` that is not negative."""
    return _beta(freedom / 2, 0.5, freedom / (freedom + t * t), t * t / (freedom + t * t)) / 2


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """Give the regularised incomplete beta function at `x`, which is 1 - `rest`."""
    if x <= 0.0:
        return 0.0
    if rest <= 0.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    # the fraction converges fast on one side of the mean
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Give the continued fraction by Lentz's method."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > TINY else TINY)
    value = d
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > TINY else TINY)
            c = 1.0 + term / (c if abs(c) > TINY else TINY)
            value *= c * d
        if abs(c * d - 1.0) < 4 * EPSILON:
            break
    return value

"""Distributions of times: of work, of gaps between jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Between",
    "BoundedPareto",
    "Empirical",
    "Exponential",
    "Fixed",
    "LogNormal",
    "Times",
]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same time.

    Attributes
    ----------
    time_ns : int
        The time.
    """

    time_ns: int


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential, rounded down to ns, at least 1.

    Attributes
    ----------
    mean_ns : int
        The mean.
    """

    mean_ns: int


@dataclass(frozen=True, slots=True)
class Between:
    """Uniform over the integers from one bound to the other.

    Attributes
    ----------
    low_ns, high_ns : int
        The bounds, which are among them; at most 2**40 values.
    """

    low_ns: int
    high_ns: int


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lognormal, rounded down to ns, 1 to 2**50.

    Attributes
    ----------
    mean_ns : int
        The mean (not the median).
    sigma : float
        Standard deviation of the logarithm, up to 8. The variance is mean**2 (exp(sigma**2) - 1).
    """

    mean_ns: int
    sigma: float


@dataclass(frozen=True, slots=True)
class BoundedPareto:
    """Pareto between bounds, rounded down to ns.

    Attributes
    ----------
    low_ns, high_ns : int
        The bounds.
    alpha : float
        The exponent: P(time > x) falls as x**-alpha.
    """

    low_ns: int
    high_ns: int
    alpha: float


@dataclass(frozen=True, slots=True, eq=False)
class Empirical:
    """Each of the given times as likely.

    Attributes
    ----------
    values_ns : sequence of int
        Measured times, at least 1 each. Worlds with the same values share them in memory.
    """

    values_ns: Sequence[int] | npt.NDArray[np.int64]


Times: TypeAlias = Fixed | Exponential | Between | LogNormal | BoundedPareto | Empirical

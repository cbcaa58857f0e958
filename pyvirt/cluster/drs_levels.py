"""DRS's levels: how much imbalance is borne, and how urgent a recommendation is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidValueError

__all__ = ["priorities", "priority", "target_imbalance"]


def priority(imbalance: float, hosts: int) -> int:
    """Give the priority of a recommendation that balances load: 2 (urgent) to 5.

    6 - ceil(I / 0.1 * sqrt(hosts)), read from left to right (VMware's knowledge base,
    "Calculating the priority level of a VMware DRS migration recommendation"), clipped to 2 to 5:
    1 is for what must be done.

    Parameters
    ----------
    imbalance : float
        The standard deviation of normalised entitlements.
    hosts : int
        That are on.

    Returns
    -------
    int
    """
    _check(hosts)
    if not 0 <= imbalance < math.inf:
        raise InvalidValueError(f"imbalance must be finite and not negative, got {imbalance!r}")
    return int(priorities(np.array([imbalance]), hosts)[0])


def priorities(imbalance: npt.NDArray[np.float64], hosts: int) -> npt.NDArray[np.int64]:
    """Give `priority` for each element of an array."""
    stars = 6 - np.ceil(imbalance / 0.1 * math.sqrt(hosts))
    return np.clip(stars, 2, 5).astype(np.int64)


def target_imbalance(level: int, hosts: int) -> float:
    """Give the imbalance up to which a level makes no recommendation.

    (5 - level) * 0.1 / sqrt(hosts), which follows from the priorities: a level applies
    recommendations whose priority is not above it.

    Parameters
    ----------
    level : int
        1 (only what must be done) to 5.
    hosts : int
        That are on.

    Returns
    -------
    float
        Infinite for level 1.
    """
    _check(hosts)
    if level not in (1, 2, 3, 4, 5):
        raise InvalidValueError(f"level must be 1 to 5, got {level!r:.80}")
    return math.inf if level == 1 else (5 - level) * 0.1 / math.sqrt(hosts)


def _check(hosts: Any) -> None:
    if isinstance(hosts, bool) or not isinstance(hosts, int) or hosts < 1:
        raise InvalidValueError(f"hosts must be a positive integer, got {hosts!r:.80}")

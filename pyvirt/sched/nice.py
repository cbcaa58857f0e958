"""Weights of nice values, as Linux has them."""

from __future__ import annotations

import operator

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["NICE_WEIGHTS", "nice_weight"]

#: Of nice values from -20 to 19: 1024 for 0, and some 1.25 times more for each one less, so that a
#: step is 55 % to 45 % of a CPU (Linux, Documentation/scheduler/sched-nice-design.rst; the numbers
#: are the kernel's ``sched_prio_to_weight``).
NICE_WEIGHTS = (
    *(88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916),
    *(9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277),
    *(1024, 820, 655, 526, 423, 335, 272, 215, 172, 137),
    *(110, 87, 70, 56, 45, 36, 29, 23, 18, 15),
)


def nice_weight(nice: int) -> int:
    """Give the weight that Linux's schedulers give to a nice value.

    Parameters
    ----------
    nice : int
        -20 to 19.

    Returns
    -------
    int
        1024 for 0.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For anything else.

    Examples
    --------
    >>> from pyvirt.sched import nice_weight
    >>> nice_weight(0), nice_weight(5)
    (1024, 335)
    """
    try:
        nice = operator.index(nice)
    except TypeError:
        raise InvalidTypeError(f"nice must be an integer, got {nice!r:.80}") from None
    if not -20 <= nice <= 19:
        raise InvalidValueError(f"nice must be from -20 to 19, got {nice}")
    return NICE_WEIGHTS[nice + 20]

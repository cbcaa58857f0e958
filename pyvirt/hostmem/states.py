"""The states of a host's memory: thresholds on what is free, and what is done in each.

Two forms. ESX Server 2 (Waldspurger, OSDI 2002, 6): thresholds high, soft, hard and low at 6, 4, 2
and 1 % of the memory; a state is entered when less than its own threshold is free, and left when
the threshold above it is reached. vSphere 6 (Epping, "What happens at which vSphere memory
state?", 2015): parts of a minimum of free memory: clear below 100 %, soft 64 %, hard 32 %, low
16 %, and large pages are broken below 400 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["POLICIES", "Action", "MemoryState", "Policy", "min_free_pages", "policy_of"]

PAGES_OF_MIB = 256
PAGES_OF_GIB = PAGES_OF_MIB * 1024


class MemoryState(IntEnum):
    """How short of memory a host is."""

    HIGH = 0
    CLEAR = 1
    SOFT = 2
    HARD = 3
    LOW = 4


class Action:
    """What is done in a state, as bits."""

    SHARE = 1
    """Broken large pages are scanned for equal contents at once, not with the next pass."""
    BALLOON = 2
    COMPRESS = 4
    SWAP = 8
    BLOCK = 16
    """VMs above their targets stand still."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds and actions.

    Attributes
    ----------
    name : str
    of_min_free : bool
        Whether thresholds are parts of `min_free_pages`; else of the host's memory.
    enter : tuple of Fraction
        For clear, soft, hard and low: entered when less is free. 0: never entered.
    leave : tuple of Fraction
        For the same: left, to the next better one, when as much is free.
    break_large : Fraction
        Large pages are broken when less is free; 0: never.
    actions : tuple of int
        Of each `MemoryState`, bits of `Action`. Where ballooning is done and a VM has no balloon,
        or one that is full, it is swapped instead. What stands in no state is never done.
    balloon_part : Fraction
        Of its memory that a VM's balloon takes at most.
    cache_part : Fraction
        Of its memory that a VM's compression cache holds at most, in machine pages.
    salted : bool
        Whether a VM shares pages with itself alone, unless salts say otherwise.
    """

    name: str
    of_min_free: bool
    enter: tuple[Fraction, Fraction, Fraction, Fraction]
    leave: tuple[Fraction, Fraction, Fraction, Fraction]
    break_large: Fraction
    actions: tuple[int, int, int, int, int]
    balloon_part: Fraction = Fraction(65, 100)
    cache_part: Fraction = Fraction(10, 100)
    salted: bool = True

    def __post_init__(self) -> None:
        given = tuple(map(len, (self.enter, self.leave, self.actions)))
        if given != (4, 4, 5):
            raise InvalidTypeError(
                f"a policy has four thresholds to enter, four to leave, five actions, got {given}"
            )
        entered = [value for value in self.enter if value > 0]
        if sorted(entered, reverse=True) != entered or min(self.enter) < 0:
            raise InvalidValueError(f"enter must fall and not be negative, got {self.enter}")
        if any(a > b for a, b in zip(self.enter, self.leave, strict=True)):
            raise InvalidValueError(
                f"no state may be left below where it is entered, got enter {self.enter} and "
                f"leave {self.leave}"
            )

    def thresholds(self, total_pages: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Give, for each host, enter and leave in pages, then what large pages are broken below.

        Parameters
        ----------
        total_pages : array_like of int, shape (hosts,)

        Returns
        -------
        ndarray of int64, shape (10, hosts)
            The last row: what is to be free before reclaiming ends.
        """
        total = np.asarray(total_pages, dtype=np.int64)
        base = min_free_pages(total) if self.of_min_free else total
        wanted = max(self.leave)
        parts = (*self.enter, *self.leave, self.break_large, wanted)
        # n free pages are fewer than x exactly if they are fewer than x rounded up
        rows = [[-(-int(b) * p.numerator // p.denominator) for b in base] for p in parts]
        return np.array(rows, dtype=np.int64).reshape(10, len(total))


def esx2002(band: Fraction = Fraction(0)) -> Policy:
    """Make the policy of ESX Server 2; the band is added to each threshold to leave."""
    enter = (Fraction(0), Fraction(4, 100), Fraction(2, 100), Fraction(1, 100))
    leave = (Fraction(0), Fraction(6, 100), Fraction(4, 100), Fraction(2, 100))
    return Policy(
        "esx2002",
        of_min_free=False,
        enter=enter,
        leave=tuple(x * (1 + band) for x in leave),  # type: ignore[arg-type]
        break_large=Fraction(0),
        actions=(0, 0, Action.BALLOON, Action.SWAP, Action.SWAP | Action.BLOCK),
        cache_part=Fraction(0),
        salted=False,
    )


def esx6(band: Fraction = Fraction(1, 10)) -> Policy:
    """Make the policy of vSphere 6; a state is left a band above where it is entered."""
    enter = (Fraction(1), Fraction(64, 100), Fraction(32, 100), Fraction(16, 100))
    return Policy(
        "esx6",
        of_min_free=True,
        enter=enter,
        leave=tuple(x * (1 + band) for x in enter),  # type: ignore[arg-type]
        break_large=Fraction(4),
        actions=(
            0,
            Action.SHARE,
            Action.SHARE | Action.BALLOON,
            Action.SHARE | Action.COMPRESS | Action.SWAP,
            Action.COMPRESS | Action.SWAP | Action.BLOCK,
        ),
    )


POLICIES = {"esx2002": esx2002, "esx6": esx6}


def policy_of(policy: str | Policy, hysteresis: float | None) -> Policy:
    """Give a policy by name, with its band of hysteresis, or check one."""
    if isinstance(policy, Policy):
        if hysteresis is not None:
            raise InvalidValueError(
                f"a policy that is given has its own hysteresis, got hysteresis={hysteresis!r}"
            )
        return policy
    if not isinstance(policy, str):
        raise InvalidTypeError(f"policy must be a name or a Policy, not {policy!r:.80}")
    if policy not in POLICIES:
        names = " or ".join(f'"{name}"' for name in POLICIES)
        raise InvalidValueError(f"policy must be {names}, or a Policy, got {policy!r:.80}")
    if hysteresis is None:
        return POLICIES[policy]()
    if isinstance(hysteresis, bool) or not isinstance(hysteresis, (int, float, Fraction)):
        raise InvalidTypeError(f"hysteresis must be a number, not {hysteresis!r:.80}")
    if not 0 <= hysteresis <= 1:
        raise InvalidValueError(f"hysteresis must be in [0, 1], got {hysteresis!r}")
    return POLICIES[policy](Fraction(str(float(hysteresis))))


def min_free_pages(total_pages: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Give what vSphere 5 and later keep free (Mem.MinFreePct).

    Documented: 899 MB for the first 28 GB, and 1 % of what is above. Smaller hosts: 6 % of the
    first 4 GB, 4 % of the next 8, 2 % of the next 16, which comes to 901 MB for 28 GB, and is cut
    at 899.

    Parameters
    ----------
    total_pages : array_like of int

    Returns
    -------
    ndarray of int64

    Examples
    --------
    128 GB:

    >>> int(min_free_pages(128 * 1024 * 256)) // 256
    1923
    """
    total = np.asarray(total_pages, dtype=np.int64)
    parts = np.zeros_like(total)
    for low, high, percent in ((0, 4, 6), (4, 12, 4), (12, 28, 2)):
        inside = np.clip(total - low * PAGES_OF_GIB, 0, (high - low) * PAGES_OF_GIB)
        parts = parts + inside * percent
    small = np.minimum(parts // 100, 899 * PAGES_OF_MIB)
    large = 899 * PAGES_OF_MIB + (total - 28 * PAGES_OF_GIB) // 100
    return np.where(total >= 28 * PAGES_OF_GIB, large, small).astype(np.int64)

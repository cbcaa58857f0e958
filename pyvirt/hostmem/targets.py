"""Who keeps how much machine memory: the idle memory tax, and revocation page by page.

Waldspurger, "Memory Resource Management in VMware ESX Server" (OSDI 2002), 5.2 and 5.3.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem.layout import MOST

__all__ = ["check_tax", "revoke", "targets"]

Ints = npt.NDArray[np.int64]
LARGEST_SHARES = 10**12


def check_tax(tax: Any) -> float:
    """Check a tax rate: in [0, 0.999]."""
    if isinstance(tax, (bool, str)) or np.ndim(tax) != 0:
        raise InvalidTypeError(f"tax must be a number, not {tax!r:.80}")
    rate = float(tax)
    if not 0 <= rate <= 0.999:
        raise InvalidValueError(f"tax must be in [0, 0.999], got {tax!r}")
    return rate


def _column(value: Any, name: str, n: int, least: int, most: int = MOST) -> Ints:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf" or array.dtype == bool:
            raise TypeError
        whole = array.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidTypeError(f"{name} must be integers, not {value!r:.80}") from None
    if array.shape not in ((), (n,)):
        raise InvalidTypeError(f"{name} must have shape ({n},), not {array.shape}")
    bad = np.atleast_1d(~((array >= least) & (array <= most)) | (array != whole))
    if bad.any():
        row = int(bad.argmax())
        raise InvalidValueError(
            f"{name}, row {row}: must be a whole number in [{least:,}, {most:,}], got "
            f"{np.atleast_1d(array)[row]}"
        )
    return np.array(np.broadcast_to(whole, (n,)))


def _columns(shares: Any, active: Any, most: Any, least: Any, pages: Any) -> tuple[Ints, ...]:
    if np.ndim(shares) != 1:
        raise InvalidTypeError(f"shares must be a one-dimensional array, not {shares!r:.80}")
    n = len(shares)
    columns = (
        _column(shares, "shares", n, 1, LARGEST_SHARES),
        _column(active, "active", n, 0),
        _column(most, "most", n, 0),
        _column(least, "least", n, 0),
    )
    bad = columns[3] > columns[2]
    if bad.any():
        row = int(bad.argmax())
        raise InvalidValueError(
            f"least, row {row}: must be at most `most`, got {columns[3][row]} > {columns[2][row]}"
        )
    return (*columns, _column([pages], "pages", 1, 0))


def targets(
    shares: npt.ArrayLike,
    active: npt.ArrayLike,
    most: npt.ArrayLike,
    pages: int,
    *,
    least: npt.ArrayLike = 0,
    tax: float = 0.75,
) -> Ints:
    """Divide machine pages among VMs by shares, with a tax on those that are idle.

    Parameters
    ----------
    shares : array_like of int, shape (n,)
        1 to 10**12.
    active : array_like of int
        Pages that each VM touches.
    most : array_like of int
        Pages that each can have: its size or limit, or what it wants.
    pages : int
        What is divided.
    least : array_like of int, default 0
        Reservations, at most `most`. If they exceed `pages`, all are cut by the same factor.
    tax : float, default 0.75
        The part of an idle page that is not counted for its owner: at 0 shares alone decide, near
        1 idle memory is taken before any that is in use. 0 to 0.999.

    Returns
    -------
    ndarray of int64
        Adds up to `pages`, or to the sum of `most` if that is less. Each is within a page of the
        exact division.

    Examples
    --------
    Two VMs of 256 pages and equal shares, one with 20 active pages, on 360:

    >>> targets([1, 1], [20, 256], 256, 360).tolist()
    [104, 256]
    >>> targets([1, 1], [20, 256], 256, 360, tax=0.5).tolist()
    [127, 233]
    """
    from pyvirt.entitlement import addresses
    from pyvirt.hostmem.kernels.targets import WORK, taxed

    s, a, cap, floor, amount = _columns(shares, active, most, least, pages)
    out = np.zeros(len(s), dtype=np.int64)
    if len(s):
        work = np.empty(WORK * 2 * len(s))
        keep = 1.0 - check_tax(tax)
        taxed(addresses()["divide"], s, a, floor, cap, int(amount[0]), keep, out, work)
    return out


def revoke(
    shares: npt.ArrayLike,
    active: npt.ArrayLike,
    most: npt.ArrayLike,
    pages: int,
    *,
    least: npt.ArrayLike = 0,
    tax: float = 0.75,
) -> Ints:
    """Do what `targets` computes, as the paper tells it: min-funding revocation, page by page.

    All VMs have `most` pages at first. While there are more than `pages`, the one whose shares per
    taxed page are fewest loses a page, the first of equal ones first; one that has its least loses
    none. Takes time in proportion to the pages revoked; `targets` does not.

    Parameters
    ----------
    shares, active, most, pages, least, tax
        As for `targets`.

    Returns
    -------
    ndarray of int64

    Examples
    --------
    >>> revoke([1, 1], [20, 256], 256, 360, tax=0.5).tolist()
    [127, 233]
    """
    s, a, cap, floor, amount = _columns(shares, active, most, least, pages)
    k = 1.0 / (1.0 - check_tax(tax))
    have: list[int] = cap.tolist()
    share: list[int] = s.tolist()
    touched: list[int] = np.minimum(a, cap).tolist()

    def price(i: int) -> float:
        """What VM i pays for its pages, for each share; the dearest is revoked first."""
        used = min(touched[i], have[i])
        return (used + k * (have[i] - used)) / share[i]

    heap = [(-price(i), i) for i in range(len(have)) if have[i] > floor[i]]
    heapq.heapify(heap)
    for _ in range(sum(have) - int(amount[0])):
        if not heap:
            break
        _, i = heap[0]
        have[i] -= 1
        if have[i] > floor[i]:
            heapq.heapreplace(heap, (-price(i), i))
        else:
            heapq.heappop(heap)
    return np.array(have, dtype=np.int64)

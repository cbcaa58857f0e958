"""Into how few hosts VMs fit: a packing by search, and a bound that no packing can go below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Packing", "pack", "packing_bound"]

Ints = npt.NDArray[np.int64]
STEPS = 2000


@dataclass(frozen=True, slots=True)
class Packing:
    """Items in bins.

    Attributes
    ----------
    bins : int
        How many are used: the first ones.
    bound : int
        No packing uses fewer; the packing is optimal where it is equal to `bins`.
    place : ndarray of int64, shape (V,)
        The bin of each item.
    """

    bins: int
    bound: int
    place: Ints

    @property
    def gap(self) -> float:
        """How far from optimal it may be, as a part of the bound."""
        return (self.bins - self.bound) / self.bound if self.bound else 0.0


def packing_bound(size: npt.ArrayLike, capacity: npt.ArrayLike) -> int:
    """Give the number of bins below which the items do not fit, whatever the packing.

    By volume, and by pairs: items of more than half a bin each need one of their own, and those of
    exactly half two a bin (Martello and Toth's bound for one half, for each resource).

    Parameters
    ----------
    size : array_like of int, shape (2, V)
        What each item takes of both resources.
    capacity : array_like of int, shape (2, H)
        Of the bins, in the order in which they may be used: as many as are needed, the first ones.

    Returns
    -------
    int
        0 without items; H + 1 if they do not fit at all, by these bounds.
    """
    items, bins = _checked(size, capacity)
    if items.shape[1] == 0:
        return 0
    room = np.cumsum(bins, axis=1)
    enough = (room >= items.sum(axis=1)[:, None]).all(axis=0)
    by_volume = int(enough.argmax()) + 1 if enough.any() else bins.shape[1] + 1
    largest = bins.max(axis=1)[:, None]
    halves = 2 * items
    by_pairs = (halves > largest).sum(axis=1) + -(-(halves == largest).sum(axis=1) // 2)
    # An item of half a bin fits beside none that is larger than half.
    return max(by_volume, int(by_pairs.max()))


def pack(
    size: npt.ArrayLike,
    capacity: npt.ArrayLike,
    *,
    steps: int = STEPS,
    rng: np.random.Generator | None = None,
) -> Packing:
    """Pack items into few bins.

    First fit, the largest first, gives a packing; then each smaller number of bins is tried by a
    search, from the bound upwards.

    Parameters
    ----------
    size : array_like of int, shape (2, V)
        What each item takes of both resources.
    capacity : array_like of int, shape (2, H)
        Of the bins, in the order in which they may be used.
    steps : int, default 2000
        Of the search for each number of bins; 0 for first fit alone.
    rng : numpy.random.Generator, optional
        By default one with the seed 0.

    Returns
    -------
    Packing

    Raises
    ------
    InvalidValueError
        The items do not fit into all bins, as far as was found.

    Examples
    --------
    >>> from pyvirt.cluster import pack
    >>> pack([[6, 5, 4, 3, 2], [1, 1, 1, 1, 1]], [[10, 10, 10], [9, 9, 9]]).bins
    2
    """
    from pyvirt.cluster.kernels.pack import first_fit, overload, search

    items, bins = _checked(size, capacity)
    if steps < 0:
        raise InvalidValueError(f"steps must not be negative, got {steps}")
    generator = np.random.default_rng(0) if rng is None else rng
    bound = packing_bound(items, bins)
    count, most = items.shape[1], bins.shape[1]
    if count == 0:
        return Packing(0, 0, np.empty(0, np.int64))
    order = np.argsort(-(items / bins.max(axis=1)[:, None]).sum(axis=0), kind="stable")
    place = np.empty(count, np.int64)
    load = np.zeros((2, most), np.int64)
    used = first_fit(items, order, bins, most, place, load)
    found = place.copy() if overload(load, bins) == 0 else None
    top = used if found is not None else most + 1
    for few in range(bound, top):
        seed = int(generator.integers(1, 2**62))
        first_fit(items, order, bins, few, place, load)
        if steps and search(items, bins, few, place, load[:, :few], steps, seed) >= 0:
            return Packing(few, bound, place.copy())
    if found is None:
        raise InvalidValueError(
            f"{count} items do not fit into {most} bins, as far as {steps} steps of search can tell"
        )
    return Packing(used, bound, found)


def _checked(size: npt.ArrayLike, capacity: npt.ArrayLike) -> tuple[Ints, Ints]:
    arrays = []
    for value, name, least in ((size, "size", 0), (capacity, "capacity", 1)):
        array = np.asarray(value)
        if array.ndim != 2 or array.shape[0] != 2 or (array.size and array.dtype.kind not in "iu"):
            raise InvalidTypeError(f"{name} must be integers of shape (2, n), not {value!r:.80}")
        array = np.ascontiguousarray(array, dtype=np.int64)
        if ((array < least) | (array >= 2**53)).any():
            raise InvalidValueError(f"{name} must be in [{least}, 2**53), got {array.min()}")
        arrays.append(array)
    return arrays[0], arrays[1]

"""The misses of TLBs of all sizes and associativities, from one pass over a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core.arrays import addresses
from pyvirt._core.reuse import SETS, ReuseProfile
from pyvirt._core.stack import CURVE_DTYPE, StackProfile
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Sweep", "sweep"]

# Operations of event records: pyvirt.traces.Op, of which this package is independent.
_OPS = {"load": (1, 4), "store": (2, 4), "fetch": (3,)}
_FIELDS = ("op", "size", "addr")


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Misses of single-level LRU TLBs on one trace."""

    page_shift: int
    """log2 of the page size."""
    accesses: int
    """Look-ups: an access that crosses a 4 KiB boundary is two."""
    table: npt.NDArray[np.void]
    """A row for each TLB: `sets`, `ways`, `entries`, `misses`, `miss_ratio`."""
    curve: npt.NDArray[np.void] | None
    """Likewise each size of fully associative TLB, if ``full=True``: no `sets` and `ways`."""

    def misses(self, sets: int, ways: int) -> int:
        """Misses of one TLB of the table."""
        row = self.table[(self.table["sets"] == sets) & (self.table["ways"] == ways)]
        if len(row) != 1:
            raise InvalidValueError(f"the sweep has no TLB of {sets!r:.80} sets, {ways!r:.80} ways")
        return int(row["misses"][0])

    def miss_ratio_curve(self, ways: int | None = None) -> npt.NDArray[np.void]:
        """Misses against the number of entries, ascending.

        Parameters
        ----------
        ways : int, optional
            Of set-associative TLBs. By default TLBs are fully associative; of every size up to
            the number of pages with ``full=True``, else of those in the table.

        Returns
        -------
        ndarray
            Fields ``entries``, ``misses``, ``miss_ratio``.
        """
        if ways is None and self.curve is not None:
            return self.curve
        rows = self.table[self.table["sets" if ways is None else "ways"] == (ways or 1)]
        if len(rows) == 0 or ways == 0:
            what = "fully associative TLB" if ways is None else f"TLB of {ways!r:.80} ways"
            raise InvalidValueError(f"the sweep has no {what}")
        result = np.empty(len(rows), CURVE_DTYPE)
        for name in CURVE_DTYPE.names or ():
            result[name] = rows[name]
        return result


def sweep(
    trace: npt.ArrayLike | Iterable[npt.NDArray[Any]],
    *,
    page_shift: int = 12,
    sets: Sequence[int] = SETS,
    ways: int | Sequence[int] | None = None,
    kinds: Iterable[str] = ("load", "store", "fetch"),
    full: bool = False,
) -> Sweep:
    """Misses of single-level LRU TLBs of many sizes, all from one pass over the addresses.

    Each number is what a simulation of that TLB alone would count. The set of a page is its number
    modulo the number of sets. Nothing is ever invalidated, and addresses of all vCPUs and address
    spaces are taken to be of one.

    Parameters
    ----------
    trace : array of int, array of events, or iterable of such arrays
        Addresses in the order of the accesses, or records with the fields of
        `pyvirt.traces.EVENT_DTYPE`. The arrays of an iterable, such as a reader of a trace, are
        taken one after the other; memory does not grow with their number.
    page_shift : int, default 12
        log2 of the page size: the trace is taken to be in pages of one size.
    sets : sequence of int, default 1, 2, 4, ... 4096
        Numbers of sets, ascending powers of two; 1 is fully associative.
    ways : int or sequence of int, optional
        Most ways, for all `sets` or for each of them: all up to there are in the table. By
        default 16, and for one set 128: 320 TLBs.
    kinds : iterable of {"load", "store", "fetch"}
        Accesses that look up this TLB; for arrays of plain addresses it says nothing.
    full : bool, default False
        Simulate every size of fully associative TLB, too. That needs some 100 bytes of memory
        for each different page, and up to several times as long where pages are many.

    Returns
    -------
    Sweep

    Examples
    --------
    >>> import numpy as np
    >>> from pyvirt.mmu.sweep import sweep
    >>> pages = np.tile(np.arange(96, dtype=np.uint64), 100)
    >>> result = sweep(pages * np.uint64(4096))
    >>> result.misses(sets=16, ways=4), result.misses(sets=16, ways=6)
    (9600, 96)
    """
    if ways is None:
        try:
            ways = [128 if count == 1 else 16 for count in sets]
        except TypeError as error:
            raise InvalidTypeError(
                f"sets must be a sequence of integers, not {sets!r:.80}"
            ) from error
    profile = ReuseProfile(sets, ways, page_shift=page_shift)
    stack = StackProfile(page_shift=page_shift) if full else None
    ops = _ops_of(kinds)
    for chunk in _chunks(trace):
        vas = _looked_up(chunk, ops)
        profile.feed(vas)
        if stack is not None:
            stack.feed(vas)
    return Sweep(
        page_shift=profile.page_shift,
        accesses=profile.accesses,
        table=profile.table(),
        curve=None if stack is None else stack.curve(),
    )


def _ops_of(kinds: Iterable[str]) -> list[int]:
    """Operations whose address is looked up."""
    names = [kinds] if isinstance(kinds, str) else kinds
    ops: set[int] = set()
    try:
        for name in names:
            ops.update(_OPS[name])
    except KeyError:
        raise InvalidValueError(f"kinds must be of {tuple(_OPS)}, got {kinds!r:.80}") from None
    except TypeError as error:
        raise InvalidTypeError(f"kinds must be strings, not {kinds!r:.80}") from error
    if not ops:
        raise InvalidValueError(f"kinds must be at least one of {tuple(_OPS)}")
    return sorted(ops)


def _chunks(trace: Any) -> Iterator[Any]:
    """Yield the arrays of a trace."""
    if isinstance(trace, np.ndarray):
        yield trace
        return
    if isinstance(trace, (list, tuple)) and not any(isinstance(x, np.ndarray) for x in trace):
        yield addresses(trace, "trace")
        return
    try:
        chunks = iter(trace)
    except TypeError as error:
        raise InvalidTypeError(
            f"trace must be an array or an iterable of arrays, not {trace!r:.80}"
        ) from error
    for chunk in chunks:
        if not isinstance(chunk, np.ndarray):
            raise InvalidTypeError(f"trace must yield arrays, not {chunk!r:.80}")
        yield chunk


def _looked_up(chunk: npt.NDArray[Any], ops: list[int]) -> npt.NDArray[np.uint64]:
    """Addresses that the accesses of a chunk look up."""
    if chunk.dtype.names is None:
        return addresses(chunk, "trace")
    if not set(_FIELDS) <= set(chunk.dtype.names) or chunk.ndim != 1:
        raise InvalidTypeError(
            f"trace must hold addresses or records with the fields {_FIELDS}, got {chunk.dtype}"
        )
    accesses = chunk[np.isin(chunk["op"], ops)]
    first = accesses["addr"].astype(np.uint64)
    page = first >> np.uint64(12)
    last = first + (np.maximum(accesses["size"], 1) - 1).astype(np.uint64)
    crossing = np.flatnonzero(last >> np.uint64(12) != page)
    if len(crossing) == 0:
        return first
    return np.insert(first, crossing + 1, (page[crossing] + np.uint64(1)) << np.uint64(12))

"""What is in a trace, in one pass and in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt.traces.events import Events, Op, is_access

__all__ = ["Distinct", "Summary", "summarise"]

U64 = npt.NDArray[np.uint64]
_KEPT = 1 << 20
_RECENT = 1 << 14
_SHIFTS = {"4K": 12, "2M": 21}


class Distinct:
    """Counts distinct values: exactly up to `kept`, and beyond that to about 1 / sqrt(kept).

    It keeps the smallest of their hashes: how far they reach tells how many there are (the
    k minimum values of Bar-Yossef et al., RANDOM 2002).

    Parameters
    ----------
    kept : int
        Hashes to keep, 8 bytes each.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._hashes: U64 = np.empty(0, np.uint64)  # the smallest, in order
        self._new: list[U64] = []  # to be merged with them when they are as many
        self._full = False
        # A value at each slot that it belongs to, to pass over most repetitions: at first one
        # that belongs to the next slot, and so is never found.
        self._recent: U64 = np.arange(1, _RECENT + 1, dtype=np.uint64)

    def add(self, values: U64) -> None:
        """Take note of values."""
        slots = values & np.uint64(_RECENT - 1)
        values = values[self._recent[slots] != values]
        if not len(values):
            return
        self._recent[values & np.uint64(_RECENT - 1)] = values
        hashes = _mixed(values)
        if self._full:
            hashes = hashes[hashes < self._hashes[-1]]
        self._new.append(_sorted_once(hashes))
        if sum(map(len, self._new)) >= self._kept:
            self._merge()

    def _merge(self) -> None:
        hashes = _sorted_once(np.concatenate((self._hashes, *self._new)))
        self._new.clear()
        if len(hashes) > self._kept:
            self._full = True
            hashes = hashes[: self._kept]
        self._hashes = hashes

    @property
    def exact(self) -> bool:
        """Whether `count` is no estimate."""
        self._merge()
        return not self._full

    @property
    def count(self) -> int:
        """How many, as far as is known."""
        if self.exact:
            return len(self._hashes)
        return round((self._kept - 1) * 2.0**64 / float(self._hashes[-1]))


def _sorted_once(values: U64) -> U64:
    """Sort and drop repetitions: `numpy.unique` takes ten times as long for random values."""
    values = np.sort(values)
    return values[np.concatenate(([True], values[1:] != values[:-1]))[: len(values)]]


def _mixed(values: U64) -> U64:
    """Hash values one to one (the finaliser of splitmix64): nothing distinct becomes equal."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


class Summary(NamedTuple):
    """What is in a trace.

    Attributes
    ----------
    events : int
        All of them.
    counts : dict of str to int
        Events of each operation that occurs.
    accesses, user : int
        Loads, stores and fetches; those of them at CPL 3.
    vcpus : list of int
        The vCPUs that occur.
    lowest, highest : int or None
        First and last byte accessed.
    pages : dict of str to int
        Distinct pages accessed, for each page size.
    pages_exact : dict of str to bool
        Whether that number is exact, or an estimate to about 0.1 %.
    """

    events: int
    counts: dict[str, int]
    accesses: int
    user: int
    vcpus: list[int]
    lowest: int | None
    highest: int | None
    pages: dict[str, int]
    pages_exact: dict[str, bool]


def summarise(events: Events | Iterable[Events]) -> Summary:
    """Look at all events once.

    Parameters
    ----------
    events : ndarray or iterable of ndarray
        Of EVENT_DTYPE; a reader, for example.

    Returns
    -------
    Summary
        Counts, range and pages.
    """
    counts = np.zeros(256, np.int64)
    vcpus = np.zeros(1 << 16, np.bool_)
    lowest, highest = (1 << 64) - 1, 0
    user = 0
    pages = {name: Distinct() for name in _SHIFTS}
    for chunk in (events,) if isinstance(events, np.ndarray) else events:
        counts += np.bincount(chunk["op"], minlength=256)
        vcpus[chunk["vcpu"]] = True
        found = chunk[is_access(chunk)]
        if not len(found):
            continue
        user += int(np.count_nonzero(found["arg"] & 1))
        first = np.ascontiguousarray(found["addr"])
        last = first + np.maximum(found["size"], 1) - np.uint64(1)
        last = np.where(last < first, np.uint64((1 << 64) - 1), last)
        lowest = min(lowest, int(first.min()))
        highest = max(highest, int(last.max()))
        for name, shift in _SHIFTS.items():
            page = first >> np.uint64(shift)
            # A run of accesses to one page counts once: cheaper than to sort it away.
            new = np.concatenate(([True], page[1:] != page[:-1]))
            beyond = last >> np.uint64(shift)
            pages[name].add(np.concatenate((page[new], beyond[beyond != page])))
    total = int(counts[[Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY]].sum())
    return Summary(
        events=int(counts.sum()),
        counts={
            Op(op).name if op in Op._value2member_map_ else str(op): int(counts[op])
            for op in np.flatnonzero(counts).tolist()
        },
        accesses=total,
        user=user,
        vcpus=np.flatnonzero(vcpus).tolist(),
        lowest=lowest if total else None,
        highest=highest if total else None,
        pages={name: distinct.count for name, distinct in pages.items()},
        pages_exact={name: distinct.exact for name, distinct in pages.items()},
    )

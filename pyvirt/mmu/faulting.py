"""A guest for a trace that has no tables: its kernel maps each page when the program faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt._core.builder import PageTables
from pyvirt._core.dtypes import EVENT_DTYPE
from pyvirt.errors import FrameExhaustedError, InvalidTypeError, InvalidValueError
from pyvirt.mmu.demand import Seen
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.units import parse_size

__all__ = ["FaultingGuest"]

U64: TypeAlias = npt.NDArray[np.uint64]

#: The kernel has all memory mapped from here, by pages of 2 MiB, with tables of its own.
DIRECT = 0xFFFF888000000000
OWN_TABLES = (0x100000, 0x100000)
TABLES = 0x200000
LEAST, MOST = 1 << 26, 1 << 37
SHIFTS = {"4K": 12, "2M": 21}
BLOCK = 1 << 18

# Operations and bits of `arg`, as `pyvirt.traces.Op` and `Arg` have them.
LOAD, STORE, MODIFY = 1, 2, 4
USER, GIVEN, HANDLER = 1, 1 << 4, 1 << 10
#: Those that need nothing of this guest: NOP, INVLPG, VM entry and exit, I/O.
HARMLESS = (0, 19, 25, 26, 27)
ENTRY, LARGE = 0x7, 0x80
ONE, NINE, LOW = np.uint64(1), np.uint64(9), np.uint64(511)


class FaultingGuest:
    """A program's accesses as a guest that starts with no page of it mapped.

    Parameters
    ----------
    page : {"4K", "2M"}, default "4K"
        Size of the program's pages.
    memory : int or str, default "16GiB"
        Size of the guest's memory, 64 MiB to 128 GiB; what is never stored to takes no room.

    Attributes
    ----------
    memory : PhysicalMemory
        At the start: the kernel's tables and an empty root.
    cr3 : int
        That root.
    page_faults : int
        Pages mapped so far.

    Notes
    -----
    An access whose page was never touched faults; the handler stores the entries through the
    kernel's map of all memory, upper tables first, and makes the access again. Frames are given in
    the order of first touch. The handler does nothing else: a kernel would also clear the page.

    Examples
    --------
    >>> from pyvirt.traces import accesses
    >>> from pyvirt.mmu.faulting import FaultingGuest
    >>> guest = FaultingGuest()
    >>> trace = [accesses([0x400000, 0x400008, 0x401000])]
    >>> found = pv.compare(guest.serve(trace), guest.memory, cr3=guest.cr3)
    >>> guest.page_faults, found["native"].guest_faults, found.accesses
    (2, 2, 10)
    """

    def __init__(self, page: Literal["4K", "2M"] = "4K", *, memory: int | str = "16GiB") -> None:
        if page not in SHIFTS:
            raise InvalidValueError(f'page must be "4K" or "2M", got {page!r:.80}')
        size = parse_size(memory) if isinstance(memory, str) else memory
        if isinstance(size, bool) or not isinstance(size, int | np.integer):
            raise InvalidTypeError(f"memory must be a size, got {memory!r:.80}")
        if not LEAST <= size <= MOST or size & 0x1FFFFF:
            raise InvalidValueError(
                f"memory must be a multiple of 2 MiB from 64 MiB to 128 GiB, got {memory}"
            )
        self._shift = SHIFTS[page]
        self._depth = 3 if page == "4K" else 2
        # one table for 512 pages, and as many again for tables that are not full
        self._data = TABLES + (size >> 7 & ~0x1FFFFF)
        self._end = int(size)
        self.memory = PhysicalMemory(self._end)
        tables = PageTables(self.memory, frames=OWN_TABLES)
        tables.map_range(DIRECT, 0, self._end, rights="rw", page_shift=21)
        self.cr3 = tables.root
        self._pages, self._tables = Seen(), Seen()
        self._events = 0

    @property
    def page_faults(self) -> int:
        """Pages mapped so far."""
        return len(self._pages)

    def serve(self, trace: Iterable[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
        """Give the arrays of a trace with what the kernel does about faults put in.

        Parameters
        ----------
        trace : iterable of ndarray of `pyvirt.traces.EVENT_DTYPE`
            For example a reader.

        Yields
        ------
        ndarray of EVENT_DTYPE
            To run in this order, on a machine that begins with `memory` and `cr3`.

        Raises
        ------
        InvalidValueError
            For an event that is about tables or address spaces of the recorded system, or an
            address that is not canonical, or in the kernel's map.
        FrameExhaustedError
            If more is touched than there is memory.
        """
        for events in trace:
            if getattr(events, "dtype", None) != EVENT_DTYPE:
                raise InvalidTypeError(f"a trace has arrays of EVENT_DTYPE, got {events!r:.80}")
            for at in range(0, len(events), BLOCK):
                part = events[at : at + BLOCK]
                yield self._serve(part)
                self._events += len(part)

    def _serve(self, events: npt.NDArray[Any]) -> npt.NDArray[Any]:
        chosen = self._accesses(events)
        vas = events["addr"][chosen]
        size = np.maximum(events["size"][chosen], 1).astype(np.uint64)
        first, last = vas >> np.uint64(self._shift), (vas + size - ONE) >> np.uint64(self._shift)
        # the pages of each access, one after the other
        pages = np.stack([first, last], axis=1).reshape(-1)
        new = self._pages.add(pages)
        if not len(new):
            return _plain(events, chosen)
        page, faulted = pages[new], chosen[new >> 1]
        stores, at = self._stores(page)
        inserted = np.zeros(len(events), np.int64)
        np.add.at(inserted, faulted[at], 1)
        inserted[faulted] += 1  # the access again
        where = np.arange(len(events)) + np.cumsum(inserted) - inserted
        result = np.zeros(len(events) + int(inserted.sum()), EVENT_DTYPE)
        result[where] = _plain(events, chosen)
        again = np.unique(faulted)
        result[where[again] + inserted[again]] = _plain(events, chosen)[again]
        result["arg"][where[again] + inserted[again]] |= HANDLER
        # the stores of one event stand together, in order
        order = faulted[at]
        rank = np.arange(len(order)) - np.searchsorted(order, order)
        place = where[order] + 1 + rank
        stores["vcpu"] = events["vcpu"][order]
        result[place] = stores
        return result

    def _accesses(self, events: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Give where accesses are, and refuse what this guest cannot follow."""
        op = events["op"]
        accesses = (op >= LOAD) & (op <= MODIFY)
        strange = np.flatnonzero(~accesses & ~np.isin(op, HARMLESS))
        if len(strange):
            raise InvalidValueError(
                f"event {self._events + int(strange[0])} (op {op[strange[0]]}) is about the "
                "recorded system's own tables, which are not here"
            )
        chosen = np.flatnonzero(accesses)
        vas = events["addr"][chosen]
        signed = vas.astype(np.int64)
        mapped = (vas >= np.uint64(DIRECT)) & (vas < np.uint64(DIRECT + self._end))
        wrong = np.flatnonzero((signed << 16 >> 16 != signed) | mapped)
        if len(wrong):
            i = chosen[wrong[0]]
            raise InvalidValueError(
                f"event {self._events + int(i)}: {int(events['addr'][i]):#x} is "
                + ("in the kernel's map" if mapped[wrong[0]] else "not canonical")
            )
        return chosen

    def _stores(self, page: U64) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
        """Give the stores that map pages, in order, and the index in `page` of each."""
        depth = self._depth
        # keys of the tables above each page, from the one below the root down
        above = np.stack([page >> (NINE * np.uint64(n)) for n in range(depth, 0, -1)], axis=1)
        level = np.arange(depth, 0, -1, dtype=np.uint64) << np.uint64(58)
        keys = (above & np.uint64((1 << 58) - 1)) | level
        made = np.zeros(keys.shape, bool)
        made.reshape(-1)[self._tables.add(keys.reshape(-1))] = True
        frame = np.uint64(TABLES) + (self._tables.places(keys.reshape(-1)) << np.uint64(12))
        frames = frame.reshape(keys.shape)
        data = np.uint64(self._data) + (self._pages.places(page) << np.uint64(self._shift))
        if (
            TABLES + (len(self._tables) << 12) > self._data
            or self._data + (len(self._pages) << self._shift) > self._end
        ):
            raise FrameExhaustedError(f"the guest's {self._end >> 20} MiB of memory are used up")
        root = np.full((len(page), 1), self.cr3, np.uint64)
        tables = np.concatenate([root, frames], axis=1)
        index = np.concatenate([above, page[:, None]], axis=1) & LOW
        leaf = data | np.uint64(LARGE if self._shift == 21 else 0)
        target = np.concatenate([frames, leaf[:, None]], axis=1) | np.uint64(ENTRY)
        kept = np.concatenate([made, np.ones((len(page), 1), bool)], axis=1)
        stores = np.zeros(int(kept.sum()), EVENT_DTYPE)
        stores["op"], stores["size"], stores["arg"] = STORE, 8, GIVEN | HANDLER
        stores["addr"] = np.uint64(DIRECT) + (tables + (index << np.uint64(3)))[kept]
        stores["value"] = target[kept]
        return stores, np.nonzero(kept)[0]


def _plain(events: npt.NDArray[Any], chosen: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Copy events; of the bits of an access's `arg` only the privilege is a trace's."""
    result = events.copy()
    result["arg"][chosen] &= USER
    return result

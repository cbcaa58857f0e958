"""Page tables for a trace that has none: each page is mapped when it is first touched."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt._core.arrays import addresses
from pyvirt._core.builder import PageTables
from pyvirt.errors import FrameExhaustedError, InvalidTypeError, InvalidValueError
from pyvirt.mmu.geometry import PAGES
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.mmu import MMU

__all__ = ["DemandMapper"]

U64: TypeAlias = npt.NDArray[np.uint64]
Page: TypeAlias = Literal["4K", "2M", "1G"]

_SHIFTS = dict(zip(PAGES, (12, 21, 30), strict=True))
# Operations of event records: pyvirt.traces.Op, of which this package is independent.
_LOAD, _MODIFY, _MOV_CR3 = 1, 4, 16
_REFUSED = {
    32: "STORE_TABLE",
    33: "MAP",
    34: "UNMAP",
    35: "PROTECT",
    41: "VM_SWITCH",
}
_FIELDS = ("op", "size", "vcpu", "addr", "value")
_BLOCK = 1 << 18  # addresses that are handled at a time
_LEAST_SLOTS, _MOST_SLOTS = 16, 24  # log2

# The own-physical space (a guest's has 48 bits: four levels of nested tables): the tables of one
# address space after the other, then data. The host's: nested tables, then what backs the guest.
_SPAN = 1 << 35
_DATA, _DATA_END = 1 << 47, 1 << 48
_BACKING, _END = 1 << 47, 1 << 52
_MOST_SPACES = _DATA // _SPAN
_SPACE_SHIFT = 48  # the number of the address space in a key, above any page number
_NUMBER = (1 << _SPACE_SHIFT) - 1
_ROOT = 0x000F_FFFF_FFFF_F000
_NOT_ROOT = 0xFFF0_0000_0000_0FFF


class Seen:
    """Numbers that have been seen, each with its place in the order of first appearance."""

    def __init__(self) -> None:
        self._sorted: U64 = np.empty(0, np.uint64)
        self._places: U64 = np.empty(0, np.uint64)
        # A number that is in its slot here has been seen: that answers most of a busy trace.
        self._recent: U64 = np.zeros(1 << _LEAST_SLOTS, np.uint64)

    def __len__(self) -> int:
        return len(self._sorted)

    def _slots(self, keys: U64) -> U64:
        """Where numbers are looked for in `_recent`: the top bits of a product."""
        bits = len(self._recent).bit_length() - 1
        result: U64 = keys * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(64 - bits)
        return result

    def _remember(self, keys: U64) -> None:
        """Put numbers into their slots, of which there are twice as many as numbers."""
        size = min(max(2 * len(self) - 1, 1).bit_length(), _MOST_SLOTS)
        if 1 << size > len(self._recent):
            self._recent = np.zeros(1 << size, np.uint64)
            keys = self._sorted
        self._recent[self._slots(keys)] = keys + np.uint64(1)

    def add(self, keys: U64) -> npt.NDArray[np.intp]:
        """Add numbers, and give where in `keys` new ones appear first, ascending."""
        left = np.flatnonzero(self._recent[self._slots(keys)] != keys + np.uint64(1))
        if not len(left):
            return left
        unique, first = np.unique(keys[left], return_index=True)
        at = np.searchsorted(self._sorted, unique)
        new = np.ones(len(unique), bool)
        inside = at < len(self._sorted)
        new[inside] = self._sorted[at[inside]] != unique[inside]
        if new.any():
            order = np.argsort(first[new])
            places = np.empty(len(order), np.uint64)
            places[order] = np.arange(len(self), len(self) + len(order), dtype=np.uint64)
            self._places = np.insert(self._places, at[new], places)
            self._sorted = np.insert(self._sorted, at[new], unique[new])
        else:
            order = np.empty(0, np.intp)
        self._remember(unique)
        return left[first[new][order]]

    def places(self, keys: U64) -> U64:
        """Give the places of numbers that have been seen."""
        return self._places[np.searchsorted(self._sorted, keys)]


class DemandMapper:
    """An operating system that maps a page at its first use, and a hypervisor that backs it.

    Parameters
    ----------
    page : {"4K", "2M", "1G"}
        Size of the pages of programs.
    nested : bool, default False
        Whether it is a guest's, under nested tables.
    host_page : {"4K", "2M", "1G"}
        Size of the pages that back the guest.
    nested_format : {"ept", "npt"}
    levels, nested_levels : int, default 4
        Of the tables, 4 or 5.

    Attributes
    ----------
    memory : PhysicalMemory
        Holds all tables. Data have addresses in it and no content.
    tables : list of PageTables
        One for each address space.
    nested_tables : PageTables or None
        Those of the hypervisor.
    page_faults, nested_faults : int
        Pages mapped so far by the operating system and by the hypervisor: the page faults and the
        EPT violations (nested page faults) that the first touches would be.

    Notes
    -----
    Pages, table frames and backing get the next free address in the order of first touch, so that
    the tables depend on the accesses alone, and not on how they are cut into pieces. Every page may
    be read, written and fetched, at any privilege; A and D bits are clear at first.

    Pages are mapped just before the accesses run, so that none of these faults: counters of the
    MMU do not have the walks that would have ended in a fault, nor what such a fault drops.

    A load of CR3 with a root that has not been met begins another, empty address space, of which
    there can be 4096; all vCPUs begin in the first one.

    Examples
    --------
    >>> import numpy as np
    >>> from pyvirt.mmu.demand import DemandMapper
    >>> system = DemandMapper(nested=True, host_page="2M")
    >>> mmu = system.mmu(tlb="reference")
    >>> vas = np.arange(100, dtype=np.uint64) * 4096
    >>> system.touch(vas)
    100
    >>> bool(mmu.translate(vas).ok.all()), system.nested_faults
    (True, 2)
    """

    def __init__(
        self,
        page: Page = "4K",
        *,
        nested: bool = False,
        host_page: Page = "4K",
        nested_format: Literal["ept", "npt"] = "ept",
        levels: SupportsIndex = 4,
        nested_levels: SupportsIndex = 4,
    ) -> None:
        self._page_shift = _shift(page, "page")
        self._host_shift = _shift(host_page, "host_page")
        self._levels = _four_or_five(levels, "levels")
        self._nested_levels = _four_or_five(nested_levels, "nested_levels")
        if nested_format not in ("ept", "npt"):
            raise InvalidValueError(f"nested_format must be ept or npt, got {nested_format!r:.80}")
        self._format = nested_format
        # What is noted is the smaller of the two sizes: a large page is backed piece by piece.
        self._shift = min(self._page_shift, self._host_shift) if nested else self._page_shift
        self._bits = 12 + 9 * self._levels
        self.memory = PhysicalMemory(_END)
        self.nested_tables: PageTables | None = None
        if nested:
            self.nested_tables = PageTables(
                self.memory,
                format=nested_format,
                levels=self._nested_levels,
                frames=(0x1000, _BACKING),
            )
        self.tables: list[PageTables] = []
        self._pieces, self._pages, self._branches, self._backed = (Seen() for _ in range(4))
        self._roots: dict[int, int] = {}  # of the trace, to the number of the address space
        self._current = np.zeros(1 << 16, np.uint64)  # address space of each vCPU
        self._events = 0
        self._add_space()

    @property
    def page_faults(self) -> int:
        """Pages mapped so far by the operating system."""
        return len(self._pages if self._shift != self._page_shift else self._pieces)

    @property
    def nested_faults(self) -> int:
        """Pages mapped so far by the hypervisor, those that hold the guest's tables included."""
        return len(self._backed)

    def mmu(self, **options: Any) -> MMU:
        """Make an MMU over these tables.

        Parameters
        ----------
        **options
            Those of `pyvirt.MMU` that do not say where tables are and what they look like.
        """
        given = dict(options)
        if self.nested_tables is None:
            given["mode"] = "native"
        else:
            given.update(
                mode="nested",
                nested_root=self.nested_tables.root,
                nested_format=self._format,
                nested_levels=self._nested_levels,
            )
        return MMU(memory=self.memory, cr3=self.tables[0].root, guest_levels=self._levels, **given)

    def touch(self, vas: npt.ArrayLike, space: SupportsIndex = 0) -> int:
        """Map the pages of addresses that are not mapped yet.

        Parameters
        ----------
        vas : array of int
            In the order of the accesses; those that are not canonical are passed over.
        space : int, default 0
            Number of the address space.

        Returns
        -------
        int
            Pages of the program that were mapped.

        Raises
        ------
        FrameExhaustedError
            If more is touched than there is physical memory: 128 TiB.
        """
        number = operator.index(space)
        if not 0 <= number < len(self.tables):
            raise InvalidValueError(f"space must be below {len(self.tables)}, got {number}")
        before = self.page_faults
        every = addresses(vas, "vas")
        for at in range(0, len(every), _BLOCK):
            part = every[at : at + _BLOCK]
            self._touch(part, np.full(len(part), number, np.uint64))
        return self.page_faults - before

    def prepare(self, events: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Map what events touch, and give them ready to run.

        Parameters
        ----------
        events : ndarray of `pyvirt.traces.EVENT_DTYPE`
            They follow those of the last call.

        Returns
        -------
        ndarray
            The same events; loads of CR3 have the roots of these tables.

        Raises
        ------
        InvalidValueError
            For events that edit the tables of the system where the trace was recorded, or switch
            to another machine: those tables are not here.
        """
        names = getattr(getattr(events, "dtype", None), "names", None) or ()
        if not set(_FIELDS) <= set(names):
            raise InvalidTypeError(f"events must be an array of EVENT_DTYPE, got {events!r:.80}")
        self._refuse(events)
        loads = np.flatnonzero(events["op"] == _MOV_CR3)
        begin = 0
        for at in loads:
            # Up to here only if the root is new: the order of first touches must hold.
            root = int(events["value"][at]) & _ROOT
            if root not in self._roots:
                self._prepare_part(events[begin:at])
                begin = int(at)
                self._roots[root] = len(self.tables)
                self._add_space()
        self._prepare_part(events[begin:])
        self._events += len(events)
        if not len(loads):
            return events
        result = events.copy()
        values = result["value"]
        for at in loads:
            root = self.tables[self._roots[int(values[at]) & _ROOT]].root
            values[at] = int(values[at]) & _NOT_ROOT | root
        return result

    def serve(self, trace: Iterable[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
        """Give the arrays of a trace, each ready to run when it comes: ``mmu.run(x.serve(trace))``.

        Parameters
        ----------
        trace : iterable of ndarray of `pyvirt.traces.EVENT_DTYPE`
            For example a reader.

        Yields
        ------
        ndarray
            As from `prepare`.
        """
        for events in trace:
            yield self.prepare(events)

    def _refuse(self, events: npt.NDArray[Any]) -> None:
        """Say which event this system cannot follow, if one is there."""
        bad = np.flatnonzero(np.isin(events["op"], list(_REFUSED)))
        if len(bad):
            name = _REFUSED[int(events["op"][bad[0]])]
            raise InvalidValueError(
                f"event {self._events + int(bad[0])} is {name}: the tables that it is about are "
                "not here; pages are mapped at their first use"
            )

    def _prepare_part(self, events: npt.NDArray[Any]) -> None:
        """Map what events touch; their loads of CR3 name roots that are known."""
        for at in range(0, len(events), _BLOCK):
            part = events[at : at + _BLOCK]
            spaces = self._spaces(part)
            chosen = np.flatnonzero((part["op"] >= _LOAD) & (part["op"] <= _MODIFY))
            vas, sizes = part["addr"][chosen], part["size"][chosen].astype(np.uint64)
            spaces = spaces[chosen]
            crossing = np.flatnonzero((vas & np.uint64(0xFFF)) + sizes > np.uint64(0x1000))
            if len(crossing):
                second = (vas[crossing] | np.uint64(0xFFF)) + np.uint64(1)
                vas = np.insert(vas, crossing + 1, second)
                spaces = np.insert(spaces, crossing + 1, spaces[crossing])
            self._touch(vas, spaces)

    def _spaces(self, events: npt.NDArray[Any]) -> U64:
        """Address space in which each event runs; the vCPUs are then in their last ones."""
        vcpus = events["vcpu"]
        result = self._current[vcpus]
        loads = events["op"] == _MOV_CR3
        for vcpu in np.unique(vcpus[loads]):
            own = np.flatnonzero(vcpus == vcpu)
            at = own[loads[own]]
            roots = (self._roots[int(value) & _ROOT] for value in events["value"][at])
            spaces = np.fromiter((self._current[vcpu], *roots), np.uint64)
            result[own] = spaces[np.cumsum(loads[own])]
            self._current[vcpu] = spaces[-1]
        return result

    def _add_space(self) -> None:
        """Begin an address space, with an empty root table."""
        number = len(self.tables)
        if number == _MOST_SPACES:
            raise InvalidValueError(f"more than {_MOST_SPACES} address spaces")
        first = number * _SPAN + 0x1000
        frames = (first, (number + 1) * _SPAN)
        if self.nested_tables is None:
            self.tables.append(PageTables(self.memory, levels=self._levels, frames=frames))
            return
        self._back(np.array([first], np.uint64))
        outer = self.nested_tables.walker()
        self.tables.append(PageTables(self.memory, levels=self._levels, frames=frames, outer=outer))

    def _touch(self, vas: U64, spaces: U64) -> None:
        """Map the pages of addresses that are not mapped yet, in their order."""
        unused = np.uint64(64 - self._bits)
        near = vas << unused
        # an arithmetic shift right brings back the sign: only a canonical address is unchanged
        ok = (near.view(np.int64) >> unused.astype(np.int64)).view(np.uint64) == vas
        keys = near >> (unused + np.uint64(self._shift)) | spaces << np.uint64(_SPACE_SHIFT)
        if not ok.all():
            keys = keys[ok]
        if len(keys) > 1:
            keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
        pieces = keys[self._pieces.add(keys)]
        if not len(pieces):
            return
        up = np.uint64(self._page_shift - self._shift)
        known = self.page_faults if up else len(self._pieces) - len(pieces)
        seen = self._pages if up else self._pieces
        numbers = _upper(pieces, up)
        fresh = self._pages.add(numbers) if up else np.arange(len(pieces))
        pages = numbers[fresh]
        if len(seen) > _DATA_END - _DATA >> self._page_shift:
            raise FrameExhaustedError("the trace touches more than 128 TiB")
        first = np.uint64(_DATA) + (np.uint64(known) << np.uint64(self._page_shift))
        pas = first + (np.arange(len(pages), dtype=np.uint64) << np.uint64(self._page_shift))
        owners = pages >> np.uint64(_SPACE_SHIFT)
        if self.nested_tables is not None:
            data = pas
            if up:
                offsets = (pieces & ((np.uint64(1) << up) - np.uint64(1))) << np.uint64(self._shift)
                data = seen.places(numbers) << np.uint64(self._page_shift)
                data += np.uint64(_DATA) + offsets
            tables = np.zeros(len(pieces), np.intp)
            tables[fresh] = self._new_tables(pages)
            self._back(self._in_order(data, tables, pieces))
        starts = (pages & np.uint64(_NUMBER)) << (np.uint64(self._page_shift) + unused)
        starts = (starts.view(np.int64) >> unused.astype(np.int64)).view(np.uint64)
        for space in np.unique(owners):
            own = owners == space
            self.tables[int(space)].map(
                starts[own], pas[own], page_shift=self._page_shift, rights="rwxu"
            )

    def _new_tables(self, pages: U64) -> npt.NDArray[np.intp]:
        """How many tables each of new pages needs that those before it have not made."""
        result = np.zeros(len(pages), np.intp)
        leaf = (self._page_shift - 12) // 9 + 1
        for level in range(leaf, self._levels):
            # a table of this level serves all pages that agree from the entry above on
            branches = _upper(pages, np.uint64(9 * (level - leaf + 1)))
            branches |= np.uint64(level) << np.uint64(_SPACE_SHIFT - 4)
            result[self._branches.add(branches)] += 1
        return result

    def _in_order(self, data: U64, tables: npt.NDArray[np.intp], pieces: U64) -> U64:
        """Guest-physical addresses in the order of first touch: new tables, then the data."""
        ends = np.cumsum(tables + 1)
        result = np.empty(int(ends[-1]), np.uint64)
        is_table = np.ones(len(result), bool)
        is_table[ends - 1] = False
        result[ends - 1] = data
        owners = np.repeat(pieces >> np.uint64(_SPACE_SHIFT), tables)
        frames = np.empty(len(owners), np.uint64)
        for space in np.unique(owners):
            own = owners == space
            first = int(space) * _SPAN + 0x1000 * (1 + self.tables[int(space)].tables_used)
            count = int(np.count_nonzero(own))
            frames[own] = np.uint64(first) + np.arange(count, dtype=np.uint64) * np.uint64(0x1000)
        result[is_table] = frames
        return result

    def _back(self, gpas: U64) -> None:
        """Map the host pages of guest-physical addresses that have none, in their order."""
        assert self.nested_tables is not None
        shift = np.uint64(self._host_shift)
        numbers = gpas >> shift
        known = len(self._backed)
        numbers = numbers[self._backed.add(numbers)]
        if not len(numbers):
            return
        pas = np.arange(known, known + len(numbers), dtype=np.uint64) << shift
        self.nested_tables.map(
            numbers << shift,
            np.uint64(_BACKING) + pas,
            page_shift=self._host_shift,
            rights="rwx" if self._format == "ept" else "rwxu",
        )


def _upper(keys: U64, low: np.uint64) -> U64:
    """Drop low bits of the page number in keys; the address space stays."""
    space = keys & ~np.uint64(_NUMBER)
    result: U64 = (keys & np.uint64(_NUMBER)) >> low | space
    return result


def _shift(page: object, name: str) -> int:
    if not isinstance(page, str) or page not in _SHIFTS:
        raise InvalidValueError(f"{name} must be one of {', '.join(PAGES)}, got {page!r:.80}")
    return _SHIFTS[page]


def _four_or_five(value: SupportsIndex, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InvalidTypeError(f"{name} must be 4 or 5, got {value!r:.80}") from error
    if number not in (4, 5):
        raise InvalidValueError(f"{name} must be 4 or 5, got {number}")
    return number

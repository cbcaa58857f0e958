"""Seeded streams that mix accesses with edits of page tables, at given rates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt._core.builder import PageTables
from pyvirt._core.dtypes import EVENT_DTYPE
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.memory import PhysicalMemory

__all__ = ["Mix", "MixedGuest"]

Events: TypeAlias = npt.NDArray[Any]

MIB = 1 << 20
#: The program's pages begin here, and the kernel has all memory mapped from there, by 2 MiB.
USER, DIRECT = 0x10000000000, 0xFFFF888000000000
TABLES = 2 * MIB
#: Accesses drawn at a time: the stream does not depend on how it is asked for.
BLOCK = 1 << 14

# Operations and bits of `arg`, as `pyvirt.traces.Op` and `Arg` have them.
LOAD, STORE, INVLPG = 1, 2, 19
AS_USER, GIVEN, HANDLER = 1, 1 << 4, 1 << 10
ENTRY = 0x7  # present, writable, user
LARGE = 0x80
SHIFTS = {"4K": 12, "2M": 21}


@dataclass(frozen=True, slots=True)
class Mix:
    """What a program and its kernel do, as rates.

    Parameters
    ----------
    pages : int, default 16384
        Resident pages.
    page : {"4K", "2M"}, default "4K"
        Their size.
    hot : int, default 32
        Pages that most accesses go to: few enough for any TLB.
    misses : float, default 0.05
        Share of the accesses that go to any page, each as likely: with many more pages than the
        TLB has entries, nearly all of them miss.
    updates : float, default 0
        Edits of the tables for each access. An edit takes a page away and gives it back at the
        next touch, as reclaim does, or MADV_DONTNEED: the kernel clears the entry and makes
        INVLPG; the program touches the page and faults; the handler writes the entry, with
        another frame, and the program goes on.
    stores : float, default 0.3
        Share of stores among the accesses.
    region : int, default 512
        Edits stay within so many pages that follow one another, and the region moves on after
        as many edits: kernels free and give in ranges. More than `pages` is all of them.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For rates that are not from 0 to 1, and numbers out of range.

    Examples
    --------
    >>> from pyvirt.mmu.mixes import Mix
    >>> guest = Mix(pages=1024, updates=0.01).guest()
    >>> sum(len(chunk) for chunk in guest.events(10_000, rng=1))
    10500
    """

    pages: int = 16384
    page: Literal["4K", "2M"] = "4K"
    hot: int = 32
    misses: float = 0.05
    updates: float = 0.0
    stores: float = 0.3
    region: int = 512

    def __post_init__(self) -> None:
        for name in ("misses", "updates", "stores"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InvalidTypeError(f"{name} must be a number, got {value!r:.80}")
            if not 0 <= float(value) <= 1:
                raise InvalidValueError(f"{name} must be from 0 to 1, got {value}")
        if self.page not in SHIFTS:
            raise InvalidValueError(f'page must be "4K" or "2M", got {self.page!r:.80}')
        most = 1 << 34 - SHIFTS[self.page]
        for name, end in (("pages", most), ("hot", self.pages), ("region", most)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise InvalidTypeError(f"{name} must be an int, got {value!r:.80}")
            if not 1 <= value <= end:
                raise InvalidValueError(f"{name} must be from 1 to {end}, got {value}")

    def guest(self) -> MixedGuest:
        """Make the machine that the streams run on."""
        return MixedGuest(self)


class MixedGuest:
    """A guest's memory with its tables, and streams for it.

    Attributes
    ----------
    mix : Mix
        What it was made for; the memory depends on ``pages`` and ``page`` alone.
    memory : PhysicalMemory
        At the start. `pyvirt.compare` leaves it as it is; an engine that runs on it does not.
    cr3 : int
        Root of the tables.
    """

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self._shift = SHIFTS[mix.page]
        size = mix.pages << self._shift
        # each page has two frames, so that an edit can give another one
        self._data = _up(TABLES + (mix.pages >> 6) * 4096 + 4 * MIB)
        end = _up(self._data + 2 * size)
        self.memory = PhysicalMemory(end)
        tables = PageTables(self.memory, frames=(TABLES, self._data - TABLES))
        tables.map_range(USER, self._data, size, rights="rwu", page_shift=self._shift)
        tables.map_range(DIRECT, 0, end, rights="rw", page_shift=21)
        self.cr3 = tables.root
        self._entries = self._addresses()

    def _addresses(self) -> npt.NDArray[np.uint64]:
        """Find where the entry of each page lies."""
        last = 1 if self.mix.page == "4K" else 2
        per_table = np.arange(512, dtype=np.uint64) * np.uint64(8)
        parts = []
        for page in range(0, self.mix.pages, 512):
            address, table = USER + (page << self._shift), self.cr3
            for level in range(4, last, -1):
                index = address >> (3 + 9 * level) & 511
                table = self.memory.read_u64(table + 8 * index) & 0xFFFFFFFFFF000
            parts.append(np.uint64(table) + per_table)
        return np.concatenate(parts)[: self.mix.pages]

    def before(self) -> Events:
        """Touch every spare frame and every page once, by a store.

        What is measured after that is a machine that has run for a while: the host has given it
        all of its memory, and the TLBs hold pages of the program.
        """
        pages = np.arange(self.mix.pages, dtype=np.uint64)
        spare = (pages + np.uint64(self.mix.pages)) << np.uint64(self._shift)
        events = np.zeros(2 * self.mix.pages, EVENT_DTYPE)
        events["op"], events["size"] = STORE, 8
        events["addr"] = np.concatenate([np.uint64(DIRECT + self._data) + spare, self._va(pages)])
        events["arg"][self.mix.pages :] = AS_USER
        return events

    def events(self, accesses: int, *, rng: Any = None) -> Iterator[Events]:
        """Draw a stream.

        Parameters
        ----------
        accesses : int
            Accesses of the program, without what edits add.
        rng : int, SeedSequence or Generator, optional
            Seed; None is 0.

        Yields
        ------
        ndarray of EVENT_DTYPE
            Chunks. The same seed gives the same stream.
        """
        if isinstance(accesses, bool) or not isinstance(accesses, int | np.integer):
            raise InvalidTypeError(f"accesses must be an int, got {accesses!r:.80}")
        if accesses < 0:
            raise InvalidValueError(f"accesses must be >= 0, got {accesses}")
        generator = np.random.default_rng(0 if rng is None else rng)
        phase = float(generator.random())
        for start in range(0, int(accesses), BLOCK):
            yield self._block(generator, start, min(BLOCK, int(accesses) - start), phase)

    def _block(self, rng: np.random.Generator, start: int, n: int, phase: float) -> Events:
        """Draw some accesses, and the edits between them, which come at even distances."""
        mix = self.mix
        cold = rng.random(n) < mix.misses
        pages = np.where(cold, rng.integers(0, mix.pages, n), rng.integers(0, mix.hot, n))
        stores = rng.random(n) < mix.stores
        offsets = rng.integers(0, 512, n).astype(np.uint64) << np.uint64(3)
        numbers = np.floor(np.arange(start, start + n + 1) * mix.updates + phase).astype(np.int64)
        edited = numbers[1:] > numbers[:-1]
        # the edit comes before its access
        at = np.arange(n) + 5 * np.cumsum(edited)
        events = np.zeros(n + 5 * int(edited.sum()), EVENT_DTYPE)
        events["op"][at] = np.where(stores, STORE, LOAD)
        events["addr"][at] = self._va(pages.astype(np.uint64)) | offsets
        events["arg"][at] = AS_USER
        self._edit(events, at[edited] - 5, numbers[:-1][edited], rng)
        events["size"] = np.where(events["op"] == INVLPG, 0, 8)
        return events

    def _edit(self, events: Events, at: Any, number: Any, rng: np.random.Generator) -> None:
        """Write the five events of each edit, by its number in the stream."""
        region = min(self.mix.region, self.mix.pages)
        base = number // region * region % self.mix.pages
        page = ((base + rng.integers(0, region, len(at))) % self.mix.pages).astype(np.uint64)
        frame = page + np.uint64(self.mix.pages) * (number & 1).astype(np.uint64)
        entry = np.uint64(self._data) + (frame << np.uint64(self._shift))
        entry |= np.uint64(ENTRY | (LARGE if self.mix.page == "2M" else 0))
        where = np.uint64(DIRECT) + self._entries[page.astype(np.int64)]
        va = self._va(page)
        for step, (op, addr, value, arg) in enumerate(
            (
                (STORE, where, 0, GIVEN),
                (INVLPG, va, 0, 0),
                (STORE, va, 0, AS_USER),
                (STORE, where, entry, GIVEN | HANDLER),
                (STORE, va, 0, AS_USER | HANDLER),
            )
        ):
            events["op"][at + step] = op
            events["addr"][at + step] = addr
            events["value"][at + step] = value
            events["arg"][at + step] = arg

    def _va(self, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        return np.uint64(USER) + (pages << np.uint64(self._shift))


def _up(address: int) -> int:
    """Round up to a multiple of 2 MiB."""
    return math.ceil(address / (2 * MIB)) * 2 * MIB

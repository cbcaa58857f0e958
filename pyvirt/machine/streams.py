"""A virtual machine's address stream as a sample that the MMU can run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt import traces
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.guest.workloads import WORKLOADS, Workload
from pyvirt.mmu.faulting import FaultingGuest
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.spec import VMSpec

__all__ = ["PATTERNS", "Sample", "Stream", "described"]

PATTERNS = ("sequential", "stride", "uniform", "zipf")
MIB = 1 << 20
PAGE = 4096
#: Where a pattern's addresses begin: in the lower half, clear of page 0.
BASE = 1 << 32
#: Memory of the guest of a named workload, which fills much of it before it is measured.
LEAST, MOST = 64 * MIB, 1 << 30
#: Events in which a page comes to be mapped: the fault, its handler, tables and the clearing.
EVENTS_A_PAGE = 16
CHUNK = 1 << 16

Events = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """The addresses that a guest touches, of which a sample is measured.

    Attributes
    ----------
    kind : str
        ``sequential``, ``stride``, ``uniform`` or ``zipf`` addresses; ``trace``; or a workload of
        `pyvirt.guest.Workload`, with its processes and its page tables' changes.
    footprint : int
        Bytes among which a pattern goes; for a workload the guest's memory, within 64 MiB to 1 GiB.
    stride : int
        Bytes from one address to the next (``stride``; ``sequential`` has 8).
    exponent : float
        Of Zipf's law over pages, whose order is drawn.
    stores : float
        Part of a pattern's accesses that write.
    file : str
        A trace that `pyvirt.traces.open` reads.
    seed : int
        Of a pattern or workload.
    sample : int
        Events that are counted, after as many as it takes to have every page mapped.
    """

    kind: str
    footprint: int = 256 * MIB
    stride: int = PAGE
    exponent: float = 1.0
    stores: float = 0.3
    file: str = ""
    seed: int = 0
    sample: int = 100_000

    def __post_init__(self) -> None:
        kinds = (*PATTERNS, "trace", *WORKLOADS)
        if self.kind not in kinds:
            raise InvalidValueError(
                f"kind must be one of {', '.join(kinds)}, got {self.kind!r:.80}"
            )
        if (self.kind == "trace") != bool(self.file):
            raise InvalidValueError(
                'file must name a trace where kind is "trace", and only there, '
                f"got {self.file!r:.80}"
            )
        for name, least, most in (
            ("footprint", 1, 1 << 46),
            ("stride", 1, 1 << 40),
            ("seed", 0, 1 << 63),
            ("sample", 1, 1 << 32),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidTypeError(f"{name} must be an integer, got {value!r:.80}")
            if not least <= value <= most:
                raise InvalidValueError(f"{name} must be in [{least}, {most}], got {value}")
        for name, end in (("exponent", 100.0), ("stores", 1.0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise InvalidTypeError(f"{name} must be a number, got {number!r:.80}")
            if not 0 <= number <= end:
                raise InvalidValueError(f"{name} must be in [0, {end:g}], got {number}")

    def make(self, page: str = "4K") -> Sample:
        """Give the sample: a guest's memory, its registers, and events.

        Parameters
        ----------
        page : {"4K", "2M"}
            Pages of the guest itself, for patterns and traces.
        """
        if self.kind in WORKLOADS:
            return self._workload()
        guest = FaultingGuest("2M" if page == "2M" else "4K")
        if self.kind == "trace":
            return Sample(guest.memory, {"cr3": guest.cr3}, (), self._traced(guest))
        addresses, kinds = self._pattern()
        accesses = traces.accesses(addresses, kinds, 8)
        pages = np.unique(addresses >> np.uint64(12)) << np.uint64(12)
        first = traces.accesses(pages, traces.Op.STORE, 8)
        served = guest.serve([first, accesses])
        # the guest hands chunks on; the pages' first touches are the first of what it gives
        return Sample(guest.memory, {"cr3": guest.cr3}, *_split(served, len(accesses)))

    def _workload(self) -> Sample:
        size = min(max(self.footprint, LEAST), MOST) // MIB * MIB
        before = size // PAGE * EVENTS_A_PAGE
        chunk = min(CHUNK, self.sample)
        stream = Workload(
            self.kind,
            PhysicalMemory(size),
            events=before + self.sample,
            chunk=chunk,
            rng=self.seed,
        )
        chunks = iter(stream)
        first = itertools.islice(chunks, before // chunk)
        return Sample(stream.boot_memory(), stream.initial._asdict(), first, chunks)

    def _traced(self, guest: FaultingGuest) -> Iterator[Events]:
        left = self.sample
        with traces.open(self.file) as reader:
            for chunk in guest.serve(reader):
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return

    def _pattern(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        rng = np.random.default_rng(self.seed)
        count = int(self.sample)
        words = max(1, int(self.footprint) // 8)
        pages = max(1, int(self.footprint) // PAGE)
        if self.kind == "uniform":
            offsets = rng.integers(0, words, count, dtype=np.uint64) * np.uint64(8)
        elif self.kind == "zipf":
            ranks = _zipf(rng, pages, float(self.exponent), count)
            offsets = _scatter(ranks, pages) * np.uint64(PAGE)
            offsets += rng.integers(0, 512, count, dtype=np.uint64) * np.uint64(8)
        else:
            step = 8 if self.kind == "sequential" else int(self.stride)
            places = np.arange(count, dtype=np.uint64) * np.uint64(step)
            offsets = places % np.uint64(words * 8) & ~np.uint64(7)
        kinds = np.full(count, int(traces.Op.LOAD), np.uint64)
        kinds[rng.random(count) < self.stores] = int(traces.Op.STORE)
        return np.uint64(BASE) + offsets, kinds


@dataclass(frozen=True, slots=True)
class Sample:
    """What `pyvirt.compare` takes.

    Attributes
    ----------
    memory : PhysicalMemory
        The guest's at the start.
    initial : dict
        Its registers.
    before, events : iterable of arrays
        What fills tables and caches, and what is counted.
    """

    memory: Any
    initial: dict[str, Any]
    before: Any
    events: Any


def _split(chunks: Iterator[Events], last: int) -> tuple[list[Events], list[Events]]:
    """Divide events where the last so many accesses of the program begin.

    Where every page is mapped, the guest passes accesses on as they are, one event each.
    """
    whole = np.concatenate(list(chunks))
    return [whole[:-last]], [whole[-last:]]


def _zipf(
    rng: np.random.Generator, pages: int, exponent: float, count: int
) -> npt.NDArray[np.uint64]:
    """Draw ranks from 0, of which rank r has a part like (r + 1)**-exponent."""
    most = min(pages, 1 << 22)
    below = np.cumsum(np.arange(1, most + 1, dtype=np.float64) ** -exponent)
    return np.searchsorted(below, rng.random(count) * below[-1], side="right").astype(np.uint64)


def _scatter(ranks: npt.NDArray[np.uint64], pages: int) -> npt.NDArray[np.uint64]:
    """Put ranks in another order, one to one: popular pages are not neighbours."""
    factor = 2654435761
    while np.gcd(factor, pages) != 1:
        factor += 2
    return ranks * np.uint64(factor) % np.uint64(pages)


def described(spec: VMSpec, seed: int = 0) -> Stream:
    """Give the stream of a machine's workload.

    Parameters
    ----------
    spec : VMSpec
        With a workload that has addresses.
    seed : int
        For a stream without one of its own.
    """
    load = None if spec.workload is None else spec.workload.addresses
    if spec.workload is None or load is None:
        raise InvalidValueError(f"VM {spec.name!r:.80} must have a workload with addresses")
    memory = spec.workload.memory
    footprint = load.footprint or memory.active
    if footprint is None and memory.active_fraction:
        footprint = int(memory.active_fraction * spec.memory)
    return Stream(
        load.kind,
        max(1, footprint or spec.memory_active or spec.memory or 256 * MIB),
        load.stride,
        load.exponent,
        load.stores,
        load.file,
        seed if load.seed is None else load.seed,
    )

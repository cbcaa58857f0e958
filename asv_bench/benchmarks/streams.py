"""Address streams, and the page tables that they walk.

Four seeded streams of 10 M addresses in 4 KiB pages, by what bounds a simulator of a 64/4 + 1536/12
TLB: ``zipf48`` (all hits in L1), ``zipf1k`` (half of the hits in L2), ``zipf64k`` (43 % walks) and
``uni64G`` (all walks). ``trace`` is the recorded program that ships with the examples, repeated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pyvirt as pv

COUNT = 10_000_000
"""Addresses in a stream: 180 MB of input and output, far more than a core's caches."""

# In the order of the draws: each takes from the same generator. "zipf16M" is drawn, not used.
ZIPF = {"zipf48": 48, "zipf1k": 1024, "zipf64k": 1 << 16, "zipf16M": 1 << 24}
SCORED = ["zipf48", "zipf1k", "zipf64k", "uni64G"]
NAMES = [*SCORED, "trace"]
GIB = 1 << 30
SPAN = 64 * GIB
"""All seeded streams lie in [0, SPAN)."""

_TRACES = Path(__file__).resolve().parents[2] / "docs" / "examples" / "data"
_SUFFIXES = (".npy", ".lackey", ".din", ".xz", ".gz", ".bz2", ".zst")


class Counts(NamedTuple):
    """What an exact LRU simulation of the stream counts, starting empty."""

    l1_hits: int
    l2_hits: int
    misses: int


# pycachesim, DynamoRIO's TLB simulator and the C loop agree on these, with the draws of NumPy 2.
EXPECTED = {
    "zipf48": Counts(COUNT - 48, 0, 48),
    "zipf1k": Counts(4_772_522, 5_226_454, COUNT - 4_772_522 - 5_226_454),
    "zipf64k": Counts(2_597_235, 3_110_713, COUNT - 2_597_235 - 3_110_713),
    "uni64G": Counts(34, 849, COUNT - 34 - 849),
}


def draw(directory: Path) -> dict[str, str]:
    """Write all streams there are into `directory`; return the files by name of stream."""
    files = {}

    def keep(name: str, vas: np.ndarray) -> None:
        files[name] = str(directory.resolve() / f"{name}.npy")
        np.save(files[name], vas)

    rng = np.random.default_rng(12345)
    for name, pages in ZIPF.items():
        uniform = rng.random(COUNT)
        order = rng.permutation(pages)
        words = rng.integers(0, 512, COUNT)
        if name not in SCORED:
            continue
        weight = 1 / np.arange(1, pages + 1) ** 1.0
        rank = np.searchsorted(np.cumsum(weight) / weight.sum(), uniform)
        keep(name, ((order[rank] << 12) + (words << 3)).astype(np.uint64))
    page = rng.integers(0, 1 << 24, COUNT)
    keep("uni64G", ((page << 12) + (rng.integers(0, 512, COUNT) << 3)).astype(np.uint64))

    recorded = recorded_trace()
    if recorded is not None:
        keep("trace", np.resize(recorded, max(COUNT, len(recorded))))
    return files


def recorded_trace() -> np.ndarray | None:
    """Addresses of the trace that ships with the examples; None if there is none."""
    if not _TRACES.is_dir():
        return None
    try:
        from pyvirt import traces
    except ImportError:
        return None
    for file in sorted(_TRACES.iterdir()):
        if file.is_file() and file.name.endswith(_SUFFIXES):
            events = traces.read(file)
            return events["addr"][traces.is_access(events)].astype(np.uint64)
    return None


@dataclass
class Tables:
    """Four levels of tables for a stream: in simulated memory, and as one flat array for C."""

    memory: pv.PhysicalMemory
    flat: np.ndarray
    """The bytes of [0, len(flat)) of physical memory: all tables."""
    root: int
    """CR3; guest-physical in a nested set."""
    host_root: int
    """Of the nested tables, 0 in a native set."""
    guest_base: int
    """What to add to a guest-physical address for the host-physical one; 0 in a native set."""
    data_pa: int
    """Where va 0 of a seeded stream lies in (host-)physical memory."""
    mapped: int
    build_s: float

    # Tables lie at the bottom, data above. A nested set has the host's tables in the first TABLES
    # bytes and the guest's in the second; guest-physical addresses have the data first.
    TABLES = 192 << 20
    DATA = 64 * GIB

    @classmethod
    def build(cls, vas: np.ndarray, nested: bool = False) -> Tables:
        """Map [0, SPAN) if the stream lies in there, else the pages that it touches.

        A and D are set at all levels, so that no walk has anything to write (nor a host access to
        make for it).
        """
        whole = int(vas.max()) < SPAN
        memory = pv.PhysicalMemory(2 * cls.DATA)
        began = time.process_time()
        outer, host_root, base, start, frames = None, 0, 0, cls.DATA, (0, cls.TABLES)
        if nested:
            host = pv.PageTables(memory, format="ept", frames=frames)
            host.map_range(0, cls.DATA, SPAN)
            host.map_range(SPAN, cls.TABLES, cls.TABLES)
            outer, host_root = host.walker(), host.root
            base, start, frames = cls.DATA, 0, (SPAN, cls.TABLES)
        tables = pv.PageTables(memory, frames=frames, outer=outer)
        if whole:
            tables.map_range(0, start, SPAN, attrs=0x60)
            mapped = SPAN
        else:
            pages = np.unique(vas >> np.uint64(12)) << np.uint64(12)
            frame = start + (np.arange(len(pages), dtype=np.uint64) << np.uint64(12))
            tables.map(pages, frame, attrs=0x60)
            mapped = len(pages) << 12
        build_s = time.process_time() - began
        _set_accessed(memory, tables.root, cls.TABLES - SPAN if nested else 0)
        flat = np.zeros(2 * cls.TABLES if nested else cls.TABLES, dtype=np.uint8)
        held = memory.frames()
        for first in _runs(held):
            pa, size = int(first[0]), len(first) << 12
            flat[pa : pa + size] = np.frombuffer(memory.read(pa, size), dtype=np.uint8)
        return cls(memory, flat, tables.root, host_root, base, cls.DATA, mapped, build_s)

    @property
    def nested(self) -> bool:
        return self.host_root != 0


def _set_accessed(memory: pv.PhysicalMemory, root: int, offset: int) -> None:
    """Set A in the entries that lead to tables; `offset` from their addresses to `memory`'s."""
    slots = np.arange(0, 4096, 8, dtype=np.int64)
    tables = np.array([root], dtype=np.int64)
    for _level in (4, 3, 2):
        pas = (tables[:, None] + offset + slots).ravel().astype(np.uint64)
        entries = memory.read_batch(pas, np.uint64)
        pas, entries = pas[entries != 0], entries[entries != 0]
        memory.write_batch(pas, entries | np.uint64(0x20))
        tables = (entries & np.uint64(0x000F_FFFF_FFFF_F000)).astype(np.int64)


def _runs(frames: np.ndarray) -> list[np.ndarray]:
    """Split sorted frame addresses where one does not follow the other."""
    return np.split(frames, np.flatnonzero(np.diff(frames) != 4096) + 1)

"""A11: what paging-structure caches and a nested TLB save of a nested walk's references.

A guest with four-level tables runs under a four-level EPT. Without caches each of its walks
reads 24 entries. With the reference geometry the mean must come to between 4 and 9 on both
streams (the published mean of a commercial workload is 4.4), must not grow when all walk caches
grow, and must be strictly smaller where the host backs the guest with 2 MiB pages. Counts come
from running the MMU over real tables; nothing is computed from the geometry.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from pyvirt._core.builder import PageTables
from pyvirt.mmu import presets
from pyvirt.mmu.geometry import Cache, Geometry, WalkCache
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.mmu import MMU
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.streams import U64, uniform, zipf
from pyvirt.validation.tally import Tally

__all__ = ["walk_caches"]

GIB = 1 << 30
#: Footprint in pages; a function that draws it.
STREAMS = {"zipf64k": (1 << 16, zipf), "uniform": (1 << 24, uniform)}
SEED, COUNT = 12345, 1_000_000
#: Without caches fewer walks show the same: each reads as many entries as any other.
PLAIN_COUNT = 20_000
BRACKET = (4.0, 9.0)
WITHOUT = 24
#: All walk caches of the reference geometry, this many times as large (ways kept where sets are).
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)

#: Guest-physical memory ends here; the guest's tables follow its data.
GUEST_TABLES = (64 * GIB, GIB)
GUEST_END = 65 * GIB
HOST_SHIFT = 128 * GIB
HOST_TABLES = (256 * GIB, GIB)
RAM = 257 * GIB


class Machine:
    """A guest whose pages lie in guest-physical memory in order, and its backing.

    Parameters
    ----------
    pages : int
        4 KiB pages of the guest from address 0.
    host_shift : int
        Log2 of the host's page size.
    """

    def __init__(self, pages: int, host_shift: int) -> None:
        self.memory = PhysicalMemory(RAM)
        host = PageTables(self.memory, format="ept", frames=HOST_TABLES)
        data = (pages << 12) + (1 << host_shift) - 1 & -(1 << host_shift)
        for start, end in ((0, data), (GUEST_TABLES[0], GUEST_END)):
            host.map_range(start, start + HOST_SHIFT, end - start, page_shift=host_shift)
        guest = PageTables(self.memory, frames=GUEST_TABLES, outer=host.walker())
        guest.map_range(0, 0, pages << 12)
        self.cr3, self.nested_root = guest.root, host.root

    def references(self, vas: U64, geometry: Geometry) -> tuple[float, int]:
        """Run a stream; give the references of a walk on average, and the number of walks."""
        # A and D bits are left alone: setting them would count as further references.
        mmu: Any = MMU(
            "nested",
            self.memory,
            cr3=self.cr3,
            nested_root=self.nested_root,
            tlb=geometry,
            set_ad=False,
        )
        mmu.translate(vas)
        stats = mmu.stats()
        walks = int(stats["walks"].sum())
        references = int(stats["guest_refs"].sum()) + int(stats["host_refs"].sum())
        return references / max(walks, 1), walks


def scaled(geometry: Geometry, factor: float) -> Geometry:
    """Give the geometry with all walk caches and the nested TLB larger or smaller."""

    def cache(old: Cache) -> Cache:
        entries = max(round(old.entries * factor), 1)
        if old.ways == old.entries:
            return replace(old, entries=entries, ways=entries)
        return replace(old, entries=max(entries, old.ways))

    def walk(old: WalkCache | None) -> WalkCache | None:
        if old is None or isinstance(old.caches, Cache):
            return old
        return replace(old, caches={level: cache(c) for level, c in old.caches.items()})

    nested = geometry.nested_tlb
    return replace(
        geometry,
        guest=walk(geometry.guest),
        host=walk(geometry.host),
        nested_tlb=None if nested is None else cache(nested),
    )


def bare(geometry: Geometry) -> Geometry:
    """Give the geometry with TLBs only."""
    return replace(geometry, guest=None, host=None, nested_tlb=None)


@experiment("A11", "what walk caches and a nested TLB save of nested walks")
def walk_caches(context: Context) -> Outcome:
    """Count references per nested walk without caches, with them, larger, and on 2M pages."""
    return measure(context, COUNT)


def measure(context: Context, count: int) -> Outcome:
    """Run the experiment on streams of `count` addresses."""
    tally = Tally()
    reference = presets.load("reference")
    sentences = []
    for name, (pages, draw) in STREAMS.items():
        context.report(name)
        vas = draw(np.random.default_rng(SEED), pages, count)
        machine = Machine(pages, 12)
        plain, _ = machine.references(vas[:PLAIN_COUNT], bare(reference))
        tally.check(plain == WITHOUT, f"{name}: {plain:.3f} references without caches")
        means = [machine.references(vas, scaled(reference, scale))[0] for scale in SCALES]
        for smaller, larger in itertools.pairwise(means):
            tally.check(larger <= smaller, f"{name}: {means} are not monotone")
        tally.check(means[-1] < means[0], f"{name}: larger caches save nothing: {means}")
        usual = means[SCALES.index(1.0)]
        low, high = BRACKET
        tally.check(low <= usual <= high, f"{name}: {usual:.2f} references a walk")
        del machine
        huge, _ = Machine(pages, 21).references(vas, reference)
        tally.check(huge < usual, f"{name}: {huge:.2f} with 2M host pages, {usual:.2f} without")
        sizes = ", ".join(f"{mean:.2f}" for mean in means)
        sentences.append(
            f"{name} {plain:g} to {usual:.2f}; sizes {SCALES[0]:g} to {SCALES[-1]:g}: {sizes}; "
            f"2M host pages {huge:.2f}"
        )
    return tally.outcome(
        "A11",
        sentences=(
            f"{WITHOUT} to {BRACKET[0]:g}..{BRACKET[1]:g} on both streams, "
            "falling with size, less with 2M host pages",
            "; ".join(sentences),
        ),
        note="published mean 4.4",
    )

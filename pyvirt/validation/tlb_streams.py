"""A7: hits of a two-level TLB on seeded streams, against figures that three programs agree on.

The figures were counted by pycachesim (a cache simulator), by DynamoRIO's TLB simulator and by
a loop in C; the streams are drawn again here. Where pycachesim is installed it also runs.
"""

from __future__ import annotations

import importlib
from typing import Any

from pyvirt.mmu.mmu import MMU
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.streams import U64, changed, streams
from pyvirt.validation.tally import Tally

__all__ = ["tlb_streams"]

#: Hits of level 1, hits of level 2, misses; None where no figure is published.
GOLDEN: dict[str, tuple[int | None, int | None, int | None]] = {
    "zipf48": (None, None, 48),
    "zipf1k": (4_772_522, 5_226_454, None),
    "zipf64k": (2_597_235, 3_110_713, None),
    "uniform": (34, 849, None),
}
NAMES = ("L1 hits", "L2 hits", "misses")
#: (sets, ways) of the two levels.
LEVELS = ((16, 4), (128, 12))
BLOCK = 1 << 20


def simulate(vas: U64) -> tuple[int, int, int]:
    """Run a stream through the preset, and give hits of both levels and misses."""
    mmu: Any = MMU("tlb-only", tlb="reference")
    for start in range(0, len(vas), BLOCK):
        mmu.translate(vas[start : start + BLOCK])
    stats = mmu.stats()
    hits = stats["tlb_hits"].sum(axis=-1)
    return int(hits[0]), int(hits[1]), int(stats["walks"].sum())


def pycachesim(vas: U64) -> tuple[int, int, int] | None:
    """Run a stream through pycachesim's caches with lines of one page; None: not installed."""
    try:
        cachesim: Any = importlib.import_module("cachesim")
    except ImportError:
        return None
    memory = cachesim.MainMemory()
    (sets1, ways1), (sets2, ways2) = LEVELS
    second = cachesim.Cache("L2", sets2, ways2, 4096, "LRU")
    first = cachesim.Cache("L1", sets1, ways1, 4096, "LRU", store_to=second, load_from=second)
    memory.load_to(second)
    memory.store_from(second)
    simulator = cachesim.CacheSimulator(first, memory)
    for start in range(0, len(vas), BLOCK):
        simulator.load(vas[start : start + BLOCK].tolist())
    found = {level["name"]: level for level in simulator.stats()}
    hits = found["L1"]["HIT_count"], found["L2"]["HIT_count"]
    return int(hits[0]), int(hits[1]), int(found["L2"]["MISS_count"])


@experiment("A7", "TLB hits on the seeded streams")
def tlb_streams(context: Context) -> Outcome:
    """Count hits and misses of the reference TLB on each scored stream."""
    tally = Tally()
    expected, measured, live = [], [], 0
    for name, vas in streams():
        if changed(name, vas):
            tally.missing(f"{name}: this NumPy draws another stream than the figures belong to")
            continue
        context.report(name)
        counts = simulate(vas)
        shown = [i for i, figure in enumerate(GOLDEN[name]) if figure is not None]
        for i in shown:
            tally.check(counts[i] == GOLDEN[name][i], f"{name}: {counts[i]:,} {NAMES[i]}")
        expected.append(_sentence(name, GOLDEN[name], shown))
        measured.append(_sentence(name, counts, shown))
        tally.check(sum(counts) == len(vas), f"{name}: {sum(counts):,} of {len(vas):,} counted")
        peer = pycachesim(vas)
        if peer is not None:
            live += 1
            tally.check(peer == counts, f"{name}: pycachesim counts {peer}, not {counts}")
    if not live:
        tally.missing("pycachesim is not installed")
    if not tally.cases:
        return tally.outcome("A7")
    return tally.outcome(
        "A7",
        sentences=("; ".join(expected), "; ".join(measured)),
        note=f"pycachesim agrees on {live} streams" if live and not tally.failed else "",
    )


def _sentence(name: str, counts: tuple[int | None, ...], shown: list[int]) -> str:
    return f"{name} " + " / ".join(f"{counts[i]:,} {NAMES[i]}" for i in shown)

"""Live against pycachesim: the same hits and misses of two LRU levels on random streams."""

from __future__ import annotations

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray
from pyvirt.validation import streams

cachesim = pytest.importorskip("cachesim", reason="pycachesim is not installed")

SHAPES = [((16, 4), (128, 12)), ((1, 64), (64, 8)), ((4, 1), (16, 2)), ((32, 2), (256, 16))]


def peer(vas: np.ndarray, policy: str, first: tuple[int, int], second: tuple[int, int]) -> list:
    memory = cachesim.MainMemory()
    l2 = cachesim.Cache("L2", *second, 4096, policy)
    l1 = cachesim.Cache("L1", *first, 4096, policy, store_to=l2, load_from=l2)
    memory.load_to(l2)
    memory.store_from(l2)
    simulator = cachesim.CacheSimulator(l1, memory)
    simulator.load(vas.tolist())
    found = {level["name"]: level for level in simulator.stats()}
    return [found["L1"]["HIT_count"], found["L2"]["HIT_count"], found["L2"]["MISS_count"]]


def ours(vas: np.ndarray, policy: str, first: tuple[int, int], second: tuple[int, int]) -> list:
    arrays = tuple(
        TlbArray(f"l{i}", i, Cache(sets * ways, ways, policy))
        for i, (sets, ways) in enumerate((first, second), 1)
    )
    mmu = pv.MMU("tlb-only", tlb=Geometry("peer", arrays))
    mmu.translate(vas)
    stats = mmu.stats()
    hits = stats["tlb_hits"].sum(axis=-1).tolist()
    return [*hits[:2], int(stats["walks"].sum())]


@pytest.mark.parametrize("policy", ["lru", "fifo"])
@pytest.mark.parametrize(("first", "second"), SHAPES)
def test_equal_counts(policy: str, first: tuple[int, int], second: tuple[int, int]):
    rng = np.random.default_rng(42)
    for vas in (
        streams.zipf(rng, 1000, 200_000),
        streams.zipf(rng, 20_000, 200_000),
        streams.uniform(rng, 3000, 200_000),
    ):
        assert ours(vas, policy, first, second) == peer(vas, policy.upper(), first, second)

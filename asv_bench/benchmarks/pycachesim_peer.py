"""pycachesim as a two-level TLB: a cache whose lines are pages. Optional, and only measured beside.

It has no page tables: it counts hits and misses, and gives no addresses.
"""

from __future__ import annotations

import numpy as np

from .streams import Counts


class PyCacheSim:
    """The reference geometry, 64/4 + 1536/12 LRU, empty."""

    def __init__(self) -> None:
        try:
            import cachesim
        except ImportError as error:
            raise NotImplementedError(f"pycachesim is not installed ({error})") from error
        memory = cachesim.MainMemory()
        self._l2 = cachesim.Cache("L2", 128, 12, 4096, "LRU")
        self._l1 = cachesim.Cache("L1", 16, 4, 4096, "LRU", load_from=self._l2, store_to=self._l2)
        memory.load_to(self._l2)
        memory.store_from(self._l2)
        self._simulator = cachesim.CacheSimulator(self._l1, memory)
        self.load = self._simulator.load
        """Takes an address, or a list of them, which is its quickest batch."""
        self.load_builtin = self._simulator.first_level.load
        """What `load` calls for one address: the method of its C module, undocumented."""

    @property
    def counts(self) -> Counts:
        """Since it was made: it has no reset that empties the caches."""
        l1, l2 = self._l1.stats(), self._l2.stats()
        return Counts(l1["HIT_count"], l2["HIT_count"], l2["MISS_count"])


def boxed(vas: np.ndarray) -> list[int]:
    """The form it takes quickest, made outside the time."""
    return vas.tolist()

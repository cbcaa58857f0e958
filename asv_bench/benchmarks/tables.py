"""Building page tables: a guest's whole memory in 4K pages, and edits of large ranges."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import cache

import pyvirt as pv

from .timing import seconds, target, unit

GIB = 1 << 30
VA = 0x100000000000

# In a process of its own, so that the peak is that of the tables.
_TEBIBYTE = """
import json, resource, sys, time
import pyvirt as pv

def peak():
    if sys.platform == "linux":     # where ru_maxrss outlives an exec: the parent's is in it
        with open("/proc/self/status") as status:
            return next(int(s.split()[1]) for s in status if s.startswith("VmHWM")) * 1024
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib if sys.platform == "darwin" else kib * 1024

size, before = 1 << 40, peak()
tables = pv.PageTables(pv.PhysicalMemory(4 << 40), frames=(3 << 40, 4 << 30))
began = time.process_time()
tables.map_range(0x100000000000, 0, size)
took = time.process_time() - began
mapped = peak() - before
tables.unmap(0x100000000000, size, limit=1 << 30)
print(json.dumps([took, tables.tables_used * 4096, mapped, peak() - before]))
"""


@cache
def tebibyte() -> tuple[float, int, int, int]:
    """Seconds for 268 M pages; bytes of tables; what the process grew by to map, and to unmap."""
    if sys.platform == "win32":
        raise NotImplementedError("this system does not tell the peak of a process")
    done = subprocess.run(
        [sys.executable, "-c", _TEBIBYTE], capture_output=True, text=True, check=True
    )
    return tuple(json.loads(done.stdout))


class Tebibyte:
    """One call of `map_range` for 1 TiB in 4K pages, which takes 2 GiB of tables."""

    timeout = 600

    @target("<=", 10)
    @unit("s")
    def track_map_s(self):
        return tebibyte()[0]

    @target("<=", 1.05)
    @unit("times the tables' own size, to map")
    def track_memory(self):
        _, tables, mapped, _ = tebibyte()
        return mapped / tables

    @target("<=", 1.05)
    @unit("times the tables' own size, with unmap")
    def track_memory_of_unmap(self):
        _, tables, _, unmapped = tebibyte()
        return unmapped / tables


class Edits:
    """16 GiB in 4K pages: in tables of a machine, and of a guest, which lie in nested pages."""

    timer = time.process_time
    params = ["native", "guest"]
    param_names = ["tables"]
    pages = 4 << 20

    def setup(self, where):
        self.memory = pv.PhysicalMemory(64 * GIB)
        self.outer = None
        if where == "guest":
            host = pv.PageTables(self.memory, format="ept", frames=(60 * GIB, GIB))
            host.map_range(32 * GIB, 32 * GIB, GIB)
            self.outer = host.walker()
        self.tables = pv.PageTables(self.memory, frames=(32 * GIB, GIB), outer=self.outer)
        self.map(self.tables)

    def map(self, tables, overwrite=False):
        tables.map_range(VA, 0, self.pages << 12, overwrite=overwrite)

    def per_page(self, call) -> float:
        return min(seconds(call) for _ in range(5)) / self.pages * 1e9

    @unit("ns for each page")
    def track_map(self, where):
        def fresh():
            frames = (40 * GIB, GIB) if self.outer is None else (32 * GIB + GIB // 2, GIB // 2)
            self.map(pv.PageTables(self.memory, frames=frames, outer=self.outer))

        return self.per_page(fresh)

    @unit("ns for each page")
    def track_map_over(self, where):
        return self.per_page(lambda: self.map(self.tables, overwrite=True))

    @unit("ns for each page")
    def track_protect(self, where):
        return self.per_page(lambda: self.tables.protect(VA, self.pages << 12, "rx", limit=1 << 30))

    @unit("ns for each page")
    def track_unmap_and_map(self, where):
        def both():
            self.tables.unmap(VA, self.pages << 12, limit=1 << 30)
            self.map(self.tables)

        return self.per_page(both)

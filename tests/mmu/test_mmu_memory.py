"""Streams of any length pass through an MMU in the memory of their first chunk."""

import json
import subprocess
import sys

import pytest

#: Bytes by which the peak may rise after the first chunk: the table of all 65,536 contexts that
#: there can be takes 1.5 MiB, two chunks of events exist at a time, and allocators are not exact.
#: A byte kept of each event would be 95 MiB.
SLACK = 6 << 20

COMMON = """
import json
import numpy as np
import pyvirt as pv

def peak():
    with open("/proc/self/status") as status:   # ru_maxrss outlives an exec: the parent's is in it
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10

draw = np.random.default_rng(1)
peaks = []
"""

ACCESSES = (
    COMMON
    + """
CHUNK, CHUNKS, PAGES = 4_000_000, 250, 1 << 17
memory = pv.PhysicalMemory(1 << 32)
tables = pv.PageTables(memory, frames=(0x1000, 1 << 24))
tables.map_range(1 << 40, 1 << 30, PAGES << 12)
mmu = pv.MMU("native", memory, cr3=tables.root, tlb="skylake-sp")
# a quarter of the accesses is anywhere, the rest on 64 pages: hits in each level, and walks
vas = draw.integers(0, 64 << 12, CHUNK, np.uint64)
vas[::4] = draw.integers(0, PAGES << 12, CHUNK // 4, np.uint64)
vas += np.uint64(1 << 40)
out = pv.Accesses.empty(CHUNK)
for i in range(CHUNKS):
    vas ^= np.uint64(int(draw.integers(PAGES)) << 12)   # other pages of the same range, in place
    mmu.translate(vas, "rw"[i & 1], out=out)
    assert out.pa.all()
    peaks.append(peak())
stats = mmu.stats()
done = int(stats["accesses"].sum())
print(json.dumps([done, done - int(stats["tlb_hits"].sum()), peaks]))
"""
)

EVENTS = (
    COMMON
    + """
from pyvirt.mmu.geometry import Cache
from pyvirt.traces import EVENT_DTYPE, Op

CHUNK, CHUNKS, PAGES = 50_000, 2000, 1 << 15
memory = pv.PhysicalMemory(1 << 34)
ept = pv.PageTables(memory, format="ept", frames=(1 << 33, 1 << 24))
ept.map_range(0, 1 << 32, 1 << 30, rights="rwx")
tables = pv.PageTables(memory, frames=(0x1000, 1 << 24), outer=ept.walker())
tables.map_range(1 << 40, 1 << 28, PAGES << 12, rights="rwxu")
mmu = pv.MMU(
    "nested", memory, cr3=tables.root, nested_root=ept.root, ept_ad=True, pml=True, vcpus=2,
    cr4=0x200B0, records=np.zeros(1000, pv.mmu.RECORD_DTYPE), data_cache=[Cache(4096, 16)],
)

def chunk():
    events = np.zeros(CHUNK, EVENT_DTYPE)
    events["op"] = draw.integers(1, 5, CHUNK)
    events["size"] = draw.choice(np.array([1, 4, 8, 64], np.uint8), CHUNK)
    events["vcpu"] = draw.integers(0, 2, CHUNK)
    pages = np.where(draw.random(CHUNK) < 0.9, 300, PAGES - 1)
    events["addr"] = (1 << 40) + draw.integers(0, pages << 12)
    few = CHUNK // 250
    events["op"][draw.integers(0, CHUNK, few)] = Op.INVLPG
    switched = draw.integers(0, CHUNK, few)
    events["op"][switched] = Op.MOV_CR3     # to any of all 4096 PCIDs
    events["value"][switched] = tables.root | draw.integers(0, 4096, few)
    moved = draw.integers(0, CHUNK, few // 10)
    events["op"][moved] = Op.VM_SWITCH
    events["arg"][moved] = draw.integers(1, 1000, few // 10)
    events["addr"][moved] = tables.root
    events["value"][moved] = ept.root
    return events

def chunks():
    for _ in range(CHUNKS):
        yield chunk()
        peaks.append(peak())

done = mmu.run(chunks())
stats = mmu.stats()
faults = int(stats["faults"].sum())
print(json.dumps([done, faults, peaks]))
"""
)


def run(script: str):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_billion_accesses():
    done, walks, peaks = run(ACCESSES)
    assert done == 10**9
    assert 10**8 < walks < 5 * 10**8
    print(f"{peaks[0] >> 10:,} KiB, then {peaks[-1] >> 10:,} KiB")
    assert peaks[-1] - peaks[0] <= SLACK


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_million_events():
    done, faults, peaks = run(EVENTS)
    assert done == 10**8
    assert faults == 0
    print(f"{peaks[0] >> 10:,} KiB, then {peaks[-1] >> 10:,} KiB")
    assert peaks[-1] - peaks[0] <= SLACK

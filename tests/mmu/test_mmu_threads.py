"""One MMU in many threads, and many MMUs over one memory: nothing torn, lost or stuck."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pyvirt import MMU, AddressSpace, PageTables, PhysicalMemory
from pyvirt._core.dtypes import EVENT_DTYPE, RECORD_DTYPE
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

PAGES = 4096
VA, PA = 0x4000_0000, 0x800_0000
THREADS, TASKS = 4, 16
SECONDS = 120
SMALL = Geometry(
    "small",
    (TlbArray("L1", 1, Cache(16, 4)), TlbArray("L2", 2, Cache(64, 8))),
    WalkCache("split", {2: Cache(4), 3: Cache(2), 4: Cache(2)}),
)


def native():
    """A memory and the root of tables for 4,096 pages, A and D clear."""
    memory = PhysicalMemory(1 << 28)
    tables = PageTables(memory, frames=(0x10_0000, 0x40_0000))
    tables.map_range(VA, PA, PAGES << 12, rights="rw")
    return memory, tables.root


def nested():
    """The same pages by a guest's tables and NPT."""
    memory = PhysicalMemory(1 << 28)
    outer = PageTables(memory, format="npt", frames=(0x1000, 0x40_0000))
    outer.map_range(0, PA, 0x400_0000)
    guest = PageTables(memory, frames=(0x200_0000, 0x40_0000), outer=outer.walker())
    guest.map_range(VA, 0, PAGES << 12, rights="rw")
    return memory, guest.root, outer.root


def in_threads(work, count=TASKS):
    """Run `work(number)` in some threads; its results in order. A deadlock is a failure."""
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(work, number) for number in range(count)]
        return [future.result(SECONDS) for future in futures]


def stream(seed, count=20_000):
    return np.random.default_rng(seed).integers(0, PAGES << 12, count).astype(np.uint64)


@pytest.mark.parametrize("set_ad", [True, False])
def test_many_threads_share_an_mmu(set_ad):
    """Addresses and sums are those of serial calls, whatever the order."""
    memory, root = native()
    mmu = MMU("native", memory, cr3=root, set_ad=set_ad)

    def work(number):
        offsets = stream(number)
        out = mmu.translate(offsets + np.uint64(VA), "rw"[number & 1])
        assert np.array_equal(out.pa, offsets + np.uint64(PA))
        assert not out.fault.any()
        return len(out)

    total = sum(in_threads(work))
    counted = mmu.stats()
    assert counted["accesses"].sum() == total
    assert counted["tlb_hits"].sum() + counted["walks"].sum() == total
    if set_ad:
        # the leaves' bits, each set once
        assert counted["guest_d_set"] == PAGES
        flags = AddressSpace(memory, root).translate(VA + np.arange(PAGES) * 4096).flags
        assert np.all(flags & 0x30 == 0x30)
    else:
        assert counted["guest_a_set"] == counted["guest_d_set"] == 0


@pytest.mark.parametrize("set_ad", [True, False])
def test_each_thread_has_its_vcpu(set_ad):
    """vCPUs on cores of their own do what they do alone."""
    memory, root = native()
    AddressSpace(memory, root, set_ad=True).translate(VA + np.arange(PAGES) * 4096, "w")
    options = {"cr3": root, "set_ad": set_ad, "tlb": SMALL}
    mmu = MMU("native", memory, vcpus=TASKS, **options)

    def work(number):
        results = []
        for part in np.array_split(stream(number) + np.uint64(VA), 7):
            results.append(mmu.translate(part, "w", vcpu=number).code)
            mmu.invlpg(int(part[0]), vcpu=number)
        return np.concatenate(results)

    for number, found in enumerate(in_threads(work)):
        alone = MMU("native", memory, **options)
        want = []
        for part in np.array_split(stream(number) + np.uint64(VA), 7):
            want.append(alone.translate(part, "w").code)
            alone.invlpg(int(part[0]))
        assert np.array_equal(found, np.concatenate(want))
        assert mmu.counters[number] == alone.counters[0]


@pytest.mark.parametrize("set_ad", [True, False])
def test_many_mmus_share_a_memory(set_ad):
    memory, cr3, root = nested()
    options = {"cr3": cr3, "nested_root": root, "nested_format": "npt", "set_ad": set_ad}

    def work(number):
        mmu = MMU("nested", memory, **options)
        offsets = stream(number)
        out = mmu.translate(offsets + np.uint64(VA), "w")
        assert np.array_equal(out.pa, offsets + np.uint64(PA))
        return mmu.stats()

    counted = in_threads(work)
    assert all(not each["faults"].any() for each in counted)
    marks = sum(int(each["guest_d_set"]) for each in counted)
    touched = {int(page) for number in range(TASKS) for page in stream(number) >> np.uint64(12)}
    # each entry is looked at and marked under the memory's lock, by one of them
    assert marks == (len(touched) if set_ad else 0)


def test_a_batch_runs_while_others_call():
    """Calls of every sort during batches of another thread: all come back."""
    memory, root = native()
    mmu = MMU("native", memory, cr3=root, vcpus=2, tlb=SMALL, records=np.zeros(64, RECORD_DTYPE))
    done = threading.Event()
    vas = stream(1, 400_000) + np.uint64(VA)
    events = np.zeros(20_000, EVENT_DTYPE)
    events["op"] = np.where(np.arange(20_000) % 5 == 0, 16, 1)
    events["addr"] = vas[:20_000]
    events["value"] = root

    def batches():
        try:
            for _ in range(4):
                assert np.array_equal(mmu.translate(vas).pa, vas - np.uint64(VA - PA))
                assert mmu.run(events) == len(events)
        finally:
            done.set()

    calls = [
        lambda: mmu.load(VA),
        lambda: mmu.translate(VA + 5, "w", vcpu=1),
        lambda: mmu.invlpg(VA, shoot_down=True),
        lambda: mmu.mov_cr4(0xB0),
        lambda: mmu.mov_cr3(root, vcpu=1),
        lambda: mmu.vm_entry(),
        lambda: mmu.registers(1),
        lambda: mmu.entries(0),
        lambda: mmu.stats(),
        lambda: mmu.snapshot(),
        lambda: mmu.pml_log(),
        lambda: copy.copy(mmu).load(VA),
        lambda: repr(mmu),
        lambda: memory.write_u64(0x700_0000, 1),
        lambda: memory.read_u64(root),
    ]

    def others():
        made = 0
        while not done.is_set():
            calls[made % len(calls)]()
            made += 1
        return made

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(batches), pool.submit(others), pool.submit(others)]
        assert [future.result(SECONDS) for future in futures][1] > 0
    counted = mmu.stats()
    assert counted["accesses"].sum() == (
        counted["tlb_hits"].sum() + counted["walks"].sum() + counted["faults"].sum()
    )
    assert not counted["faults"].any()


def test_inspection_while_contexts_grow():
    """New PCIDs and VPIDs move the table of contexts, which `entries` reads."""
    mmu = MMU("tlb-only", cr4=0x200B0)
    done = threading.Event()

    def switches():
        try:
            for start in range(0, 60_000, 500):
                events = np.zeros(1000, EVENT_DTYPE)
                events["op"][::2], events["op"][1::2] = 41, 1
                events["arg"][::2] = start + np.arange(500)
                events["addr"][1::2] = np.arange(500) << 12
                mmu.run(events)
        finally:
            done.set()

    def looks():
        while not done.is_set():
            rows = mmu.entries()
            assert (rows["vpid"] < 60_000).all()
            assert (rows["page"] < 500).all()
            mmu.registers()
            mmu.snapshot()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(switches), pool.submit(looks)]
        for future in futures:
            future.result(SECONDS)


def test_tables_change_under_many_readers():
    """A translation is the old or the new one, never something else; then the new one."""
    memory, root = native()
    tables = PageTables(memory, root=root, frames=(0x80_0000, 0x10_0000))
    stop = threading.Event()
    vas = np.full(2000, VA, np.uint64)
    allowed = {PA, PA + 0x5000}

    def reader(number):
        mmu = MMU("native", memory, cr3=root, tlb=SMALL, set_ad=bool(number & 1))
        while not stop.is_set():
            mmu.invlpg(VA)
            assert {int(pa) for pa in np.unique(mmu.translate(vas).pa)} <= allowed
        mmu.invlpg(VA)
        return mmu.load(VA)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(reader, number) for number in range(3)]
        for i in range(300):
            tables.map([VA], [PA + 0x5000 * (i & 1)], overwrite=True)
        stop.set()
        assert [future.result(SECONDS) for future in readers] == [PA + 0x5000] * 3


def test_an_mmu_that_goes_away_in_a_thread():
    """MMUs, copies and pickles come and go in all threads, with the memory they share."""

    def work(number):
        memory, root = native()
        mmu = MMU("native", memory, cr3=root, tlb=SMALL)
        del memory
        vas = stream(number, 2000) + np.uint64(VA)
        first = mmu.translate(vas)
        twins = [copy.copy(mmu), copy.deepcopy(mmu), pickle.loads(pickle.dumps(mmu))]
        del mmu
        codes = [twin.translate(vas).code for twin in twins]
        assert all(np.array_equal(code, codes[0]) for code in codes)
        return int(first.pa.sum())

    found = in_threads(work)
    assert found == [int((stream(n, 2000) + np.uint64(PA)).sum()) for n in range(TASKS)]

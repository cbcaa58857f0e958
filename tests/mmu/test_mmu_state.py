"""States of an MMU: snapshots, copies, pickles; very many contexts, cores, ways and entries."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

from pyvirt import MMU, PageTables, PhysicalMemory
from pyvirt._core.dtypes import EVENT_DTYPE, RECORD_DTYPE
from pyvirt._core.stream import use_vectors
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache

VA, PA = 0x4000_0000, 0x200_0000
PCIDE = 0x200B0
POLICIES = ("lru", "tree-plru", "bit-plru", "fifo", "random")
LOAD, VM_SWITCH = 1, 41


def tables_of(pages=1024):
    memory = PhysicalMemory(1 << 27)
    tables = PageTables(memory, frames=(0x10_0000, 0x20_0000))
    tables.map_range(VA, PA, pages << 12, rights="rw")
    return memory, tables


def shape_of(policy, kind="split"):
    guest = {
        "split": WalkCache("split", {2: Cache(8, 4, policy), 3: Cache(4, 4, policy)}),
        "page-table": WalkCache("page-table", Cache(16, 4, policy)),
        "path": WalkCache("path", Cache(8, 8, policy)),
    }[kind]
    arrays = (TlbArray("L1", 1, Cache(16, 4, policy)), TlbArray("L2", 2, Cache(64, 16, policy)))
    return Geometry(policy, arrays, guest)


def same(one, other):
    """Two MMUs have counted, and hold, the same."""
    assert one.stats() == other.stats()
    for core in range(one.cores):
        assert np.array_equal(one.entries(core), other.entries(core))
    for vcpu in range(one.vcpus):
        assert one.registers(vcpu) == other.registers(vcpu)


def some(seed, count=3000, pages=1024):
    return VA + np.random.default_rng(seed).integers(0, pages << 12, count).astype(np.uint64)


# --------------------------------------------------------------------------- going on from it


@pytest.mark.parametrize("kind", ["split", "page-table", "path"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_state_goes_on_as_the_original(policy, kind):
    memory, tables = tables_of()
    options = {"data_cache": [Cache(64, 8, policy)], "rng": 7, "set_ad": False}
    mmu = MMU("native", memory, cr3=tables.root, tlb=shape_of(policy, kind), **options)
    mmu.translate(some(1))
    mmu.mov_cr4(PCIDE)
    mmu.mov_cr3(tables.root | 5)
    mmu.translate(some(2), "w")
    other = MMU("native", memory, cr3=tables.root, tlb=shape_of(policy, kind), **options)
    other.restore(pickle.loads(pickle.dumps(mmu.snapshot())))
    twins = [copy.copy(mmu), copy.deepcopy(mmu), pickle.loads(pickle.dumps(mmu)), other]
    want = mmu.translate(some(3), "w")
    for twin in twins:
        found = twin.translate(some(3), "w")
        assert np.array_equal(found.pa, want.pa)
        assert np.array_equal(found.code, want.code)
        same(twin, mmu)


@pytest.mark.parametrize("policy", POLICIES)
def test_pickled_in_the_middle_of_a_stream(policy):
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, tlb=shape_of(policy))
    whole = copy.deepcopy(mmu)
    want = whole.translate(some(4), "w")
    codes = []
    for i, part in enumerate(np.array_split(some(4), 13)):
        use_vectors(bool(i & 1))
        codes.append(mmu.translate(part, "w").code)
        mmu = pickle.loads(pickle.dumps(mmu))
    use_vectors(None)
    assert np.array_equal(np.concatenate(codes), want.code)
    same(mmu, whole)


def test_back_to_a_snapshot():
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, vcpus=2, cores=1, set_ad=False)
    mmu.translate(some(1))
    snapshot = mmu.snapshot()
    before = copy.copy(mmu)
    codes = []
    for _ in range(2):
        codes.append(mmu.translate(some(2), vcpu=1).code)
        mmu.mov_cr4(PCIDE)
        mmu.mov_cr3(tables.root | 9, vcpu=0)
        mmu.reset()
        mmu.restore(snapshot)
        same(mmu, before)
    assert np.array_equal(*codes)


def test_equal_states_are_equal_bytes():
    """Nothing of the process is in a pickle: no addresses, no order of allocation."""
    dumps = []
    for _ in range(2):
        memory, tables = tables_of()
        mmu = MMU("native", memory, cr3=tables.root)
        mmu.translate(some(1))
        mmu.translate(some(1))
        dumps.append((pickle.dumps(mmu.snapshot()), mmu))
    assert dumps[0][0] == dumps[1][0]


def test_a_copy_shares_the_memory_and_a_deep_one_does_not():
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, tables=tables)
    mmu.translate(some(1))
    shallow, deep = copy.copy(mmu), copy.deepcopy(mmu)
    assert shallow.mem is memory
    assert shallow.tables is tables
    assert deep.mem is not memory
    assert deep.tables.mem is deep.mem
    tables.map([VA], [PA + 0x5000], overwrite=True)
    for one in (mmu, shallow, deep):
        one.invlpg(VA)
    assert (mmu.load(VA), shallow.load(VA), deep.load(VA)) == (PA + 0x5000, PA + 0x5000, PA)


def test_a_deep_copy_reads_its_own_tables():
    """What an MMU remembers of where tables lie is of its own memory."""
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, set_ad=False, tlb=shape_of("lru"), prefetch=True)
    vas = some(1, 500, 64)
    mmu.translate(vas)
    deep = copy.deepcopy(mmu)
    before = deep.mem.read(0, 1 << 22)
    tables.map(VA + np.arange(64) * 4096, np.full(64, PA), overwrite=True)
    for page in range(64):
        deep.invlpg(VA + page * 4096)
        mmu.invlpg(VA + page * 4096)
    assert np.array_equal(deep.translate(vas).pa, vas - np.uint64(VA - PA))
    assert np.array_equal(mmu.translate(vas).pa, PA + (vas & np.uint64(0xFFF)))
    del mmu, tables, memory
    assert np.array_equal(deep.translate(vas).pa, vas - np.uint64(VA - PA))
    assert deep.mem.read(0, 1 << 22) == before


def test_records_are_the_callers():
    """A copy writes none; what was written stays where it was."""
    memory, tables = tables_of()
    ring = np.zeros(10, RECORD_DTYPE)
    mmu = MMU("native", memory, cr3=tables.root, records=ring)
    mmu.load(VA)
    written = ring.copy()
    twin = copy.copy(mmu)
    twin.translate(some(1))
    assert np.array_equal(ring, written)
    mmu.load(VA + 0x1000)
    assert mmu.records_written > 0
    assert not np.array_equal(ring, written)


# --------------------------------------------------------------------------------- very many


def switches(first, count):
    """A switch to the next of 200,000 address spaces, then a load, again and again."""
    number = first + np.arange(count)
    events = np.zeros(2 * count, EVENT_DTYPE)
    events["op"][::2], events["op"][1::2] = VM_SWITCH, LOAD
    events["arg"][::2] = number % 50_000
    events["addr"][::2] = number // 50_000 % 4
    events["addr"][1::2] = number.astype(np.uint64) << np.uint64(12)
    return events


def test_more_contexts_than_ids():
    """There are 65,536 ids; what is cached is right after they ran out."""
    big = Geometry("big", (TlbArray("L1", 1, Cache(1 << 20, 8)),))
    mmu = MMU("tlb-only", cr4=PCIDE, tlb=big)
    for first in range(0, 200_000, 20_000):
        mmu.run(switches(first, 20_000))
        rows = mmu.entries()
        # each page was loaded once, by one address space
        assert np.array_equal(rows["vpid"], rows["page"] % 50_000)
        assert np.array_equal(rows["pcid"], rows["page"] // 50_000 % 4)
        assert len(np.unique(rows["page"])) == len(rows)
    counted = mmu.stats()
    assert counted["walks"][0] == 200_000
    assert counted["dropped"][0] + len(mmu.entries()) == 200_000


def test_ids_are_used_again():
    """Few address spaces are alive at a time: none loses what it has."""
    mmu = MMU("tlb-only", cr4=PCIDE, vcpus=2, cores=2)
    mmu.load(0x1000)
    for first in range(0, 200_000, 20_000):
        events = switches(first, 20_000)
        events["vcpu"] = 1
        mmu.run(events)
        assert mmu.translate(0x1000).hit_level == 1
    assert mmu.entries(0)["page"].tolist() == [1, 1]


def test_mov_cr3_through_all_pcids():
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, cr4=PCIDE)
    for _ in range(2):
        for pcid in range(4096):
            mmu.mov_cr3(tables.root | pcid | 1 << 63)
            assert mmu.load(VA + pcid % 8 * 4096) == PA + pcid % 8 * 4096
    # one set of 8 pages holds as many of the 4,096 as it has ways
    assert set(mmu.entries()["pcid"].tolist()) <= set(range(4096))
    assert mmu.stats()["faults"].sum() == 0
    mmu.invpcid(3)
    assert not len(mmu.entries())


def test_many_cores():
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, vcpus=4096)
    for vcpu in range(4096):
        assert mmu.translate(VA, vcpu=vcpu).pa == PA
    mmu.invlpg(VA, vcpu=17, shoot_down=True)
    assert mmu.stats()["ipis"] == 4095
    assert mmu.stats()["dropped"][0] == 2 * 4096
    assert all(not mmu.translate(VA, vcpu=vcpu).hit_level for vcpu in range(0, 4096, 64))
    assert mmu.counters.shape == (4096,)


def test_many_vcpus_take_turns_on_a_core():
    memory, tables = tables_of()
    mmu = MMU("native", memory, cr3=tables.root, vcpus=300, cores=1)
    for vcpu in range(300):
        assert mmu.translate(VA, vcpu=vcpu).hit_level == (1 if vcpu else 0)


@pytest.mark.parametrize("policy", ["lru", "fifo", "random"])
def test_many_ways(policy):
    """A fully associative array of 4,096: exact."""
    shape = Geometry("wide", (TlbArray("L1", 1, Cache(4096, 0, policy)),))
    mmu = MMU("tlb-only", tlb=shape)
    assert mmu.count(np.arange(4096) << 12) == 4096
    assert mmu.stats()["walks"][0] == 4096
    assert (mmu.translate(np.arange(4096)[::-1] << 12).hit_level == 1).all()
    mmu.count(np.random.default_rng(1).integers(0, 8192, 20_000) << 12)
    rows = mmu.entries()
    assert len(rows) == len(np.unique(rows["page"])) == 4096
    if policy != "random":  # what is left: the last 4,096 touched or filled
        again = MMU("tlb-only", tlb=shape)
        again.translate(np.arange(5000) << 12)
        assert sorted(again.entries()["page"].tolist()) == list(range(904, 5000))


def test_many_entries():
    """A million entries in sixteen arrays cost what their words cost."""
    arrays = tuple(TlbArray(f"a{i}", 1, Cache(1 << 16, 4)) for i in range(16))
    tracemalloc.start()
    mmu = MMU("tlb-only", tlb=Geometry("big", arrays))
    state = len(mmu.snapshot()._state[0])
    tracemalloc.stop()
    assert state < 32 << 20
    vas = np.arange(100_000) << 12
    assert (mmu.translate(vas).hit_level == 0).all()
    assert (mmu.translate(vas).hit_level == 1).all()
    assert len(mmu.entries()) == 100_000
    twin = pickle.loads(pickle.dumps(mmu))
    assert (twin.translate(vas[::-1]).hit_level == 1).all()
    for _ in range(50):
        mmu.mov_cr3(0)
    assert not len(mmu.entries())


def test_order_after_a_long_run():
    """Twenty million hits later the order is still right."""
    mmu = MMU("tlb-only", tlb=Geometry("one", (TlbArray("L1", 1, Cache(4, 4)),)))
    vas = np.zeros(1 << 20, np.uint64)
    for _ in range(20):
        mmu.count(vas)
    assert mmu.stats()["tlb_hits"][0, 0] == 20 * len(vas) - 1
    assert mmu.translate(np.arange(8) << 12).hit_level.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert sorted(mmu.entries()["page"].tolist()) == [4, 5, 6, 7]

"""References of walks, data caches, shared cores, events with results, paging off, the PML log."""

from collections import OrderedDict

import numpy as np
import pytest

from oracle.mmu_caches import Context, Line, SlowCache
from pyvirt import MMU, Accesses, AddressSpace, NestedAddressSpace, PageTables, PhysicalMemory
from pyvirt._core.dtypes import RECORD_DTYPE
from pyvirt._core.stream import use_vectors
from pyvirt.errors import Fault, InvalidValueError, OutsideMemoryError, PageFaultError
from pyvirt.mmu.geometry import Cache, Geometry
from pyvirt.traces import EVENT_DTYPE, Op

MIB = 1 << 20
NONE = Geometry.none()
CR0, PG = 0x8001_0001, 1 << 31
PGE, SMAP = 1 << 7, 1 << 21
#: Pages of 4 KiB in regions whose paths part at every level, one of 2 MiB, and nothing.
REGIONS = (0x40_0000, 0x5555_5540_0000, 0x7FFF_FFE0_0000, 0xFFFF_8880_0000_0000)
LARGE = 0x60_0000
HOLES = (0x1000, 0x40_0000 + (300 << 12), 0x5555_0000_0000, 0xFFFF_F000_0000_0000, 1 << 48)
PAGES = 300
EPT_OFFSET = 64 * MIB
LETTERS = {Op.LOAD: "r", Op.STORE: "w", Op.FETCH: "x", Op.MODIFY: "w"}


@pytest.fixture(params=[True, False], ids=["vectors", "plain"], autouse=True)
def vectors(request):
    use_vectors(request.param)
    yield
    use_vectors(None)


def fill(tables):
    """The same pages in every machine."""
    for i, region in enumerate(REGIONS):
        rights = "rwxu" if i == 0 else "rw"
        tables.map_range(region, (2 + 2 * i) * MIB, PAGES << 12, rights=rights)
    tables.map_range(LARGE, 16 * MIB, 2 * MIB, page_shift=21, rights="rwx")


def native(**options):
    """(space, MMU) over native tables."""
    memory = PhysicalMemory(128 * MIB)
    tables = PageTables(memory, frames=(MIB, MIB))
    fill(tables)
    options = {"set_ad": False, "tables": tables} | options
    space = AddressSpace(memory, tables.root, cr0=CR0)
    return space, MMU.over(space, **options)


def nested(nested_format="ept", ept_ad=False, **options):
    """(space, MMU) over guest tables in nested tables, which move every page."""
    memory = PhysicalMemory(128 * MIB)
    host = PageTables(memory, format=nested_format, frames=(100 * MIB, 8 * MIB))
    rights = "rwx" if nested_format == "ept" else "rwxu"
    host.map_range(0, EPT_OFFSET, 14 * MIB, page_shift=12, rights=rights)
    host.map_range(14 * MIB, EPT_OFFSET + 14 * MIB, 6 * MIB, page_shift=21, rights=rights)
    tables = PageTables(memory, frames=(MIB, MIB), outer=host.walker())
    fill(tables)
    space = NestedAddressSpace(
        memory,
        guest_cr3=tables.root,
        nested_root=host.root,
        nested_format=nested_format,
        ept_ad=ept_ad,
        cr0=CR0,
        pa_width=52,
    )
    return space, MMU.over(space, **({"set_ad": False, "tables": tables} | options))


MACHINES = {"native": native, "nested": nested}


def some(count, seed=0, faults=True):
    """Addresses in all regions, and in none."""
    rng = np.random.default_rng(seed)
    vas = np.array(REGIONS, np.uint64)[rng.integers(0, len(REGIONS), count)]
    vas += rng.integers(0, PAGES << 12, count).astype(np.uint64)
    large = rng.random(count) < 0.1
    vas[large] = LARGE + rng.integers(0, 2 * MIB, count)[large].astype(np.uint64)
    if faults:
        bad = rng.random(count) < 0.1
        vas[bad] = np.array(HOLES, np.uint64)[rng.integers(0, len(HOLES), count)][bad]
    return vas


def room(count):
    return np.zeros(count, RECORD_DTYPE)


def events_of(*rows):
    """Events from (op, addr) and other fields by name."""
    events = np.zeros(len(rows), EVENT_DTYPE)
    for i, (op, addr, *others) in enumerate(rows):
        events["op"][i], events["addr"][i] = op, addr
        for name, value in others[0].items() if others else ():
            events[name][i] = value
    return events


def loads(vas, op=Op.LOAD, size=1):
    events = np.zeros(len(vas), EVENT_DTYPE)
    events["op"], events["addr"], events["size"] = op, vas, size
    return events


def triples(references):
    return [(int(r["pa"]), int(r["dimension"]), int(r["level"])) for r in references]


# ------------------------------------------------------------------------------------- records


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("access", ["r", "w", "x"])
@pytest.mark.parametrize("set_ad", [False, True])
def test_without_caches_they_are_the_references_of_the_walks(kind, access, set_ad):
    """A and D bits that are set on the way are no further references."""
    ring = room(1 << 14)
    space, mmu = MACHINES[kind](tlb=NONE, records=ring, set_ad=set_ad)
    vas = some(300)
    want = [
        (i, *each) for i, va in enumerate(vas) for each in triples(space.references(va, access))
    ]
    codes = mmu.translate(vas, access).code
    found = ring[: mmu.records_written]
    assert list(zip(found["access"], *(found[n] for n in ("pa", "dimension", "level")),
                    strict=True)) == want  # fmt: skip
    assert not found["vcpu"].any()
    assert {0, 1} >= set(found["dimension"].tolist()) >= ({0, 1} if kind == "nested" else {0})
    own = np.bincount(found["access"].astype(int), minlength=len(vas))
    assert np.array_equal((codes >> 7 & 63)[codes & 15 == 0], own[codes & 15 == 0])
    counted = mmu.stats()
    assert counted["guest_refs"].sum() + counted["host_refs"].sum() == len(found)
    longest = 24 if kind == "nested" else 4
    assert own.max() == longest


def test_of_npt_and_of_users():
    ring = room(1 << 12)
    space, mmu = nested("npt", tlb=NONE, records=ring)
    for va in some(50):
        before = mmu.records_written
        mmu.translate_one(int(va), "r", True)
        assert triples(ring[before : mmu.records_written]) == triples(
            space.references(va, "r", True)
        )


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_the_ring_wraps(kind, size):
    everything, ring = room(1 << 17), room(size)
    _, mmu = MACHINES[kind](tlb=NONE, records=everything)
    _, small = MACHINES[kind](tlb=NONE, records=ring)
    for part in np.array_split(some(4000), 3):
        mmu.translate(part)
        small.translate(part)
        total = mmu.records_written
        assert small.records_written == total > len(part)
        last = everything[max(0, total - size) : total]
        assert np.array_equal(
            np.roll(ring, -(total % size) if total > size else 0)[: len(last)], last
        )
    assert total > 2 * 4096  # more than is buffered at a time


def in_batches(mmu, vas, parts):
    for part in np.array_split(vas, parts):
        mmu.translate(part)


def by_counting(mmu, vas, parts):
    for part in np.array_split(vas, parts):
        mmu.count(part)


def in_events(mmu, vas, parts):
    mmu.run(np.array_split(loads(vas), parts))


def one_at_a_time(mmu, vas, parts):
    for va in vas.tolist():
        mmu.translate_one(va)


def by_load(mmu, vas, parts):
    for va in vas.tolist():
        try:
            mmu.load(va)
        except PageFaultError:
            continue


def by_turns(mmu, vas, parts):
    ways = (in_batches, in_events, one_at_a_time, by_counting, by_load)
    for i, part in enumerate(np.array_split(vas, parts)):
        ways[i % len(ways)](mmu, part, 2)


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("tlb", [NONE, "reference", "skylake-sp"], ids=["none", "psc", "preset"])
def test_numbers_of_accesses(kind, tlb):
    """However a stream is cut and handed over, each reference has the number of its access."""
    vas = some(5000, seed=1)
    vas[1000:3000] = vas[1000:1010].repeat(200)  # what hits for long
    caches = (Cache(16, 4), Cache(64, 8))
    ring = room(1 << 17)
    _, mmu = MACHINES[kind](tlb=tlb, records=ring, data_cache=caches)
    codes = mmu.translate(vas).code
    found = ring[: mmu.records_written]
    read = np.bincount(found["access"].astype(int), minlength=len(vas))
    fine = codes & 15 == 0
    assert np.array_equal(read[fine], codes[fine] >> 7 & 63)
    assert len(read) == len(vas)
    assert (np.diff(found["access"].astype(np.int64)) >= 0).all()
    for way, parts in (
        *((in_batches, 1), (in_batches, 2), (in_batches, 97), (by_counting, 5)),
        *((in_events, 1), (in_events, 31), (one_at_a_time, 1), (by_load, 1), (by_turns, 41)),
    ):
        again = room(1 << 17)
        _, other = MACHINES[kind](tlb=tlb, records=again, data_cache=caches)
        way(other, vas, parts)
        assert other.records_written == mmu.records_written
        assert np.array_equal(again, ring), way.__name__
        assert other.stats() == mmu.stats()


def test_numbers_of_split_accesses_and_after_other_events():
    ring = room(100)
    _, mmu = native(tlb=NONE, records=ring)
    start = REGIONS[0]
    mmu.run(
        events_of(
            (Op.LOAD, start + 0xFFC, {"size": 8}),  # accesses 0 and 1
            (Op.NOP, 0),
            (Op.INVLPG, start),
            (Op.MODIFY, start, {"size": 8}),  # one
            (Op.MOV_CR4, 0, {"value": PGE}),
            (Op.STORE, start + 0xFF8, {"size": 8}),
        )
    )
    assert ring["access"][: mmu.records_written].tolist() == [i for i in range(4) for _ in range(4)]
    assert mmu.stats()["splits"] == 1
    mmu.reset()
    mmu.load(start)
    assert ring["access"][mmu.records_written - 1] == 0


def test_records_of_vcpus():
    ring = room(1000)
    space, mmu = nested(tlb=NONE, records=ring, vcpus=3, cores=2)
    vas = some(30, faults=False)
    for i, va in enumerate(vas.tolist()):
        mmu.translate_one(va, vcpu=i % 3)
    found = ring[: mmu.records_written]
    assert np.array_equal(found["vcpu"], found["access"] % 3)
    assert triples(found) == [each for va in vas for each in triples(space.references(va))]


# --------------------------------------------------------------------------------- data caches


class PlainLru:
    """Sets of lines, the latest used last."""

    def __init__(self, shape):
        self.sets = [OrderedDict() for _ in range(shape.entries // shape.ways)]
        self.ways = shape.ways

    def hit(self, line):
        lines = self.sets[line % len(self.sets)]
        if line not in lines:
            return False
        lines.move_to_end(line)
        return True

    def fill(self, line):
        lines = self.sets[line % len(self.sets)]
        if len(lines) == self.ways:
            lines.popitem(last=False)
        lines[line] = True


class AnyPolicy:
    """The same by the arrays of the oracle."""

    def __init__(self, shape):
        self.cache = SlowCache(shape)

    def hit(self, line):
        place = self.cache.find(line, 0, Context())
        if place:
            self.cache.touch(place)
        return bool(place)

    def fill(self, line):
        self.cache.insert(Line(line, 0, Context(), None))


def modelled(make, shapes, pas):
    """Hits by level, the last one memory: a line that is found is then in all levels before."""
    caches = [make(shape) for shape in shapes]
    hits = [0] * 4
    for pa in pas.tolist():
        line = pa >> 6
        level = 0
        while level < len(caches) and not caches[level].hit(line):
            level += 1
        for cache in caches[:level]:
            cache.fill(line)
        hits[3 if level == len(caches) else level + 3 - len(caches)] += 1
    return hits


SHAPES = {
    1: (Cache(48, 4),),
    2: (Cache(16, 4), Cache(60, 12)),
    3: (Cache(8, 2), Cache(24, 8), Cache(96, 0)),
}


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("levels", SHAPES)
@pytest.mark.parametrize("tlb", [NONE, "reference"], ids=["none", "reference"])
def test_data_caches_are_those_of_a_plain_model(kind, levels, tlb):
    ring = room(1 << 17)
    shapes = SHAPES[levels]
    _, mmu = MACHINES[kind](tlb=tlb, records=ring, data_cache=shapes)
    mmu.translate(some(3000))
    mmu.translate(some(1000, seed=1), "w")
    references = ring[: mmu.records_written]["pa"]
    counted = mmu.stats()
    hits = counted["data_cache_hits"].tolist()
    assert hits == modelled(PlainLru, shapes, references)
    assert sum(hits) == len(references)
    assert sum(hits) == counted["guest_refs"].sum() + counted["host_refs"].sum()
    assert not any(hits[: 3 - levels])
    assert all(hits[3 - levels :])


@pytest.mark.parametrize("policy", ["lru", "fifo", "tree-plru", "bit-plru", "random"])
@pytest.mark.parametrize("shapes", [((8, 4), (64, 8)), ((32, 32),)])
@pytest.mark.parametrize("hash", ["linear", "xor"])
def test_data_caches_of_all_policies(policy, shapes, hash):
    folds = [(n // w).bit_length() - 1 for n, w in shapes]
    caches = [
        Cache(n, w, policy, "linear" if hash == "linear" or not fold else f"xor-{fold}")
        for (n, w), fold in zip(shapes, folds, strict=True)
    ]
    ring = room(1 << 16)
    _, mmu = nested(records=ring, data_cache=caches)
    vas = some(3000)
    mmu.translate(vas)
    hits = mmu.stats()["data_cache_hits"].tolist()
    references = ring[: mmu.records_written]["pa"]
    assert sum(hits) == len(references)
    if policy != "random":  # its draws depend on seeds
        assert hits == modelled(AnyPolicy, caches, references)
    _, other = nested(data_cache=caches)
    by_turns(other, vas, 29)
    assert other.stats()["data_cache_hits"].tolist() == hits


def test_data_caches_without_walks():
    mmu = MMU("tlb-only", data_cache=SHAPES[2], records=room(4))
    mmu.translate(some(100))
    assert not mmu.stats()["data_cache_hits"].any()
    assert mmu.records_written == 0


# --------------------------------------------------------------------------- vCPUs and cores


@pytest.mark.parametrize("vpids", [True, False])
def test_vcpus_that_share_a_core(vpids):
    _, mmu = nested(vcpus=4, cores=2, vpids=vpids)
    assert (mmu.vcpus, mmu.cores, mmu.counters.shape) == (4, 2, (2,))
    assert [mmu.registers(i)["core"] for i in range(4)] == [0, 1, 0, 1]
    vas = REGIONS[0] + np.arange(16, dtype=np.uint64) * 4096
    first = mmu.translate(vas, vcpu=0)
    assert (first.hit_level == 0).all()
    assert mmu.counters["accesses"].sum(axis=1).tolist() == [16, 0]
    second = mmu.translate(vas, vcpu=2)  # the same core
    assert np.array_equal(second.pa, first.pa)
    assert (second.hit_level == (0 if vpids else 1)).all()
    if vpids:  # what is kept of guest-physical addresses serves both
        assert second.references.sum() < first.references.sum()
    third = mmu.translate(vas, vcpu=1)
    assert np.array_equal(third.code, first.code)
    assert mmu.counters["accesses"].sum(axis=1).tolist() == [32, 16]
    assert (mmu.translate(vas).hit_level == 1).all()
    assert {int(v) for v in mmu.entries(0)["vpid"]} >= ({1, 3} if vpids else {0})
    # what vCPU 0 invalidates is on its core, and of its own VPID
    mmu.invlpg(int(vas[3]), vcpu=0)
    assert mmu.translate_one(int(vas[3]), vcpu=0).hit_level == 0
    assert mmu.translate_one(int(vas[3]), vcpu=2).hit_level == 1
    assert mmu.translate_one(int(vas[3]), vcpu=1).hit_level == 1
    mmu.invlpg(int(vas[4]), vcpu=0, shoot_down=True)
    assert [mmu.translate_one(int(vas[4]), vcpu=i).hit_level for i in range(2)] == [0, 0]
    assert mmu.stats()["ipis"] == 3


def test_a_vcpu_moves():
    _, mmu = nested(vcpus=2, cores=3, data_cache=SHAPES[1])
    va = REGIONS[1]

    def moved(core):
        return (Op.VCPU_SWITCH, 0, {"arg": core})

    events = events_of(
        *((Op.LOAD, va), moved(2), (Op.LOAD, va), (Op.LOAD, va), moved(0), (Op.LOAD, va)),
        *(moved(1), (Op.LOAD, va, {"vcpu": 1}), (Op.LOAD, va), (Op.LOAD, va + 4096)),
    )
    out = Accesses.empty(len(events))
    assert mmu.run(events, out=out) == len(events)
    assert out.hit_level[[0, 2, 3, 5, 7, 8]].tolist() == [0, 0, 1, 1, 0, 0]
    assert mmu.registers(0)["core"] == 1
    assert mmu.counters["accesses"][:, 1].tolist() == [2, 3, 2]
    references = mmu.counters["guest_refs"].sum(axis=1) + mmu.counters["host_refs"].sum(axis=1)
    assert np.array_equal(mmu.counters["data_cache_hits"].sum(axis=1), references)
    assert references[0] == references[2] > 4  # one walk in a cold core each
    mmu.vcpu_switch(2, vcpu=0)
    assert mmu.translate_one(va).hit_level == 1
    vpids = [set(mmu.entries(core)["vpid"].tolist()) - {0} for core in range(3)]
    assert vpids == [{1}, {1, 2}, {1}]
    with pytest.raises(InvalidValueError, match=r"event 1 .*no such core"):
        mmu.run(events_of((Op.LOAD, va), moved(3)))


# ----------------------------------------------------------------------- events with results


def by_hand(mmu, event):
    """One event by the methods of the object: (pa, code)."""
    op, addr, arg = Op(int(event["op"])), int(event["addr"]), int(event["arg"])
    value, vcpu, size = int(event["value"]), int(event["vcpu"]), int(event["size"])
    if op in LETTERS:
        one = mmu.translate_one(addr, LETTERS[op], arg & 1, vcpu)
        pa, code = one.pa, one.code
        if (addr & 0xFFF) + size > 4096:
            other = mmu.translate_one((addr | 0xFFF) + 1, LETTERS[op], arg & 1, vcpu)
            if one.ok and not other.ok:
                pa, code = 0, other.code
        return pa, code
    rights = "".join(c for i, c in enumerate("rwxu") if arg >> i & 1)
    match op:
        case Op.MOV_CR0:
            mmu.mov_cr0(value, vcpu)
        case Op.MOV_CR3:
            mmu.mov_cr3(value, vcpu)
        case Op.MOV_CR4:
            mmu.mov_cr4(value, vcpu)
        case Op.INVLPG:
            mmu.invlpg(addr, vcpu, arg & 1)
        case Op.INVPCID:
            mmu.invpcid(arg, value, addr, vcpu)
        case Op.VCPU_SWITCH:
            mmu.vcpu_switch(arg, vcpu)
        case Op.STORE_TABLE:
            mmu.run(np.array([event], EVENT_DTYPE))
        case Op.MAP:
            mmu.tables.map(
                *([addr], [value]),
                page_shift=size,
                rights=rights,
                attrs=0x100 if arg & 16 else 0,
                overwrite=True,
            )
        case Op.UNMAP:
            mmu.tables.unmap(addr, value)
        case Op.PROTECT:
            mmu.tables.protect(addr, value, rights)
        case _:
            assert op == Op.NOP
    return 0, 0


def same(one, other):
    """All counters but that of split accesses, and all contents."""
    for name in one.counters.dtype.names:
        if name != "splits":
            assert np.array_equal(one.counters[name], other.counters[name]), name
    for core in range(one.cores):
        assert np.array_equal(one.entries(core), other.entries(core))


def mixed(seed, root, count=1500):
    """Accesses of all kinds and sizes, with some of all that the system does between them."""
    rng = np.random.default_rng(seed)
    events = loads(some(count, seed), rng.choice([Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY], count))
    events["size"] = rng.choice([0, 1, 8, 64, 255], count)
    events["addr"][::7] |= 0xFFC
    events["arg"] = rng.integers(0, 2, count)
    events["vcpu"] = rng.integers(0, 3, count)
    base = REGIONS[0]
    others = [
        (Op.NOP, 0),
        (Op.MOV_CR3, 0, {"value": root}),
        (Op.MOV_CR0, 0, {"value": CR0}),
        (Op.MOV_CR0, 0, {"value": CR0 & ~(1 << 16)}),
        (Op.MOV_CR0, 0, {"value": CR0 & ~PG}),
        (Op.MOV_CR4, 0, {"value": PGE | 0x20}),
        (Op.MOV_CR4, 0, {"value": SMAP | 0x20}),
        (Op.INVLPG, base),
        (Op.INVLPG, base + 4096, {"arg": 1}),
        (Op.INVPCID, base, {"arg": 2}),
        (Op.VCPU_SWITCH, 0, {"arg": 0}),
        (Op.VCPU_SWITCH, 0, {"arg": 1}),
        (Op.MAP, HOLES[0], {"value": 8 * MIB, "size": 12, "arg": 7}),
        (Op.MAP, base, {"value": 9 * MIB, "size": 12, "arg": 3 | 8 | 16}),
        (Op.UNMAP, HOLES[0], {"value": 4096}),
        (Op.UNMAP, base + 8192, {"value": 8192}),
        (Op.PROTECT, REGIONS[1], {"value": 64 << 12, "arg": 1}),
        (Op.PROTECT, REGIONS[1], {"value": 64 << 12, "arg": 3}),
        (Op.STORE_TABLE, MIB // 2, {"value": 5, "size": 8}),
    ]
    made = events_of(*others)
    places = rng.choice(count, count // 20, replace=False)
    chosen = made[rng.integers(0, len(made), len(places))]
    chosen["vcpu"] = rng.integers(0, 3, len(places))
    events[places] = chosen
    # paging stays off for a few events only
    for at in np.flatnonzero((events["op"] == Op.MOV_CR0) & (events["value"] & PG == 0)):
        if at + 5 < count:
            events[at + 5] = events[at]
            events["value"][at + 5] |= PG
    return events


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("set_ad", [False, True])
def test_results_of_events(kind, seed, set_ad):
    options = {"vcpus": 3, "cores": 2, "set_ad": set_ad}
    space, mmu = MACHINES[kind](**options)
    _, twin = MACHINES[kind](**options)
    events = mixed(seed, space.root)
    out = Accesses(np.full(len(events), 99, np.uint64), np.full(len(events), 99, np.uint16))
    assert mmu.run(events, out=out) == len(events)
    want = [by_hand(twin, event) for event in events]
    assert list(zip(out.pa.tolist(), out.code.tolist(), strict=True)) == want
    same(mmu, twin)
    # in parts, and as an iterable, with and without results
    _, parts = MACHINES[kind](**options)
    half = len(events) // 2
    assert parts.run(iter(np.array_split(events[:half], 11))) == half
    rest = Accesses.empty(len(events) - half)
    parts.run(events[half:], out=rest)
    assert np.array_equal(rest.code, out.code[half:])
    assert np.array_equal(rest.pa, out.pa[half:])
    same(parts, twin)
    assert parts.stats() == mmu.stats()
    assert mmu.stats()["splits"] > 50
    assert 100 < (out.code & 15 != 0).sum() < len(events)


def test_what_is_no_access_gives_zero():
    _, mmu = native()
    va = REGIONS[0]
    events = events_of((Op.NOP, va), (Op.INVLPG, va), (Op.MOV_CR4, va, {"value": 0}), (Op.LOAD, va))
    out = Accesses(np.full(4, 7, np.uint64), np.full(4, 7, np.uint16))
    mmu.run(events, out=out)
    assert out.pa.tolist() == [0, 0, 0, 2 * MIB]
    assert out.code[:3].tolist() == [0, 0, 0]
    assert out.code[3] >> 7 == 4


def test_modify_is_one_access_checked_as_a_store():
    _, mmu = native()
    mmu.tables.protect(REGIONS[0], 4096, "r")
    out = Accesses.empty(2)
    mmu.run(loads([REGIONS[0], REGIONS[0] + 4096], Op.MODIFY, 8), out=out)
    assert out.fault.tolist() == [Fault.NO_WRITE, 0]
    assert mmu.stats()["accesses"].tolist() == [0, 0, 2]


def test_an_access_across_pages_has_the_first_address_and_either_fault():
    _, mmu = native()
    end = REGIONS[0] + (PAGES << 12)
    out = Accesses.empty(4)
    vas = [REGIONS[0] + 0xFF9, end - 4, REGIONS[0] - 4, REGIONS[0] + 0xFF8]
    assert mmu.run(loads(vas, size=8), out=out) == 4
    assert out.pa.tolist() == [2 * MIB + 0xFF9, 0, 0, 2 * MIB + 0xFF8]
    assert out.fault.tolist() == [0, Fault.NOT_PRESENT, Fault.NOT_PRESENT, 0]
    assert mmu.stats()["splits"] == 3
    assert mmu.stats()["accesses"].sum() == 7


STOPPING = (
    *((Op.LOAD, REGIONS[0]), (Op.MOV_CR4, 0, {"value": PGE}), (Op.STORE, REGIONS[1] + 5)),
    *((Op.UNMAP, REGIONS[0], {"value": 4096}), (Op.INVLPG, REGIONS[0]), (Op.LOAD, REGIONS[0] + 9)),
    *((Op.MOV_CR0, 0, {"value": CR0}), (Op.LOAD, HOLES[0])),
)


def test_a_fault_stops():
    _, mmu = native()
    out = Accesses(np.full(8, 99, np.uint64), np.full(8, 99, np.uint16))
    assert mmu.run(events_of(*STOPPING), out=out, on_fault="stop") == 6
    assert out.pa.tolist() == [2 * MIB, 0, 4 * MIB + 5, 0, 0, 0, 0, 0]
    assert out.fault.tolist() == [0, 0, 0, 0, 0, Fault.NOT_PRESENT, 15, 15]
    assert mmu.stats()["accesses"].sum() == 3
    assert mmu.run(events_of(*STOPPING), on_fault="stop") == 1  # unmapped by now
    for count in range(len(STOPPING) + 1):
        _, other = native()
        assert other.run(events_of(*STOPPING[:count]), on_fault="stop") == min(count, 6)
        _, other = native()
        assert other.run([events_of(each) for each in STOPPING[:count]], on_fault="stop") == min(
            count, 6
        )


def test_a_fault_raises():
    for events in (events_of(*STOPPING), [events_of(each) for each in STOPPING]):
        _, mmu = native()
        with pytest.raises(PageFaultError, match="not present") as caught:
            mmu.run(events, on_fault="raise")
        assert caught.value.va == REGIONS[0] + 9
        assert caught.value.code & 15 == Fault.NOT_PRESENT
        assert mmu.stats()["accesses"].sum() == 3
        assert mmu.run(events) == 8
    _, mmu = native()
    assert mmu.run(events_of(*STOPPING[:5]), on_fault="raise") == 5


def test_edits_in_the_middle_of_an_array():
    """They are seen by the walks after them, and by nothing that is cached before."""
    _, mmu = native()
    va, other = REGIONS[0], 0x40_0000_0000
    out = Accesses.empty(9)
    mmu.run(
        events_of(
            (Op.MAP, other, {"value": 10 * MIB, "size": 12, "arg": 1}),
            (Op.LOAD, other + 1),
            (Op.STORE, other),
            (Op.PROTECT, other, {"value": 4096, "arg": 3}),
            (Op.STORE, other + 2),
            (Op.UNMAP, other, {"value": 4096}),
            (Op.STORE, other + 3),  # its translation is cached
            (Op.INVLPG, other),
            (Op.LOAD, other),
        ),
        out=out,
    )
    ten = 10 * MIB
    assert out.pa.tolist() == [0, ten + 1, 0, 0, ten + 2, 0, ten + 3, 0, 0]
    assert out.fault.tolist() == [0, 0, Fault.NO_WRITE, *[0] * 5, Fault.NOT_PRESENT]
    assert out.hit_level.tolist()[6] == 1
    with pytest.raises(InvalidValueError, match="event 1 "):
        mmu.run(events_of((Op.LOAD, va), (Op.UNMAP, other, {"value": 4097})))


def test_an_error_names_the_event_by_its_place_in_the_array():
    """Also after events that were left to Python."""
    _, mmu = native()
    rows = [(Op.LOAD, REGIONS[0])] * 3
    control = (Op.MOV_CR4, 0, {"value": 0})
    for bad in ((99, 0), (Op.VCPU_SWITCH, 0, {"arg": 9}), (Op.STORE_TABLE, 1, {"size": 8})):
        for before in (rows, [control, *rows], [*rows, control], [control] * 4):
            with pytest.raises(InvalidValueError, match=f"event {len(before)} "):
                mmu.run(events_of(*before, bad, *rows))
    with pytest.raises(InvalidValueError, match="event 5 "):  # of all arrays together
        mmu.run([events_of(*rows), events_of(control, rows[0], (99, 0))])
    with pytest.raises(OutsideMemoryError, match="event 2 "):
        mmu.run(events_of(control, rows[0], (Op.STORE_TABLE, 1 << 40, {"size": 8})))
    assert mmu.stats()["accesses"].sum() == 3 * 9 + 4 + 1


# ---------------------------------------------------------------------------------- paging off


def test_paging_off_native():
    ring = room(10)
    _, mmu = native(records=ring)
    va = REGIONS[0]
    assert mmu.load(va) == 2 * MIB
    read = mmu.records_written
    mmu.mov_cr0(CR0 & ~PG)
    vas = np.array([0, 5, va, 0xFFFF_FFFF, 1 << 32, REGIONS[1], (1 << 64) - 1], np.uint64)
    for access in "rwx":
        found = mmu.translate(vas, access, user=True)
        assert found.pa.tolist() == [0, 5, va, 0xFFFF_FFFF, 0, 0, 0]
        assert found.code.tolist() == [0] * 4 + [Fault.NON_CANONICAL] * 3
    assert len(mmu.entries()) == 0
    assert mmu.records_written == read
    mmu.mov_cr0(CR0)
    assert mmu.translate_one(va).hit_level == 0  # what was cached is gone
    assert mmu.load(va) == 2 * MIB


@pytest.mark.parametrize("nested_format", ["ept", "npt"])
def test_paging_off_nested(nested_format):
    ring = room(4096)
    space, mmu = nested(nested_format, tlb=NONE, records=ring)
    mmu.mov_cr0(CR0 & ~PG)
    gpas = np.array([0, 5, MIB, 9 * MIB + 7, 15 * MIB, 63 * MIB, 1 << 32], np.uint64)
    found = mmu.translate(gpas, "w")
    assert found.pa.tolist() == [int(gpa) + EPT_OFFSET for gpa in gpas[:5]] + [0, 0]
    assert found.references.tolist() == [4, 4, 4, 4, 3, 0, 0]
    assert found.page_shift.tolist()[:5] == [12, 12, 12, 12, 21]
    assert found.fault.tolist()[5:] == [Fault.NOT_PRESENT, Fault.NON_CANONICAL]
    assert found.code[5] >> 7 & 3 == 1  # the nested dimension
    assert mmu.stats()["ept_violations"] == 1
    want = [(pa, 1, level) for gpa in gpas[:6] for pa, _, level in
            triples(space.nested.references(gpa, "w"))]  # fmt: skip
    assert triples(ring[: mmu.records_written]) == want


def test_paging_off_nested_uses_the_nested_tlb():
    _, mmu = nested()
    mmu.mov_cr0(CR0 & ~PG)
    assert [mmu.translate_one(9 * MIB).references for _ in range(2)] == [4, 0]
    assert set(mmu.entries()["structure"].tolist()) <= {"nested-tlb", "host-2", "host-3", "host-4"}
    assert mmu.stats()["nested_tlb_hits"].sum() == 1


# ------------------------------------------------------------------------------------- the log


def logging(**options):
    return nested(ept_ad=True, set_ad=True, pml=True, **options)


def test_the_log_has_the_pages_that_became_dirty():
    space, mmu = logging()
    assert mmu.pml_log().size == 0
    vas = some(200, faults=False)
    want = []

    def becomes_dirty(gpa):
        large = gpa >= 14 * MIB
        if (gpa >> 21 if large else gpa >> 12, large) not in pages:
            pages.add((gpa >> 21 if large else gpa >> 12, large))
            want.append(gpa & ~0xFFF)

    pages = set()
    walked = set()
    for n, va in enumerate(vas.tolist()):
        access = "w" if n % 3 else "r"
        mmu.translate_one(va, access)
        # with A and D bits of EPT, the guest's tables are written by reading them
        for reference in space.references(va, access):
            if reference["dimension"] == 0 and va >> 12 not in walked:
                becomes_dirty(int(reference["address"]))
        if access == "w":
            becomes_dirty(space.translate(va).gpa)
    assert mmu.pml_log().tolist() == want
    counted = mmu.stats()
    assert counted["pml_entries"] == counted["host_d_set"] == len(want)
    assert counted["pml_full"] == 0
    assert mmu.pml_log().dtype == np.uint64


def test_a_full_log_is_emptied():
    _, mmu = logging()
    tables = 4  # of the first region: guest tables that reading makes dirty
    for page in range(PAGES):
        mmu.store(REGIONS[0] + (page << 12))
    assert len(mmu.pml_log()) == PAGES + tables
    assert mmu.pml_log()[-1] == 2 * MIB + ((PAGES - 1) << 12)
    left = 512 - PAGES - tables - 3  # the second region's own tables
    for page in range(left):
        mmu.store(REGIONS[1] + (page << 12))
    assert len(mmu.pml_log()) == 512
    assert mmu.stats()["pml_full"] == 0
    mmu.store(REGIONS[1] + (left << 12))
    assert mmu.pml_log().tolist() == [4 * MIB + (left << 12)]
    assert mmu.stats()["pml_full"] == 1
    assert mmu.stats()["pml_entries"] == 513
    mmu.store(REGIONS[1] + (left << 12))  # dirty already
    assert len(mmu.pml_log()) == 1


def test_each_vcpu_has_a_log():
    _, mmu = logging(vcpus=2)
    mmu.translate_one(REGIONS[0], "w", vcpu=1)
    mmu.translate_one(REGIONS[0], "w", vcpu=0)
    assert len(mmu.pml_log(1)) == 5
    assert mmu.pml_log(1)[-1] == 2 * MIB
    assert mmu.pml_log(0).size == 0

"""Mapping at first touch: what is mapped, in which order, and that the order is all that counts."""

import itertools
from typing import Any

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.demand import DemandMapper
from pyvirt.traces import EVENT_DTYPE, Op, accesses

SIZES = {"4K": 12, "2M": 21, "1G": 30}
KINDS: list[dict[str, Any]] = [
    *({"page": page} for page in SIZES),
    *(
        {"page": page, "nested": True, "host_page": host}
        for page, host in itertools.product(SIZES, SIZES)
    ),
    {"nested": True, "nested_format": "npt", "levels": 5, "nested_levels": 5},
    {"levels": 5, "page": "2M"},
]


def name(kind: dict[str, Any]) -> str:
    return "-".join(map(str, kind.values()))


def stream(n: int, seed: int = 1, switches: int = 0) -> Any:
    """Accesses all over both halves, some that cross a page, and loads of CR3."""
    rng = np.random.default_rng(seed)
    pages = rng.choice(rng.integers(0, 1 << 35, n // 4, dtype=np.uint64), n)
    vas = pages << np.uint64(12) | rng.integers(0, 4096, n, dtype=np.uint64)
    vas |= np.where(vas >> np.uint64(46) & np.uint64(1), np.uint64(0xFFFF << 48 | 1 << 47), 0)
    events = accesses(vas, rng.integers(1, 5, n), rng.integers(0, 65, n))
    events["vcpu"] = rng.integers(0, 3, n)
    at = rng.choice(n, switches, replace=False)
    events["op"][at] = Op.MOV_CR3
    events["value"][at] = rng.integers(1, 5, switches) << 12 | rng.integers(0, 3, switches)
    return events


def content(system: DemandMapper) -> dict[int, bytes]:
    return {int(pa): system.memory.read(int(pa), 4096) for pa in system.memory.frames()}


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_nothing_faults_and_addresses_are_right(kind: dict[str, Any]):
    system = DemandMapper(**kind)
    mmu = system.mmu(vcpus=3)
    events = stream(3000)
    out = pv.Accesses.empty(len(events))
    assert mmu.run(system.prepare(events), out=out) == len(events)
    assert out.ok.all()
    shift = SIZES[kind.get("page", "4K")]
    touched = events["addr"] >> np.uint64(shift)
    both = np.concatenate([touched, (events["addr"] + events["size"] - 1) >> np.uint64(shift)])
    assert system.page_faults == len(np.unique(both[: len(touched)])) or shift == 12
    # offsets stay, and two addresses share a page of memory only if they share their own
    smallest = min(shift, SIZES[kind.get("host_page", "1G")] if kind.get("nested") else 30)
    assert not np.any((out.pa ^ events["addr"]) & np.uint64((1 << smallest) - 1))
    if smallest == 12:
        frames = out.pa >> np.uint64(12)
        pairs = np.unique(np.stack([events["addr"] >> np.uint64(12), frames]), axis=1)
        assert len(np.unique(pairs[1])) == pairs.shape[1] == len(np.unique(pairs[0]))


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_cuts_do_not_matter(kind: dict[str, Any]):
    events = stream(2500, switches=40)
    whole = DemandMapper(**kind)
    expected = whole.prepare(events)
    memory = content(whole)
    for cuts in ([1], [1249, 1250, 1251], list(range(100, 2500, 100))):
        system = DemandMapper(**kind)
        parts = [system.prepare(part) for part in np.split(events, cuts)]
        assert np.array_equal(np.concatenate(parts), expected)
        assert content(system) == memory
        assert (system.page_faults, system.nested_faults) == (
            whole.page_faults,
            whole.nested_faults,
        )


def test_frames_come_in_the_order_of_first_touch():
    system = DemandMapper()
    vas = np.array([0x9000, 0x1000, 0x9008, 0x7FFF_0000_0000, 0x2000], np.uint64)
    assert system.touch(vas) == 4
    space = pv.AddressSpace(system.memory, system.tables[0].root)
    pas = space.translate(vas).pa
    assert (pas - pas[0]).tolist() == [0, 0x1000, 8, 0x2000, 0x3000]
    assert system.touch(vas) == 0


def test_a_guest_page_is_backed_piece_by_piece():
    system = DemandMapper("2M", nested=True, host_page="4K")
    before = system.nested_faults
    system.touch([0x20_0000, 0x20_5000, 0x20_0800])
    assert system.page_faults == 1
    # two tables below the root, and the two pieces that were touched
    assert system.nested_faults - before == 4
    mmu = system.mmu()
    assert mmu.translate([0x20_0000, 0x20_5000, 0x20_6000]).ok.tolist() == [True, True, False]


def test_the_hits_are_those_of_an_operating_system_that_maps_when_it_is_asked():
    """The page faults, too: as many as pages were mapped ahead."""
    events = stream(4000, seed=3)
    events["vcpu"] = 0
    system = DemandMapper()
    ahead = system.mmu(set_ad=False)
    ahead.run(system.serve([events]))

    other = DemandMapper()
    asked = other.mmu(set_ad=False)
    done = 0
    while done < len(events):
        ran = asked.run(events[done:], on_fault="stop")
        done += ran
        if asked.counters["page_faults"][0] > other.page_faults:
            done -= 1
            va, size = int(events["addr"][done]), int(events["size"][done])
            pages = [va, va + max(size, 1) - 1]
            missing = [p for p in pages if not asked_space(other).translate(p).ok]
            other.touch(missing)
    a, b = ahead.stats(), asked.stats()
    assert b["page_faults"] == system.page_faults == other.page_faults
    assert a["page_faults"] == 0
    assert (a["walks"] == b["walks"]).all()


def asked_space(system: DemandMapper) -> pv.AddressSpace:
    return pv.AddressSpace(system.memory, system.tables[0].root)


def test_a_new_root_is_a_new_address_space():
    events = accesses([0x1000] * 5, Op.LOAD, 8)
    events["op"][1:4:2] = Op.MOV_CR3
    events["value"][1] = 0x5000 | 7
    events["value"][3] = 0x6001 | 1 << 63
    for nested in (False, True):
        system = DemandMapper(nested=nested)
        mmu = system.mmu(cr4=0xB0 | 1 << 17)
        ready = system.prepare(events)
        assert len(system.tables) == 3
        assert system.page_faults == 3
        assert int(ready["value"][1]) == system.tables[1].root | 7
        assert int(ready["value"][3]) == system.tables[2].root | 1 | 1 << 63
        assert int(events["value"][1]) == 0x5007
        out = pv.Accesses.empty(5)
        mmu.run(ready, out=out)
        assert len(set(out.pa[[0, 2, 4]].tolist())) == 3


def test_vcpus_have_their_own_roots():
    events = accesses([0x1000] * 4, Op.LOAD, 8, vcpu=[0, 1, 0, 1])
    events["op"][1] = Op.MOV_CR3
    events["value"][1] = 0x5000
    system = DemandMapper()
    mmu = system.mmu(vcpus=2)
    out = pv.Accesses.empty(4)
    mmu.run(system.prepare(events), out=out)
    assert out.pa[0] == out.pa[2] != out.pa[3]


@pytest.mark.parametrize("nested", [False, True])
def test_addresses_that_are_not_canonical_are_passed_over(nested: bool):
    system = DemandMapper(nested=nested)
    assert system.touch([1 << 47, 0x0123_4567_89AB_CDEF, 0x1000]) == 1
    mmu = system.mmu()
    assert mmu.translate([1 << 47, 0x1000]).fault.tolist() == [pv.Fault.NON_CANONICAL, 0]


@pytest.mark.parametrize("op", [Op.STORE_TABLE, Op.MAP, Op.UNMAP, Op.PROTECT, Op.VM_SWITCH])
def test_events_about_other_tables_are_refused(op: Op):
    system = DemandMapper()
    system.prepare(accesses([0x1000] * 3))
    events = accesses([0x1000] * 5)
    events["op"][2] = op
    with pytest.raises(InvalidValueError, match=f"event 5 is {op.name}"):
        system.prepare(events)


def test_bad_arguments():
    for arguments in ({"page": "8K"}, {"host_page": 4096}, {"levels": 3}, {"nested_levels": 6}):
        with pytest.raises(InvalidValueError, match=next(iter(arguments))):
            DemandMapper(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="nested_format"):
        DemandMapper(nested_format="pae")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="levels"):
        DemandMapper(levels="4")  # type: ignore[arg-type]
    system = DemandMapper()
    with pytest.raises(InvalidValueError, match="space"):
        system.touch([0], space=1)
    with pytest.raises(InvalidTypeError, match="EVENT_DTYPE"):
        system.prepare(np.zeros(3, np.uint64))
    assert len(system.prepare(np.zeros(0, EVENT_DTYPE))) == 0


def test_too_many_address_spaces():
    events = np.zeros(5000, EVENT_DTYPE)
    events["op"] = Op.MOV_CR3
    events["value"] = np.arange(1, 5001, dtype=np.uint64) << np.uint64(12)
    with pytest.raises(InvalidValueError, match="4096 address spaces"):
        DemandMapper().prepare(events)

"""What each action does, seen in the system's own tables and in an engine's."""

import numpy as np
import pytest

import pyvirt as pv
from guest.scripted import hypervisor, leaves, native, run_hypervisor, run_native
from pyvirt.errors import (
    FrameExhaustedError,
    InvalidTypeError,
    InvalidValueError,
    MappingError,
)
from pyvirt.guest import bare_metal, profiles, refused
from pyvirt.traces import EVENT_DTYPE, Arg, Op

PAGE = 4096
HUGE = 2 << 20
W, A, D, PS = 2, 0x20, 0x40, 0x80
ADDRESS = 0x000FFFFFFFFFF000


def system(size: str = "64MiB", **options) -> pv.GuestOS:
    return pv.GuestOS(pv.PhysicalMemory(size), **options)


def entries(s: pv.GuestOS, process: int) -> dict[int, int]:
    """Leaves of user addresses by address, as the system knows them."""
    space = pv.AddressSpace(s.mem, cr3=s.root(process), levels=s.initial.levels)
    found = space.leaves()
    user = found["va"] < 1 << 63
    return dict(zip(found["va"][user].tolist(), found["entry"][user].tolist(), strict=True))


def pages(count: int, start: int = 0) -> np.ndarray:
    return start + PAGE * np.arange(count)


def area(s: pv.GuestOS, count: int, **options) -> tuple[int, int]:
    process = s.spawn()
    return process, s.mmap(process, PAGE * count, **options)


# --- first touches ---


def test_a_read_maps_the_zero_page_and_a_write_a_page_of_its_own():
    s = system()
    p, va = area(s, 2)
    assert s.touch(p, pages(2, va)) == 2
    first = entries(s, p)
    assert len({e & ADDRESS for e in first.values()}) == 1
    assert not any(e & W for e in first.values())
    assert s.touch(p, [va], Op.STORE) == 1
    assert s.touch(p, [va, va], [Op.STORE, Op.LOAD]) == 0
    after = entries(s, p)
    assert after[va] & W
    assert after[va] & D
    assert after[va] & ADDRESS != first[va] & ADDRESS
    assert after[va + PAGE] == first[va + PAGE]
    assert s.counters["zero_page"] == 2
    assert s.counters["copied"] == 1
    assert s.usage()["pages"] == 1


def test_without_the_zero_page_a_read_takes_a_frame():
    s = system(zero_page=False)
    p, va = area(s, 1)
    s.touch(p, [va])
    assert entries(s, p)[va] & W
    assert s.touch(p, [va], Op.STORE) == 0


def test_the_events_of_a_fault_follow_it():
    s = system()
    p, va = area(s, 1)
    s.switch_to(p)
    s.take()
    s.touch(p, [va + 8], Op.STORE, values=[5])
    events = s.take()
    first, last = events[0], events[-1]
    for access in (first, last):
        assert (access["op"], access["addr"], access["value"]) == (Op.STORE, va + 8, 5)
    assert first["arg"] == Arg.USER | Arg.GIVEN
    assert last["arg"] == Arg.USER | Arg.GIVEN | Arg.HANDLER
    assert (events["arg"][1:] & Arg.HANDLER == Arg.HANDLER).all()
    assert refused(events).tolist() == [True] + [False] * (len(events) - 1)
    # a table for each level below the root, and the leaf, through the direct map
    stores = events[(events["op"] == Op.STORE) & (events["arg"] & 0x70 == Arg.GIVEN)]
    written = stores["value"][stores["value"] & 1 == 1]
    assert len(written[written != 5]) == 4


@pytest.mark.parametrize("delivery", [True, False])
def test_delivery_is_a_switch(delivery):
    s = system(delivery=delivery)
    p, va = area(s, 1)
    s.touch(p, [va])
    idt = s.take()["addr"] == 0xFFFFFE0000000000 + 14 * 16
    assert idt.any() == delivery


@pytest.mark.parametrize("count", [0, 1, 64, 512])
def test_accesses_of_zeroing(count):
    s = system(page_accesses=count)
    p, va = area(s, 2)
    s.touch(p, [va], Op.STORE)
    s.take()
    s.touch(p, [va + PAGE], Op.STORE)
    events = s.take()
    frame = entries(s, p)[va + PAGE] & ADDRESS
    inside = events["addr"] - np.uint64(0xFFFF888000000000) - np.uint64(frame) < PAGE
    assert inside.sum() == count


# --- fork and copies on write ---


def test_fork_shares_and_the_last_owner_gets_w_back():
    s = system()
    p, va = area(s, 3)
    s.touch(p, pages(3, va), Op.STORE)
    before = entries(s, p)
    c = s.fork(p)
    parent, child = entries(s, p), entries(s, c)
    for at in pages(3, va).tolist():
        assert parent[at] == before[at] & ~W
        assert child[at] == before[at] & ~W & ~A
    frames = s.usage()["pages"]
    assert s.touch(c, [va], Op.STORE) == 1
    assert s.usage()["pages"] == frames + 1
    assert entries(s, p)[va] == parent[va]
    assert s.touch(p, [va], Op.STORE) == 1
    assert s.usage()["pages"] == frames + 1  # the same frame: nobody else has it
    assert entries(s, p)[va] & ADDRESS == before[va] & ADDRESS
    assert (s.counters["copied"], s.counters["reused"]) == (1, 1)
    s.exit(c)
    assert s.touch(p, pages(3, va), Op.STORE) == 2
    assert (s.counters["copied"], s.counters["reused"]) == (1, 3)


@pytest.mark.parametrize("tables", ["shadow", "tdp", "legacy"])
def test_what_a_child_writes_its_parent_does_not_read(tables):
    s = system(page_accesses=512)
    p, va = area(s, 1)
    s.touch(p, [va, va + 8], Op.STORE, values=[11, 12])
    c = s.fork(p)
    s.touch(c, [va], Op.STORE, values=[21])
    for process in (p, c):
        s.touch(process, [va, va + 8])
    events = s.take()
    values = run_hypervisor(hypervisor(s, tables), events)
    user = (events["op"] == Op.LOAD) & (events["arg"] & 1 == 1)
    assert values[user].tolist() == [11, 12, 21, 12]


@pytest.mark.parametrize("flush", [True, False])
def test_fork_flushes_once_or_page_by_page(flush):
    s = system(fork_flush=flush)
    p, va = area(s, 5)
    s.touch(p, pages(5, va), Op.STORE)
    s.take()
    s.fork(p)
    ops = s.take()["op"].tolist()
    assert ops.count(Op.MOV_CR3) == (1 if flush else 0)
    assert ops.count(Op.INVLPG) == (0 if flush else 5)


def test_exec_and_exit_give_all_back():
    s = system()
    text = s.file(20)
    free = s.free_frames
    p = s.spawn(10)
    start = int(s.areas(p)["start"][0])
    s.touch(p, pages(10, start), Op.STORE)
    c = s.fork(p)
    s.exec(c, text=text, data=3, stack=5)
    areas = s.areas(c)
    assert ((areas["end"] - areas["start"]) // PAGE).tolist() == [20, 3, 5]
    assert areas["file"].tolist() == [text, -1, -1]
    assert s.touch(c, pages(20, int(areas["start"][0])), Op.FETCH) == 20
    s.exit(c)
    assert s.usage()["cache"] == 20
    e = s.fork(p)
    s.exec(e, text=text)
    # now in the cache: one fault for each 16 pages
    assert s.touch(e, pages(20, int(s.areas(e)["start"][0])), Op.FETCH) == 2
    s.exit(e)
    s.exit(p)
    s.drop_caches()
    assert s.free_frames == free
    for again in (lambda: s.touch(p, [start]), lambda: s.exit(p)):
        with pytest.raises(InvalidValueError, match=f"no process {p}"):
            again()
    assert s.free_frames == free


# --- areas ---


def test_munmap_frees_frames_and_tables_and_flushes():
    s = system()
    p, va = area(s, 40)
    s.touch(p, pages(40, va), Op.STORE)
    tables = s.memory_of(p)[1]
    s.take()
    s.munmap(p, va, 2 * PAGE)
    assert np.count_nonzero(s.take()["op"] == Op.INVLPG) == 2
    assert s.memory_of(p) == (38, tables)
    s.munmap(p, va, 40 * PAGE)
    events = s.take()
    assert Op.INVLPG not in events["op"]
    assert Op.MOV_CR3 in events["op"]  # more than 33 pages
    assert s.memory_of(p) == (0, 1)
    with pytest.raises(MappingError, match="nothing is mapped"):
        s.touch(p, [va])
    with pytest.raises(MappingError, match="nothing is mapped"):
        s.munmap(p, va, PAGE)


def test_mprotect():
    s = system()
    p, va = area(s, 4)
    s.touch(p, pages(4, va), Op.STORE)
    s.mprotect(p, va + PAGE, 2 * PAGE, "r")
    assert [entries(s, p)[at] & W for at in pages(4, va).tolist()] == [W, 0, 0, W]
    with pytest.raises(MappingError, match=r"access 1 .*forbid"):
        s.touch(p, [va, va + PAGE], Op.STORE)
    with pytest.raises(MappingError, match="forbid"):
        s.touch(p, [va], Op.FETCH)
    s.mprotect(p, va + PAGE, PAGE, "rwx")
    assert entries(s, p)[va + PAGE] & (W | 1 << 63) == W  # its own, and dirty: W at once
    assert s.touch(p, [va + PAGE], Op.FETCH) == 0
    with pytest.raises(MappingError, match="nothing is mapped"):
        s.mprotect(p, va, 5 * PAGE, "r")


# --- huge pages ---


def test_huge_pages_at_first_touch_split_and_copied():
    s = system(huge="always")
    p, va = area(s, 1024, va=0x40000000)
    assert s.touch(p, pages(1024, va), Op.STORE) == 2
    assert all(e & PS for e in entries(s, p).values())
    s.munmap(p, va + 5 * PAGE, PAGE)
    after = entries(s, p)
    assert len(after) == 511 + 1
    assert all(bool(e & PS) == (at >= va + HUGE) for at, e in after.items())
    c = s.fork(p)
    assert s.touch(c, [va + HUGE], Op.STORE) == 1  # splits the child's, copies one page
    assert entries(s, p)[va + HUGE] & PS
    assert not entries(s, c)[va + HUGE] & PS
    assert s.counters["split"] == 2
    assert s.usage()["pages"] == 1023 + 1
    machine = hypervisor(s, "shadow")
    run_hypervisor(machine, s.take())
    for process in (p, c):
        assert leaves(machine.mem, s, process) == leaves(s.mem, s, process)
    for process in (p, c):
        s.exit(process)
    assert s.usage()["pages"] == s.usage()["tables"] == 0


def test_split():
    s = system(huge="always")
    p, va = area(s, 512, va=0x40000000)
    assert not s.split(p, va)
    s.touch(p, [va], Op.STORE)
    before = s.usage()
    assert s.split(p, va + 5 * PAGE + 1)
    assert not s.split(p, va)
    assert len(entries(s, p)) == 512
    assert s.usage()["pages"] == before["pages"]
    assert s.usage()["tables"] == before["tables"] + 1
    assert s.promote(p) == 1
    assert s.usage() == before


def test_madvise():
    s = system(huge="madvise")
    p, va = area(s, 512, va=0x40000000)
    s.touch(p, [va], Op.STORE)
    assert s.counters["huge"] == 0
    other = s.mmap(p, HUGE, va=0x50000000, huge=True)
    s.touch(p, [other], Op.STORE)
    assert s.counters["huge"] == 1


@pytest.mark.parametrize("tables", ["shadow", "tdp"])
def test_promotion_keeps_data(tables):
    s = system(page_accesses=512)
    p, va = area(s, 512, va=0x40000000)
    s.touch(p, pages(100, va), Op.STORE, values=np.arange(1, 101))
    assert s.promote(p, max_none=400) == 0
    before = s.usage()
    assert s.promote(p) == 1
    assert [e & (PS | W) for e in entries(s, p).values()] == [PS | W]
    assert s.memory_of(p) == (512, 3)
    assert s.usage()["pages"] == before["pages"] + 412
    s.touch(p, pages(101, va))
    events = s.take()
    values = run_hypervisor(hypervisor(s, tables), events)
    user = (events["op"] == Op.LOAD) & (events["arg"] & 1 == 1)
    assert values[user].tolist() == [*range(1, 101), 0]


def test_what_is_shared_is_not_promoted():
    s = system()
    p, va = area(s, 512, va=0x40000000)
    s.touch(p, pages(512, va), Op.STORE)
    c = s.fork(p)
    assert s.promote(p) == s.promote(c) == 0
    s.exit(c)
    assert s.promote(p) == 1


# --- reclaim ---


def test_reclaim_ages_first_and_takes_what_was_not_used():
    s = system()
    p, va = area(s, 10)
    s.touch(p, pages(10, va), Op.STORE)
    s.take()
    assert s.reclaim(0) == 0
    assert s.reclaim(4) == 4  # once round clears all A, then four go
    events = s.take()
    assert s.counters["aged"] == 10
    cleared = (events["op"] == Op.MODIFY) & (events["value"] == (1 << 64) - 1 - A)
    assert cleared.sum() == 10
    taken = sorted(set(pages(10, va).tolist()) - set(entries(s, p)))
    assert len(taken) == 4
    kept = sorted(entries(s, p))
    s.touch(p, kept[:3])
    assert s.reclaim(3) == 3
    assert set(kept[:3]) <= set(entries(s, p))
    assert s.touch(p, taken, Op.STORE) == 4
    assert s.counters["swapped_in"] == 4
    assert s.touch(p, taken) == 0


def test_reclaim_flushes_once_a_batch():
    s = system(reclaim_batch=8)
    p, va = area(s, 64)
    s.touch(p, pages(64, va), Op.STORE)
    s.reclaim(0)
    s.take()
    s.reclaim(32)
    assert np.count_nonzero(s.take()["op"] == Op.MOV_CR3) == 4


def test_a_shared_page_is_taken_from_all():
    s = system()
    p, va = area(s, 1)
    s.touch(p, [va], Op.STORE)
    c = s.fork(p)
    s.touch(c, [va])
    assert s.reclaim(1) == 1
    assert entries(s, p) == entries(s, c) == {}
    assert s.touch(p, [va]) == s.touch(c, [va]) == 1


def test_reclaim_makes_room():
    s = system("16MiB")
    p, va = area(s, 4096)
    with pytest.raises(FrameExhaustedError, match=r"access .* frames are free"):
        s.touch(p, pages(4096, va), Op.STORE)
    assert s.reclaim(500) == 500
    s.touch(p, pages(100, va + 3900 * PAGE), Op.STORE)
    machine = hypervisor(s, "shadow")
    run_hypervisor(machine, s.take())
    assert machine.check() == []


# --- vCPUs, numbers of address spaces, isolation ---


def test_shootdowns_go_to_the_vcpus_of_the_process():
    s = system(vcpus=3)
    p, va = area(s, 1)
    s.touch(p, [va], Op.STORE)
    s.switch_to(p, 2)
    s.take()
    s.munmap(p, va, PAGE, vcpu=0)
    events = s.take()
    flushes = events[events["op"] == Op.INVLPG]
    assert flushes["vcpu"].tolist() == [0, 2]
    assert flushes["arg"].tolist() == [0, 0]
    assert s.counters["shootdowns"] == 1


def test_broadcast():
    s = system(vcpus=3, broadcast=True)
    p, va = area(s, 1)
    s.touch(p, [va], Op.STORE)
    s.switch_to(p, 2)
    s.take()
    s.munmap(p, va, PAGE, vcpu=0)
    events = s.take()
    flushes = events[events["op"] == Op.INVLPG]
    assert flushes["arg"].tolist() == [1]


def test_numbers_of_address_spaces_are_used_again():
    s = system(pcid=True, table_stores="both")
    processes = [s.spawn() for _ in range(7)]
    s.take()
    loads = []
    for p in [*processes[:6], *processes[:6], processes[6], processes[0], processes[1]]:
        s.switch_to(p)
        events = s.take()
        loads += events["value"][events["op"] == Op.MOV_CR3].tolist()
    assert [value & 0xFFF for value in loads] == [*range(1, 7), *range(1, 7), 1, 2, 3]
    # seven share six numbers: the seventh takes the first one's, and pushes all others on
    assert [value >> 63 for value in loads] == [0] * 6 + [1] * 6 + [0] * 3


def test_a_space_that_changed_elsewhere_is_flushed_when_it_comes_back():
    s = system(pcid=True, vcpus=2, table_stores="both")
    p, va = area(s, 1)
    q = s.spawn()
    s.touch(p, [va], Op.STORE, vcpu=0)
    s.switch_to(q, 0)
    s.switch_to(p, 1)
    s.munmap(p, va, PAGE, vcpu=1)
    s.take()
    s.switch_to(p, 0)
    events = s.take()
    assert (events["value"][events["op"] == Op.MOV_CR3] >> np.uint64(63)).tolist() == [0]
    s.switch_to(q, 0)
    s.switch_to(p, 0)
    events = s.take()
    assert (events["value"][events["op"] == Op.MOV_CR3] >> np.uint64(63)).tolist() == [1, 1]


def test_isolation_loads_cr3_at_each_entry_and_exit():
    s = system(kpti=True)
    p = s.spawn()
    s.switch_to(p)
    s.take()
    s.syscall(p)
    events = s.take()
    root = s.root(p)
    assert events["value"][events["op"] == Op.MOV_CR3].tolist() == [root, root + PAGE]
    user = pv.AddressSpace(s.mem, cr3=root + PAGE).leaves()
    assert 0 < len(user) < 8  # the entry area, and the text of kernel entries
    assert (user["entry"] & 0x100 != 0).all()


def test_without_isolation_the_kernel_is_global():
    s = system()
    p = s.spawn()
    found = pv.AddressSpace(s.mem, cr3=s.root(p)).leaves()
    kernel = found[found["va"] >= 1 << 63]
    assert (kernel["entry"] & 0x100 != 0).all()


# --- recordings ---


@pytest.mark.parametrize("op", [Op.INVLPG, Op.MOV_CR3])
def test_a_recording_without_its_flushes_is_not_valid(op):
    """The comparison with engines is worth something: it sees a flush that is missing."""
    s = system(table_stores="both", flush_ceiling=33 if op == Op.INVLPG else 0)
    p, va = area(s, 4)
    s.touch(p, pages(4, va), Op.STORE)
    s.mprotect(p, va, 4 * PAGE, "r")
    s.mprotect(p, va, 4 * PAGE, "rw")
    s.munmap(p, va, 4 * PAGE)
    again = s.mmap(p, 4 * PAGE, va=va)
    s.touch(p, pages(4, again), Op.STORE)
    events = s.take()
    run_native(native(s), events)
    without = events[(events["op"] != op) | (np.arange(len(events)) < 100)]
    with pytest.raises(AssertionError):
        run_native(native(s), without)


def test_the_same_calls_give_the_same_events():
    def record(seed):
        s = system(rng=seed)
        p = s.spawn(5)
        s.exec(p, stack=4)
        stack = int(s.areas(p)["start"][-1])
        s.touch(p, [stack], Op.STORE)
        return s.take().tobytes()

    assert record(1) == record(1)
    assert record(1) != record(2)


def test_take_in_parts():
    s, other = system(), system()
    for each in (s, other):
        p = each.spawn(20)
        each.touch(p, pages(20, 0x400000), Op.STORE)
    parts = []
    while s.pending:
        parts.append(s.take(37))
        assert len(parts[-1]) <= 37
    assert (np.concatenate(parts) == other.take()).all()
    assert s.counters["events"] == sum(map(len, parts))


def test_boot_memory_is_a_copy_each_time():
    s = system()
    p = s.spawn(1)
    s.touch(p, [0x400000], Op.STORE)
    first, second = s.boot_memory(), s.boot_memory()
    first.write_u64(0x900000, 5)
    assert second.read_u64(0x900000) == 0
    assert isinstance(first, pv.PhysicalMemory)
    assert s.mem.frames_held > second.frames_held


def test_bare_metal():
    s = system()
    p = s.spawn()
    s.io(p, 3)
    s.cpuid()
    events = s.take()
    assert np.isin([Op.IO, Op.VM_EXIT], events["op"]).all()
    assert not np.isin([Op.IO, Op.VM_EXIT], bare_metal(events)["op"]).any()
    for function in (bare_metal, refused):
        with pytest.raises(InvalidTypeError, match="EVENT_DTYPE"):
            function(np.zeros(3))
    assert len(refused(np.zeros(0, EVENT_DTYPE))) == 0


# --- what cannot be ---


def test_bad_arguments_of_the_system():
    memory = pv.PhysicalMemory("64MiB")
    for options, kind, text in (
        ({"profile": "linux-6.2"}, InvalidValueError, "did you mean 'linux-6.1'"),
        ({"huge": "sometimes"}, InvalidValueError, "huge must be one of"),
        ({"table_stores": None}, InvalidValueError, "table_stores must be one of"),
        ({"pcid": 1}, InvalidTypeError, "pcid must be True or False"),
        ({"registers": -1}, InvalidValueError, "registers must be in"),
        ({"page_accesses": 3}, InvalidValueError, "page_accesses must be a power of two"),
        ({"colour": 3}, InvalidTypeError, "unknown rule 'colour'"),
        ({"levels": 3}, InvalidValueError, "levels must be in"),
        ({"vcpus": 65}, InvalidValueError, "vcpus must be in"),
        ({"rng": "x"}, InvalidTypeError, "rng must be"),
    ):
        with pytest.raises(kind, match=text):
            pv.GuestOS(memory, **options)
    with pytest.raises(InvalidTypeError, match="memory must be"):
        pv.GuestOS(None)
    with pytest.raises(InvalidValueError, match="16 MiB"):
        pv.GuestOS(pv.PhysicalMemory("8MiB"))
    memory.write_u64(0, 1)
    with pytest.raises(InvalidValueError, match="must be empty"):
        pv.GuestOS(memory)
    with pytest.raises(InvalidValueError, match="one region"):
        pv.GuestOS(pv.PhysicalMemory(regions=[(1 << 24, 1 << 26)]))


def test_bad_actions_change_nothing():
    s = system()
    p, va = area(s, 4)
    s.touch(p, pages(4, va), Op.STORE)
    s.take()
    before = s.usage(), entries(s, p), s.areas(p).tolist()
    for action, kind, text in (
        (lambda: s.touch(p, [0]), MappingError, "access 0 .*nothing is mapped at 0x0"),
        (lambda: s.touch(p, [1 << 63]), MappingError, "nothing is mapped"),
        (lambda: s.touch(p, [va + PAGE - 4]), InvalidValueError, "within one page"),
        (lambda: s.touch(p, [va], Op.MOV_CR3), InvalidValueError, "op must be"),
        (lambda: s.touch(p, [va], size=0), InvalidValueError, "size must be"),
        (lambda: s.touch(p, [va], size=16, values=[1]), InvalidValueError, "size must be"),
        (lambda: s.touch(p, [va], [1, 2]), InvalidTypeError, "op must be 1 integers"),
        (lambda: s.touch(p, [va], values=[-1]), InvalidValueError, "not be negative"),
        (lambda: s.touch(99, [va]), InvalidValueError, "no process 99"),
        (lambda: s.touch(p, [va], vcpu=1), InvalidValueError, "vcpu must be in"),
        (lambda: s.mmap(p, PAGE, va=va), MappingError, "something is mapped"),
        (lambda: s.mmap(p, 100), InvalidValueError, "whole 4 KiB pages"),
        (lambda: s.mmap(p, PAGE, va=1 << 47), InvalidValueError, "va must be in"),
        (lambda: s.mmap(p, 1 << 47), MappingError, "no range of addresses"),
        (lambda: s.mmap(p, PAGE, rights="w"), InvalidValueError, "rights must be"),
        (lambda: s.mmap(p, PAGE, file=0), InvalidValueError, "no file"),
        (lambda: s.munmap(p, va + 1, PAGE), InvalidValueError, "whole 4 KiB pages"),
        (lambda: s.munmap(p, 0x1000, PAGE), MappingError, "nothing is mapped"),
        (lambda: s.exit(p + 1), InvalidValueError, "no process"),
        (lambda: s.split(p, 1 << 60), InvalidValueError, "va must be in"),
        (lambda: s.exec(p, text=3), InvalidValueError, "no file"),
        (lambda: s.switch_to(p, 1), InvalidValueError, "vcpu must be in"),
        (lambda: s.switch_to(p, cause="x"), InvalidValueError, "cause must be one of"),
        (lambda: s.reclaim(-1), InvalidValueError, "pages must be in"),
        (lambda: s.promote(p, max_none=512), InvalidValueError, "most_absent must be in"),
        (lambda: s.spawn("x"), InvalidTypeError, "pages must be an integer"),
    ):
        with pytest.raises(kind, match=text):
            action()
        assert (s.usage(), entries(s, p), s.areas(p).tolist()) == before, text
    assert not refused(s.take()).any()
    assert s.touch(p, pages(4, va), Op.STORE) == 0
    run = hypervisor(s, "tdp")
    assert run.check() == []


def test_out_of_memory_is_said_before_anything_happens():
    s = system("16MiB")
    p, va = area(s, 1600)
    s.touch(p, pages(1600, va), Op.STORE)
    others = []
    while s.free_frames > s.memory_of(p)[1] + 8:
        others.append(s.fork(p))
    usage = s.usage()
    s.take()
    with pytest.raises(FrameExhaustedError, match="fork of process"):
        s.fork(p)
    assert s.usage() == usage
    assert len(s.take()) == 0
    for each in others:
        s.exit(each)
    s.exit(s.fork(p))
    with pytest.raises(FrameExhaustedError, match="promotion"):
        s.promote(p)


def test_the_host_side_is_checked():
    with pytest.raises(InvalidTypeError, match="not initialised"):
        pv.GuestOS.__new__(pv.GuestOS).take()
    s = system()
    with pytest.raises(InvalidTypeError, match="initialised already"):
        s.__init__(pv.PhysicalMemory("64MiB"))


def test_profiles_name_their_sources():
    assert "linux-6.1" in profiles.names()
    for name in profiles.names():
        for table in profiles.read(name).values():
            for value in table.values():
                assert len(value.source) >= len("a choice")
    with pytest.raises(InvalidValueError, match="profile must be one of"):
        profiles.read("vms")

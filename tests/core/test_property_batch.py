"""Batches, memos, splits, writes in between, copies: none may change what is reported."""

import copy
import itertools
import pickle

import numpy as np
import pytest

from core.compare import (
    FIELDS,
    dirty,
    fast_memory,
    fast_space,
    keywords,
    part_of,
    rows_of,
    values_of,
    words_of,
)
from core.strategies import Case, cases, quick_and_slow
from oracle.slowwalk import SlowWalk
from pyvirt._core.builder import PageTables
from pyvirt._core.physmem import PhysMem
from pyvirt.errors import Fault, PageFaultError
from pyvirt.mmu import AddressSpace

NEAR = (0, 0, 8, 0x1000, 0x3000, 1 << 21, 1 << 30, 1 << 39, 1 << 47, 1 << 48, 1 << 63)


def stream_of(case: Case, count: int) -> np.ndarray:
    """Addresses with the locality that memos live from: repeats, neighbours, and jumps."""
    tape, stream = case.tape, []
    for _ in range(count):
        if stream and tape.chance(40):
            near = stream[-1] ^ tape.pick(NEAR)
            stream.append(near & 0xFFFF_FFFF_FFFF_FFFF)
        else:
            stream.append(tape.pick(case.addresses))
    stream = np.array(stream, np.uint64)
    return np.sort(stream) if tape.chance(30) else stream


def expected_of(slow: SlowWalk, vas: np.ndarray, access: str, user: bool, **options) -> list[dict]:
    """The oracle's rows for a batch."""
    return [values_of(slow.translate(va, access, user, **options)) for va in vas.tolist()]


def check_batches(case: Case) -> None:
    """Batch = scalar = any split, with and without memo, with and without detail."""
    slow = case.walker()
    spaces = [fast_space(fast_memory(case.memory), case.dims, memo) for memo in (True, False)]
    split = fast_space(fast_memory(case.memory), case.dims)
    alone = fast_space(fast_memory(case.memory), case.dims)
    plain = fast_space(fast_memory(case.memory), case.dims)
    for _ in range(3):
        vas = stream_of(case, 60)
        access, user = case.tape.pick("rwx"), case.tape.chance(50)
        ram = case.tape.chance(25)
        expected = expected_of(slow, vas, access, user, require_ram=ram)
        for space in spaces:
            found = space.translate(vas, access, user, detail=True, require_ram=ram)
            assert rows_of(found) == expected
        out = dirty(len(vas), detail=True)
        cuts = sorted({0, len(vas), *(case.tape.below(len(vas)) for _ in range(4))})
        for lo, hi in itertools.pairwise(cuts):
            split.translate(vas[lo:hi], access, user, out=part_of(out, lo, hi), require_ram=ram)
        assert rows_of(out) == expected
        found = [alone.translate(va, access, user, require_ram=ram) for va in vas.tolist()]
        assert [values_of(one) for one in found] == expected
        found = plain.translate(vas, access, user, out=dirty(len(vas), False), require_ram=ram)
        assert rows_of(found) == [{name: row[name] for name in FIELDS[:4]} for row in expected]
    for space in (*spaces, split, alone, plain):
        assert words_of(space.mem) == slow.memory.nonzero()


def write_somewhere(case: Case, slow: SlowWalk, memory: PhysMem) -> None:
    """Change words that hold entries, by one of the ways that a memory offers."""
    tape, words = case.tape, sorted(slow.memory.words)
    where = tape.pick(words)
    value = slow.memory.load(tape.pick(words))
    if tape.chance(30):
        value = slow.memory.load(where) ^ 1 << tape.below(64)
    how = tape.below(6)
    if how == 0:
        memory.write_u64(where, value)
    elif how == 1:
        memory.write(where, value.to_bytes(8, "little"))
    elif how == 2:
        memory.write_batch(np.array([where], np.uint64), np.array([value], np.uint64))
    elif how == 3:
        memory.load(where, value.to_bytes(8, "little"))
    elif how == 4:
        memory.write_u32(where, value & 0xFFFFFFFF)
        value = slow.memory.load(where) & ~0xFFFFFFFF | value & 0xFFFFFFFF
    else:
        block = np.frombuffer(value.to_bytes(8, "little"), np.uint8).reshape(1, 8)
        memory.write_blocks(np.array([where], np.uint64), block)
    slow.memory.store(where, value)


def check_writes(case: Case) -> None:
    """A memo never outlives a write to the memory, whoever writes and however.

    Two more spaces work on the same memory: one without memo, and one that shares the outer
    dimensions, as the address spaces of one guest do, with their memos.
    """
    slow = case.walker()
    memory = fast_memory(case.memory)
    space = fast_space(memory, case.dims)
    plain = fast_space(memory, case.dims, memo=False)
    first = case.dims[0]
    shared = AddressSpace(memory, first.root, outer=space.outer, **keywords(first))
    outer_slow = SlowWalk(slow.memory, *case.dims[1:])
    for _ in range(8):
        vas = stream_of(case, 20)
        access, user = case.tape.pick("rwx"), case.tape.chance(50)
        expected = expected_of(slow, vas, access, user)
        assert rows_of(space.translate(vas, access, user, detail=True)) == expected
        how = case.tape.below(6)
        va, user = case.tape.pick(case.addresses), case.tape.chance(50)
        if how < 2:  # A and D bits that another walker sets
            other = (plain, shared)[how]
            found = values_of(other.translate(va, "w", user))
            assert found == values_of(slow.translate(va, "w", user))
        elif how == 2 and space.outer is not None:  # or that the outer dimensions set alone
            pa = slow.quiet().translate(va).gpa
            found = values_of(space.outer.translate_one(pa, "w", user))
            assert found == values_of(outer_slow.translate(pa, "w", user))
        elif how > 2:
            write_somewhere(case, slow, memory)
        for va in vas[:3].tolist():
            found = space.translate(va, access, user)
            assert values_of(found) == values_of(slow.translate(va, access, user))
    assert words_of(memory) == slow.memory.nonzero()


def outer_of(space: AddressSpace) -> list:
    """The walkers of a space, innermost first."""
    walkers = [space]
    while walkers[-1].outer is not None:
        walkers.append(walkers[-1].outer)
    return walkers


def check_copies(case: Case) -> None:
    """Copies and pickles translate as the original, and a deep one has a memory of its own."""
    slow = case.walker()
    space = fast_space(fast_memory(case.memory), case.dims)
    warm = stream_of(case, 20)
    access, user = case.tape.pick("rwx"), case.tape.chance(50)
    space.translate(warm, access, user)
    expected_of(slow, warm, access, user)
    before = words_of(space.mem)
    twins = [pickle.loads(pickle.dumps(space)), copy.deepcopy(space)]
    shallow = copy.copy(space)
    assert shallow.mem is space.mem
    for twin in twins:
        assert type(twin) is type(space)
        assert twin.mem is not space.mem
        assert all(walker.mem is twin.mem for walker in outer_of(twin))
        assert words_of(twin.mem) == before
    memories = [slow.memory.copy() for _ in twins]
    for twin, memory in zip(twins, memories, strict=True):
        vas = stream_of(case, 20)
        expected = expected_of(SlowWalk(memory, *case.dims), vas, "w", user)
        assert rows_of(twin.translate(vas, "w", user, detail=True)) == expected
        assert words_of(twin.mem) == memory.nonzero()
        assert words_of(space.mem) == before
    vas = stream_of(case, 20)
    expected = expected_of(slow, vas, access, user)
    assert rows_of(shallow.translate(vas, access, user, detail=True)) == expected
    assert words_of(space.mem) == slow.memory.nonzero()


def check_stop(case: Case) -> None:
    """``stop`` and ``raise`` end at the first fault and touch nothing after it."""
    slow = case.walker()
    stop = fast_space(fast_memory(case.memory), case.dims)
    fail = fast_space(fast_memory(case.memory), case.dims)
    for _ in range(4):
        vas = np.array([case.tape.pick(case.addresses) for _ in range(6)], np.uint64)
        access, user = case.tape.pick("rwx"), case.tape.chance(50)
        expected = []
        for va in vas.tolist():
            expected.append(values_of(slow.translate(va, access, user)))
            if expected[-1]["code"]:
                break
        done = len(expected)
        found = stop.translate(vas, access, user, on_fault="stop", detail=True)
        assert rows_of(found)[:done] == expected
        assert found.code[done:].tolist() == [Fault.SKIPPED] * (len(vas) - done)
        assert not found.pa[done:].any()
        if expected[-1]["code"]:
            with pytest.raises(PageFaultError) as caught:
                fail.translate(vas, access, user, on_fault="raise")
            assert (caught.value.va, caught.value.code) == (vas[done - 1], expected[-1]["code"])
        else:
            assert (
                rows_of(fail.translate(vas, access, user, on_fault="raise", detail=True))
                == expected
            )
    assert words_of(stop.mem) == words_of(fail.mem) == slow.memory.nonzero()


NATIVE, NESTED, THREE = cases(1), cases(2), cases(3)
test_batches, test_batches_slow = quick_and_slow(check_batches, NATIVE, 100, 1500)
test_nested_batches, test_nested_batches_slow = quick_and_slow(check_batches, NESTED, 100, 1500)
test_three_batches, test_three_batches_slow = quick_and_slow(check_batches, THREE, 30, 500)
test_writes, test_writes_slow = quick_and_slow(check_writes, NATIVE, 100, 1500)
test_nested_writes, test_nested_writes_slow = quick_and_slow(check_writes, NESTED, 150, 2500)
test_three_writes, test_three_writes_slow = quick_and_slow(check_writes, THREE, 30, 500)
test_copies, test_copies_slow = quick_and_slow(check_copies, NATIVE, 50, 500)
test_nested_copies, test_nested_copies_slow = quick_and_slow(check_copies, NESTED, 50, 500)
test_three_copies, test_three_copies_slow = quick_and_slow(check_copies, THREE, 20, 200)
test_stop, test_stop_slow = quick_and_slow(check_stop, NATIVE, 80, 1000)
test_nested_stop, test_nested_stop_slow = quick_and_slow(check_stop, NESTED, 80, 1000)


def test_three_dimensions_do_not_mistake_a_middle_address_for_a_host_one():
    """Found by fuzzing: plausible tables at the host address that equals the middle one."""
    mem = PhysMem(16 << 20)
    ept = PageTables(mem, format="ept", frames=(0x100000, 0x100000))
    ept.map_range(0x200000, 0x400000, 0x200000)
    npt = PageTables(mem, format="npt", frames=(0x200000, 0x100000), outer=ept.walker())
    npt.map_range(0, 0x300000, 0x100000)
    guest = PageTables(mem, frames=(0x1000, 0x80000), outer=npt.walker())
    guest.map([0], [0x50000])
    mem.write(0x301000, mem.read(0x501000, 0x4000))
    mem.write_u64(0x304000, 0x60007)
    space = AddressSpace(mem, guest.root, outer=npt.walker())
    assert space.translate(0).pa == 0x550000
    assert space.translate(np.zeros(9, np.uint64)).pa.tolist() == [0x550000] * 9

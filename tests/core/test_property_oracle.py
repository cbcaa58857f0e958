"""The slow walker itself: worked examples from the manuals, and what the random cases reach."""

import random
from itertools import product

import pytest

from core.strategies import MIB, Tape, built, garbage
from oracle import slowwalk
from oracle.slowwalk import (
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    Dim,
    SlowMemory,
    SlowWalk,
    decode,
    judge,
)
from pyvirt.errors import Fault

LONG, PAE, LEGACY, EPT, NPT = (
    {"format": name, "root": 0} for name in ("x86-64", "pae", "x86-32", "ept", "npt")
)
FINE, ABSENT, RESERVED, WRONG = Fault.NONE, Fault.NOT_PRESENT, Fault.RESERVED, Fault.MISCONFIGURED


@pytest.mark.parametrize(
    ("dim", "level", "entry", "verdict"),
    [
        # SDM vol. 3, tables 5-15 to 5-20; APM vol. 2, 5.3.3
        (LONG, 4, 0, ABSENT),
        (LONG, 4, 0xFFFF_FFFF_FFFF_FFFE, ABSENT),
        (LONG, 4, 0x81, RESERVED),
        (LONG, 5, 0x81, RESERVED),
        (LONG, 4, 0x101, FINE),
        (LONG | {"vendor": "amd"}, 4, 0x101, RESERVED),
        (LONG | {"vendor": "amd"}, 5, 0x101, RESERVED),
        (LONG | {"vendor": "amd"}, 3, 0x101, RESERVED),
        (LONG | {"vendor": "amd"}, 3, 0x181, FINE),
        (LONG | {"vendor": "amd"}, 2, 0x101, FINE),
        (LONG, 3, 0x81, FINE),
        (LONG | {"large_1g": False}, 3, 0x81, RESERVED),
        (LONG, 3, 0x81 | 1 << 12, FINE),  # PAT of a large page
        (LONG, 3, 0x81 | 1 << 13, RESERVED),
        (LONG, 3, 0x81 | 1 << 29, RESERVED),
        (LONG, 3, 0x81 | 1 << 30, FINE),
        (LONG, 2, 0x81 | 1 << 12, FINE),
        (LONG, 2, 0x81 | 1 << 20, RESERVED),
        (LONG, 2, 0x81 | 1 << 21, FINE),
        (LONG, 1, 0xFFF, FINE),  # bit 7 is PAT here
        (LONG | {"pa_width": 48}, 1, 1 | 1 << 47, FINE),
        (LONG | {"pa_width": 48}, 1, 1 | 1 << 48, RESERVED),
        (LONG | {"pa_width": 48}, 1, 1 | 1 << 51, RESERVED),
        (LONG | {"pa_width": 48}, 1, 1 | 0x7FF << 52, FINE),
        (LONG, 1, 1 | 1 << 63, FINE),
        (LONG | {"efer": 0}, 1, 1 | 1 << 63, RESERVED),
        (NPT, 4, 0x101, RESERVED),
        (NPT, 3, 0x101, RESERVED),
        (NPT, 2, 0x101, FINE),
        # SDM tables 5-8 to 5-11
        (PAE, 3, 0x1, FINE),
        (PAE, 3, 0x3, RESERVED),
        (PAE, 3, 0x5, RESERVED),
        (PAE, 3, 0x21, RESERVED),
        (PAE, 3, 0x101, RESERVED),
        (PAE, 3, 0xE19, FINE),
        (PAE, 3, 1 | 1 << 52, RESERVED),
        (PAE, 3, 1 | 1 << 63, RESERVED),
        (PAE, 2, 0x81 | 1 << 13, RESERVED),
        (PAE, 2, 1 | 1 << 13, FINE),
        (PAE, 1, 1 | 1 << 62, RESERVED),
        (PAE, 1, 1 | 1 << 63, FINE),
        (PAE | {"efer": 0}, 1, 1 | 1 << 63, RESERVED),
        (PAE | {"pa_width": 40}, 2, 1 | 1 << 39, FINE),
        (PAE | {"pa_width": 40}, 2, 1 | 1 << 40, RESERVED),
        # SDM table 5-4: PSE-36
        (LEGACY, 2, 0x81 | 1 << 21, FINE),  # PS is ignored without CR4.PSE
        (LEGACY | {"cr4": CR4_PSE}, 2, 0x81 | 1 << 21, RESERVED),
        (LEGACY | {"cr4": CR4_PSE}, 2, 0x81 | 1 << 20, FINE),
        (LEGACY | {"cr4": CR4_PSE, "pa_width": 36}, 2, 0x81 | 1 << 16, FINE),
        (LEGACY | {"cr4": CR4_PSE, "pa_width": 36}, 2, 0x81 | 1 << 17, RESERVED),
        (LEGACY | {"cr4": CR4_PSE, "pa_width": 32}, 2, 0x81 | 1 << 13, RESERVED),
        (LEGACY | {"cr4": CR4_PSE, "pa_width": 32}, 2, 0x81 | 1 << 12, FINE),
        (LEGACY, 1, 0xFFFF_FFFF, FINE),
        # SDM tables 30-1 to 30-6 and 30.3.3.1
        (EPT, 4, 0xFFFF_FFFF_FFFF_F3F8, ABSENT),
        (EPT, 4, 0x400, ABSENT),
        (EPT | {"mbec": True}, 4, 0x400, FINE),
        (EPT | {"mbec": True, "exec_only": False}, 4, 0x400, WRONG),
        (EPT, 4, 2, WRONG),
        (EPT, 4, 6, WRONG),
        (EPT, 4, 4, FINE),
        (EPT | {"exec_only": False}, 4, 4, WRONG),
        (EPT | {"exec_only": False}, 4, 5, FINE),
        (EPT, 5, 0x7 | 1 << 7, WRONG),
        (EPT, 4, 0x7 | 1 << 7, WRONG),
        (EPT, 4, 0x7 | 1 << 3, WRONG),
        (EPT, 3, 0x7 | 1 << 6, WRONG),
        (EPT, 2, 0x7 | 1 << 3, WRONG),
        (EPT, 2, 0xF07, FINE),
        (EPT, 3, 0xB7, FINE),
        (EPT | {"large_1g": False}, 3, 0xB7, WRONG),
        (EPT, 3, 0xB7 | 1 << 12, WRONG),
        (EPT, 3, 0xB7 | 1 << 29, WRONG),
        (EPT, 2, 0xB7 | 1 << 12, WRONG),
        (EPT, 2, 0xB7 | 1 << 20, WRONG),
        (EPT, 2, 0xB7 | 1 << 21, FINE),
        *((EPT, 1, 7 | kind << 3, WRONG if kind in (2, 3, 7) else FINE) for kind in range(8)),
        (EPT | {"pa_width": 46}, 1, 7 | 1 << 45, FINE),
        (EPT | {"pa_width": 46}, 1, 7 | 1 << 46, WRONG),
        (EPT, 1, 7 | 0xFFF << 52, FINE),
    ],
)
def test_entry(dim, level, entry, verdict):
    found = decode(Dim(**dim), level, entry)
    assert (found.wrong if found.present else Fault.NOT_PRESENT) == verdict


USER_PAGE, KERNEL_PAGE = slowwalk.Rights(), slowwalk.Rights(user=False)
READ_ONLY = slowwalk.Rights(write=False, execute=False)
KEY5 = 5 << 59
DENY, NO_WRITE_KEY = 1 << 10, 2 << 10


@pytest.mark.parametrize(
    ("control", "entry", "rights", "access", "user", "fault"),
    [
        ({}, 0, USER_PAGE, "r", True, FINE),
        ({}, 0, KERNEL_PAGE, "r", True, Fault.NOT_USER),
        ({}, 0, READ_ONLY, "w", True, Fault.NO_WRITE),
        ({}, 0, READ_ONLY, "w", False, Fault.NO_WRITE),
        ({"cr0": 0}, 0, READ_ONLY, "w", False, FINE),
        ({"cr0": 0}, 0, READ_ONLY, "w", True, Fault.NO_WRITE),
        ({}, 0, READ_ONLY, "x", False, Fault.NO_EXEC),
        ({"cr4": CR4_SMEP}, 0, READ_ONLY, "x", False, Fault.SMEP),
        ({"cr4": CR4_SMEP}, 0, USER_PAGE, "x", True, FINE),
        ({"cr4": CR4_SMEP}, 0, KERNEL_PAGE, "x", False, FINE),
        ({"cr4": CR4_SMAP}, 0, READ_ONLY, "w", False, Fault.SMAP),
        ({"cr4": CR4_SMAP}, 0, USER_PAGE, "x", False, FINE),
        ({"cr4": CR4_SMAP, "ac": True}, 0, USER_PAGE, "r", False, FINE),
        ({"cr4": CR4_PKE, "pkru": DENY}, KEY5, USER_PAGE, "r", False, Fault.PROTECTION_KEY),
        ({"cr4": CR4_PKE, "pkru": DENY}, KEY5, USER_PAGE, "x", True, FINE),
        ({"cr4": CR4_PKE, "pkru": DENY}, 4 << 59, USER_PAGE, "r", True, FINE),
        ({"cr4": CR4_PKE, "pkru": DENY}, KEY5, KERNEL_PAGE, "r", False, FINE),
        ({"cr4": CR4_PKE, "pkru": DENY}, KEY5, KERNEL_PAGE, "r", True, Fault.NOT_USER),
        ({"cr4": CR4_PKE, "pkru": NO_WRITE_KEY}, KEY5, USER_PAGE, "r", True, FINE),
        ({"cr4": CR4_PKE, "pkru": NO_WRITE_KEY}, KEY5, USER_PAGE, "w", True, Fault.PROTECTION_KEY),
        ({"cr4": CR4_PKE, "pkru": NO_WRITE_KEY}, KEY5, READ_ONLY, "w", True, Fault.NO_WRITE),
        ({"cr4": CR4_PKE, "pkru": NO_WRITE_KEY, "cr0": 0}, KEY5, USER_PAGE, "w", False, FINE),
        ({"cr4": CR4_PKS, "pkrs": DENY}, KEY5, KERNEL_PAGE, "r", False, Fault.PROTECTION_KEY),
        ({"cr4": CR4_PKS, "pkrs": DENY}, KEY5, USER_PAGE, "r", False, FINE),
        ({"cr4": CR4_PKS, "pkrs": NO_WRITE_KEY, "cr0": 0}, KEY5, KERNEL_PAGE, "w", False, FINE),
        ({"cr4": 0, "pkru": DENY}, KEY5, USER_PAGE, "r", True, FINE),
        ({"format": "npt"}, 0, KERNEL_PAGE, "r", False, Fault.NOT_USER),
        ({"format": "npt", "cr0": 0}, 0, READ_ONLY, "w", False, Fault.NO_WRITE),
        ({"format": "ept"}, 0, READ_ONLY, "w", False, Fault.NO_WRITE),
        ({"format": "ept"}, 0, slowwalk.Rights(read=False), "r", False, Fault.NO_READ),
        ({"format": "ept"}, 0, slowwalk.Rights(read=False), "x", False, FINE),
        ({"format": "ept"}, 0, slowwalk.Rights(execute=False), "x", True, Fault.NO_EXEC),
        (
            {"format": "ept", "mbec": True},
            0,
            slowwalk.Rights(user_execute=False),
            "x",
            True,
            Fault.NO_EXEC,
        ),
        ({"format": "ept", "mbec": True}, 0, slowwalk.Rights(user_execute=False), "x", False, FINE),
    ],
)
def test_rights(control, entry, rights, access, user, fault):
    dim = Dim(**{"format": "x86-64", "root": 0} | control)
    assert judge(dim, entry, rights, access, user) == fault


def identity(*shapes: tuple[str, int], shifts: tuple[int, ...] = (), **control) -> SlowWalk:
    """One page at 0x40000000 mapped through dimensions that each have the given leaf size.

    Every table page is backed by a leaf of the dimension's size too, as experiment A6 has it.
    """
    memory, dims = SlowMemory([(0, 64 * MIB)]), []
    for d, (name, levels) in enumerate(shapes):
        # One table per level, used for every address: entry i of each table is the same.
        tables = [0x10000 * (d + 1) + 0x1000 * level for level in range(levels + 1)]
        dim = Dim(name, tables[levels], levels, **control)
        dims.append(dim)
        shift = shifts[d] if shifts else 12
        for level in range(levels, 0, -1):
            leaf = dim.shift(level) == shift
            for index in range(512):
                base = index << dim.shift(level) if leaf and level < 3 else 0
                entry = base if leaf else tables[level - 1]
                entry |= 7 | (0x80 if leaf and level > 1 else 0)
                memory.store(tables[level] + 8 * index, entry)
            if leaf:
                break
    return SlowWalk(memory, *dims)


@pytest.mark.parametrize(("n", "m"), [*product((2, 3, 4, 5), repeat=2)])
def test_references_of_a_nested_walk(n, m):
    """(n + 1)(m + 1) - 1 reads for n guest and m nested reads, in the order of hardware."""
    shapes = [("x86-64", 5 if n == 5 else 4), ("ept", 5 if m == 5 else 4)]
    shifts = tuple(12 if reads >= 4 else 12 + 9 * (4 - reads) for reads in (n, m))
    walk = identity(*shapes, shifts=shifts)
    result = walk.translate(0x1234)
    assert result.code == 0
    assert len(result.references) == (n + 1) * (m + 1) - 1
    order = [(r.dimension, r.level) for r in result.references]
    nested = [(1, level) for level in range(shapes[1][1], shapes[1][1] - m, -1)]
    top = shapes[0][1]
    assert order == [
        step for level in range(top, top - n, -1) for step in (*nested, (0, level))
    ] + list(nested)


def test_references_in_three_dimensions():
    walk = identity(("x86-64", 4), ("npt", 4), ("ept", 4))
    assert len(walk.translate(0x1234).references) == 124


def test_fault_codes_name_the_table_being_read():
    walk = identity(("x86-64", 4), ("npt", 4), ("ept", 4))
    walk.memory.store(walk.dims[2].root - 0x2000 + 8 * 0, 0)  # EPT level 2, as all walks use it
    result = walk.translate(0x1234)
    assert result.code == Fault.NOT_PRESENT | 2 << 4 | 2 << 7 | 4 << 10 | 4 << 13
    assert result.error == 0x81  # a read, of a table, with a linear address


def test_accessed_and_dirty():
    walk = identity(("x86-64", 4), set_ad=True)
    root = walk.dims[0].root
    before = walk.memory.nonzero()
    assert walk.translate(0x1234, "w", True).entry == 0x1067
    changed = {
        pa: word ^ before[pa] for pa, word in walk.memory.words.items() if word != before[pa]
    }
    assert changed == {
        root: 0x20,
        root - 0x1000: 0x20,
        root - 0x2000: 0x20,
        root - 0x3000 + 8: 0x60,
    }
    walk.memory.store(root - 0x3000 + 8, 0x1000)
    before = walk.memory.nonzero()
    assert walk.translate(0x1234, "w").code
    assert walk.memory.nonzero() == before


def test_every_fault_occurs_in_the_random_cases():
    """The strategies reach each kind of fault in each dimension that can have it."""
    own = {Fault(kind) for kind in range(Fault.OUTSIDE_DATA)}
    outer = own - {Fault.NONE, Fault.SMEP, Fault.SMAP, Fault.PROTECTION_KEY, Fault.NON_CANONICAL}
    missing = {(0, fault) for fault in own} | {(d, fault) for d in (1, 2) for fault in outer}
    source = random.Random(7)
    for i in range(5000):
        case = (garbage, built)[i % 2](Tape(source.randbytes(4096)), 1 + i % 3)
        walk = case.walker()
        for trial in case.trials(16):
            code = walk.translate(*trial).code
            missing.discard((code >> 7 & 3, Fault(code & 15)))
        if not missing:
            break
    assert not missing


def test_the_builder_of_cases_maps_what_it_says():
    source = random.Random(3)
    mapped = asked = 0
    for i in range(15):
        case = built(Tape(source.randbytes(2048)), 1 + i % 3, damage=False)
        leaves = {(va, leaf.shift, leaf.own) for va, leaf in case.walker().leaves()}
        assert leaves <= set(case.pages)  # some have no rights at all, or a forbidden memory type
        mapped, asked = mapped + len(leaves), asked + len(case.pages)
    assert mapped > asked * 0.9

"""One address at a time: the engine equals the slow walker in everything that it reports."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume

from core.compare import fast_memory, keywords, pair, references_of, values_of, words_of
from core.strategies import MIB, Case, cases, quick_and_slow
from oracle.slowwalk import EFER_NXE
from pyvirt import AddressSpace, NestedAddressSpace, PageTables, PhysicalMemory


def check(case: Case) -> None:
    """Result, fault and error codes, references in order, and memory after A/D updates."""
    slow, fast, memory = pair(case)
    for trial in case.trials(16):
        version = memory.version
        assert references_of(fast, *trial) == slow.quiet().translate(*trial).references, trial
        assert memory.version == version, "references() must not write"
        ram = case.tape.chance(30)
        expected = values_of(slow.translate(*trial, require_ram=ram))
        found = fast.translate(*trial, require_ram=ram)
        assert values_of(found) == expected, trial
        assert found.ok == (expected["code"] == 0)
    assert words_of(memory) == slow.memory.nonzero()


def check_nested_space(case: Case) -> None:
    """`NestedAddressSpace` is a guest's walker over a nested one.

    The nested dimension goes by the host's EFER, which the guest does not set.
    """
    guest, nested = case.dims
    assume(guest.format in ("x86-64", "pae", "x86-32"))
    shared = {
        name: getattr(guest, name)
        for name in ("pa_width", "large_1g", "exec_only", "ept_ad", "mbec", "set_ad")
    }
    case.dims = guest, replace(nested, efer=EFER_NXE, **shared)
    slow = case.walker()
    options = keywords(guest)
    space = NestedAddressSpace(
        fast_memory(case.memory),
        guest_cr3=guest.root,
        nested_root=nested.root,
        nested_format=nested.format,
        guest_levels=options.pop("levels"),
        nested_levels=nested.levels,
        guest_format=options.pop("format"),
        **options,
    )
    for trial in case.trials(16):
        assert values_of(space.translate(*trial)) == values_of(slow.translate(*trial)), trial
    assert words_of(space.mem) == slow.memory.nonzero()


test_garbage, test_garbage_slow = quick_and_slow(check, cases(1, "garbage"), 500, 6000)
test_built, test_built_slow = quick_and_slow(check, cases(1, "built"), 300, 4000)
test_nested_garbage, test_nested_garbage_slow = quick_and_slow(
    check, cases(2, "garbage"), 300, 4000
)
test_nested_built, test_nested_built_slow = quick_and_slow(check, cases(2, "built"), 300, 4000)
test_three_garbage, test_three_garbage_slow = quick_and_slow(check, cases(3, "garbage"), 150, 2000)
test_three_built, test_three_built_slow = quick_and_slow(check, cases(3, "built"), 100, 1000)
test_nested_space, test_nested_space_slow = quick_and_slow(check_nested_space, cases(2), 200, 2000)


FRAMES = np.arange(0, MIB, 4096, dtype=np.uint64)


@pytest.mark.parametrize("efer", [0, EFER_NXE])
def test_nested_tables_go_by_the_hosts_efer(efer):
    """A guest without NX runs on nested tables with NX (APM vol. 2, 15.25: the host's EFER)."""
    memory = PhysicalMemory(16 * MIB)
    nested = PageTables(memory, format="npt", frames=(MIB, MIB))
    nested.map(FRAMES, FRAMES, rights="rwu")
    guest = PageTables(memory, frames=(0x40000, 0x10000), outer=nested.walker(), format="x86-32")
    guest.map([0x400000], [0x5000], rights="rwx")
    space = NestedAddressSpace(
        memory,
        guest_cr3=guest.root,
        nested_root=nested.root,
        guest_format="x86-32",
        efer=efer,
    )
    assert space.translate(0x400000).pa == 0x5000


@pytest.mark.parametrize("kind", ["pae", "x86-32"])
def test_cr3_outside_long_mode_has_32_bits(kind):
    """Bits 63:32 are ignored (SDM vol. 3, tables 5-3 and 5-7)."""
    memory = PhysicalMemory(16 * MIB)
    tables = PageTables(memory, frames=(MIB, MIB), format=kind)
    tables.map([0x1000], [0x5000], rights="rwx")
    assert AddressSpace(memory, tables.root | 1 << 40, format=kind).translate(0x1000).pa == 0x5000


def test_the_final_bit_in_three_dimensions():
    """A guest's page-table entry is no final address, however far out its translation fails."""
    memory = PhysicalMemory(64 * MIB)
    outermost = PageTables(memory, format="ept", frames=(32 * MIB, MIB))
    outermost.map(*[np.arange(0, 2 * MIB, 4096, dtype=np.uint64)] * 2)
    nested = PageTables(memory, format="npt", frames=(MIB, MIB // 2), outer=outermost.walker())
    nested.map(FRAMES, FRAMES, rights="rwxu")
    guest = PageTables(memory, frames=(0x40000, 0x10000), outer=nested.walker())
    guest.map([0x400000], [0x5000])
    space = guest.walker()
    last = [row for row in space.references(0x400000) if row["dimension"] == 0][-1]
    for address, qualification in ((0x5000, 0x181), (int(last["address"]) & ~0xFFF, 0x82)):
        outermost.unmap(address, 4096)
        assert space.translate_one(0x400000).error == qualification

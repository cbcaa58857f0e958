"""Without a hypervisor: the guest's tables are the machine's, and nothing exits."""

import copy
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.mmu.exits import EXIT_REASONS
from pyvirt.traces import EVENT_DTYPE, Arg, Op, accesses
from pyvirt.validation import Context
from pyvirt.validation.exits import HASHES, find_programs, read_programs, run_program
from pyvirt.validation.programs import LIST, data_frames
from pyvirt.validation.tally import Tally
from shadow.engine_machine import DATA, PML4, PT, VA, Machine, W, page, pte

CARRIED = Path(__file__).parents[1] / "data"


@cache
def programs() -> list:
    ((folder, prefix),) = find_programs(Context(CARRIED))
    return list(read_programs(folder, prefix, Tally()))


def exits(machine: pv.Hypervisor) -> int:
    return sum(int(machine.counters[name][0]) for name in EXIT_REASONS)


def test_nothing_exits():
    machine = Machine(tables="none")
    for op, addr, value in (
        (Op.LOAD, page(0), 0),
        (Op.STORE, page(1), 0),
        (Op.STORE_TABLE, pte(2), 0),
        (Op.LOAD, page(2), 0),
        (Op.INVLPG, page(2), 0),
        (Op.MOV_CR3, 0, 0x105000),
        (Op.MOV_CR0, 0, 0x80000033),
        (Op.MOV_CR4, 0, 0xA0),
        (Op.IO, 0, 0x80),
        (Op.VM_EXIT, 0, 0),
    ):
        machine.do(op, addr, value)
    count = machine.counters[0]
    assert exits(machine) == 0
    assert count["guest_faults"] == 1
    assert machine.registers()["cr3"] == 0x105000
    assert machine.registers()["cr4"] == 0xA0
    assert not machine.check()
    assert not len(machine.leaves())
    assert not len(machine.pages())


def test_accessed_and_dirty_bits_are_set():
    machine = Machine(tables="none")
    machine.do(Op.LOAD, page(0))
    machine.do(Op.STORE, page(1))
    assert machine.mem.read_u64(pte(0)) & 0x60 == 0x20
    assert machine.mem.read_u64(pte(1)) & 0x60 == 0x60


def test_a_handler_mends_the_entry():
    machine = Machine(tables="none", flags=1)  # read-only pages, CR0.WP
    events = np.zeros(3, EVENT_DTYPE)
    events["op"] = Op.STORE
    events["size"] = 8
    events["addr"] = page(3), 0xFFFF800000000000 + pte(3), page(3)
    events["value"] = 5, DATA + 4096 * 3 | 3, 5
    events["arg"] = Arg.GIVEN, Arg.GIVEN | Arg.HANDLER, Arg.GIVEN | Arg.HANDLER
    codes = np.zeros(3, np.uint16)
    machine.run(events, codes=codes)
    assert codes.tolist() == [4, 0, 0]
    assert machine.mem.read_u64(DATA + 4096 * 3) == 5
    assert machine.mem.read_u64(PT + 24) & W


@pytest.mark.parametrize("tlb", ["reference", "skylake-sp"])
def test_the_processor_in_front_is_an_mmu(tlb: str):
    """Without edits, its counters are those of a native `MMU` on the same accesses."""
    rng = np.random.default_rng(4)
    vas = VA + 4096 * rng.integers(0, 1024, 20_000) + 8 * rng.integers(0, 512, 20_000)
    events = accesses(vas, rng.integers(1, 4, 20_000), 8)
    machine = Machine(tables="none", tlb=tlb)
    other = pv.MMU("native", copy.deepcopy(machine.mem), cr3=PML4, tlb=tlb)
    machine.run(events)
    other.run(events)
    ours, theirs = machine.mmu_counters[0], other.counters[0]
    for name in theirs.dtype.names:
        assert np.array_equal(ours[name], theirs[name]), name
    assert machine.mem.read(0, machine.mem.end) == other.mem.read(0, other.mem.end)
    assert exits(machine) == 0


@pytest.mark.parametrize("tlb", [None, "reference"])
def test_places_without_memory(tlb: str | None):
    machine = Machine(tables="none", tlb=tlb)
    machine.do(Op.STORE_TABLE, pte(3), 0x40000000 | 7)
    assert machine.do(Op.LOAD, page(3)) == machine.do(Op.LOAD, page(3)) == (3, 0)
    assert machine.do(Op.STORE, page(3), 7, Arg.GIVEN)[0] == 3
    assert exits(machine) == 0


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("tlb", [None, "reference"])
def test_state_is_a_value(way, tlb: str | None):
    machine = Machine(tables="none", tlb=tlb)
    machine.do(Op.MOV_CR3, 0, 0x105000)
    machine.do(Op.LOAD, page(1))
    twin = way(machine)
    assert twin.registers() == machine.registers()
    assert twin.do(Op.LOAD, VA) == machine.do(Op.LOAD, VA)
    machine.restore(machine.snapshot())


@pytest.mark.parametrize("tlb", [None, "reference"])
def test_programs_of_a_real_machine_mean_the_same(tlb: str | None):
    """Values read, faults and memory of every event program are those of the nested mode."""
    shared = data_frames().tobytes()
    checked = 0
    for program in programs():
        size = 16 * len(program.results["tdp"])
        bare, nested = (run_program(program, tables, shared, tlb=tlb) for tables in ("none", "tdp"))
        assert not any(bare.counts.get(name) for name in EXIT_REASONS)
        for name in ("guest_faults", *HASHES):
            assert bare.counts[name] == nested.counts[name]
        assert bare.machine.mem.read(LIST, size) == nested.machine.mem.read(LIST, size)
        checked += size
    assert checked

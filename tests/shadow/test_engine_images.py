"""The guests of the nested images, run again: our tables against those that KVM made.

The README beside the images tells what the guest did: it wrote some of its pages in order, its
fault handler mapped those that were not, it touched each 2 MiB page once (every second one by a
write, at its start), read a place without memory, and spun.
"""

from pathlib import Path

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.traces import Arg, Op
from pyvirt.validation import Context
from pyvirt.validation.datasets import ImageSet, find_sets
from pyvirt.validation.guests import (
    CODE,
    GDT,
    PARAMETERS,
    STACK,
    Step,
    delivery,
    in_handler,
    instruction,
    repeat,
)
from pyvirt.validation.nested import Backing
from pyvirt.validation.tally import Tally

CARRIED = Context(Path(__file__).parents[1] / "data")
SETS = {s.name: s for s in find_sets(CARRIED) if s.nested}
WORK, WORK_END = 0x100000000000, 0x200000000000
MMIO = 0x3F0000000000
FIRST_PT = 0x109000
TABLES = (0x100000, 0x200000)
A, D = 0x20, 0x40
RIGHTS = np.uint64(1 << 63 | 0x67)  # NX, D, A, U, W, P
STATS = (
    "pf_taken",
    "pf_fixed",
    "pf_guest",
    "pf_emulate",
    "invlpg",
    "pages_4k",
    "pages_2m",
    "mmu_cache_miss",
    "mmu_unsync",
)


class Rebuilt:
    """One set: the guest as it was before it ran, run by our hypervisor."""

    def __init__(self, image_set: ImageSet) -> None:
        tally = Tally()
        self.facts = image_set
        self.map = image_set.table("guestmap", tally)
        self.rows = image_set.table("translate", tally)
        self.huge = "huge" in image_set.name
        self.shadow = image_set.shadow
        host = CARRIED.memory(
            image_set.path.with_name(image_set["image"]), image_set.number("ram_bytes")
        )
        size = image_set.number("guest_memory_bytes")
        guest = Backing(image_set.table("backing", tally)).guest_memory(host, size)
        self.after = np.frombuffer(guest.read(TABLES[0], TABLES[1] - TABLES[0]), np.uint64)

        own = self.map.numbers("guest_cr3") == image_set.number("guest_cr3")
        va, gpa = self.map.numbers("l2_va"), self.map.numbers("l2_gpa")
        work = own & (va >= WORK) & (va < WORK_END)
        index = ((va[work] - np.uint64(WORK)) >> np.uint64(12)).astype(int)
        # what the fault handler mapped leads to frame 0
        self.mapped = set(index[gpa[work] != 0].tolist())
        self.pages = 1000 * -(-(max(index) + 1) // 1000)
        touched = self.map.text("touched")[work]
        self.touched = set(index[(touched == "1") & (gpa[work] != 0)].tolist())
        self.large = va[own & (self.map.numbers("page_shift", 10) == 21)].tolist()

        memory = pv.PhysicalMemory(size)
        memory.write(0, guest.read(0, TABLES[0]))
        memory.write(TABLES[0], self.before().tobytes())
        self.machine = pv.Hypervisor(
            memory,
            tables="shadow" if self.shadow else "tdp",
            backing="2M" if self.huge else "4K",
            cr3=image_set.number("guest_cr3"),
        )
        self.machine.run(self.events())

    def before(self) -> np.ndarray:
        """The guest's tables before anything used them."""
        words = self.after.copy()
        words[words & np.uint64(1) != 0] &= np.uint64(~(A | D) & (1 << 64) - 1)
        for i in set(range(self.pages)) - self.mapped:
            words[(FIRST_PT - TABLES[0]) // 8 + i] = 0
        return words

    def written(self) -> list[int]:
        return [i for i in range(self.pages) if (i * 2654435761 >> 7) % 4 != 0]

    def events(self) -> np.ndarray:
        parts = [
            repeat(1, instruction(Step(Op.STORE, STACK - 8))),
            repeat(1, instruction(Step(Op.LOAD, PARAMETERS))),
        ]
        i = np.array(self.written(), np.uint64)
        va, pte = np.uint64(WORK) + (i << np.uint64(12)), np.uint64(FIRST_PT) + i * np.uint64(8)
        write = instruction(Step(Op.STORE, va))
        handler = [
            *instruction(Step(Op.STORE, PARAMETERS)),
            *instruction(Step(Op.LOAD, pte)),  # KVM's count of faults shows that it looks first
            *instruction(Step(Op.STORE, pte, 3, int(Arg.GIVEN))),
            *instruction(Step(Op.INVLPG, va)),
            *instruction(Step(Op.LOAD, STACK - 8), Step(Op.LOAD, GDT + 8), Step(Op.LOAD, GDT + 16)),
        ]
        parts.append(repeat(len(i), write, delivery(), in_handler(handler), in_handler(write)))
        for k, address in enumerate(self.large):
            touch = Step(Op.STORE if k % 2 else Op.LOAD, address)
            parts.append(repeat(1, instruction(touch)))
        parts.append(repeat(1, instruction(Step(Op.LOAD, MMIO), at=CODE)))
        return np.concatenate(parts)

    def leaves(self) -> dict[int, tuple[int, int, int]]:
        """By address: frame address, page shift and flags of what our tables map."""
        return {
            int(leaf["address"]): (int(leaf["gpa"]), int(leaf["page_shift"]), int(leaf["flags"]))
            for leaf in self.machine.leaves()
        }


@pytest.fixture(scope="module", params=SETS)
def rebuilt(request) -> Rebuilt:
    return Rebuilt(SETS[request.param])


def test_the_guest_did_what_it_is_said_to_do(rebuilt: Rebuilt):
    assert rebuilt.touched == set(rebuilt.written()) & rebuilt.mapped
    assert all(i % 11 == 5 for i in set(range(rebuilt.pages)) - rebuilt.mapped)


def test_what_kvm_counted(rebuilt: Rebuilt):
    stats = rebuilt.facts["kvm_stats_at_stop"]
    compared = [name for name in STATS if name in stats]
    counted = {name: int(rebuilt.machine.counters[name][0]) for name in compared}
    assert counted == {name: stats[name] for name in compared}
    assert len(compared) >= 4


def test_the_tables_are_those_that_kvm_made(rebuilt: Rebuilt):
    """Equal address by address: what is mapped, where to, by what size of page, with what rights.

    In shadow mode A and D are compared, too.
    """
    ours = rebuilt.leaves()
    rows = rebuilt.rows
    va, gpa, shift = rows.numbers("l2_va"), rows.numbers("l2_gpa"), rows.numbers("host_shift", 10)
    entry, result = rows.numbers("host_entry"), rows.text("result")
    wrong = []
    found = set()
    for i in np.flatnonzero(result != "npf_table").tolist():
        if result[i] == "reserved":
            continue
        address = int(va[i] if rebuilt.shadow else gpa[i])
        base = address & ~0x1FFFFF if ours.get(address & ~0x1FFFFF, (0, 0))[1] == 21 else address
        leaf = ours.get(base)
        if result[i] != "ok":
            if leaf is not None:
                wrong.append((hex(address), result[i], leaf))
            continue
        if leaf is None:
            wrong.append((hex(address), "missing"))
            continue
        found.add(base)
        same = leaf[1] == shift[i] and leaf[0] + address - base == gpa[i]
        if rebuilt.shadow:
            same = same and not (np.uint64(leaf[2]) ^ entry[i]) & RIGHTS
        if not same:
            wrong.append((hex(address), leaf, hex(entry[i])))
    assert wrong == []
    if rebuilt.shadow:
        assert set(ours) == found
    assert len(found) > (20 if rebuilt.huge and not rebuilt.shadow else 1000)


def test_the_guests_tables_are_as_they_were_left(rebuilt: Rebuilt):
    left = np.frombuffer(rebuilt.machine.mem.read(TABLES[0], TABLES[1] - TABLES[0]), np.uint64)
    assert np.flatnonzero(left != rebuilt.after).tolist() == []
    assert np.count_nonzero(left != rebuilt.before()) > 1000
    assert rebuilt.machine.check() == []

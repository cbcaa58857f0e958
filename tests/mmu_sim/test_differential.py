"""Random machines, caches, accesses and events: the engine does what the plain model does."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest

from core.strategies import Tape, quick_and_slow
from mmu_sim.engine import (
    INVEPT,
    INVLPG,
    INVLPGA,
    INVPCID,
    INVVPID,
    MAP,
    MOV_CR0,
    MOV_CR3,
    MOV_CR4,
    PROTECT,
    STORE_TABLE,
    TLB_CONTROL,
    UNMAP,
    VCPU_SWITCH,
    VM_ENTRY,
    VM_EXIT,
    VM_SWITCH,
    counters_of,
    events_of,
    pair,
    same_state,
)
from mmu_sim.machines import DATA, PCIDE, PGE, SMAP, SMEP, Machine, addresses, geometry, machine
from pyvirt.errors import PyvirtError

CR0_WP, CR0_PG, CR0 = 1 << 16, 1 << 31, 0x80010033
TOGGLES = (1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 8, 1 << 63, 1, 1 << 5 | 1 << 6)


class Script:
    """The choices of one run: what happens next, as an event."""

    def __init__(self, tape: Tape, m: Machine, vcpus: int, ept: bool) -> None:
        self.tape, self.m, self.vcpus, self.ept = tape, m, vcpus, ept
        self.draw = addresses(tape, m)
        self.cr4 = [m.options["cr4"]] * vcpus
        self.next: tuple[int, int, int, int, int, int] | None = None

    def access(self) -> tuple[int, str, bool, int]:
        tape = self.tape
        return self.draw(), tape.pick("rwxrw"), tape.chance(40), tape.below(self.vcpus)

    def event(self) -> tuple[int, int, int, int, int, int]:
        """(op, size, vcpu, arg, addr, value) of something that the system does."""
        tape, m = self.tape, self.m
        if self.next:
            event, self.next = self.next, None
            return event
        vcpu, va = tape.below(self.vcpus), self.draw()
        nested = m.mode == "nested"
        kinds = [MOV_CR3, STORE_TABLE, INVLPG, INVPCID, MOV_CR4, MAP, MOV_CR0, VCPU_SWITCH]
        kinds += [STORE_TABLE, INVLPG, MOV_CR3]
        if nested:
            kinds += [VM_SWITCH, VM_ENTRY, VM_EXIT]
            kinds += [INVVPID, INVEPT] if self.ept else [INVLPGA, TLB_CONTROL]
        op = tape.pick(kinds)
        if op == MOV_CR3:
            value = tape.pick(m.roots)
            if self.cr4[vcpu] & PCIDE:
                value |= tape.below(3) | (1 << 63 if tape.chance(40) else 0)
            return op, 0, vcpu, 0, 0, value
        if op == MOV_CR0:
            # Off and on again: nothing here runs without paging.
            if tape.chance(40):
                self.next = (op, 0, vcpu, 0, 0, CR0)
                return op, 0, vcpu, 0, 0, CR0 & ~CR0_PG
            return op, 0, vcpu, 0, 0, CR0 ^ tape.pick((0, CR0_WP))
        if op == MOV_CR4:
            bits = [PGE, SMEP, SMAP] + ([PCIDE] if m.guest_format == "x86-64" else [])
            self.cr4[vcpu] ^= tape.pick(bits)
            return op, 0, vcpu, 0, 0, self.cr4[vcpu]
        if op == INVLPG:
            return op, 0, vcpu, tape.below(2), va, 0
        if op == INVPCID:
            return op, 0, vcpu, tape.below(4), va, tape.below(3)
        if op == INVVPID:
            return op, 0, vcpu, tape.below(4), va, 1 + tape.below(3)
        if op == INVEPT:
            return op, 0, vcpu, 1 + tape.below(2), 0, tape.pick(m.nested_roots)
        if op == INVLPGA:
            return op, 0, vcpu, 0, va, tape.below(3)
        if op == TLB_CONTROL:
            return op, 0, vcpu, tape.pick((0, 1, 3, 7)), 0, 0
        if op == STORE_TABLE:
            where, entry = tape.pick(m.slots)
            legacy = m.guest_format == "x86-32"
            entry ^= 0 if tape.chance(30) else tape.pick(TOGGLES)
            return op, 4 if legacy else 8, vcpu, 0, where, entry & (1 << (32 if legacy else 64)) - 1
        if op == VCPU_SWITCH:
            return op, 0, vcpu, tape.below(self.vcpus), 0, 0
        if op == VM_SWITCH:
            cr3 = tape.pick(m.roots)
            return op, 0, vcpu, tape.below(4), cr3, tape.pick(m.nested_roots)
        if op == MAP:
            page = tape.pick(m.spaces[0])
            op = tape.pick((PROTECT, UNMAP, MAP))
            rights = 15 if m.guest_format == "x86-32" else tape.pick((15, 5, 13, 3, 9))
            if op == MAP:
                return op, page.shift, vcpu, rights, page.va, page.pa or DATA & -(1 << page.shift)
            return op, 0, vcpu, rights, page.va, 1 << page.shift
        return op, 0, vcpu, 0, 0, 0


def _both(slow, fast, event) -> None:
    """An event on both sides; what one refuses the other refuses, too."""
    refused = []
    for mmu in (slow, fast):
        try:
            mmu.run(events_of([event]))
        except PyvirtError as error:
            refused.append(type(error))
    assert len(refused) in (0, 2), (event, refused)


def setting(seed: int, mode: str, levels: int = 0):
    tape = Tape(random.Random(seed).randbytes(4096))
    m = machine(tape, mode)
    options = {
        "tlb": geometry(tape, levels),
        "vcpus": 1 + tape.below(3),
        "precision": "conservative" if tape.chance(25) else "exact",
        "rng": tape.below(5),
    }
    slow, fast = pair(m.build, **options)
    return tape, m, slow, fast


def run(seed: int, mode: str, levels: int = 0) -> None:
    """A mixed script, compared step by step, and the contents of all caches at the end."""
    tape, m, slow, fast = setting(seed, mode, levels)
    script = Script(tape, m, len(slow.vcpus), m.nested_format == "ept")
    for step in range(150):
        if script.next or tape.chance(22):
            _both(slow, fast, script.event())
        else:
            va, access, user, vcpu = script.access()
            want = slow.translate_one(va, access, user, vcpu)
            got = fast.translate_one(va, access, user, vcpu)
            assert (hex(got.pa), hex(got.code)) == (hex(want.pa), hex(want.code)), (
                step,
                hex(va),
                access,
                user,
                vcpu,
            )
        if step % 50 == 49:
            same_state(slow, fast)


def run_native(case: int) -> None:
    """Native tables of every format."""
    run(case, "native")


def run_nested(case: int) -> None:
    """Guest tables of every format under EPT or NPT."""
    run(case, "nested")


def run_deep(case: int) -> None:
    """TLBs of five and of seven levels."""
    run(case, "native", 5 + 2 * (case & 1))
    run(case, "nested", 7 - 2 * (case & 1))


def run_recorded(case: int) -> None:
    """The same script as one array of events: the counters are those of single calls."""
    for mode in ("native", "nested"):
        tape, m, slow, fast = setting(case, mode)
        script = Script(tape, m, len(slow.vcpus), m.nested_format == "ept")
        rows = []
        for _ in range(150):
            if script.next or tape.chance(15):
                event = script.event()
                if event[0] in (MAP, UNMAP, PROTECT):  # may be refused: see `run`
                    continue
                rows.append(event)
            else:
                va, access, user, vcpu = script.access()
                op = {"r": 1, "w": 2 + 2 * tape.below(2), "x": 3}[access]
                rows.append((op, tape.pick((0, 1, 4, 8, 64)), vcpu, int(user), va, 0))
        slow.run(events_of(rows))
        fast.run(events_of(rows))
        same_state(slow, fast)


SEEDS = st.integers(0, (1 << 32) - 1)
test_native, test_native_thoroughly = quick_and_slow(run_native, SEEDS, 60, 4000)
test_nested, test_nested_thoroughly = quick_and_slow(run_nested, SEEDS, 40, 2500)
test_deep, test_deep_thoroughly = quick_and_slow(run_deep, SEEDS, 20, 1000)
test_recorded, test_recorded_thoroughly = quick_and_slow(run_recorded, SEEDS, 20, 1000)


def test_the_scripts_reach_every_counter():
    """What the random cases never touch they do not test."""
    reached: dict[str, int] = {}
    for seed, mode in enumerate(("native", "nested", "nested") * 16):
        tape, m, slow, _ = setting(seed, mode)
        script = Script(tape, m, len(slow.vcpus), m.nested_format == "ept")
        for _ in range(150):
            if script.next or tape.chance(15):
                try:
                    slow.run(events_of([script.event()]))
                except PyvirtError:
                    pass
            else:
                slow.translate_one(*script.access())
        for name, value in counters_of(slow).items():
            total = sum(map(sum, value)) if name == "tlb_hits" else value
            total = sum(total) if isinstance(total, list) else total
            reached[name] = reached.get(name, 0) + total
    absent = [name for name, total in reached.items() if not total]
    # No log of 512 entries fills up here (test_pml), and only recordings split accesses.
    assert sorted(absent) == ["ept_misconfigurations", "pml_full", "splits"]


@pytest.mark.parametrize("mode", ["native", "nested"])
def test_batches_are_single_calls(mode: str):
    """A batch gives what one call after the other gives."""
    for seed in range(5):
        tape, m, slow, fast = setting(seed, mode)
        draw = addresses(tape, m)
        vas = [draw() for _ in range(400)]
        for access in "rwx":
            want = slow.translate(vas, access, True)
            got = fast.translate(vas, access, True)
            assert got.pa.tolist() == want.pa.tolist()
            assert got.code.tolist() == want.code.tolist()
        same_state(slow, fast)

"""Random scripts of actions, the engines that run what they record, and what must then hold."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyvirt as pv
from pyvirt.errors import FrameExhaustedError, MappingError
from pyvirt.guest import bare_metal, refused
from pyvirt.traces import Op

PAGE = 4096
A_AND_D = np.uint64(0x60)
REFUSED, SKIPPED = 4, 5


class Script:
    """A system with processes, driven by numbers; it knows what each of their pages holds."""

    def __init__(self, vcpus: int = 1, files: bool = True, pages: int = 24, **options) -> None:
        self.system = pv.GuestOS(pv.PhysicalMemory("24MiB"), vcpus=vcpus, **options)
        self.vcpus, self.pages = vcpus, pages
        self.files = [self.system.file(40)] if files else []
        self.data: dict[int, dict[int, int]] = {}
        self.refused_actions = 0
        self.loads: list[tuple[int, int]] = []  # position of a load among all events, its value
        self.kept: list[np.ndarray] = []  # taken within the action, to find its loads
        self.drained = 0
        self.exact = self.system.rules["page_accesses"] == 512
        self.spawn()

    def spawn(self) -> None:
        process = self.system.spawn(self.pages)
        self.data[process] = {}

    def processes(self) -> list[int]:
        return sorted(self.data)

    def act(self, kind: int, which: int, where: int, much: int) -> np.ndarray:
        """One action; errors of the system are part of the script. Gives its events."""
        if not self.data:
            self.spawn()
        process = self.processes()[which % len(self.data)]
        action = ACTIONS[kind % len(ACTIONS)]
        try:
            getattr(self, action)(process, where, much)
        except (MappingError, FrameExhaustedError):
            self.refused_actions += 1
        events = np.concatenate([*self.kept, self.system.take()])
        self.kept.clear()
        self.drained += len(events)
        return events

    # --- actions ---

    def place(self, process: int, where: int) -> tuple[int, int, int]:
        areas = self.system.areas(process)
        if not len(areas):
            raise MappingError("there is no area")
        area = areas[where % len(areas)]
        return int(area["start"]), int(area["end"] - area["start"]) // PAGE, int(area["rights"])

    def touched(self, process: int, where: int, much: int, op: Op) -> None:
        start, pages, rights = self.place(process, where)
        needed = {Op.STORE: 2, Op.FETCH: 4}.get(op, 1)
        vas = start + PAGE * ((where // 7 + np.arange(1 + much % 12)) % pages) + 8 * (much % 500)
        if not rights & needed:
            self.system.touch(process, vas, op)
            raise AssertionError("an access that its area forbids was made")
        known = self.data[process]
        if op == Op.STORE:
            values = where * 1000 + much + np.arange(len(vas))
            self.system.touch(process, vas, op, values=values, vcpu=much % self.vcpus)
            known |= dict(zip(vas.tolist(), values.tolist(), strict=True))
            return
        self.system.touch(process, vas, op, vcpu=much % self.vcpus)
        if op == Op.LOAD and self.exact:
            self.expect(vas, known)

    def expect(self, vas: np.ndarray, known: dict[int, int]) -> None:
        """Note what the loads that were just recorded must read."""
        pending = self.system.take()
        made = np.flatnonzero((pending["op"] == Op.LOAD) & (pending["arg"] & 1 == 1))
        made = made[~refused(pending)[made]]
        assert pending["addr"][made].tolist() == vas.tolist()
        self.loads += [
            (self.drained + int(i), known.get(va, 0))
            for i, va in zip(made, vas.tolist(), strict=True)
        ]
        self.kept.append(pending)

    def load(self, process: int, where: int, much: int) -> None:
        self.touched(process, where, much, Op.LOAD)

    def store(self, process: int, where: int, much: int) -> None:
        self.touched(process, where, much, Op.STORE)

    def fetch(self, process: int, where: int, much: int) -> None:
        self.touched(process, where, much, Op.FETCH)

    def fork(self, process: int, where: int, much: int) -> None:
        if len(self.data) < 6:
            child = self.system.fork(process)
            self.data[child] = dict(self.data[process])

    def exec(self, process: int, where: int, much: int) -> None:
        text = self.files[0] if self.files else None
        self.system.exec(process, text=text, data=1 + much % 9)
        self.data[process] = {}

    def exit(self, process: int, where: int, much: int) -> None:
        self.system.exit(process)
        del self.data[process]

    def mmap(self, process: int, where: int, much: int) -> None:
        if len(self.system.areas(process)) < 12:
            rights = ("rw", "r", "rwx")[where % 3]
            file = self.files[0] if self.files and where % 5 == 0 else None
            pages = 1 + much % 40
            if file is None and much % 3 == 0:
                pages += 1100  # room for huge pages
            self.system.mmap(process, PAGE * pages, rights=rights, file=file)

    def part(self, process: int, where: int, much: int) -> tuple[int, int]:
        start, pages, _ = self.place(process, where)
        first = much % pages
        return start + PAGE * first, PAGE * (1 + where % (pages - first))

    def munmap(self, process: int, where: int, much: int) -> None:
        va, size = self.part(process, where, much)
        self.system.munmap(process, va, size)
        self.data[process] = {
            at: value for at, value in self.data[process].items() if not va <= at < va + size
        }

    def mprotect(self, process: int, where: int, much: int) -> None:
        va, size = self.part(process, where, much)
        self.system.mprotect(process, va, size, ("r", "rw", "rx", "rwx")[much % 4])

    def switch_to(self, process: int, where: int, much: int) -> None:
        self.system.switch_to(
            None if much % 7 == 0 else process, where % self.vcpus, ("timer", "syscall")[much & 1]
        )

    def reclaim(self, process: int, where: int, much: int) -> None:
        # devices have no data: a script that looks at data does without
        if not self.exact:
            self.system.reclaim(much % 40, where % self.vcpus)

    def promote(self, process: int, where: int, much: int) -> None:
        self.system.promote(process, 1, vcpu=where % self.vcpus)

    def others(self, process: int, where: int, much: int) -> None:
        self.system.syscall(process, much % 5)
        self.system.timer(where % self.vcpus)
        self.system.io(process, 2)
        self.system.cpuid()
        self.system.flush_all(where % self.vcpus)
        self.system.task_switched(where % self.vcpus)


ACTIONS = (
    *("load", "store", "fetch", "load", "store", "fork", "exec", "exit", "mmap", "munmap"),
    *("mprotect", "switch_to", "reclaim", "promote", "others", "store"),
)


def hypervisor(system: pv.GuestOS, tables: str, **options: Any) -> pv.Hypervisor:
    memory = system.boot_memory()
    return pv.Hypervisor(memory, tables=tables, **system.initial._asdict(), **options)


def native(system: pv.GuestOS) -> pv.MMU:
    first = system.initial
    return pv.MMU(
        "native",
        system.boot_memory(),
        cr0=first.cr0,
        cr3=first.cr3,
        cr4=first.cr4,
        efer=first.efer,
        guest_levels=first.levels,
        vcpus=first.vcpus,
    )


def run_hypervisor(machine: pv.Hypervisor, events: np.ndarray) -> np.ndarray:
    """Run, compare every code with the system's view, and give the values."""
    codes, values = np.zeros(len(events), np.uint16), np.zeros(len(events), np.uint64)
    assert machine.run(events, codes=codes, values=values) == len(events)
    assert ((codes == REFUSED) == refused(events)).all()
    assert not (codes == SKIPPED).any()
    return values


def run_native(mmu: pv.MMU, events: np.ndarray) -> None:
    events = bare_metal(events)
    out = pv.Accesses.empty(len(events))
    assert mmu.run(events, out=out) == len(events)
    faults = out.code & 15 != 0
    assert (faults == refused(events)).all(), np.flatnonzero(faults != refused(events))


def leaves(memory: pv.PhysicalMemory, system: pv.GuestOS, process: int) -> list:
    """All leaves below a root, without A and D."""
    space = pv.AddressSpace(memory, cr3=system.root(process), levels=system.initial.levels)
    found = space.leaves()
    bits = found["entry"] & ~A_AND_D
    return list(zip(found["va"].tolist(), bits.tolist(), strict=True))

"""The compiled hypervisor and the plain-Python one, action by action on equal machines."""

from __future__ import annotations

import numpy as np

from oracle.slowshadow import build_mmu
from oracle.slowshadow.guestwalk import GuestFault
from oracle.slowshadow.memory import Memory
from pyvirt import ShadowRules
from pyvirt.traces import Arg, Op
from shadow.engine_machine import Machine
from shadow.truth import PROGRAM_COLUMNS

SIZE = 64 << 20
"""The slow one has no other."""
USED = 8 << 20
"""Nothing above is written."""
COLUMNS = (*(name for name in PROGRAM_COLUMNS if name != "guest_faults"), "x_invpcid", "invlpg")


class Lockstep:
    """Two machines that must count, fault and read the same."""

    def __init__(self, prepare=lambda memory: None, **options) -> None:
        self.fast = Machine(size=SIZE, rules=ShadowRules(batch=512), **options)
        prepare(self.fast.mem)
        memory = Memory()
        words = memoryview(np.frombuffer(self.fast.mem.read(0, USED), np.uint64))
        memory.words[: USED >> 3] = words
        self.slow = build_mmu("shadow", memory, page_limit=options.get("page_limit", 327))
        self.slow.registers.cr4 = options.get("cr4", 0x20)
        self.fast.do(Op.NOP)

    def _same(self, what: str) -> None:
        self.fast.do(Op.NOP)  # what is to be done before the next entry is done now
        for name in COLUMNS:
            counted = self.fast.count(name), self.slow.counters[name]
            assert counted[0] == counted[1], (what, name, counted)

    def access(self, op: Op, va: int, value: int = 0) -> None:
        try:
            if op == Op.LOAD:
                seen = 0, self.slow.load(va)
            elif op == Op.STORE:
                self.slow.store(va, value)
                seen = 0, 0
            else:
                self.slow.fetch(va)
                seen = 0, 0
        except GuestFault as fault:
            seen = 4, fault.code
        code, read = self.fast.do(op, va, value, int(Arg.GIVEN) if op == Op.STORE else 0)
        # a store may have been emulated, which is as good
        assert (0 if code == 2 else code, read) == seen, hex(va)
        self._same(f"{op.name} {va:#x}")

    def invlpg(self, va: int) -> None:
        self.slow.invlpg(va)
        self.fast.invlpg(va)
        self._same(f"INVLPG {va:#x}")

    def mov_cr3(self, value: int) -> None:
        self.slow.mov_cr3(value)
        self.fast.mov_cr3(value)
        self._same(f"CR3 {value:#x}")

    def mov_cr4(self, value: int) -> None:
        self.slow.mov_cr4(value)
        self.fast.do(Op.MOV_CR4, value=value)
        self._same(f"CR4 {value:#x}")

    def invpcid(self, kind: int, pcid: int, va: int) -> None:
        self.slow.invpcid(kind, pcid, va)
        self.fast.do(Op.INVPCID, va, pcid, kind)
        self._same(f"INVPCID {kind}, {pcid}, {va:#x}")

    def memory_is_the_same(self) -> None:
        assert self.fast.mem.read(0, USED) == bytes(self.slow.memory.words[: USED >> 3])

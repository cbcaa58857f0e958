"""The protection matrix on unicorn, an emulator, where it is installed."""

from __future__ import annotations

import importlib
import struct
from typing import Any

from pyvirt.validation.protection_cases import (
    DESCRIPTORS,
    ENTRY,
    GATE_UNDER_TEST,
    Case,
    answer_text,
    cases,
)
from pyvirt.x86.descriptors import Descriptor, SystemType

__all__ = ["Emulator", "answers"]

GDT, TSS_AT, SETUP, TEST, STACK = 0x1000, 0x2000, 0x4000, 0x5000, 0x8000
OWN = 32  # entries of the GDT from here: code and data of each privilege, and a TSS
LIMIT = 64 * 8 - 1
SIZE = 0x20000


def _gdt() -> bytes:
    entries = [*DESCRIPTORS, 0, 0]
    for dpl in range(4):
        entries += [Descriptor.code(dpl).pack(), Descriptor.data(dpl).pack()]
    tss = Descriptor(SystemType.TSS32, s=False, base=TSS_AT, limit=0x67, db=False, g=False)
    entries.append(tss.pack())
    return struct.pack(f"<{len(entries)}Q", *entries).ljust(LIMIT + 1, b"\0")


def _code(dpl: int) -> int:
    return OWN + 2 * dpl << 3 | dpl


def _data(dpl: int) -> int:
    return OWN + 2 * dpl + 1 << 3 | dpl


class Emulator:
    """A 32-bit protected-mode machine that can be put into each ring.

    After a fault unicorn takes the next one for a double fault, unless a saved context is restored:
    so every case begins with one.
    """

    def __init__(self) -> None:
        self.unicorn: Any = importlib.import_module("unicorn")
        self.x86: Any = importlib.import_module("unicorn.x86_const")
        self.engine = self.unicorn.Uc(self.unicorn.UC_ARCH_X86, self.unicorn.UC_MODE_32)
        self.engine.mem_map(0, SIZE)
        self._vector = -1
        self.engine.hook_add(self.unicorn.UC_HOOK_INTR, self._interrupt)
        self.engine.reg_write(self.x86.UC_X86_REG_GDTR, (0, GDT, LIMIT, 0))
        self._clean = self.engine.context_save()
        self._rings = [self._enter(cpl) for cpl in range(4)]

    def _interrupt(self, engine: Any, number: int, data: object) -> None:
        self._vector = number
        engine.emu_stop()

    def _place(self, at: int, code: bytes) -> None:
        """Write code, and drop what was translated of the code before it."""
        self.engine.mem_write(at, code)
        self.engine.ctl_remove_cache(at, at + 128)

    def _enter(self, cpl: int) -> Any:
        """Run in ring 0 what leads to ring `cpl`, and keep the context."""
        self.engine.context_restore(self._clean)
        tss = bytearray(0x68)
        for inner in range(3):
            struct.pack_into("<II", tss, 8 * inner + 4, STACK, _data(inner))
        struct.pack_into("<H", tss, 0x66, 0x68)
        self.engine.mem_write(GDT, _gdt())
        self.engine.mem_write(TSS_AT, bytes(tss))
        code = b"\xea" + struct.pack("<IH", SETUP + 7, _code(0))  # jmp far to the next byte
        code += b"\x66\xb8" + struct.pack("<H", _data(0)) + b"\x8e\xd0"  # mov ax, ..; mov ss, ax
        code += b"\xbc" + struct.pack("<I", STACK)  # mov esp, ..
        code += b"\x66\xb8" + struct.pack("<H", OWN + 8 << 3) + b"\x0f\x00\xd8"  # ltr ax
        for value in (_data(cpl), STACK, 2, _code(cpl), TEST):
            if cpl or value not in (_data(cpl), STACK):
                code += b"\x68" + struct.pack("<I", value)  # push
        code += b"\xcf"  # iret
        self._place(SETUP, code)
        self._vector = -1
        self.engine.emu_start(SETUP, TEST)
        found = self.engine.reg_read(self.x86.UC_X86_REG_CS) & 3
        if self._vector >= 0 or found != cpl:
            raise RuntimeError(f"ring {cpl} not reached: vector {self._vector}, ring {found}")
        return self.engine.context_save()

    def run(self, cpl: int, code: bytes, **registers: int) -> tuple[int, int, int]:
        """Execute one instruction in a ring; give (vector or -1, CPL, EFLAGS)."""
        self.engine.context_restore(self._rings[cpl])
        self._place(TEST, code.ljust(16, b"\x90"))
        for name, value in registers.items():
            self.engine.reg_write(getattr(self.x86, f"UC_X86_REG_{name.upper()}"), value)
        self._vector = -1
        try:
            self.engine.emu_start(TEST, 0, count=1)
        except self.unicorn.UcError as error:
            if self._vector < 0:
                raise RuntimeError(f"{code.hex()} in ring {cpl}: {error}") from error
        return (
            self._vector,
            self.engine.reg_read(self.x86.UC_X86_REG_CS) & 3,
            self.engine.reg_read(self.x86.UC_X86_REG_EFLAGS),
        )

    def answer(self, case: Case) -> str:
        """Do what a case says."""
        operation, selector = case.operation, case.selector
        self.engine.mem_write(GDT, _gdt())
        if selector >> 3 == GATE_UNDER_TEST:
            gate = struct.pack("<Q", case.descriptor)
            self.engine.mem_write(GDT + 8 * GATE_UNDER_TEST, gate)
        if operation in ("load", "load_ss"):
            code = b"\x8e\xd8" if operation == "load" else b"\x8e\xd0"
            vector, cpl, _ = self.run(case.cpl, code, eax=selector)
        elif operation in ("jmp", "call"):
            code = b"\xea" if operation == "jmp" else b"\x9a"
            vector, cpl, _ = self.run(case.cpl, code + struct.pack("<IH", ENTRY, selector))
        elif operation == "retf":
            frame = struct.pack("<4I", ENTRY, selector, STACK, case.stack_selector)
            self.engine.mem_write(STACK - 64, frame)
            vector, cpl, _ = self.run(case.cpl, b"\xcb", esp=STACK - 64)
        else:
            code = {
                "lar": b"\x0f\x02\xc1",
                "lsl": b"\x0f\x03\xc1",
                "verr": b"\x0f\x00\xe1",
                "verw": b"\x0f\x00\xe9",
            }[operation]
            vector, cpl, flags = self.run(case.cpl, code, ecx=selector)
            return answer_text(vector, cpl, bool(flags & 0x40))
        return answer_text(vector, cpl)


def answers() -> dict[tuple[str, int], str]:
    """Run the matrix; give what `stored` gives."""
    emulator = Emulator()
    return {key: "".join(emulator.answer(case) for case in row) for key, row in cases().items()}

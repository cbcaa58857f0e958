"""Random guest programs on unicorn, for those operations that it can execute.

It delivers nothing through an IDT, so the programs have no faults, interrupts or privilege 3.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pyvirt.validation.system_programs import MEMORY, Program, initial_memory, starting_point

__all__ = ["OPERATIONS", "ending"]

#: Operations without exceptions whose results are all defined. (LAR leaves four bits undefined.)
OPERATIONS = (
    "compute",
    "loop",
    "call",
    "string",
    "change-code",
    "segment-in",
    "flat",
    "cr3",
)

_GENERAL = ("EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI")
_FINAL_PORT = 0xF4


def ending(program: Program) -> tuple[list[int], bytes]:
    """Run a program; give its general registers and its memory."""
    unicorn: Any = import_module("unicorn")  # its calls are not typed
    reg: Any = import_module("unicorn.x86_const")
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    machine.mem_map(0, MEMORY)
    machine.mem_write(0, initial_memory(program))
    start = starting_point()
    machine.reg_write(reg.UC_X86_REG_GDTR, (0, start["gdt_base"], start["gdt_limit"], 0))
    machine.reg_write(reg.UC_X86_REG_CR3, start["cr3"])
    for name in ("CS", "SS", "DS", "ES"):
        machine.reg_write(getattr(reg, f"UC_X86_REG_{name}"), start[name.lower()][0])
    machine.reg_write(reg.UC_X86_REG_ESP, start["esp"])
    for name in ("FS", "GS"):
        machine.reg_write(getattr(reg, f"UC_X86_REG_{name}"), 0)
    # last, so that setting up leaves no accessed bits in the page tables
    machine.reg_write(reg.UC_X86_REG_CR0, start["cr0"])

    def out(uc: Any, port: int, size: int, value: int, data: object) -> None:
        if port == _FINAL_PORT:
            uc.emu_stop()

    machine.hook_add(unicorn.UC_HOOK_INSN, out, None, 1, 0, reg.UC_X86_INS_OUT)
    machine.emu_start(start["eip"], 0, count=100_000)
    values = [machine.reg_read(getattr(reg, f"UC_X86_REG_{name}")) for name in _GENERAL]
    return values, bytes(machine.mem_read(0, MEMORY))

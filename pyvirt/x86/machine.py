"""A bare IA-32 machine: one processor over a physical memory, and the devices of a bus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pyvirt._core.interp.owner import CLASSES_OF_INSTRUCTIONS, UNSUPPORTED, Cpu
from pyvirt._core.physmem import PhysMem
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Exit", "ExitReason", "Fpu", "Machine", "Registers", "Segment"]


class ExitReason(IntEnum):
    """Why `Machine.run` returned."""

    BUDGET = 0
    HALT = 1
    TRIPLE_FAULT = 2
    INTERCEPT = 3
    EXCEPTION = 4
    INTERRUPT = 5
    UNSUPPORTED = 6
    NO_MEMORY = 7
    STOP = 8


class Segment(NamedTuple):
    """A segment register with what it caches of its descriptor.

    Attributes
    ----------
    selector : int
    base, limit : int
        In bytes; the limit is inclusive.
    attributes : int
        Bits 55:40 of the descriptor: type, S, DPL, P, AVL, L, D/B, G.
    """

    selector: int
    base: int
    limit: int
    attributes: int


class Fpu(NamedTuple):
    """The registers of the x87.

    Attributes
    ----------
    control, status, tags : int
        Control word, status word with the top of the stack, tag word (two bits a register, 3:
        empty).
    stack : tuple of bytes
        ST(0) to ST(7), 10 bytes each: significand, sign and exponent.
    """

    control: int
    status: int
    tags: int
    stack: tuple[bytes, ...]


@dataclass
class Registers:
    """All registers of the processor, as plain numbers.

    ``cpl`` is the current privilege level, ``tsc`` the time stamp counter (read only), ``halted``
    whether HLT waits for an interrupt.
    """

    eax: int
    ecx: int
    edx: int
    ebx: int
    esp: int
    ebp: int
    esi: int
    edi: int
    eip: int
    eflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    gdt_base: int
    gdt_limit: int
    idt_base: int
    idt_limit: int
    cpl: int
    tsc: int
    halted: bool
    es: Segment
    cs: Segment
    ss: Segment
    ds: Segment
    fs: Segment
    gs: Segment
    ldtr: Segment
    tr: Segment
    dr0: int
    dr1: int
    dr2: int
    dr3: int
    dr6: int
    dr7: int


_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


@dataclass(frozen=True)
class Exit:
    """Why the processor stopped.

    Attributes
    ----------
    reason : ExitReason
    instruction_class : str
        With INTERCEPT: the class of the instruction, which has not been executed.
    length : int
        With INTERCEPT: bytes of the instruction at EIP.
    vector, error : int
        With EXCEPTION: what would be delivered. EIP is at the instruction, for INT3 and INTO too,
        and after it for the #DB of single-stepping.
    unsupported : str
        With UNSUPPORTED: what the guest asked for.
    """

    reason: ExitReason
    instruction_class: str = ""
    length: int = 0
    vector: int = 0
    error: int = 0
    unsupported: str = ""


class Machine:
    """A bare IA-32 machine: the instructions of a Pentium Pro, its FPU if asked for.

    Without intercepts interrupts and exceptions go through the guest's own tables. Not modelled,
    and said so when a guest asks (`ExitReason.UNSUPPORTED`): virtual-8086 mode and task switches.
    Breakpoints of the debug registers, alignment checks (#AC), SYSENTER and memory-mapped devices
    do not exist; CPUID reports what does, but for UMIP (CR4 bit 11): leaf 7, where its bit
    stands, is younger than this processor, so that software must be told.

    Parameters
    ----------
    memory : int or pyvirt.PhysicalMemory
        Bytes of RAM (whole pages), or RAM itself.
    bus : capsule, optional
        A ``bus_t *`` named ``pyvirt.bus_t`` that carries devices; None: ports read as ones.
    fpu : bool, default False
        Whether there is an x87, without transcendental functions, remainders, FSCALE, FXTRACT, FBLD
        and FBSTP (`ExitReason.UNSUPPORTED`). Without it its instructions are #NM or #UD, by CR0.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        For a memory that is neither, or a size that is not positive whole pages.

    Notes
    -----
    Time is counted in instructions: the time stamp counter grows by one with each (a repeated
    string instruction counts as one for each 4,096 elements; one that faults counts too), and by
    the time that HLT waits for a device.

    Examples
    --------
    >>> from pyvirt.x86.machine import Machine
    >>> machine = Machine(1 << 20)
    >>> machine.load(bytes.fromhex("b80200bb0300 01d8 f4"), 0x7C00)
    >>> machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    >>> machine.run(100).reason.name, machine.registers.eax
    ('HALT', 5)
    """

    def __init__(self, memory: int | PhysMem, bus: Any = None, *, fpu: bool = False) -> None:
        if isinstance(memory, bool) or not isinstance(memory, (int, np.integer, PhysMem)):
            raise InvalidTypeError(
                f"memory must be a size in bytes or a PhysicalMemory, not {type(memory).__name__}"
            )
        self.memory = memory if isinstance(memory, PhysMem) else PhysMem(int(memory))
        self._bus = bus
        self._exits: tuple[int, int, bool] = (0, 0, False)
        self._cpu = Cpu(self.memory, bus, fpu)

    # --- state --------------------------------------------------------------------------------

    @property
    def registers(self) -> Registers:
        """A copy of all registers."""
        values = self._cpu.registers()
        for name in _SEGMENTS:
            values[name] = Segment(*values[name])
        return Registers(**values)

    @registers.setter
    def registers(self, values: Registers) -> None:
        if not isinstance(values, Registers):
            raise InvalidTypeError(f"Registers are needed, not {type(values).__name__}")
        names = (field.name for field in fields(values) if field.name != "tsc")
        self._cpu.set_registers({name: getattr(values, name) for name in names})

    @property
    def fpu(self) -> Fpu | None:
        """A copy of the x87's registers, or None without one."""
        found = self._cpu.x87()
        return None if found is None else Fpu(*found)

    def set(self, **values: Any) -> None:
        """Set some registers by name; segments as `Segment` or four numbers.

        All values are checked before one is set. The look-aside of translations is emptied.

        Raises
        ------
        InvalidValueError
            For unknown names and numbers that do not fit.
        """
        self._cpu.set_registers(values)

    def load(self, data: bytes | bytearray | memoryview, at: int) -> None:
        """Write bytes to physical memory.

        Raises
        ------
        OutsideMemoryError
            Where they do not all fit into RAM.
        """
        self.memory.write(at, data)

    def reset(self) -> None:
        """Put the processor into its state after RESET; memory stays."""
        self._cpu.reset()

    # --- running ------------------------------------------------------------------------------

    def run(self, budget: int) -> Exit:
        """Run at most `budget` instructions (0 or more)."""
        self._cpu.run(budget)
        return exit_of(self)

    def step(self) -> Exit:
        """Run one instruction, or deliver one interrupt and then run one."""
        return self.run(1)

    def stop_at(
        self,
        *classes: str,
        exceptions: Sequence[int] = (),
        interrupts: bool = False,
    ) -> None:
        """Choose what `run` returns for, in place of what was chosen before.

        Parameters
        ----------
        *classes : str
            Of sensitive instructions; they are not executed.
        exceptions : sequence of int
            Vectors, 0 to 31, that are reported and not delivered.
        interrupts : bool
            Whether an external interrupt that could be delivered is reported instead.
        """
        bits = 0
        for name in classes:
            if name not in CLASSES_OF_INSTRUCTIONS[1:]:
                raise InvalidValueError(
                    f"no class {name!r:.40}; accepted are {', '.join(CLASSES_OF_INSTRUCTIONS[1:])}"
                )
            bits |= 1 << CLASSES_OF_INSTRUCTIONS.index(name)
        vectors = 0
        for vector in exceptions:
            if not 0 <= vector < 32:
                raise InvalidValueError(f"a vector must be 0 to 31, got {vector!r}")
            vectors |= 1 << int(vector)
        self._cpu.set_exits(bits, vectors, interrupts)
        self._exits = (bits, vectors, interrupts)

    @property
    def counters(self) -> npt.NDArray[Any]:
        """What happened since the processor was made or reset, as one structured record.

        Sensitive instructions by class (attempted), retired instructions, blocks run and built,
        look-aside fills and flushes, writes that hit decoded code, events delivered.
        """
        return self._cpu.counters()

    # --- copies -------------------------------------------------------------------------------

    def snapshot(self) -> tuple[bytes, PhysMem]:
        """Copy the processor's state and memory; devices are not in it."""
        return self._cpu.get_state(), self.memory.copy()

    def restore(self, snapshot: tuple[bytes, PhysMem]) -> None:
        """Take the state that `snapshot` gave; the machine's memory is another object then."""
        state, memory = snapshot
        cpu = Cpu(memory.copy(), self._bus)
        cpu.set_state(state)
        self.memory = cpu.memory
        self._cpu = cpu

    def __getstate__(self) -> dict[str, Any]:
        if self._bus is not None:
            raise InvalidTypeError("a machine with a bus cannot be pickled: its devices are apart")
        return {"state": self._cpu.get_state(), "memory": self.memory, "exits": self._exits}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.memory = state["memory"]
        self._bus = None
        self._exits = state["exits"]
        self._cpu = Cpu(self.memory, None)
        self._cpu.set_state(state["state"])

    def __copy__(self) -> Self:
        raise InvalidTypeError("use snapshot or copy.deepcopy: machines do not share memory")

    def __repr__(self) -> str:
        now = self.registers
        return f"<Machine eip={now.eip:#x} cpl={now.cpl} tsc={now.tsc}>"


def exit_of(machine: Machine) -> Exit:
    """Give what the processor of a machine said when it stopped."""
    reason, which, vector, error, length = machine._cpu.exit_information()
    kind = ExitReason(reason)
    if kind is ExitReason.INTERCEPT:
        return Exit(kind, instruction_class=CLASSES_OF_INSTRUCTIONS[which], length=length)
    if kind is ExitReason.EXCEPTION:
        return Exit(kind, vector=vector, error=error)
    if kind is ExitReason.UNSUPPORTED:
        return Exit(kind, unsupported=UNSUPPORTED[which])
    return Exit(kind)

"""A PC: a bare machine with its devices, and a kernel that is booted on it."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyvirt._core.devices.owner import Board
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.units import parse_size
from pyvirt.x86.machine import Exit, ExitReason, Machine
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.multiboot import BOOT_MAGIC, boot_information, read_kernel

__all__ = ["PC", "Ending"]

# The flat segments that a multiboot loader leaves: 4 GiB from 0, 32 bit, at CPL 0.
_CODE = (0x08, 0, 0xFFFFFFFF, 0xC09B)
_DATA = (0x10, 0, 0xFFFFFFFF, 0xC093)
_PROTECTED = 0x11  # CR0: PE, and ET, which is always set
_LEAST, _MOST = 2 << 20, 4 << 30
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Attributes
    ----------
    why : str
        ``exit`` (the guest wrote to the exit port 0xF4), ``reset`` (it pulsed the reset line),
        ``halt`` (HLT, and nothing will wake it), ``budget``, ``triple fault``, or ``unsupported``.
    exit_value : int or None
        What was written to the exit port.
    detail : str
        What was not supported.
    cycles : int
        The time stamp counter: instructions, and the time in which HLT waited for devices.
    instructions : int
        Instructions that the guest has retired since it was booted.
    """

    why: str
    exit_value: int | None
    detail: str
    cycles: int
    instructions: int


class PC:
    """A machine with a PC's devices, and perhaps a monitor between guest and machine.

    Parameters
    ----------
    memory : int or str, default "32MiB"
        Bytes of RAM, whole pages, 2 MiB to 4 GiB.
    disk : bytes-like or path, optional
        The disk of the first ATA channel, whole sectors of 512 bytes; what is written stays in
        memory (`board.disk`).
    technique : str, default "native"
        Who executes the guest: the machine itself, or a monitor (`pyvirt.x86.monitor.TECHNIQUES`).
    monitor : mapping, optional
        Further arguments of `pyvirt.x86.monitor.Monitor`: ``paging``, ``cluster``, ...
    **devices
        Further arguments of the board: ``frequency`` (cycles a second, default 10**8),
        ``disk_delay``, ``station``, ``network``, ``epoch``, ``log``, ``output_limit``.

    Attributes
    ----------
    machine : Machine
    board : Board
        The devices: ``output``, ``disk``, ``send``, ``counts``, ...
    monitor : Monitor or None
        What stands between guest and machine.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For values that do not fit.

    Examples
    --------
    >>> from pyvirt.x86 import guests
    >>> from pyvirt.x86.pc import PC
    >>> pc = PC(disk=guests.kernel_disk())
    >>> pc.boot(guests.kernel_image())
    >>> ending = pc.run()
    >>> ending.why, ending.exit_value, pc.console.splitlines()[-1]
    ('exit', 16, 'the end')
    """

    def __init__(
        self,
        memory: int | str = "32MiB",
        disk: Any = None,
        *,
        technique: str = "native",
        monitor: Mapping[str, Any] | None = None,
        **devices: Any,
    ) -> None:
        size = parse_size(memory, "memory")
        if size % 4096 or not _LEAST <= size <= _MOST:
            raise InvalidValueError(f"memory must be whole pages, 2 MiB to 4 GiB, got {size} bytes")
        self.board = Board(disk, memory=size, **devices)
        self.machine = Machine(size, self.board.bus_capsule)
        self.monitor = None
        if technique != "native":
            self.monitor = Monitor(self.machine, technique, **(monitor or {}))
        elif monitor:
            raise InvalidValueError("a native machine has no monitor to give arguments to")
        self._size = size

    def boot(self, kernel: bytes | str | os.PathLike[str], command_line: str = "") -> None:
        """Load a multiboot kernel; `run` begins it.

        Parameters
        ----------
        kernel : bytes or path
            See `pyvirt.x86.multiboot.read_kernel`.
        command_line : str
            Up to 1,023 ASCII characters.

        Raises
        ------
        ImageFormatError, InvalidValueError
            Before anything is written to memory.
        """
        image = Path(kernel).read_bytes() if isinstance(kernel, (str, os.PathLike)) else kernel
        if not isinstance(image, bytes):
            raise InvalidTypeError(f"kernel must be bytes or a path, got {type(kernel).__name__}")
        loaded = read_kernel(image, self._size)
        where, information = boot_information(self._size, command_line)
        self.board.reset()
        self.machine.reset()
        for at, data, size in loaded.parts:
            self.machine.load(data, at)
            for start in range(len(data), size, _CHUNK):
                self.machine.load(bytes(min(_CHUNK, size - start)), at + start)
        self.machine.load(information, where)
        self.machine.set(
            cs=_CODE, ds=_DATA, es=_DATA, fs=_DATA, gs=_DATA, ss=_DATA, cr0=_PROTECTED,
            eip=loaded.entry, eax=BOOT_MAGIC, ebx=where,
        )  # fmt: skip

    @property
    def console(self) -> str:
        """What the serial port has sent, and nobody has taken, as text."""
        return self.board.output.decode("latin-1")

    def run(
        self,
        budget: SupportsIndex = 10**9,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ending:
        """Run until the guest ends, or for `budget` cycles.

        Parameters
        ----------
        budget : int
            Cycles of the time stamp counter, 0 or more.
        progress : callable, optional
            Called with the cycles done and the budget, each few million cycles.

        Returns
        -------
        Ending
            The same however the budget is split over several calls.
        """
        if isinstance(budget, bool) or not hasattr(budget, "__index__"):
            raise InvalidTypeError(f"budget must be an integer, got {budget!r:.80}")
        whole = operator.index(budget)
        if not 0 <= whole < 1 << 63:
            raise InvalidValueError(f"budget must be 0 to 2**63 - 1, got {whole}")
        chunk = whole if progress is None else _CHUNK
        start = now = self.machine.registers.tsc
        runner = self.machine if self.monitor is None else self.monitor
        while True:
            found = runner.run(min(chunk, start + whole - now))
            now = self.machine.registers.tsc
            if progress is not None:
                progress(min(now - start, whole), whole)
            if found.reason is not ExitReason.BUDGET or now - start >= whole:
                return self._ending(found, now)

    def _ending(self, found: Exit, now: int) -> Ending:
        if found.reason is ExitReason.NO_MEMORY:
            raise MemoryError("this machine has no memory left for another page of the guest's")
        why = {
            ExitReason.BUDGET: "budget",
            ExitReason.HALT: "halt",
            ExitReason.TRIPLE_FAULT: "triple fault",
            ExitReason.STOP: "reset" if self.board.exit_value is None else "exit",
            ExitReason.UNSUPPORTED: "unsupported",
        }[found.reason]
        retired = int(self.counters["retired"])
        return Ending(why, self.board.exit_value, found.unsupported, now, retired)

    @property
    def counters(self) -> npt.NDArray[np.void]:
        """`Machine.counters`."""
        return self.machine.counters

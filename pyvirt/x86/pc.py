"""A PC: a bare machine with its devices, and a kernel that is booted on it."""

from __future__ import annotations

import operator
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from pyvirt._core.devices.owner import Board
from pyvirt.errors import ImageFormatError, InvalidTypeError, InvalidValueError
from pyvirt.units import parse_size
from pyvirt.x86.bzimage import is_bzimage
from pyvirt.x86.linuxboot import BOOT_CODE, BOOT_DATA, read_linux
from pyvirt.x86.machine import Exit, ExitReason, Machine
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.multiboot import BOOT_MAGIC, Loaded, boot_information, is_multiboot, read_kernel

__all__ = ["PC", "Ending"]

_PROTECTED = 0x11  # CR0: PE, and ET, which is always set
_LEAST, _MOST = 2 << 20, 4 << 30
_CHUNK = 1 << 22
_GZIP = b"\x1f\x8b"
_SCREEN, _CELLS = 0xB8000, 1 << 14  # colour text memory: characters, each with its colours
_LINES, _COLUMNS = 25, 80
_BLANK = b" \x07" * _CELLS
#: What code page 437 shows for control characters.
_GLYPHS = dict(enumerate(" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼")) | {127: "⌂"}


def _content(name: str, source: bytes | str | os.PathLike[str]) -> bytes:
    content = Path(source).read_bytes() if isinstance(source, (str, os.PathLike)) else source
    if not isinstance(content, bytes):
        raise InvalidTypeError(f"{name} must be bytes or a path, got {type(source).__name__}")
    return content


def _unpacked(image: bytes, most: int) -> bytes:
    """Decompress a gzip file of no more than `most` bytes."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        found = unpack.decompress(image, most)
    except zlib.error as error:
        raise ImageFormatError(f"the compressed kernel is damaged: {error}") from error
    if not unpack.eof:
        what = f"is larger than memory, {most} bytes" if unpack.unconsumed_tail else "is cut"
        raise ImageFormatError(f"the compressed kernel {what}")
    return found


def _flat(selector: int, attributes: int) -> tuple[int, int, int, int]:
    """Give a segment that a loader leaves: 4 GiB from 0."""
    return selector, 0, 0xFFFFFFFF, attributes


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
    fpu : bool, default False
        Whether the processor has an x87, see `Machine`.
    **devices
        Further arguments of the board: ``frequency`` (cycles a second, default 10**8),
        ``disk_delay``, ``station``, ``network``, ``epoch``, ``log``, ``output_limit``,
        ``paravirtual``.

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
        fpu: bool = False,
        **devices: Any,
    ) -> None:
        size = parse_size(memory, "memory")
        if size % 4096 or not _LEAST <= size <= _MOST:
            raise InvalidValueError(f"memory must be whole pages, 2 MiB to 4 GiB, got {size} bytes")
        self.board = Board(disk, memory=size, **devices)
        self.machine = Machine(size, self.board.bus_capsule, fpu=fpu)
        self.monitor = None
        if technique != "native":
            self.monitor = Monitor(self.machine, technique, **(monitor or {}))
        elif monitor:
            raise InvalidValueError("a native machine has no monitor to give arguments to")
        self._size = size

    def boot(
        self,
        kernel: bytes | str | os.PathLike[str],
        command_line: str = "",
        ramdisk: bytes | str | os.PathLike[str] | None = None,
        *,
        unpack: bool = False,
    ) -> None:
        """Load a kernel; `run` begins it.

        Parameters
        ----------
        kernel : bytes or path
            A multiboot kernel (`pyvirt.x86.multiboot.read_kernel`), or a Linux boot image
            (`pyvirt.x86.linuxboot.read_linux`), which begins in protected mode; in a gzip file, if
            need be, as boot loaders take them.
        command_line : str
            ASCII, up to 1,023 characters, or as many as the boot image takes.
        ramdisk : bytes or path, optional
            An initial RAM disk for a boot image.
        unpack : bool
            Decompress a boot image's kernel here, and not in the guest.

        Raises
        ------
        ImageFormatError, InvalidValueError
            Before anything is written to memory.
        """
        image = _content("kernel", kernel)
        disk = b"" if ramdisk is None else _content("ramdisk", ramdisk)
        if image[:2] == _GZIP:
            image = _unpacked(image, self._size)
        if is_bzimage(image) and not is_multiboot(image):
            linux = read_linux(image, self._size, command_line, disk, unpack=unpack)
            loaded = linux.loaded
            code, data = _flat(BOOT_CODE, 0xC09B), _flat(BOOT_DATA, 0xC093)
            tables = {"gdt_base": linux.gdt, "gdt_limit": linux.gdt_limit}
            registers = {"esi": linux.parameters} | tables
        else:
            if disk:
                raise InvalidValueError(
                    "a RAM disk is for Linux boot images; modules are not there"
                )
            loaded = read_kernel(image, self._size)
            where, information = boot_information(self._size, command_line)
            loaded = Loaded(loaded.entry, (*loaded.parts, (where, information, len(information))))
            code, data = _flat(0x08, 0xC09B), _flat(0x10, 0xC093)
            registers = {"eax": BOOT_MAGIC, "ebx": where}
        self.board.reset()
        self.machine.reset()
        for at, content, size in loaded.parts:
            self.machine.load(content, at)
            for start in range(len(content), size, _CHUNK):
                self.machine.load(bytes(min(_CHUNK, size - start)), at + start)
        self.machine.load(_BLANK, _SCREEN)
        self.machine.set(
            cs=code, ds=data, es=data, fs=data, gs=data, ss=data, cr0=_PROTECTED,
            eip=loaded.entry, **registers,
        )  # fmt: skip

    @property
    def screen(self) -> str:
        """What the screen shows in text mode: 25 lines, without blanks at their ends.

        Read from memory at 0xB8000, from where the CRT controller's start address says; characters
        are those of code page 437.
        """
        first = self.board.screen_start % _CELLS
        memory = self.machine.memory.read(_SCREEN, 2 * _CELLS)
        shown = (memory + memory)[2 * first :: 2]
        rows = (shown[at : at + _COLUMNS] for at in range(0, _LINES * _COLUMNS, _COLUMNS))
        return "\n".join(row.decode("cp437").translate(_GLYPHS).rstrip(" \xa0") for row in rows)

    @property
    def cursor(self) -> tuple[int, int] | None:
        """Line and column of the cursor, from 0; None where it is off or not on the screen."""
        place = self.board.cursor
        if place is None:
            return None
        line, column = divmod((place - self.board.screen_start) % _CELLS, _COLUMNS)
        return (line, column) if line < _LINES else None

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

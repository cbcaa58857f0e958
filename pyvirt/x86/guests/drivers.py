"""Guests with two kinds of drivers: one of disk, network and clock, one of memory.

The first reads sectors, sends frames and asks for the time.
Its code is made here: a flat multiboot kernel without paging. With the drivers of the machine's own
devices it programs the disk controller for each sector, the network card for each frame, and reads
the clock of the CMOS; with paravirtual ones, which VMtools bring, it hands over a batch of requests
by one string instruction (`pyvirt._core.devices.channel`) and reads the time-stamp counter.

The second has used more memory than it needs. With a balloon, which VMtools bring, too, it writes
down the pages that it gives up.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from pyvirt._core.physmem import PhysMem
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["balloon_frames", "driver_disk", "driver_kernel", "memory_kernel"]

LOAD, DATA, BUFFER, STACK = 0x100000, 0x180000, 0x200000, 0x170000
CHANNEL, MOST_READS = 0x540, 32
FRAME = 1514
SECTOR = 512
#: Of the guest of memory: its list of pages that it gives up, and the first page that it uses.
LIST, FIRST_PAGE = 0x300000, 0x400


def _word(value: int) -> bytes:
    return struct.pack("<I", value)


def _out(port: int, value: int) -> bytes:
    """MOV EDX, port; MOV AL, value; OUT DX, AL."""
    return b"\xba" + _word(port) + bytes([0xB0, value & 0xFF, 0xEE])


def _string(code: bytes, port: int, count: int, at: int | None) -> bytes:
    """MOV EDX; MOV ECX; ESI or EDI if it is another place; REP."""
    where = b"" if at is None else b"\xbe" + _word(at)
    return b"\xba" + _word(port) + b"\xb9" + _word(count) + where + code


def _frame(number: int) -> bytes:
    """A broadcast frame with its number."""
    head = b"\xff" * 6 + b"\x52\x54\x00\x12\x34\x56" + b"\x88\xb5"
    return (head + _word(number)).ljust(FRAME, b"v")


def _emulated(sectors: int, frames: int, clocks: int) -> tuple[bytes, bytes]:
    code = bytearray(_out(0x3F6, 2))  # no interrupts
    for sector in range(sectors):
        code += _out(0x1F6, 0xE0 | sector >> 24) + _out(0x1F2, 1) + _out(0x1F3, sector)
        code += _out(0x1F4, sector >> 8) + _out(0x1F5, sector >> 16) + _out(0x1F7, 0x20)
        code += bytes.fromhex("eca80874fb")  # IN AL, DX; TEST AL, 8; JZ back
        code += _string(bytes.fromhex("f3 66 6d"), 0x1F0, SECTOR // 2, None)
    if frames:
        code += _out(0x300, 0x21) + _out(0x30E, 0x49) + _out(0x30D, 0) + _out(0x300, 0x22)
    for number in range(frames):
        code += _out(0x308, 0) + _out(0x309, 0x40)
        code += _out(0x30A, FRAME) + _out(0x30B, FRAME >> 8) + _out(0x300, 0x12)
        code += _string(bytes.fromhex("f3 66 6f"), 0x310, FRAME // 2, DATA + number * FRAME)
        code += _out(0x304, 0x40) + _out(0x305, FRAME) + _out(0x306, FRAME >> 8)
        code += _out(0x300, 0x26) + bytes.fromhex("eca80475fb")  # until it is sent
    code += (_out(0x70, 0) + bytes.fromhex("e471")) * clocks
    return bytes(code), b"".join(map(_frame, range(frames)))


def _paravirtual(sectors: int, frames: int, clocks: int, batch: int) -> tuple[bytes, bytes]:
    code, data = bytearray(), bytearray()
    out, into = bytes.fromhex("f3 6f"), bytes.fromhex("f3 6d")
    for first in range(0, sectors, batch):
        chosen = range(first, min(first + batch, sectors))
        words = b"".join(struct.pack("<II", 1 << 24 | 1, sector) for sector in chosen)
        code += _string(out, CHANNEL, len(words) // 4, DATA + len(data))
        code += _string(into, CHANNEL, len(chosen) * SECTOR // 4, None)
        data += words
    for first in range(0, frames, batch):
        chosen = range(first, min(first + batch, frames))
        parts = (_word(3 << 24 | FRAME) + _frame(number) for number in chosen)
        words = b"".join(part.ljust(-(-len(part) // 4) * 4, b"\0") for part in parts)
        code += _string(out, CHANNEL, len(words) // 4, DATA + len(data))
        data += words
    return bytes(code) + bytes.fromhex("0f31") * clocks, bytes(data)


def driver_kernel(
    *,
    paravirtual: bool = False,
    sectors: int = 64,
    frames: int = 64,
    clocks: int = 64,
    batch: int = 16,
) -> bytes:
    """Make the guest, for a `pyvirt.x86.pc.PC` with `driver_disk`.

    Parameters
    ----------
    paravirtual : bool, default False
        Which drivers it has; paravirtual ones need ``PC(paravirtual=True)``.
    sectors, frames, clocks : int
        Sectors that it reads, frames of 1,514 bytes that it sends, and times that it asks for:
        0 to 256 each.
    batch : int, default 16
        Requests that paravirtual drivers hand over at a time, 1 to 32. The default is a choice.

    Returns
    -------
    bytes
        A multiboot kernel. It leaves the sectors at 2 MiB, in order, and ends with exit code 0.

    Notes
    -----
    The interpreter looks for interrupts within a string instruction, every 4,096 elements, and
    there a guest exits again: a batch of 16 frames is two exits.

    Examples
    --------
    >>> from pyvirt.x86.guests.drivers import driver_disk, driver_kernel
    >>> from pyvirt.x86.pc import PC
    >>> for paravirtual in (False, True):
    ...     pc = PC(disk=driver_disk(), technique="hardware", paravirtual=paravirtual)
    ...     pc.boot(driver_kernel(paravirtual=paravirtual, clocks=0))
    ...     ending = pc.run()
    ...     print(pc.monitor.counts.exit_names["I/O"], len(pc.board.take_frames()))
    1222 64
    17 64
    """
    if not isinstance(paravirtual, bool):
        raise InvalidTypeError(f"paravirtual must be True or False, got {paravirtual!r:.40}")
    limits = {"sectors": (sectors, 0, 256), "frames": (frames, 0, 256), "clocks": (clocks, 0, 256)}
    _check({**limits, "batch": (batch, 1, MOST_READS)})
    if paravirtual:
        code, data = _paravirtual(sectors, frames, clocks, batch)
    else:
        code, data = _emulated(sectors, frames, clocks)
    begin = b"\xfa\xfc\xbc" + _word(STACK) + b"\xbf" + _word(BUFFER)
    code = begin + code + bytes.fromhex("b000 e6f4 faf4")
    return _kernel(code, data)


def _check(limits: Mapping[str, tuple[Any, int, int]]) -> None:
    """Refuse what is no integer, or outside its bounds."""
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidTypeError(f"{name} must be an integer, got {value!r:.40}")
        if not low <= value <= high:
            raise InvalidValueError(f"{name} must be {low} to {high}, got {value}")


def _kernel(code: bytes, data: bytes) -> bytes:
    """Put a multiboot header before code, and data at their place."""
    head = [0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) & 0xFFFFFFFF]
    head += [LOAD, LOAD, 0, 0, LOAD + 32]
    image = b"".join(map(_word, head)) + code
    return image.ljust(DATA - LOAD, b"\0") + data


def memory_kernel(
    *, pages: int = 512, used: int = 128, rounds: int = 4, balloon: bool = False
) -> bytes:
    """Make a guest that has touched more pages than it goes on using.

    It writes each of its pages, and stops by HLT; set running again, it writes those that it uses,
    and ends with exit code 0.

    Parameters
    ----------
    pages : int, default 512
        Pages of 4 KiB that it touches, from 4 MiB on: 1 to 4,096.
    used : int, default 128
        The first of them, which it goes on using: 0 to `pages`.
    rounds : int, default 4
        How often it writes those, 0 to 1,000.
    balloon : bool, default False
        Whether it writes down the others before it stops, for `balloon_frames`.

    Returns
    -------
    bytes
        A multiboot kernel for a `pyvirt.x86.pc.PC` of 20 MiB or more.
    """
    if not isinstance(balloon, bool):
        raise InvalidTypeError(f"balloon must be True or False, got {balloon!r:.40}")
    limits = {"pages": (pages, 1, 4096), "used": (used, 0, pages), "rounds": (rounds, 0, 1000)}
    _check(limits)
    base = FIRST_PAGE << 12
    code = b"\xfa\xfc\xbc" + _word(STACK)
    if balloon:
        # the list: how many, and their numbers
        code += b"\xc7\x05" + _word(LIST) + _word(pages - used)
        code += b"\xbf" + _word(LIST + 4) + b"\xb8" + _word(FIRST_PAGE + used)
        code += _times(pages - used, b"\xab\x40")  # STOSD; INC EAX
    code += b"\xbe" + _word(base) + _times(pages, b"\x89\x0e\x81\xc6" + _word(4096))
    code += b"\xf4"
    once = b"\xbe" + _word(base) + _times(used, b"\xff\x06\x81\xc6" + _word(4096))
    code += b"\xbd" + _word(rounds) + b"\x85\xed\x74" + bytes([len(once) + 3])
    code += once + b"\x4d\xeb" + bytes([256 - len(once) - 7])
    return _kernel(code + bytes.fromhex("b000 e6f4 faf4"), b"")


def _times(count: int, body: bytes) -> bytes:
    """MOV ECX, count; the body so often."""
    return (
        b"\xb9"
        + _word(count)
        + b"\xe3"
        + bytes([len(body) + 3])
        + body
        + b"\x49\x75"
        + bytes([256 - len(body) - 3])
    )


def balloon_frames(memory: PhysMem) -> list[int]:
    """Give the page numbers that `memory_kernel` has given up, as it wrote them down.

    Parameters
    ----------
    memory : pyvirt.PhysicalMemory
        The guest's.
    """
    count = min(memory.read_u32(LIST), 4096)
    return [memory.read_u32(LIST + 4 + 4 * i) for i in range(count)]


def driver_disk() -> bytes:
    """Make a disk of 256 sectors, each of which holds its number, word after word."""
    return b"".join(_word(number * 0x01010101) * (SECTOR // 4) for number in range(256))

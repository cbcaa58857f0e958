"""Linux boot images: what the 32-bit boot protocol promises, and images that are refused."""

import gzip
import struct

import pytest

from pyvirt.errors import ImageFormatError, InvalidValueError
from pyvirt.x86 import guests
from pyvirt.x86.linuxboot import read_linux
from pyvirt.x86.pc import PC
from x86.elves import elf

HIGH = 1 << 20
MEMORY = 32 << 20


def image(code: bytes, **changes: int) -> bytes:
    """A boot image of protocol 2.12 with one sector of setup; `changes` are at places in it."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = b"\xeb\x66"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20C)
    setup[0x211] = 1
    struct.pack_into("<I", setup, 0x214, HIGH)
    struct.pack_into("<I", setup, 0x238, 255)
    struct.pack_into("<I", setup, 0x260, 0x10000)
    for place, value in changes.items():
        at = int(place[1:], 16)
        struct.pack_into("<H" if at == 0x206 else "<I" if at >= 0x214 else "<B", setup, at, value)
    return bytes(setup) + code


def test_registers_and_segments_at_entry():
    pc = PC(MEMORY)
    # DS and CS again, from the GDT; EAX: the line's first bytes, ECX: the map's length, EDX: a size
    code = "66b81800 8ed8 8ec0 ea0d0010001000 8b8628020000 8b00 0fb68ee8010000 8b96e0010000 f4"
    pc.boot(image(bytes.fromhex(code)), "mem=1")
    start = pc.machine.registers
    assert (start.eip, start.cs.selector, start.ebx, start.ebp, start.edi) == (HIGH, 0x10, 0, 0, 0)
    assert {one.selector for one in (start.ds, start.es, start.ss)} == {0x18}
    assert not start.eflags & 0x200
    assert pc.run(100).why == "halt"
    now = pc.machine.registers
    assert struct.pack("<I", now.eax) == b"mem="
    assert (now.ecx, now.edx) == (3, (MEMORY - HIGH) >> 10)
    page = pc.machine.memory.read(now.esi, 4096)
    areas = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * i) for i in range(3)]
    assert areas == [
        (0, 639 << 10, 1), (639 << 10, 385 << 10, 2), (HIGH, MEMORY - HIGH, 1),
    ]  # fmt: skip
    assert page[0x1F1:0x210] == image(b"")[0x1F1:0x210]
    assert page[0x210] == 0xFF
    assert (page[0x06], page[0x07], page[0x0E], page[0x0F]) == (3, 80, 25, 1)


def test_the_header_ends_where_it_says():
    page = read_linux(image(b"\xf4"), MEMORY).loaded.parts[2][1]
    assert page[0x260:0x268] == bytes((0, 0, 1, 0, 0, 0, 0, 0))
    cut = read_linux(image(b"\xf4", x201=0x20), MEMORY).loaded.parts[2][1]
    assert cut[0x222:0x228] == bytes(6)
    assert cut[0x238:0x264] == bytes(44)
    assert struct.unpack_from("<I", cut, 0x228)[0] == 0xA000  # the loader's, whatever the header


def test_a_ram_disk_lies_at_the_end():
    disk = bytes(range(256)) * 17
    made = image(b"\xf4", x22c=0x37FFFFFF)
    pc = PC(MEMORY)
    pc.boot(made, "", disk)
    assert pc.run(10).why == "halt"
    page = pc.machine.memory.read(pc.machine.registers.esi, 4096)
    where, size = struct.unpack_from("<II", page, 0x218)
    assert (where, size) == (MEMORY - 0x2000, len(disk))
    assert pc.machine.memory.read(where, size) == disk
    low = read_linux(image(b"\xf4", x22c=0x5FFFFF), MEMORY, "", disk)
    assert low.loaded.parts[-1][0] == 0x600000 - 0x2000
    with pytest.raises(ImageFormatError, match="does not fit between the kernel's end"):
        read_linux(image(b"\xf4", x22c=0x10FFFF), MEMORY, "", disk)
    with pytest.raises(InvalidValueError, match="modules"):
        pc.boot(guests.kernel_image(), "", disk)


def test_a_kernel_that_is_unpacked_here():
    """It begins at its own entry, in the same state, without the code that would decompress it."""
    code = bytes.fromhex("8b86e0010000 f4")
    kernel = elf([(".text", 6, 0x400000, code)], bits=32, segments=[(5, 0x400000, code)])
    kernel = kernel[:24] + struct.pack("<I", 0x400000) + kernel[28:]
    payload = gzip.compress(kernel)
    made = image(b"\xf4" * 16 + payload, x248=16, x22c=0x7FFFFFFF)
    made = made[:0x24C] + struct.pack("<I", len(payload)) + made[0x250:]
    pc = PC(MEMORY)
    pc.boot(made, unpack=True)
    assert pc.machine.registers.eip == 0x400000
    assert pc.machine.memory.read(HIGH, 4) == bytes(4)
    assert pc.run(10).why == "halt"
    assert pc.machine.registers.eax == (MEMORY - HIGH) >> 10
    with pytest.raises(ImageFormatError, match="lies beyond the end"):
        pc.boot(image(b"\xf4"), unpack=True)
    small = PC("5MiB")
    small.boot(made, "", b"x" * 4096, unpack=True)
    assert small.run(10).why == "halt"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (b"", "no header"),
        (image(b"")[:0x240], "no header"),
        (image(b""), "ends before 0x400"),
        (image(b"\xf4", x211=0), "load flags 0x0"),
        (image(b"\xf4", x206=0x201), "protocol 2.01"),
        (image(b"\xf4", x214=0x1000), "begins at 0x1000"),
        (image(b"\xf4", x214=HIGH + 1), "outside of its code"),
        (image(b"\xf4", x260=MEMORY), "memory ends at 0x2000000"),
        (image(b"\xf4" * 100, x1f1=0), "ends before 0xa00"),
    ],
)
def test_images_that_are_refused(made: bytes, message: str):
    with pytest.raises(ImageFormatError, match=message):
        read_linux(made, MEMORY)


@pytest.mark.parametrize("line", ["x" * 256, "caf\xe9", "a\0b"])
def test_lines_that_are_refused(line: str):
    pc = PC(MEMORY)
    with pytest.raises(InvalidValueError, match="up to 255 ASCII"):
        pc.boot(image(b"\xf4"), line)
    assert pc.machine.memory.read(HIGH, 1) == b"\0"


def test_cut_anywhere_it_is_an_error_or_boots():
    whole = image(b"\xf4" * 40)
    for length in range(0, len(whole), 7):
        try:
            PC(MEMORY).boot(whole[:length])
        except ImageFormatError:
            continue
        assert length > 1024

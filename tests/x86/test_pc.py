"""A PC: kernels that are loaded and refused, how runs end, and runs in parts."""

import doctest
import gzip
import struct

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.x86 import guests, pc
from pyvirt.x86.multiboot import boot_information, read_kernel
from pyvirt.x86.pc import PC

MEMORY = 32 << 20
AT = 0x100000


def kernel(code: bytes, flags: int = 1 << 16, **header: int) -> bytes:
    """A flat kernel whose header says that all of it goes to AT, and its code after the header."""
    fields = {"header": AT, "load": AT, "load_end": 0, "bss_end": 0, "entry": AT + 32} | header
    head = struct.pack("<3I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    return head + struct.pack("<5I", *fields.values()) + code


def ran(code: str, budget: int = 10_000, **options) -> tuple[PC, pc.Ending]:
    made = PC(**options)
    made.boot(kernel(bytes.fromhex(code)))
    return made, made.run(budget)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("b005 e6f4 ebfe", "exit"),
        ("b0fe e664 ebfe", "reset"),
        ("fa f4", "halt"),
        ("ebfe", "budget"),
        ("0f0b", "triple fault"),
    ],
)
def test_ways_to_end(code, why):
    made, ending = ran(code)
    assert ending.why == why
    assert ending.exit_value == (5 if why == "exit" else None)
    assert ending.instructions <= ending.cycles
    if why in ("exit", "reset"):
        assert ending.instructions == 2
        # it is off: nothing more runs, until it is booted again
        assert made.run(100) == ending
        made.boot(kernel(bytes.fromhex("ebfe")))
        assert made.run(100).why == "budget"
    if why == "budget":
        assert ending.cycles == 10_000


def test_what_is_not_modelled_is_named():
    # a far jump to a task state segment: GDT with one at selector 8
    code = bytes.fromhex("0f0115 40001000 ea00000000 0800").ljust(32, b"\xf4")
    gdt = struct.pack("<HI", 15, AT + 0x48).ljust(8, b"\0") + bytes(8)
    gdt += struct.pack("<Q", 0x0000_8900_0000_0067 | 0x2000 << 16)
    made = PC()
    made.boot(kernel(code + gdt))
    ending = made.run(100)
    assert (ending.why, "task" in ending.detail) == ("unsupported", True)


@pytest.mark.parametrize("parts", [1, 7, 2_000])
def test_a_run_in_parts(parts):
    whole, split = (PC(disk=guests.kernel_disk()) for _ in range(2))
    for made in (whole, split):
        made.boot(guests.kernel_image())
    ending = whole.run()
    if parts == 1:
        seen = []
        assert split.run(progress=lambda done, total: seen.append((done, total))) == ending
        assert seen == sorted(seen)
        assert seen[-1] == (ending.cycles, 10**9)
        return
    rng = np.random.default_rng(parts)
    while (found := split.run(int(rng.integers(0, 10**7 // parts)))).why == "budget":
        pass
    assert found == ending
    assert split.board.output == whole.board.output
    assert split.counters["retired"] == whole.counters["retired"]


def test_command_line_and_memory_map():
    made = PC("4MiB")
    # EBX points to the information: take flags, sizes, and the line's first byte to EAX, ECX, EDX
    code = "8b03 8b4b08 8b5310 8a12 fa f4"
    made.boot(kernel(bytes.fromhex(code)), "quiet")
    assert made.run(100).why == "halt"
    now = made.machine.registers
    assert (now.eax, now.ecx, now.edx & 0xFF) == (0x45, 3072, ord("q"))
    where, data = boot_information(4 << 20, "quiet")
    length, at = struct.unpack_from("<2I", data, 44)
    areas = [struct.unpack_from("<IQQI", data, at - where + 24 * i) for i in range(length // 24)]
    assert areas == [(20, 0, 639 << 10, 1), (20, 1 << 20, 3 << 20, 1)]
    assert data[struct.unpack_from("<I", data, 16)[0] - where :] == b"quiet\0"


def test_a_compressed_kernel():
    made = PC("4MiB")
    image = kernel(bytes.fromhex("b005 e6f4 ebfe"))
    made.boot(gzip.compress(image))
    assert made.run(10).exit_value == 5
    for bad, message in (
        (gzip.compress(image)[:-12], "is cut"),
        (gzip.compress(bytes(5 << 20)), "larger than memory, 4194304"),
        (b"\x1f\x8b" + bytes(20), "is damaged"),
        (gzip.compress(b"x"), "no multiboot 1 header"),
    ):
        with pytest.raises(pv.ImageFormatError, match=message):
            made.boot(bad)


def test_memory_after_the_file_is_zero():
    made = PC()
    made.machine.load(b"\xff" * 64, AT + 0x2000)
    made.boot(kernel(b"\xf4", bss_end=AT + 0x2020))
    assert made.machine.memory.read(AT + 0x2000, 64) == bytes(32) + b"\xff" * 32


def header_at(image: bytes) -> int:
    return image.index(struct.pack("<I", 0x1BADB002))


IMAGE = guests.kernel_image()


def changed(at: int, form: str, value: int) -> bytes:
    image = bytearray(IMAGE)
    struct.pack_into(form, image, at, value)
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "no multiboot 1 header"),
        (bytes(10_000) + kernel(b""), "no multiboot 1 header"),
        (changed(header_at(IMAGE) + 8, "<I", 0), "no multiboot 1 header"),
        (kernel(b"\xf4", flags=1 << 16 | 4), "asks for a video mode"),
        (kernel(b"\xf4", flags=1 << 16 | 0x100), "feature 0x100"),
        (kernel(b"\xf4", flags=0), "no ELF file"),
        (kernel(b"")[:20], "is cut"),
        (kernel(b"\xf4", load=AT + 4), "puts the file's beginning"),
        (kernel(b"\xf4", load_end=AT + 99), "loads 99 bytes"),
        (kernel(b"\xf4", header=0x1000, load=0x1000), "does not fit between 0x100000"),
        (kernel(b"\xf4", bss_end=MEMORY + 1), "the end of memory, 0x2000000"),
        (changed(4, "<B", 2), "got class 2"),
        (changed(18, "<H", 62), "machine 62"),
        (changed(42, "<H", 8), "program headers of 8 bytes"),
        (changed(28, "<I", 1 << 30), "does not lie"),
        (changed(52 + 4, "<I", 1 << 30), "segment 0 has"),
        (changed(52 + 16, "<I", 1 << 30), "segment 0 has"),
        (changed(52 + 12, "<I", 0xFFFFF000), "does not fit"),
        (changed(44, "<H", 0), "nothing to load"),
        (IMAGE[: len(IMAGE) // 2], "segment|program headers"),
    ],
)
def test_kernels_that_are_refused(image, message):
    made = PC()
    with pytest.raises(pv.ImageFormatError, match=message):
        made.boot(image)
    made.boot(kernel(b"\xfa\xf4"))
    assert made.run(10).why == "halt"


def test_damaged_kernels_never_crash():
    rng = np.random.default_rng(8)
    for _ in range(300):
        image = bytearray(IMAGE[:9000])
        for at in rng.integers(0, 200, 3):
            image[at] = rng.integers(256)
        try:
            loaded = read_kernel(bytes(image), MEMORY)
        except pv.ImageFormatError:
            continue
        assert all(where >= AT and where + size <= MEMORY for where, _, size in loaded.parts)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PC("1MiB"), pv.InvalidValueError, "2 MiB to 4 GiB, got 1048576"),
        (lambda: PC((2 << 20) + 1), pv.InvalidValueError, "whole pages"),
        (lambda: PC(disk=b"abc"), pv.InvalidValueError, "got 3 bytes"),
        (lambda: PC().boot(7), pv.InvalidTypeError, "bytes or a path, got int"),
        (lambda: PC().boot(IMAGE, "é"), pv.InvalidValueError, "ASCII"),
        (lambda: PC().boot(IMAGE, "x" * 1024), pv.InvalidValueError, "1023"),
        (lambda: PC().run(-1), pv.InvalidValueError, "got -1"),
        (lambda: PC().run(1.5), pv.InvalidTypeError, "integer, got 1.5"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_examples_in_docstrings():
    assert doctest.testmod(pc).attempted > 3
    assert doctest.testmod(pc).failed == 0

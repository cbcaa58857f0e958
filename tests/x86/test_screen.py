"""The text screen: what lies in memory, as lines of text."""

import struct

import pytest

from pyvirt.x86.pc import PC
from x86.test_pc import AT, kernel

SCREEN = 0xB8000


def booted(code: str = "fa f4") -> PC:
    pc = PC()
    pc.boot(kernel(bytes.fromhex(code)))
    return pc


def test_it_is_blank_at_first():
    pc = booted()
    assert pc.screen == "\n" * 24
    assert pc.cursor == (0, 0)
    assert pc.machine.memory.read(SCREEN, 4) == b" \x07 \x07"
    pc.machine.load(b"A", SCREEN)
    pc.boot(kernel(b"\xf4"))
    assert pc.screen == "\n" * 24


def test_a_program_writes():
    # "Hi" to the start, "!" to the last cell, then the cursor to line 3, column 2
    code = "66c70500800b004807 66c70502800b006907 66c7059e8f0b002107"
    code += "66bad403 66b80e00 66ef 66b80ff2 66ef fa f4"
    pc = booted(code)
    assert pc.run(100).why == "halt"
    lines = pc.screen.split("\n")
    assert (lines[0], lines[24]) == ("Hi", " " * 79 + "!")
    assert lines[1:24] == [""] * 23
    assert pc.cursor == (3, 2)


def test_code_page_437():
    pc = booted()
    characters = bytes(range(256))
    pc.machine.load(b"".join(struct.pack("<BB", c, 7) for c in characters), SCREEN)
    text = "".join(line.ljust(80) for line in pc.screen.split("\n"))[:256]
    assert text[32:127] == characters[32:127].decode("ascii")
    assert (text[1], text[0x10], text[0x7F], text[0xC9], text[0xDB]) == ("☺", "►", "⌂", "╔", "█")
    assert len(set(text)) == 254  # NUL, blank, and, in a page of text, 255
    assert "\n" not in text


def test_it_begins_where_the_controller_says():
    pc = booted()
    pc.machine.load(b"X\x07", SCREEN + 160)
    pc.machine.load(b"W\x07", SCREEN)
    for index, value in ((0x0C, 0), (0x0D, 80), (0x0E, 0), (0x0F, 81)):
        pc.board.write_port(0x3D4, value << 8 | index, 2)
    assert pc.screen.split("\n")[0] == "X"
    assert pc.cursor == (0, 1)
    for index, value in ((0x0C, 0x3F), (0x0D, 0xFF)):  # the last cell: memory comes round
        pc.board.write_port(0x3D4, value << 8 | index, 2)
    assert pc.screen.startswith(" W")
    assert pc.cursor == (1, 2)
    pc.board.write_port(0x3D4, 0x800E, 2)
    assert pc.cursor is None or pc.cursor[0] < 25


@pytest.mark.parametrize("virtual", [0xC0000000, 0x100000, 0x2000])
def test_a_kernel_that_is_linked_for_other_addresses(virtual: int):
    """It begins where the byte at its entry was put."""
    body = kernel(b"", flags=0)[:12].ljust(16, b"\0") + bytes.fromhex("b82a000000 fa f4")
    ehdr = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, virtual + 16, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    phdr = struct.pack("<8I", 1, 84, virtual, AT, len(body), len(body), 7, 4096)
    pc = PC()
    pc.boot(ehdr + phdr + body)
    assert pc.machine.registers.eip == AT + 16
    assert pc.run(10).why == "halt"
    assert pc.machine.registers.eax == 42

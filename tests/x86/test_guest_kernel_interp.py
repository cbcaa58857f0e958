"""The guest kernel on our own processor and devices: QEMU's console and disk, byte for byte."""

import struct

import pytest

from pyvirt._core.devices.owner import Board
from pyvirt.x86 import guests
from x86.kernel_expectations import CONSOLE, EXIT_CODE, disk_after

machine = pytest.importorskip("pyvirt.x86.machine", reason="there is no interpreter yet")
MEMORY = 32 << 20
INFORMATION = 0x9000


def boot(board):
    """A machine as a multiboot loader leaves it, with its memory sizes in KiB."""
    made = machine.Machine(MEMORY, board.bus_capsule)
    image = guests.kernel_image()
    entry, headers = struct.unpack_from("<II", image, 24)
    for i in range(struct.unpack_from("<H", image, 44)[0]):
        _, offset, _, where, size, whole, _, _ = struct.unpack_from("<8I", image, headers + 32 * i)
        made.load(image[offset : offset + size].ljust(whole, b"\0"), where)
    made.load(struct.pack("<3I", 1, 639, (MEMORY >> 10) - 1024), INFORMATION)
    data = (16, 0, 0xFFFFFFFF, 0xC093)
    made.set(
        cs=(8, 0, 0xFFFFFFFF, 0xC09B), ds=data, es=data, ss=data, fs=data, gs=data, cr0=0x11,
        eip=entry, eax=0x2BADB002, ebx=INFORMATION,
    )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("frequency", "delay"), [(100_000_000, 0), (20_000_000, 30_000), (1_000_000_000, 1_000_000)]
)
def test_console_disk_and_exit_code(frequency, delay):
    board = Board(guests.kernel_disk(), frequency=frequency, memory=MEMORY, disk_delay=delay)
    made = boot(board)
    for _ in range(200):
        made.run(1_000_000)
        if board.exit_value is not None:
            break
    assert board.exit_value == EXIT_CODE
    assert board.output == CONSOLE
    assert board.disk.tobytes() == disk_after(guests.kernel_disk())

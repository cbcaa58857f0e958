"""The devices beside QEMU's: the same accesses of ports, the same answers.

What is left out is where QEMU does not follow the data sheets that `pyvirt._core.devices` names: a
request of the 8259A whose line falls before it is taken, sectors past the end (QEMU aborts), the
16550A's modem lines and reads of registers that hold nothing.
"""

import numpy as np
import pytest

from pyvirt._core.devices.owner import Board
from x86.pc import start_pic
from x86.qtest import QEMU, QTest

pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
SECTORS = 512


@pytest.fixture(scope="module")
def disk_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("qemu") / "disk.img"
    path.write_bytes(np.random.default_rng(3).integers(0, 256, SECTORS * 512, np.uint8).tobytes())
    return path


@pytest.fixture
def pair(disk_path):
    options = (
        "-drive", f"file={disk_path},format=raw,if=ide,snapshot=on",
        "-device", "ne2k_isa,iobase=0x300,irq=9,mac=52:54:00:12:34:56",
    )  # fmt: skip
    with QTest(*options) as qemu:
        yield Both(qemu, Board(disk_path))


class Both:
    def __init__(self, qemu, board):
        self.qemu, self.board, self.trace = qemu, board, []

    def write_port(self, port, value, size=1):
        self.trace.append(f"out {port:#x} {value:#x} {size}")
        self.qemu.write_port(port, value, size)
        self.board.write_port(port, value, size)

    def read_port(self, port, size=1, mask=0xFFFFFFFF):
        theirs, ours = (
            self.qemu.read_port(port, size) & mask,
            self.board.read_port(port, size) & mask,
        )
        self.trace.append(f"in {port:#x} {size}: {theirs:#x}")
        assert ours == theirs, "\n".join(self.trace[-30:])
        return ours


def masks_and_states(pair):
    """Of inputs but 0, since there the time is another, and 2, where a line falls now and then."""
    for port in (0x20, 0xA0):
        for select in (0x0A, 0x0B):
            pair.write_port(port, select)
            pair.read_port(port, mask=0xFA if port == 0x20 else 0xFF)
        pair.read_port(port + 1)


@pytest.mark.parametrize("seed", range(4))
def test_interrupt_controllers(pair, seed):
    rng = np.random.default_rng(seed)
    start_pic(pair, masks=(0x05, 0x01), icw4=1 | 0x10 * (seed & 1))
    pair.write_port(0x64, 0x60)
    pair.write_port(0x60, 0x45)
    pair.write_port(0x3FC, 0x08)
    waiting, special = False, {0x20: False, 0xA0: False}
    for _ in range(400):
        kind = rng.integers(0, 9)
        port = int(rng.choice([0x20, 0xA0]))
        if kind == 0 and not waiting:
            pair.write_port(0x64, 0xD2)
            pair.write_port(0x60, int(rng.integers(0, 256)))
            waiting = True
        elif kind == 1 and waiting:
            # Only once it was taken: the request would stay in QEMU's.
            pair.write_port(0x20, 0x0A)
            if not pair.read_port(0x20, mask=0x02):
                pair.read_port(0x60)
                waiting = False
        elif kind == 2:
            pair.write_port(0x20, 0x0A)
            if not pair.read_port(0x20, mask=0x10):
                pair.write_port(0x3F9, 0)
                pair.write_port(0x3F9, 2)
        elif kind == 3:
            pair.write_port(0x1F6, 0xE0)
            pair.write_port(0x1F7, 0xEF)
        elif kind == 4:
            pair.write_port(port + 1, int(rng.integers(0, 256)) | 5)
        elif kind == 5:
            pair.write_port(port, 0x0C)
            pair.read_port(port)
        elif kind == 6:
            # In special mask mode QEMU ends also what is masked where nothing is named.
            ends = [0x60, 0xC0, 0xE0] if special[port] else [0x20, 0x60, 0xA0, 0xC0, 0xE0]
            pair.write_port(port, int(rng.choice(ends)) | int(rng.integers(0, 8)))
        elif kind == 7:
            special[port] = not special[port]
            pair.write_port(port, 0x68 if special[port] else 0x48)
        masks_and_states(pair)


@pytest.mark.parametrize("seed", range(3))
def test_serial_port_in_loopback(pair, seed):
    rng = np.random.default_rng(seed)
    pair.write_port(0x3FC, 0x18)
    for _ in range(600):
        kind = rng.integers(0, 8)
        if kind < 3:
            pair.write_port(0x3F8, int(rng.integers(0, 256)))
        elif kind < 5:
            if pair.read_port(0x3FD) & 1:
                pair.read_port(0x3F8)
        elif kind == 5:
            port = int(rng.choice([0x3F9, 0x3FF]))
            pair.write_port(port, int(rng.integers(0, 8)))
            pair.read_port(port)
        elif kind == 6:
            pair.write_port(0x3FB, 0x83)
            for port in (0x3F8, 0x3F9):
                pair.write_port(port, int(rng.integers(1, 256)))
                pair.read_port(port)
            pair.write_port(0x3FB, 0x03)
        else:
            pair.read_port(0x3FA)


def settled(pair):
    while pair.qemu.read_port(0x3F6) & 0x80:
        pass
    return pair.read_port(0x3F6, mask=0xE9)


def command(pair, code, lba, count):
    pair.write_port(0x1F6, 0xE0 | lba >> 24)
    for port, value in ((0x1F2, count), (0x1F3, lba), (0x1F4, lba >> 8), (0x1F5, lba >> 16)):
        pair.write_port(port, value & 0xFF)
    pair.write_port(0x1F7, code)
    return settled(pair)


def test_disk(pair):
    rng = np.random.default_rng(1)
    pair.write_port(0x3F6, 0)
    for _ in range(25):
        kind, count = rng.integers(0, 5), int(rng.integers(1, 4))
        lba = int(rng.integers(0, SECTORS - 4))
        if kind < 2:
            command(pair, 0x20, lba, count)
        elif kind == 2:
            command(pair, 0x30, lba, count)
        elif kind == 3:
            command(pair, int(rng.choice([0xE7, 0xEF, 0x00, 0x99, 0xA1])), lba, count)
        else:
            command(pair, 0x40, lba, count)
        while settled(pair) & 8:
            for _ in range(128):
                if kind == 2:
                    pair.write_port(0x1F0, int(rng.integers(0, 1 << 32)), 4)
                else:
                    pair.read_port(0x1F0, 4)
        pair.read_port(0x1F7, mask=0xE9)
        if pair.board.read_port(0x3F6) & 1:
            pair.read_port(0x1F1)
    command(pair, 0xEC, 0, 0)
    theirs = [pair.qemu.read_port(0x1F0, 2) for _ in range(256)]
    ours = [pair.board.read_port(0x1F0, 2) for _ in range(256)]
    for word in (60, 61):
        assert ours[word] == theirs[word]
    assert ours[49] & theirs[49] & 0x200


@pytest.mark.parametrize("seed", range(3))
def test_network_card(pair, seed):
    rng = np.random.default_rng(seed)
    nic = 0x300
    pair.read_port(nic + 0x1F, mask=0)
    pair.write_port(nic, 0x21)
    pair.write_port(nic + 14, 0x49)
    pair.write_port(nic + 1, 0x46)
    pair.write_port(nic + 2, 0x80)
    for _ in range(150):
        kind = rng.integers(0, 6)
        if kind == 0:
            pair.write_port(nic, 0x22)
            pair.write_port(nic + int(rng.choice([4, 5, 6, 12, 15])), int(rng.integers(0, 256)))
            pair.write_port(nic + 3, int(rng.integers(0x46, 0x80)))
            pair.read_port(nic + 3)
            pair.read_port(nic + 7)
        elif kind == 1:
            pair.write_port(nic, 0x62)
            register = int(rng.integers(1, 16))
            pair.write_port(nic + register, int(rng.integers(0x46, 0x80)))
            pair.read_port(nic + register)
            pair.write_port(nic, 0x22)
        elif kind == 2:
            pair.write_port(nic + 7, int(rng.integers(0, 128)))
            pair.read_port(nic + 7)
        else:
            write = kind == 3
            address = int(rng.choice([0x4000, 0x5F00, 0x7FC0] if write else [0, 0x4000, 0x7FC0]))
            count = int(rng.integers(1, 40)) * 2 if address else 12
            for register, value in ((8, address), (9, address >> 8), (10, count), (11, 0)):
                pair.write_port(nic + register, value & 0xFF)
            pair.write_port(nic, 0x12 if write else 0x0A)
            for _ in range(count // 2):
                if write:
                    pair.write_port(nic + 16, int(rng.integers(0, 65536)), 2)
                else:
                    pair.read_port(nic + 16, 2, mask=0xFF if address == 0 else 0xFFFF)
            pair.read_port(nic + 7)
            pair.read_port(nic + 8)
            pair.read_port(nic + 9)

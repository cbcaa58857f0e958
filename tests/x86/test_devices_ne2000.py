"""The network card: what a driver does with a DP8390."""

import numpy as np
import pytest

from pyvirt._core.devices.owner import Board
from x86.pc import start_pic

NIC = 0x300
STATION = b"\x52\x54\x00\x12\x34\x56"
START, STOP = 0x46, 0x80


@pytest.fixture
def board():
    made = start_pic(Board())
    made.read_port(NIC + 0x1F)
    assert made.read_port(NIC + 7) & 0x80
    for register, value in (
        (0, 0x21), (14, 0x49), (10, 0), (11, 0), (12, 0x04), (13, 0x02), (1, START), (2, STOP),
        (3, START), (7, 0x7F), (15, 0x03), (0, 0x61),
    ):  # fmt: skip
        made.write_port(NIC + register, value)
    for i, byte in enumerate(STATION):
        made.write_port(NIC + 1 + i, byte)
    made.write_port(NIC + 7, START + 1)
    made.write_port(NIC, 0x22)
    made.write_port(NIC + 13, 0)
    return made


def remote(board, address, count, code):
    for register, value in ((8, address), (9, address >> 8), (10, count), (11, count >> 8)):
        board.write_port(NIC + register, value & 0xFF)
    board.write_port(NIC, code)


def read_memory(board, address, count):
    remote(board, address, count, 0x0A)
    data = b"".join(
        board.read_port(NIC + 0x10, 2).to_bytes(2, "little") for _ in range(-(-count // 2))
    )
    assert board.read_port(NIC + 7) & 0x40
    board.write_port(NIC + 7, 0x40)
    return data[:count]


def write_memory(board, address, data):
    remote(board, address, len(data), 0x12)
    for at in range(0, len(data), 2):
        board.write_port(NIC + 0x10, int.from_bytes(data[at : at + 2], "little"), 2)
    board.write_port(NIC + 7, 0x40)


def test_prom(board):
    data = read_memory(board, 0, 32)
    assert data[:12:2] == STATION
    assert data[28:] == b"WWWW"


def test_memory(board):
    data = np.random.default_rng(1).integers(0, 256, 1000, np.uint8).tobytes()
    write_memory(board, 0x4000, data)
    assert read_memory(board, 0x4000, 1000) == data


def test_sends(board):
    frame = bytes(range(100))
    write_memory(board, 0x4000, frame)
    for register, value in ((4, 0x40), (5, 100), (6, 0), (0, 0x26)):
        board.write_port(NIC + register, value)
    assert board.take_frames() == [frame]
    assert board.take_frames() == []
    assert board.acknowledge() == 0x29
    assert board.read_port(NIC + 7) & 2
    assert board.read_port(NIC + 4) & 1
    assert board.read_port(NIC) & 4 == 0


def take(board):
    """The next frame of the ring, as a driver takes it."""
    board.write_port(NIC, 0x62)
    current = board.read_port(NIC + 7)
    board.write_port(NIC, 0x22)
    page = board.read_port(NIC + 3) + 1
    page = START if page >= STOP else page
    if page == current:
        return None
    status, after, low, high = read_memory(board, page << 8, 4)
    assert status & 1
    length = (low | high << 8) - 4
    first = (page << 8) + 4
    data = read_memory(board, first, length)  # the remote transfer wraps by itself
    board.write_port(NIC + 3, after - 1 if after > START else STOP - 1)
    return data


def test_receives_around_the_ring(board):
    rng = np.random.default_rng(2)
    for _ in range(300):
        sent = []
        for _ in range(int(rng.integers(1, 5))):
            length = int(rng.integers(60, 1515))
            frame = STATION + rng.integers(0, 256, length - 6, np.uint8).tobytes()
            assert board.receive(frame)
            sent.append(frame)
        assert board.line
        assert [take(board) for _ in sent] == sent
        assert take(board) is None
        board.write_port(NIC + 7, 0x7F)
        assert board.acknowledge() in (0x29, 0x27)
        board.write_port(0xA0, 0x20)
        board.write_port(0x20, 0x20)
    assert board.frames[1] > 300


def test_what_is_not_for_it_is_dropped(board):
    other = b"\x02\0\0\0\0\1"
    assert not board.receive(other + bytes(60))
    assert board.receive(b"\xff" * 6 + bytes(60))
    assert board.read_port(NIC + 12) == 0x21
    board.write_port(NIC + 12, 0x14)
    assert board.receive(other + bytes(60))


def test_multicast_by_its_hash(board):
    group = b"\x01\x00\x5e\x00\x00\x01"
    board.write_port(NIC + 12, 0x0C)
    assert not board.receive(group + bytes(60))
    # The upper six bits of the checksum of 01:00:5e:00:00:01 are 31.
    board.write_port(NIC, 0x62)
    board.write_port(NIC + 8 + 31 // 8, 1 << 31 % 8)
    board.write_port(NIC, 0x22)
    assert board.receive(group + bytes(60))


def test_a_full_ring_says_so(board):
    frame = STATION + bytes(1508)
    taken = 0
    while board.receive(frame):
        taken += 1
        assert taken < 20
    assert taken == 9  # 58 pages of which one stays free, six for each frame
    assert board.read_port(NIC + 7) & 0x10
    assert take(board) == frame
    assert board.receive(frame)


def test_short_frames_are_padded(board):
    assert board.receive(STATION + b"12345678")
    assert take(board) == (STATION + b"12345678").ljust(60, b"\0")


def test_a_stopped_card_takes_nothing(board):
    board.write_port(NIC, 0x21)
    assert not board.receive(STATION + bytes(60))
    assert not Board(network=False).receive(STATION + bytes(60))

"""An ATA disk by programmed input and output."""

import numpy as np
import pytest

from pyvirt._core.devices.owner import Board
from pyvirt.errors import InvalidValueError
from x86.pc import start_pic

SECTORS = 2000


def content():
    return np.random.default_rng(3).integers(0, 256, SECTORS * 512, np.uint8).tobytes()


@pytest.fixture
def board():
    return start_pic(Board(disk=content()))


def command(board, code, lba, count, device=0xE0):
    board.write_port(0x1F6, device | lba >> 24)
    for port, value in ((0x1F2, count & 0xFF), (0x1F3, lba), (0x1F4, lba >> 8), (0x1F5, lba >> 16)):
        board.write_port(port, value & 0xFF)
    board.write_port(0x1F7, code)


def words(board, size=2):
    step = size * 8
    return b"".join(
        board.read_port(0x1F0, size).to_bytes(step // 8, "little") for _ in range(512 // size)
    )


def take_interrupt(board):
    assert board.acknowledge() == 0x2E
    board.write_port(0xA0, 0x20)
    board.write_port(0x20, 0x20)


def test_identify(board):
    command(board, 0xEC, 0, 0)
    assert board.read_port(0x3F6) == 0x58
    take_interrupt(board)
    data = np.frombuffer(words(board), "<u2")
    assert data[60] | int(data[61]) << 16 == SECTORS
    assert data[1] * data[3] * data[6] <= SECTORS
    assert data[49] & 0x200
    assert data[27:47].byteswap().tobytes().decode().rstrip() == "pyvirt disk"
    assert board.read_port(0x1F7) == 0x50


@pytest.mark.parametrize("size", [2, 4])
def test_reads_of_several_sectors(board, size):
    command(board, 0x20, 7, 3)
    for i in range(3):
        take_interrupt(board)
        assert board.read_port(0x1F7) == 0x58
        assert words(board, size) == content()[(7 + i) * 512 : (8 + i) * 512]
    assert board.read_port(0x1F7) == 0x50
    assert not board.line
    assert board.disk_sectors == (3, 0)


def test_zero_is_256_sectors(board):
    command(board, 0x20, 100, 0)
    data = b""
    while board.read_port(0x1F7) & 8:
        data += words(board)
    assert data == content()[100 * 512 : 356 * 512]


def test_writes(board):
    data = bytes(range(256)) * 4
    command(board, 0x30, 50, 2)
    assert not board.line  # the first sector is asked for without interrupt
    for i in range(2):
        assert board.read_port(0x3F6) == 0x58
        for at in range(i * 512, i * 512 + 512, 2):
            board.write_port(0x1F0, int.from_bytes(data[at : at + 2], "little"), 2)
        take_interrupt(board)
        board.read_port(0x1F7)
    assert board.read_port(0x1F7) == 0x50
    expected = bytearray(content())
    expected[50 * 512 : 52 * 512] = data
    assert board.disk.tobytes() == bytes(expected)
    command(board, 0xE7, 0, 0)
    take_interrupt(board)
    assert board.read_port(0x1F7) == 0x50


def test_cylinders_heads_sectors(board):
    # Cylinder 1, head 2, sector 3 of 16 heads and 63 sectors.
    lba = (1 * 16 + 2) * 63 + 3 - 1
    command(board, 0x20, 3 | 1 << 8, 1, device=0xA2)
    assert words(board) == content()[lba * 512 : lba * 512 + 512]
    command(board, 0x91, 0, 10, device=0xA3)  # 4 heads, 10 sectors
    command(board, 0x20, 10 | 2 << 8, 1, device=0xA1)
    lba = (2 * 4 + 1) * 10 + 10 - 1
    assert words(board) == content()[lba * 512 : lba * 512 + 512]
    command(board, 0x20, 11, 1, device=0xA0)  # no track has sector 11
    assert board.read_port(0x1F7) & 1
    assert board.read_port(0x1F1) == 0x10


def test_past_the_end(board):
    command(board, 0x20, SECTORS - 1, 2)
    assert words(board) == content()[-512:]
    assert board.read_port(0x1F7) == 0x51
    assert board.read_port(0x1F1) == 0x10
    assert board.read_port(0x1F2) == 1
    assert [board.read_port(p) for p in (0x1F3, 0x1F4)] == [SECTORS & 0xFF, SECTORS >> 8]
    command(board, 0x30, SECTORS, 1)
    assert board.read_port(0x1F7) == 0x51


def test_what_is_not_a_command_is_aborted(board):
    command(board, 0xA1, 0, 0)
    assert (board.read_port(0x1F7), board.read_port(0x1F1)) == (0x51, 0x04)


def test_no_interrupts_on_request(board):
    board.write_port(0x3F6, 2)
    command(board, 0x20, 0, 1)
    assert not board.line
    board.write_port(0x3F6, 0)
    assert board.line


def test_a_command_is_an_edge_of_its_own(board):
    for _ in range(3):  # nobody reads the status: the command itself takes INTRQ back
        command(board, 0xE7, 0, 0)
        take_interrupt(board)
        assert not board.line


def test_features(board):
    for feature, status in ((0x02, 0x50), (0x99, 0x51)):
        board.write_port(0x1F1, feature)
        command(board, 0xEF, 0, 0)
        assert board.read_port(0x1F7) == status


def test_software_reset(board):
    command(board, 0x20, 5, 1)
    board.write_port(0x3F6, 4)
    assert board.read_port(0x1F7) & 0x80
    board.write_port(0x3F6, 0)
    assert [board.read_port(0x1F0 + i) for i in range(1, 6)] == [1, 1, 1, 0, 0]
    assert board.read_port(0x1F7) == 0x50


def test_nobody_is_device_1(board):
    command(board, 0x20, 0, 1, device=0xF0)
    assert board.read_port(0x1F7) == 0
    assert not board.line


def test_a_delay():
    board = start_pic(Board(disk=content(), disk_delay=5000))
    board.advance(100)
    command(board, 0x20, 9, 1)
    assert board.next_event == 5100
    assert board.read_port(0x3F6) == 0x80
    board.advance(5099)
    assert not board.line
    board.advance(5100)
    take_interrupt(board)
    assert words(board) == content()[9 * 512 : 10 * 512]
    assert board.next_event is None


def test_without_a_disk_the_ports_float():
    assert Board().read_port(0x1F7) == 0xFF


def test_a_file_is_copied_on_write(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(content())
    board = start_pic(Board(disk=path))
    command(board, 0x30, 3, 1)
    for _ in range(256):
        board.write_port(0x1F0, 0xABCD, 2)
    assert board.disk[3 * 512 : 4 * 512].tobytes() == b"\xcd\xab" * 256
    assert path.read_bytes() == content()
    copy = board.copy()
    assert copy.disk.tobytes() == board.disk.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        board.disk[0] = 1


@pytest.mark.parametrize("size", [0, 1, 511, 513])
def test_a_disk_has_whole_sectors(size):
    with pytest.raises(InvalidValueError, match="sectors"):
        Board(disk=bytes(size))

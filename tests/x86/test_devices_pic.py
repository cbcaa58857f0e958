"""The 8259A pair by its data sheet. Lines used: keyboard 1, serial port 4, disk 14."""

import pytest

from pyvirt._core.devices.owner import Board
from x86.pc import registers, start_pic

DISK = bytes(512)


@pytest.fixture
def board():
    made = start_pic(Board(disk=DISK))
    made.write_port(0x64, 0x60)
    made.write_port(0x60, 0x45)
    made.write_port(0x3FC, 0x08)
    made.write_port(0x3F9, 0x01)
    return made


def disk(board):
    board.write_port(0x1F7, 0xE7)


def test_nothing_before_initialisation():
    board = Board()
    board.write_port(0x64, 0x60)
    board.write_port(0x60, 0x45)
    board.press(b"\x1c")
    assert not board.line
    assert board.acknowledge() is None


def test_vectors_and_service(board):
    board.press(b"\x1c")
    assert board.line
    assert registers(board) == [0x02, 0, 0, 0]
    assert board.acknowledge() == 0x21
    assert not board.line
    assert registers(board) == [0, 0x02, 0, 0]
    board.write_port(0x20, 0x20)
    assert registers(board) == [0, 0, 0, 0]


def test_the_second_controller_comes_through_input_2(board):
    disk(board)
    assert registers(board) == [0x04, 0, 0x40, 0]
    assert board.acknowledge() == 0x2E
    assert registers(board) == [0, 0x04, 0, 0x40]
    board.write_port(0xA0, 0x20)
    board.write_port(0x20, 0x20)
    assert registers(board) == [0, 0, 0, 0]


def test_a_higher_priority_interrupts_a_lower_one_only(board):
    board.send(b"x")
    assert board.acknowledge() == 0x24
    board.press(b"\x1c")
    assert board.line
    assert board.acknowledge() == 0x21
    disk(board)
    assert not board.line
    board.write_port(0x20, 0x20)  # ends 1, the highest in service
    assert registers(board)[1] == 0x10
    assert board.line  # input 2 is above 4
    assert board.acknowledge() == 0x2E


def test_masks(board):
    board.write_port(0x21, 0x02)
    board.press(b"\x1c")
    assert not board.line
    assert registers(board)[0] == 0x02
    assert board.read_port(0x21) == 0x02
    board.write_port(0x21, 0x00)
    assert board.line


def test_a_request_that_goes_away_is_spurious(board):
    board.press(b"\x1c")
    board.read_port(0x60)
    assert not board.line
    assert board.acknowledge() == 0x27
    assert registers(board) == [0, 0, 0, 0]


def test_an_edge_is_one_request(board):
    board.press(b"\x1c\x9c")
    assert board.acknowledge() == 0x21
    board.write_port(0x20, 0x20)
    assert not board.line  # the level is still high


def test_level_triggered_asks_again():
    board = Board()
    for port, value in ((0x20, 0x19), (0x21, 0x20), (0x21, 4), (0x21, 1)):
        board.write_port(port, value)
    board.write_port(0x64, 0x60)
    board.write_port(0x60, 0x45)
    board.press(b"\x1c")
    assert board.acknowledge() == 0x21
    board.write_port(0x20, 0x20)
    assert board.line
    board.read_port(0x60)
    assert not board.line


def test_rotation_and_specific_ends(board):
    board.send(b"x")
    board.press(b"\x1c")
    assert board.acknowledge() == 0x21
    board.write_port(0x20, 0xA0)  # rotate: 1 has the lowest priority now
    board.read_port(0x60)
    board.press(b"\x9c")
    assert board.acknowledge() == 0x24
    assert not board.line
    board.write_port(0x20, 0x64)  # a specific end of 4
    assert board.line
    assert board.acknowledge() == 0x21
    board.write_port(0x20, 0xC3)  # set priority: 3 the lowest, so 4 the highest
    board.read_port(0x3F8)
    board.send(b"y")
    assert board.line


def test_automatic_end():
    board = start_pic(Board(), icw4=3)
    board.write_port(0x64, 0x60)
    board.write_port(0x60, 0x45)
    board.press(b"\x1c")
    assert board.acknowledge() == 0x21
    assert registers(board)[:2] == [0, 0]


def test_special_mask_lets_lower_ones_through(board):
    board.press(b"\x1c")
    assert board.acknowledge() == 0x21
    board.send(b"x")
    assert not board.line
    board.write_port(0x21, 0x02)
    board.write_port(0x20, 0x68)
    assert board.line
    board.write_port(0x20, 0x48)
    assert not board.line


def test_special_fully_nested_mode():
    board = start_pic(Board(disk=DISK, network=True), icw4=0x11)
    disk(board)
    assert board.acknowledge() == 0x2E
    for port, value in ((0x30F, 0x40), (0x30A, 0), (0x30B, 0), (0x300, 0x0A)):
        board.write_port(port, value)  # the card's input 9, above 14
    assert board.line
    assert board.acknowledge() == 0x29


def test_poll(board):
    board.press(b"\x1c")
    board.write_port(0x20, 0x0C)
    assert board.read_port(0x20) == 0x81
    assert registers(board)[1] == 0x02
    board.write_port(0x20, 0x0C)
    assert board.read_port(0x20) == 0

"""The 16550A by its data sheet."""

import pytest

from pyvirt._core.devices.owner import Board
from x86.pc import start_pic


@pytest.fixture
def board():
    made = start_pic(Board())
    made.write_port(0x3FC, 0x0B)
    return made


def iir(board):
    return board.read_port(0x3FA) & 0x0F


def test_what_is_sent(board):
    for byte in b"hello":
        assert board.read_port(0x3FD) & 0x60 == 0x60
        board.write_port(0x3F8, byte)
    assert board.output == b"hello"
    assert board.take_output() == b"hello"
    assert board.output == b""


def test_divisor_latch(board):
    board.write_port(0x3FB, 0x83)
    board.write_port(0x3F8, 0x0C, 1)
    board.write_port(0x3F9, 0x01)
    assert (board.read_port(0x3F8), board.read_port(0x3F9)) == (0x0C, 0x01)
    board.write_port(0x3FB, 0x03)
    assert board.output == b""
    assert board.read_port(0x3F9) == 0


def test_scratch(board):
    board.write_port(0x3FF, 0x5A)
    assert board.read_port(0x3FF) == 0x5A


def test_receives_one_by_one_without_fifos(board):
    board.write_port(0x3F9, 1)
    board.send(b"abc")
    assert board.acknowledge() == 0x24
    board.write_port(0x20, 0x20)
    assert iir(board) == 4
    assert [board.read_port(0x3F8) for _ in range(3)] == list(b"abc")
    assert board.read_port(0x3FD) & 1 == 0
    assert iir(board) == 1
    assert not board.line


@pytest.mark.parametrize(("bits", "trigger"), [(0, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_trigger_levels(board, bits, trigger):
    board.write_port(0x3FA, 1 | bits)
    board.write_port(0x3F9, 1)
    assert board.read_port(0x3FA) == 0xC1
    board.send(bytes(trigger))
    assert iir(board) == 4
    board.read_port(0x3F8)
    assert iir(board) == (1 if trigger == 1 else 0xC)


def test_more_than_the_fifo_waits(board):
    data = bytes(range(100))
    board.write_port(0x3FA, 1)
    board.send(data)
    found = []
    while board.read_port(0x3FD) & 1:
        found.append(board.read_port(0x3F8))
    assert bytes(found) == data


def test_transmitter_empty(board):
    board.write_port(0x3F9, 2)
    assert board.line
    assert iir(board) == 2
    assert iir(board) == 1  # reading IIR took it back
    board.write_port(0x3F8, 0x41)
    assert iir(board) == 2


def test_priorities_and_out2(board):
    board.write_port(0x3FC, 0x13)  # loopback without FIFOs: the second overruns the first
    board.write_port(0x3F8, 1)
    board.write_port(0x3F8, 2)
    board.write_port(0x3F9, 0x0F)
    assert iir(board) == 6
    assert board.read_port(0x3FD) & 3 == 3
    assert iir(board) == 4
    assert board.read_port(0x3F8) == 2
    assert iir(board) == 2
    board.read_port(0x3FE)
    board.write_port(0x3FC, 0x03)
    board.send(b"x")
    assert not board.line  # OUT2 holds it back
    board.write_port(0x3FC, 0x0B)
    assert board.line
    assert board.output == b""


def test_loopback_of_modem_lines(board):
    board.write_port(0x3FC, 0x10)
    board.read_port(0x3FE)
    for bits, lines in ((1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80)):
        board.write_port(0x3FC, 0x10 | bits)
        assert board.read_port(0x3FE) & 0xF0 == lines


def test_the_limit_of_output():
    board = Board(output_limit=3)
    for byte in b"abcde":
        board.write_port(0x3F8, byte)
    assert (board.output, board.lost) == (b"abc", 2)

"""The CRT controller of a VGA: registers, their protection, and the beam."""

import numpy as np

from pyvirt._core.devices.owner import Board

INDEX, DATA, STATUS = 0x3D4, 0x3D5, 0x3DA


def register(board: Board, index: int) -> int:
    board.write_port(INDEX, index)
    return board.read_port(DATA)


def test_registers_are_those_of_mode_3():
    board = Board()
    assert board.read_port(INDEX) == 0
    assert [register(board, at) for at in (0x01, 0x09, 0x0C, 0x0D, 0x13)] == [79, 0x4F, 0, 0, 40]
    assert register(board, 25) == register(board, 0xFF) == 0xFF
    assert (board.screen_start, board.cursor) == (0, 0)


def test_a_word_is_index_and_data():
    board = Board()
    for index, value in ((0x0E, 0x07), (0x0F, 0x21), (0x0C, 1), (0x0D, 0x40)):
        board.write_port(INDEX, value << 8 | index, 2)
    assert (board.screen_start, board.cursor) == (0x140, 0x721)
    board.write_port(INDEX, 0x2000 | 0x0A, 2)
    assert board.cursor is None
    assert board.counts()[DATA] == (0, 5)
    board.write_port(INDEX, 0x20FF, 2)  # no register
    copied = board.copy()
    assert (copied.screen_start, copied.cursor) == (0x140, None)
    board.reset()
    assert (board.screen_start, board.cursor) == (0, 0)


def test_the_first_eight_are_protected():
    board = Board()
    board.write_port(INDEX, 0x1201, 2)
    board.write_port(INDEX, 0x0007, 2)
    assert (register(board, 1), register(board, 7)) == (79, 0x0F)  # but for one bit of 7
    board.write_port(INDEX, 0x0E11, 2)
    board.write_port(INDEX, 0x1201, 2)
    assert register(board, 1) == 0x12


def test_the_beam_comes_round_seventy_times_a_second():
    frequency = 10_000_000
    board = Board(frequency=frequency)
    seen = []
    for cycle in range(0, 3_000_000, 17):
        board.advance(cycle)
        seen.append(board.read_port(STATUS))
    status = np.array(seen)
    assert set(status) == {0, 1, 9}
    retraces = np.flatnonzero(np.diff((status & 8).astype(int)) > 0)
    seconds = np.diff(retraces) * 17 / frequency
    assert abs(seconds.mean() * 28_322_000 / (9 * 100 * 449) - 1) < 1e-3
    # 400 of 449 lines and 80 of 100 characters are shown; the retrace takes two lines
    assert abs((status == 0).mean() - 400 / 449 * 0.8) < 0.005
    assert abs((status == 9).mean() - 2 / 449) < 0.0005

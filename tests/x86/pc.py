"""Shorthands for tests of devices."""

from pyvirt._core.devices.owner import Board


def start_pic(board, masks=(0, 0), icw4=1):
    for port, value in (
        (0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, icw4), (0x21, masks[0]),
        (0xA0, 0x11), (0xA1, 0x28), (0xA1, 0x02), (0xA1, 0x01), (0xA1, masks[1]),
    ):  # fmt: skip
        board.write_port(port, value)
    return board


def registers(board):
    """IRR and ISR of both controllers."""
    found = []
    for port in (0x20, 0xA0):
        for select in (0x0A, 0x0B):
            board.write_port(port, select)
            found.append(board.read_port(port))
    return found


def at_timer_rate(**options):
    """A board whose cycles are the timer's pulses."""
    return Board(frequency=1193182, **options)


def set_counter(board, which, mode, count, bcd=0):
    board.write_port(0x43, which << 6 | 0x30 | mode << 1 | bcd)
    board.write_port(0x40 + which, count & 0xFF)
    board.write_port(0x40 + which, count >> 8)


def read_counter(board, which):
    board.write_port(0x43, which << 6)
    low = board.read_port(0x40 + which)
    return low | board.read_port(0x40 + which) << 8


def out_of(board, which):
    board.write_port(0x43, 0xE0 | 2 << which)
    return board.read_port(0x40 + which) >> 7

"""The board as a whole: dispatch, counts, log, clock, keyboard, exit, states, any input."""

import copy
import datetime
import pickle
import sys

import numpy as np
import pytest

from pyvirt._core.devices.owner import ACCESS, Board
from pyvirt.errors import InvalidTypeError, InvalidValueError
from x86.pc import start_pic

PORTS = [
    0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80,
    *range(0x1F0, 0x1F8), 0x3F6, *range(0x3F8, 0x400), *range(0x300, 0x320), 0x1234, 0xFFFF,
]  # fmt: skip


def test_nobody_has_a_port():
    board = Board()
    assert [board.read_port(0x1234, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    board.write_port(0x1234, 5)
    assert board.counts() == {-1: (3, 1)}


def test_wide_accesses_are_bytes():
    board = Board()
    board.write_port(0x3FF, 0x55)
    assert board.read_port(0x3FE, 2) == 0x55B0
    assert board.read_port(0xFFFF, 2) == 0xFFFF
    assert board.counts()[0x3FF] == (1, 1)


def test_exit_port():
    board = Board()
    assert board.exit_value is None
    board.write_port(0xF4, 0x10)
    board.write_port(0xF4, 0x11)
    assert board.exit_value == 0x10
    other = Board()
    other.write_port(0xF4, 0x12345678, 4)
    assert other.exit_value == 0x12345678


def test_reset_line_and_keyboard():
    board = Board()
    assert board.read_port(0x64) & 1 == 0
    board.write_port(0x64, 0xAA)
    assert board.read_port(0x64) & 1
    assert board.read_port(0x60) == 0x55
    board.write_port(0x60, 0xFF)
    assert [board.read_port(0x60), board.read_port(0x60)] == [0xFA, 0xAA]
    board.write_port(0x64, 0x60)
    board.write_port(0x60, 0x47)
    board.write_port(0x64, 0x20)
    assert board.read_port(0x60) == 0x47
    assert board.press(bytes(100)) == 32
    assert not board.reset_requested
    board.write_port(0x64, 0xFE)
    assert board.reset_requested
    board.reset()
    assert not board.reset_requested


def cmos(board, index):
    board.write_port(0x70, index)
    return board.read_port(0x71)


def test_the_clock_is_the_calendars():
    rng = np.random.default_rng(4)
    for _ in range(300):
        second = int(rng.integers(0, 6_000_000_000))
        board = Board(frequency=10_000, epoch=second - second % 1000, network=False)
        board.advance(second % 1000 * 10_000 + 9_999)
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=second)
        assert cmos(board, 10) & 0x80  # the second is about to change
        found = [int(f"{cmos(board, index):x}") for index in (0, 2, 4, 7, 8, 9, 0x32)]
        assert found == [
            moment.second, moment.minute, moment.hour, moment.day, moment.month,
            moment.year % 100, moment.year // 100,
        ]  # fmt: skip
        assert cmos(board, 6) == moment.isoweekday() % 7 + 1
        board.write_port(0x70, 11)
        board.write_port(0x71, 0x04)  # binary, twelve hours
        hour = cmos(board, 4)
        assert hour & 0x7F == (moment.hour + 11) % 12 + 1
        assert hour >> 7 == moment.hour // 12


def test_memory_sizes():
    board = Board(memory=96 << 20)
    sizes = [cmos(board, index) | cmos(board, index + 1) << 8 for index in (0x15, 0x17, 0x30, 0x34)]
    assert sizes == [640, 0xFC00, 0xFC00, (96 - 16) << 4]


def test_log_and_counts():
    board = Board(log=4)
    for i in range(6):
        board.advance(i * 10)
        board.write_port(0x3FF, i)
    board.read_port(0x3FE, 2)
    log = board.log()
    assert log.dtype == ACCESS
    assert log.tolist() == [
        (30, 3, 0x3FF, 1, 1), (40, 4, 0x3FF, 1, 1), (50, 5, 0x3FF, 1, 1), (50, 0x5B0, 0x3FE, 2, 0),
    ]  # fmt: skip
    assert board.accesses == 7
    assert board.counts() == {0x3FE: (1, 0), 0x3FF: (1, 6)}
    assert len(Board().log()) == 0


def act(board, rng, count):
    """Anything a guest or the outside may do; what it saw."""
    seen = []
    for _ in range(count):
        kind, port = rng.integers(0, 12), int(rng.choice(PORTS))
        size = int(rng.choice([1, 1, 1, 2, 4]))
        if kind < 5:
            board.write_port(port, int(rng.integers(0, 1 << 8 * size)), size)
        elif kind < 8:
            seen.append(board.read_port(port, size))
        elif kind == 8:
            board.advance(board.now + int(rng.integers(0, 100_000)))
        elif kind == 9:
            seen.append(board.acknowledge() if board.line else None)
        elif kind == 10:
            board.send(rng.bytes(int(rng.integers(0, 20))))
        else:
            seen.append(board.receive(b"\xff" * 6 + rng.bytes(int(rng.integers(8, 1500)))))
        seen.append((board.line, board.next_event))
        assert board.next_event is None or board.next_event > board.now
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_states_go_on_alike(seed):
    rng = np.random.default_rng(seed)
    board = start_pic(Board(disk=rng.bytes(512 * 300), log=50, disk_delay=seed % 2 * 500))
    act(board, rng, 3000)
    state = board.snapshot()
    others = [board.copy(), copy.deepcopy(board), pickle.loads(pickle.dumps(board))]
    disk = board.disk.copy()
    expected = act(board, np.random.default_rng(99), 1000)
    after = board.snapshot()
    board.restore(state)
    for other in [board, *others]:
        assert other.snapshot() == state
        assert np.array_equal(other.disk, disk)
        assert act(other, np.random.default_rng(99), 1000) == expected
        assert other.snapshot() == after


def test_a_state_goes_back_over_written_sectors():
    board = Board(disk=bytes(range(256)) * 8)
    state = board.snapshot()
    board.write_port(0x1F6, 0xE0)
    for port, value in ((0x1F2, 1), (0x1F3, 2), (0x1F7, 0x30)):
        board.write_port(port, value)
    for _ in range(128):
        board.write_port(0x1F0, 0, 4)
    assert not board.disk[1024:1536].any()
    written = board.snapshot()
    board.restore(state)
    assert board.disk.tobytes() == bytes(range(256)) * 8
    board.restore(written)
    assert not board.disk[1024:1536].any()


def test_states_of_others_are_refused():
    board = Board(disk=bytes(1024))
    state = board.snapshot()
    for other in (Board(), Board(disk=bytes(512)), Board(disk=bytes(1024), frequency=5)):
        with pytest.raises(InvalidValueError, match="state"):
            other.restore(state)
    for wrong in (
        None,
        (),
        (1, b""),
        state[:-1],
        (state[0] + 1, *state[1:]),
        (*state[:5], b"\xff" * 4, *state[6:]),
    ):
        with pytest.raises(InvalidValueError, match="state"):
            board.restore(wrong)
    assert board.snapshot() == state


def test_damaged_states_end_in_an_error_or_in_a_state():
    rng = np.random.default_rng(8)
    board = start_pic(Board(disk=bytes(512 * 20)))
    act(board, rng, 500)
    state = board.snapshot()
    for _ in range(300):
        raw = bytearray(state[1])
        for at in rng.integers(0, len(raw), 20):
            raw[at] = rng.integers(0, 256)
        victim = Board(disk=bytes(512 * 20))
        try:
            victim.restore((state[0], bytes(raw), *state[2:]))
        except InvalidValueError:
            continue
        for port in PORTS:
            victim.read_port(port)


@pytest.mark.parametrize(
    "options",
    [
        {"frequency": 0},
        {"frequency": (1 << 40) + 1},
        {"memory": -1},
        {"station": b"12345"},
        {"log": -1},
        {"epoch": -1},
        {"disk_delay": -1},
    ],
)
def test_settings_are_checked(options):
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        Board(**options)


def test_arguments_are_checked():
    board = Board()
    for call in (
        lambda: board.read_port(65536),
        lambda: board.read_port(0, 3),
        lambda: board.write_port(0, 256),
        lambda: board.advance(-1),
        lambda: board.receive(b"short"),
        lambda: board.__init__(),
    ):
        with pytest.raises(InvalidValueError, match="got"):
            call()
    with pytest.raises(InvalidTypeError, match="got"):
        board.read_port("x")
    with pytest.raises(InvalidTypeError, match="got"):
        board.send("text")
    board.advance(50)
    with pytest.raises(InvalidValueError, match="got"):
        board.advance(49)


def test_the_capsule_keeps_the_board():
    # A processor takes the bus by its name; the board must not go before it.
    board = Board()
    alive = sys.getrefcount(board)
    capsule = board.bus_capsule
    assert 'capsule object "pyvirt.bus_t"' in repr(capsule)
    assert sys.getrefcount(board) == alive + 1
    del capsule
    assert sys.getrefcount(board) == alive


def test_a_board_that_nobody_initialised_is_whole():
    board = Board.__new__(Board)
    assert board.read_port(0x1F7) == 0xFF
    assert board.output == b""
    board.snapshot()

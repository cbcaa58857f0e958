"""The 8254 by its data sheet, against a counter that is stepped pulse by pulse."""

import numpy as np
import pytest

from pyvirt._core.devices.owner import Board
from x86.pc import at_timer_rate, out_of, read_counter, set_counter, start_pic


def stepped(mode, count, pulses):
    """(count, OUT) at each pulse from the one that loads, as "Mode Definitions" steps them."""
    found = []
    value, out = count, mode != 0
    if mode == 3:
        value = count & ~1
    found.append((value, int(out)))
    for _ in range(pulses):
        if mode in (0, 4):
            value = (value - 1) & 0xFFFF
            if mode == 0 and value == 0:
                out = True
            if mode == 4:
                out = not (value == 0 and len(found) == count)
        elif mode == 2:
            if value == 1:
                value, out = count, True
            else:
                value -= 1
                out = value != 1
        elif count & 1 and out:  # an odd count is high for one pulse more
            if value == 0:
                value, out = count - 1, False
            else:
                value -= 2
        else:
            value -= 2
            if value == 0:
                value, out = count & ~1, not out
        found.append((value & 0xFFFF, int(out)))
    return found


@pytest.mark.parametrize("mode", [0, 2, 3, 4])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 9, 10])
def test_counts_and_outputs(mode, count):
    board = at_timer_rate()
    set_counter(board, 0, mode, count)
    expected = stepped(mode, count, 40)
    for pulse, (value, out) in enumerate(expected):
        board.advance(1 + pulse)
        assert (read_counter(board, 0), out_of(board, 0)) == (value, out), pulse


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("frequency", [1193181, 1193183, 33_000_000, 999_999_937, 1 << 40])
def test_interrupts_are_exact(mode, frequency):
    board = start_pic(Board(frequency=frequency), masks=(0xFE, 0xFF))
    count = 11932
    set_counter(board, 0, mode, count)
    if board.line:  # OUT went high with the mode
        board.acknowledge()
        board.write_port(0x20, 0x20)
    for i in range(1, 50):
        due = board.next_event
        # The first cycle by which the pulses of i periods, after the one that loads, have passed.
        pulses = 1 + i * count
        assert due == -(-pulses * frequency // 1193182)
        board.advance(due - 1)
        assert not board.line
        board.advance(due)
        assert board.line
        assert board.acknowledge() == 0x20
        board.write_port(0x20, 0x20)


def test_events_missed_are_one_request():
    board = start_pic(at_timer_rate())
    set_counter(board, 0, 2, 100)
    board.acknowledge()
    board.write_port(0x20, 0x20)
    board.advance(100_010)
    assert board.acknowledge() == 0x20
    board.write_port(0x20, 0x20)
    assert not board.line
    assert board.next_event == 100_101


def test_latch_holds_until_it_is_read():
    board = at_timer_rate()
    set_counter(board, 0, 2, 1000)
    board.advance(11)
    board.write_port(0x43, 0x00)
    board.advance(50)
    board.write_port(0x43, 0x00)  # ignored
    assert board.read_port(0x40) | board.read_port(0x40) << 8 == 990
    assert board.read_port(0x40) | board.read_port(0x40) << 8 == 951


def test_read_back_gives_status_first():
    board = at_timer_rate()
    set_counter(board, 0, 3, 1000)
    board.write_port(0x43, 0xC2)
    assert board.read_port(0x40) == 0x80 | 0x40 | 0x30 | 3 << 1  # null count: not loaded yet
    board.read_port(0x40), board.read_port(0x40)
    board.advance(1)
    board.write_port(0x43, 0xC2)
    assert board.read_port(0x40) == 0x80 | 0x30 | 3 << 1
    assert board.read_port(0x40) | board.read_port(0x40) << 8 == 1000


@pytest.mark.parametrize("access", [1, 2])
def test_one_byte_counts(access):
    board = at_timer_rate()
    board.write_port(0x43, access << 4 | 2 << 1)
    board.write_port(0x40, 5)
    board.advance(1)
    board.write_port(0x43, 0x00)
    assert board.read_port(0x40) == 5
    assert board.next_event == 1 + (5 if access == 1 else 5 << 8)


def test_bcd():
    board = at_timer_rate()
    set_counter(board, 0, 2, 0x1000, bcd=1)
    board.advance(2)
    assert read_counter(board, 0) == 0x0999
    assert board.next_event == 1001


def test_zero_is_the_largest_count():
    board = at_timer_rate()
    set_counter(board, 0, 2, 0)
    assert board.next_event == 65537


def test_a_new_count_waits_for_the_end_of_the_period():
    board = at_timer_rate()
    set_counter(board, 0, 2, 100)
    board.advance(31)
    board.write_port(0x40, 10)
    board.write_port(0x40, 0)
    assert read_counter(board, 0) == 70
    assert board.next_event == 101
    board.advance(101)
    assert read_counter(board, 0) == 10
    assert board.next_event == 111


def test_in_mode_3_it_waits_for_half_a_period():
    board = at_timer_rate()
    set_counter(board, 0, 3, 100)
    board.advance(31)
    board.write_port(0x40, 10)
    board.write_port(0x40, 0)
    states = []
    for pulse in range(48, 70):
        board.advance(pulse)
        states.append(out_of(board, 0))
    # High until pulse 51, then five low ones and five high ones.
    assert states == [1] * 3 + [0] * 5 + [1] * 5 + [0] * 5 + [1] * 4


def test_in_mode_0_the_first_byte_stops_the_count():
    board = at_timer_rate()
    set_counter(board, 0, 0, 10)
    board.advance(5)
    board.write_port(0x40, 3)
    board.advance(100)
    assert out_of(board, 0) == 0
    board.write_port(0x40, 0)
    board.advance(103)
    assert out_of(board, 0) == 0
    board.advance(104)
    assert out_of(board, 0) == 1


def test_the_gate_of_counter_2():
    board = at_timer_rate()
    set_counter(board, 2, 0, 10)
    board.advance(50)
    assert board.read_port(0x61) >> 5 & 1 == 0
    board.write_port(0x61, 1)
    board.advance(55)
    assert read_counter(board, 2) == 5
    board.write_port(0x61, 0)
    board.advance(80)
    assert read_counter(board, 2) == 5
    board.write_port(0x61, 1)
    board.advance(84)
    assert board.read_port(0x61) >> 5 & 1 == 0
    board.advance(85)
    assert board.read_port(0x61) >> 5 & 1 == 1


def test_a_one_shot_is_triggered_by_its_gate():
    board = at_timer_rate()
    set_counter(board, 2, 1, 10)
    board.advance(20)
    assert out_of(board, 2) == 1
    board.write_port(0x61, 1)
    board.advance(21)
    assert out_of(board, 2) == 0
    board.advance(30)
    assert out_of(board, 2) == 0
    board.advance(31)
    assert out_of(board, 2) == 1
    board.write_port(0x61, 0)
    board.write_port(0x61, 1)
    board.advance(32)
    assert out_of(board, 2) == 0


def test_time_in_one_step_or_in_many():
    rng = np.random.default_rng(5)
    for _ in range(30):
        mode, count = int(rng.choice([0, 2, 3, 4])), int(rng.integers(2, 300))
        one, many = at_timer_rate(), at_timer_rate()
        for board in (one, many):
            set_counter(board, 0, mode, count)
        end = int(rng.integers(1, 2000))
        one.advance(end)
        while many.now < end:
            many.advance(min(end, many.now + int(rng.integers(1, 50))))
        assert read_counter(one, 0) == read_counter(many, 0)
        assert out_of(one, 0) == out_of(many, 0)
        assert one.next_event == many.next_event

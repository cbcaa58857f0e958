"""The paravirtual front end for disk and network, and a guest that has drivers for it."""

import doctest
import struct

import numpy as np
import pytest

from pyvirt._core.devices.owner import Board
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine import price
from pyvirt.x86.guests import drivers
from pyvirt.x86.guests.drivers import driver_disk, driver_kernel
from pyvirt.x86.pc import PC

DATA, STATUS = 0x540, 0x544
SECTORS = 40


def board(**options):
    return Board(driver_disk()[: SECTORS * 512], paravirtual=True, **options)


def ask(device, *words):
    for word in words:
        device.write_port(DATA, word, 4)


def fetch(device, sectors):
    words = [device.read_port(DATA, 4) for _ in range(sectors * 128)]
    return struct.pack(f"<{len(words)}I", *words)


def test_nobody_is_there_unless_asked_for():
    assert Board().read_port(DATA, 4) == 0xFFFFFFFF
    assert board().read_port(STATUS, 4) == 0


def test_random_requests_against_a_model():
    rng = np.random.default_rng(8)
    device, disk, frames, reads, total = (
        board(),
        bytearray(driver_disk()[: SECTORS * 512]),
        [],
        [],
        0,
    )
    for _ in range(400):
        kind = int(rng.integers(1, 4))
        count = int(rng.integers(1, 5))
        sector = int(rng.integers(0, SECTORS + 2))
        inside = sector + count <= SECTORS
        total += 1
        if kind == 1:
            ask(device, 1 << 24 | count, sector)
            if inside and len(reads) < 32:
                reads.append((sector, count))
        elif kind == 2:
            words = rng.integers(0, 1 << 32, 128 * count).tolist()
            ask(device, 2 << 24 | count, sector, *words)
            if inside:
                disk[sector * 512 : (sector + count) * 512] = struct.pack(f"<{len(words)}I", *words)
        else:
            frame = rng.bytes(int(rng.integers(14, 1515)))
            padded = frame.ljust(-(-len(frame) // 4) * 4, b"\0")
            words = struct.unpack(f"<{len(padded) // 4}I", padded)
            ask(device, 3 << 24 | len(frame), *words)
            frames.append(frame)
        if rng.random() < 0.3 and reads:
            sector, count = reads.pop(0)
            assert fetch(device, count) == disk[sector * 512 : (sector + count) * 512]
        if rng.random() < 0.05:
            # a state goes to a board of its kind, reads that wait included
            state, other = device.snapshot(), board()
            other.restore(state)
            assert other.snapshot() == state
            device = other
    assert device.requests == total
    assert device.disk.tobytes() == bytes(disk)
    assert device.take_frames() == frames


@pytest.mark.parametrize(
    "words",
    [
        (1 << 24 | 1, SECTORS),
        (1 << 24 | 1, 0xFFFFFFFF),
        (1 << 24 | 2, SECTORS - 1),
        (1 << 24 | 257,),
        (1 << 24,),
        (0,),
        (4 << 24 | 1,),
        (3 << 24 | 13,),
        (3 << 24 | 1515,),
        (2 << 24 | 1, SECTORS, *[7] * 128),
        *[(1 << 24 | 1, 0) * 33],
    ],
)
def test_what_is_refused_is_dropped(words):
    device = board()
    ask(device, *words)
    assert device.read_port(STATUS, 4) == 1
    device.write_port(STATUS, 0, 4)
    assert device.read_port(STATUS, 4) == 0
    assert device.disk.tobytes() == driver_disk()[: SECTORS * 512]
    # and it goes on
    ask(device, 1 << 24 | 1, 3)
    assert fetch(device, 1) == driver_disk()[3 * 512 : 4 * 512]
    # nothing waits now
    assert device.read_port(DATA, 4) == 0xFFFFFFFF
    assert device.read_port(STATUS, 4) == 1


def test_without_a_disk_and_without_room():
    device = Board(paravirtual=True, output_limit=20)
    ask(device, 1 << 24 | 1, 0)
    assert device.read_port(STATUS, 4) == 1
    ask(device, 3 << 24 | 20, *[0] * 5)
    assert (device.take_frames(), device.lost) == ([], 20)
    with pytest.raises(InvalidTypeError, match="paravirtual must be True or False"):
        Board(paravirtual=1)


def test_random_states_lead_nowhere():
    device, rng = board(), np.random.default_rng(3)
    state = device.snapshot()
    for _ in range(300):
        raw = bytearray(state[1])
        for at in rng.integers(0, len(raw), 200):
            raw[at] = rng.integers(256)
        victim = board()
        try:
            victim.restore((state[0], bytes(raw), *state[2:]))
        except InvalidValueError:
            continue
        for word in rng.integers(0, 1 << 32, 600).tolist():
            victim.write_port(DATA, word, 4)
            victim.read_port(DATA, 4)


def ran(technique="hardware", **options):
    paravirtual = options.get("paravirtual", False)
    pc = PC(disk=driver_disk(), technique=technique, paravirtual=paravirtual)
    pc.boot(driver_kernel(**options))
    ending = pc.run(10**7)
    assert (ending.why, ending.exit_value) == ("exit", 0)
    return pc


@pytest.mark.parametrize("technique", ["native", "translation", "hardware"])
def test_both_drivers_do_the_same(technique):
    plain, aware = (ran(technique, paravirtual=p, sectors=70, frames=33) for p in (False, True))
    assert plain.machine.memory.read(2 << 20, 70 * 512) == driver_disk()[: 70 * 512]
    assert aware.machine.memory.read(2 << 20, 70 * 512) == driver_disk()[: 70 * 512]
    sent = plain.board.take_frames()
    assert len(sent) == 33
    assert sent == aware.board.take_frames()
    assert plain.board.disk_sectors == aware.board.disk_sectors == (70, 0)


@pytest.mark.parametrize("batch", [1, 5, 16, 32])
def test_exits_in_closed_form(batch):
    for sectors, frames, clocks in ((64, 0, 0), (0, 50, 0), (0, 0, 9), (33, 17, 2)):
        numbers = {"sectors": sectors, "frames": frames, "clocks": clocks}
        aware = ran(paravirtual=True, batch=batch, **numbers).monitor.counts
        # one string instruction hands over a batch, and one fetches what it read; more where it
        # has more than 4096 words; the end
        want = 1
        for total, words in ((sectors, 128), (frames, 1 + -(-1514 // 4))):
            for first in range(0, total, batch):
                size = min(batch, total - first) * words
                want += -(-size // 4096) + (words == 128)
        assert aware.exit_names["I/O"] == aware.events["io"] == want
        plain = ran(**numbers).monitor.counts
        # six registers, a poll and a string for a sector; the same and nine, and more, for a frame
        want = 1 + 8 * sectors + (11 * frames + 4 if frames else 0) + 2 * clocks + 1
        assert plain.exit_names["I/O"] == plain.events["io"] == want
        assert price(aware, "hwmmu-skylake-sp").cycles["io"] == 4039 * aware.events["io"]


def test_bad_guests():
    for wrong in ({"sectors": 257}, {"frames": -1}, {"batch": 0}, {"batch": 33}):
        with pytest.raises(InvalidValueError, match=next(iter(wrong))):
            driver_kernel(**wrong)
    with pytest.raises(InvalidTypeError, match="sectors must be an integer"):
        driver_kernel(sectors=1.5)
    with pytest.raises(InvalidTypeError, match="paravirtual"):
        driver_kernel(paravirtual="yes")


def test_examples_in_docstrings():
    found = doctest.testmod(drivers)
    assert found.attempted > 2
    assert not found.failed

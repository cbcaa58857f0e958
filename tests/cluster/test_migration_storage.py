"""Storage vMotion: its mechanism, write by write, against closed forms."""

import math

import numpy as np
import pytest

from pyvirt.cluster import (
    ConstantRate,
    DirtyLog,
    Disk,
    Ended,
    Link,
    Precopy,
    WorkingSet,
    migrate,
    migrate_shared_nothing,
    migrate_storage,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

MB = 1 << 20
DISK = Disk(10_000 * MB)
SPEED = 500.0 * MB


def seconds(moved) -> float:
    return (moved.total_ns - moved.downtime_ns) / 1e9


def test_a_mirror_makes_one_pass():
    for rate in (0, 10, 100, 249):
        moved = migrate_storage(DISK, ConstantRate(rate), SPEED)
        want = 20.0 if not rate else -10_000 / rate * math.log(1 - rate / 500)
        assert seconds(moved) == pytest.approx(want, rel=1e-9)
        # T = S / (B - mirrored share)
        share = moved.mirrored_bytes / seconds(moved)
        assert seconds(moved) == pytest.approx(DISK.size_bytes / (SPEED - share), rel=1e-9)
        assert (moved.lost_ns, moved.ended, len(moved.rounds)) == (0, Ended.GOAL, 1)
        assert moved.downtime_ns == DISK.rounds.switch_over_ns


@pytest.mark.parametrize("rate", [50, 200, 400, 2000])
def test_writes_one_by_one_come_to_the_closed_form(rate: int):
    """The kernel decides for each write where it goes; the closed form knows only their rate."""
    rng = np.random.default_rng(rate)
    count, minute = rate * 60, 60 * 10**9
    times = np.sort(rng.integers(0, minute, count))
    log = DirtyLog(times, rng.integers(0, 10_000, count), period_ns=minute)
    got = migrate_storage(DISK, log, SPEED)
    want = migrate_storage(DISK, ConstantRate(rate), SPEED)
    assert seconds(got) == pytest.approx(seconds(want), rel=0.02)
    assert got.mirrored_bytes == pytest.approx(want.mirrored_bytes, rel=0.1)
    assert got.lost_ns == pytest.approx(want.lost_ns, rel=0.1, abs=1e8)
    # all that was sent went at full speed
    assert got.sent_bytes == pytest.approx(SPEED * seconds(got), rel=1e-9)


def test_a_mirror_always_ends_and_rounds_may_not():
    many = ConstantRate(5000)
    mirrored = migrate_storage(DISK, many, SPEED)
    assert mirrored.moved
    assert seconds(mirrored) <= 20 / DISK.copy_share
    assert mirrored.lost_ns > 0
    stops = Disk(10_000 * MB, rounds=Precopy(sdps=False, then="abort"))
    for design in ("blocks", "snapshot"):
        got = migrate_storage(stops, many, SPEED, design)
        assert (got.moved, got.ended) == (False, Ended.STALLED)
        assert "stays" in got.reason


def test_writes_ahead_of_the_copy_are_not_mirrored():
    times = np.arange(200) * 10**8
    behind = migrate_storage(DISK, DirtyLog(times[1:], np.zeros(199, int)), SPEED)
    ahead = migrate_storage(DISK, DirtyLog(times, np.full(200, 9_999)), SPEED)
    assert behind.mirrored_bytes == 199 * MB
    assert ahead.mirrored_bytes == 0
    assert seconds(ahead) == pytest.approx(20.0)
    assert seconds(behind) == pytest.approx(20.0 + 199 / 500)


def test_a_full_queue_stops_the_guest():
    burst = DirtyLog(np.full(1000, 10**9), np.zeros(1000, int))
    got = migrate_storage(DISK, burst, SPEED)
    # all but the last 32 have gone, at half the speed, when the last one may be issued
    assert got.lost_ns == pytest.approx((1000 - 32) / 250 * 1e9, rel=1e-6)
    assert got.mirrored_bytes == 1000 * MB


def test_dirty_blocks_are_rounds_of_pre_copy():
    disk = Disk(4096 * MB, 4096, rounds=Precopy(sdps=False))
    guest = WorkingSet(50_000, 20_000.0, 10.0)
    got = migrate_storage(disk, guest, 1e8, "blocks")
    want = migrate(4096 * MB, guest, Link(800), Precopy(sdps=False))
    assert got.rounds.tolist() == want.rounds.tolist()
    assert (got.total_ns, got.downtime_ns) == (want.total_ns, want.downtime_ns)


def test_snapshots_stop_the_guest_each_round_and_are_merged():
    guest = ConstantRate(100)
    blocks = migrate_storage(DISK, guest, SPEED, "blocks")
    disk = Disk(10_000 * MB, snapshot_ns=0, merge_bytes_s=100.0 * MB)
    got = migrate_storage(disk, guest, SPEED, "snapshot")
    assert got.downtime_ns == blocks.downtime_ns
    merged = (got.sent_bytes - disk.size_bytes) / MB / 100
    assert got.total_ns - blocks.total_ns == pytest.approx(merged * 1e9)
    slower = migrate_storage(DISK, guest, SPEED, "snapshot")
    assert slower.downtime_ns >= blocks.downtime_ns + 10**8 * len(slower.rounds)


def test_shared_nothing_moves_both():
    net = Link(10_000)
    both = migrate_shared_nothing(DISK, ConstantRate(100), 1 << 30, ConstantRate(5000), net)
    alone = migrate(1 << 30, ConstantRate(5000), net)
    assert both.moved
    assert both.storage.downtime_ns == 0
    assert both.total_ns == both.storage.total_ns + both.memory.total_ns
    assert both.memory.total_ns > alone.total_ns
    assert both.downtime_ns == both.memory.downtime_ns
    mirrored = both.sent_bytes - both.storage.sent_bytes - both.memory.sent_bytes
    assert mirrored == pytest.approx(100 * MB * (both.memory.total_ns - both.downtime_ns) / 1e9)
    stays = migrate_shared_nothing(
        Disk(10_000 * MB, rounds=Precopy(sdps=False, then="abort")),
        ConstantRate(5000),
        1 << 30,
        ConstantRate(0),
        net,
        design="blocks",
    )
    assert (stays.moved, stays.memory) == (False, None)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Disk(MB + 1), "whole blocks"),
        (lambda: Disk(0), "size_bytes"),
        (lambda: Disk(MB, copy_share=1.0), "copy_share"),
        (lambda: Disk(MB, rounds=Precopy()), "sdps=False"),
        (lambda: migrate_storage(DISK, ConstantRate(1), 0), "bytes_s must be above 0"),
        (lambda: migrate_storage(DISK, ConstantRate(1), 1, "copy"), "design"),
        (lambda: migrate_storage(DISK, DirtyLog([0], [10_000]), 1), "block 10,000"),
    ],
)
def test_bad_values(make, text: str):
    with pytest.raises(InvalidValueError, match=text):
        make()


def test_bad_types():
    with pytest.raises(InvalidTypeError, match="Disk"):
        migrate_storage(5, ConstantRate(1), 1)
    with pytest.raises(InvalidTypeError, match="writes"):
        migrate_storage(DISK, 5, 1)

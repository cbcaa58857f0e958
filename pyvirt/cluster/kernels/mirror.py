"""IO mirroring of a disk whose writes are known one by one; bytes and seconds."""

from __future__ import annotations

from typing import Any

from numba import njit

__all__ = ["mirror"]


@njit(cache=True, nogil=True)
def mirror(
    size: float,
    block: float,
    bandwidth: float,
    copy_share: float,
    queue: int,
    times: Any,
    blocks: Any,
    period: float,
) -> tuple[float, float, float]:
    """Copy the disk from its begin to its end while writes come.

    A write before the place that is being copied goes to both disks, any other is copied later.
    While mirrored writes wait, the copy has `copy_share` of the bandwidth, else all of it. If
    `queue` blocks wait, the guest stands still before its next write, which shifts all later
    ones. Gives the end, the bytes mirrored, and how long the guest stood still.
    """
    copied = waiting = mirrored = held = now = 0.0
    cycle = at = 0
    room = (queue - 1) * block
    # above rounding, so that each wait is one
    full = room + 1e-6 * block
    while copied < size:
        until = held + period * cycle + times[at] if at < times.size else 1e300
        # up to the next write, or the end
        while now < until and copied < size:
            step = until - now
            rate = bandwidth
            if waiting > 0.0:
                rate = bandwidth * copy_share
                step = min(step, waiting / (bandwidth - rate))
            if (size - copied) / rate <= step:
                step = (size - copied) / rate
                copied = size
            else:
                copied += rate * step
            if waiting > 0.0:
                waiting -= (bandwidth - rate) * step
                # what rounding leaves of a queue is not there
                if waiting < 1e-9 * block:
                    waiting = 0.0
            if step < until - now:
                now += step
            else:
                now = until
        if copied < size:
            if blocks[at] * block < copied:
                if waiting > full:
                    held += (waiting - room) / (bandwidth * (1.0 - copy_share))
                    continue
                waiting += block
                mirrored += block
            at += 1
            if at == times.size and period > 0.0:
                at, cycle = 0, cycle + 1
    return now + waiting / bandwidth, mirrored, held

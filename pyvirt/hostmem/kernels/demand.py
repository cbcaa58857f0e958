# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""What VMs ask their host for in a step, and what of it they are given."""

from __future__ import annotations

import math

from numba import njit

from pyvirt.hostmem.kernels.reclaim import follow_active
from pyvirt.hostmem.kernels.state import own
from pyvirt.hostmem.layout import (
    ACTIVE,
    BALLOONED,
    BREAK_BELOW,
    DT_NS,
    FREE,
    LARGE,
    LARGE_PAGES,
    LARGE_SIZE,
    LIMIT,
    MAPPED,
    MEMORY,
    STARVED,
    SWAP_IN,
    SWAP_IN_REST,
    SWAP_READ_NS,
    SWAP_WAIT_NS,
    SWAPPED,
    SWAPPED_ACTIVE,
    TOUCH_NS,
    UNTOUCHED,
    UNZIP,
    UNZIP_NS,
    UNZIP_REST,
    USED,
    VCPUS,
    ZIPPED,
    ZIPPED_ACTIVE,
)

__all__ = ["GROW", "READ", "UNPACK", "ask", "at_most", "serve"]

# Rows of what is asked for.
UNPACK, READ, GROW = range(3)


@njit(cache=True, nogil=True)
def at_most(v, i):
    """Give the machine pages that a VM may have."""
    return v[MEMORY, i] if v[LIMIT, i] < 0 else min(v[MEMORY, i], v[LIMIT, i])


@njit(cache=True, nogil=True)
def touched_in(pages, rest, part):
    """Give how many of so many pages are touched, and what is left below one page."""
    exact = pages * part + rest
    whole = min(int(exact), pages)
    return whole, min(exact - whole, 1.0)


@njit(cache=True, nogil=True)
def ask(v, r, asked, i, at, k):
    """Find what VM `i` touches that is not there; `at` is its column in `asked`."""
    held = min(v[USED, i], v[MEMORY, i] - v[BALLOONED, i])
    touched = v[MEMORY, i] - v[UNTOUCHED, i] - v[BALLOONED, i]
    follow_active(v, i, min(v[ACTIVE, i], held, touched))
    asked[GROW, at] = max(held - touched, 0)
    asked[UNPACK, at] = 0
    asked[READ, at] = 0
    if v[ZIPPED_ACTIVE, i] == 0 and v[SWAPPED_ACTIVE, i] == 0:
        return
    part = 1.0 - math.exp(-k[DT_NS] / v[TOUCH_NS, i])
    asked[UNPACK, at], r[UNZIP_REST, i] = touched_in(v[ZIPPED_ACTIVE, i], r[UNZIP_REST, i], part)
    reads, r[SWAP_IN_REST, i] = touched_in(v[SWAPPED_ACTIVE, i], r[SWAP_IN_REST, i], part)
    # a vCPU waits for one page at a time
    asked[READ, at] = min(reads, int(v[VCPUS, i] * k[DT_NS] / k[SWAP_READ_NS]) + 1)


@njit(cache=True, nogil=True)
def serve(v, h, asked, host, first, last, k):
    """Hand out free pages; if they are too few, to each VM in proportion to what it asks."""
    free, whole = max(h[FREE, host], 0), 0
    for i in range(first, last):
        at = i - first
        room = max(at_most(v, i) - own(v, i), 0)
        # balloons may have taken what was asked for
        touched = v[MEMORY, i] - v[UNTOUCHED, i] - v[BALLOONED, i]
        held = min(v[USED, i], v[MEMORY, i] - v[BALLOONED, i])
        asked[UNPACK, at] = min(asked[UNPACK, at], v[ZIPPED_ACTIVE, i])
        asked[READ, at] = min(asked[READ, at], v[SWAPPED_ACTIVE, i])
        asked[GROW, at] = min(asked[GROW, at], max(held - touched, 0))
        wanted = asked[UNPACK, at] + asked[READ, at] + asked[GROW, at]
        v[STARVED, i] = wanted
        whole += min(wanted, room)
    for i in range(first, last):
        at = i - first
        wanted = v[STARVED, i]
        if wanted == 0:
            continue
        part = min(wanted, max(at_most(v, i) - own(v, i), 0))
        if whole > free:
            part = min(int(float(part) * free / whole), part)
        left = part
        unpacked = min(asked[UNPACK, at], left)
        left -= unpacked
        read = min(asked[READ, at], left)
        left -= read
        grown = min(asked[GROW, at], left)
        v[ZIPPED, i] -= unpacked
        v[ZIPPED_ACTIVE, i] -= unpacked
        v[UNZIP, i] += unpacked
        v[SWAPPED, i] -= read
        v[SWAPPED_ACTIVE, i] -= read
        v[SWAP_IN, i] += read
        v[UNTOUCHED, i] -= grown
        v[MAPPED, i] += unpacked + read + grown
        if v[LARGE_PAGES, i] and free - whole >= h[BREAK_BELOW, host]:
            v[LARGE, i] += grown // LARGE_SIZE * LARGE_SIZE
        v[STARVED, i] = wanted - part
        # vCPUs that wait for memory that is not there wait for the whole step
        wait = read * k[SWAP_READ_NS] + unpacked * k[UNZIP_NS]
        wait += v[VCPUS, i] * k[DT_NS] * (wanted - part) / wanted
        v[SWAP_WAIT_NS, i] += int(min(wait, v[VCPUS, i] * k[DT_NS]))

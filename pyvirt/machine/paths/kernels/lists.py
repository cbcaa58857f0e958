# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The heap of events, the log, and the lists that requests are in."""

from __future__ import annotations

from numba import njit

from pyvirt.machine.paths.kernels.access import (
    component_at,
    device_at,
    event_at,
    path_at,
    request_at,
    row_at,
)
from pyvirt.machine.paths.kernels.state import CLASS

__all__ = [
    "note",
    "onto_path",
    "pop",
    "push",
    "queue_back",
    "queue_front",
    "station_back",
    "station_drop",
    "take_path",
    "unqueue",
]


@njit(cache=True, nogil=True)
def _before(one, other):
    return one.time < other.time or (one.time == other.time and one.order < other.order)


@njit(cache=True, nogil=True)
def _copy(here, there):
    here.time, here.order, here.kind = there.time, there.order, there.kind
    here.a, here.b, here.token = there.a, there.b, there.token


@njit(cache=True, nogil=True)
def push(s, time, rank, kind, a, b, token):
    """Plan an event; at the same time, lower ranks come first, then what was planned first."""
    at = s.planned
    s.planned += 1
    order = rank * CLASS + s.sequence
    s.sequence += 1
    while at > 0:
        up = (at - 1) >> 1
        above = event_at(s, up)
        if above.time < time or (above.time == time and above.order < order):
            break
        _copy(event_at(s, at), above)
        at = up
    mine = event_at(s, at)
    mine.time, mine.order, mine.kind = time, order, kind
    mine.a, mine.b, mine.token = a, b, token


@njit(cache=True, nogil=True)
def pop(s):
    """Take away the first event, which the caller has read."""
    s.planned -= 1
    n = s.planned
    last = event_at(s, n)
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and _before(event_at(s, child + 1), event_at(s, child)):
            child += 1
        if not _before(event_at(s, child), last):
            break
        _copy(event_at(s, at), event_at(s, child))
        at = child
    _copy(event_at(s, at), last)


@njit(cache=True, nogil=True)
def note(s, what, device, path, value):
    """Write a row of the log."""
    row = row_at(s, s.logged)
    s.logged += 1
    row.time, row.what, row.device, row.path, row.value = s.now, what, device, path, value


@njit(cache=True, nogil=True)
def queue_back(s, d, i):
    """Put a request at the end of a host's queue for a device."""
    dev = device_at(s, d)
    request_at(s, i).next, request_at(s, i).prev = -1, dev.tail
    if dev.tail >= 0:
        request_at(s, dev.tail).next = i
    else:
        dev.head = i
    dev.tail = i
    dev.queued += 1


@njit(cache=True, nogil=True)
def queue_front(s, d, i):
    """Put a request at the begin of a host's queue for a device."""
    dev = device_at(s, d)
    request_at(s, i).prev, request_at(s, i).next = -1, dev.head
    if dev.head >= 0:
        request_at(s, dev.head).prev = i
    else:
        dev.tail = i
    dev.head = i
    dev.queued += 1


@njit(cache=True, nogil=True)
def unqueue(s, d, i):
    """Take a request out of a host's queue."""
    dev = device_at(s, d)
    before, after = request_at(s, i).prev, request_at(s, i).next
    if before >= 0:
        request_at(s, before).next = after
    else:
        dev.head = after
    if after >= 0:
        request_at(s, after).prev = before
    else:
        dev.tail = before
    dev.queued -= 1


@njit(cache=True, nogil=True)
def station_back(s, c, i):
    """Let a request wait at a component."""
    com = component_at(s, c)
    request_at(s, i).next, request_at(s, i).prev = -1, com.tail
    if com.tail >= 0:
        request_at(s, com.tail).next = i
    else:
        com.head = i
    com.tail = i


@njit(cache=True, nogil=True)
def station_drop(s, c, i):
    """Take a request out of a component's queue."""
    com = component_at(s, c)
    before, after = request_at(s, i).prev, request_at(s, i).next
    if before >= 0:
        request_at(s, before).next = after
    else:
        com.head = after
    if after >= 0:
        request_at(s, after).prev = before
    else:
        com.tail = before


@njit(cache=True, nogil=True)
def onto_path(s, p, i):
    """List a request as issued on a path."""
    path = path_at(s, p)
    request_at(s, i).path_next, request_at(s, i).path_prev = -1, path.tail
    if path.tail >= 0:
        request_at(s, path.tail).path_next = i
    else:
        path.head = i
    path.tail = i


@njit(cache=True, nogil=True)
def take_path(s, p, i):
    """Take a request off its path's list."""
    path = path_at(s, p)
    before, after = request_at(s, i).path_prev, request_at(s, i).path_next
    if before >= 0:
        request_at(s, before).path_next = after
    else:
        path.head = after
    if after >= 0:
        request_at(s, after).path_prev = before
    else:
        path.tail = before

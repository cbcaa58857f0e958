# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Requests on their way: the host's queue, a path's components one after the other, the end.

Each component serves one request at a time, first come, first served; what is over is its service,
after which its delay passes while it serves others.
"""

from __future__ import annotations

from numba import njit

from pyvirt.machine.paths.kernels.access import (
    component_at,
    device_at,
    hop_at,
    path_at,
    request_at,
    todo_at,
)
from pyvirt.machine.paths.kernels.choose import choose, path_state
from pyvirt.machine.paths.kernels.lists import (
    onto_path,
    push,
    queue_back,
    queue_front,
    station_back,
    station_drop,
    take_path,
    unqueue,
)
from pyvirt.machine.paths.kernels.state import (
    APD_TIMEOUT,
    ARRIVE,
    DELAYED,
    DONE,
    FAILED_APD,
    FAILED_PDL,
    HUNG,
    LOST,
    ON,
    OVER,
    PDL,
    QUEUED,
    ROUND_ROBIN,
    SERVED,
    SERVICE,
    UNOPTIMIZED,
    WAITING,
)
from pyvirt.machine.paths.kernels.team import carry, uplink

__all__ = [
    "arrive",
    "bounce_path",
    "enlist",
    "enter",
    "fail_device",
    "fail_path",
    "fail_queued",
    "leave_station",
    "restart_stations",
    "served",
    "settle",
    "touch",
]


@njit(cache=True, nogil=True)
def touch(s, d):
    """Bring the areas below a device's numbers of requests up to now."""
    dev, now = device_at(s, d), s.now
    passed = now - dev.touched
    dev.area += (dev.active + dev.queued) * passed
    dev.active_area += dev.active * passed
    dev.touched = now


@njit(cache=True, nogil=True)
def enlist(s, d):
    """Have a device looked at before the next event."""
    dev = device_at(s, d)
    if not dev.listed:
        dev.listed = 1
        todo_at(s, (s.todo_first + s.todo_count) % max(s.devices, 1)).v = d
        s.todo_count += 1


@njit(cache=True, nogil=True)
def _end(s, i, outcome):
    """Finish a request that is in no list any more, and no longer counted as active or queued."""
    r = request_at(s, i)
    dev = device_at(s, r.device)
    r.phase, r.outcome, r.end = OVER, outcome, s.now
    s.in_system -= 1
    if outcome == DONE:
        dev.done += 1
        dev.bytes += r.nbytes
        dev.latency_ns += s.now - r.at
        dev.device_ns += r.device_ns
    else:
        dev.failed += 1


# --- on a path -------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _service(s, c, i):
    com, r = component_at(s, c), request_at(s, i)
    time = max(com.per_io, (r.nbytes * com.ps + 999) // 1000)
    path = path_at(s, r.path)
    return time + r.work if r.hop == path.hops - 1 else time


@njit(cache=True, nogil=True)
def _start(s, c, i):
    com, now = component_at(s, c), s.now
    com.busy, com.started = i, now
    request_at(s, i).phase = SERVED
    push(s, now + _service(s, c, i), 1, SERVICE, c, 0, com.token)


@njit(cache=True, nogil=True)
def _start_next(s, c):
    com = component_at(s, c)
    i = com.head
    if i >= 0:
        station_drop(s, c, i)
        _start(s, c, i)


@njit(cache=True, nogil=True)
def _delay(s, c, i):
    """Let a component's delay pass; whether there is one."""
    r = request_at(s, i)
    delay = component_at(s, c).delay
    if r.hop == path_at(s, r.path).hops - 1:
        delay += r.detour
    if delay == 0:
        return False
    r.phase = DELAYED
    push(s, s.now + delay, 1, ARRIVE, i, 0, r.token)
    return True


@njit(cache=True, nogil=True)
def enter(s, i):
    """Let a request come to the component that `hop` says, and on from there as far as it gets."""
    r = request_at(s, i)
    path = path_at(s, r.path)
    while r.hop < path.hops:
        c = hop_at(s, path.first + r.hop).v
        com = component_at(s, c)
        if com.busy >= 0:
            r.phase = WAITING
            station_back(s, c, i)
            return
        if _service(s, c, i) > 0:
            _start(s, c, i)
            return
        com.served += 1
        com.bytes += r.nbytes
        if _delay(s, c, i):
            return
        r.hop += 1
    now = s.now
    touch(s, r.device)
    device_at(s, r.device).active -= 1
    r.device_ns += now - r.issued
    take_path(s, r.path, i)
    _end(s, i, DONE)
    enlist(s, r.device)


@njit(cache=True, nogil=True)
def served(s, c):
    """A component's service is over."""
    com = component_at(s, c)
    i = com.busy
    com.busy = -1
    com.token += 1
    com.busy_ns += s.now - com.started
    com.served += 1
    com.bytes += request_at(s, i).nbytes
    _start_next(s, c)
    if not _delay(s, c, i):
        request_at(s, i).hop += 1
        enter(s, i)


@njit(cache=True, nogil=True)
def leave_station(s, i):
    """Take a request away from wherever on its path it is; `restart_stations` must follow."""
    r = request_at(s, i)
    if r.phase == WAITING or r.phase == SERVED:
        c = hop_at(s, path_at(s, r.path).first + r.hop).v
        com = component_at(s, c)
        if r.phase == WAITING:
            station_drop(s, c, i)
        else:
            com.busy = -1
            com.token += 1
            com.busy_ns += s.now - com.started
    r.token += 1
    r.phase = HUNG


@njit(cache=True, nogil=True)
def restart_stations(s):
    """Let components go on that are idle and have a queue."""
    for c in range(s.components):
        if component_at(s, c).busy < 0 and component_at(s, c).head >= 0:
            _start_next(s, c)


@njit(cache=True, nogil=True)
def bounce_path(s, p):
    """Put all requests of a path back to the begin of the host's queue, in their order."""
    d = path_at(s, p).device
    dev = device_at(s, d)
    touch(s, d)
    i = path_at(s, p).tail
    while i >= 0:
        before = request_at(s, i).path_prev
        leave_station(s, i)
        take_path(s, p, i)
        r = request_at(s, i)
        r.device_ns += s.now - r.issued
        r.phase, r.path = QUEUED, -1
        dev.active -= 1
        dev.bounced += 1
        queue_front(s, d, i)
        i = before


# --- from the host ---------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _issue(s, d, p, i):
    dev, path, r, now = device_at(s, d), path_at(s, p), request_at(s, i), s.now
    dev.used_ios += 1
    dev.used_bytes += r.nbytes
    dev.active += 1
    path.issued += 1
    path.bytes += r.nbytes
    if r.first_issue < 0:
        r.first_issue = now
    r.issued, r.path, r.hop = now, p, 0
    r.tries += 1
    r.detour = dev.detour if path_state(s, p) == UNOPTIMIZED else 0
    onto_path(s, p, i)
    if path.broken:
        r.phase = HUNG
    else:
        enter(s, i)


@njit(cache=True, nogil=True)
def settle(s):
    """Look at all devices that something happened to: issue what can be issued."""
    while s.todo_count > 0:
        d = todo_at(s, s.todo_first).v
        s.todo_first = (s.todo_first + 1) % max(s.devices, 1)
        s.todo_count -= 1
        dev = device_at(s, d)
        if dev.team or dev.state != ON:
            dev.listed = 0
            continue
        touch(s, d)
        if dev.queued == 0 and dev.policy != ROUND_ROBIN:
            choose(s, d, False)
        while dev.queued > 0 and dev.active < dev.depth:
            p = choose(s, d, True)
            if p < 0:
                break
            i = dev.head
            unqueue(s, d, i)
            _issue(s, d, p, i)
        dev.listed = 0


@njit(cache=True, nogil=True)
def _send(s, d, i):
    """Send a frame by a team; it is lost where no uplink works."""
    r = request_at(s, i)
    carry(s, d, r.key, r.nbytes)
    p = uplink(s, d, r.key)
    if p < 0 or path_at(s, p).broken:
        if p >= 0:
            r.path = p
            r.first_issue = s.now
        _end(s, i, LOST)
        return
    touch(s, d)
    _issue(s, d, p, i)


@njit(cache=True, nogil=True)
def arrive(s, i):
    """A request comes to the host."""
    s.in_system += 1
    r = request_at(s, i)
    d = r.device
    dev = device_at(s, d)
    if dev.team:
        _send(s, d, i)
    elif dev.state == PDL:
        _end(s, i, FAILED_PDL)
    elif dev.state == APD_TIMEOUT and not r.vm:
        _end(s, i, FAILED_APD)
    else:
        touch(s, d)
        r.phase = QUEUED
        queue_back(s, d, i)
        enlist(s, d)


@njit(cache=True, nogil=True)
def fail_queued(s, d, outcome, but_vms):
    """Give up what waits in the host's queue; perhaps but requests of VMs."""
    touch(s, d)
    i = device_at(s, d).head
    while i >= 0:
        after = request_at(s, i).next
        if not (but_vms and request_at(s, i).vm):
            unqueue(s, d, i)
            _end(s, i, outcome)
        i = after


@njit(cache=True, nogil=True)
def fail_device(s, d, outcome):
    """Give up all requests of a device: first what is on its paths, then what waits."""
    dev = device_at(s, d)
    touch(s, d)
    for p in range(dev.first, dev.first + dev.count):
        fail_path(s, p, outcome)
    fail_queued(s, d, outcome, False)
    restart_stations(s)


@njit(cache=True, nogil=True)
def fail_path(s, p, outcome):
    """Give up all requests on a path."""
    d = path_at(s, p).device
    touch(s, d)
    i = path_at(s, p).head
    while i >= 0:
        after = request_at(s, i).path_next
        leave_station(s, i)
        take_path(s, p, i)
        r = request_at(s, i)
        r.device_ns += s.now - r.issued
        device_at(s, d).active -= 1
        _end(s, i, outcome)
        i = after

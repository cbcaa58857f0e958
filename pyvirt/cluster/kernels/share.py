# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""What the VMs of a host get of its CPU, and what that adds up to over time; kHz and milliseconds.

The arrays are those of `pyvirt.cluster.shares`: a row for each quantity, so that few arrays go into
each kernel, which is what compiling costs.
"""

from __future__ import annotations

from numba import njit

from pyvirt.cluster.shares import (
    BEFORE,
    BUSY,
    CAPACITY,
    CORE,
    DELIVERED,
    DEMAND,
    FLOOR,
    GIVEN,
    HEAD,
    IDLE,
    LIMIT,
    MISSED,
    NEXT,
    ON,
    POWER,
    SHARE,
    SINCE,
    STILL,
    SUM_DELIVERED,
    SUM_JOULES,
    SUM_ON,
    SUM_SHORT,
    SUM_WANTED,
    VCPUS,
    WANTED,
)

__all__ = ["join", "leave", "new_demand", "refresh", "settle"]


@njit(cache=True, nogil=True)
def join(v, h, vm, host):
    """Put a VM on a host."""
    first = h[HEAD, host]
    v[NEXT, vm] = first
    v[BEFORE, vm] = -1
    if first >= 0:
        v[BEFORE, first] = vm
    h[HEAD, host] = vm


@njit(cache=True, nogil=True)
def leave(v, h, vm, host):
    """Take a VM off a host."""
    before, after = v[BEFORE, vm], v[NEXT, vm]
    if before >= 0:
        v[NEXT, before] = after
    else:
        h[HEAD, host] = after
    if after >= 0:
        v[BEFORE, after] = before
    v[NEXT, vm] = v[BEFORE, vm] = -1


@njit(cache=True, nogil=True)
def settle(v, h, f, host, now):
    """Add what a host did since it was looked at last."""
    time = now - h[SINCE, host]
    if time == 0:
        return
    h[SINCE, host] = now
    h[SUM_WANTED, host] += h[WANTED, host] * time
    h[SUM_DELIVERED, host] += h[DELIVERED, host] * time
    f[SUM_JOULES, host] += f[POWER, host] * (time / 1000.0)
    short = h[DELIVERED, host] < h[WANTED, host]
    if h[ON, host] == 1:
        h[SUM_ON, host] += time
        if short:
            h[SUM_SHORT, host] += time
    vm = h[HEAD, host]
    while short and vm >= 0:
        wish = v[DEMAND, vm]
        if 0 <= v[LIMIT, vm] < wish:
            wish = v[LIMIT, vm]
        v[MISSED, vm] += (wish - v[GIVEN, vm]) * time
        vm = v[NEXT, vm]


@njit(cache=True, nogil=True)
def refresh(v, h, f, watts, order, most, host):
    """Share out a host's CPU among its VMs, and find its power.

    `order` and `most` are room for the VMs of a host, and what each can take: its demand within its
    limit, no vCPU faster than a core, nothing while it stands still.
    """
    wanted = capped = reserved = count = 0
    highest = 0.0
    vm = h[HEAD, host]
    while vm >= 0:
        wish = v[DEMAND, vm]
        if 0 <= v[LIMIT, vm] < wish:
            wish = v[LIMIT, vm]
        wanted += wish
        if v[STILL, vm]:
            wish = 0
        most[vm] = min(wish, v[VCPUS, vm] * h[CORE, host])
        capped += most[vm]
        reserved += min(v[FLOOR, vm], most[vm])
        highest = max(highest, most[vm] / max(1, v[SHARE, vm]))
        v[GIVEN, vm] = most[vm]
        order[count] = vm
        count += 1
        vm = v[NEXT, vm]
    capacity = h[CAPACITY, host]
    room = max(0, capacity - h[BUSY, host]) if h[ON, host] == 1 else 0
    if capped > room:
        vms = order[:count]
        vms.sort()
        # Reservations that are too much together do not count.
        divide(v, most, vms, room, highest + 1.0, 1 if reserved <= room else 0)
    h[WANTED, host] = wanted
    h[DELIVERED, host] = min(capped, room)
    if h[ON, host] == 0:
        f[POWER, host] = f[IDLE, host]
    elif h[ON, host] == 2 or capacity == 0:
        f[POWER, host] = watts[host, 0]
    else:
        used = (h[DELIVERED, host] + min(h[BUSY, host], capacity)) / capacity
        at = min(int(used * 10.0), 9)
        low = watts[host, at]
        f[POWER, host] = low + (watts[host, at + 1] - low) * (used * 10.0 - at)


@njit(cache=True, nogil=True)
def divide(v, most, vms, room, high, floors):
    """Give VMs that want more than there is parts by shares, between reservation and demand.

    The level, kHz for each share, is found by bisection; what rounding down to whole kHz leaves
    goes to the VMs with the lowest numbers that want more.
    """
    low = 0.0
    for turn in range(101):
        level = 0.5 * (low + high)
        last = turn == 100 or level <= low or level >= high
        if last:
            level = low
        total = 0
        for vm in vms:
            part = int(min(max(1, v[SHARE, vm]) * level, float(most[vm])))
            part = min(most[vm], max(part, floors * v[FLOOR, vm]))
            v[GIVEN, vm] = part
            total += part
        if last:
            break
        if total <= room:
            low = level
        else:
            high = level
    left = room - total
    while left > 0:
        before = left
        for vm in vms:
            if left > 0 and v[GIVEN, vm] < most[vm]:
                v[GIVEN, vm] += 1
                left -= 1
        if left == before:
            break


@njit(cache=True, nogil=True)
def new_demand(v, h, f, watts, order, most, demand, now):
    """Settle all hosts, take over new demands, and share out anew."""
    for host in range(h.shape[1]):
        settle(v, h, f, host, now)
    v[DEMAND] = demand
    for host in range(h.shape[1]):
        refresh(v, h, f, watts, order, most, host)

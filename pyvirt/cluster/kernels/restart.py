# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Where VMs of failed hosts can be started again, for one failure or for many what-ifs."""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.cluster.kernels.reach import mates_allow

__all__ = ["appeal", "best_host", "choose", "what_if"]

SCALE = 1_000_000
LARGE = 1 << 42  # times SCALE it fits into 63 bits


@njit(cache=True, nogil=True)
def _part(free, capacity):
    """What is unreserved, in millionths of the capacity."""
    if capacity >= LARGE:
        free, capacity = free >> 12, capacity >> 12
    return max(free, 0) * SCALE // capacity


@njit(cache=True, nogil=True)
def _room(free_cpu, free_memory, cpu, memory):
    """The scarcer of what is unreserved, in millionths of the host."""
    part = SCALE
    if cpu > 0:
        part = min(part, _part(free_cpu, cpu))
    if memory > 0:
        part = min(part, _part(free_memory, memory))
    return part


@njit(cache=True, nogil=True)
def appeal(host, free, capacity, kept, first_fit):
    """How gladly a host is chosen: dedicated hosts before others, then what is unreserved."""
    rank = 0
    if not first_fit:
        rank = _room(free[0, host], free[1, host], capacity[0, host], capacity[1, host])
    return rank + 2 * SCALE if kept[host] != 0 else rank


@njit(cache=True, nogil=True)
def best_host(a, vm, where, free, score):
    """The host with the highest score that can take a VM, or the first of several; -1: none.

    Hosts with a negative score take none.
    """
    best, found = -1, -1
    cpu, memory = a.need[0, vm], a.need[1, vm]
    row = a.must[a.klass[vm]]
    mates = a.link_start[vm + 1] > a.link_start[vm]
    for host in range(score.size):
        if score[host] <= best or cpu > free[0, host] or memory > free[1, host]:
            continue
        if (row[host >> 6] >> np.uint64(host & 63)) & np.uint64(1) == 0:
            continue
        if mates and not mates_allow(a, where, vm, host):
            continue
        best, found = score[host], host
    return found


@njit(cache=True, nogil=True)
def choose(a, vm, where, free, capacity, kept, up, first_fit):
    """`best_host` for one VM, with scores made for it; `up` are the hosts that may be asked."""
    score = np.empty(up.size, np.int64)
    for host in range(up.size):
        score[host] = appeal(host, free, capacity, kept, first_fit) if up[host] != 0 else -1
    return best_host(a, vm, where, free, score)


@njit(cache=True, nogil=True)
def what_if(
    a,
    where,
    free,
    capacity,
    kept,
    second,
    start,
    listed,
    rank,
    fail_start,
    fail,
    first_fit,
    out,
    target,
):
    """Try each failure of the CSR list `fail`, all others undone.

    `listed` are the VMs of each host (`start`) in the order of restart, `rank` their place in it
    among all; `kept` hosts are for failures alone, and tried first; `second` is the host of a
    VM's secondary, -1 for none, which goes on if that host is left. `out` gets for each failure
    the VMs that stop, those that find no host, the first of these, and what is unreserved on the
    fullest host that is left, in millionths. `target` (failures, V) gets where VMs go, unless
    it has no rows.
    """
    hosts = capacity.shape[1]
    base = np.empty(hosts, np.int64)
    for host in range(hosts):
        base[host] = -1
        if a.up[host] != 0:
            base[host] = appeal(host, free, capacity, kept, first_fit)
    score = base.copy()
    place = where.copy()
    room = free.copy()
    for f in range(fail_start.size - 1):
        gone = fail[fail_start[f] : fail_start[f + 1]]
        at = np.empty(gone.size, np.int64)
        stopped = 0
        for k in range(gone.size):
            score[gone[k]] = -1
            at[k] = start[gone[k]]
        for k in range(gone.size):
            for n in range(start[gone[k]], start[gone[k] + 1]):
                vm = listed[n]
                place[vm] = -1
                if second[vm] >= 0 and score[second[vm]] >= 0:
                    place[vm] = second[vm]
                else:
                    stopped += 1
        lost, first = 0, -1
        while True:
            # the next in order of all lists
            vm, of = -1, -1
            for k in range(gone.size):
                if at[k] < start[gone[k] + 1] and (vm < 0 or rank[listed[at[k]]] < rank[vm]):
                    vm, of = listed[at[k]], k
            if vm < 0:
                break
            at[of] += 1
            if place[vm] >= 0:
                continue
            host = best_host(a, vm, place, room, score)
            if host < 0:
                lost += 1
                if first < 0:
                    first = vm
                continue
            place[vm] = host
            room[0, host] -= a.need[0, vm]
            room[1, host] -= a.need[1, vm]
            score[host] = appeal(host, room, capacity, kept, first_fit)
        fullest = SCALE
        for host in range(hosts):
            if score[host] >= 0:
                left = _room(room[0, host], room[1, host], capacity[0, host], capacity[1, host])
                fullest = min(fullest, left)
        out[f, 0], out[f, 1], out[f, 2], out[f, 3] = stopped, lost, first, fullest
        for k in range(gone.size):
            for n in range(start[gone[k]], start[gone[k] + 1]):
                vm = listed[n]
                if target.shape[0] > 0:
                    target[f, vm] = place[vm]
                place[vm] = where[vm]
        for host in range(hosts):
            score[host] = base[host]
            room[0, host] = free[0, host]
            room[1, host] = free[1, host]

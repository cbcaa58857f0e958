# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Where a VM goes: hosts in order of how full they are, and the placement of many VMs.

How full a host is, is the larger of its two resources' loads over its capacity. Hosts of equal
capacity stand in one heap; the first of its order that is allowed stands for the class, and of all
classes, and of hosts whose capacity few others have, that one is taken which is least full
afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from pyvirt.cluster.kernels.heap import build, next_in_order, note, rise, sink, sink_first
from pyvirt.cluster.kernels.reach import ANYWHERE, SPLIT, mark_mates, move, prefers, reaches

__all__ = [
    "NOWHERE",
    "PLACED",
    "TIGHT",
    "UNLIKED",
    "Fleet",
    "falling",
    "find_host",
    "fleet",
    "largest_part",
    "place_all",
    "settle",
]

PLACED, TIGHT, UNLIKED, NOWHERE = 0, 1, 2, 3
"""How a VM is placed: well; where its demand does not fit; against a should rule; not at all."""

BLOCK = 256
"""VMs whose columns are read at once."""

Ints = npt.NDArray[np.int64]


class Fleet(NamedTuple):
    """The hosts while VMs are placed on them.

    Attributes
    ----------
    free, load, capacity : ndarray of int64, shape (2, H)
        What is not reserved, the demand on each host, and what it has.
    klass : ndarray of int64, shape (H,)
        Of equal capacity; -1 for hosts that stand alone.
    start, members : ndarray of int64
        The heap of class c is ``members[start[c]:start[c + 1]]``: hosts that are up.
    keys : ndarray of float64
        How full each of `members` is.
    place : ndarray of int64, shape (H,)
        Where each host stands in `members`.
    alone : ndarray of int64
        Hosts that are up and stand alone.
    key : ndarray of float64, shape (H,)
        How full each host is.
    front : ndarray of int64, shape (H + 1,)
        Room for a search.
    stamp : ndarray of int64, shape (H,)
        The tag of the VM that may not be there because of others (`mark_mates`).
    """

    free: Ints
    load: Ints
    capacity: Ints
    klass: Ints
    start: Ints
    members: Ints
    keys: npt.NDArray[np.float64]
    place: Ints
    alone: Ints
    key: npt.NDArray[np.float64]
    front: Ints
    stamp: Ints


@njit(cache=True, nogil=True)
def fullness(load, capacity, host, cpu, memory):
    """How full a host is with so much more on it."""
    most = 0.0
    for resource in range(2):
        amount = load[resource, host] + (cpu if resource == 0 else memory)
        if amount > 0:
            most = max(
                most, amount / capacity[resource, host] if capacity[resource, host] else 1e30
            )
    return most


@njit(cache=True, nogil=True)
def fleet(up, free, load, capacity, klass, classes):
    """Order the hosts that are up."""
    hosts = capacity.shape[1]
    key = np.empty(hosts)
    start = np.zeros(classes + 1, np.int64)
    alone = np.empty(hosts, np.int64)
    loners = 0
    for host in range(hosts):
        key[host] = fullness(load, capacity, host, 0, 0)
        if up[host] != 0 and klass[host] >= 0:
            start[klass[host] + 1] += 1
        elif up[host] != 0:
            alone[loners] = host
            loners += 1
    for one in range(classes):
        start[one + 1] += start[one]
    members = np.empty(start[classes], np.int64)
    filled = start.copy()
    for host in range(hosts):
        if up[host] != 0 and klass[host] >= 0:
            members[filled[klass[host]]] = host
            filled[klass[host]] += 1
    place = np.zeros(hosts, np.int64)
    keys = key[members]
    for one in range(classes):
        build(members, keys, place, start[one], start[one + 1] - start[one])
    front = np.empty(hosts + 1, np.int64)
    stamp = np.full(hosts, -1, np.int64)
    return Fleet(
        free, load, capacity, klass, start, members, keys, place, alone[:loners], key, front, stamp
    )


@njit(cache=True, nogil=True)
def _allowed(a, f, vm, host, need, wanted, together, tag, step):
    """Whether a host takes a VM in a pass; `together` is what `mark_mates` gave."""
    if not reaches(a, vm, host):
        return False
    if need[0] > f.free[0, host] or need[1] > f.free[1, host]:
        return False
    if f.stamp[host] == tag or (together != ANYWHERE and together != host):
        return False
    if step < UNLIKED and not prefers(a, vm, host):
        return False
    return step >= TIGHT or (
        f.load[0, host] + wanted[0] <= f.capacity[0, host]
        and f.load[1, host] + wanted[1] <= f.capacity[1, host]
    )


@njit(cache=True, nogil=True)
def find_host(a, f, vm, need, wanted, together, tag):
    """Find the host for a VM that is on none, and how well it does there.

    Passes: with all conditions, then where its demand does not fit, then against should rules.

    Parameters
    ----------
    a : ReachArrays
        Who may be where.
    f : Fleet
        The hosts.
    vm : int
        Whose class counts.
    need, wanted : tuple of (int, int)
        What is reserved, and what is demanded, of the VM or of all that go with it.
    together, tag : int
        Of `mark_mates` for this VM.

    Returns
    -------
    host, how : int
        -1 and `NOWHERE` if there is none.
    """
    if together == SPLIT:
        return -1, NOWHERE
    for step in range(NOWHERE):
        best, least = -1, np.inf
        for one in range(f.start.size - 1):
            base, n = f.start[one], f.start[one + 1] - f.start[one]
            f.front[0], size = 0, min(n, 1)
            while size > 0:
                host, size = next_in_order(f.members, f.keys, base, n, f.front, size)
                if _allowed(a, f, vm, host, need, wanted, together, tag, step):
                    full = fullness(f.load, f.capacity, host, wanted[0], wanted[1])
                    if full < least or (full == least and host < best):
                        best, least = host, full
                    break
        for host in f.alone:
            if _allowed(a, f, vm, host, need, wanted, together, tag, step):
                full = fullness(f.load, f.capacity, host, wanted[0], wanted[1])
                if full < least or (full == least and host < best):
                    best, least = host, full
        if best >= 0:
            return best, step
    return -1, NOWHERE


@njit(cache=True, nogil=True)
def settle(a, f, where, demand, vm, host):
    """Put a VM on a host, or on none (-1), and restore the order of the hosts."""
    source = where[vm]
    move(a, where, f.free, vm, host)
    for one, sign in ((source, -1), (host, 1)):
        if one < 0:
            continue
        f.load[0, one] += sign * demand[0, vm]
        f.load[1, one] += sign * demand[1, vm]
        f.key[one] = fullness(f.load, f.capacity, one, 0, 0)
        klass = f.klass[one]
        if a.up[one] != 0 and klass >= 0:
            base, n = f.start[klass], f.start[klass + 1] - f.start[klass]
            if sign < 0:
                rise(f.members, f.keys, f.place, base, one, f.key[one])
            else:
                sink(f.members, f.keys, f.place, base, n, one, f.key[one])


@njit(cache=True, nogil=True)
def place_all(a, f, where, demand, company, order, how):
    """Place VMs that are on no host, in the order given.

    Parameters
    ----------
    a : ReachArrays
        Who may be where.
    f : Fleet
        The hosts; kept up to date.
    where : ndarray of int64, shape (V,)
        Where VMs are; gets where they go.
    demand : ndarray of int64, shape (2, V)
        What each VM adds to the load of its host.
    company : ndarray of int64, shape (4, V) or (4, 0)
        For the first of VMs that are kept together: what the others need and demand.
    order : ndarray of int64, shape (n,)
        The VMs to place.
    how : ndarray of uint8, shape (V,)
        Gets `PLACED`, `TIGHT`, `UNLIKED` or `NOWHERE`.
    """
    # Taken out of the records once: a record that is passed on is counted array by array.
    klass, must, should, need, links = a.klass, a.must, a.should, a.need, a.link_start
    free, load, capacity, key = f.free, f.load, f.capacity, f.key
    start, members, keys, at = f.start, f.members, f.keys, f.place
    # Where hosts stand is only asked once something has to be searched, and kept from then on.
    noted = False
    groups, plain = f.start.size - 1, f.alone.size == 0 and company.shape[1] == 0
    ruled, sorts = a.link.size > 0, must.shape[0]
    # What is known of the next VMs, read side by side: they stand far apart, and so wait together.
    room = min(BLOCK, order.size)
    rows = np.empty((5, room), np.int64)
    simple = np.empty(room, np.bool_)
    for i in range(order.size):
        k = i % BLOCK
        if k == 0:
            for j in range(min(BLOCK, order.size - i)):
                vm = order[i + j]
                rows[0, j], rows[1, j] = need[0, vm], need[1, vm]
                rows[2, j], rows[3, j] = demand[0, vm], demand[1, vm]
                rows[4, j] = klass[vm] if sorts > 1 else 0
                simple[j] = plain and (not ruled or links[vm + 1] == links[vm])
        vm = order[i]
        # Where the first of each class of hosts will do, there is nothing to search.
        best, least, one = -1, np.inf, 0
        if simple[k]:
            while one < groups:
                if start[one] < start[one + 1]:
                    host = members[start[one]]
                    word, bit = host >> 6, np.uint64(1) << np.uint64(host & 63)
                    cpu = load[0, host] + rows[2, k]
                    memory = load[1, host] + rows[3, k]
                    if (
                        must[rows[4, k], word] & should[rows[4, k], word] & bit == 0
                        or rows[0, k] > free[0, host]
                        or rows[1, k] > free[1, host]
                        or cpu > capacity[0, host]
                        or memory > capacity[1, host]
                    ):
                        break
                    full = 0.0
                    if cpu > 0:
                        full = cpu / capacity[0, host]
                    if memory > 0:
                        full = max(full, memory / capacity[1, host])
                    if full < least or (full == least and host < best):
                        best, least = host, full
                one += 1
        if one == groups and best >= 0:
            where[vm] = best
            free[0, best] -= rows[0, k]
            free[1, best] -= rows[1, k]
            load[0, best] += rows[2, k]
            load[1, best] += rows[3, k]
            key[best] = least
            mine = f.klass[best]
            base, n = start[mine], start[mine + 1] - start[mine]
            if noted:
                sink(members, keys, at, base, n, best, least)
            else:
                sink_first(members, keys, base, n, least)
            how[vm] = PLACED
        else:
            if not noted:
                note(members, at)
                noted = True
            how[vm] = _place_one(a, f, where, demand, company, vm, i)
    if not noted:
        note(members, at)


@njit(cache=True, nogil=True)
def largest_part(demand, need, whole, rows):
    """Give the largest part of a whole host that each VM demands or needs, of two resources."""
    size = np.empty(rows.size)
    for i in range(rows.size):
        vm = rows[i]
        cpu = max(demand[0, vm], need[0, vm]) / whole[0]
        memory = max(demand[1, vm], need[1, vm]) / whole[1]
        size[i] = max(cpu, memory)
    return size


@njit(cache=True, nogil=True)
def falling(size):
    """Order by size in 65,536 steps, the largest first, then by number: a counting sort."""
    top = 0.0
    for i in range(size.size):
        top = max(top, size[i])
    factor = 65535 / top if top > 0 else 0.0
    step = np.empty(size.size, np.uint16)
    start = np.zeros(65537, np.int64)
    for i in range(size.size):
        step[i] = 65535 - int(size[i] * factor)
        start[step[i] + 1] += 1
    for i in range(65536):
        start[i + 1] += start[i]
    order = np.empty(size.size, np.int64)
    for i in range(size.size):
        order[start[step[i]]] = i
        start[step[i]] += 1
    return order


@njit(cache=True, nogil=True)
def _place_one(a, f, where, demand, company, vm, tag):
    cpu, memory = a.need[0, vm], a.need[1, vm]
    wanted_cpu, wanted_memory = demand[0, vm], demand[1, vm]
    together = ANYWHERE
    if a.link_start[vm + 1] > a.link_start[vm]:
        together = mark_mates(a, where, vm, f.stamp, tag)
    if company.shape[1] > 0 and together == ANYWHERE:
        cpu += company[0, vm]
        memory += company[1, vm]
        wanted_cpu += company[2, vm]
        wanted_memory += company[3, vm]
    host, result = find_host(a, f, vm, (cpu, memory), (wanted_cpu, wanted_memory), together, tag)
    if host >= 0:
        settle(a, f, where, demand, vm, host)
    return result

# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
"""The state of a balance in whole numbers: loads, their sums, and what a move gains.

A VM's entitlement, as a part of a host's capacity, is a whole number of 2**-k, rounded once for
each capacity that hosts have; a host's load is the sum of these. So the sum S1 of the H loads and
the sum S2 of their squares are exact however moves follow each other, and so is

    J = sum over resources of w (H S2 - S1**2) = H**2 times the weighted variance,

whose decrease by a move is its gain. k is chosen by the caller such that all fit into 63 bits. To
that end loads are counted from a constant near their mean, which changes no variance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from pyvirt.cluster.kernels.reach import (
    may_run,
    prefers,
)

__all__ = [
    "Balance",
    "allowed",
    "bring",
    "eased",
    "fill",
    "gain",
    "home",
    "part",
    "pays",
    "pays_at_all",
    "price",
    "scan",
    "spread_of",
    "wander",
    "worth",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.uint64]

NEXT, PREVIOUS, SIZE = 0, 1, 2
"""Columns of `Balance.node`; the sizes of both resources are columns 2 and 3."""


class Balance(NamedTuple):
    """Loads of hosts and the VMs that may move, for the functions below.

    Attributes
    ----------
    up, klass, must, should, need, link_start, link, rule_start, rule_vm, apart, on
        As in `pyvirt.cluster.kernels.reach.ReachArrays`, so that a `Balance` can stand for one.
        (A tuple within the tuple would be taken apart at each call, which costs more than the
        call does.)
    asked : ndarray of float64, shape (5,)
        Whether cost and benefit are weighed (0 or 1), seconds for which demand is stable, spread
        of demand, downtime in seconds, and by how much the benefit must exceed the cost.
    capacity : ndarray of float64, shape (2, H)
        kHz and pages.
    mean_capacity : ndarray of float64, shape (2,)
        Of the hosts that are up: costs and benefits are in seconds of such a host.
    pages_s : ndarray of float64, shape (H,)
        Pages a second that a host's network for migrations moves.
    migration_khz : ndarray of float64, shape (H,)
        CPU that a migration takes on a host.
    copied, dirty : ndarray of float64, shape (V,)
        Pages to copy, and pages dirtied a second.
    where : ndarray of int64, shape (V,)
        The host of each VM that is on, else -1.
    free : ndarray of int64, shape (2, H)
        What is not reserved.
    amount : ndarray of int64, shape (2, V)
        Entitlements in kHz and pages.
    movable : ndarray of uint8, shape (V,)
        Whether DRS may move it.
    host : ndarray of int64, shape (n,)
        The hosts that are up, those of one capacity side by side, and ascending among these.
    size_start : ndarray of int64, shape (sizes + 1,)
        Hosts with the capacity c are ``host[size_start[c]:size_start[c + 1]]``.
    size : ndarray of int64, shape (H,)
        Which capacity a host has; -1 if it is not up.
    scale : ndarray of float64, shape (2, sizes)
        2**k over the capacity; 0 where a host has none.
    weight : ndarray of int64, shape (2,)
        Of CPU and memory in J.
    raw : ndarray of int64, shape (2, H)
        Sums of entitlements in kHz and pages.
    load : ndarray of int64, shape (2, H)
        The same in 2**-k of the capacity, counted from a constant near the mean.
    sums : ndarray of int64, shape (2, 2)
        S1 of both resources, then S2.
    node : ndarray of int64, shape (V, 4)
        For VMs that may move: the next and the previous on the same host, and their parts of its
        capacity.
    head : ndarray of int64, shape (H,)
        The first VM of each host, or -1.
    """

    up: Bytes
    klass: Ints
    must: Masks
    should: Masks
    need: Ints
    link_start: Ints
    link: Ints
    rule_start: Ints
    rule_vm: Ints
    apart: Bytes
    on: Bytes
    asked: Floats
    capacity: Floats
    mean_capacity: Floats
    pages_s: Floats
    migration_khz: Floats
    copied: Floats
    dirty: Floats
    where: Ints
    free: Ints
    amount: Ints
    movable: Bytes
    host: Ints
    size_start: Ints
    size: Ints
    scale: Floats
    weight: Ints
    raw: Ints
    load: Ints
    sums: Ints
    node: Ints
    head: Ints


@njit(cache=True, nogil=True)
def part(b, resource, vm, size):
    """Give a VM's entitlement as a part of a capacity, in 2**-k."""
    return np.int64(b.amount[resource, vm] * b.scale[resource, size] + 0.5)


@njit(cache=True, nogil=True)
def _link(b, vm, host):
    first = b.head[host]
    b.node[vm, NEXT] = first
    b.node[vm, PREVIOUS] = -1
    if first >= 0:
        b.node[first, PREVIOUS] = vm
    b.head[host] = vm
    for resource in range(2):
        b.node[vm, SIZE + resource] = part(b, resource, vm, b.size[host])


@njit(cache=True, nogil=True)
def _unlink(b, vm, host):
    after, before = b.node[vm, NEXT], b.node[vm, PREVIOUS]
    if before >= 0:
        b.node[before, NEXT] = after
    else:
        b.head[host] = after
    if after >= 0:
        b.node[after, PREVIOUS] = before


@njit(cache=True, nogil=True)
def fill(b, origin):
    """Sum up loads from the VMs and link those that may move; `origin` is what loads count from."""
    b.head[:] = -1
    b.load[:] = 0
    b.raw[:] = 0
    for vm in range(b.where.size - 1, -1, -1):
        host = b.where[vm]
        if host < 0 or b.size[host] < 0:
            continue
        for resource in range(2):
            b.raw[resource, host] += b.amount[resource, vm]
            b.load[resource, host] += part(b, resource, vm, b.size[host])
        if b.movable[vm]:
            _link(b, vm, host)
    b.sums[:] = 0
    for host in b.host:
        for resource in range(2):
            b.load[resource, host] -= origin[resource]
            load = b.load[resource, host]
            b.sums[0, resource] += load
            b.sums[1, resource] += load * load


@njit(cache=True, nogil=True)
def spread_of(b):
    """Give J."""
    total = np.int64(0)
    for resource in range(2):
        s1, s2 = b.sums[0, resource], b.sums[1, resource]
        total += b.weight[resource] * (b.host.size * s2 - s1 * s1)
    return total


@njit(cache=True, nogil=True)
def gain(b, vm, source, target):
    """By how much J falls when a VM moves between hosts that are up."""
    total = np.int64(0)
    for resource in range(2):
        if b.weight[resource] == 0:
            continue
        old = part(b, resource, vm, b.size[source])
        new = part(b, resource, vm, b.size[target])
        grown = new - old
        fallen = old * (2 * b.load[resource, source] - old)
        fallen -= new * (2 * b.load[resource, target] + new)
        total += b.weight[resource] * (
            b.host.size * fallen + grown * (2 * b.sums[0, resource] + grown)
        )
    return total


@njit(cache=True, nogil=True)
def bring(b, vm, target):
    """Move a VM: loads, sums, lists and reservations follow."""
    source = b.where[vm]
    for resource in range(2):
        old = part(b, resource, vm, b.size[source])
        new = part(b, resource, vm, b.size[target])
        before = b.load[resource, source]
        b.load[resource, source] = before - old
        b.sums[1, resource] += (before - old) * (before - old) - before * before
        before = b.load[resource, target]
        b.load[resource, target] = before + new
        b.sums[1, resource] += (before + new) * (before + new) - before * before
        b.sums[0, resource] += new - old
        b.raw[resource, source] -= b.amount[resource, vm]
        b.raw[resource, target] += b.amount[resource, vm]
        b.free[resource, source] += b.need[resource, vm]
        b.free[resource, target] -= b.need[resource, vm]
    if b.movable[vm]:
        _unlink(b, vm, source)
        _link(b, vm, target)
    b.where[vm] = target


@njit(cache=True, nogil=True, error_model="numpy")
def _short(load, spread):
    """What is not delivered on average of a host's demand that is spread evenly around `load`.

    Both as parts of the capacity; demand lies within ``load * (1 - spread)`` and
    ``load * (1 + spread)``.
    """
    most, least = load * (1 + spread), load * (1 - spread)
    if most <= 1:
        return 0.0
    if least >= 1 or most == least:
        return load - 1
    return (most - 1) * (most - 1) / (2 * (most - least))


@njit(cache=True, nogil=True, error_model="numpy")
def _saved(load, change, capacity, mean, spread):
    """What more is delivered on a host, as a part of a mean host, if its load changes."""
    if capacity <= 0 or mean <= 0:
        return 0.0
    before, after = _short(load / capacity, spread), _short((load + change) / capacity, spread)
    return (before - after) * capacity / mean


@njit(cache=True, nogil=True, error_model="numpy")
def _over(amount, mean):
    return amount / mean if mean > 0 else 0.0


# What follows works on numbers or in one expression: with branches, Numba would count references
# to all arrays of `b` in each call. A check of divisors would be such a branch.


@njit(cache=True, nogil=True, error_model="numpy")
def price(b, vm, source, target):
    """Give a migration's seconds, its CPU in kHz s, and its cost in seconds of a mean host."""
    pages_s = min(b.pages_s[source], b.pages_s[target])
    # Pages that are dirtied while others are copied follow in later rounds.
    seconds = b.copied[vm] / (pages_s - min(b.dirty[vm], 0.9 * pages_s))
    cpu = seconds * (b.migration_khz[source] + b.migration_khz[target])
    # Its memory is on both hosts meanwhile.
    cost = _over(cpu + b.asked[3] * b.amount[0, vm], b.mean_capacity[0])
    return seconds, cpu, cost + _over(b.copied[vm] * seconds, b.mean_capacity[1])


@njit(cache=True, nogil=True, error_model="numpy")
def eased(b, resource, host, change):
    """What more is delivered on a host, in parts of a mean host, if its load changes."""
    return _saved(
        b.raw[resource, host],
        change,
        b.capacity[resource, host],
        b.mean_capacity[resource],
        b.asked[2],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def worth(b, vm, source, target):
    """Give the benefit of a move in seconds of a mean host: what more is delivered meanwhile."""
    cpu, memory = b.amount[0, vm], b.amount[1, vm]
    more = eased(b, 0, source, -cpu) + eased(b, 1, source, -memory)
    return b.asked[1] * (more + eased(b, 0, target, cpu) + eased(b, 1, target, memory))


@njit(cache=True, nogil=True, error_model="numpy")
def pays(b, vm, source, target):
    """Whether a move's benefit exceeds its cost, or nobody asks."""
    cost = price(b, vm, source, target)[2]
    return (b.asked[0] == 0) | (worth(b, vm, source, target) > b.asked[4] * cost)


@njit(cache=True, nogil=True, error_model="numpy")
def pays_at_all(b, vm, source):
    """Whether a move to some host might pay: with no load on the target, and its part free."""
    more = eased(b, 0, source, -b.amount[0, vm]) + eased(b, 1, source, -b.amount[1, vm])
    seconds = b.copied[vm] / b.pages_s[source]
    lost = b.asked[3] * b.amount[0, vm] + seconds * b.migration_khz[source]
    cost = _over(lost, b.mean_capacity[0]) + _over(b.copied[vm] * seconds, b.mean_capacity[1])
    # Not the very same order of additions: a hair must not tell them apart.
    return (b.asked[0] == 0) | (more * b.asked[1] > b.asked[4] * cost * (1 - 1e-9))


@njit(cache=True, nogil=True)
def allowed(b, vm, source, target):
    """Whether a VM may move for the sake of balance: no rule broken, and it pays."""
    # Branches on purpose: not to be made part of each caller, which takes long to compile.
    if not may_run(b, b.where, b.free, vm, target):
        return False
    if prefers(b, vm, source) and not prefers(b, vm, target):
        return False
    return pays(b, vm, source, target)


@njit(cache=True, nogil=True)
def scan(b):
    """Find the move with the largest gain among all VMs and hosts: gain, VM, host.

    Of equal ones the lowest VM, then the lowest host; a gain of 0 is none, with VM -1.
    """
    best, best_vm, best_host = np.int64(0), np.int64(-1), np.int64(-1)
    w0, w1 = b.weight[0], b.weight[1]
    hosts = b.host.size
    for vm in range(b.where.size):
        source = b.where[vm]
        if source < 0 or b.movable[vm] == 0 or b.size[source] < 0:
            continue
        own = b.size[source]
        e0, e1 = b.node[vm, SIZE], b.node[vm, SIZE + 1]
        for size in range(b.size_start.size - 1):
            first, last = b.size_start[size], b.size_start[size + 1]
            if size == own:
                c0, c1 = w0 * e0, w1 * e1
                left = c0 * (b.load[0, source] - e0) + c1 * (b.load[1, source] - e1)
                for i in range(first, last):
                    host = b.host[i]
                    got = 2 * hosts * (left - c0 * b.load[0, host] - c1 * b.load[1, host])
                    if got >= best and host != source:
                        if got == best and (vm != best_vm or host > best_host):
                            continue
                        if allowed(b, vm, source, host):
                            best, best_vm, best_host = got, vm, host
            else:
                for i in range(first, last):
                    host = b.host[i]
                    got = gain(b, vm, source, host)
                    if got >= best:
                        if got == best and (vm != best_vm or host > best_host):
                            continue
                        if allowed(b, vm, source, host):
                            best, best_vm, best_host = got, vm, host
    return best, best_vm, best_host


@njit(cache=True, nogil=True)
def home(b, vm):
    """Find the host to which a move of this VM gains most; -1 if none gains."""
    best, best_host = np.int64(0), np.int64(-1)
    source = b.where[vm]
    for host in b.host:
        if host != source:
            got = gain(b, vm, source, host)
            if (got > best or (got == best and host < best_host)) and allowed(b, vm, source, host):
                best, best_host = got, host
    return best_host


@njit(cache=True, nogil=True)
def wander(b, vms, hosts):
    """Move VMs to hosts, whatever that breaks or gains: for checks of the sums."""
    for i in range(vms.size):
        if b.where[vms[i]] != hosts[i]:
            bring(b, vms[i], hosts[i])

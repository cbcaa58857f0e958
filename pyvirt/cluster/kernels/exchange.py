# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
"""The best exchange: one VM for another between two hosts, where no single move is left.

If x and y are the changes of the loads of the hosts s and t, J falls by

    sum over resources of w ((x + y)(2 S1 + x + y) - H (x (2 L_s + x) + y (2 L_t + y))),

which is largest where the difference between what goes and what comes is half that of the loads.
So each pair of hosts has a bound from their loads alone, and pairs are looked at, VM by VM, while
their bound is not below the best exchange found. In clusters of many hosts, those are looked at
whose loads are furthest from the mean.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.cluster.kernels.balance import NEXT, SIZE, eased, gain, part, price
from pyvirt.cluster.kernels.reach import fits, mates_allow, may_run, move, prefers, reaches

__all__ = ["FAR", "exchange"]

FAR = 32
"""So many hosts are looked at, of those that are up."""


@njit(cache=True, nogil=True)
def _far(b):
    """Give the hosts whose loads are furthest from the mean, ascending."""
    hosts = b.host.size
    count = min(hosts, FAR)
    chosen = np.empty(count, np.int64)
    how_far = np.zeros(count)
    held = 0
    for host in b.host:
        off = 0.0
        for resource in range(2):
            mean = float(b.sums[0, resource]) / hosts
            off += b.weight[resource] * (float(b.load[resource, host]) - mean) ** 2
        # Nearest first out; of equal ones the later of `b.host`.
        if held == count and off <= how_far[count - 1]:
            continue
        at = held if held < count else count - 1
        while at > 0 and how_far[at - 1] < off:
            how_far[at], chosen[at] = how_far[at - 1], chosen[at - 1]
            at -= 1
        how_far[at], chosen[at] = off, host
        held = min(held + 1, count)
    chosen.sort()
    return chosen


@njit(cache=True, nogil=True)
def _bound(b, one, other):
    """Give an upper bound of what an exchange between two hosts can gain."""
    hosts = b.host.size
    total = 0.0
    for resource in range(2):
        if b.weight[resource] == 0:
            continue
        ours, theirs = float(b.load[resource, one]), float(b.load[resource, other])
        if b.size[one] == b.size[other]:
            # 2 H w d (ours - theirs - d), d being what goes less what comes
            total += b.weight[resource] * hosts * (ours - theirs) ** 2 / 2
            continue
        here, there = b.scale[resource, b.size[one]], b.scale[resource, b.size[other]]
        # Where one has none of it, nothing bounds what the other takes.
        if here == 0 or there == 0:
            return 2.0**62
        # d goes, r d comes, but for rounding: up to 1 here, 1 there.
        r = there / here
        s1 = float(b.sums[0, resource])
        linear = 2.0 * hosts * (ours - r * theirs) + 2.0 * s1 * (r - 1)
        square = hosts * (1 + r * r) - (r - 1) * (r - 1)
        d = abs(linear) / (2 * square)
        slope = 2.0 * hosts * (abs(ours) + abs(theirs) + (1 + r) * (d + 1)) + 2 * abs(s1)
        slope += 2 * (1 + r) * (d + 1)
        total += b.weight[resource] * (linear * linear / (4 * square) + 4 * (1 + r) * slope)
    return total * (1 + 1e-9) + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _relief(b, vm, source, target):
    """What a VM's leaving brings if nothing comes in its place, less what its migration costs."""
    more = eased(b, 0, source, -b.amount[0, vm]) + eased(b, 1, source, -b.amount[1, vm])
    return b.asked[1] * more - b.asked[4] * price(b, vm, source, target)[2]


@njit(cache=True, nogil=True)
def _gather(b, source, target, vms, parts, worths):
    """List the VMs of a host that might be on another: parts of both capacities. Gives how many.

    `worths` gets what a VM's leaving brings at most, less what its migration costs.
    """
    count = 0
    vm = b.head[source]
    while vm >= 0:
        if reaches(b, vm, target) and (prefers(b, vm, target) or not prefers(b, vm, source)):
            vms[count] = vm
            for resource in range(2):
                parts[count, resource] = b.node[vm, SIZE + resource]
                parts[count, 2 + resource] = part(b, resource, vm, b.size[target])
            worths[count] = _relief(b, vm, source, target)
            count += 1
        vm = b.node[vm, NEXT]
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _pays(b, one, other):
    """Whether the benefit of an exchange exceeds its cost, or nobody asks."""
    source, target = b.where[one], b.where[other]
    cost = price(b, one, source, target)[2] + price(b, other, target, source)[2]
    more = 0.0
    for resource in range(2):
        change = b.amount[resource, other] - b.amount[resource, one]
        more += eased(b, resource, source, change) + eased(b, resource, target, -change)
    return (b.asked[0] == 0) | (b.asked[1] * more > b.asked[4] * cost)


@njit(cache=True, nogil=True)
def _in_turn(b, first, second):
    """Whether a VM may go to another's host, and that one then to the first one's."""
    source, target = b.where[first], b.where[second]
    if not (fits(b, b.free, first, target) and mates_allow(b, b.where, first, target)):
        return False
    move(b, b.where, b.free, first, target)
    possible = may_run(b, b.where, b.free, second, source)
    move(b, b.where, b.free, first, source)
    return possible


@njit(cache=True, nogil=True)
def _between(b, source, target, vms, parts, worths, best):
    """Look at all exchanges between two hosts: the best one, if it is above `best`."""
    hosts = b.host.size
    ours = _gather(b, source, target, vms[0], parts[0], worths[0])
    theirs = _gather(b, target, source, vms[1], parts[1], worths[1])
    # With a VM in the place of the one that left, nothing can be worth more than both together
    # are; a hair aside, since additions are in another order here.
    asked = b.asked[0] != 0
    most = worths[1, :theirs].max() if theirs > 0 else 0.0
    w0, w1 = b.weight[0], b.weight[1]
    s0, s1 = 2 * b.sums[0, 0], 2 * b.sums[0, 1]
    here0, here1 = 2 * b.load[0, source], 2 * b.load[1, source]
    there0, there1 = 2 * b.load[0, target], 2 * b.load[1, target]
    gained, one, other = best
    for i in range(ours):
        if asked and worths[0, i] + most < -1e-9:
            continue
        go0, go1 = parts[0, i, 0], parts[0, i, 1]
        in0, in1 = parts[0, i, 2], parts[0, i, 3]
        for j in range(theirs):
            x0, x1 = parts[1, j, 2] - go0, parts[1, j, 3] - go1
            y0, y1 = in0 - parts[1, j, 0], in1 - parts[1, j, 1]
            got0 = (x0 + y0) * (s0 + x0 + y0) - hosts * (x0 * (here0 + x0) + y0 * (there0 + y0))
            got1 = (x1 + y1) * (s1 + x1 + y1) - hosts * (x1 * (here1 + x1) + y1 * (there1 + y1))
            got = w0 * got0 + w1 * got1
            if got < gained or (asked and worths[0, i] + worths[1, j] < -1e-9):
                continue
            vm, mate = vms[0, i], vms[1, j]
            low, high = min(vm, mate), max(vm, mate)
            if got == gained and (low, high) >= (min(one, other), max(one, other)):
                continue
            if not _pays(b, vm, mate):
                continue
            if _in_turn(b, low, high):
                gained, one, other = got, low, high
            elif _in_turn(b, high, low):
                gained, one, other = got, high, low
    return gained, one, other


@njit(cache=True, nogil=True)
def exchange(b, least):
    """Find the exchange with the largest gain of at least `least`: gain, first VM, second VM.

    The first one moves first: the one whose move alone would leave J lower, if rules and
    reservations allow that order. Of equal exchanges that of the lowest VM with the lowest other
    one. 0, -1, -1 if there is none.
    """
    far = _far(b)
    count = far.size
    # Equal to none: ids beyond all VMs lose against any exchange.
    none = b.where.size
    best = (max(np.int64(least), np.int64(1)), none, none)
    bounds = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            if b.head[far[i]] >= 0 and b.head[far[j]] >= 0:
                bounds[i, j] = _bound(b, far[i], far[j])
    vms = np.empty((2, none), np.int64)
    parts = np.empty((2, none, 4), np.int64)
    worths = np.empty((2, none))
    while True:
        top, at = 0.0, np.int64(-1)
        for i in range(count):
            for j in range(i):
                if bounds[i, j] > top:
                    top, at = bounds[i, j], i * count + j
        if at < 0 or top < float(best[0]):
            break
        i, j = at // count, at % count
        bounds[i, j] = 0.0
        best = _between(b, far[i], far[j], vms, parts, worths, best)
    gained, one, other = best
    if one == none:
        return np.int64(0), np.int64(-1), np.int64(-1)
    # What is between the two moves is to be the lesser evil.
    here, there = b.where[one], b.where[other]
    if gain(b, other, there, here) > gain(b, one, here, there) and _in_turn(b, other, one):
        return gained, other, one
    return gained, one, other

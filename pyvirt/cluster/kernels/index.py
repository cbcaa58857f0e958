# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The best move without looking at all: few targets, and bounds for sources.

Among hosts of one capacity, a VM gains more by a move to a less loaded one. So the best target of
a VM that may go anywhere is on the front: the hosts than which no other is less loaded in both
resources. Only where a VM may not go there all hosts are tried. For each source there is either
its best move or an upper bound of the gain; a move changes the loads of two hosts, which lowers or
hardly raises the bounds of the others, and sources are looked at while their bound is the largest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from pyvirt.cluster.kernels.balance import NEXT, SIZE, allowed, bring, gain, part, pays_at_all

__all__ = ["BOUND", "Rows", "best", "build", "estimate", "step"]

Ints = npt.NDArray[np.int64]

BOUND = -1
"""In `Rows.vm`: the value is a bound."""


class Rows(NamedTuple):
    """What is known of each source.

    Attributes
    ----------
    value : ndarray of int64, shape (H,)
        The gain of the best move from a host, or a bound of it; 0: no move gains.
    vm, target : ndarray of int64, shape (H,)
        That move; the VM is `BOUND` where the value is a bound.
    largest : ndarray of int64, shape (2, H)
        The largest parts of VMs that may move from each host.
    front : ndarray of int64, shape (n,)
        The front of the hosts of size c is ``front[size_start[c]:front_end[c]]``, ascending.
    front_end : ndarray of int64, shape (sizes,)
        See `front`.
    ideal : ndarray of int64, shape (2, sizes)
        The least load of hosts of a size, for each resource on its own.
    hint : ndarray of int64, shape (H,)
        The VM that was best when the host was last looked at.
    refused : ndarray of int64, shape (V,)
        Room for VMs that may not go where they would gain most.
    """

    value: Ints
    vm: Ints
    target: Ints
    largest: Ints
    front: Ints
    front_end: Ints
    ideal: Ints
    hint: Ints
    refused: Ints


@njit(cache=True, nogil=True)
def _beats(b, one, other):
    """Whether no VM prefers the other host, of the same capacity, to this one."""
    strict = True
    for resource in range(2):
        if b.weight[resource] == 0:
            continue
        if b.load[resource, one] > b.load[resource, other]:
            return False
        if b.load[resource, one] == b.load[resource, other]:
            strict = False
    # A VM that has none of one resource may gain the same from both: then the lower one wins.
    return strict or one < other


@njit(cache=True, nogil=True)
def _fronts(b, rows):
    for size in range(b.size_start.size - 1):
        first = b.size_start[size]
        end = first
        for i in range(first, b.size_start[size + 1]):
            host = b.host[i]
            beaten = False
            for j in range(first, end):
                if _beats(b, rows.front[j], host):
                    beaten = True
                    break
            if beaten:
                continue
            kept = first
            for j in range(first, end):
                if not _beats(b, host, rows.front[j]):
                    rows.front[kept] = rows.front[j]
                    kept += 1
            rows.front[kept] = host
            end = kept + 1
        rows.front_end[size] = end
        for resource in range(2):
            least = b.load[resource, rows.front[first]]
            for i in range(first + 1, end):
                least = min(least, b.load[resource, rows.front[i]])
            rows.ideal[resource, size] = least


@njit(cache=True, nogil=True)
def _bound(b, rows, source, target):
    """Give an upper bound of what a move between two hosts can gain."""
    hosts = b.host.size
    total = np.int64(0)
    for resource in range(2):
        if b.weight[resource] == 0:
            continue
        most = rows.largest[resource, source]
        ours, theirs = b.load[resource, source], b.load[resource, target]
        if b.size[source] == b.size[target]:
            # 2 H w e (ours - theirs - e): best at half the difference
            difference = ours - theirs
            if difference > 0:
                e = min(most, difference >> 1)
                total += 2 * hosts * b.weight[resource] * e * (difference - e)
            continue
        here = b.scale[resource, b.size[source]]
        there = b.scale[resource, b.size[target]]
        # Where the source has none of it, nothing bounds what the target takes.
        if here == 0:
            return np.int64(2**62)
        # The target's part is r e but for rounding, which costs at most `slack`.
        r = there / here
        s1 = float(b.sums[0, resource])
        linear = 2.0 * hosts * (ours - r * theirs) + 2.0 * s1 * (r - 1)
        square = hosts * (1 + r * r) - (r - 1) * (r - 1)
        e = min(max(linear / (2 * square), 0.0), float(most))
        slope = hosts * (2.0 * abs(theirs) + 2 * r * most + 2) + 2 * abs(s1)
        slope += 2 * (most * (1 + r) + 1)
        slack = (0.5 + 0.5 * r) * slope + 1e-9 * (abs(linear) * most + square * e * e)
        value = e * linear - square * e * e + slack
        if value > 0:
            total += b.weight[resource] * np.int64(value + 1)
    return total


@njit(cache=True, nogil=True)
def estimate(b, rows, source):
    """Replace what is known of a source by a bound."""
    rows.value[source] = 0
    rows.vm[source] = BOUND
    rows.target[source] = -1
    if b.head[source] < 0:
        return
    for size in range(b.size_start.size - 1):
        for i in range(b.size_start[size], rows.front_end[size]):
            if rows.front[i] != source:
                value = _bound(b, rows, source, rows.front[i])
                rows.value[source] = max(rows.value[source], value)


@njit(cache=True, nogil=True)
def _at_most(b, rows, vm, source):
    """Bound a VM's gain by that of hosts which are least loaded in both resources at once."""
    most = np.int64(0)
    own = b.size[source]
    for size in range(b.size_start.size - 1):
        total = np.int64(0)
        for resource in range(2):
            ideal = rows.ideal[resource, size]
            old = b.node[vm, SIZE + resource]
            load = b.load[resource, source]
            if size == own:
                got = 2 * b.host.size * old * (load - ideal - old)
            else:
                new = part(b, resource, vm, size)
                got = b.host.size * (old * (2 * load - old) - new * (2 * ideal + new))
                got += (new - old) * (2 * b.sums[0, resource] + new - old)
            total += b.weight[resource] * got
        most = max(most, total)
    return most


@njit(cache=True, nogil=True)
def _freely(b, rows, vm, source):
    """Find where a VM would gain most if it might go anywhere: gain, host."""
    best, best_host = np.int64(0), np.int64(-1)
    own = b.size[source]
    for size in range(b.size_start.size - 1):
        first, end = b.size_start[size], rows.front_end[size]
        if size == own:
            c0, c1 = b.weight[0] * b.node[vm, SIZE], b.weight[1] * b.node[vm, SIZE + 1]
            left = c0 * (b.load[0, source] - b.node[vm, SIZE])
            left += c1 * (b.load[1, source] - b.node[vm, SIZE + 1])
            for i in range(first, end):
                host = rows.front[i]
                got = 2 * b.host.size * (left - c0 * b.load[0, host] - c1 * b.load[1, host])
                if (got > best or (got == best and host < best_host)) and host != source:
                    best, best_host = got, host
        else:
            for i in range(first, end):
                host = rows.front[i]
                got = gain(b, vm, source, host)
                if got > best or (got == best and host < best_host):
                    best, best_host = got, host
    return best, best_host


@njit(cache=True, nogil=True)
def _look(b, rows, source):
    """Replace the bound of a source by its best move."""
    best, best_vm, best_host = np.int64(0), np.int64(BOUND), np.int64(-1)
    # What was best last time is good still, and spares a closer look at most others.
    hint = rows.hint[source]
    if hint >= 0 and b.where[hint] == source:
        got, host = _freely(b, rows, hint, source)
        if got > 0 and allowed(b, hint, source, host):
            best, best_vm, best_host = got, hint, host
    refused = 0
    vm = b.head[source]
    while vm >= 0:
        most = _at_most(b, rows, vm, source)
        if most > best or (most == best and vm < best_vm):
            got, host = _freely(b, rows, vm, source)
            if got > best or (got == best and got > 0 and vm < best_vm):
                if allowed(b, vm, source, host):
                    best, best_vm, best_host = got, vm, host
                else:
                    rows.refused[refused] = vm
                    refused += 1
        vm = b.node[vm, NEXT]
    for i in range(refused):
        vm = rows.refused[i]
        got, host = _freely(b, rows, vm, source)
        if got < best or (got == best and vm > best_vm) or not pays_at_all(b, vm, source):
            continue
        for host in b.host:
            if host == source:
                continue
            got = gain(b, vm, source, host)
            if got == 0 or got < best or (got == best and vm > best_vm):
                continue
            if got == best and vm == best_vm and host > best_host:
                continue
            if allowed(b, vm, source, host):
                best, best_vm, best_host = got, vm, host
    rows.value[source] = best
    rows.vm[source] = best_vm
    rows.target[source] = best_host
    rows.hint[source] = best_vm


@njit(cache=True, nogil=True)
def _largest(b, rows, host):
    most0, most1 = np.int64(0), np.int64(0)
    vm = b.head[host]
    while vm >= 0:
        most0 = max(most0, b.node[vm, SIZE])
        most1 = max(most1, b.node[vm, SIZE + 1])
        vm = b.node[vm, NEXT]
    rows.largest[0, host] = most0
    rows.largest[1, host] = most1


@njit(cache=True, nogil=True)
def build(b, rows):
    """Start with bounds for all sources."""
    _fronts(b, rows)
    for source in b.host:
        _largest(b, rows, source)
        estimate(b, rows, source)


@njit(cache=True, nogil=True)
def best(b, rows):
    """Find the move that `scan` finds: gain, VM, host; 0, -1, -1 if none gains."""
    while True:
        top, source, vm = np.int64(0), np.int64(-1), np.int64(0)
        for host in b.host:
            value = rows.value[host]
            # A bound comes before a move that gains as much: its VM might be a lower one.
            if value > top or (value == top and value > 0 and rows.vm[host] < vm):
                top, source, vm = value, host, rows.vm[host]
        if source < 0:
            return np.int64(0), np.int64(-1), np.int64(-1)
        if vm != BOUND:
            return top, vm, rows.target[source]
        _look(b, rows, source)


@njit(cache=True, nogil=True)
def step(b, rows, vm, target):
    """Move a VM, and turn into bounds what that changes."""
    source = b.where[vm]
    shift0, shift1 = b.sums[0, 0], b.sums[0, 1]
    bring(b, vm, target)
    shift0, shift1 = abs(b.sums[0, 0] - shift0), abs(b.sums[0, 1] - shift1)
    _fronts(b, rows)
    for host in (source, target):
        _largest(b, rows, host)
        estimate(b, rows, host)
    for host in b.host:
        if host in (source, target) or b.head[host] < 0:
            continue
        # To the target a VM gains less now, to the source more; elsewhere nothing changed but for
        # S1, between hosts of different capacities.
        value = _bound(b, rows, host, source)
        known = rows.value[host]
        if shift0 or shift1:
            known += _drift(b, rows, host, 0, shift0) + _drift(b, rows, host, 1, shift1)
            rows.vm[host] = BOUND
        elif rows.target[host] == target:
            rows.vm[host] = BOUND
        if value >= known and value > 0:
            known = value
            rows.vm[host] = BOUND
        rows.value[host] = known


@njit(cache=True, nogil=True)
def _drift(b, rows, host, resource, shift):
    """Bound what a change of S1 adds to the gain of any move from a host."""
    if shift == 0 or b.weight[resource] == 0:
        return np.int64(0)
    own = b.scale[resource, b.size[host]]
    widest = 0.0
    for size in range(b.size_start.size - 1):
        if own > 0:
            widest = max(widest, abs(b.scale[resource, size] / own - 1))
    change = rows.largest[resource, host] * widest + 1
    return b.weight[resource] * np.int64(2.0 * shift * (change + 1) + 1)

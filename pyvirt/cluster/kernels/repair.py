# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Moves that put right what rules, hosts that went away and reservations do not allow.

Each VM that must leave is given the host that a new VM would be given. Where there is none, a host
that all but its reservations allow is made free by moving others from it, the smallest that will do
first.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.cluster.kernels.place import find_host, settle
from pyvirt.cluster.kernels.reach import ANYWHERE, SPLIT, mark_mates, mates_allow, reaches

__all__ = [
    "CROWDED",
    "DOWN",
    "MATES",
    "STATIC",
    "find_for",
    "flaws",
    "link_vms",
    "repair_all",
    "shift",
    "wrong",
]

DOWN, STATIC, MATES, CROWDED = 1, 2, 4, 8
"""What may be wrong where a VM is: the host is not up; features, datastores, networks or rules
between VMs and hosts; rules between VMs; the host's reservations exceed what it has."""

TRIES, EVICTED = 64, 8
"""Hosts that are tried for one VM, and VMs that leave each."""


@njit(cache=True, nogil=True)
def flaws(a, where, free, flaw):
    """Say what is wrong for each VM that has a host."""
    for vm in range(where.size):
        flaw[vm] = wrong(a, where, free, vm) if where[vm] >= 0 else 0


@njit(cache=True, nogil=True)
def wrong(a, where, free, vm):
    """Say what is wrong where a VM is."""
    host = where[vm]
    result = 0
    if a.up[host] == 0:
        result |= DOWN
    word = a.must[a.klass[vm], host >> 6]
    if (word >> np.uint64(host & 63)) & np.uint64(1) == 0:
        result |= STATIC
    if a.link_start[vm + 1] > a.link_start[vm] and not mates_allow(a, where, vm, host):
        result |= MATES
    if (free[0, host] < 0 and a.need[0, vm] > 0) or (free[1, host] < 0 and a.need[1, vm] > 0):
        result |= CROWDED
    return result


@njit(cache=True, nogil=True)
def link_vms(where, hosts):
    """Make the list of VMs of each host: `head` (H,), `after` and `before` (V,); -1 ends."""
    head = np.full(hosts, -1, np.int64)
    after = np.full(where.size, -1, np.int64)
    before = np.full(where.size, -1, np.int64)
    for vm in range(where.size - 1, -1, -1):
        host = where[vm]
        if host < 0:
            continue
        after[vm] = head[host]
        if head[host] >= 0:
            before[head[host]] = vm
        head[host] = vm
    return head, after, before


@njit(cache=True, nogil=True)
def _relink(head, after, before, vm, source, host):
    if source >= 0:
        if before[vm] >= 0:
            after[before[vm]] = after[vm]
        else:
            head[source] = after[vm]
        if after[vm] >= 0:
            before[after[vm]] = before[vm]
    before[vm], after[vm] = -1, -1
    if host >= 0:
        after[vm] = head[host]
        if head[host] >= 0:
            before[head[host]] = vm
        head[host] = vm


@njit(cache=True, nogil=True)
def shift(a, f, where, demand, lists, vm, host):
    """Put a VM on a host, or on none, in all that is kept."""
    source = where[vm]
    settle(a, f, where, demand, vm, host)
    _relink(lists[0], lists[1], lists[2], vm, source, host)


@njit(cache=True, nogil=True)
def _go(a, f, where, demand, lists, vm, source, host, moves, count):
    """Move a VM that came from `source` to a host and write it down; gives the number of moves."""
    shift(a, f, where, demand, lists, vm, host)
    moves[count, 0], moves[count, 1], moves[count, 2] = vm, source, host
    return count + 1


@njit(cache=True, nogil=True)
def find_for(a, f, where, demand, vm, tag):
    """Find a host for a VM that is on none, all others where they are."""
    together = ANYWHERE
    if a.link_start[vm + 1] > a.link_start[vm]:
        together = mark_mates(a, where, vm, f.stamp, tag)
    return find_host(
        a,
        f,
        vm,
        (a.need[0, vm], a.need[1, vm]),
        (demand[0, vm], demand[1, vm]),
        together,
        tag,
    )


@njit(cache=True, nogil=True)
def _make_room(a, f, where, demand, lists, vm, tag, mobile, moves, count):
    """Move others from a host so that a VM fits; gives the host or -1, tag and number of moves."""
    hosts = f.capacity.shape[1]
    head, after = lists[0], lists[1]
    tried = 0
    for host in range(hosts):
        if tried == TRIES:
            break
        if not reaches(a, vm, host) or not mates_allow(a, where, vm, host):
            continue
        if a.need[0, vm] > f.capacity[0, host] or a.need[1, vm] > f.capacity[1, host]:
            continue
        tried += 1
        begun = count
        while True:
            cpu = a.need[0, vm] - f.free[0, host]
            memory = a.need[1, vm] - f.free[1, host]
            if cpu <= 0 and memory <= 0:
                return host, tag, count
            # The smallest VM that frees enough, else the largest, that has another host.
            best, enough, size = -1, False, 0.0
            other = head[host]
            while other >= 0:
                if mobile[other] != 0 and (a.need[0, other] > 0 or a.need[1, other] > 0):
                    frees = a.need[0, other] >= cpu and a.need[1, other] >= memory
                    mine = a.need[0, other] / max(f.capacity[0, host], 1) + a.need[1, other] / max(
                        f.capacity[1, host], 1
                    )
                    if (
                        best < 0
                        or (frees and not enough)
                        or (frees == enough and (mine < size if enough else mine > size))
                    ):
                        best, enough, size = other, frees, mine
                other = after[other]
            if best < 0 or count >= begun + EVICTED:
                break
            up = a.up[host]
            a.up[host] = 0
            tag += 1
            settle(a, f, where, demand, best, -1)
            target, _ = find_for(a, f, where, demand, best, tag)
            a.up[host] = up
            settle(a, f, where, demand, best, host)
            if target < 0:
                break
            count = _go(a, f, where, demand, lists, best, host, target, moves, count)
        # What was moved stays moved only if it served: go back in reverse order.
        for back in range(count - 1, begun - 1, -1):
            shift(a, f, where, demand, lists, moves[back, 0], host)
        count = begun
    return -1, tag, count


@njit(cache=True, nogil=True)
def repair_all(a, f, where, demand, group, group_start, group_vm, order, mobile, passes, moves):
    """Move VMs until nothing is wrong, or no more can be put right.

    Parameters
    ----------
    a, f, where, demand
        As for `place_all`; all VMs that count have a host.
    group : ndarray of int64, shape (V,)
        Of VMs that must be together, or -1; `group_start` and `group_vm` are their lists.
    order : ndarray of int64
        The VMs to look at.
    mobile : ndarray of uint8, shape (V,)
        Whether a VM may be moved.
    passes : int
        At most so many times.
    moves : ndarray of int64, shape (most, 3)
        Gets VM, source and target of each move.

    Returns
    -------
    count, left : int
        Moves, and VMs in `order` for which something is wrong still.
    """
    lists = link_vms(where, f.capacity.shape[1])
    count, tag, left = 0, 0, 0
    for _ in range(passes):
        before = count
        for i in range(order.size):
            vm = order[i]
            flaw = wrong(a, where, f.free, vm)
            if flaw == 0 or mobile[vm] == 0 or count + EVICTED >= moves.shape[0]:
                continue
            tag += 1
            if group[vm] >= 0:
                members = group_vm[group_start[group[vm]] : group_start[group[vm] + 1]]
                if count + members.size < moves.shape[0]:
                    count = _gather(a, f, where, demand, lists, members, mobile, tag, moves, count)
                continue
            source = where[vm]
            shift(a, f, where, demand, lists, vm, -1)
            host, _ = find_for(a, f, where, demand, vm, tag)
            if host < 0:
                # Until the others have left, the VM is where it was and keeps what it reserves.
                for resource in range(2):
                    f.free[resource, source] -= a.need[resource, vm]
                host, tag, count = _make_room(
                    a, f, where, demand, lists, vm, tag, mobile, moves, count
                )
                for resource in range(2):
                    f.free[resource, source] += a.need[resource, vm]
            if host < 0 or host == source:
                shift(a, f, where, demand, lists, vm, source)
            else:
                count = _go(a, f, where, demand, lists, vm, source, host, moves, count)
        left = 0
        for i in range(order.size):
            left += wrong(a, where, f.free, order[i]) != 0
        if left == 0 or count == before:
            break
    return count, left


@njit(cache=True, nogil=True)
def _gather(a, f, where, demand, lists, members, mobile, tag, moves, count):
    """Bring a group together: on the host where most of it is already, or on another."""
    cpu = memory = wanted_cpu = wanted_memory = 0
    for vm in members:
        if mobile[vm] == 0:
            # Those that cannot move say where the others go.
            return _follow(a, f, where, demand, lists, members, mobile, where[vm], moves, count)
        cpu += a.need[0, vm]
        memory += a.need[1, vm]
        wanted_cpu += demand[0, vm]
        wanted_memory += demand[1, vm]
    best, most = -1, -1
    for vm in members:
        host = where[vm]
        if not reaches(a, vm, host):
            continue
        here, need_cpu, need_memory, apart = 0, 0, 0, False
        for mate in members:
            if where[mate] == host:
                here += 1
            else:
                need_cpu += a.need[0, mate]
                need_memory += a.need[1, mate]
            apart |= _kept_apart(a, where, mate, host)
        fits = need_cpu <= f.free[0, host] and need_memory <= f.free[1, host]
        if fits and not apart and (here > most or (here == most and host < best)):
            best, most = host, here
    if best >= 0:
        return _follow(a, f, where, demand, lists, members, mobile, best, moves, count)
    source = where[members].copy()
    for vm in members:
        settle(a, f, where, demand, vm, -1)
    together = ANYWHERE
    for vm in members:
        if mark_mates(a, where, vm, f.stamp, tag) == SPLIT:
            together = SPLIT
    host, _ = find_host(a, f, members[0], (cpu, memory), (wanted_cpu, wanted_memory), together, tag)
    for i in range(members.size):
        settle(a, f, where, demand, members[i], source[i])
    if host < 0:
        return count
    return _follow(a, f, where, demand, lists, members, mobile, host, moves, count)


@njit(cache=True, nogil=True)
def _kept_apart(a, where, vm, host):
    """Whether a rule keeps a VM apart from one on the host."""
    for i in range(a.link_start[vm], a.link_start[vm + 1]):
        rule = a.link[i]
        if a.apart[rule] == 0:
            continue
        for j in range(a.rule_start[rule], a.rule_start[rule + 1]):
            mate = a.rule_vm[j]
            if mate != vm and a.on[mate] != 0 and where[mate] == host:
                return True
    return False


@njit(cache=True, nogil=True)
def _follow(a, f, where, demand, lists, members, mobile, host, moves, count):
    """Move all that can to one host, if all fit."""
    cpu = memory = 0
    for vm in members:
        if where[vm] != host:
            if mobile[vm] == 0 or not reaches(a, vm, host) or _kept_apart(a, where, vm, host):
                return count
            cpu += a.need[0, vm]
            memory += a.need[1, vm]
    if cpu > f.free[0, host] or memory > f.free[1, host]:
        return count
    for vm in members:
        if where[vm] != host:
            count = _go(a, f, where, demand, lists, vm, where[vm], host, moves, count)
    return count

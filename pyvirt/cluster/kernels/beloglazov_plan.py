# Constants that are passed on are NumPy scalars: Numba would compile each literal anew.
# mypy: disable-error-code="arg-type, assignment, return-value"
"""Where VMs go: the first placement, and at each step which VMs move to which hosts.

A plan changes lists and sums of hosts on paper; at its end each host has its VMs back. Hosts that
hold nothing and are off differ in their kind alone, so only the first of each kind is looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pyvirt.cluster.kernels.beloglazov_hosts import append, remove, watts
from pyvirt.cluster.kernels.beloglazov_overload import overloaded, prepare
from pyvirt.cluster.kernels.beloglazov_select import pick

__all__ = ["place", "plan"]

NPA, DVFS = 0, 1
NO_HOST = 3


@njit(cache=True, nogil=True, error_model="numpy")
def sorted_down(keys: Any, order: Any, spare: Any, n: int) -> None:
    """Sort `order[:n]` by decreasing key, those of equal keys as they are (merge sort)."""
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for k in range(low, high):
                if i < middle and (j >= high or keys[order[i]] >= keys[order[j]]):
                    spare[k] = order[i]
                    i += 1
                else:
                    spare[k] = order[j]
                    j += 1
        for k in range(n):
            order[k] = spare[k]
        width *= 2


@njit(cache=True, nogil=True, error_model="numpy")
def _empty(hosts: Any, first: Any) -> None:
    """Move on to the first host of each kind that holds nothing and is off; past the end: none."""
    for kind in range(first.size):
        h = first[kind]
        while h < hosts.size and (
            hosts[h].kind != kind or hosts[h].count > 0 or hosts[h].active or hosts[h].shut
        ):
            h += 1
        first[kind] = h


@njit(cache=True, nogil=True, error_model="numpy")
def _find(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    used: Any,
    past: Any,
    curve: Any,
    work: Any,
    candidates: Any,
    count: int,
    first: Any,
    v: int,
    mips: float,
    wanted: float,
    claimed: bool,
) -> int:
    """The host whose power rises least by a VM, the first of equals; -1 if none can have it.

    `mips` is what it is to be granted, and `wanted` what it counts for in the demand.
    """
    best = np.int64(-1)
    least = np.inf
    memory = vms[v].memory
    for kind in range(first.size):
        h = first[kind]
        if h >= hosts.size:
            continue
        host = hosts[h]
        if host.core < mips or host.free < mips or (claimed and host.memory < memory):
            continue
        rise = watts(curve, host.kind, mips / host.total) - host.charge
        if rise < least or (rise == least and h < best):
            best, least = h, rise
    for k in range(count):
        h = candidates[k]
        host = hosts[h]
        if host.free < mips or host.core < mips or host.shut:
            continue
        if claimed and host.memory - host.memory_used < memory:
            continue
        rise = watts(curve, host.kind, (host.granted + mips) / host.total) - host.charge
        if rise > least or (rise == least and h > best):
            continue
        if host.granted != 0.0 and overloaded(
            r, hosts, vms, member, used, past, work, h, v, wanted
        ):
            continue
        best, least = h, rise
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _put(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    used: Any,
    past: Any,
    curve: Any,
    h: int,
    v: int,
    mips: float,
    wanted: float,
) -> None:
    """Put a VM at the end of a host's list on paper: it fits, so it is granted all it wants."""
    host = hosts[h]
    append(r, hosts, member, h, v)
    host.granted += mips
    host.free -= mips
    host.wanted += wanted
    host.memory_used += vms[v].memory
    if r.destination_power and (r.idle_vms or host.granted > 0.0):
        host.charge = watts(curve, host.kind, host.granted / host.total)
    if r.step < 0:
        return
    host.forecast += vms[v].forecast
    host.oldest = min(host.oldest, vms[v].idle_until)
    window, total = r.window, host.total
    if past.shape[1]:
        for j in range(r.step + 1 - window):
            past[h, j] += used[v, window + j] / total


@njit(cache=True, nogil=True, error_model="numpy")
def _clear(r: Any, hosts: Any, past: Any, curve: Any, h: int) -> None:
    """Set the sums of a host that holds nothing."""
    host = hosts[h]
    host.free = host.total
    host.granted = host.wanted = host.memory_used = host.forecast = 0.0
    host.oldest = r.step + 1
    host.charge = 0.0 if r.destination_power else watts(curve, host.kind, host.util)
    for j in range(past.shape[1]):
        past[h, j] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(candidates: Any, count: int, h: int) -> int:
    """Add a host to the candidates, which are in order of their numbers."""
    k = count
    while k > 0 and candidates[k - 1] > h:
        candidates[k] = candidates[k - 1]
        k -= 1
    candidates[k] = h
    return count + 1


@njit(cache=True, nogil=True, error_model="numpy")
def place(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    used: Any,
    past: Any,
    curve: Any,
    work: Any,
) -> None:
    """Place the VMs one after the other, each with its full MIPS and memory, before all load."""
    candidates = np.empty(hosts.size, np.int64)
    first = np.zeros(curve.shape[0], np.int64)
    count = np.int64(0)
    claimed = np.bool_(True)
    for v in range(vms.size):
        need = vms[v].mips
        if r.policy in (NPA, DVFS):
            h = 0
            while h < hosts.size and (
                hosts[h].core < need
                or hosts[h].free < need
                or hosts[h].memory - hosts[h].memory_used < vms[v].memory
            ):
                h += 1
        else:
            _empty(hosts, first)
            h = _find(
                r, hosts, vms, member, used, past, curve, work,
                candidates, count, first, v, need, need, claimed,
            )  # fmt: skip
        if h < 0 or h >= hosts.size:
            r.status = NO_HOST
            r.culprit = v
            return
        if hosts[h].count == 0:
            count = _insert(candidates, count, h)
        # nothing is demanded yet, though all is granted
        _put(r, hosts, vms, member, used, past, curve, h, v, need, 0.0)
        vms[v].host = h


@njit(cache=True, nogil=True, error_model="numpy")
def _drain(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    demand: Any,
    used: Any,
    past: Any,
    curve: Any,
    work: Any,
    candidates: Any,
    count: int,
    chosen: Any,
    moves: int,
) -> int:
    """Empty hosts, the least used first, if all their VMs find another; gives the moves by now."""
    nowhere = np.full(curve.shape[0], hosts.size)  # hosts that are off stay off
    minus = np.empty(hosts.size)
    ranks = np.empty(hosts.size, np.int64)
    spare = np.empty(max(hosts.size, vms.size), np.int64)
    here = np.empty(member.shape[1], np.int64)
    saved = np.empty((member.shape[1], 7))
    saved_past = np.empty((member.shape[1], past.shape[1]))
    n = low = np.int64(0)
    for k in range(count):
        h = candidates[k]
        host = hosts[h]
        if not host.active:
            continue
        candidates[n] = h
        n += 1
        if host.util < 1.0:
            minus[h] = -host.util
            ranks[low] = h
            low += 1
    count = n
    sorted_down(minus, ranks, spare, low)
    for rank in range(low):
        b = ranks[rank]
        if hosts[b].full:
            continue
        hosts[b].full = 1
        n = 0
        for k in range(count):
            if candidates[k] != b:
                candidates[n] = candidates[k]
                n += 1
        count = n
        size = hosts[b].count
        for i in range(size):
            here[i] = member[b, i]
        sorted_down(demand, here, spare, size)
        begun = moves
        for i in range(size):
            v = here[i]
            h = _find(
                r, hosts, vms, member, used, past, curve, work,
                candidates, count, nowhere, v, demand[v], demand[v], r.memory == 1,
            )  # fmt: skip
            if h < 0:
                while moves > begun:
                    moves -= 1
                    i -= 1
                    host = hosts[chosen[moves, 1]]
                    host.count -= 1
                    host.free, host.granted, host.wanted = saved[i, 0], saved[i, 1], saved[i, 2]
                    host.memory_used, host.charge = saved[i, 3], saved[i, 4]
                    host.forecast, host.oldest = saved[i, 5], np.int64(saved[i, 6])
                    for j in range(past.shape[1]):
                        past[chosen[moves, 1], j] = saved_past[i, j]
                break
            host = hosts[h]
            saved[i, 0], saved[i, 1], saved[i, 2] = host.free, host.granted, host.wanted
            saved[i, 3], saved[i, 4] = host.memory_used, host.charge
            saved[i, 5], saved[i, 6] = host.forecast, host.oldest
            for j in range(past.shape[1]):
                saved_past[i, j] = past[h, j]
            _put(r, hosts, vms, member, used, past, curve, h, v, demand[v], demand[v])
            if r.status:
                return moves
            chosen[moves, 0] = v
            chosen[moves, 1] = h
            moves += 1
        for k in range(begun, moves):
            hosts[chosen[k, 1]].full = 1
    return moves


@njit(cache=True, nogil=True, error_model="numpy")
def _single(vms: Any, chosen: Any, moves: int) -> int:
    """Let a VM that was to move twice go to its last destination at once; gives the moves left."""
    at = np.full(vms.size, -1)
    kept = 0
    for k in range(moves):
        v = chosen[k, 0]
        if at[v] >= 0:
            chosen[at[v], 1] = chosen[k, 1]
            continue
        at[v] = kept
        chosen[kept, 0] = v
        chosen[kept, 1] = chosen[k, 1]
        kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def plan(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    demand: Any,
    used: Any,
    use: Any,
    past: Any,
    curve: Any,
    work: Any,
    chosen: Any,
) -> int:
    """Decide on the moves of a step; `chosen` gets VM and destination of each; gives their number.

    `chosen` has room for each VM twice.
    """
    candidates = np.empty(hosts.size, np.int64)
    taken = np.empty(vms.size, np.int64)
    kept = np.empty(vms.size, np.int64)  # lists of the overloaded hosts
    used_up = 0
    count = leaving = moves = np.int64(0)
    nobody = np.int64(-1)
    for h in range(hosts.size):
        host = hosts[h]
        host.shut = host.full = 0
        host.kept = host.count
        host.kept_at = -1
        if host.count == 0:
            continue
        prepare(r, hosts, vms, member, demand, used, past, h)
        if not overloaded(r, hosts, vms, member, used, past, work, h, nobody, 0.0):
            candidates[count] = h
            count += 1
            continue
        host.shut = 1
        host.kept_at = used_up
        for i in range(host.count):
            kept[used_up] = member[h, i]
            used_up += 1
        while True:
            v = pick(r, hosts, vms, member, demand, use, work, h)
            taken[leaving] = v
            leaving += 1
            remove(hosts, member, h, v)
            if host.count == 0:
                break
            prepare(r, hosts, vms, member, demand, used, past, h)
            if not overloaded(r, hosts, vms, member, used, past, work, h, nobody, 0.0):
                break
    sorted_down(demand, taken, np.empty(vms.size, np.int64), leaving)
    first = np.zeros(curve.shape[0], np.int64)
    for k in range(leaving):
        v = taken[k]
        _empty(hosts, first)
        h = _find(
            r, hosts, vms, member, used, past, curve, work,
            candidates, count, first, v, demand[v], demand[v], r.memory == 1,
        )  # fmt: skip
        if h < 0:
            continue
        if hosts[h].count == 0:
            _clear(r, hosts, past, curve, h)
            count = _insert(candidates, count, h)
        _put(r, hosts, vms, member, used, past, curve, h, v, demand[v], demand[v])
        chosen[moves, 0] = v
        chosen[moves, 1] = h
        moves += 1
    moves = _drain(
        r, hosts, vms, member, demand, used, past, curve, work,
        candidates, count, chosen, moves,
    )  # fmt: skip
    if r.single_moves:
        moves = _single(vms, chosen, moves)
    for h in range(hosts.size):
        host = hosts[h]
        if host.kept_at >= 0:
            for i in range(host.kept):
                member[h, i] = kept[host.kept_at + i]
        if host.kept == 0 and host.count > 0:
            _clear(r, hosts, past, curve, h)
        host.count = host.kept
    return moves

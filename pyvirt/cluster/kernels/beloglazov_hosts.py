# Constants that are passed on are NumPy scalars: Numba would compile each literal anew.
# mypy: disable-error-code="arg-type, assignment, return-value"
"""Refresh of hosts: who gets what of the CPU, what it is recorded as, what it costs.

Formulas are evaluated from left to right and sums run in the order of the lists: the last bit of
each decides between equal hosts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["append", "close", "refresh", "remove", "update", "watts"]

STEP_S = 300.0
NPA = 0


@njit(cache=True, nogil=True, error_model="numpy")
def watts(curve: Any, kind: int, u: float) -> float:
    """Power at utilisation u: `curve[kind]` has watts, a tenth of their rise, and tenths of one.

    That an exact multiple of 0.1 reads the table gives nothing else than the formula does.
    """
    if u >= 1.0:
        return curve[kind, 0, 10]
    x = 10.0 * u
    a = int(x)
    below = curve[kind, 0, a]
    if x == a:
        return below
    return below + curve[kind, 1, a] * (u - curve[kind, 2, a]) * 100.0


@njit(cache=True, nogil=True, error_model="numpy")
def _trip(r: Any, seconds: float) -> None:
    r.trips += 1
    delta = seconds - r.trip_mean
    r.trip_mean += delta / r.trips
    r.trip_square += delta * (seconds - r.trip_mean)


@njit(cache=True, nogil=True, error_model="numpy")
def _change(r: Any, vm: Any) -> None:
    """Count what the last entry of a VM's history tells beside the one before it."""
    if vm.entry_moving == vm.was_moving:
        return
    begins = vm.entry_moving == 1
    if begins == (r.migration_intervals == 1):
        _trip(r, vm.when - vm.since)
    else:
        vm.since = vm.when
    vm.was_moving = vm.entry_moving


@njit(cache=True, nogil=True, error_model="numpy")
def _note(r: Any, vm: Any, t: float, grant: float, demand: float, moving: int) -> None:
    """Add an entry to a VM's history, in place of one of the same time."""
    if vm.when != t:
        if vm.when >= 0.0:
            dt = t - vm.when
            asked = vm.entry_demand
            given = vm.entry_grant
            vm.asked += asked * dt
            vm.given += given * dt
            if given < asked:
                vm.short += (asked - given) / asked
                vm.short_count += 1
                if vm.entry_moving:
                    vm.lost += (asked - given) * dt
            _change(r, vm)
        vm.when = t
    vm.entry_grant = grant
    vm.entry_demand = demand
    vm.entry_moving = moving


@njit(cache=True, nogil=True, error_model="numpy")
def _switch(r: Any, host: Any) -> None:
    """Count what the last entry of a host's history tells beside the one before it."""
    if host.entry_active == host.was_active:
        return
    if host.entry_active:
        host.since = host.when
    else:
        seconds = host.when - host.since
        r.downs += 1
        delta = seconds - r.down_mean
        r.down_mean += delta / r.downs
        r.down_square += delta * (seconds - r.down_mean)
    host.was_active = host.entry_active


@njit(cache=True, nogil=True, error_model="numpy")
def refresh(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    demand: Any,
    curve: Any,
    h: int,
    t: float,
) -> int:
    """Share out a host's CPU, add to the histories; give the number of VMs that want nothing.

    `member[h]` is its list: v, or ~v for a VM on its way here.
    """
    host = hosts[h]
    core = host.core
    free = host.total
    claims = used = asked = 0.0
    over = False
    idle = 0
    stays, leaves = np.int64(0), np.int64(1)
    for i in range(host.count):
        v = member[h, i]
        arriving = v < 0
        if arriving:
            v = ~v
        wanted = demand[v]
        asked += wanted
        got = wanted if wanted < core else core
        claim = 0.1 * got if arriving else got
        claims += claim
        if over or free < claim:
            over = True
            continue
        free -= claim
        if arriving:
            used += claim
        elif vms[v].moving:
            got = 0.9 * got
            used += got / 0.9
            _note(r, vms[v], t, got, wanted, leaves)
        else:
            used += got
            if wanted == 0.0:
                idle += 1
            _note(r, vms[v], t, got, wanted, stays)
    if over:
        free = used = 0.0
        idle = 0
        scale = host.total / claims
        for i in range(host.count):
            v = member[h, i]
            arriving = v < 0
            if arriving:
                v = ~v
            wanted = demand[v]
            got = wanted if wanted < core else core
            if arriving:
                used += math.floor((got * 0.1) * scale)
            elif vms[v].moving:
                got = math.floor((got * scale) * 0.9)
                used += got / 0.9
                _note(r, vms[v], t, got, wanted, leaves)
            else:
                got = math.floor(got * scale)
                used += got
                if wanted == 0.0:
                    idle += 1
                _note(r, vms[v], t, got, wanted, stays)
    host.free = free
    host.granted = used
    host.wanted = asked
    util = used / host.total
    if 1.0 < util < 1.01:
        util = 1.0
    host.util = util
    host.power = watts(curve, host.kind, util)
    active = host.count > 0 if r.idle_vms else used > 0.0
    host.active = active
    host.charge = host.power if active or not r.destination_power else 0.0
    if host.when != t:
        if host.when >= 0.0:
            if host.entry_active:
                host.on_s += t - host.when
                if host.entry_short:
                    host.over_s += t - host.when
            _switch(r, host)
        host.when = t
    host.entry_active = active
    host.entry_short = active and used < asked
    return idle


@njit(cache=True, nogil=True, error_model="numpy")
def append(r: Any, hosts: Any, member: Any, h: int, entry: int) -> None:
    """Put an entry at the end of a host's list; a list that is full is noted."""
    host = hosts[h]
    if host.count == member.shape[1]:
        r.status = 1
        return
    member[h, host.count] = entry
    host.count += 1


@njit(cache=True, nogil=True, error_model="numpy")
def remove(hosts: Any, member: Any, h: int, entry: int) -> None:
    """Take an entry off a host's list; the others keep their order."""
    host = hosts[h]
    kept = 0
    for i in range(host.count):
        if member[h, i] != entry:
            member[h, kept] = member[h, i]
            kept += 1
    host.count = kept


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(r: Any, hosts: Any, vms: Any, member: Any, demand: Any, h: int) -> None:
    """Take the VMs that want nothing off a host for good."""
    host = hosts[h]
    kept = 0
    for i in range(host.count):
        v = member[h, i]
        if v >= 0 and demand[v] == 0.0 and not vms[v].moving:
            vms[v].alive = 0
            r.alive -= 1
        else:
            member[h, kept] = v
            kept += 1
    host.count = kept


@njit(cache=True, nogil=True, error_model="numpy")
def update(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    samples: Any,
    mips: Any,
    demand: Any,
    curve: Any,
    t: float,
    finish: bool,
    only_dirty: bool,
) -> None:
    """Refresh the hosts at a time and account for the energy since the last such update.

    With `only_dirty`, no time has passed since then: the others would come out as they are.
    """
    dt = t - r.accounted
    finish = finish and not r.idle_vms
    if not only_dirty:
        i = math.floor(t / STEP_S)
        j = math.ceil(t / STEP_S)
        if i == j:
            for v in range(mips.size):
                demand[v] = mips[v] * samples[i, v]
        else:
            part = t - STEP_S * i
            for v in range(mips.size):
                slope = (samples[j, v] - samples[i, v]) / STEP_S
                demand[v] = mips[v] * (samples[i, v] + slope * part)
        if r.policy == NPA:
            for h in range(hosts.size):
                r.energy += curve[hosts[h].kind, 0, 10] * dt
    for h in range(hosts.size):
        host = hosts[h]
        if only_dirty and not host.dirty:
            continue
        host.dirty = 0
        if host.count == 0 and not host.active and host.when >= 0.0:
            continue
        before = host.power
        was_active = host.active
        idle = refresh(r, hosts, vms, member, demand, curve, h, t)
        if was_active and dt > 0.0 and r.policy != NPA:
            r.energy += (before + host.power) / 2.0 * dt
        if finish and idle:
            _finish(r, hosts, vms, member, demand, h)
    r.accounted = t


@njit(cache=True, nogil=True, error_model="numpy")
def close(r: Any, hosts: Any, vms: Any) -> None:
    """Count what the last entries of all histories tell."""
    for h in range(hosts.size):
        if hosts[h].when >= 0.0:
            _switch(r, hosts[h])
    for v in range(vms.size):
        if vms[v].when >= 0.0:
            _change(r, vms[v])

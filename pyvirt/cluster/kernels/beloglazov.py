# Constants that are passed on are NumPy scalars: Numba would compile each literal anew.
# mypy: disable-error-code="arg-type, assignment, return-value"
"""The time line of a replay: updates, decisions, and migrations under way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pyvirt.cluster.kernels.beloglazov_hosts import (
    STEP_S,
    append,
    close,
    refresh,
    remove,
    update,
)
from pyvirt.cluster.kernels.beloglazov_overload import settle_vms
from pyvirt.cluster.kernels.beloglazov_plan import place, plan, sorted_down

__all__ = ["replay"]

START_S = 0.1  # when the workloads start
THR = 2
MIGRATIONS_FULL = 2


@njit(cache=True, nogil=True, error_model="numpy")
def _start(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    demand: Any,
    curve: Any,
    migrations: Any,
    v: int,
    h: int,
    t: float,
) -> None:
    """Begin a migration: the VM counts in both lists, at its destination as arriving."""
    source = vms[v].host
    if r.record:
        if r.migrations == migrations.size:
            r.status = MIGRATIONS_FULL
            return
        entry = migrations[r.migrations]
        entry.time_s = t
        entry.vm = v
        entry.source = source
        entry.destination = h
    r.migrations += 1
    vms[v].moving = 1
    append(r, hosts, member, h, ~v)
    refresh(r, hosts, vms, member, demand, curve, h, t)
    refresh(r, hosts, vms, member, demand, curve, source, t)


@njit(cache=True, nogil=True, error_model="numpy")
def _arrive(r: Any, hosts: Any, vms: Any, member: Any, v: int, h: int) -> None:
    """End a migration: off the list of its host, to the end of that of its destination."""
    source = vms[v].host
    remove(hosts, member, source, v)
    remove(hosts, member, h, ~v)
    append(r, hosts, member, h, v)
    vms[v].moving = 0
    vms[v].host = h
    hosts[source].dirty = hosts[h].dirty = 1


@njit(cache=True, nogil=True, error_model="numpy")
def replay(
    run: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    mips: Any,
    samples: Any,
    used: Any,
    use: Any,
    past: Any,
    curve: Any,
    work: Any,
    steps: Any,
    utilisation: Any,
    migrations: Any,
    placement: Any,
) -> None:
    """Run through the samples; results stand in `run`, `hosts`, `vms` and the records.

    `run` is one record; `member` (H, W) is room for the hosts' lists; `samples` (S + 1, V) are
    fractions of one, the last repeated; `used` (V, S) is room for demands, `use` (V, S or 0) for
    fractions, `past` (H, 30 or 0) for the hosts' histories; `work` holds the weights of regressions
    and room for them. `steps`, `utilisation` and
    `migrations` are written if `run` says so.
    """
    r = run[0]
    count = samples.shape[0] - 2
    demand = np.zeros(vms.size)
    chosen = np.empty((2 * vms.size, 2), np.int64)
    minus = np.empty(2 * vms.size)
    order = np.empty(2 * vms.size, np.int64)
    spare = np.empty(2 * vms.size, np.int64)
    place(r, hosts, vms, member, used, past, curve, work)
    if r.status:
        return
    yes, no = np.bool_(True), np.bool_(False)
    for v in range(vms.size):
        placement[v] = vms[v].host
    if r.whole_day:
        update(r, hosts, vms, member, samples, mips, demand, curve, 0.0, no, no)
    t = START_S + STEP_S
    for s in range(count):
        update(r, hosts, vms, member, samples, mips, demand, curve, t, yes, no)
        r.step = s
        r.window = max(0, s - 29)
        before = r.migrations
        moves = np.int64(0)
        if r.policy >= THR:
            settle_vms(r, vms, samples, demand, used, use, work, t)
            moves = plan(r, hosts, vms, member, demand, used, use, past, curve, work, chosen)
            for k in range(moves):
                v, h = chosen[k, 0], chosen[k, 1]
                _start(r, hosts, vms, member, demand, curve, migrations, v, h, t)
                if r.status:
                    return
            if r.status:
                return
        if r.record:
            entry = steps[s]
            entry.time_s = t
            on = 0
            for h in range(hosts.size):
                utilisation[s, h] = hosts[h].util
                on += hosts[h].active
            entry.hosts_on = on
            entry.energy_kwh = r.energy / 3.6e6
            entry.migrations = r.migrations - before
            entry.vms = r.alive
        for k in range(moves):
            order[k] = k
            minus[k] = -(t + vms[chosen[k, 0]].memory / r.speed)
        sorted_down(minus, order, spare, moves)
        for k in range(moves):
            end = -minus[order[k]]
            if end > r.accounted:
                update(r, hosts, vms, member, samples, mips, demand, curve, end, yes, no)
            _arrive(r, hosts, vms, member, chosen[order[k], 0], chosen[order[k], 1])
            if r.status:
                return
            if k + 1 == moves or -minus[order[k + 1]] > end:
                update(r, hosts, vms, member, samples, mips, demand, curve, end, yes, yes)
        t += STEP_S
    if r.whole_day:
        end = STEP_S * (count + 1)
        update(r, hosts, vms, member, samples, mips, demand, curve, end, no, no)
    close(r, hosts, vms)

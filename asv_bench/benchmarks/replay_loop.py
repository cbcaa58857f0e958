"""A replay of THR with MMT or MU as one would write it first: plain loops, compiled by Numba.

Each search looks at all hosts, each update at all VMs, and sums are added up anew wherever they are
asked for. Only energy and migrations are counted; service levels and records are left out.
"""

import math

import numpy as np
from numba import njit

HOSTS = 800
CORE = np.array([1860.0, 2660.0])
MEMORY = 4096.0
WATTS = np.array(
    [
        [86, 89.4, 92.6, 96, 99.5, 102, 106, 108, 112, 114, 117],
        [93.7, 97, 101, 105, 110, 116, 121, 125, 129, 133, 135],
    ]
)
TYPES = np.array([[2500.0, 870.0], [2000.0, 1740.0], [1000.0, 1740.0], [500.0, 613.0]])


@njit
def power(h, u):
    table = WATTS[h % 2]
    if u >= 1.0:
        return table[10]
    a, b = math.floor(10.0 * u), math.ceil(10.0 * u)
    return table[a] + ((table[b] - table[a]) / 10.0) * (u - a / 10.0) * 100.0


@njit
def share_out(h, lists, count, demand, moving, grant):
    """Grants of a host's list, in its order; gives the free MIPS."""
    core = CORE[h % 2]
    total = 2.0 * core
    free, claims, over = total, 0.0, False
    for i in range(count[h]):
        v = lists[h, i]
        here = v >= 0
        v = v if here else ~v
        r = min(demand[v], core)
        claim = r if here else 0.1 * r
        claims += claim
        over = over or free < claim
        if not over:
            free -= claim
            grant[i] = 0.9 * r if here and moving[v] else claim
    if over:
        free = 0.0
        scale = total / claims
        for i in range(count[h]):
            v = lists[h, i]
            here = v >= 0
            v = v if here else ~v
            r = min(demand[v], core)
            if not here:
                grant[i] = math.floor((r * 0.1) * scale)
            elif moving[v]:
                grant[i] = math.floor((r * scale) * 0.9)
            else:
                grant[i] = math.floor(r * scale)
    return free


@njit
def refresh(h, lists, count, demand, moving, grant, util):
    share_out(h, lists, count, demand, moving, grant)
    used = 0.0
    for i in range(count[h]):
        v = lists[h, i]
        used += grant[i] / 0.9 if v >= 0 and moving[v] else grant[i]
    util[h] = used / (2.0 * CORE[h % 2])
    if 1.0 < util[h] < 1.01:
        util[h] = 1.0


@njit
def take(h, entry, lists, count):
    kept = 0
    for i in range(count[h]):
        if lists[h, i] != entry:
            lists[h, kept] = lists[h, i]
            kept += 1
    count[h] = kept


@njit
def update(t, last, samples, mips, lists, count, demand, moving, grant, util):
    i, j = math.floor(t / 300.0), math.ceil(t / 300.0)
    for v in range(mips.size):
        u = samples[i, v] + ((samples[j, v] - samples[i, v]) / 300.0) * (t - 300.0 * i)
        demand[v] = mips[v] * u
    joules = 0.0
    for h in range(HOSTS):
        before = util[h]
        refresh(h, lists, count, demand, moving, grant, util)
        if before > 0.0:
            joules += (power(h, before) + power(h, util[h])) / 2.0 * (t - last)
    for h in range(HOSTS):
        for i in range(count[h] - 1, -1, -1):
            v = lists[h, i]
            if v >= 0 and not moving[v] and demand[v] == 0.0:
                take(h, v, lists, count)
    return joules


@njit
def overloaded(h, lists, count, demand, extra, limit):
    total = 0.0
    for i in range(count[h]):
        total += demand[lists[h, i]]
    return (total + extra) / (2.0 * CORE[h % 2]) > limit


@njit
def find(v, excluded, lists, count, demand, moving, grant, util, limit):
    best, least = -1, np.inf
    for h in range(HOSTS):
        if excluded[h] or CORE[h % 2] < demand[v]:
            continue
        if share_out(h, lists, count, demand, moving, grant) < demand[v]:
            continue
        granted = 0.0
        for i in range(count[h]):
            granted += grant[i]
        if granted != 0.0 and overloaded(h, lists, count, demand, demand[v], limit):
            continue
        rise = power(h, (granted + demand[v]) / (2.0 * CORE[h % 2])) - power(h, util[h])
        if rise < least:
            best, least = h, rise
    return best


@njit
def by_demand(vms, n, demand):
    for i in range(1, n):
        v = vms[i]
        k = i - 1
        while k >= 0 and demand[vms[k]] < demand[v]:
            vms[k + 1] = vms[k]
            k -= 1
        vms[k + 1] = v


@njit
def optimise(lists, count, demand, mips, memory, moving, grant, util, limit, least_used, moves):
    lists, count = lists.copy(), count.copy()  # on paper
    excluded = np.zeros(HOSTS, np.bool_)
    leaving = np.empty(mips.size, np.int64)
    n = made = 0
    for h in range(HOSTS):
        while count[h] > 0 and overloaded(h, lists, count, demand, 0.0, limit):
            excluded[h] = True
            best = lists[h, 0]
            for i in range(1, count[h]):
                v = lists[h, i]
                if least_used:
                    better = demand[v] / mips[v] < demand[best] / mips[best]
                else:
                    better = memory[v] < memory[best]
                if better:
                    best = v
            leaving[n] = best
            n += 1
            take(h, best, lists, count)
    by_demand(leaving, n, demand)
    for k in range(n):
        v = leaving[k]
        h = find(v, excluded, lists, count, demand, moving, grant, util, limit)
        if h >= 0:
            lists[h, count[h]] = v
            count[h] += 1
            moves[made, 0], moves[made, 1] = v, h
            made += 1
    for h in range(HOSTS):
        if util[h] == 0.0:
            excluded[h] = True
    full = excluded.copy()
    here = np.empty(mips.size, np.int64)
    while True:
        low = -1
        for h in range(HOSTS):
            can = not full[h] and count[h] > 0 and 0.0 < util[h] < 1.0
            if can and (low < 0 or util[h] < util[low]):
                low = h
        if low < 0:
            return made
        full[low] = excluded[low] = True
        size = count[low]
        here[:size] = lists[low, :size]
        by_demand(here, size, demand)
        first = made
        for i in range(size):
            v = here[i]
            h = find(v, excluded, lists, count, demand, moving, grant, util, limit)
            if h < 0:
                for k in range(first, made):
                    count[moves[k, 1]] -= 1
                made = first
                break
            lists[h, count[h]] = v
            count[h] += 1
            moves[made, 0], moves[made, 1] = v, h
            made += 1
        for k in range(first, made):
            full[moves[k, 1]] = True


@njit
def place(mips, memory, limit, lists, count, host):
    free, room = 2.0 * CORE[np.arange(HOSTS) % 2], np.full(HOSTS, MEMORY)
    for v in range(mips.size):
        best, least = -1, np.inf
        for h in range(HOSTS):
            core = CORE[h % 2]
            total = 2.0 * core
            if core < mips[v] or free[h] < mips[v] or room[h] < memory[v]:
                continue
            if count[h] and mips[v] / total > limit:
                continue
            rise = power(h, (total - free[h] + mips[v]) / total) - power(h, 0.0)
            if rise < least:
                best, least = h, rise
        lists[best, count[best]] = v
        count[best] += 1
        free[best] -= mips[v]
        room[best] -= memory[v]
        host[v] = best


@njit(nogil=True)
def replay(samples, mips, memory, limit, least_used):
    """Give energy in kWh and the number of migrations; `samples` (S + 1, V) are fractions."""
    n = mips.size
    lists, count = np.zeros((HOSTS, 256), np.int64), np.zeros(HOSTS, np.int64)
    host, demand = np.zeros(n, np.int64), np.zeros(n)
    moving, grant, util = np.zeros(n, np.bool_), np.empty(256), np.zeros(HOSTS)
    moves = np.empty((2 * n, 2), np.int64)
    place(mips, memory, limit, lists, count, host)
    energy = last = 0.0
    migrations = 0
    t = 300.1
    for _ in range(samples.shape[0] - 2):
        energy += update(t, last, samples, mips, lists, count, demand, moving, grant, util)
        last = t
        made = optimise(
            lists, count, demand, mips, memory, moving, grant, util, limit, least_used, moves
        )
        migrations += made
        for k in range(made):
            v, h = moves[k]
            moving[v] = True
            lists[h, count[h]] = ~v
            count[h] += 1
            refresh(h, lists, count, demand, moving, grant, util)
            refresh(host[v], lists, count, demand, moving, grant, util)
        order = np.argsort(memory[moves[:made, 0]], kind="mergesort")
        for k in range(made):
            v, h = moves[order[k]]
            end = t + memory[v] / 62.5
            if end > last:
                energy += update(
                    end, last, samples, mips, lists, count, demand, moving, grant, util
                )
                last = end
            take(host[v], v, lists, count)
            take(h, ~v, lists, count)
            lists[h, count[h]] = v
            count[h] += 1
            host[v] = h
            moving[v] = False
            if k + 1 == made or memory[moves[order[k + 1], 0]] > memory[v]:
                update(end, end, samples, mips, lists, count, demand, moving, grant, util)
        t += 300.0
    return energy / 3.6e6, migrations


def plain(util, limit, least_used):
    """Run it on a day of percents."""
    samples = np.vstack([util.T, util.T[-1:]]) / 100
    kinds = np.arange(len(util)) // -(-len(util) // 4)
    return replay(samples, TYPES[kinds, 0].copy(), TYPES[kinds, 1].copy(), limit, least_used)

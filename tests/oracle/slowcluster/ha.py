"""HA with lists and fractions: slots, percentages, and every way to start VMs again.

Hosts are (cpu, memory) or None if they are not on; VMs are dictionaries with host (None: off),
cpu, memory (reservation and overhead), rank (larger starts first), allowed (set of hosts), apart
(set of other VMs).
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations


def slots(hosts, needs, caps=(None, None)):
    """Give (slot, slots of each host, used, failover capacity) for needs [(cpu, memory)]."""
    slot = [max([need[r] for need in needs], default=0) for r in (0, 1)]
    slot = [s if cap is None else min(s, cap) for s, cap in zip(slot, caps, strict=True)]
    sizes = []
    for host in hosts:
        counts = [] if host is None else [host[r] // slot[r] for r in (0, 1) if slot[r]]
        sizes.append(min(counts) if counts else 0)
    used = 0
    for need in needs:
        take = 1
        for r in (0, 1):
            while slot[r] and take * slot[r] < need[r]:
                take += 1
        used += take
    capacity = 0
    alive = [size for size, host in zip(sizes, hosts, strict=True) if host is not None]
    for fail in range(1, len(alive) + 1):
        # the worst set of so many hosts leaves enough
        if min(sum(alive) - sum(gone) for gone in combinations(alive, fail)) >= used:
            capacity = fail
    return slot, sizes, used, capacity


def free_parts(hosts, needs):
    """(total - required) / total for CPU and memory, as fractions."""
    parts = []
    for r in (0, 1):
        total = sum(host[r] for host in hosts if host is not None)
        parts.append(Fraction(total - sum(need[r] for need in needs), total))
    return parts


def left(hosts, vms, places):
    """What is unreserved on each host."""
    free = [None if host is None else list(host) for host in hosts]
    for vm, place in zip(vms, places, strict=True):
        if place is not None and free[place] is not None:
            free[place][0] -= vm["cpu"]
            free[place][1] -= vm["memory"]
    return free


def can_take(hosts, vms, places, v, h):
    free = left(hosts, vms, places)
    vm = vms[v]
    return (
        hosts[h] is not None
        and h in vm["allowed"]
        and vm["cpu"] <= free[h][0]
        and vm["memory"] <= free[h][1]
        and all(places[mate] != h for mate in vm["apart"])
    )


def restart(hosts, vms, failed, first_fit, kept=()):
    """Start the VMs of failed hosts one after the other; give where all are (None: nowhere)."""
    up = [None if h in failed else host for h, host in enumerate(hosts)]
    places = [None if vm["host"] in failed else vm["host"] for vm in vms]
    stopped = [v for v, vm in enumerate(vms) if vm["host"] in failed]
    for v in sorted(stopped, key=lambda v: (-vms[v]["rank"][0], *vms[v]["rank"][1:], v)):
        free = left(up, vms, places)

        def room(h, free=free):
            parts = [max(free[h][r], 0) * 10**6 // hosts[h][r] for r in (0, 1) if hosts[h][r] > 0]
            return min([*parts, 10**6])

        able = [h for h in range(len(hosts)) if can_take(up, vms, places, v, h)]
        able.sort(key=lambda h: (h not in kept, h if first_fit else -room(h), h))
        if able:
            places[v] = able[0]
    return places


def some_way(hosts, vms, failed):
    """Whether there is any way at all to start every VM of the failed hosts (brute force)."""
    up = [None if h in failed else host for h, host in enumerate(hosts)]
    places = [None if vm["host"] in failed else vm["host"] for vm in vms]
    stopped = [v for v, vm in enumerate(vms) if vm["host"] in failed]

    def go(n):
        if n == len(stopped):
            return True
        v = stopped[n]
        for h in range(len(hosts)):
            if can_take(up, vms, places, v, h):
                places[v] = h
                if go(n + 1):
                    return True
                places[v] = None
        return False

    return go(0)


def replay(events, hosts, vms, secondaries=None):
    """Follow a record of (time, what, vm, host), check each step, and add up downtimes.

    `what` are names. Gives (downtime or None for VMs that are down, places). Reservations, hosts,
    must rules and VMs to keep apart are checked whenever a VM is placed.
    """
    places = [vm["host"] for vm in vms]
    second = dict(secondaries or {})
    alive = [host is not None for host in hosts]
    down_since = [None] * len(vms)
    total = [0] * len(vms)
    last = 0
    for time, what, v, h in events:
        assert time >= last
        last = time
        if what == "HOST_FAILED":
            assert alive[h]
            alive[h] = False
        elif what == "HOST_BACK":
            alive[h] = True
        elif what == "HOST_ISOLATED":
            alive[h] = False
        elif what in ("VM_STOPPED", "VM_POWERED_OFF", "VM_SHUT_DOWN"):
            assert places[v] == h
            places[v] = None
            if down_since[v] is None:
                down_since[v] = time
        elif what == "PLACED":
            assert places[v] is None
            assert alive[h]
            assert down_since[v] is not None
            taken = places + [second.get(i) for i in range(len(vms))]
            assert can_take(hosts, vms + vms, taken, v, h), (time, v, h)
            places[v] = h
        elif what == "POWERED_ON":
            assert places[v] == h
            total[v] += time - down_since[v]
            down_since[v] = None
        elif what == "TAKEN_OVER":
            assert second.pop(v) == h
            total[v] += time - down_since[v]
            places[v], down_since[v] = h, None
        elif what == "SECONDARY_LOST":
            assert second.pop(v) == h
        elif what == "SECONDARY_STARTED":
            assert places[v] not in (None, h)
            second[v] = h
    return [
        None if since is not None else t for t, since in zip(total, down_since, strict=True)
    ], places

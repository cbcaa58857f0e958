"""Energy and service levels of a replay, from where VMs were created and how they moved alone.

The reference model without its decisions: dictionaries of what happens at each time.
"""

import math


def recount(util, hosts, types, placement, moves, speed=62.5):
    """Give the figures; `hosts` has (cores, MIPS of one, memory, watts), `moves` (t, vm, from, to).

    Between two events, each interval is counted by itself: what hosts draw and what VMs get.
    """
    count, samples = len(util), len(util[0])
    lists = [[] for _ in hosts]
    for vm, host in enumerate(placement):
        lists[host].append(vm)
    where = list(placement)
    moving = set()
    gone = set()

    def fraction(vm, t):
        i = math.floor(t / 300.0)
        a, b = (util[vm][min(k, samples - 1)] / 100 for k in (i, i + 1))
        return a + ((b - a) / 300.0) * (t - 300.0 * i)

    def shares(h, t):
        """Grants of each entry: VM, whether it is on its way here, granted, demanded."""
        cores, core, _, _ = hosts[h]
        total = cores * core
        entries, claims, fits, free = [], 0.0, True, total
        for entry in lists[h]:
            vm, here = (entry, True) if isinstance(entry, int) else (entry[0], False)
            demand = types[vm][0] * fraction(vm, t)
            entries.append((vm, here, min(demand, core), demand))
            claim = entries[-1][2] * (1 if here else 0.1)
            fits = fits and free >= claim
            free -= claim
            claims += claim
        rows = []
        for vm, here, r, demand in entries:
            part = 1.0 if fits else total / claims
            if not here:
                got = 0.1 * r if fits else math.floor((r * 0.1) * part)
            elif vm in moving:
                got = 0.9 * r if fits else math.floor((r * part) * 0.9)
            else:
                got = r if fits else math.floor(r * part)
            rows.append((vm, here, got, demand))
        return rows

    def watts(h, rows):
        used = sum(got / 0.9 if here and vm in moving else got for vm, here, got, _ in rows)
        u = used / (hosts[h][0] * hosts[h][1])
        u = min(u, 1.0)
        low = min(int(u * 10), 9)
        table = hosts[h][3]
        return table[low] + (table[low + 1] - table[low]) * (u * 10 - low), used

    def sweep(t):
        """A VM that wants nothing is gone for good."""
        for h in range(len(hosts)):
            for vm, here, _, demand in shares(h, t):
                if here and demand == 0 and vm not in moving:
                    gone.add(vm)
                    lists[h].remove(vm)

    begin, end = {}, {}
    for t, vm, source, target in moves:
        begin.setdefault(t, []).append((vm, source, target))
        finish = t + types[vm][1] / speed
        end.setdefault(finish, []).append((vm, target))
    steps, t = [], 300.1
    for _ in range(samples - 1):
        steps.append(t)
        t += 300.0
    totals = dict.fromkeys(["energy", "asked", "given", "lost", "on", "over"], 0.0)
    fractions = []
    before = None  # state at the last event: time, and of each host its entries and power
    for t in sorted({*steps, *end}):
        now = [shares(h, t) for h in range(len(hosts))]
        if before is not None:
            dt = t - before[0]
            for h in range(len(hosts)):
                power, used = before[1][h]
                if used > 0:
                    totals["energy"] += (power + watts(h, now[h])[0]) / 2 * dt
                    totals["on"] += dt
                    totals["over"] += dt if used < sum(row[3] for row in before[2][h]) else 0
                for vm, here, got, demand in before[2][h]:
                    if here:
                        totals["asked"] += demand * dt
                        totals["given"] += got * dt
                        if got < demand:
                            fractions.append((demand - got) / demand)
                            totals["lost"] += (demand - got) * dt if vm in before[3] else 0

        sweep(t)
        for vm, target in end.get(t, []):
            lists[where[vm]].remove(vm)
            lists[target].remove((vm, "arriving"))
            lists[target].append(vm)
            where[vm] = target
            moving.discard(vm)
        sweep(t)
        for vm, source, target in begin.get(t, []):
            assert where[vm] == source
            moving.add(vm)
            lists[target].append((vm, "arriving"))
        ended = [shares(h, t) for h in range(len(hosts))]
        before = (t, [watts(h, rows) for h, rows in enumerate(ended)], ended, set(moving))
    slatah = totals["over"] / totals["on"]
    pdm = totals["lost"] / totals["asked"]
    return {
        "energy_kwh": totals["energy"] / 3.6e6,
        "migrations": len(moves),
        "slatah": slatah,
        "pdm": pdm,
        "slav": slatah * pdm,
        "sla_overall": (totals["asked"] - totals["given"]) / totals["asked"],
        "sla_average": sum(fractions) / len(fractions) if fractions else 0.0,
        "vms_left": count - len(gone),
        "hosts_in_use_at_end": sum(bool(entries) for entries in lists),
    }

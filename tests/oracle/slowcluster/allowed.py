"""Where VMs may be, by the definitions, one VM and one host at a time."""


def masks_allow(c, vm, host):
    for key in ("features",):
        if int(getattr(c.vms, key)[vm]) & ~int(getattr(c.hosts, key)[host]):
            return False
    for key in ("datastores", "networks"):
        mine, there = getattr(c.vms, key)[vm], getattr(c.hosts, key)[host]
        if any(int(m) & ~int(t) for m, t in zip(mine, there, strict=False)):
            return False
    return True


def broken_rules(c, where, active):
    """Rules between VMs, and must rules, that a placement breaks; of VMs that are on."""
    broken = set()
    for g in range(len(c.rules)):
        if not active[g]:
            continue
        vms = [int(v) for v in c.rules.vms_of(g) if c.vms.on[v] and where[v] >= 0]
        hosts = set(c.rules.hosts_of(g).tolist())
        kind = int(c.rules.kind[g])
        places = [int(where[v]) for v in vms]
        if (
            (kind == 0 and len(set(places)) > 1)
            or (kind == 1 and len(set(places)) < len(places))
            or (kind == 2 and any(p not in hosts for p in places))
            or (kind == 4 and any(p in hosts for p in places))
        ):
            broken.add(g)
    return broken


def reserved(c, where):
    """CPU and memory that VMs that are on take for themselves on each host."""
    used = [[0] * len(c.hosts), [0] * len(c.hosts)]
    for v in range(len(c.vms)):
        if c.vms.on[v] and where[v] >= 0:
            used[0][where[v]] += int(c.vms.reservation[0, v])
            used[1][where[v]] += int(c.vms.reservation[1, v]) + int(c.vms.overhead[v])
    return used


def crowded_hosts(c, where):
    used = reserved(c, where)
    return {
        h
        for h in range(len(c.hosts))
        if any(used[r][h] > int(c.hosts.capacity[r, h]) for r in (0, 1))
    }


def is_sound(c, where, active):
    """Whether nothing at all is wrong."""
    return (
        not broken_rules(c, where, active)
        and not crowded_hosts(c, where)
        and all(
            c.hosts.state[where[v]] == 0 and masks_allow(c, v, where[v])
            for v in range(len(c.vms))
            if c.vms.on[v] and where[v] >= 0
        )
    )


def rules_can_hold(c, chosen):
    """Whether some placement, whatever is reserved, keeps all chosen rules: by trying."""
    hosts = range(len(c.hosts))
    active = [g in chosen for g in range(len(c.rules))]
    named = sorted({int(v) for g in chosen for v in c.rules.vms_of(g) if c.vms.on[v]})
    where = [-1] * len(c.vms)

    def tried(k):
        if k == len(named):
            return True
        for host in hosts:
            where[named[k]] = host
            if not broken_rules(c, where, active) and tried(k + 1):
                return True
        where[named[k]] = -1
        return False

    return tried(0)

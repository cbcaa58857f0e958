"""Which VM may be on which host, from the rules as they are written down."""

TOGETHER, SEPARATE, MUST_RUN, MUST_NOT_RUN = 0, 1, 2, 4


def may_be_on(cluster, vm: int, host: int, where=None) -> bool:
    """Whether a VM may be on a host, with all others at `where`."""
    vms, hosts, rules = cluster.vms, cluster.hosts, cluster.rules
    where = [int(h) for h in vms.host] if where is None else [int(h) for h in where]
    on = [bool(x) for x in vms.on]
    if hosts.state[host] != 0:
        return False
    if int(vms.features[vm]) | int(hosts.features[host]) != int(hosts.features[host]):
        return False
    for ours, theirs in ((vms.datastores, hosts.datastores), (vms.networks, hosts.networks)):
        for mine, there in zip(ours[vm], theirs[host], strict=False):
            if int(mine) | int(there) != int(there):
                return False
    for rule in range(len(rules)):
        members = {int(m) for m in rules.vms_of(rule)}
        if not rules.enabled[rule] or vm not in members:
            continue
        listed = {int(h) for h in rules.hosts_of(rule)}
        others = {where[m] for m in members if m != vm and on[m] and where[m] >= 0}
        kind = int(rules.kind[rule])
        if kind == MUST_RUN and host not in listed:
            return False
        if kind == MUST_NOT_RUN and host in listed:
            return False
        if kind == SEPARATE and host in others:
            return False
        if kind == TOGETHER and others - {host}:
            return False
    if on[vm] and where[vm] == host:
        return True
    for resource in (0, 1):
        taken = sum(
            int(vms.reservation[resource, m]) + (int(vms.overhead[m]) if resource else 0)
            for m in range(len(vms))
            if on[m] and where[m] == host
        )
        need = int(vms.reservation[resource, vm]) + (int(vms.overhead[vm]) if resource else 0)
        if taken + need > int(hosts.capacity[resource, host]):
            return False
    return True

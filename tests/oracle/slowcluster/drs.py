"""The best move by trying each: loads as fractions, no sums kept."""

from fractions import Fraction
from math import sqrt

from oracle.slowcluster.reach import may_be_on

SHOULD_RUN, SHOULD_NOT_RUN = 3, 5


def imbalance(cluster, amount, weights, where) -> float:
    """Root of the weighted mean of the variances of normalised loads."""
    hosts = [h for h in range(len(cluster.hosts)) if cluster.hosts.state[h] == 0]
    total = Fraction(0)
    for resource in (0, 1):
        loads = [Fraction(0)] * len(cluster.hosts)
        for vm in range(len(cluster.vms)):
            if cluster.vms.on[vm] and where[vm] >= 0:
                loads[where[vm]] += int(amount[resource, vm])
        norm = [loads[h] / int(cluster.hosts.capacity[resource, h]) for h in hosts]
        mean = sum(norm) / len(norm)
        total += weights[resource] * sum((n - mean) ** 2 for n in norm) / len(norm)
    return sqrt(total / sum(weights))


def keeps_should(cluster, vm: int, host: int) -> bool:
    for rule in range(len(cluster.rules)):
        if not cluster.rules.enabled[rule] or vm not in cluster.rules.vms_of(rule):
            continue
        listed = host in cluster.rules.hosts_of(rule)
        if cluster.rules.kind[rule] == SHOULD_RUN and not listed:
            return False
        if cluster.rules.kind[rule] == SHOULD_NOT_RUN and listed:
            return False
    return True


def best_move(cluster, amount, weights) -> float | None:
    """The imbalance after the best allowed move, costs aside; None if there is none."""
    best = None
    for vm in range(len(cluster.vms)):
        source = int(cluster.vms.host[vm])
        if not cluster.vms.on[vm] or source < 0:
            continue
        for host in range(len(cluster.hosts)):
            if host == source or not may_be_on(cluster, vm, host):
                continue
            if keeps_should(cluster, vm, source) and not keeps_should(cluster, vm, host):
                continue
            where = [int(h) for h in cluster.vms.host]
            where[vm] = host
            after = imbalance(cluster, amount, weights, where)
            best = after if best is None else min(best, after)
    return best


def best_exchange(cluster, amount, weights) -> float | None:
    """The imbalance after the best allowed exchange of two VMs, costs aside; None if there is none.

    Either may go first; rules and reservations hold after each of the two moves.
    """
    best = None
    places = [int(h) for h in cluster.vms.host]
    on = [vm for vm in range(len(cluster.vms)) if cluster.vms.on[vm] and places[vm] >= 0]
    for one in on:
        for other in on:
            if places[one] == places[other]:
                continue
            copy = cluster.copy()
            for vm, host in ((one, places[other]), (other, places[one])):
                if not may_be_on(copy, vm, host):
                    break
                if keeps_should(cluster, vm, places[vm]) and not keeps_should(cluster, vm, host):
                    break
                copy.vms.host[vm] = host
            else:
                after = imbalance(cluster, amount, weights, copy.vms.host)
                best = after if best is None else min(best, after)
    return best

"""What-if of failed hosts against a slow model."""

from itertools import combinations

import numpy as np
import pytest

from cluster.samples import random_cluster
from oracle.slowcluster import ha as slow
from pyvirt.cluster import Cluster, FailoverHosts, RuleKind, restart_order, what_if


def plain(cluster: Cluster, separate: bool = True):
    """Hosts and VMs as the slow model has them."""
    hosts, vms, rules = cluster.hosts, cluster.vms, cluster.rules
    up = [
        tuple(map(int, hosts.capacity[:, h])) if hosts.state[h] == 0 else None
        for h in range(len(hosts))
    ]
    made = []
    for v in range(len(vms)):
        allowed = set()
        for h in range(len(hosts)):
            pairs = [(vms.features[v], hosts.features[h])]
            pairs += zip(vms.datastores[v], hosts.datastores[h], strict=False)
            pairs += zip(vms.networks[v], hosts.networks[h], strict=False)
            if all(int(mine) & ~int(there) == 0 for mine, there in pairs):
                allowed.add(h)
        apart = set()
        for r in range(len(rules)):
            members = {int(m) for m in rules.vms_of(r)}
            listed = {int(h) for h in rules.hosts_of(r)}
            if v not in members or not rules.enabled[r]:
                continue
            if rules.kind[r] == RuleKind.MUST_RUN:
                allowed &= listed
            if rules.kind[r] == RuleKind.MUST_NOT_RUN:
                allowed -= listed
            if rules.kind[r] == RuleKind.SEPARATE and separate:
                apart |= {m for m in members - {v} if vms.on[m]}
        runs = vms.on[v] and vms.host[v] >= 0
        memory = int(vms.reservation[1, v] + vms.overhead[v])
        cpu = int(vms.reservation[0, v])
        made.append(
            {
                "host": int(vms.host[v]) if runs else None,
                "cpu": cpu,
                "memory": memory,
                "rank": (int(vms.restart[v]), -memory, -cpu),
                "allowed": allowed,
                "apart": apart,
            }
        )
    return up, made


def test_restart_order():
    cluster = Cluster.from_arrays(
        {"capacity": np.ones((2, 1), int)},
        {
            "host": np.zeros(6, int),
            "restart": [2, 4, 2, 0, 2, 2],
            "reservation": [[1, 0, 5, 9, 1, 1], [3, 0, 3, 9, 4, 3]],
        },
    )
    assert restart_order(cluster).tolist() == [1, 4, 2, 0, 5, 3]


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_slow_model(seed: int):
    rng = np.random.default_rng(seed)
    cluster = random_cluster(seed, hosts=int(rng.integers(2, 8)), reserved=0.9, rules=6)
    cluster.vms.reservation *= 3
    cluster.vms.restart[:] = rng.integers(0, 5, len(cluster.vms))
    if seed % 5 == 0:
        cluster.hosts.state[0] = 2
    first_fit, separate = bool(seed % 2), bool(seed % 3)
    kept = FailoverHosts((len(cluster.hosts) - 1,)) if seed % 4 == 0 else None
    hosts, vms = plain(cluster, separate)
    up = [h for h, host in enumerate(hosts) if host is not None]
    for failures in (1, 2):
        found = what_if(
            cluster,
            failures,
            placement="first_fit" if first_fit else "most_free",
            separate=separate,
            policy=kept,
            targets=True,
        )
        assert found.hosts == list(combinations(up, failures))
        for row, failed in enumerate(found.hosts):
            places = slow.restart(hosts, vms, failed, first_fit, kept.hosts if kept else ())
            stopped = [v for v, vm in enumerate(vms) if vm["host"] in failed]
            lost = [v for v in stopped if places[v] is None]
            got = found.table[row]
            assert (got["stopped"], got["lost"]) == (len(stopped), len(lost))
            want = [-2 if v not in stopped else -1 if v in lost else places[v] for v in range(24)]
            assert found.targets[row].tolist() == want
            if lost:
                order = [v for v in restart_order(cluster) if v in lost]
                assert got["first_lost"] == order[0]
            rest = [h for h in up if h not in failed]
            alive = [host if h in rest else None for h, host in enumerate(hosts)]
            free = slow.left(alive, vms, places)
            parts = [max(free[h][r], 0) * 10**6 // hosts[h][r] for h in rest for r in (0, 1)]
            assert got["free_percent"] == min([*parts, 10**6]) / 10_000


def test_a_batch_is_each_alone():
    cluster = random_cluster(3, hosts=7, vms=60, rules=9)
    sets = [(0,), (1, 2), (0, 3, 5), (4,), ()]
    together = what_if(cluster, sets, targets=True)
    for row, one in enumerate(sets):
        alone = what_if(cluster, [one], targets=True)
        assert alone.table[0] == together.table[row]
        assert (alone.targets[0] == together.targets[row]).all()
    assert together.table["stopped"][-1] == 0
    assert "'host1' and 'host2'" in together.reason(1)
    assert together.reason(4).startswith("without any host: VMs that stop: 0")


def test_amounts_near_their_limit():
    """Shares of hosts are compared without overflow."""
    cluster = Cluster.from_arrays(
        {"capacity": np.full((2, 3), 2**53 - 1)},
        {"host": [0, 1, 2], "reservation": [[1, 2**52, 2**51], [1, 1, 1]]},
    )
    found = what_if(cluster, [(0,)], targets=True)
    assert found.targets[0].tolist() == [2, -2, -2]
    assert found.table["free_percent"][0] == pytest.approx(50.0, abs=1e-3)


def test_where_slots_suffice_there_is_a_way():
    """Greedy placement loses a VM only where reservations fragment; brute force knows."""
    lost = rescued = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cluster = Cluster.from_arrays(
            {"capacity": rng.integers(4, 9, (2, 4)) * 1_000_000},
            {
                "host": rng.integers(0, 4, 7),
                "reservation": rng.integers(1, 5, (2, 7)) * 1_000_000,
            },
        )
        hosts, vms = plain(cluster)
        found = what_if(cluster)
        for row, failed in enumerate(found.hosts):
            if found.table["lost"][row]:
                lost += 1
                rescued += slow.some_way(hosts, vms, failed)
            else:
                assert slow.some_way(hosts, vms, failed)
    assert lost > rescued > 0

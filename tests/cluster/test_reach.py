"""Which VM may be on which host: against a plain reading of the rules, and in words."""

import numpy as np
import pytest

from cluster.samples import random_cluster
from oracle.slowcluster.reach import may_be_on
from pyvirt.cluster import Cluster, HostState, RuleKind
from pyvirt.cluster.reach import Reach
from pyvirt.errors import InvalidTypeError, InvalidValueError


@pytest.mark.parametrize("seed", range(12))
def test_every_pair_is_as_the_rules_say(seed: int):
    cluster = random_cluster(seed, hosts=7, vms=20, rules=8)
    cluster.hosts.state[seed % 7] = HostState.MAINTENANCE
    reach = Reach(cluster)
    allowed = reach.allowed()
    for vm in range(20):
        for host in range(7):
            assert allowed[vm, host] == may_be_on(cluster, vm, host), (vm, host)
            assert (reach.refusal(vm, host) == "") == allowed[vm, host], (vm, host)
    assert allowed.any()
    assert not allowed.all()


def test_a_walk_of_moves_keeps_what_is_free_exact():
    from pyvirt.cluster.kernels import reach as kernel

    cluster = random_cluster(3, hosts=70, vms=200, rules=30)
    reach = Reach(cluster)
    a = reach.arrays
    where = np.where(a.on == 1, cluster.vms.host, -1)
    free = reach.free()
    stamp = np.zeros(70, np.int64)
    rng = np.random.default_rng(1)
    moved = 0
    for step in range(2000):
        vm, host = int(rng.integers(200)), int(rng.integers(70))
        if not a.on[vm] or where[vm] == host:
            continue
        may = kernel.may_run(a, where, free, vm, host)
        together = kernel.mark_mates(a, where, vm, stamp, step + 1)
        marked = stamp[host] != step + 1 and together in (host, kernel.ANYWHERE)
        assert marked == kernel.mates_allow(a, where, vm, host)
        if may:
            kernel.move(a, where, free, vm, host)
            moved += 1
    assert moved > 500
    cluster.vms.host[a.on == 1] = where[a.on == 1]
    assert np.array_equal(free, reach.free())
    assert (free[:, 35:] >= 0).all()


def test_vms_that_ask_the_same_share_a_class():
    cluster = random_cluster(5, hosts=65, vms=400, rules=3)
    cluster.vms.features[:] = 0
    cluster.vms.datastores[:] = 0
    cluster.vms.networks[:] = 0
    cluster.rules.kind[:] = RuleKind.MUST_RUN
    cluster.rules.host_start[:] = [0, 1, 2, 3]
    cluster.rules.host = np.array([64, 3, 7])
    cluster.rules.enabled[:] = 1
    a = Reach(cluster).arrays
    assert a.must.shape == (len(set(a.klass.tolist())), 2)
    assert a.must.shape[0] <= 8
    named = {int(v) for g in range(3) for v in cluster.rules.vms_of(g)}
    free = [v for v in range(400) if v not in named]
    assert len(set(a.klass[free].tolist())) == 1
    assert a.must[a.klass[free[0]]].tolist() == [2**64 - 1, 1]


def test_rules_can_be_left_out():
    cluster = random_cluster(2, rules=6)
    none = Reach(cluster, np.zeros(6, bool))
    assert none.arrays.link.size == 0
    assert (none.allowed() >= Reach(cluster).allowed()).all()
    with pytest.raises(InvalidTypeError, match="6 booleans"):
        Reach(cluster, [1, 0])


def test_a_refusal_gives_all_reasons():
    cluster = Cluster.from_tables(
        hosts={
            "name": ["a", "b"],
            "cpu_mhz": [4000, 4000],
            "memory_bytes": [4 << 30, 4 << 30],
            "features": [3, 1],
            "datastores": np.array([[3], [1]], np.uint64),
            "state": [HostState.ON, HostState.MAINTENANCE],
        },
        vms={
            "name": ["web", "db"],
            "host": ["a", "b"],
            "features": [2, 0],
            "datastores": np.array([[2], [0]], np.uint64),
            "reservation_cpu_mhz": [2000, 3000],
            "reservation_memory_bytes": [3 << 30, 2 << 30],
        },
        rules={
            "name": ["apart", "here"],
            "kind": [RuleKind.SEPARATE, RuleKind.MUST_RUN],
            "vms": [["web", "db"], ["web"]],
            "hosts": [[], ["a"]],
        },
    )
    reach = Reach(cluster)
    assert reach.refusal(0, 0) == ""
    assert reach.refusal(0, 1) == (
        "the host is not on but MAINTENANCE; the host lacks the CPU features 0x2; "
        "the host does not reach the datastores [1]; "
        "rule 'apart' (SEPARATE) keeps it apart from 'db'; "
        "rule 'here' (MUST_RUN) wants it on other hosts; "
        "it reserves 2000 MHz of 1000 free; "
        "it reserves 3072 MiB with its overhead, of 2048 free"
    )
    with pytest.raises(InvalidValueError, match="vm must be one of 2"):
        reach.refusal(2, 0)
    with pytest.raises(InvalidValueError, match="host must be one of 2"):
        reach.refusal(0, -1)

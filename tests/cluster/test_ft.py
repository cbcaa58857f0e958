"""Fault tolerance: limits, costs, and what HA does with secondaries."""

import numpy as np
import pytest

from cluster.test_ha import S, names, replayed, simple, times
from pyvirt.cluster import (
    ClusterError,
    FailoverError,
    FaultTolerance,
    HAEvent,
    HARules,
    HostFailure,
    Isolation,
    Percentage,
    Slots,
    admit,
    ft_cost,
    headroom,
    protect,
    recover,
    what_if,
)
from pyvirt.errors import InvalidValueError


def test_a_secondary_takes_over_at_once():
    cluster = simple(3, [0, 0, 1], vcpus=[2, 1, 1])
    made = protect(cluster, [0])
    assert made.secondary.tolist() == [2, -1, -1]
    run = recover(cluster, [HostFailure(0, 5 * S)], protection=made)
    assert times(run, HAEvent.TAKEN_OVER) == {0: 6.0}
    assert run.downtime_ns.tolist() == [S, 28 * S, 0]
    assert 0 not in times(run, HAEvent.POWERED_ON)
    # a new secondary when the host is declared dead, at once with no memory to copy
    assert times(run, HAEvent.SECONDARY_STARTED) == {0: 23.0}
    assert (run.cluster.vms.host[0], run.protection.secondary[0]) == (2, 1)
    assert made.secondary[0] == 2
    replayed(cluster, run, secondaries={0: 2})


def test_memory_is_reserved_and_copied():
    cluster = simple(3, [0, 1], memory=1000)
    cluster.vms.memory[:] = [300, 10]
    made = protect(cluster, [0])
    assert cluster.vms.reservation[1].tolist() == [300, 10]
    run = recover(cluster, [HostFailure(0, 0)], protection=made)
    ready = 18 * S + made.rules.sync_ns(300)
    assert made.rules.sync_ns(300) == round(300 * 4096 * 8 / 10)
    assert run.of(HAEvent.SECONDARY_STARTED)["time_ns"].tolist() == [ready]
    # a second failure before the new secondary has the memory is a restart
    where = int(run.cluster.vms.host[0])
    soon = recover(cluster, [HostFailure(0, 0), HostFailure(where, ready - 1)], protection=made)
    assert len(soon.of(HAEvent.TAKEN_OVER)) == 1
    assert 0 in times(soon, HAEvent.POWERED_ON)
    late = recover(cluster, [HostFailure(0, 0), HostFailure(where, ready + 1)], protection=made)
    assert len(late.of(HAEvent.TAKEN_OVER)) == 2
    assert late.downtime_ns[0] == 2 * S


def test_both_hosts_fail():
    cluster = simple(4, [0])
    made = protect(cluster, [0])
    second = int(made.secondary[0])
    run = recover(cluster, [HostFailure(second, 0), HostFailure(0, 1)], protection=made)
    assert times(run, HAEvent.SECONDARY_LOST) == {0: 0.0}
    assert run.downtime_ns.tolist() == [28 * S]
    # it is protected again when it runs again
    assert times(run, HAEvent.SECONDARY_STARTED)[0] == pytest.approx(28.0)
    assert run.protection.secondary[0] not in (-1, run.cluster.vms.host[0])
    replayed(cluster, run, secondaries={0: second})


def test_a_powered_off_primary_is_taken_over():
    cluster = simple(3, [0])
    made = protect(cluster, [0])
    run = recover(
        cluster, [Isolation(0, 0)], HARules(isolation_response="power_off"), protection=made
    )
    assert times(run, HAEvent.TAKEN_OVER) == {0: 61.0}
    assert run.downtime_ns.tolist() == [S]


def test_limits_of_a_host():
    cluster = simple(2, [0] * 6)
    made = protect(cluster, [0, 1, 2, 3])
    assert (made.secondary[:4] == 1).all()
    with pytest.raises(ClusterError, match=r"'vm4'.*'host0'.*one more fault tolerant"):
        protect(cluster, [0, 1, 2, 3, 4])
    free = protect(cluster, [0, 1, 2, 3, 4], FaultTolerance(vms_per_host=0))
    assert (free.secondary[:5] == 1).all()
    big = simple(2, [0, 0, 1], vcpus=[4, 4, 4])
    assert protect(big, [0, 1]).secondary.tolist() == [1, 1, -1]
    with pytest.raises(ClusterError, match="'vm2'"):
        protect(big, [0, 1, 2])
    assert protect(big, [0, 1, 2], FaultTolerance(vcpus_per_host=0)).secondary.tolist() == [1, 1, 0]
    wide = simple(2, [0], vcpus=[9])
    with pytest.raises(ClusterError, match="has 9 vCPUs, 8 may be"):
        protect(wide, [0])
    with pytest.raises(ClusterError, match="has 4 vCPUs, 1 may be"):
        protect(big, [0], FaultTolerance(mode="lockstep"))


def test_a_secondary_needs_room():
    cluster = simple(2, [0, 1], memory=100, need=60)
    before = cluster.vms.reservation.copy()
    with pytest.raises(ClusterError, match="no other host"):
        protect(cluster, [0])
    assert (cluster.vms.reservation == before).all()
    off = simple(2, [0])
    off.vms.on[0] = 0
    with pytest.raises(ClusterError, match="must be on"):
        protect(off, [0])


def test_secondaries_keep_their_room_from_restarts():
    """What a secondary reserves is not to be had for a restart."""
    cluster = simple(2, [0, 0, 0], memory=30)
    cluster.vms.memory[:] = 10
    made = protect(cluster, [0])
    run = recover(cluster, [HostFailure(0, 0)], protection=made)
    # the secondary has 10 of 30 pages: two more fit
    assert run.lost.tolist() == []
    cluster = simple(2, [0, 0, 1, 1], memory=30)
    made = protect(cluster, [0])
    run = recover(cluster, [HostFailure(0, 0)], protection=made)
    assert run.lost.tolist() == [1]
    assert [n[1] for n in names(run)].count("TAKEN_OVER") == 1


def test_what_if_knows_secondaries():
    cluster = simple(3, [0, 0, 1], memory=40)
    cluster.vms.memory[:] = 10
    made = protect(cluster, [0])
    assert made.secondary[0] == 2
    found = what_if(cluster, [(0,), (2,), (0, 2)], protection=made, targets=True)
    assert found.table["stopped"].tolist() == [1, 0, 2]
    assert found.targets[0].tolist() == [2, 1, -2]
    assert found.targets[2].tolist() == [1, 1, -2]
    # of 40 pages on the third host the secondary has 10
    assert found.table["free_percent"][0] == 50.0
    single = what_if(cluster, protection=made, targets=True)
    for row, (host,) in enumerate(single.hosts):
        run = recover(cluster, [HostFailure(host, 0)], protection=made)
        assert run.lost.size == single.table["lost"][row]
        taken = sorted(times(run, HAEvent.TAKEN_OVER))
        assert taken == ([0] if host == 0 else [])
        # a new secondary comes before the VMs that are started again
        kinds = [HAEvent(what) for what in run.events["what"].tolist()]
        if host == 0:
            assert run.protection.secondary[0] == 1
            assert HAEvent.PLACED in kinds


def test_secondaries_count_for_admission():
    cluster = simple(3, [0, 0, 1], memory=40)
    cluster.vms.memory[:] = 10
    bare, made = headroom(cluster, Slots(1)), protect(cluster, [0])
    with_it = headroom(cluster, Slots(1), protection=made)
    assert (bare.used_slots, with_it.used_slots) == (3, 4)
    parts = headroom(cluster, Percentage(50, 50), protection=made)
    assert parts.required[1] == 40
    cluster.hosts.capacity[0] = 1_000_000
    cluster.vms.on[2] = 0
    admit(cluster, Percentage(50, 70), 2)
    with pytest.raises(FailoverError, match="memory"):
        admit(cluster, Percentage(50, 70), 2, protection=made)


def test_costs():
    cluster = simple(2, [0])
    vms = cluster.vms
    vms.demand[0], vms.memory[0], vms.overhead[0] = 2_000_000, 262_144, 1000
    lockstep = ft_cost(
        cluster, 0, FaultTolerance(mode="lockstep"), disk_read_mb_s=10, network_in_mbps=20
    )
    assert lockstep.logging_mbps == pytest.approx((10 * 8 + 20) * 1.2)
    assert (lockstep.secondary_khz, lockstep.memory_pages) == (2_000_000, 263_144)
    assert lockstep.output_delay_ns == 0
    vms.dirty_pages_s[0] = 10_000.0
    often = ft_cost(cluster, 0)
    assert often.logging_mbps == pytest.approx(10_000 * 4096 * 8 / 1e6 * 1.2)
    assert often.secondary_khz == pytest.approx(200_000)
    # half an epoch of 10 ms and 100 pages at 10 Gbit/s
    assert often.output_delay_ns == round(5e6 + 100 * 4096 * 8 / 10)
    # a small working set is sent once an epoch
    vms.working_set[0] = 50
    assert ft_cost(cluster, 0).logging_mbps == pytest.approx(often.logging_mbps / 2)
    seldom = ft_cost(cluster, 0, FaultTolerance(epochs_s=10.0))
    assert seldom.logging_mbps < often.logging_mbps / 10
    assert seldom.output_delay_ns > often.output_delay_ns


@pytest.mark.parametrize("seed", range(10))
def test_records_with_secondaries_can_be_replayed(seed: int):
    rng = np.random.default_rng(seed)
    cluster = simple(6, rng.integers(0, 6, 14).tolist(), memory=200)
    cluster.vms.memory[:] = rng.integers(1, 30, 14)
    made = protect(cluster, list(range(0, 10, 2)), FaultTolerance(vms_per_host=0))
    second = {v: int(h) for v, h in enumerate(made.secondary) if h >= 0}
    incidents = [
        HostFailure(h, int(rng.integers(0, 60)) * S, None if rng.random() < 0.5 else 200 * S)
        for h in rng.permutation(6)[:3].tolist()
    ]
    run = recover(cluster, incidents, protection=made)
    replayed(cluster, run, secondaries=second)
    where = run.protection.secondary
    assert (where[made.protected] != run.cluster.vms.host[made.protected]).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FaultTolerance(mode="x"), "mode"),
        (lambda: FaultTolerance(headroom=0.9), "headroom"),
        (lambda: FaultTolerance(vcpus_per_vm=0), "vcpus_per_vm"),
        (lambda: protect(simple(2, [0]), [1]), r"vms\[0\]"),
        (lambda: ft_cost(simple(2, [0]), 0, network_in_mbps=-1), "network_in_mbps"),
    ],
)
def test_bad_values(make, text: str):
    with pytest.raises(InvalidValueError, match=text):
        make()

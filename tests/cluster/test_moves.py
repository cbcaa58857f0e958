"""Migrations of a cluster's VMs."""

import numpy as np
import pytest

from pyvirt.cluster import (
    Cluster,
    ClusterError,
    ConstantRate,
    Link,
    WorkingSet,
    migrate,
    migrate_vms,
    schedule_moves,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError


@pytest.fixture
def cluster() -> Cluster:
    return Cluster.from_arrays(
        {"capacity": np.ones((2, 3), int), "link_mbps": [1000, 10_000, 10_000]},
        {
            "host": [0, 1, 1, 2],
            "on": [1, 1, 1, 0],
            "memory": [1 << 18, 1 << 18, 1 << 20, 5],
            "overhead": [0, 10, 0, 0],
            "dirty_pages_s": [500.0, 5000.0, 90_000.0, 0.0],
            "working_set": [0, 100, 1 << 21, 0],
        },
    )


def test_each_alone(cluster: Cluster):
    got = migrate_vms(cluster)
    guests = [ConstantRate(500.0), WorkingSet(100, 5000.0), WorkingSet(1 << 20, 90_000.0)]
    pages = [1 << 18, (1 << 18) + 10, 1 << 20]
    for row, (size, guest, mbps) in enumerate(
        zip(pages, guests, [1000, 10_000, 10_000], strict=True)
    ):
        one = migrate(size * 4096, guest, Link(mbps))
        assert got["total_ns"][row] == one.total_ns
        assert got["rounds"][row] == len(one.rounds)
    assert migrate_vms(cluster, [1], Link(1000))["total_ns"][0] > got["total_ns"][1]


def test_moves_share_links_and_budgets(cluster: Cluster):
    plan = schedule_moves(cluster, [1, 2, 0], [0, 2, 1])
    assert (plan.table["start_ns"] == 0).all()
    # the receiver's 1 Gbit/s is the narrow part of the first one
    assert plan.table["end_ns"][0] > 8 * 10**9
    assert (plan.table["downtime_ns"] >= 10**8).all()
    assert plan.most_on_host.tolist() == [2, 3, 1]


def test_one_network_or_one_a_host():
    pairs = Cluster.from_arrays(
        {"capacity": np.ones((2, 24), int)},
        {"host": np.arange(12), "memory": np.full(12, 1 << 18)},
    )
    together = schedule_moves(pairs, range(12), np.arange(12, 24))
    assert (together.table["start_ns"] == 0).sum() == 8
    apart = schedule_moves(pairs, range(12), np.arange(12, 24), networks="per_host")
    assert (apart.table["start_ns"] == 0).all()
    with pytest.raises(InvalidValueError, match="networks"):
        schedule_moves(pairs, [0], [12], networks="two")


def test_bad_moves(cluster: Cluster):
    with pytest.raises(ClusterError, match=r"'vm3'.*must be on a host"):
        schedule_moves(cluster, [3], [0])
    cluster.vms.memory[0] = 2**52
    with pytest.raises(ClusterError, match=r"'vm0'.*memory must be at most"):
        schedule_moves(cluster, [0], [2])
    cluster.vms.memory[0] = 5
    cluster.hosts.state[2] = 2
    with pytest.raises(ClusterError, match=r"'host2'.*MAINTENANCE"):
        schedule_moves(cluster, [0], [2])
    with pytest.raises(InvalidTypeError, match="destinations"):
        schedule_moves(cluster, [0, 1], [2])
    with pytest.raises(ClusterError, match="not go to the host"):
        schedule_moves(cluster, [0], [0])

"""Entitlements over a cluster's arrays against those of the same tree of objects."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.cluster import Cluster, HostState, memory_demand
from pyvirt.cluster.entitle import PoolOrder
from pyvirt.entitlement import Client, Pool, solve


@st.composite
def clusters(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    hosts, pools, vms = (int(rng.integers(low, high)) for low, high in ((1, 4), (0, 6), (1, 12)))

    def bounds(n):
        reservation = rng.integers(0, 300, (2, n)) * (rng.random((2, n)) < 0.5)
        room = rng.integers(0, 3000, (2, n))
        return {
            "reservation": reservation,
            "limit": np.where(rng.random((2, n)) < 0.5, -1, reservation + room),
            "shares": rng.choice([0, 1, 500, 4000], (2, n)),
        }

    return Cluster.from_arrays(
        {
            "capacity": rng.integers(1, 5000, (2, hosts)),
            "core_khz": rng.integers(100, 900, hosts),
            "state": rng.integers(0, 2, hosts) * 2,
        },
        {
            "host": rng.integers(-1, hosts, vms),
            "on": rng.integers(0, 4, vms) > 0,
            "pool": rng.integers(-1, pools, vms),
            "vcpus": rng.integers(1, 4, vms),
            "memory": rng.integers(0, 3000, vms),
            "demand": rng.integers(0, 2500, (2, vms)),
            **bounds(vms),
        },
        {"parent": [int(rng.integers(-1, i)) for i in range(pools)], **bounds(pools)},
    )


def as_tree(cluster, resource, static):
    vms, pools = cluster.vms, cluster.pools
    capacity = cluster.hosts.capacity[resource, cluster.hosts.state == HostState.ON].sum()

    def common(table, row):
        limit = table.limit[resource, row]
        return {
            "shares": float(table.shares[resource, row]),
            "reservation": float(table.reservation[resource, row]),
            "limit": math.inf if limit < 0 else float(limit),
        }

    def client(row):
        demand = float(vms.demand[resource, row])
        if static:
            demand = float(capacity)
            if resource == 1 and vms.memory[row]:
                demand = float(vms.memory[row])
        if resource == 0 and vms.host[row] >= 0:
            speed = vms.vcpus[row] * cluster.hosts.core_khz[vms.host[row]]
            demand = min(demand, float(speed))
        touched = math.inf if static else None
        return Client(f"v{row}", demand=demand, touched=touched, **common(vms, row))

    def below(pool):
        inner = [
            Pool(f"p{row}", below(row), **common(pools, row))
            for row in range(len(pools))
            if pools.parent[row] == pool
        ]
        return inner + [
            client(row) for row in range(len(vms)) if vms.pool[row] == pool and vms.on[row]
        ]

    return Pool("root", below(-1)), float(capacity)


@pytest.mark.parametrize("static", [False, True])
@given(clusters())
def test_is_the_division_of_the_same_tree(static, cluster):
    got = cluster.entitlement(static=static)
    for resource in (0, 1):
        tree, capacity = as_tree(cluster, resource, static)
        expected = solve(tree, capacity, overcommit="scale").as_dict()
        values = {path.rsplit("/", 1)[-1]: amount for path, amount in expected.items()}
        for row in range(len(cluster.vms)):
            amount = values.get(f"v{row}", 0.0)
            assert got[resource, row] == math.floor(amount + 1e-6)


@given(clusters())
def test_the_order_of_pools_can_be_kept(cluster):
    order = PoolOrder(cluster)
    assert np.array_equal(cluster.entitlement(order=order), cluster.entitlement())


@given(clusters())
def test_never_more_than_there_is(cluster):
    on = cluster.hosts.state == HostState.ON
    assert (cluster.entitlement().sum(axis=1) <= cluster.hosts.capacity[:, on].sum(axis=1)).all()


def test_nothing_runs():
    empty = Cluster.from_arrays({"capacity": [[5], [5]]}, {"name": []})
    assert empty.entitlement().shape == (2, 0)
    assert empty.normalised().tolist() == [[0.0], [0.0]]
    off = Cluster.from_arrays({"capacity": [[5], [5]]}, {"on": [0], "demand": [[1], [1]]})
    assert off.entitlement().tolist() == [[0], [0]]


def test_memory_demand():
    assert memory_demand([10, 0, 5], [50, 3, 5]).tolist() == [20, 1, 5]
    assert memory_demand([10], [50], idle_share=0).tolist() == [10]
    with pytest.raises(pv.InvalidValueError, match=r"idle_share must be in \[0, 1\], got 2"):
        memory_demand([1], [1], idle_share=2)

"""Tables and the cluster over them: what is accepted, refused by row, and copied."""

import doctest
import pickle

import numpy as np
import pytest

import pyvirt as pv
from pyvirt import cluster
from pyvirt.cluster import Cluster, ClusterError, Hosts, HostState, Pools, RuleKind, Rules, VMs
from pyvirt.cluster import model as model_module

GIB = 1 << 30


def small(**vms):
    """Two hosts of 10 GHz and 64 GiB with three VMs."""
    columns = {
        "name": ["web", "db", "mail"],
        "host": [0, 0, 1],
        "memory_bytes": [8 * GIB, 16 * GIB, 8 * GIB],
        "demand_cpu_mhz": [4000, 5000, 1000],
        "demand_memory_bytes": [GIB, 2 * GIB, GIB],
    }
    hosts = {"name": ["h0", "h1"], "cpu_mhz": [10_000] * 2, "memory_bytes": [64 * GIB] * 2}
    return Cluster.from_tables(hosts, columns | vms)


def test_units_of_tables():
    made = small(limit_cpu_mhz=[-1, 7000.5, -1], shares_cpu=[1, 2, 3], overhead_bytes=[4096] * 3)
    assert made.hosts.capacity.tolist() == [[10_000_000] * 2, [16 << 20] * 2]
    assert made.vms.memory.tolist() == [2 << 20, 4 << 20, 2 << 20]
    assert made.vms.limit.tolist() == [[-1, 7_000_500, -1], [-1, -1, -1]]
    assert made.vms.shares.tolist() == [[1, 2, 3], [81920, 163840, 81920]]
    assert made.load().tolist() == [[9_000_000, 1_000_000], [(3 << 18) + 2, (1 << 18) + 1]]
    assert made.vms_on(0).tolist() == [0, 1]


def test_normal_shares():
    made = VMs(2, vcpus=[1, 4], memory=[256, 512])
    assert made.shares.tolist() == [[1000, 4000], [10, 20]]
    assert Pools(1).shares.tolist() == [[4000], [163840]]


def test_names_stand_for_rows():
    made = Cluster.from_tables(
        {"name": ["h0", "h1"], "cpu_mhz": [1, 1], "memory_bytes": [0, 0]},
        {"name": ["a", "b"], "host": ["h1", ""], "pool": [None, "deep"]},
        {"name": ["top", "deep"], "parent": ["", "top"]},
        {
            "name": ["r", "s"],
            "kind": [RuleKind.SEPARATE, RuleKind.MUST_RUN],
            "vms": [["b", "a"], ["a"]],
            "hosts": [[], ["h1"]],
        },
    )
    assert made.vms.host.tolist() == [1, -1]
    assert made.vms.pool.tolist() == [-1, 1]
    assert made.pools.parent.tolist() == [-1, 0]
    assert made.rules.vms_of(0).tolist() == [0, 1]
    assert made.rules.hosts_of(1).tolist() == [1]


def test_data_frames():
    plain = small()
    hosts = {"name": ["h0", "h1"], "cpu_mhz": [10_000] * 2, "memory_bytes": [64 * GIB] * 2}
    vms = {
        "name": ["web", "db", "mail"],
        "host": ["h0", "h0", "h1"],
        "memory_bytes": [8 * GIB, 16 * GIB, 8 * GIB],
        "demand_cpu_mhz": [4000, 5000, 1000],
        "demand_memory_bytes": [GIB, 2 * GIB, GIB],
    }
    for library in ("pandas", "polars"):
        frames = pytest.importorskip(library)
        assert Cluster.from_tables(frames.DataFrame(hosts), frames.DataFrame(vms)) == plain


def test_copies_are_independent():
    made = small()
    for other in (made.copy(), pickle.loads(pickle.dumps(made))):
        assert other == made
        other.vms.host[0] = 1
        assert other != made
        assert made.vms.host[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"demand_cpu_mhz": [1, float("nan"), 1]}, r"demand_cpu_mhz of vms, row 1: must be finite"),
        ({"demand_cpu_mhz": [1, 1, -1]}, r"vms row 2 \('mail'\): demand must be in \[0"),
        ({"name": ["a", "b", "a"]}, r"vms rows 0 and 2 have the same name 'a'"),
        ({"host": [0, 5, 0]}, r"vms row 1 \('db'\): host must be one of 2 hosts, got 5"),
        ({"host": ["h0", "h1", "h7"]}, r"vms row 2: host 'h7' is not known"),
        ({"pool": [0, -1, -1]}, r"vms row 0 \('web'\): pool must be one of 0 pools"),
        ({"vcpus": [1, 0, 1]}, r"vms row 1 \('db'\): vcpus must be in \[1"),
        ({"vcpus": [1, 1.5, 1]}, r"vms row 1 \('db'\): vcpus must be a whole number, got 1.5"),
        ({"limit_cpu_mhz": [5, 5, 5], "reservation_cpu_mhz": [1, 1, 6]},
         r"vms row 2 \('mail'\): reservation \[6000    0\] must not exceed limit"),
        ({"restart": [0, 9, 0]}, r"vms row 1 \('db'\): restart must be in \[0, 4\]"),
        ({"on": [1, -1, 1]}, r"vms: on must not be negative"),
        ({"datastores": np.array([[0, 0], [0, 1], [0, 0]], np.uint64)},
         r"vms row 1 \('db'\): datastores names what no host reaches"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(change, message):
    with pytest.raises(ClusterError, match=message):
        small(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": [1, 2, 3]}, "vms have no 'colour'"),
        ({"vcpus": [1, 2]}, r"vcpus of vms must have shape \(3,\)"),
        ({"vcpus": ["x", "y", "z"]}, "vcpus of vms must be numbers"),
        ({"name": [1, 2, 3], "host": None}, "host"),
    ],
)
def test_bad_columns_are_named(change, message):
    with pytest.raises((pv.InvalidTypeError, TypeError), match=message):
        small(**change)


def test_negative_capacity():
    with pytest.raises(ClusterError, match=r"hosts row 1 \('host1'\): capacity must be in"):
        Hosts(2, capacity=[[1, -1], [1, 1]])


def test_pools_stand_after_their_parents():
    with pytest.raises(ClusterError, match=r"pools row 0 \('pool0'\): parent must stand before"):
        Pools(2, parent=[1, -1])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": [0], "vms": [[1]]}, r"rules row 0 \('rule0'\): a rule TOGETHER names too few"),
        ({"kind": [2], "vms": [[1]]}, "a rule MUST_RUN names no host"),
        ({"kind": [1], "vms": [[0, 1]], "hosts": [[0]]}, "must name no host"),
        ({"kind": [1], "vms": [[0, 0]]}, "vms has a row twice"),
        ({"kind": [1, 1], "vms": [[0, 1], [0, 7]]}, r"rules row 1 \('rule1'\): vm 7 is not one"),
        ({"kind": [2], "vms": [[0]], "hosts": [[2]]}, "host 2 is not one of 2"),
        ({"kind": [6], "vms": [[0, 1]]}, r"kind must be in \[0, 5\]"),
    ],
)
def test_bad_rules(rule, message):
    made = small()
    with pytest.raises(ClusterError, match=message):
        Cluster(made.hosts, made.vms, rules=Rules(len(rule["kind"]), **rule))


def test_what_a_cluster_would_do_is_asked_of_it():
    made = small(memory_bytes=[GIB] * 3)
    assert made.drs(level=5).vm.tolist() == cluster.drs(made, level=5).vm.tolist() != []
    history = cluster.DemandHistory(3)
    history.record(made)
    assert made.dpm(history).actions == ()
    assert made.ha().table["lost"].tolist() == [0, 0]


def test_a_vm_that_is_on_is_not_in_standby():
    made = small()
    made.hosts.state[1] = HostState.STANDBY
    with pytest.raises(ClusterError, match=r"vms row 2 \('mail'\): host must not be in standby"):
        made.validate()
    made.vms.on[2] = 0
    made.validate()


def test_columns_changed_in_place_are_checked_again():
    made = small()
    made.vms.demand[0, 1] = -5
    with pytest.raises(ClusterError, match=r"vms row 1 \('db'\): demand"):
        made.validate()
    made.vms.demand = made.vms.demand.astype(np.float64)
    with pytest.raises(pv.InvalidTypeError, match="demand of vms must be an array of i8"):
        made.validate()


@pytest.mark.parametrize("tables", [[[1.0] * 10], [[-1.0] * 11], [[np.nan] * 11], "x"])
def test_bad_power_tables(tables):
    with pytest.raises((pv.InvalidTypeError, pv.InvalidValueError), match="power_tables"):
        Cluster(Hosts(1, capacity=1), VMs(0), power_tables=tables)


def test_examples():
    assert doctest.testmod(model_module).failed == 0
    assert set(cluster.__all__) <= set(dir(cluster))

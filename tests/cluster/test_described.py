"""From descriptions to tables: units, names, levels of shares, and plain data and back."""

import json

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.cluster import Cluster, RestartPriority, RuleKind
from pyvirt.spec import ClusterSpec, DiskSpec, HostSpec, PoolSpec, RuleSpec, VMSpec

POWER = tuple(range(100, 211, 11))[:11]


def described():
    return ClusterSpec(
        "lab",
        hosts=[
            HostSpec("h0", cpus=8, mhz="2.5GHz", memory="64GiB", threads_per_core=2,
                     memory_for_host="4GiB", datastores=["san", "nas"], power_w=POWER),
            HostSpec("h1", cpus=4, memory="32GiB", state="maintenance", features=["avx"]),
        ],
        vms=[
            VMSpec("web", vcpus=2, memory="4GiB", cpu="high", host="h0", pool="deep",
                   cpu_demand="1.5GHz", memory_active="1GiB", memory_consumed="3GiB",
                   datastores=["nas"], restart="highest", cpu_limit=2000, dirty_rate="1MiB"),
            VMSpec("db", memory="8GiB", mem=7, memory_reservation="2GiB", features=["avx"],
                   power_on=False),
        ],
        pools=[PoolSpec("top", cpu="low"), PoolSpec("deep", parent="top", memory_limit="40GiB")],
        rules=[RuleSpec("apart", "separate", ["web", "db"]),
               RuleSpec("pin", "must-run", ["web"], ["h0"], enabled=False)],
    )  # fmt: skip


def test_becomes_tables():
    made = Cluster.from_spec(described())
    assert made.name == "lab"
    assert made.hosts.capacity.tolist() == [[10_000_000, 4_000_000], [15 << 20 - 0, 8 << 20]]
    assert made.hosts.core_khz.tolist() == [2_500_000, 1_000_000]
    assert made.hosts.state.tolist() == [0, 2]
    assert made.power_tables.tolist() == [list(POWER), [0] * 11]
    assert made.hosts.datastores.tolist() == [[3], [0]]
    vms = made.vms
    assert vms.host.tolist() == [0, -1]
    assert vms.pool.tolist() == [1, -1]
    assert vms.on.tolist() == [1, 0]
    assert vms.demand.tolist() == [[1_500_000, 0], [(1 << 18) + (1 << 17), 0]]
    assert vms.shares.tolist() == [[4000, 1000], [40960, 7]]
    assert vms.limit.tolist() == [[2_000_000, -1], [-1, -1]]
    assert vms.reservation.tolist() == [[0, 0], [0, 1 << 19]]
    assert vms.datastores.tolist() == [[2], [0]]
    assert vms.features.tolist() == [0, 1]
    assert vms.restart.tolist() == [RestartPriority.HIGHEST, RestartPriority.MEDIUM]
    assert vms.dirty_pages_s.tolist() == [256.0, 0.0]
    assert made.pools.shares.tolist() == [[2000, 4000], [163840, 163840]]
    assert made.pools.limit.tolist() == [[-1, -1], [-1, 10 << 20]]
    assert made.rules.kind.tolist() == [RuleKind.SEPARATE, RuleKind.MUST_RUN]
    assert made.rules.enabled.tolist() == [1, 0]


def test_more_than_64_datastores():
    many = [f"d{i}" for i in range(130)]
    made = Cluster.from_spec(
        ClusterSpec(hosts=[HostSpec("h", datastores=many)], vms=[VMSpec("v", datastores=["d129"])])
    )
    assert made.hosts.datastores.shape == (1, 3)
    assert made.vms.datastores.tolist() == [[0, 0, 2]]
    assert np.bitwise_count(made.hosts.datastores).sum() == 130


def test_datastores_of_disks_count_where_any_host_names_them():
    disks = [DiskSpec(f"d{i}", datastore=name) for i, name in enumerate(("san", "", "own", "san"))]
    spec = ClusterSpec(
        hosts=[HostSpec("h0", datastores=["nas", "san"]), HostSpec("h1")],
        vms=[
            VMSpec("v", disks=disks),
            VMSpec("w", datastores=["nas", "san"], disks=disks),
            VMSpec("x", datastores=["own"], disks=disks),
            VMSpec("y"),
        ],
    )
    assert spec.reached == {"nas", "san"}
    stores = [vm.stores(spec.reached) for vm in spec.vms]
    assert stores == [("san",), ("nas", "san"), ("own", "san"), ()]
    made = Cluster.from_spec(spec)
    assert made.hosts.datastores.tolist() == [[3], [0]]
    assert made.vms.datastores.tolist() == [[2], [3], [6], [0]]


def test_plain_data_and_back():
    spec = described()
    data = json.loads(json.dumps(spec.to_dict()))
    assert ClusterSpec.from_dict(data) == spec
    assert data["hosts"][1] == {
        "name": "h1",
        "cpus": 4,
        "memory": 32 << 30,
        "state": "maintenance",
        "features": ["avx"],
    }


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: HostSpec("h", cpus=3, threads_per_core=2), ValueError,
         "cpus of host 'h' must be a multiple of 2"),
        (lambda: HostSpec("h", mhz="fast"), ValueError, "mhz of host 'h' must be MHz"),
        (lambda: HostSpec("h", memory="64GB"), ValueError, "ambiguous"),
        (lambda: HostSpec("h", memory_for_host=1), ValueError, "must not exceed its memory of 0"),
        (lambda: HostSpec("h", power_w=[1, 2]), ValueError, "must be 11 numbers of watts"),
        (lambda: HostSpec("h", state="lost"), ValueError, "must be one of on, standby"),
        (lambda: HostSpec(3), TypeError, "name of host must be text, not 3"),
        (lambda: VMSpec("v", vcpus=0), ValueError, r"vcpus of VM 'v' must be in \[1"),
        (lambda: VMSpec("v", vcpus=True), TypeError, "must be a whole number, not True"),
        (lambda: VMSpec("v", cpu="extreme"), ValueError, "'low', \"normal\"|\"low\", \"normal\""),
        (lambda: VMSpec("v", cpu_reservation=2000, cpu_limit="1GHz"), ValueError,
         "cpu_reservation of VM 'v' must not exceed cpu_limit, got 2000 > 1000"),
        (lambda: VMSpec("v", power_on=1), TypeError, "must be true or false"),
        (lambda: VMSpec("v", datastores="san"), TypeError, "must be a list of names"),
        (lambda: VMSpec("v", datastores=["a", "a"]), ValueError, "two are 'a'"),
        (lambda: VMSpec("v", cpu_demand=float("nan")), ValueError, "cpu_demand of VM 'v'"),
        (lambda: RuleSpec.from_dict({"name": "r"}), ValueError, "a rule must have a kind"),
        (lambda: VMSpec.from_dict({"name": "v", "ram": 1}), ValueError, "has no field 'ram'"),
        (lambda: VMSpec.from_dict([1]), TypeError, "a VM must be a table of fields"),
        (lambda: ClusterSpec(vms=[VMSpec("v", host="h")]), ValueError,
         "host of VM 'v' must name a host of the cluster, got 'h'"),
        (lambda: ClusterSpec(pools=[PoolSpec("p", parent="q"), PoolSpec("q")]), ValueError,
         "parent of pool 'p' must name a pool before it"),
        (lambda: ClusterSpec(vms=[VMSpec("v"), VMSpec("v")]), ValueError, "two are 'v'"),
        (lambda: ClusterSpec(rules=[RuleSpec("r", "separate", ["x"])]), ValueError,
         "each of vms of rule 'r' must name a VM"),
        (lambda: Cluster.from_spec({}), TypeError, "spec must be a ClusterSpec"),
    ],
)  # fmt: skip
def test_bad_descriptions(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, pv.PyvirtError)

"""From a described cluster to paths, and back to what clusters ask: reach, and losses for HA."""

import numpy as np
import pytest

from pyvirt.cluster import Cluster, HAEvent, HARules, Reach, StorageLoss, recover
from pyvirt.errors import PyvirtError
from pyvirt.machine.paths import DeviceState, PathEngine, PathPolicy, PathState, Site
from pyvirt.spec import (
    AdapterSpec,
    ArraySpec,
    ClusterSpec,
    DatastoreSpec,
    FaultSpec,
    HostSpec,
    NetworkSpec,
    NicSpec,
    SwitchSpec,
    VMSpec,
)

S = 10**9
GIB = 1 << 30


def described(array="active-active", fabrics=2, **store):
    adapters = [AdapterSpec(f"vmhba{k}", "hba", 8000) for k in range(2)]
    adapters += [AdapterSpec(f"vmnic{k}", "nic") for k in range(3)]
    hosts = [
        HostSpec(
            name,
            cpus=4,
            mhz=2000,
            memory=16 * GIB,
            adapters=adapters,
            datastores=["lun", "nas", "disk"] if name != "h2" else ["nas", "lun"],
            networks=["net"],
        )
        for name in ("h0", "h1", "h2")
    ]
    vms = [
        VMSpec("a", host="h0", datastores=["lun"], nics=[NicSpec("0", "net"), NicSpec("1", "net")]),
        VMSpec("b", host="h1", datastores=["nas"], nics=[NicSpec("0", "net")]),
    ]
    return ClusterSpec(
        hosts=hosts,
        vms=vms,
        arrays=[ArraySpec("san", array, 2, fabrics, iops=10_000), ArraySpec("filer", processors=1)],
        datastores=[
            DatastoreSpec("lun", 1 << 40, array="san", **store),
            DatastoreSpec("nas", 1 << 40, "nfs", array="filer"),
            DatastoreSpec("disk", 1 << 40, "local"),
        ],
        networks=[NetworkSpec("net", "vSwitch0")],
        switches=[SwitchSpec("vSwitch0", "", ["vmnic0", "vmnic1"], ["vmnic2"], "load-based")],
    )


def test_paths_are_those_of_the_description():
    site = Site(described())
    assert site.datastores == ["lun", "nas", "disk"]
    assert site.device.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, -1]]
    engine = site.engine()
    assert engine.devices["count"][:3].tolist() == [4, 3, 1]
    names, kinds = engine.component_names, [one.kind for one in site.plan.components]
    path = site.plan.paths[3].components
    assert [(kinds[c], names[c]) for c in path] == [
        ("adapter", "h0/vmhba1"),
        ("cable", "h0/vmhba1"),
        ("fabric", "san/1"),
        ("processor", "san/1"),
        ("access", "h0/lun"),
        ("array", "san"),
    ]
    assert engine.devices["depth"][:2].tolist() == [32, 32]
    assert site.port == {("a", "0"): 0, ("a", "1"): 1, ("b", "0"): 2}
    team = site.team["h1", "vSwitch0"]
    assert engine.uplinks(team, range(3)).tolist() == [0, 1, 0]


def test_defaults_and_preferences():
    assert Site(described("alua")).engine().devices["policy"][0] == PathPolicy.MRU
    site = Site(described("alua", path_policy="fixed", preferred="vmhba1", processor=1))
    engine = site.engine()
    assert engine.current(0) == 3
    assert engine.path_states(0) == [PathState.UNOPTIMIZED, PathState.ACTIVE] * 2
    with pytest.raises(PyvirtError, match="preferred of datastore 'lun' must be one of the hbas"):
        Site(described(preferred="vmhba7"))


def test_a_request_takes_what_the_description_says():
    site = Site(described())
    engine = site.engine()
    engine.submit([0], site.device[0, 0], nbytes=65536)
    engine.run()
    # HBA: 8 Gbit/s, a byte each ns; array: 10,000 requests a second, then 500 us
    assert engine.requests["end"].tolist() == [65536 + 100_000 + 500_000]


FAULTS = {
    ("adapter", "h0/vmhba0"): [(0, 0), (0, 1)],
    ("cable", "h1/vmhba1"): [(1, 2), (1, 3)],
    ("fabric", "san/0"): [(h, p) for h in range(3) for p in (0, 1)],
    ("processor", "san/1"): [(h, p) for h in range(3) for p in (1, 3)],
    ("array", "san"): [(h, p) for h in range(3) for p in range(4)],
    ("all-paths-down", "h1/lun"): [(1, p) for p in range(4)],
    ("all-paths-down", "lun"): [(h, p) for h in range(3) for p in range(4)],
}


@pytest.mark.parametrize(("what", "target"), FAULTS)
def test_faults_break_these_paths_and_no_others(what, target):
    site = Site(described())
    engine = site.engine()
    assert site.fault(engine, FaultSpec(S, what, target, 100 * S))
    engine.advance(50 * S)
    dead = [
        (h, p)
        for h in range(3)
        for p, state in enumerate(engine.path_states(int(site.device[h, 0])))
        if state == PathState.DEAD
    ]
    assert dead == FAULTS[what, target]
    engine.advance(102 * S)
    assert site.reach(engine).all(axis=1).tolist() == [True, True, False]


def test_reach_is_what_clusters_take():
    spec = described()
    site, cluster = Site(spec), Cluster.from_spec(spec)
    engine = site.engine()
    assert np.array_equal(site.words(engine), cluster.hosts.datastores)
    site.fault(engine, FaultSpec(0, "all-paths-down", "h1/lun"))
    site.fault(engine, FaultSpec(0, "device-lost", "h2/nas"))
    engine.advance(40 * S)
    assert site.reach(engine).tolist() == [
        [True, True, True],
        [False, True, True],
        [True, False, False],
    ]
    site.apply(engine, cluster)
    cluster.validate()
    assert Reach(cluster).allowed().tolist() == [[True, False, True], [True, True, False]]
    assert "datastores [0]" in Reach(cluster).refusal(0, 1)


def test_losses_let_ha_start_vms_elsewhere():
    spec = described()
    site, cluster = Site(spec), Cluster.from_spec(spec)
    engine = site.engine()
    site.fault(engine, FaultSpec(10 * S, "all-paths-down", "h0/lun", 2000 * S))
    site.fault(engine, FaultSpec(20 * S, "all-paths-down", "h2/lun", 100 * S))
    site.fault(engine, FaultSpec(60 * S, "device-lost", "h1/nas"))
    engine.run()
    losses = site.losses(engine)
    assert losses == [
        StorageLoss(0, 40 * S, 0, "APD", 2010 * S),
        StorageLoss(2, 50 * S, 0, "APD", 120 * S),
        StorageLoss(1, 60 * S, 1, "PDL", None),
    ]
    found = recover(cluster, losses, HARules())
    off = found.of(HAEvent.VM_POWERED_OFF)
    # b at once; a after 140 s of APD and 3 min more
    assert off["time_ns"].tolist() == [60 * S, (40 + 140 + 180) * S]
    assert found.lost.size == 0
    assert found.cluster.vms.host[0] != 0
    assert found.cluster.vms.host[1] != 1


def test_a_loss_that_ends_in_another():
    site = Site(described())
    engine = site.engine()
    site.fault(engine, FaultSpec(0, "array", "san", 100 * S))
    site.fault(engine, FaultSpec(50 * S, "device-lost", "lun"))
    engine.run()
    assert [engine.state(int(d)) for d in site.device[:, 0]] == [DeviceState.PDL] * 3
    assert site.losses(engine)[0] == StorageLoss(0, 30 * S, 0, "APD", 100 * S)
    assert site.losses(engine)[3] == StorageLoss(0, 100 * S, 0, "PDL", None)


def test_others_faults_and_bad_ones():
    site = Site(described())
    engine = site.engine()
    assert not site.fault(engine, FaultSpec(0, "host", "h0"))
    assert not site.fault(engine, FaultSpec(0, "guest", "a"))
    for what, target in (
        ("adapter", "h0/vmhba9"),
        ("fabric", "san/2"),
        ("all-paths-down", "h2/disk"),
        ("device-lost", "h9/lun"),
    ):
        with pytest.raises(PyvirtError, match=f"target of a fault '{what}' must be .*'{target}'"):
            site.fault(engine, FaultSpec(0, what, target))
    assert engine.next_event_time() is None
    for bad in (
        lambda: Site(3),
        lambda: site.fault(engine, "array"),
        lambda: site.apply(engine, 3),
        lambda: site.apply(engine, Cluster.from_arrays({"cores": [1]}, {"vcpus": [1]})),
    ):
        with pytest.raises(PyvirtError):
            bad()


def test_more_than_64_datastores():
    names = [f"s{k}" for k in range(130)]
    spec = ClusterSpec(hosts=[HostSpec("h", datastores=names)], vms=[])
    site = Site(spec)
    engine = site.engine()
    site.fault(engine, FaultSpec(0, "all-paths-down", "s65"))
    site.fault(engine, FaultSpec(0, "all-paths-down", "s129"))
    engine.run()
    expected = Cluster.from_spec(spec).hosts.datastores.copy()
    expected[0, 1] &= ~np.uint64(2)
    expected[0, 2] &= ~np.uint64(2)
    assert np.array_equal(site.words(engine), expected)
    assert isinstance(engine, PathEngine)

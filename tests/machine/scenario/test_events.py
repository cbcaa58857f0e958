"""Each thing that operators do, each fault of paths and each rule of admission, by itself."""

import pytest

from machine.scenario.generate import GIB, MIB, SECOND
from machine.scenario.test_arrows import MODES, host, machine
from oracle.slowledger import compare
from pyvirt.machine.scenario import Scenario
from pyvirt.machine.scenario.laws import check
from pyvirt.machine.scenario.result import VM_STATES
from pyvirt.spec import (
    AdapterSpec,
    ArraySpec,
    ClusterSpec,
    DatastoreSpec,
    DiskLoadSpec,
    DiskSpec,
    DPMSpec,
    DRSSpec,
    EventSpec,
    FaultSpec,
    HASpec,
    NetworkLoadSpec,
    NetworkSpec,
    NicSpec,
    PolicySpec,
    ScenarioSpec,
    SwitchSpec,
)


def run(hosts, vms, mode, *, seconds=60, cluster=None, **fields):
    described = ClusterSpec(hosts=hosts, vms=vms, **(cluster or {}))
    spec = ScenarioSpec(
        described, seconds * SECOND, mode=mode, **({"step_ns": 5 * SECOND} | fields)
    )
    result = Scenario(spec).run()
    check(result)
    compare(result)
    return result


# --- operators ---


OFF = {"power_on": False}
#: What is done at which second, to a machine that is described so; then the events that follow, the
#: state at the end, and for how many seconds of the minute it was on.
OPERATIONS = {
    "power-on": (OFF, [(10, "power-on", "")], [(10, "power-on")], "on", 50),
    "power-on at a host": (OFF, [(10, "power-on", "b")], [(10, "power-on")], "on", 50),
    "power-on twice": ({}, [(10, "power-on", "")], [(10, "refused")], "on", 60),
    "power-off": ({}, [(10, "power-off", "")], [(10, "power-off")], "off", 10),
    "power-off of what is off": (OFF, [(10, "power-off", "")], [(10, "refused")], "off", 0),
    "reset": ({}, [(10, "reset", "")], [(10, "reset"), (10, "power-on")], "on", 60),
    "reset of what is off": (OFF, [(10, "reset", "")], [(10, "refused")], "off", 0),
    "suspend": ({}, [(10, "suspend", "")], [(10, "suspend")], "suspended", 10),
    "suspend of what is off": (OFF, [(10, "suspend", "")], [(10, "refused")], "off", 0),
    "resume": (
        {},
        [(10, "suspend", ""), (30, "resume", "")],
        [(10, "suspend"), (30, "resume")],
        "on",
        40,
    ),
    "resume elsewhere": (
        {},
        [(10, "suspend", ""), (30, "resume", "b")],
        [(10, "suspend"), (30, "resume")],
        "on",
        40,
    ),
    "resume of what runs": ({}, [(10, "resume", "")], [(10, "refused")], "on", 60),
    "snapshot": ({}, [(10, "snapshot", "s")], [(10, "snapshot")], "on", 60),
    "revert to a running machine": (
        {},
        [(10, "snapshot", "s"), (20, "power-off", ""), (30, "revert", "s")],
        [(10, "snapshot"), (20, "power-off"), (30, "revert")],
        "suspended",
        20,
    ),
    "revert of a running machine": (
        {},
        [(10, "snapshot", "s"), (30, "revert", "s")],
        [(10, "snapshot"), (30, "power-off"), (30, "revert"), (30, "resume")],
        "on",
        60,
    ),
    "revert to one that was off": (
        OFF,
        [(10, "snapshot", "s"), (20, "power-on", ""), (30, "revert", "s")],
        [(10, "snapshot"), (20, "power-on"), (30, "power-off"), (30, "revert")],
        "off",
        10,
    ),
    "revert to nothing": ({}, [(10, "revert", "s")], [(10, "refused")], "on", 60),
    "consolidate": (
        {},
        [(10, "snapshot", "s"), (20, "consolidate", "")],
        [(10, "snapshot"), (20, "consolidate")],
        "on",
        60,
    ),
    "migrate to where it is": ({}, [(10, "migrate", "a")], [(10, "refused")], "on", 60),
    "migrate what is off": (OFF, [(10, "migrate", "b")], [(10, "refused")], "off", 0),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_operators_do(mode, name):
    fields, done, wanted, state, seconds = OPERATIONS[name]
    events = [EventSpec(at * SECOND, what, "v", to) for at, what, to in done]
    vms = [machine("v", cpu=200, **fields)]
    result = run([host("a"), host("b")], vms, mode, events=events)
    found = [(one.time_ns / SECOND, one.what) for one in result.events if one.time_ns]
    assert found == wanted
    row = result.vm("v")
    assert VM_STATES[row["state"][-1]] == state
    assert row["on_ns"].sum() == seconds * SECOND
    place = {"power-on at a host": 1, "resume elsewhere": 1}.get(name, 0)
    assert row["host"][-1] == (place if state == "on" else -1)
    # it wants a tenth of a CPU of 2 GHz
    assert row["run_ns"].sum() == pytest.approx(seconds * SECOND * 0.1, rel=0.02, abs=1000)


@pytest.mark.parametrize("mode", MODES)
def test_migrate(mode):
    events = [EventSpec(10 * SECOND, "migrate", "v", "b")]
    result = run([host("a"), host("b")], [machine("v", cpu=200)], mode, events=events)
    (begun,), (moved,) = result.of("migration"), result.of("migrated")
    assert (begun.time_ns, moved.host, moved.to) == (10 * SECOND, "a", "b")
    assert result.vm("v")["host"].tolist()[-1] == 1
    assert result.vm("v")["stunned_ns"].sum() == moved.value > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["maintenance", "standby"])
def test_a_host_is_left_and_comes_back(mode, what):
    events = [
        EventSpec(10 * SECOND, f"enter-{what}", "a"),
        EventSpec(40 * SECOND, f"exit-{what}", "a"),
    ]
    hosts = [host("a", standby_ns=3 * SECOND), host("b")]
    result = run(hosts, [machine("v", cpu=200)], mode, events=events)
    (left,), (gone,), (back,) = map(result.of, ("migrated", f"host-{what}", "host-on"))
    assert (left.to, result.vm("v")["host"][-1]) == ("b", 1)
    assert gone.time_ns == left.time_ns
    assert back.time_ns == (43 if what == "standby" else 40) * SECOND
    away = 0 if what == "maintenance" else back.time_ns - gone.time_ns
    assert result.hosts["on_ns"][0].sum() == 60 * SECOND - away
    # a host whose machines have nowhere to go stays
    alone = run([host("a")], [machine("v", cpu=200)], mode, events=events[:1])
    assert len(alone.of("host-leaving")) == len(alone.of("refused")) == 1
    assert not alone.of(f"host-{what}")


# --- faults of paths, adapters and datastores ---


#: A fault, and for how many seconds of its ten the disk cannot be reached.
STORAGE = {
    "adapter": ("adapter", "a/h0", False),
    "both adapters": ("adapter", "a/h0 a/h1", True),
    "cable": ("cable", "a/h0", False),
    "both cables": ("cable", "a/h0 a/h1", True),
    "fabric": ("fabric", "san/0", False),
    "both fabrics": ("fabric", "san/0 san/1", True),
    "processor": ("processor", "san/0", False),
    "both processors": ("processor", "san/0 san/1", True),
    "array": ("array", "san", True),
    "all paths of a host": ("all-paths-down", "a/store", True),
    "all paths": ("all-paths-down", "store", True),
}


def stored(name="v", *, named=(), **fields):
    vm = machine(name, cpu=200, **fields)
    work = vm.workload.replace(disk=DiskLoadSpec(reads_per_s=1000.0))
    disk = DiskSpec("d", size=256 * MIB, datastore="store")
    return vm.replace(workload=work, datastores=named, disks=[disk])


def storage():
    adapters = [AdapterSpec("h0", "hba"), AdapterSpec("h1", "hba")]
    hosts = [host(name, adapters=adapters, datastores=["store"]) for name in "ab"]
    return hosts, {
        "datastores": [DatastoreSpec("store", capacity=10 * GIB, array="san")],
        "arrays": [ArraySpec("san", processors=2, fabrics=2)],
    }


def served(result, first, last):
    """How long the world that serves devices ran a second, between two times in seconds."""
    return result.vm("v")["device_run_ns"][first // 5 : last // 5].sum() / (last - first)


@pytest.mark.parametrize("name", STORAGE)
def test_faults_of_storage(name):
    what, targets, lost = STORAGE[name]
    # dead paths are seen after half a minute at the latest
    faults = [FaultSpec(20 * SECOND, what, one, 100 * SECOND) for one in targets.split(" ")]
    hosts, cluster = storage()
    policy = PolicySpec(ha=HASpec(admission="none", apd_response="events"))
    result = run(
        hosts, [stored()], "exact", seconds=200, cluster=cluster, faults=faults, policies=policy
    )
    assert result.of("path")[0].time_ns == 20 * SECOND
    usual = served(result, 0, 20)
    assert usual > 0
    assert bool(result.of("storage-lost")) == bool(result.of("storage-back")) == lost
    # the world that serves the disk stands still while there is no path
    during = 0.0 if lost else pytest.approx(usual, rel=0.02)
    assert served(result, 55, 120) == during
    assert served(result, 180, 200) == pytest.approx(usual, rel=0.02)
    assert result.vm("v")["on_ns"].sum() == 200 * SECOND


@pytest.mark.parametrize(
    ("response", "seconds", "end"), [("events", 250, "on"), ("aggressive", 450, "down")]
)
def test_responses_to_paths_that_are_all_down(response, seconds, end):
    hosts, cluster = storage()
    policy = PolicySpec(ha=HASpec(admission="none", apd_response=response))
    faults = [FaultSpec(20 * SECOND, "all-paths-down", "store")]
    result = run(
        hosts, [stored()], "exact", seconds=seconds, cluster=cluster, faults=faults, policies=policy
    )
    assert result.of("storage-timed-out")
    assert bool(result.of("vm-powered-off")) == (end == "down")
    assert VM_STATES[result.vm("v")["state"][-1]] == end


#: How a machine may say that it needs a datastore: by its disk, by itself, by both.
NAMED = {
    "disk": stored(),
    "machine": stored(named=["store"]).replace(disks=[]),
    "both": stored(named=["store"]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", NAMED)
def test_a_device_that_is_lost_for_good(mode, how):
    hosts, cluster = storage()
    policy = PolicySpec(ha=HASpec(admission="none"))
    faults = [FaultSpec(20 * SECOND, "device-lost", "a/store")]
    vms = [NAMED[how], machine("w", cpu=200)]
    result = run(hosts, vms, mode, cluster=cluster, faults=faults, policies=policy)
    # who names nothing has lost nothing
    assert result.vm("w")["on_ns"].sum() == 60 * SECOND
    (lost,) = result.of("storage-lost")
    (off,) = result.of("vm-powered-off")
    assert (lost.time_ns, lost.host) == (off.time_ns, off.host) == (20 * SECOND, "a")
    (again,) = result.of("restarted")
    assert again.host == "b"
    assert result.vm("v")["down_ns"].sum() == again.time_ns - 20 * SECOND


@pytest.mark.parametrize("mode", MODES)
def test_machines_are_where_their_disks_are(mode):
    """Host a has the store of the disk, b another, c both."""
    stores = {"a": ["store"], "b": ["other"], "c": ["store", "other"]}
    hosts = [host(name, datastores=mine) for name, mine in stores.items()]
    cluster = {"datastores": [DatastoreSpec(name, capacity=GIB) for name in ("store", "other")]}
    # it is placed where it may be, not where least is to do
    busy = machine("w", "a", cpu=2000)
    events = [
        EventSpec(5 * SECOND, "power-on", "v", "b"),
        EventSpec(10 * SECOND, "power-on", "v"),
        EventSpec(15 * SECOND, "migrate", "v", "b"),
        EventSpec(20 * SECOND, "migrate", "v", "a"),
        EventSpec(40 * SECOND, "migrate-storage", "v", "other"),
        EventSpec(45 * SECOND, "migrate", "v", "c"),
        EventSpec(60 * SECOND, "migrate-storage", "v", "other"),
        EventSpec(75 * SECOND, "migrate", "v", "b"),
        EventSpec(90 * SECOND, "migrate", "v", "a"),
    ]
    vms = [stored(where="", power_on=False), busy]
    result = run(hosts, vms, mode, seconds=100, cluster=cluster, events=events)
    mine = [one for one in result.events if one.vm == "v"]
    found = [(one.time_ns // SECOND // 5 * 5, one.what, one.host, one.to) for one in mine]
    assert [one for one in found if "migration" not in one[1]] == [
        (5, "refused", "b", ""),
        (10, "power-on", "c", ""),
        (15, "refused", "", "b"),
        (20, "migrated", "c", "a"),
        (40, "refused", "a", ""),
        (45, "migrated", "a", "c"),
        (60, "storage-migrated", "", ""),
        (75, "migrated", "c", "b"),
        (90, "refused", "", "a"),
    ]
    assert all("does not reach" in one.text for one in result.of("refused"))


@pytest.mark.parametrize("mode", MODES)
def test_a_datastore_that_no_host_names_is_in_reach_of_all(mode):
    cluster = {"datastores": [DatastoreSpec("store", capacity=GIB)]}
    events = [EventSpec(10 * SECOND, "migrate", "v", "b")]
    result = run([host("a"), host("b")], [stored()], mode, cluster=cluster, events=events)
    assert result.of("migrated")


def test_disks_that_moved_follow_the_paths_of_their_new_datastore():
    adapters = [AdapterSpec("h0", "hba")]
    both = ["store", "other"]
    hosts = [host(name, adapters=adapters, datastores=both) for name in "ab"]
    cluster = {
        "datastores": [DatastoreSpec(one, capacity=GIB, array=f"{one} san") for one in both],
        "arrays": [ArraySpec(f"{one} san") for one in both],
    }
    faults = [
        FaultSpec(20 * SECOND, "array", "store san", 60 * SECOND),
        FaultSpec(100 * SECOND, "device-lost", "a/store"),
        FaultSpec(110 * SECOND, "array", "other san", 60 * SECOND),
        FaultSpec(200 * SECOND, "device-lost", "other"),
    ]
    events = [
        # from what is not in reach nothing can be copied
        EventSpec(60 * SECOND, "migrate-storage", "v", "other"),
        EventSpec(90 * SECOND, "migrate-storage", "v", "other"),
    ]
    policy = PolicySpec(ha=HASpec(admission="none"))
    result = run(
        *(hosts, [stored()], "exact"),
        seconds=220,
        cluster=cluster,
        faults=faults,
        events=events,
        policies=policy,
    )
    (refused, *_), (moved,) = result.of("refused"), result.of("storage-migrated")
    assert (refused.time_ns, moved.time_ns // SECOND) == (60 * SECOND, 90)
    assert "does not reach store" in refused.text
    usual = served(result, 0, 20)
    assert served(result, 55, 80) == served(result, 145, 170) == 0.0 < usual
    assert served(result, 95, 110) == pytest.approx(usual, rel=0.02)
    # the loss of the old one is nothing to it, that of the new one is
    assert [one.time_ns // SECOND for one in result.of("vm-powered-off")] == [200]


@pytest.mark.parametrize("mode", MODES)
def test_a_datastore_that_is_full(mode):
    disk = DiskSpec("d", size=4 * GIB, datastore="store", provisioning="thin", used=256 * MIB)
    vm = machine("v", cpu=200)
    load = DiskLoadSpec(writes_per_s=1000.0, request_size=64 << 10, write_growth=1.0)
    vm = vm.replace(workload=vm.workload.replace(disk=load), disks=[disk])
    cluster = {"datastores": [DatastoreSpec("store", capacity=1 * GIB)]}
    result = run([host("a", datastores=["store"])], [vm], mode, cluster=cluster)
    (full,) = result.of("disk-full")
    # steps of 5 s, 64,000 KiB a second
    last = 768 * MIB // (5 * 1000 * (64 << 10))
    assert full.time_ns == (last + 1) * 5 * SECOND
    assert result.vm("v")["stunned_ns"].sum() == 60 * SECOND - full.time_ns


#: What is asked of a machine whose disk of 4 GiB, 256 MiB of them used, is on a store of 1 GiB;
#: others have 8 GiB and 512 MiB. Then the events that follow, and at which second.
STORES = {"store": GIB, "large": 8 * GIB, "small": 512 * MIB}
MOVES = {
    "to a larger one": (["large"], [(10, "storage-migration"), (11, "storage-migrated")]),
    "and back": (
        ["large", "store"],
        [(10, "storage-migration"), (11, "storage-migrated")]
        + [(20, "storage-migration"), (21, "storage-migrated")],
    ),
    "to where it is": (["store"], [(10, "refused")]),
    "to where it does not fit": (["small"], [(10, "refused")]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("name", MOVES)
def test_migrate_storage(mode, on, name):
    targets, wanted = MOVES[name]
    disk = DiskSpec("d", size=4 * GIB, datastore="store", provisioning="thin", used=768 * MIB)
    vm = machine("v", cpu=200, power_on=on).replace(disks=[disk])
    events = [
        EventSpec((10 + 10 * i) * SECOND, "migrate-storage", "v", to)
        for i, to in enumerate(targets)
    ]
    # 768 MiB at 8 Gbit/s
    arrays = [ArraySpec("san", mbps=8000.0)]
    stores = [DatastoreSpec(one, capacity=size, array="san") for one, size in STORES.items()]
    hosts = [host("a", datastores=list(STORES))]
    cluster = {"datastores": stores, "arrays": arrays}
    result = run(hosts, [vm], mode, cluster=cluster, events=events)
    found = [(-(-one.time_ns // SECOND), one.what) for one in result.events if one.time_ns]
    assert found == wanted
    took = 768 * MIB / 1e9 * SECOND
    for begun, moved in zip(
        result.of("storage-migration"), result.of("storage-migrated"), strict=True
    ):
        assert moved.time_ns - begun.time_ns == took + moved.value
    # what the machine stands still for it is in the event, and in the samples
    still = sum(one.value for one in result.of("storage-migrated"))
    assert result.vm("v")["stunned_ns"].sum() == (still if on else 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_machine_on_its_way_between_datastores(mode):
    """It is not moved twice at a time; one without datastores is not moved at all."""
    disk = DiskSpec("d", size=4 * GIB, datastore="store")
    vms = [machine("v", cpu=200).replace(disks=[disk]), machine("w", cpu=200)]
    stores = [DatastoreSpec(one, capacity=8 * GIB) for one in ("store", "large")]
    events = [
        EventSpec(10 * SECOND, "migrate-storage", "v", "large"),
        EventSpec(11 * SECOND, "migrate-storage", "v", "large"),
        EventSpec(12 * SECOND, "migrate-storage", "w", "large"),
    ]
    result = run([host("a")], vms, mode, cluster={"datastores": stores}, events=events)
    twice, nothing = result.of("refused")
    assert (twice.vm, nothing.vm) == ("v", "w")
    assert "on its way" in twice.text
    assert "nothing of it is beside" in nothing.text
    assert len(result.of("storage-migrated")) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_that_found_no_room_goes_on_where_it_moved(mode):
    disk = DiskSpec("d", size=16 * GIB, datastore="store", provisioning="thin", used=256 * MIB)
    load = DiskLoadSpec(writes_per_s=1000.0, request_size=64 << 10, write_growth=1.0)
    vm = machine("v", cpu=200)
    vm = vm.replace(workload=vm.workload.replace(disk=load), disks=[disk])
    stores = [DatastoreSpec("store", GIB), DatastoreSpec("large", 32 * GIB)]
    events = [EventSpec(32 * SECOND, "migrate-storage", "v", "large")]
    result = run([host("a")], [vm], mode, cluster={"datastores": stores}, events=events)
    (full,), (moved,) = result.of("disk-full"), result.of("storage-migrated")
    (again,) = result.of("disk-goes-on")
    assert full.time_ns < 32 * SECOND < moved.time_ns == again.time_ns
    assert result.vm("v")["stunned_ns"].sum() == moved.time_ns - full.time_ns


@pytest.mark.parametrize("mode", MODES)
def test_a_guest_that_hangs(mode):
    faults = [FaultSpec(20 * SECOND, "guest", "v", 10 * SECOND)]
    result = run([host("a")], [machine("v", cpu=200)], mode, faults=faults)
    found = [(one.time_ns // SECOND, one.what) for one in result.events]
    assert found == [(0, "power-on"), (20, "guest-failed"), (30, "reset"), (30, "power-on")]
    assert result.vm("v")["stunned_ns"].sum() == 10 * SECOND


@pytest.mark.parametrize("what", ["adapter", "cable"])
@pytest.mark.parametrize("count", [1, 2])
def test_uplinks_of_a_team(what, count):
    adapters = [AdapterSpec("n0", "nic"), AdapterSpec("n1", "nic")]
    cluster = {
        "switches": [SwitchSpec("sw", uplinks=["n0", "n1"])],
        "networks": [NetworkSpec("net", switch="sw")],
    }
    vm = machine("v", cpu=200)
    load = NetworkLoadSpec(send_mbps=100.0, receive_mbps=20.0)
    vm = vm.replace(
        workload=vm.workload.replace(network=load), nics=[NicSpec("eth0", network="net")]
    )
    faults = [FaultSpec(20 * SECOND, what, f"a/n{i}", 20 * SECOND) for i in range(count)]
    result = run([host("a", adapters=adapters)], [vm], "exact", cluster=cluster, faults=faults)
    usual = served(result, 0, 20)
    assert usual > 0
    during = 0.0 if count == 2 else pytest.approx(usual, rel=0.05)
    assert served(result, 25, 40) == during
    assert served(result, 50, 60) == pytest.approx(usual, rel=0.05)


# --- rules of admission ---


#: A rule, and how many of machines that reserve half a CPU of 2 GHz may run on two hosts of 4 GHz.
ADMISSION = {
    "none": (HASpec(admission="none"), 8),
    "slots": (HASpec(admission="slots", tolerate=1), 4),
    "slots, none to bear": (HASpec(admission="slots", tolerate=0), 8),
    "percentage": (HASpec(admission="percentage", cpu=0.25, memory=0.25), 6),
    "percentage of memory": (HASpec(admission="percentage", cpu=0.0, memory=0.9), 3),
    "hosts": (HASpec(admission="hosts", failover_hosts=["b"]), 4),
    "no HA": (None, 8),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ADMISSION)
def test_admission(mode, name):
    policy, most = ADMISSION[name]
    reserved = 500 * MIB if "memory" in name else 0
    vms = [
        machine(f"v{i}", "", cpu=100, power_on=False, cpu_reservation=1000).replace(
            memory=512 * MIB, memory_reservation=reserved
        )
        for i in range(9)
    ]
    events = [EventSpec((i + 1) * SECOND, "power-on", f"v{i}") for i in range(9)]
    hosts = [host("a"), host("b")]
    result = run(hosts, vms, mode, seconds=20, events=events, policies=PolicySpec(ha=policy))
    started = [one.vm for one in result.of("power-on")]
    assert started == [f"v{i}" for i in range(most)]
    assert [one.vm for one in result.of("refused")] == [f"v{i}" for i in range(most, 9)]


@pytest.mark.parametrize("mode", MODES)
def test_a_failover_host_takes_nothing(mode):
    policy = PolicySpec(ha=HASpec(admission="hosts", failover_hosts=["b"]))
    events = [EventSpec(SECOND, "power-on", "v", "b")]
    vms = [machine("v", power_on=False)]
    result = run([host("a"), host("b")], vms, mode, events=events, policies=policy)
    (refused,) = result.of("refused")
    assert "failover host" in refused.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("home", ["", "b"])
def test_a_power_on_goes_elsewhere_than_to_a_failover_host(mode, home):
    """Wherever it is registered, and however much is to do elsewhere; at last nothing is left."""
    policy = PolicySpec(ha=HASpec(admission="hosts", failover_hosts=["b"]))
    vms = [machine("w", "a", cpu=3000, vcpus=2)]
    vms += [machine(f"v{i}", home, cpu=100, power_on=False, cpu_reservation=1900) for i in range(3)]
    events = [EventSpec((i + 1) * SECOND, "power-on", f"v{i}") for i in range(3)]
    result = run([host("a"), host("b")], vms, mode, events=events, policies=policy)
    started = [(one.vm, one.host) for one in result.of("power-on")]
    assert started == [("w", "a"), ("v0", "a"), ("v1", "a")]
    (refused,) = result.of("refused")
    assert refused.text.startswith("power-on: HA of 'b' needs 1 place: a failover host to start")
    # what no host at all takes is refused for what it lacks
    large = [machine("v", home, power_on=False, cpu_reservation=4100, vcpus=3)]
    events = [EventSpec(SECOND, "power-on", "v")]
    result = run([host("a"), host("b")], large, mode, events=events, policies=policy)
    (refused,) = result.of("refused")
    assert "failover host" not in refused.text
    assert "1 hosts: not to be taken" in refused.text


@pytest.mark.parametrize("mode", MODES)
def test_the_next_host_is_asked_where_one_has_not_what_is_reserved(mode):
    """Placement does not know what the console of the emptier host has set aside."""
    hosts = [host("a", console_cpu_mhz=3500), host("b"), host("c", console_cpu_mhz=3000)]
    vms = [machine("w", "b", cpu=100, cpu_reservation=500)]
    vms += [machine(f"v{i}", "", power_on=False, cpu_reservation=1500) for i in range(3)]
    events = [EventSpec((i + 1) * SECOND, "power-on", f"v{i}") for i in range(3)]
    result = run(hosts, vms, mode, events=events)
    assert [one.host for one in result.of("power-on")] == ["b", "b", "b"]
    (refused,) = result.of("refused")
    assert refused.vm == "v2"
    assert "needs 1500 and has" in refused.text


@pytest.mark.parametrize("mode", MODES)
def test_a_host_that_does_not_reach_a_disk_is_no_home(mode):
    vms = [stored(where="b", power_on=on) for on in (True, False)]
    hosts = [host("a", datastores=["store"]), host("b")]
    cluster = {"datastores": [DatastoreSpec("store", capacity=GIB)]}
    events = [EventSpec(10 * SECOND, "power-on", "v")]
    for vm, at in zip(vms, (0, 10), strict=True):
        result = run(hosts, [vm], mode, cluster=cluster, events=events[: at // 10])
        (on,) = result.of("power-on")
        assert (on.time_ns, on.host) == (at * SECOND, "a")


@pytest.mark.parametrize("mode", MODES)
def test_at_the_start_a_description_means_what_it_says(mode):
    policy = PolicySpec(ha=HASpec(admission="hosts", failover_hosts=["b"]))
    vms = [machine("u", "a", cpu=3000, vcpus=2), machine("w", "", cpu=100)]
    result = run([host("a"), host("b")], vms, mode, policies=policy)
    assert {one.vm: one.host for one in result.of("power-on")} == {"u": "a", "w": "a"}
    vms = [machine("v", "b", cpu=100), machine("w", "", cpu=100)]
    result = run([host("a"), host("b")], vms, mode, policies=policy)
    assert {one.vm: one.host for one in result.of("power-on")} == {"v": "b", "w": "a"}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_moves_to_a_failover_host_but_what_failed(mode):
    policy = PolicySpec(
        ha=HASpec(admission="hosts", failover_hosts=["c"]),
        drs=DRSSpec(level=5, interval_ns=10 * SECOND),
        dpm=DPMSpec(interval_ns=10 * SECOND, on_window_ns=SECOND, off_window_ns=10 * SECOND),
    )
    vms = [machine(f"v{i}", "ab"[i % 2], cpu=1000) for i in range(6)]
    events = [
        EventSpec(15 * SECOND, "migrate", "v0", "c"),
        EventSpec(25 * SECOND, "enter-maintenance", "b"),
        EventSpec(60 * SECOND, "exit-maintenance", "b"),
    ]
    faults = [FaultSpec(100 * SECOND, "host", "a")]
    hosts = [host(name) for name in "abc"]
    result = run(*(hosts, vms, mode), seconds=200, events=events, faults=faults, policies=policy)
    assert "kept for failures" in result.of("refused")[0].text
    assert not [one for one in result.of("migrated") if one.to == "c"]
    # it stays on, and takes what failed
    assert not [one for one in result.events if one.what == "host-standby" and one.host == "c"]
    assert {one.host for one in result.of("restarted")} == {"c"}

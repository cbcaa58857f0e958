"""A cluster that runs: tasks, events, counters and alarms against what was done to it."""

import doctest
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.cluster import (
    Automation,
    Cluster,
    DPMOptions,
    HARules,
    HostState,
    Kind,
    Site,
    drs,
    schedule_migrations,
)
from pyvirt.cluster.vcenter import AlarmRule, Performance, VCenter

S = 10**9
GIB = 1 << 18  # pages


def cluster(hosts=3, vms=4, **columns):
    made = {
        "name": [f"v{i}" for i in range(vms)],
        "host": np.arange(vms) % hosts,
        "memory": np.full(vms, GIB),
        "vcpus": np.full(vms, 4),
        "demand": np.stack([np.full(vms, 1_000_000), np.full(vms, GIB // 2)]),
    }
    return Cluster.from_arrays(
        {
            "name": [f"h{i}" for i in range(hosts)],
            "capacity": [[8_000_000] * hosts, [16 * GIB] * hosts],
        },
        made | columns,
        power_tables=[np.linspace(100, 200, 11)],
    )


def kinds(center):
    return [event.kind for event in center.events]


def test_inventory():
    c = Cluster.from_arrays(
        {"name": ["a/b", "c"], "capacity": [[1, 1], [1, 1]]},
        {"name": ["v"], "pool": [1]},
        {"name": ["top", "low"], "parent": [-1, 0]},
        name="lab",
    )
    inventory = VCenter(c, datacenter="dc").inventory
    paths = [node.path for node in inventory.walk()]
    assert paths == [
        "/dc",
        "/dc/host",
        "/dc/host/lab",
        "/dc/host/lab/a%2fb",
        "/dc/host/lab/c",
        "/dc/host/lab/Resources",
        "/dc/host/lab/Resources/top",
        "/dc/host/lab/Resources/top/low",
        "/dc/vm",
        "/dc/vm/v",
    ]
    nodes = {node.path: node for node in inventory.walk()}
    assert all(child in nodes for node in nodes.values() for child in node.children)
    assert inventory.find("/dc/host/lab/Resources/top").children == (paths[7],)
    assert inventory.find("/dc/vm/v").name == "v"
    with pytest.raises(pv.InvalidValueError, match="nothing stands at '/dc/vm/w'"):
        inventory.find("/dc/vm/w")


def test_power():
    center = VCenter(cluster(on=[1, 0, 0, 1], host=[0, 1, -1, 0]))
    assert center.power_on("v1").state == "success"
    assert center.power_on("v2").state == "success"
    assert center.cluster.vms.host[2] == 2  # the emptiest
    assert center.power_on("v2").error == "it is on already"
    assert center.power_off("v0").state == "success"
    assert center.power_off("v0").error == "it is off already"
    assert kinds(center) == ["VmPoweredOnEvent", "VmPoweredOnEvent", "VmPoweredOffEvent"]
    assert center.events[1].message == "on h2"


def test_what_finds_no_host_is_not_started():
    center = VCenter(
        cluster(host=[-1, 0, 1, 2], on=[0, 1, 1, 1], reservation=[[9_000_000, 0, 0, 0], [0] * 4])
    )
    task = center.power_on("v0")
    assert task.state == "error"
    assert "3 hosts: it reserves 9000 MHz of 8000 free" in task.error
    assert kinds(center) == ["NotEnoughResourcesToStartVmEvent"]


def test_migrations_share_links_as_scheduled():
    center = VCenter(cluster(hosts=3, vms=20, host=[0] * 20, memory=np.full(20, 4 * GIB)))
    tasks = [center.migrate(f"v{i}", 1) for i in range(9)]
    center.run(3 * S)
    tasks += [center.migrate(f"v{i}", 2) for i in range(9, 12)]
    assert center.migrate("v0", 2).error == "it is being migrated already"
    center.run(600 * S)
    plan = schedule_migrations(
        Site([10_000] * 3),
        Kind.VMOTION,
        [0] * 12,
        4 * GIB * 4096,
        destination=[1] * 9 + [2] * 3,
        submit_ns=[0] * 9 + [3 * S] * 3,
    ).table
    for task, row in zip(tasks, plan, strict=True):
        assert task.state == "success"
        assert (task.started_ns, task.completed_ns) == (row["start_ns"], row["end_ns"])
    assert (center.cluster.vms.host[:12] == [1] * 9 + [2] * 3).all()
    assert len(center.events.find("VmMigratedEvent")) == 12
    assert len(center.events.find("VmMigratedEvent", entity="/datacenter/vm/v3")) == 1
    assert center.events.find("VmMigratedEvent", begin_ns=599 * S) == []


def test_a_migration_ends_with_its_host():
    center = VCenter(cluster())
    task = center.migrate("v0", 1)
    center.run(S // 10)
    assert task.state == "running"
    center.fail_host("h1")
    center.run(60 * S)
    assert (task.state, task.error) == ("error", "h1 is not on")
    task = center.migrate("v0", 2)
    center.run(center.now_ns + S // 10)
    center.fail_host(0)
    center.run(200 * S)
    assert (task.state, task.error) == ("error", "its host failed")
    with pytest.raises(pv.InvalidValueError, match="has failed already"):
        center.fail_host(0)


def test_maintenance():
    center = VCenter(cluster())
    task = center.enter_maintenance("h0")
    assert task.state == "running"
    center.run(120 * S)
    assert task.state == "success"
    assert center.cluster.hosts.state[0] == HostState.MAINTENANCE
    assert not (center.cluster.vms.host == 0).any()
    assert kinds(center)[0] == "EnteringMaintenanceModeEvent"
    assert kinds(center)[-1] == "EnteredMaintenanceModeEvent"
    assert center.exit_maintenance("h0").state == "success"
    assert center.exit_maintenance("h0").error == "it is not in maintenance mode"
    center.cluster.vms.automation[1] = Automation.DISABLED
    assert center.enter_maintenance("h1").error == "these VMs cannot leave it: 'v1'"
    assert center.cluster.hosts.state[1] == HostState.ON


def test_an_empty_host_goes_at_once_and_comes_back_in_time():
    center = VCenter(cluster(hosts=3, vms=2))
    assert center.standby("h2").state == "success"
    assert center.cluster.hosts.state[2] == HostState.STANDBY
    task = center.wake("h2")
    center.run(179 * S)
    assert task.state == "running"
    center.run(180 * S)
    assert (task.state, task.completed_ns) == ("success", 180 * S)
    assert center.wake("h2").error == "it is not in standby"


def test_ha_starts_vms_again():
    center = VCenter(cluster(), ha=HARules())
    center.at(100 * S, lambda center: center.fail_host("h0"))
    center.run(110 * S)
    assert center.cluster.vms.on.tolist() == [0, 1, 1, 0]
    center.run(400 * S)
    assert center.cluster.vms.on.tolist() == [1, 1, 1, 1]
    assert not (center.cluster.vms.host == 0).any()
    assert kinds(center) == [
        "HostConnectionLostEvent",
        "DasHostFailedEvent",
        "VmRestartedOnAlternateHostEvent",
        "VmRestartedOnAlternateHostEvent",
    ]
    center.repair_host("h0")
    assert center.cluster.hosts.state[0] == HostState.ON
    with pytest.raises(pv.InvalidValueError, match="has not failed"):
        center.repair_host("h0")


def test_without_ha_they_stay_down():
    center = VCenter(cluster())
    center.fail_host("h0")
    center.run(1000 * S)
    assert center.cluster.vms.on.tolist() == [0, 1, 1, 0]


def test_a_host_that_fails_before_vms_start_there_is_not_used():
    center = VCenter(cluster(hosts=3, vms=1, host=[0]), ha=HARules())
    center.fail_host(0)
    center.run(20 * S)
    center.fail_host(1)
    center.run(300 * S)
    assert center.cluster.vms.host.tolist() == [2]


def test_balance_is_asked_and_its_moves_are_made():
    asked = []

    def balance(c):
        asked.append(c)
        return [SimpleNamespace(vm=0, target=2)] if len(asked) == 1 else []

    center = VCenter(cluster(), balance=balance)
    center.run(650 * S)
    assert len(asked) == 2
    assert center.cluster.vms.host[0] == 2
    assert kinds(center) == ["VmBeingMigratedEvent", "DrsVmMigratedEvent"]


def test_drs_balances():
    c = cluster(hosts=3, vms=9, host=[0] * 9)
    center = VCenter(c, balance=drs)
    center.run(700 * S)
    assert drs(c).imbalance_before <= drs(c).goal
    assert len(center.events.find("DrsVmMigratedEvent")) == (c.vms.host != 0).sum() == 5


def test_power_management_over_a_night_and_a_morning():
    c = cluster(hosts=4, vms=16)
    center = VCenter(c, power=DPMOptions())
    quiet, busy = np.full(16, 450_000), np.full(16, 1_700_000)
    center.follow(np.stack([quiet] * 90 + [busy] * 60), 60 * S)
    center.run(89 * 60 * S)
    on = (c.hosts.state == HostState.ON).sum()
    assert on == 2
    watts = center.performance.query("power.power")[1].sum(axis=1)
    assert watts[-1] < 300
    center.run(150 * 60 * S)
    assert (c.hosts.state == HostState.ON).sum() == 4
    assert len(center.events.find("DrsEnteredStandbyModeEvent")) == 2
    assert len(center.events.find("DrsExitedStandbyModeEvent")) == 2


def test_counters_are_what_the_cluster_does():
    c = cluster(hosts=2, vms=4, host=[0, 0, 0, 1])
    c.vms.demand[0] = [4_000_000, 4_000_000, 4_000_000, 2_000_000]
    center = VCenter(c)
    center.run(3600 * S)
    times, used = center.performance.query("cpu.usagemhz")
    assert times.tolist() == list(range(20 * S, 3601 * S, 20 * S))
    assert np.allclose(used, [8000, 2000], atol=0.01)
    assert np.allclose(center.performance.query("cpu.usage", "day")[1], [100, 25], atol=1e-4)
    assert center.performance.query("cpu.usage", "day")[0].size == 12
    contention = center.performance.query("vm.cpu.contention")[1][-1]
    assert np.allclose(contention, [100 / 3, 100 / 3, 100 / 3, 0], atol=1e-3)
    assert np.allclose(center.performance.query("power.power")[1][-1], [200, 125])
    with pytest.raises(pv.InvalidValueError, match=r"there is no counter 'cpu\.ready'"):
        center.performance.query("cpu.ready")


def test_rollups_are_averages():
    seen = Performance(1, 0)
    for step in range(1, 301):
        seen.add(step * 20 * S, {"cpu.usage": np.array([float(step)])})
    times, values = seen.query("cpu.usage", "realtime")
    assert (times.size, values[0, 0], values[-1, 0]) == (180, 121, 300)
    times, values = seen.query("cpu.usage", "day")
    assert values[:, 0].tolist() == [8 + 15 * k for k in range(20)]
    times, values = seen.query("cpu.usage", "week")
    assert times.tolist() == [1800 * S, 3600 * S, 5400 * S]
    assert values[0, 0] == np.mean(np.arange(1, 91))


def test_alarms():
    c = cluster(hosts=2, vms=2, host=[0, 1])
    rules = [
        AlarmRule("busy", "cpu.usage", 50, 80, 60 * S),
        AlarmRule("short", "vm.cpu.contention", 10, 20, 0),
    ]
    center = VCenter(c, alarms=rules)
    levels = [10] * 3 + [60] * 6 + [85] * 6 + [10] * 3
    center.follow(np.array([[level * 80_000, 0] for level in levels]), 20 * S)
    center.run(len(levels) * 20 * S)
    found = [(event.time_ns // S, event.entity, event.message) for event in center.events]
    host = "/datacenter/host/cluster/h0"
    assert found == [
        (120, host, "busy: green to yellow"),
        (240, host, "busy: yellow to red"),
        (320, host, "busy: red to green"),
    ]
    assert center.alarms.status("busy") == ["green", "green"]
    with pytest.raises(pv.InvalidValueError, match="there is no alarm 'x'"):
        center.alarms.status("x")


def test_a_run_is_the_same_however_it_is_cut():
    def made():
        center = VCenter(cluster(hosts=4, vms=12), ha=HARules(), power=DPMOptions())
        center.at(500 * S, lambda center: center.fail_host(1))
        center.at(3000 * S, lambda center: center.enter_maintenance(2))
        return center

    whole, parts = made(), made()
    whole.run(5000 * S)
    rng = np.random.default_rng(0)
    while parts.now_ns < 5000 * S:
        parts.advance(min(5000 * S, parts.now_ns + int(rng.integers(1, 400 * S))))
    assert list(whole.events) == list(parts.events)
    assert whole.tasks == parts.tasks
    assert whole.cluster == parts.cluster
    assert whole.next_event_time() == parts.next_event_time()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.run(-1), ValueError, "until_ns must be at least 0"),
        (lambda c: c.at(-1, print), ValueError, "time_ns must be at least 0"),
        (lambda c: c.migrate("x", 0), ValueError, "vm must be the name of one"),
        (lambda c: c.migrate(0, 9), ValueError, "host must be one of 3, got 9"),
        (lambda c: c.power_on(True), TypeError, "vm must be a name or a row"),
        (lambda c: c.follow([[1]], 1), TypeError, r"demand must be integers of shape \(T, 4\)"),
        (lambda c: c.follow([[1, 1, 1, -1]], 1), ValueError, "demand must not be negative"),
        (lambda c: AlarmRule("a", "b", 1, 2), ValueError, "counter must be one of"),
        (lambda c: AlarmRule("a", "cpu.usage", 3, 2), ValueError, "must be ordered"),
        (lambda c: VCenter(cluster(), datacenter=""), ValueError, "datacenter must be a name"),
        (lambda c: VCenter(cluster(), balance_ns=0), ValueError, "balance_ns must be positive"),
    ],
)
def test_bad_calls(call, error, message):
    center = VCenter(cluster())
    with pytest.raises(error, match=message) as caught:
        call(center)
    assert isinstance(caught.value, pv.PyvirtError)
    center.run(20 * S)


def test_examples():
    assert doctest.testmod(sys.modules["pyvirt.cluster.vcenter.center"]).failed == 0

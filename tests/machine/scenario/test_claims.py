"""Shares, reservations and limits that operators change while a scenario runs."""

import pickle

import numpy as np
import pytest

from machine.scenario.generate import GIB, MIB, SECOND
from machine.scenario.test_arrows import MODES, host, machine
from machine.scenario.test_pools import mhz_of as mhz
from machine.scenario.test_pools import run, tree
from pyvirt.entitlement import solve
from pyvirt.machine.scenario import Scenario
from pyvirt.spec import (
    ClaimSpec,
    ClusterSpec,
    DiskLoadSpec,
    EventSpec,
    HASpec,
    MemoryLoadSpec,
    PolicySpec,
    PoolSpec,
    ScenarioSpec,
)

POOLS = [
    PoolSpec("p", cpu=2000),
    PoolSpec("q", cpu=6000, cpu_limit=5000),
    PoolSpec("r", parent="q", cpu=4000),
]
MACHINES = [
    machine("a", vcpus=2, pool="p"),
    machine("b", vcpus=2, pool="p", cpu_limit=500),
    machine("c", vcpus=4, pool="q", cpu_reservation=100),
    machine("d", vcpus=2, pool="r"),
    machine("e", vcpus=2),
    machine("f", cpu=300),
]
#: What becomes of whom.
CHANGES = {
    "shares": ("a", ClaimSpec(cpu="high")),
    "a limit": ("e", ClaimSpec(cpu_limit=700)),
    "another limit": ("b", ClaimSpec(cpu_limit=900)),
    "no limit": ("b", ClaimSpec(unlimited=["cpu"])),
    "a reservation": ("d", ClaimSpec(cpu_reservation=3000)),
    "all of it": ("a", ClaimSpec(cpu=5000, cpu_reservation=1000, cpu_limit=1500)),
    "shares of a pool": ("p", ClaimSpec(cpu=20_000)),
    "a limit of a pool": ("r", ClaimSpec(cpu_limit=800)),
    "another limit of a pool": ("q", ClaimSpec(cpu_limit=1000)),
    "no limit of a pool": ("q", ClaimSpec(unlimited=["cpu"])),
    "a reservation of a pool": ("p", ClaimSpec(cpu_reservation=4000)),
    "all of a pool": ("q", ClaimSpec(cpu="low", cpu_reservation=500, cpu_limit=1500)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHANGES)
def test_the_division_follows(mode, name):
    target, claim = CHANGES[name]
    of_pool = target in [pool.name for pool in POOLS]
    what = "reconfigure-pool" if of_pool else "reconfigure"
    event = EventSpec.from_dict(
        {"at": "60s", "what": what, "target": target, "claim": claim.to_dict()}
    )
    there = host("a", cpus=4)
    result = run([there], MACHINES, POOLS, mode, seconds=120, events=[event])
    (done,) = result.of("reconfigured")
    assert done.vm == ("" if of_pool else target)
    assert not result.of("refused")
    changed = claim.changes()
    pools = [pool.replace(**changed) if pool.name == target else pool for pool in POOLS]
    vms = [vm.replace(**changed) if vm.name == target else vm for vm in MACHINES]
    before, after = (
        solve(tree(*described, there.mhz), there.cpus * there.mhz)
        for described in ((POOLS, MACHINES), (pools, vms))
    )
    if mode == "demand":
        for vm in vms:
            assert mhz(result, vm.name, 0, 60) == pytest.approx(before[vm.name], abs=0.002)
            assert mhz(result, vm.name, 60, 120) == pytest.approx(after[vm.name], abs=0.002)
        return
    # co-scheduling costs some, to a host that was described so from the start as well
    other = run([there], vms, pools, mode)
    for vm in vms:
        found = mhz(result, vm.name, 60, 120)
        assert found == pytest.approx(mhz(other, vm.name, 0, 60), rel=0.04, abs=15.0)
        assert found == pytest.approx(after[vm.name], rel=0.2, abs=15.0)


@pytest.mark.parametrize("mode", MODES)
def test_a_machine_that_is_off_has_it_when_it_comes(mode):
    events = [
        EventSpec(10 * SECOND, "reconfigure", "v", claim=ClaimSpec(cpu_limit=500)),
        EventSpec(20 * SECOND, "power-on", "v"),
    ]
    result = run([host("a")], [machine("v", power_on=False)], [], mode, events=events)
    assert mhz(result, "v", 20, 60) == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_still_so_after_a_move(mode):
    events = [
        EventSpec(10 * SECOND, "reconfigure", "v", claim=ClaimSpec(cpu_limit=500)),
        EventSpec(20 * SECOND, "migrate", "v", "b"),
        # while it moves it is not changed
        EventSpec(20 * SECOND + 1, "reconfigure", "v", claim=ClaimSpec(cpu="low")),
    ]
    result = run([host("a"), host("b")], [machine("v")], [], mode, events=events)
    (refused,) = result.of("refused")
    assert "is on its way" in refused.text
    assert result.vm("v")["host"][-1] == 1
    assert mhz(result, "v", 40, 60) == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_each_host_has_its_part_of_a_pool(mode):
    hosts = [host("a", cpus=2), host("b", cpus=6)]
    vms = [machine("v", "a", pool="p"), machine("w", "b", pool="p", vcpus=2)]
    events = [EventSpec(30 * SECOND, "reconfigure-pool", "p", claim=ClaimSpec(cpu_limit=2000))]
    result = run(hosts, vms, [PoolSpec("p")], mode, events=events)
    found = [mhz(result, name, 30, 60) for name in "vw"]
    assert found == pytest.approx([500, 1500], rel=0.01)


#: What is asked for a machine that reserves 500 MHz, beside one that reserves 3000 and 4 GiB, on
#: 4 GHz and 8 GiB.
REFUSED = {
    "more than there is": ("reconfigure", "v", ClaimSpec(cpu=1, cpu_reservation=1100), "needs"),
    "above its limit": ("reconfigure", "v", ClaimSpec(cpu_limit=400), "must not exceed"),
    "memory": ("reconfigure", "v", ClaimSpec(cpu=1, memory_reservation=5 * GIB), "needs"),
    "a pool": ("reconfigure-pool", "p", ClaimSpec(cpu=1, cpu_reservation=1100), "needs"),
    "below what is in it": ("reconfigure-pool", "p", ClaimSpec(cpu_limit=100), "needs"),
    "a pool above its limit": (
        *("reconfigure-pool", "p", ClaimSpec(cpu_reservation=5, cpu_limit=1)),
        "must not exceed",
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_changes_nothing(mode, name):
    what, target, claim, words = REFUSED[name]
    vms = [
        machine("v", pool="p", cpu_reservation=500, vcpus=2),
        machine("w", cpu_reservation=3000, vcpus=2, memory_reservation=4 * GIB),
    ]
    vms = [vm.replace(memory=6 * GIB) for vm in vms]
    event = EventSpec(30 * SECOND, what, target, claim=claim)
    result = run([host("a")], vms, [PoolSpec("p")], mode, events=[event])
    (refused,) = result.of("refused")
    assert words in refused.text
    assert refused.vm == ("v" if target == "v" else "")
    assert not result.of("reconfigured")
    for vm in ("v", "w"):
        before, after = (mhz(result, vm, *span) for span in ((0, 30), (30, 60)))
        assert before == pytest.approx(after, rel=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_admission_control_of_ha_asks_for_what_is_reserved_in_addition(mode):
    policy = PolicySpec(ha=HASpec(admission="percentage", cpu=0.5, memory=0.0))
    claims = [ClaimSpec(cpu_reservation=more) for more in (1900, 2100, 2000)]
    events = [
        EventSpec((10 + 5 * i) * SECOND, "reconfigure", name, claim=claim)
        for i, (name, claim) in enumerate(zip("vvw", claims, strict=True))
    ]
    # 4 of 8 GHz may be reserved
    vms = [machine("v", vcpus=2), machine("w", "b", vcpus=2, cpu_reservation=1800)]
    result = run([host("a"), host("b")], vms, [], mode, events=events, policies=policy)
    found = [(one.what, one.vm) for one in result.events if one.time_ns]
    assert found == [("reconfigured", "v"), ("reconfigured", "v"), ("refused", "w")]


@pytest.mark.parametrize("mode", MODES)
def test_memory_follows_its_limit_and_shares(mode):
    load = MemoryLoadSpec(active_fraction=0.5, touch_rate=GIB)
    vms = [machine(name, cpu=100, memory=load).replace(memory=GIB) for name in "vw"]
    claim = ClaimSpec(memory_limit=256 * MIB)
    events = [
        EventSpec(30 * SECOND, "reconfigure", "v", claim=claim),
        EventSpec(150 * SECOND, "reconfigure", "v", claim=ClaimSpec(unlimited=["memory"])),
    ]
    result = run([host("a")], vms, [], mode, seconds=240, events=events)
    pages = {vm: result.vm(vm)["mapped_pages"] for vm in "vw"}
    np.testing.assert_array_equal(pages["v"][:6], pages["w"][:6])
    # the balloon takes 8 MiB a second
    assert (np.diff(pages["v"][7:20]) < -7 * MIB // 4096 * 5).all()
    assert pages["v"][29] <= 256 * MIB // 4096
    assert pages["v"][-1] > 0.9 * GIB // 4096
    assert pages["w"][-1] == GIB // 4096


@pytest.mark.parametrize("mode", MODES)
def test_a_kept_run_goes_on_alike(mode):
    """Pools, changes and waits for disks are part of what is kept."""
    waits = DiskLoadSpec(think_ns=2_000_000)
    vms = [vm.replace(workload=vm.workload.replace(disk=waits)) for vm in MACHINES]
    events = [
        EventSpec(
            (7 + 5 * i) * SECOND,
            "reconfigure-pool" if whom in "pqr" else "reconfigure",
            whom,
            claim=claim,
        )
        for i, (whom, claim) in enumerate(CHANGES.values())
    ]
    cluster = ClusterSpec(hosts=[host("a", cpus=4), host("b")], vms=vms, pools=POOLS)
    spec = ScenarioSpec(cluster, 80 * SECOND, mode=mode, step_ns=5 * SECOND, events=events)
    scenario = Scenario(spec)
    whole, engine = scenario.run(), scenario.engine()
    for until in (20, 40, 60, 80):
        engine.run(until * SECOND)
        engine = pickle.loads(pickle.dumps(engine))
    kept = scenario.result(engine)
    assert kept.events == whole.events
    assert len(kept.of("reconfigured")) > 8
    for name, values in whole.vms.items():
        np.testing.assert_array_equal(kept.vms[name], values, name)

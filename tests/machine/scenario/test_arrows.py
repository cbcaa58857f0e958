"""Each arrow between levels: one cause is changed, the effect has its sign, and its value."""

import numpy as np
import pytest

from machine.scenario.generate import GIB, LINEAR, MIB, SECOND
from oracle.slowledger import compare
from pyvirt.machine.scenario import Scenario
from pyvirt.machine.scenario.laws import ConservationError, check
from pyvirt.spec import (
    ClusterSpec,
    DemandSpec,
    DPMSpec,
    DRSSpec,
    EventRatesSpec,
    EventSpec,
    FaultSpec,
    HASpec,
    HostSpec,
    MemoryLoadSpec,
    PolicySpec,
    ScenarioSpec,
    VMSpec,
    WorkloadSpec,
)

MODES = ("exact", "demand")


def host(name, **fields):
    fields = {"cpus": 2, "mhz": 2000, "power_w": LINEAR, "memory": 8 * GIB} | fields
    return HostSpec(name, **fields)


def machine(name, where="a", cpu=None, memory=None, **fields):
    work = WorkloadSpec(
        cpu=DemandSpec() if cpu is None else DemandSpec(mhz=cpu),
        memory=memory or MemoryLoadSpec(),
        rates=fields.pop("rates", EventRatesSpec()),
    )
    return VMSpec(
        name, host=where, **({"vcpus": 1, "memory": 256 * MIB, "workload": work} | fields)
    )


def run(hosts, vms, mode, seconds=60, **fields):
    fields = {"step_ns": 5 * SECOND} | fields
    spec = ScenarioSpec(ClusterSpec(hosts=hosts, vms=vms), seconds * SECOND, mode=mode, **fields)
    result = Scenario(spec).run()
    check(result)
    compare(result)
    return result


@pytest.mark.parametrize("mode", MODES)
def test_overhead_becomes_demand(mode):
    rates = EventRatesSpec(io=50_000, cpuids=10_000)
    plain = run([host("a")], [machine("v", cpu=800)], mode)
    loaded = run([host("a")], [machine("v", cpu=800, rates=rates)], mode)
    factor = 1 + loaded.monitors[0].execution + loaded.monitors[0].translation
    assert factor > 1.01
    ratio = loaded.vms["run_ns"].sum() / plain.vms["run_ns"].sum()
    assert ratio == pytest.approx(factor, rel=1e-3)
    monitor = loaded.vms["overhead_ns"].sum() / loaded.vms["run_ns"].sum()
    assert monitor == pytest.approx(1 - 1 / factor, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_contention_becomes_ready_time(mode, count):
    result = run([host("a")], [machine(f"v{i}") for i in range(count)], mode)
    part = max(0.0, 1 - 2 / count)
    assert result.vms["ready_ns"].sum() == pytest.approx(part * count * 60 * SECOND, abs=2000)
    for i in range(count):
        assert result.percent(f"v{i}", "%RDY") == pytest.approx(100 * part, abs=1.0)


@pytest.mark.parametrize("mode", MODES)
def test_memory_pressure_becomes_swap_wait_and_less_is_run(mode):
    load = MemoryLoadSpec(active_fraction=0.9, touch_rate=256 * MIB, compressible=0.0)

    def crowd(memory):
        vms = [machine(f"v{i}", memory=load, vcpus=1) for i in range(2)]
        vms = [vm.replace(memory=1 * GIB, tools=False) for vm in vms]
        return run([host("a", memory=memory)], vms, mode, seconds=120)

    roomy, tight = crowd(4 * GIB), crowd(1280 * MIB)
    assert roomy.vms["swap_wait_ns"].sum() == 0
    assert tight.vms["swapped_pages"][:, -1].sum() > 0
    assert tight.vms["swap_wait_ns"].sum() > SECOND
    lost = roomy.vms["run_ns"].sum() - tight.vms["run_ns"].sum()
    assert lost >= 0.9 * tight.vms["swap_wait_ns"].sum()


@pytest.mark.parametrize("mode", MODES)
def test_load_becomes_moves(mode):
    vms = [machine(f"v{i}") for i in range(4)]
    drs = PolicySpec(drs=DRSSpec(interval_ns=10 * SECOND, level=5))
    lone = run([host("a"), host("b")], vms, mode)
    moved = run([host("a"), host("b")], vms, mode, policies=drs)
    told = PolicySpec(drs=DRSSpec(interval_ns=10 * SECOND, level=5, automation="manual"))
    manual = run([host("a"), host("b")], vms, mode, policies=told)
    assert not lone.of("migrated")
    assert not manual.of("migrated")
    assert manual.of("recommended")
    assert moved.of("migrated")
    assert moved.hosts["vms"][:, -1].tolist() == [2, 2]
    assert moved.vms["ready_ns"].sum() < lone.vms["ready_ns"].sum() / 2


@pytest.mark.parametrize("mode", MODES)
def test_a_move_costs_cpu_and_two_share_the_link(mode):
    def moves(count):
        vms = [machine(f"v{i}", cpu=200, memory=MemoryLoadSpec()) for i in range(2)]
        vms = [vm.replace(memory=1 * GIB) for vm in vms]
        events = [EventSpec(10 * SECOND, "migrate", f"v{i}", "b") for i in range(count)]
        hosts = [host("a", link_mbps=1000), host("b", link_mbps=1000)]
        result = run(hosts, vms, mode, events=events)
        ends = [event.time_ns for event in result.of("migrated")]
        assert len(ends) == count
        return result, max(ends) - 10 * SECOND

    (one, short), (two, long) = moves(1), moves(2)
    assert long == pytest.approx(2 * short, rel=0.02)
    assert one.hosts["migration_ns"].sum(axis=1) == pytest.approx(
        np.full(2, one.hosts["migration_ns"].sum() / 2), rel=0.02
    )
    # of each as long as it lasts, with the cores of its part of the link
    assert two.hosts["migration_ns"].sum() == pytest.approx(
        2 * one.hosts["migration_ns"].sum(), rel=0.05
    )
    assert one.hosts["migration_ns"].sum() > 0


@pytest.mark.parametrize("mode", MODES)
def test_more_writes_make_longer_moves(mode):
    def lasts(rate):
        load = MemoryLoadSpec(dirty_rate=rate)
        vm = machine("v", cpu=200, memory=load).replace(memory=1 * GIB)
        events = [EventSpec(10 * SECOND, "migrate", "v", "b")]
        hosts = [host("a", link_mbps=1000), host("b", link_mbps=1000)]
        result = run(hosts, [vm], mode, events=events)
        return result.of("migrated")[0].time_ns

    assert lasts(0) < lasts(20 * MIB) < lasts(60 * MIB)


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_becomes_a_restart(mode):
    policy = PolicySpec(ha=HASpec(admission="none"))
    faults = [FaultSpec(20 * SECOND, "host", "a")]
    result = run([host("a"), host("b")], [machine("v")], mode, policies=policy, faults=faults)
    dead = result.of("host-declared-dead")[0].time_ns
    again = result.of("restarted")[0].time_ns if result.of("restarted") else None
    assert dead == 38 * SECOND
    assert again is not None
    assert result.vm("v")["down_ns"].sum() == again - 20 * SECOND
    without = run([host("a"), host("b")], [machine("v")], mode, faults=faults)
    assert without.vm("v")["down_ns"].sum() == 40 * SECOND


def test_standby_saves_the_energy_of_idle_hosts():
    vms = [machine("v", cpu=500)]
    dpm = DPMSpec(interval_ns=20 * SECOND, on_window_ns=20 * SECOND, off_window_ns=40 * SECOND)
    policy = PolicySpec(drs=DRSSpec(interval_ns=20 * SECOND), dpm=dpm)
    hosts = [host("a"), host("b"), host("c")]
    plain = run(hosts, vms, "demand", seconds=600)
    saving = run(hosts, vms, "demand", seconds=600, policies=policy)
    off = 600.0 * 3 - saving.hosts["on_ns"].sum() / 1e9
    assert off > 100
    # an idle host draws 100 W
    saved = plain.hosts["joules"].sum() - saving.hosts["joules"].sum()
    assert saved == pytest.approx(100.0 * off, rel=1e-6)


def test_modes_agree():
    light = [machine(f"v{i}", cpu=400) for i in range(4)]
    heavy = [
        machine(f"v{i}").replace(cpu=c) for i, c in enumerate(("low", "normal", "high", "high"))
    ]
    for vms, tolerance in ((light, 1e-3), (heavy, 0.03)):
        exact, demand = (run([host("a")], vms, mode).vms["run_ns"].sum(axis=1) for mode in MODES)
        assert exact == pytest.approx(demand, rel=tolerance)


def test_a_broken_law_is_named():
    result = run([host("a")], [machine("v")], "exact")
    result.vms["ready_ns"][0, 3] += 1
    with pytest.raises(ConservationError, match="'v', sample 3, off by 1"):
        check(result)
    result.vms["ready_ns"][0, 3] -= 1
    result.hosts["joules"][0, 2] *= 3
    with pytest.raises(ConservationError, match="'a', sample 2"):
        check(result)

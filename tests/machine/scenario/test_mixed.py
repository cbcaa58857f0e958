"""Hosts of several hypervisors in one cluster: nothing moves between them."""

import pytest

from pyvirt.machine.scenario import Scenario
from pyvirt.machine.scenario.laws import check
from pyvirt.spec import ClusterSpec, DRSSpec, EventSpec, HostSpec, PolicySpec, ScenarioSpec, VMSpec
from pyvirt.spec.workload import WorkloadSpec

SECOND = 10**9


@pytest.mark.parametrize("mode", ["exact", "demand"])
def test_machines_stay_with_their_hypervisor(mode):
    hosts = [
        HostSpec("x0", cpus=2, mhz=2000, memory="8GiB", hypervisor="xen"),
        HostSpec("e0", cpus=2, mhz=2000, memory="8GiB"),
        HostSpec("e1", cpus=2, mhz=2000, memory="8GiB"),
    ]
    vms = [
        VMSpec(f"v{i}", vcpus=2, memory="1GiB", host="e0", workload=WorkloadSpec())
        for i in range(3)
    ]
    spec = ScenarioSpec(
        ClusterSpec(hosts=hosts, vms=vms),
        40 * SECOND,
        step_ns=5 * SECOND,
        mode=mode,
        policies=PolicySpec(drs=DRSSpec(level=5, interval_ns=10 * SECOND)),
        events=[EventSpec(20 * SECOND, "migrate", "v0", "x0")],
    )
    result = Scenario(spec).run()
    check(result)
    moved = result.of("migrated")
    assert moved
    assert {event.to for event in moved} == {"e1"}
    refused = [event for event in result.of("refused") if event.to == "x0"]
    assert ["runs under esxi, not xen" in event.text for event in refused] == [True]

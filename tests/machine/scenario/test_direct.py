"""One host: a scenario is to the nanosecond what its VMkernel does by itself."""

import pytest

from machine.scenario.generate import LINEAR, MS, SECOND
from oracle.slowledger import compare
from pyvirt.machine import VMkernel
from pyvirt.machine.scenario import Scenario
from pyvirt.machine.scenario.guests import derived, seeded
from pyvirt.machine.scenario.laws import check
from pyvirt.spec import (
    ClusterSpec,
    DemandSpec,
    DiskLoadSpec,
    DiskSpec,
    EventRatesSpec,
    EventSpec,
    HostSpec,
    ScenarioSpec,
    VMSpec,
    WorkloadSpec,
)

BURSTS = DemandSpec(
    kind="onoff", mhz=1500, on_ns=170 * MS, off_ns=90 * MS, distribution="exponential"
)


def machines(count):
    demands = (DemandSpec(), BURSTS, DemandSpec(mhz=1200))
    return [
        VMSpec(
            f"v{i}",
            vcpus=1 + i % 2,
            host="h",
            cpu=("low", "high", "normal")[i % 3],
            disks=[DiskSpec("d")],
            workload=WorkloadSpec(
                cpu=demands[i % 3],
                rates=EventRatesSpec(syscalls=5000, io=1000),
                disk=DiskLoadSpec(reads_per_s=300),
            ),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("hypervisor", ["esxi", "xen", "hyperv", "virtualbox", "kvm"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_host_of_a_scenario_is_its_vmkernel(hypervisor, count):
    host = HostSpec("h", cpus=2, mhz=2000, hypervisor=hypervisor, power_w=LINEAR)
    vms = machines(count)
    events = [EventSpec(7 * SECOND, "suspend", "v0"), EventSpec(9 * SECOND, "resume", "v0", "h")]
    spec = ScenarioSpec(ClusterSpec(hosts=[host], vms=vms), 12 * SECOND, step_ns=SECOND, seed=5)
    kernel = VMkernel(host, seed=derived(5, "h"))
    for vm in vms:
        kernel.power_on(seeded(vm, 5))
    kernel.run(12 * SECOND)
    result = Scenario(spec).run()
    check(result)
    for vm in vms:
        mine, its = result.vm(vm.name), kernel.count(kernel.vmm(vm.name))
        parts = {
            "run_ns": its.run,
            "ready_ns": its.rdy,
            "costop_ns": its.cstp,
            "limited_ns": its.mlmtd,
            "wait_ns": its.wait,
            "device_run_ns": its.device_run,
        }
        assert {name: int(mine[name].sum()) for name in parts} == parts
    # and with an operator it still adds up
    halted = Scenario(spec.replace(events=events)).run()
    check(halted)
    compare(halted)
    assert halted.vm("v0")["on_ns"].sum() == 10 * SECOND
    assert [event.what for event in halted.of("suspend") + halted.of("resume")] == [
        "suspend",
        "resume",
    ]

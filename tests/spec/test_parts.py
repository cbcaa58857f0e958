"""Hosts, virtual machines and their workloads: what is accepted, and what of it is kept."""

import pytest

import pyvirt as pv
from pyvirt.sched.policies import PLUGS
from pyvirt.sched.policy_options import INLINED
from pyvirt.spec import (
    AdapterSpec,
    ClusterSpec,
    DatastoreSpec,
    DemandSpec,
    DiskSpec,
    EventRatesSpec,
    HostSpec,
    PoolSpec,
    ScenarioSpec,
    StreamSpec,
    VMSpec,
    WorkloadSpec,
)
from pyvirt.spec.host import SCHEDULERS
from pyvirt.spec.workload import PATTERNS, STREAMS


def test_what_names_of_other_parts_are_known():
    """`spec` may import nothing of them, so this keeps them equal."""
    assert set(SCHEDULERS) == {*INLINED, *PLUGS, "classic", "core", "root"}
    assert set(STREAMS) == {*PATTERNS, "trace", *pv.guest.WORKLOADS}


def test_a_host_of_two_sockets():
    host = HostSpec("h", cpus=32, threads_per_core=2, mhz="2.6GHz", memory="256GiB", sockets=2,
                    numa_nodes=4, memory_for_host="2GiB", console_memory="272MiB",
                    console_cpu_mhz="1GHz", vendor="amd", hypervisor="xen", scheduler="credit2",
                    adapters=[{"name": "vmhba0", "kind": "hba", "mbps": 8000},
                              AdapterSpec("vmnic0", "nic")])  # fmt: skip
    assert host.cores == 16
    assert host.console_memory == 272 << 20
    assert host.adapters == (AdapterSpec("vmhba0", "hba", mbps=8000), AdapterSpec("vmnic0", "nic"))
    assert HostSpec.from_dict(host.to_dict()) == host


def test_a_machine_with_hardware_and_work():
    vm = VMSpec("web", 2, "4GiB", mmu="nested", devices=["cd", "serial"], bits=32,
                disks=[DiskSpec("system", "40GiB", "san", "thin", used="1GiB")],
                nics=[{"name": "n0", "network": "lan"}],
                workload={"cpu": "500MHz", "addresses": {"kind": "zipf", "exponent": 0.8},
                          "rates": {"syscalls": 2000}})  # fmt: skip
    assert vm.mmu == "hardware"
    assert vm.workload == WorkloadSpec(
        cpu=DemandSpec(mhz=500.0),
        addresses=StreamSpec("zipf", exponent=0.8),
        rates=EventRatesSpec(syscalls=2000.0),
    )
    assert VMSpec.from_dict(vm.to_dict()) == vm
    assert hash(vm) == hash(VMSpec.from_dict(vm.to_dict()))
    assert vm.replace(mmu="shadow").mmu == "software"


def test_pools_and_machines_share_what_they_claim():
    for kind in (VMSpec, PoolSpec):
        one = kind("x", cpu="high", cpu_reservation="1GHz", memory_limit="2GiB")
        assert (one.cpu, one.cpu_reservation, one.memory_limit) == ("high", 1000.0, 2 << 30)
        with pytest.raises(pv.InvalidValueError, match="must not exceed memory_limit"):
            kind("x", memory_reservation=2, memory_limit=1)


def test_a_time_may_stand_without_its_unit_in_the_name():
    data = {"cluster": {"hosts": [{"name": "h", "standby": "2min"}]}, "duration": "1h"}
    spec = ScenarioSpec.from_dict(data)
    assert spec.duration_ns == 3600 * 10**9
    assert spec.cluster.hosts[0].standby_ns == 120 * 10**9
    assert ScenarioSpec.from_dict(spec.to_dict()) == spec


def test_the_same_system_under_another_hypervisor():
    hosts = [HostSpec("a", hypervisor="xen", scheduler="credit"), HostSpec("b", cpus=4)]
    spec = ScenarioSpec(ClusterSpec(hosts=hosts), "1h", hypervisor="kvm")
    made = spec.under("hyperv")
    assert [(h.hypervisor, h.scheduler) for h in made.cluster.hosts] == [("hyperv", None)] * 2
    assert made.hypervisor is None
    assert made.under("esxi").cluster.hosts[1] == hosts[1]
    with pytest.raises(pv.InvalidValueError, match="hypervisor of host 'a' must be one of"):
        spec.under("bhyve")


def test_names_of_storage_are_free_until_some_is_described():
    vm = VMSpec("v", datastores=["san"], disks=[DiskSpec("d", datastore="nas")])
    assert ClusterSpec(vms=[vm]).vms == (vm,)
    with pytest.raises(pv.InvalidValueError, match="must name a datastore") as caught:
        ClusterSpec(vms=[vm], datastores=[DatastoreSpec("san")])
    assert caught.value.path == ("vms", 0, "disks", 0, "datastore")


@pytest.mark.parametrize(
    ("kind", "field", "make"),
    [
        (HostSpec, "mhz", lambda: 10**400), (HostSpec, "mhz", lambda: "9" * 5000 + "GHz"),
        (HostSpec, "cpus", lambda: 10**400), (HostSpec, "cpus", lambda: 10**5000),
        (HostSpec, "memory", lambda: "9" * 5000), (HostSpec, "memory", lambda: 10**400),
        (HostSpec, "standby_ns", lambda: "9" * 5000 + "s"),
        (HostSpec, "smt_speed", lambda: 10**400), (HostSpec, "smt_speed", lambda: float("inf")),
        (HostSpec, "power_w", lambda: [10**400] * 11), (VMSpec, "cpu", lambda: 10**400),
        (VMSpec, "cpu_limit", lambda: float("nan")),
    ],
)  # fmt: skip
def test_numbers_beyond_all_bounds(kind, field, make):
    with pytest.raises(pv.InvalidValueError, match=f"{field} of .* 'x' must") as caught:
        kind("x", **{field: make()})
    assert caught.value.path == (field,)

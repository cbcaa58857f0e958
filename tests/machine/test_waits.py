"""vCPUs that wait for their requests: the part of a CPU that they use, in closed form."""

import pytest

from machine.scenario.generate import GIB, MS, SECOND
from machine.scenario.test_arrows import MODES, host, machine
from machine.scenario.test_pools import mhz_of
from oracle.slowledger import compare
from pyvirt.machine import VMkernel
from pyvirt.machine.loads import device_table
from pyvirt.machine.paths import Site
from pyvirt.machine.scenario import Scenario
from pyvirt.machine.scenario.laws import check
from pyvirt.spec import (
    AdapterSpec,
    ArraySpec,
    ClusterSpec,
    DatastoreSpec,
    DemandSpec,
    DiskLoadSpec,
    DiskSpec,
    EventRatesSpec,
    EventSpec,
    FaultSpec,
    ScenarioSpec,
    WorkloadSpec,
)

US = 1000
#: 300 us, then 100 us at the array (10,000 requests a second are more than 16 Gbit/s of 4 KiB), and
#: 4 KiB through an adapter.
ARRAY = ArraySpec("san", latency_ns=300 * US, iops=10_000)


def path_ns(adapter_mbps, size=4096):
    array = max(100 * US, size * 8 / ARRAY.mbps * 1000)
    return 300 * US + array + size * 8 / adapter_mbps * 1000


def thinking(name="v", where="a", *, think, cpu=None, size=4096, stores=("store",), **fields):
    work = WorkloadSpec(
        cpu=DemandSpec() if cpu is None else DemandSpec(mhz=cpu),
        rates=fields.pop("rates", EventRatesSpec()),
        disk=DiskLoadSpec(think_ns=think, request_size=size),
    )
    disks = [DiskSpec(f"d{i}", size=GIB, datastore=store) for i, store in enumerate(stores)]
    return machine(name, where, **fields).replace(workload=work, disks=disks)


def described(vms, **fields):
    """Host a has an adapter of 10 Gbit/s, b one of 100 Mbit/s."""
    speeds = {"a": 10_000, "b": 100}
    hosts = [
        host(
            name,
            adapters=[AdapterSpec("h0", "hba", mbps=speed)],
            datastores=["store", "own"],
            **fields,
        )
        for name, speed in speeds.items()
    ]
    stores = [DatastoreSpec("store", 100 * GIB, array="san"), DatastoreSpec("own", 100 * GIB)]
    return ClusterSpec(hosts=hosts, vms=vms, arrays=[ARRAY], datastores=stores)


def run(vms, mode, seconds=60, hosts=None, **fields):
    spec = ScenarioSpec(
        described(vms, **(hosts or {})), seconds * SECOND, mode=mode, step_ns=5 * SECOND, **fields
    )
    result = Scenario(spec).run()
    check(result)
    compare(result)
    return result


def part(result, name="v", first=0, last=60):
    """Of a CPU of one vCPU."""
    return mhz_of(result, name, first, last) / 2000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("think", [20 * US, 400 * US, 5 * MS])
@pytest.mark.parametrize("size", [4096, 1 << 20])
def test_alone_it_computes_and_waits(mode, where, think, size):
    wait = path_ns(10_000 if where == "a" else 100, size)
    result = run([thinking(where=where, think=think, size=size)], mode)
    assert part(result) == pytest.approx(think / (think + wait), rel=2e-3)
    assert result.vm("v")["ready_ns"].sum() < 100 * US
    # the world of the disk serves each request
    requests = 60 * SECOND / (think + wait)
    cycles = device_table()["vmkernel"]["disk_request"]["cycles"]
    served = result.vm("v")["device_run_ns"].sum()
    assert served == pytest.approx(requests * cycles / 2.0, rel=2e-3)


@pytest.mark.parametrize("mode", MODES)
def test_the_monitors_part_is_computed_between_requests(mode):
    rates = EventRatesSpec(io=50_000, cpuids=10_000)
    result = run([thinking(think=400 * US, rates=rates)], mode)
    (monitor,) = result.monitors
    factor = 1 + monitor.execution + monitor.translation
    assert factor > 1.01
    wanted = 400 * US * factor / (400 * US * factor + path_ns(10_000))
    assert part(result) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("cpu", "wanted"), [(400, 0.2), (900, 0.45), (1000, None), (5000, None)])
def test_a_demand_is_had_as_far_as_waiting_leaves_it(mode, cpu, wanted):
    """Nothing piles up meanwhile."""
    result = run([thinking(think=400 * US, cpu=cpu)], mode)
    most = 400 * US / (400 * US + path_ns(10_000))
    assert 0.45 < most < 0.5
    assert part(result) == pytest.approx(most if wanted is None else wanted, rel=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_each_vcpu_waits_for_itself_and_disks_have_parts(mode):
    # every other request is to a datastore of no array, which takes no time
    vm = thinking(think=400 * US, vcpus=2, stores=["store", "own"])
    wanted = 400 * US / (400 * US + path_ns(10_000) / 2)
    # with CPUs for the worlds of the disks
    result = run([vm], mode, hosts={"cpus": 4})
    assert part(result) == pytest.approx(2 * wanted, rel=2e-3)
    local = thinking(think=400 * US, stores=["own"])
    assert part(run([local], mode)) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", MODES)
def test_who_waits_leaves_the_cpu_to_others(mode):
    """Five that would use 0.5 of a CPU each fill one, and a sixth makes them slower."""
    vms = [thinking(f"v{i}", think=400 * US) for i in range(5)]
    result = run(vms, mode, hosts={"cpus": 1})
    device = result.vms["device_run_ns"].sum() / (60 * SECOND)
    assert result.vms["run_ns"].sum() / (60 * SECOND) == pytest.approx(1 - device, abs=0.05)
    assert result.vms["ready_ns"].sum() > 60 * SECOND
    alone = run(vms[:1], mode, hosts={"cpus": 1})
    assert alone.vms["run_ns"][0].sum() > result.vms["run_ns"][0].sum()


@pytest.mark.parametrize("mode", MODES)
def test_after_a_move_it_waits_for_the_paths_of_its_new_host(mode):
    events = [EventSpec(20 * SECOND, "migrate", "v", "b")]
    result = run([thinking(think=400 * US)], mode, events=events)
    for first, last, speed in ((0, 20, 10_000), (40, 60, 100)):
        wanted = 400 * US / (400 * US + path_ns(speed))
        assert part(result, "v", first, last) == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("mode", MODES)
def test_where_its_disk_moved_it_waits_for_the_paths_of_the_new_datastore(mode):
    events = [
        EventSpec(20 * SECOND, "migrate-storage", "v", "own"),
        EventSpec(40 * SECOND, "migrate-storage", "v", "store"),
    ]
    vm = thinking(think=400 * US)
    result = run([vm], mode, events=events)
    assert len(result.of("storage-migrated")) == 2
    wanted = 400 * US / (400 * US + path_ns(10_000))
    assert part(result, "v", 0, 20) == pytest.approx(wanted, rel=2e-3)
    assert part(result, "v", 25, 40) == pytest.approx(1.0, rel=1e-6)
    assert part(result, "v", 45, 60) == pytest.approx(wanted, rel=2e-3)


def test_without_a_path_it_stands_still():
    """From when the host sees that; a machine that waits for nothing runs on."""
    faults = [FaultSpec(20 * SECOND, "array", "san", 100 * SECOND)]
    other = thinking("w", think=0, cpu=500)
    result = run([thinking(think=400 * US), other], "exact", seconds=180, faults=faults)
    assert result.of("path")
    usual = part(result, "v", 0, 20)
    assert part(result, "v", 55, 120) == 0.0
    assert part(result, "v", 160, 180) == pytest.approx(usual, rel=0.02)
    assert part(result, "w", 0, 180) == pytest.approx(0.25, rel=0.01)


def test_a_host_by_itself():
    cluster = described([])
    kernel = VMkernel(cluster.hosts[0], paths=Site(cluster).engine())
    vmm = kernel.power_on(thinking(think=400 * US))
    kernel.run("20s")
    wanted = 400 * US / (400 * US + path_ns(10_000))
    assert kernel.count(vmm).run / (20 * SECOND) == pytest.approx(wanted, rel=1e-3)
    plain = VMkernel(cluster.hosts[0])
    vmm = plain.power_on(thinking(think=400 * US))
    plain.run("1s")
    assert plain.count(vmm).run == SECOND

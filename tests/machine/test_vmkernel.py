"""A host with its virtual machines: power, admission, counters, time, pickles, bad input."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.errors import (
    AdmissionError,
    InvalidTypeError,
    InvalidValueError,
    MonitorModeError,
    PowerStateError,
)
from pyvirt.machine import VM, VMkernel
from pyvirt.sched import Always, OnOff, Poisson
from pyvirt.spec import HostSpec, PoolSpec, VMSpec

SECOND = 10**9
GIB = 1 << 30


def esx(**fields):
    options = {
        key: fields.pop(key)
        for key in ("scheduler", "pools", "seed", "quantum_ns", "memory_step_ns")
        if key in fields
    }
    return VMkernel(HostSpec("esx1", **{"cpus": 2, "mhz": 2000, **fields}), **options)


def test_public_names():
    assert pv.VMkernel is VMkernel
    assert pv.VM is VM
    assert pv.VMM.__module__ == "pyvirt.machine.vmm"


def test_a_demand_in_mhz_is_a_share_of_a_cpu():
    host = esx()
    web = host.power_on("web", cpu_demand=500)
    host.run("10s")
    assert web.counted().run == 10 * SECOND // 4
    assert host.stats().percent("web", "%RUN") == 25.0
    assert host.stats().utilisation == pytest.approx(0.125)
    assert str(host.stats()).startswith("NAME  NWLD  %USED")


def test_shares_under_contention():
    host = esx(cpus=1)
    for name, shares in (("a", "high"), ("b", "normal"), ("c", "low")):
        host.power_on(name, cpu=shares, workload=Always())
    host.run("70s")
    got = [host.stats().percent(name, "%RUN") for name in "abc"]
    assert got == pytest.approx([400 / 7, 200 / 7, 100 / 7], abs=0.3)


@pytest.mark.parametrize("scheduler", ["esx", "stride", "cfs", "eevdf"])
def test_limits_hold_under_every_scheduler(scheduler):
    host = esx(cpus=1, scheduler=scheduler)
    host.power_on("slow", cpu_limit=500, workload=Always())
    host.run("10s")
    assert host.stats().percent("slow", "%RUN") == pytest.approx(25, abs=0.5)


@pytest.mark.parametrize("hypervisor", ["esxi", "xen", "hyperv", "virtualbox", "kvm"])
def test_every_hypervisor_runs_the_same_machines(hypervisor):
    host = esx(cpus=2, hypervisor=hypervisor, memory="16GiB")
    host.power_on("a", memory="1GiB", cpu_demand=1000)
    host.power_on("b", memory="1GiB", vcpus=2, workload=Always())
    host.run("5s")
    assert host.stats().percent("a", "%RUN") == pytest.approx(50, abs=5)
    busy = host.stats().percent("a", "%RUN") + host.stats().percent("b", "%RUN")
    assert 190 < busy <= 200


def test_states_of_every_world_add_up():
    host = esx(console_cpu_mhz=100)
    host.power_on("a", vcpus=2, workload=OnOff(2_000_000, 3_000_000), devices=("cd",))
    host.power_on("b", vcpus=2, workload=Always(), cpu_limit=1500)
    host.run("3s")
    first = host.stats()
    host.run("7s")
    for reading in (host.stats(), host.stats(first)):
        for row in reading.table:
            total = row["%RUN"] + row["%RDY"] + row["%CSTP"] + row["%WAIT"]
            assert total == pytest.approx(200, abs=1e-9)
        for counted in reading.vms.values():
            parts = counted.run + counted.rdy + counted.mlmtd + counted.cstp + counted.wait
            assert parts == counted.elapsed == 2 * reading.interval_ns


def test_time_of_cpus_is_time_of_worlds():
    """Conservation, over machines that come and go."""
    host = esx(console_cpu_mhz=200)
    work = {"disk": {"reads_per_s": 3000}, "cpu": "600MHz"}
    host.power_on(VMSpec("a", workload=work, devices=("usb",)))
    host.power_on("b", workload=Always())
    host.run("2s")
    host.power_off("b")
    host.power_on("c", workload=Always(), vcpus=2)
    host.run("5s")
    host.suspend("a")
    host.run("6s")
    alive = sum(one.run + one.device_run for one in host.stats().vms.values())
    console = int(host.scheduler.counters()["run"][host.console.world])
    assert int(host.stats().cpu_run_ns.sum()) == alive + console + host.gone_run_ns
    assert console > 0


def test_power_states():
    host = esx()
    machine = VM("web", cpu_demand=400)
    vmm = host.power_on(machine)
    assert (machine.state, machine.host) == ("on", "esx1")
    with pytest.raises(PowerStateError, match="is on and does not power_on"):
        host.power_on(machine)
    host.run("1s")
    host.suspend("web")
    assert machine.state == "suspended"
    assert not vmm.running
    assert vmm.counted().run == SECOND // 5
    again = host.power_on(machine)
    host.run("2s")
    assert again.counted().run == SECOND // 5
    host.shut_down(again)
    assert machine.state == "off"
    with pytest.raises(InvalidValueError, match="no VM 'web' is on host 'esx1'; there are none"):
        host.power_off("web")
    old = host.power_on("old", tools=False)
    with pytest.raises(PowerStateError, match="without VMtools"):
        host.shut_down(old)
    assert old.running
    assert host.reset("old").vm is old.vm


def test_snapshots_of_running_machines():
    host = esx()
    spec = VMSpec("web", cpu_demand=400, disks=({"name": "hd0", "size": "1MiB"},))
    machine = VM(spec)
    host.power_on(machine)
    machine.disk("hd0").write([1], 7)
    machine.take_snapshot("good", memory=True, now_ns=host.now_ns)
    machine.disk("hd0").write([1], 8)
    vmm = host.revert("web", "good")
    assert machine.state == "on"
    assert machine.disk("hd0").read(1) == 7
    assert host.vmms == (vmm,)
    with pytest.raises(InvalidValueError, match="no snapshot is 'bad'"):
        host.revert("web", "bad")
    assert machine.state == "on"


def test_admission_of_cpu_and_memory_with_overhead():
    host = esx(memory="8GiB", memory_for_host="1GiB")
    with pytest.raises(AdmissionError, match=r"'esx1' needs .* for 'big'") as caught:
        host.power_on("big", memory="7GiB", memory_reservation="7GiB")
    # what is missing is the monitor's own memory
    overhead = caught.value.missing
    assert 50 * 2**20 < overhead < 200 * 2**20
    assert host.vmms == ()
    one = host.power_on("fits", memory="6GiB", memory_reservation="6GiB")
    assert one.memory_reserved == 6 * GIB + one.memory_overhead
    assert host.admission.memory_left() == 7 * GIB - one.memory_reserved
    host.power_off(one)
    assert host.admission.memory_left() == 7 * GIB
    host.power_on("cpu", cpu_reservation=2000)
    with pytest.raises(AdmissionError, match="1 is missing, for 'more'"):
        host.power_on("more", vcpus=2, cpu_reservation=2001)
    assert host.admission.cpu_left() == 2000


def test_pools():
    pools = (PoolSpec("gold", cpu=3000), PoolSpec("iron", cpu=1000, cpu_limit=600))
    host = esx(cpus=1, pools=pools)
    host.power_on("a", pool="gold", workload=Always())
    host.power_on("b", pool="iron", workload=Always())
    host.run("20s")
    # the limit of the pool is below what its shares would give: 500 of 2000
    assert host.stats().percent("b", "%RUN") == pytest.approx(25, abs=0.5)
    with pytest.raises(InvalidValueError, match="must be one of host 'esx1', got 'lead'"):
        host.power_on("c", pool="lead")
    with pytest.raises(InvalidValueError, match="knows of none"):
        esx(pools=pools, scheduler="stride")


def test_bios():
    host = esx(virtualization_enabled=False)
    with pytest.raises(MonitorModeError, match="switched off in the BIOS of host 'esx1'"):
        host.power_on("web")
    assert host.power_on("old", bits=32).mode.value == "BT"
    kvm = esx(virtualization_enabled=False, hypervisor="kvm")
    with pytest.raises(MonitorModeError, match="no binary translation"):
        kvm.power_on("old", bits=32)


def whole_host(seed=3):
    host = esx(cpus=4, memory="8GiB", console_cpu_mhz=300, seed=seed, memory_step_ns=SECOND // 2)
    host.power_on(
        VMSpec("a", memory="2GiB", workload={"cpu": "900MHz", "disk": {"reads_per_s": 500}})
    )
    host.power_on("b", vcpus=2, memory="2GiB", workload=Poisson(1_000_000, 3_000_000))
    host.power_on(
        "c", vcpus=2, memory="1GiB", workload=OnOff(900_000, 700_000), devices=("serial",)
    )
    return host


def reading(host):
    return host.scheduler.counters().tobytes(), host.scheduler.cpu_counters().tobytes()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3 * SECOND), max_size=6))
def test_any_division_of_time_gives_the_same(stops):
    plain, divided = whole_host(), whole_host()
    plain.run("3s")
    for stop in sorted(stops):
        divided.advance(stop)
    divided.run("3s")
    assert reading(plain) == reading(divided)


def test_steps_by_event_times_give_the_same():
    plain, stepped = whole_host(), whole_host()
    plain.advance(SECOND // 5)
    while (due := stepped.next_event_time()) is not None and due <= SECOND // 5:
        assert due >= stepped.now_ns
        stepped.advance(due)
        if stepped.next_event_time() == due:
            break
    stepped.advance(SECOND // 5)
    assert reading(plain) == reading(stepped)


def test_pickles_go_on_alike():
    host = whole_host()
    host.run("1300ms")
    twin = pickle.loads(pickle.dumps(host))
    host.run("4s")
    twin.run("4s")
    assert reading(host) == reading(twin)
    assert np.array_equal(host.stats().table, twin.stats().table)
    assert twin.vmm("a")._host is twin
    assert twin.vmm("a").vm is not host.vmm("a").vm


def test_the_seed_alone_decides():
    one, same, other = whole_host(), whole_host(), whole_host(4)
    for host in (one, same, other):
        host.run("2s")
    assert reading(one) == reading(same) != reading(other)


def test_an_idle_host():
    host = esx(memory="8GiB", scheduler="stride")
    assert host.next_event_time() is None
    assert esx().next_event_time() == SECOND  # ESX's policy computes entitlements each second
    host.run("1h")
    assert host.now_ns == 3600 * SECOND
    assert host.stats().utilisation == 0


def test_the_same_name_again_is_another_machine():
    host = esx()
    host.power_on("a", workload=Always())
    host.run("1s")
    first = host.stats()
    host.power_off("a")
    host.power_on("a", cpu_demand=200)
    host.run("2s")
    assert host.stats(first).percent("a", "%RUN") == pytest.approx(10)


BAD_MACHINES = [
    ({"vcpus": 3}, InvalidValueError, "at most the 2 CPUs of host 'esx1', got 3"),
    ({"features": ["avx9"]}, InvalidValueError, "features of VM 'x' must be among those"),
    ({"datastores": ["ds7"]}, InvalidValueError, "datastores of VM 'x'"),
    ({"networks": ["lan"]}, InvalidValueError, "networks of VM 'x'"),
    ({"cpu_reservation": 9000}, InvalidValueError, "cpu_reservation"),
    ({"workload": 7}, InvalidTypeError, "workload must be"),
    ({"affinity": [9]}, InvalidValueError, "affinity"),
    ({"pool": "p"}, InvalidValueError, "pool of VM 'x'"),
    ({"mmu": "fast"}, InvalidValueError, "mmu"),
    ({"exec": "hardware", "mmu": "agile", "bits": 16}, InvalidValueError, "bits"),
]


@pytest.mark.parametrize(("fields", "error", "match"), BAD_MACHINES)
def test_bad_machines_change_nothing(fields, error, match):
    host = esx(memory="8GiB")
    before = (host.admission.cpu_left(), host.admission.memory_left(), reading(host))
    with pytest.raises(error, match=match):
        host.power_on("x", **fields)
    assert (host.admission.cpu_left(), host.admission.memory_left()) == before[:2]
    assert host.vmms == ()
    host.power_on("x", cpu_demand=100)
    host.run("1s")
    assert host.stats().percent("x", "%RUN") == pytest.approx(5)


def test_bad_input():
    with pytest.raises(InvalidTypeError, match="spec must be"):
        VMkernel(7)
    with pytest.raises(InvalidTypeError, match="beside a HostSpec"):
        VMkernel(HostSpec("a"), cpus=2)
    with pytest.raises(InvalidValueError, match="seed"):
        esx(seed=-1)
    with pytest.raises(InvalidValueError, match="scheduler must be one of"):
        esx(scheduler="fair")
    with pytest.raises(InvalidTypeError, match="name or a Plug"):
        esx(scheduler=7)
    with pytest.raises(InvalidValueError, match="memory_step_ns"):
        esx(memory_step_ns=1)
    with pytest.raises(InvalidTypeError, match="memory_step_ns"):
        esx(memory_step_ns="1s")
    host = esx()
    host.power_on("a")
    with pytest.raises(InvalidValueError, match="called 'a' is on host 'esx1' already"):
        host.power_on("a")
    with pytest.raises(InvalidTypeError, match="beside a VM"):
        host.power_on(VM("b"), vcpus=1)
    host.run("2s")
    with pytest.raises(InvalidValueError, match="must be at least the present"):
        host.run("1s")
    with pytest.raises(InvalidTypeError, match="to_ns must be an integer"):
        host.advance(3.5)
    with pytest.raises(InvalidValueError, match="column must be one of"):
        host.stats().percent("a", "%FUN")
    with pytest.raises(InvalidValueError, match="no VM is called 'z'"):
        host.stats().percent("z", "%RUN")
    with pytest.raises(InvalidTypeError, match="since must be"):
        host.stats(since=1)
    late = host.stats()
    with pytest.raises(InvalidValueError, match="earlier reading"):
        esx().stats(since=late)
    down = VMkernel(HostSpec("down", state="maintenance"))
    with pytest.raises(PowerStateError, match="is maintenance and runs no VMs"):
        down.power_on("a")

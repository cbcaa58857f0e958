"""Virtual machines whose workload is executed: demand, modes, counters, what is refused."""

import pytest

import pyvirt as pv
from pyvirt.errors import InvalidValueError
from pyvirt.machine import MonitorMode, programs, run_guest
from pyvirt.machine.programs import WAYS, demand_mhz
from pyvirt.machine.techniques import EventCosts
from pyvirt.spec import VMSpec
from pyvirt.x86 import guests

BT, HV, HWMMU, PV = MonitorMode
HOSTS = {
    BT: ({}, {"exec": "software"}),
    HV: ({"ept": False}, {"exec": "hardware"}),
    HWMMU: ({}, {"exec": "hardware"}),
    PV: ({"hypervisor": "xen"}, {"exec": "paravirtual"}),
}


def machine(guest="kernel", **fields):
    return VMSpec("vm", bits=32, workload={"guest": guest}, **fields)


def on(mode, guest="kernel", mhz=2000, **options):
    host_fields, vm_fields = HOSTS[mode]
    host = pv.VMkernel("host", cpus=1, mhz=mhz, **host_fields, **options)
    return host, host.power_on(machine(guest, **vm_fields))


@pytest.mark.parametrize("mode", list(MonitorMode))
def test_a_program_is_scheduled_as_it_was_executed(mode):
    host, vmm = on(mode, {"image": "kernel", "runs_per_s": 10})
    assert vmm.mode is mode
    technique, paging = WAYS[mode]
    alone = run_guest(technique=technique, paging=paging)
    native = run_guest()
    assert vmm.program == alone
    own = native.ending.instructions
    more = max(0, alone.ending.instructions - own)
    assert vmm.overhead == pytest.approx((alone.priced.total + more) / own)
    host.run("20s")
    seen = vmm.counters
    assert seen["program_runs"] == pytest.approx(200, rel=1e-3)
    assert seen["run_ns"] == pytest.approx(200 * own * (1 + vmm.overhead) / 2, rel=1e-3)
    for event, count in alone.counts.events.items():
        assert seen["events"].get(event, 0) == pytest.approx(200 * count, rel=1e-3)
    assert sum(seen["booked"].values()) == pytest.approx(200 * alone.ending.instructions, rel=1e-3)
    again, same = on(mode, {"image": "kernel", "runs_per_s": 10})
    again.run("20s")
    assert same.counters == seen


def test_demand_is_the_programs_instructions():
    native = run_guest()
    assert demand_mhz(machine({"runs_per_s": 7})) == native.ending.instructions * 7 / 1e6
    # more than there is time for: always running
    host, vmm = on(HWMMU, {"runs_per_s": 1000})
    host.run("1s")
    assert host.stats().percent("vm", "%RUN") == pytest.approx(100)
    most = 2e9 / native.ending.instructions / (1 + vmm.overhead)
    assert vmm.counters["program_runs"] == pytest.approx(most, rel=1e-6)


def test_a_program_is_executed_once_for_each_way_and_table(monkeypatch):
    programs.forget()
    ran = []
    real = programs.run_guest

    def counted(*arguments, **options):
        ran.append((arguments[1], options["costs"]))
        return real(*arguments, **options)

    monkeypatch.setattr(programs, "run_guest", counted)
    for _ in range(3):
        on(HV)
        on(HWMMU)
    assert len(ran) == 3  # natively, and under both
    mine = EventCosts("mine", {"io": 1})
    _, vmm = on(HWMMU, event_costs={HWMMU: mine})
    assert len(ran) == 4
    assert vmm.execution.table == "mine"
    # work on tables has a table of exits of its own where the events' has one: here it has none
    assert vmm.program.priced.total == vmm.program.counts.events["io"]


def test_files(tmp_path):
    (tmp_path / "k.elf").write_bytes(guests.kernel_image())
    (tmp_path / "p.elf").write_bytes(guests.kernel_image(paravirtual=True))
    (tmp_path / "d.img").write_bytes(guests.kernel_disk("another disk"))
    guest = {"image": f"{tmp_path}/k.elf", "disk": f"{tmp_path}/d.img"}
    _, vmm = on(HWMMU, guest)
    assert b"another disk" in vmm.program.console
    with pytest.raises(InvalidValueError, match="port of the guest program of VM 'vm'"):
        on(PV, guest)
    _, vmm = on(PV, guest | {"port": f"{tmp_path}/p.elf"})
    assert b"another disk" in vmm.program.console
    with pytest.raises(FileNotFoundError):
        on(HWMMU, {"image": f"{tmp_path}/none"})


def test_a_program_that_comes_to_no_end(tmp_path, monkeypatch):
    head = [0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) & 0xFFFFFFFF]
    head += [0x100000, 0x100000, 0, 0, 0x100020]
    code = b"".join(word.to_bytes(4, "little") for word in head) + b"\xeb\xfe"
    (tmp_path / "spin").write_bytes(code)
    monkeypatch.setattr(programs, "BUDGET", 10_000)
    with pytest.raises(InvalidValueError, match="within 10000 cycles, got 'budget' native"):
        on(HWMMU, {"image": f"{tmp_path}/spin"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vcpus": 2}, "vcpus of VM 'vm' must be 1"),
        ({"bits": 64}, "bits of VM 'vm' must be 32"),
        ({"mmu": "agile"}, "must not be agile"),
        ({"workload": {"guest": "kernel", "cpu": "1GHz"}}, "cpu of workload must not be given"),
        ({"workload": {"guest": "kernel", "rates": {"io": 1}}}, "rates of workload must not"),
        ({"workload": {"guest": "kernel", "addresses": {}}}, "addresses of workload must not"),
        ({"workload": {"guest": {"memory": "1MiB"}}}, "memory"),
        ({"workload": {"guest": {"memory": (2 << 20) + 1}}}, "whole pages"),
        ({"workload": {"guest": {"runs_per_s": -1}}}, "runs_per_s"),
    ],
)
def test_what_contradicts_itself(fields, message):
    with pytest.raises(InvalidValueError, match=message):
        VMSpec("vm", **{"bits": 32, "workload": {"guest": "kernel"}} | fields)

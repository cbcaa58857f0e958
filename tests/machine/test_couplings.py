"""Each arrow from one level to the next: one cause is changed, the effect has sign and value."""

from dataclasses import replace

import numpy as np
import pytest

from pyvirt.cluster import Link, migrate
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine import MonitorMode, Stream, VMkernel, log_writes
from pyvirt.machine.loads import device_table
from pyvirt.machine.paths import PathEngine, Topology
from pyvirt.machine.techniques import EventCosts
from pyvirt.sched import Always, Fixed, Poisson
from pyvirt.spec import HostSpec, VMSpec

SECOND = 10**9
MHZ = 2000
RATES = {"syscalls": 20_000, "io": 2000, "interrupts": 1000, "page_faults": 3000}


def esx(cpus=2, **fields):
    options = {key: fields.pop(key) for key in ("scheduler", "seed") if key in fields}
    return VMkernel(HostSpec("esx1", cpus=cpus, mhz=MHZ, **fields), **options)


def vm(name="vm", *, cpu="400MHz", rates=None, **fields):
    workload = {"cpu": cpu, "rates": rates or {}}
    workload |= fields.pop("workload", {})
    return VMSpec(name, workload=workload, **{"tools": False, **fields})


def run_percent(spec, until="10s", **host):
    made = esx(**host)
    vmm = made.power_on(spec)
    made.run(until)
    return made.stats().percent(spec.name, "%RUN"), vmm


# --- the technique costs cycles, and cycles are CPU demand ---


@pytest.mark.parametrize(
    ("bits", "exec", "table"),
    [(32, "software", "bt-pentium4"), (64, "hardware", "hwmmu-skylake-sp")],
)
def test_cycles_of_the_monitor_are_demand_of_the_vcpus(bits, exec, table):
    plain, _ = run_percent(vm(bits=bits, exec=exec))
    loaded, vmm = run_percent(vm(bits=bits, exec=exec, rates=RATES))
    costs = EventCosts(table).table
    cycles = sum(
        rate * costs.get(event, 0)
        for event, rate in {
            "syscall": 20_000,
            "io": 2000,
            "interrupt": 1000,
            "page_fault": 3000,
        }.items()
    )
    assert vmm.overhead == pytest.approx(cycles / (MHZ * 1e6))
    assert plain == 20.0
    assert loaded == pytest.approx(20 * (1 + vmm.overhead), rel=1e-6)
    # and the guest has had what it demanded
    assert vmm.counters["guest_ns"] == pytest.approx(2 * SECOND, rel=1e-6)
    assert vmm.counters["events"]["syscall"] == pytest.approx(20_000 * 2, rel=1e-6)
    assert vmm.counters["overhead_cycles"] == pytest.approx(cycles * 2, rel=1e-6)


def test_techniques_differ_as_their_events_do():
    """Much that traps in software: hardware is better; many faults: software is (Adams, Agesen)."""
    host = {"event_costs": {MonitorMode.HV: "hv-pentium4"}}

    def overhead(exec, rates):
        made = VMkernel(HostSpec("p4", cpus=1, mhz=3800, ept=False), **host)
        return made.power_on(vm(bits=32, guest_os="windows 2000", exec=exec, rates=rates)).overhead

    calls, faults = {"syscalls": 50_000}, {"page_table_updates": 50_000}
    assert overhead("hardware", calls) < overhead("software", calls)
    assert overhead("software", faults) < overhead("hardware", faults)


def test_overhead_of_one_is_ready_time_of_another():
    """Two machines that fill a CPU between them: what the monitor takes, somebody waits for."""

    def ready(rates):
        host = esx(cpus=1)
        vmm = host.power_on(vm("a", cpu="900MHz", rates=rates, bits=32, exec="software"))
        host.power_on(vm("b", cpu="900MHz"))
        host.run("20s")
        return sum(host.stats().percent(name, "%RDY") for name in "ab"), vmm.overhead

    # work comes to both at once, and b waits for what a takes: 4.5 ms and the overhead in each 10
    plain, _ = ready({})
    loaded, overhead = ready({"syscalls": 60_000})
    assert plain == pytest.approx(45)
    assert overhead == pytest.approx(0.06)
    assert loaded == pytest.approx(45 * 1.06)


def test_a_guest_that_always_runs_gets_less_done():
    host = esx(cpus=1)
    vmm = host.power_on(vm(rates=RATES, bits=32, exec="software"), workload=Always())
    host.run("1s")
    assert vmm.counters["run_ns"] == SECOND
    assert vmm.counters["guest_ns"] == pytest.approx(SECOND / (1 + vmm.overhead))
    assert vmm.counters["routes"]["translated"] == pytest.approx(20_000 / (1 + vmm.overhead))


def test_tools_take_exits_away():
    _, without = run_percent(vm(rates={"io": 16_000}))
    _, with_tools = run_percent(vm(rates={"io": 16_000}, tools=True))
    assert without.overhead == pytest.approx(16 * with_tools.overhead)


# --- translation ---


def test_translation_is_measured_and_costs_what_the_mmu_counts():
    addresses = {"kind": "server", "footprint": "64MiB", "accesses_per_s": 2e6}
    runs, overheads = {}, {}
    for mmu in ("software", "hardware", "agile"):
        spec = vm(mmu=mmu, workload={"addresses": addresses})
        runs[mmu], vmm = run_percent(spec)
        overheads[mmu] = vmm.overhead
        assert vmm.mmu == {"software": "shadow", "hardware": "nested", "agile": "agile"}[mmu]
        assert vmm.overhead == pytest.approx(vmm.translation.per_access * 2e6 / (MHZ * 1e6))
        assert runs[mmu] == pytest.approx(20 * (1 + vmm.overhead), rel=1e-6)
    # its tables change all the time
    assert overheads["software"] > overheads["hardware"] > 0
    assert runs["software"] > runs["hardware"] > 20


def test_memory_events_are_counted_or_rated_but_not_both():
    faults = {"page_faults": 10_000}
    addresses = {"kind": "uniform", "footprint": "8MiB", "accesses_per_s": 0}
    spec = vm(mmu="software", rates=faults)
    assert run_percent(spec)[1].execution.overhead > 0
    spec = vm(mmu="software", rates=faults, workload={"addresses": addresses})
    assert run_percent(spec)[1].overhead == 0


# --- devices and the console ---


def test_requests_are_cpu_time_of_the_vmkernel():
    disks = ({"name": "hd0"}, {"name": "hd1"})
    host = esx()
    spec = vm(workload={"disk": {"reads_per_s": 3000, "writes_per_s": 2000}}, disks=disks)
    vmm = host.power_on(spec)
    host.run("10s")
    cycles = device_table()["vmkernel"]["disk_request"]["cycles"]
    share = 5000 * cycles / (MHZ * 1e6)
    assert host.stats().percent("vm", "%SYS") == pytest.approx(100 * share, rel=1e-6)
    used = host.stats().percent("vm", "%USED")
    assert used == pytest.approx(20 + 100 * share, rel=1e-6)
    assert set(vmm.device_worlds) == {"hd0", "hd1"}


def test_the_console_serves_devices_and_competes_for_its_cpu():
    def run(busy):
        host = esx(cpus=1, console_cpu_mhz=20)
        vmm = host.power_on(vm(devices=("cd", "serial")))
        if busy:
            host.power_on("hog", workload=Always(), cpu=20_000)
        host.run("10s")
        row = host.scheduler.counters()[host.console.world]
        return host, row, vmm

    host, row, vmm = run(busy=False)
    table = device_table()["console"]
    cycles = sum(table[d]["requests_per_s"] * table[d]["cycles"] for d in ("cd", "serial"))
    assert host.console.load_mhz() == pytest.approx(cycles / 1e6)
    # what came in all periods but the last, whose work has just begun
    assert row["run"] == pytest.approx(9.9 * cycles * 1000 / MHZ, rel=1e-6)
    assert vmm.counters["routes"]["console"] == pytest.approx(10 * 220)
    _, slow, _ = run(busy=True)
    assert slow["job_time"] > 1.5 * row["job_time"]
    host.power_off("vm")
    assert host.console.attached == {}


# --- paths ---


def test_a_disk_without_a_path_stands_still_and_catches_up():
    def run(fault):
        plan = Topology()
        parts = [plan.component(f"hba{k}", "adapter", dead_after_ns=0) for k in range(2)]
        plan.device("esx1/store", [[part] for part in parts])
        engine = PathEngine(plan)
        for k in range(fault):
            engine.fail(parts[k], 2 * SECOND)
            engine.repair(parts[k], 5 * SECOND)
        host = VMkernel(HostSpec("esx1", cpus=2, mhz=MHZ), paths=engine)
        disks = ({"name": "hd0", "datastore": "store"}, {"name": "hd1"})
        load = {"disk": {"reads_per_s": 4000}}
        vmm = host.power_on(vm(workload=load, disks=disks))
        got = []
        for until in ("2s", "5s", "10s"):
            host.run(until)
            rows = host.scheduler.counters()
            got.append([int(rows[w]["run"]) / SECOND for w in vmm.device_worlds.values()])
        assert engine.now_ns == host.now_ns
        return got, host.stats().percent("vm", "%RUN")

    share = 2000 * 20_000 / (MHZ * 1e6)
    whole, _ = run(0)
    assert whole == pytest.approx(np.outer([2, 5, 10], [share, share]), rel=1e-3)
    # one path of two is no matter
    assert run(1)[0] == whole
    lost, guest = run(2)
    assert lost[0] == whole[0]
    assert lost[1] == pytest.approx([2 * share, 5 * share], rel=1e-2)
    assert lost[2] == pytest.approx(whole[2])
    assert guest == 20.0


# --- memory pressure is swap wait ---


def crowded(*, tools=False, memory="2GiB", page_share=1.0):
    host = esx(cpus=2, memory=memory)
    load = {"active_fraction": page_share, "touch_rate": "64MiB"}
    vmms = [
        host.power_on(
            vm(f"vm{i}", cpu="1GHz", workload={"memory": load}, memory="1200MiB", tools=tools)
        )
        for i in range(2)
    ]
    host.run("60s")
    return host, vmms


def test_what_does_not_fit_is_waited_for():
    host, vmms = crowded()
    roomy, _ = crowded(memory="8GiB")
    for name in ("vm0", "vm1"):
        assert host.stats().percent(name, "%SWPWT") > 1
        assert roomy.stats().percent(name, "%SWPWT") == 0
        assert host.stats().percent(name, "%RUN") < roomy.stats().percent(name, "%RUN")
        assert host.stats().memory[name]["SWCUR"] > 0
        assert roomy.stats().memory[name]["SWCUR"] == 0
    host.memory.model.check()
    # SWPWT is what the memory manager said, to the nanosecond, but for waits that go on
    for vmm in vmms:
        assert vmm.counted().swpwt <= vmm.swap_wait_ns
        assert vmm.counted().swpwt > vmm.swap_wait_ns - 2 * SECOND
    assert host.stats().host_memory["state"] != "high"
    assert roomy.stats().host_memory["state"] == "high"


def test_balloons_need_tools():
    with_tools, _ = crowded(tools=True, page_share=0.3)
    without, _ = crowded(tools=False, page_share=0.3)

    def total(host, column):
        return sum(row[column] for row in host.stats().memory.values())

    assert total(with_tools, "MCTLSZ") > 0
    assert total(without, "MCTLSZ") == 0
    # what a balloon gave need not be swapped
    assert total(with_tools, "SWCUR") < 0.9 * total(without, "SWCUR")


# --- the page-modification log feeds migrations ---


def test_a_log_has_what_the_stream_wrote():
    """Stores one page apart: each interval dirties as many pages as it has stores."""
    stream = Stream("stride", 4096 * 64_000, sample=32_000, stores=1.0)
    log = log_writes(stream, accesses_per_s=1e6, fetches=8)
    # 32,000 accesses at 10**6 a second
    assert log.period_ns == 32_000_000
    pages = len(np.unique(log.frames))
    # the guest's own tables are written only by A and D bits of its processor
    assert 32_000 <= pages < 32_000 + 200
    first = log.frames[log.times_ns < 4_000_000]
    assert 4000 <= len(first) < 4200
    half = log_writes(stream, accesses_per_s=1e6, cpus=0.5, fetches=8)
    assert half.period_ns == 2 * log.period_ns
    none = log_writes(replace(stream, stores=0.0), accesses_per_s=1e6, fetches=8)
    assert len(np.unique(none.frames)) < 200


def test_a_guest_that_waits_for_its_cpu_is_easier_to_move():
    """CPU contention lowers the dirty rate, and with it what a migration sends."""
    addresses = {"kind": "uniform", "footprint": "256MiB", "accesses_per_s": 1e5, "stores": 0.5}
    spec = vm(cpu="2GHz", memory="512MiB", workload={"addresses": addresses})

    def move(others):
        host = esx(cpus=1)
        vmm = host.power_on(spec)
        for i in range(others):
            host.power_on(f"other{i}", workload=Always())
        host.run("10s")
        log = vmm.dirty_log()
        return log.period_ns, migrate(spec.memory, log, Link(2000))

    alone, crowded = move(0), move(3)
    # a quarter of the CPU time: the same writes take four times as long
    assert crowded[0] == pytest.approx(4 * alone[0], rel=0.02)
    assert crowded[1].sent_bytes < alone[1].sent_bytes
    assert crowded[1].total_ns < alone[1].total_ns


def test_logs_need_a_stream_and_time():
    host = esx()
    vmm = host.power_on(vm())
    with pytest.raises(InvalidValueError, match="no CPU time"):
        vmm.dirty_log()
    host.run("1s")
    with pytest.raises(InvalidValueError, match="must have a workload with addresses"):
        vmm.dirty_log()
    with pytest.raises(InvalidValueError, match="fetches"):
        log_writes(Stream("uniform", sample=10), fetches=11)
    with pytest.raises(InvalidTypeError, match="stream"):
        log_writes("uniform")
    with pytest.raises(InvalidValueError, match="cpus"):
        log_writes(Stream("uniform"), cpus=0)


# --- S12 through the whole host ---


@pytest.mark.parametrize("rates", [{}, {"syscalls": 100_000}])
def test_m_m_1_through_the_host(rates):
    """S12: E[T] = 1 / (mu - lambda) at load 0.5, and with the monitor's cycles in mu."""
    host = VMkernel(HostSpec("esx1", cpus=1, mhz=MHZ), scheduler="stride", seed=5)
    spec = vm(bits=32, exec="software", rates=rates)
    work, gap = 1_000_000, 2_000_000
    vmm = host.power_on(spec, workload=Poisson(work, gap))
    host.run(4_000 * SECOND)
    row = host.scheduler.counters()[vmm.worlds[0]]
    jobs = int(row["jobs_done"])
    assert jobs > 1_900_000
    service = work * (1 + vmm.overhead)
    expected = 1 / (1 / service - 1 / gap)
    assert row["job_time"] / jobs == pytest.approx(expected, rel=0.01)
    load = service / gap
    assert host.stats().percent("vm", "%RUN") == pytest.approx(100 * load, rel=0.01)


def test_m_m_1_in_two_machines_that_share_a_cpu_by_small_quanta():
    """As the quantum goes to 0 the CPU is shared like a processor-sharing queue: the same mean."""
    host = VMkernel(HostSpec("esx1", cpus=1, mhz=MHZ), scheduler="rr", quantum_ns=20_000, seed=7)
    names = [f"vm{i}" for i in range(10)]
    for name in names:
        host.power_on(vm(name), workload=Poisson(1_000_000, 20_000_000))
    host.run(400 * SECOND)
    rows = host.scheduler.counters()
    jobs = int(rows["jobs_done"].sum())
    assert jobs > 150_000
    # within a machine jobs queue in order, which does not change the mean of exponential work
    assert rows["job_time"].sum() / jobs == pytest.approx(2_000_000, rel=0.03)


# --- a slow recomputation of what the host counted ---


def test_counters_are_what_the_events_add_up_to():
    host = esx(cpus=2, console_cpu_mhz=100, memory="8GiB")
    host.scheduler.record()
    host.power_on(vm("a", cpu="1500MHz", rates=RATES, memory="1GiB", devices=("usb",)))
    load = {"disk": {"reads_per_s": 2000}}
    host.power_on(vm("b", cpu="3000MHz", vcpus=2, workload=load, memory="1GiB"))
    host.power_on("c", workload=Poisson(700_000, 2_000_000))
    host.run("3s")
    run, ready = {}, {}
    last = {}
    for one in host.scheduler.timeline().segments().tolist():
        begin, end, waited, world, cpu, _ = one
        assert last.get(cpu, 0) <= begin <= end  # a CPU runs one at a time
        last[cpu] = end
        run[world] = run.get(world, 0) + end - begin
        ready[world] = ready.get(world, 0) + waited
    rows = host.scheduler.counters()
    for world, row in enumerate(rows):
        assert run.get(world, 0) == row["run"]
        assert ready.get(world, 0) <= row["rdy"]
    for name, vmm in ((one.name, one) for one in host.vmms):
        slow = sum(run[world] for world in vmm.worlds)
        assert host.stats().percent(name, "%RUN") == 100 * slow / (3 * SECOND)
    assert int(host.stats().cpu_run_ns.sum()) == sum(run.values())


def test_work_that_came_is_the_integral_of_the_demand():
    """Demand times factor, added up grain by grain, is what an idle host serves."""
    spec = vm(rates=RATES, cpu={"kind": "onoff", "mhz": 900, "on_ns": "330ms", "off_ns": "170ms"})
    host = esx()
    vmm = host.power_on(spec)
    host.run("5s")
    parts = round(900 / MHZ * (1 + vmm.overhead) * 1e9)
    came = 10 * (330_000_000 * parts // 10**9)
    assert vmm.counted().run == pytest.approx(came, abs=20)


def test_scaled_distributions_keep_their_shape():
    host = esx(scheduler="stride")
    spec = vm(rates={"syscalls": 1_000_000}, bits=32, exec="software")
    vmm = host.power_on(spec, workload=Poisson(Fixed(1000), 10_000), responses=True)
    assert vmm.overhead == pytest.approx(1.0)
    host.run("1s")
    row = host.scheduler.counters()[vmm.worlds[0]]
    assert row["run"] == pytest.approx(2000 * int(row["jobs_done"]), abs=2000)


def test_waits_are_no_longer_than_time():
    """A host far too small: each vCPU waits at most all the time."""
    host = esx(cpus=2, memory="1GiB")
    load = {"active_fraction": 1.0, "touch_rate": "256MiB"}
    for i in range(4):
        host.power_on(vm(f"vm{i}", cpu="1GHz", workload={"memory": load}, memory="1GiB"))
    host.run("40s")
    for counted in host.stats().vms.values():
        assert 0 <= counted.swpwt <= counted.elapsed == 40 * SECOND
    host.memory.model.check()
    total = np.sum([row["GRANT"] for row in host.stats().memory.values()])
    assert total <= 1024

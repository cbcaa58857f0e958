"""Scenarios made at random: small clusters to which much happens."""

import random

from pyvirt.spec import (
    AdapterSpec,
    ArraySpec,
    ClaimSpec,
    ClusterSpec,
    DatastoreSpec,
    DemandSpec,
    DiskLoadSpec,
    DiskSpec,
    DPMSpec,
    DRSSpec,
    EventRatesSpec,
    EventSpec,
    FaultSpec,
    HASpec,
    HostSpec,
    MemoryLoadSpec,
    MemoryPolicySpec,
    NetworkLoadSpec,
    NicSpec,
    PageClassSpec,
    PolicySpec,
    PoolSpec,
    ScenarioSpec,
    StreamSpec,
    VMSpec,
    WorkloadSpec,
)

MS = 10**6
SECOND = 10**9
MIB = 1 << 20
GIB = 1 << 30
LINEAR = tuple(100.0 + 10.0 * i for i in range(11))
CURVED = (90.0, 130.0, 150.0, 165.0, 178.0, 190.0, 200.0, 209.0, 217.0, 224.0, 230.0)
VM_EVENTS = (
    *("power-on", "power-off", "reset", "suspend", "resume", "snapshot", "revert"),
    *("consolidate", "migrate", "migrate", "migrate", "migrate-storage"),
)
HOST_EVENTS = ("enter-maintenance", "exit-maintenance", "enter-standby", "exit-standby")


def random_scenario(rng, mode=None, *, duration=60 * SECOND):
    """Make a scenario from a `random.Random`."""
    mode = mode or rng.choice(["exact", "demand"])
    hosts = [host(rng, i) for i in range(rng.randint(1, 4))]
    hypervisor = rng.choice([None, None, "esxi", "xen", "hyperv", "virtualbox", "kvm"])
    pools = []
    if mode == "exact" and hypervisor in (None, "esxi") and rng.random() < 0.3:
        pools = [PoolSpec("p0", cpu=rng.choice(["low", 3000])), PoolSpec("p1", parent="p0")]
    vms = [machine(rng, i, hosts, pools, duration) for i in range(rng.randint(1, 6))]
    cluster = ClusterSpec(
        hosts=hosts,
        vms=vms,
        pools=pools,
        datastores=[
            DatastoreSpec("d0", capacity=rng.choice([2 * GIB, 40 * GIB]), array="san"),
            DatastoreSpec("d1", capacity=20 * GIB),
        ],
        arrays=[ArraySpec("san", processors=2, fabrics=2)],
    )
    made = ScenarioSpec(
        cluster,
        duration,
        policies=policies(rng, hosts),
        faults=[fault(rng, hosts, vms, duration) for _ in range(rng.randint(0, 4))],
        events=[event(rng, hosts, vms, duration) for _ in range(rng.randint(0, 10))],
        step_ns=rng.choice([1, 2, 5]) * SECOND,
        sample_ns=rng.choice([None, 10 * SECOND]),
        mode=mode,
        hypervisor=hypervisor,
        seed=rng.randrange(1000),
    )
    if mode == "demand" and hypervisor in (None, "esxi") and made.seed % 3 == 0:
        # drawn apart, for scenarios of before to stay as they were
        made = with_pools(random.Random(made.seed), made)
    if made.seed % 5 == 2:
        made = with_waits(random.Random(made.seed), made)
    return with_claims(random.Random(made.seed), made) if made.seed % 4 == 1 else made


def with_waits(rng, made):
    vms = []
    for vm in made.cluster.vms:
        if vm.workload is not None and vm.workload.cpu.kind == "constant":
            disk = vm.workload.disk.replace(think_ns=rng.choice([0, 300_000, 7 * MS]))
            vm = vm.replace(workload=vm.workload.replace(disk=disk))
        vms.append(vm)
    return made.replace(cluster=made.cluster.replace(vms=vms))


def with_pools(rng, made):
    limit = rng.choice([None, 700, 3000])
    pools = [PoolSpec("p0", cpu=rng.choice(["low", 3000]), cpu_limit=limit)]
    pools.append(PoolSpec("p1", parent="p0", cpu_reservation=rng.choice([0, 200])))
    vms = [vm.replace(pool=rng.choice(["", "p0", "p1"])) for vm in made.cluster.vms]
    return made.replace(cluster=made.cluster.replace(pools=pools, vms=vms))


def with_claims(rng, made):
    cluster, more = made.cluster, []
    for _ in range(rng.randint(1, 5)):
        claim = ClaimSpec(
            cpu=rng.choice([None, "low", 2500]),
            mem=rng.choice([None, "high"]),
            cpu_reservation=rng.choice([None, 0, 250, 5000]),
            cpu_limit=rng.choice([None, None, 100, 600, 2000]),
            memory_reservation=rng.choice([None, 64 * MIB, 8 * GIB]),
            unlimited=rng.choice([[], ["memory"]]),
        )
        whom = rng.choice([*cluster.vms, *cluster.pools])
        what = "reconfigure" if whom in cluster.vms else "reconfigure-pool"
        if claim.changes():
            at = time(rng, made.duration_ns)
            more.append(EventSpec(at, what, whom.name, claim=claim))
    return made.replace(events=[*made.events, *more])


def host(rng, i):
    threads = rng.choice([1, 1, 2])
    console = rng.choice([0, 0, 200])
    return HostSpec(
        f"h{i}",
        cpus=threads * rng.choice([1, 2, 4]),
        threads_per_core=threads,
        mhz=rng.choice([1000, 2000, 2600]),
        memory=rng.choice([1, 2, 4]) * GIB,
        memory_for_host=rng.choice([0, 128 * MIB]),
        power_w=rng.choice([LINEAR, LINEAR, CURVED]),
        state=rng.choice(["on"] * 8 + ["standby", "maintenance"]),
        standby_ns=rng.choice([3, 12]) * SECOND,
        link_mbps=rng.choice([1000, 10_000]),
        console_cpu_mhz=console,
        adapters=[AdapterSpec("a0", "hba"), AdapterSpec("a1", "hba"), AdapterSpec("n0", "nic")],
        datastores=["d0", "d1"],
    )


def machine(rng, i, hosts, pools, duration):
    memory = rng.choice([128, 256, 512, 1024]) * MIB
    most = min(host.cpus for host in hosts)
    limit = rng.choice([None, None, None, 300, 1500])
    reserved = rng.choice([0, 0, 100, 300])
    thin = rng.random() < 0.5
    disks = [
        DiskSpec(
            "disk0",
            size=(2048 if thin else 256) * MIB,
            datastore=rng.choice(["d0", "d1"]),
            provisioning="thin" if thin else "thick",
            used=rng.choice([0, 256]) * MIB if thin else None,
        )
    ]
    return VMSpec(
        f"v{i}",
        vcpus=rng.randint(1, min(2, most)),
        memory=memory,
        host=rng.choice(["", *(host.name for host in hosts)]),
        pool=rng.choice(["", *(pool.name for pool in pools)]),
        cpu=rng.choice(["low", "normal", "high"]),
        cpu_limit=limit,
        cpu_reservation=reserved,
        memory_reservation=rng.choice([0, 0, memory // 2]),
        power_on=rng.random() < 0.9,
        start_ns=rng.choice([0, 0, 1500 * MS, 7 * SECOND, duration // 2]),
        disks=disks if rng.random() < 0.6 else [],
        nics=[NicSpec("eth0")] if rng.random() < 0.5 else [],
        devices=["cd"] if rng.random() < 0.3 else [],
        restart=rng.choice(["low", "medium", "high"]),
        tools=rng.random() < 0.8,
        workload=None if rng.random() < 0.1 else work(rng),
    )


def work(rng):
    cpu = rng.choice(
        [
            DemandSpec(),
            DemandSpec(mhz=700),
            DemandSpec(mhz=2500),
            DemandSpec(kind="onoff", mhz=1500, on_ns=150 * MS, off_ns=250 * MS),
            DemandSpec(kind="onoff", on_ns=1700 * MS, off_ns=900 * MS, distribution="exponential"),
        ]
    )
    memory = MemoryLoadSpec(
        active_fraction=rng.choice([0.1, 0.5, 0.9]),
        touch_rate=rng.choice([0, 64 * MIB, 512 * MIB]),
        dirty_rate=rng.choice([0, 20 * MIB, 2 * GIB]),
        zero=rng.choice([0.0, 0.1]),
        classes=[PageClassSpec("os", share=0.2)] if rng.random() < 0.5 else [],
    )
    stream = StreamSpec(footprint=16 * MIB, accesses_per_s=1e8) if rng.random() < 0.1 else None
    return WorkloadSpec(
        cpu=cpu,
        memory=memory,
        addresses=stream,
        rates=EventRatesSpec(syscalls=2000, io=500) if rng.random() < 0.3 else EventRatesSpec(),
        disk=DiskLoadSpec(
            writes_per_s=rng.choice([0, 200]), request_size=256 * 1024, write_growth=0.8
        ),
        network=NetworkLoadSpec(send_mbps=rng.choice([0, 50])),
    )


def policies(rng, hosts):
    drs = dpm = ha = None
    if rng.random() < 0.6:
        drs = DRSSpec(
            level=rng.randint(1, 5),
            automation=rng.choice(["manual", "partial", "full", "full"]),
            interval_ns=10 * SECOND,
        )
        if rng.random() < 0.5:
            dpm = DPMSpec(
                interval_ns=5 * SECOND, on_window_ns=5 * SECOND, off_window_ns=10 * SECOND
            )
    if rng.random() < 0.6:
        admission = rng.choice(["none", "slots", "percentage", "hosts"])
        ha = HASpec(
            admission=admission,
            failover_hosts=[hosts[-1].name] if admission == "hosts" else [],
            isolation_response=rng.choice(["leave_on", "shut_down", "power_off"]),
            apd_response=rng.choice(["events", "conservative", "aggressive"]),
            pdl_response=rng.choice(["events", "restart"]),
        )
    memory = MemoryPolicySpec(
        states=rng.choice([None, "esx2002"]),
        sharing=rng.choice([None, "all", "none"]),
        compression=rng.choice([None, False]),
    )
    return PolicySpec(drs=drs, dpm=dpm, ha=ha, memory=memory)


def fault(rng, hosts, vms, duration):
    what = rng.choice(
        [
            *("host", "host", "host", "isolation", "adapter", "cable", "fabric", "processor"),
            *("array", "all-paths-down", "device-lost", "guest"),
        ]
    )
    one = rng.choice(hosts).name
    target = {
        "host": one,
        "isolation": one,
        "adapter": f"{one}/a0",
        "cable": f"{one}/a1",
        "fabric": "san/0",
        "processor": "san/1",
        "array": "san",
        "all-paths-down": rng.choice([f"{one}/d0", "d0"]),
        "device-lost": rng.choice([f"{one}/d0", "d0"]),
        "guest": rng.choice(vms).name,
    }[what]
    back = rng.choice([None, 1, 5, 20])
    return FaultSpec(
        time(rng, duration),
        what,
        target,
        None if back is None or what == "device-lost" else back * SECOND,
    )


def event(rng, hosts, vms, duration):
    if rng.random() < 0.3:
        return EventSpec(time(rng, duration), rng.choice(HOST_EVENTS), rng.choice(hosts).name)
    what = rng.choice(VM_EVENTS)
    to = {
        "snapshot": "s",
        "revert": "s",
        "migrate": rng.choice(hosts).name,
        "migrate-storage": rng.choice(["d0", "d1"]),
        "power-on": rng.choice(["", rng.choice(hosts).name]),
    }.get(what, "")
    return EventSpec(time(rng, duration), what, rng.choice(vms).name, to)


def time(rng, duration):
    """Give a time, often one at which other things happen too."""
    whole = rng.randrange(1, duration // SECOND) * SECOND
    return whole + rng.choice([0, 0, rng.randrange(SECOND)])

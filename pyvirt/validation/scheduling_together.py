"""S10: co-scheduling of the vCPUs of a VM."""

from __future__ import annotations

import numpy as np

from pyvirt.sched import Esx, Scheduler
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["cosched"]

MS = 1_000_000
QUANTUM = 50 * MS
STOP = 3 * MS
CLOSE = 0.005

#: VMs by vCPUs, CPUs, and what strict co-scheduling can use of them: VMs that do not fit beside
#: each other take turns, and each vCPU is entitled to the same.
PACKINGS = (
    ((4, 2), 4, 0.75),
    ((4, 1, 1, 1), 4, 0.875),
    ((2, 1), 2, 0.75),
    ((4, 2, 2), 4, 1.0),
)


def _host(sizes: tuple[int, ...], cpus: int, **policy: object) -> Scheduler:
    host = Scheduler(cpus, policy=Esx(quantum_ns=QUANTUM, **policy))  # type: ignore[arg-type]
    for size in sizes:
        host.add_vm(size, weight=1000 * size)
    return host


def _used(host: Scheduler) -> float:
    return float(host.counters()["run"].sum()) / (host.cpus * host.now_ns)


@experiment("S10", "co-scheduling: what strict gangs can use, and skews under the relaxed way")
def cosched(context: Context) -> Outcome:
    """Compare utilisation with packings; check skews after each event, and who never stops."""
    tally = Tally()
    shown = []
    for sizes, cpus, packed in PACKINGS:
        context.report(f"VMs of {sizes} vCPUs on {cpus} CPUs")
        # The packing is what is left when a VM that loses a CPU stops at once: a low threshold.
        host = _host(sizes, cpus, cosched="strict", skew_stop_ns=MS // 10)
        host.run(200_000 * MS)
        used = _used(host)
        tally.check(abs(used - packed) <= CLOSE, f"strict {sizes}: {used:.4f} for {packed}")
        shown.append(f"{used:.3f}")
        # With the usual one, the CPUs that it keeps run on for so long.
        host = _host(sizes, cpus, cosched="strict")
        host.run(200_000 * MS)
        more = (max(sizes) - min(sizes)) * STOP / (cpus * QUANTUM)
        tally.check(
            packed - CLOSE <= _used(host) <= packed + more,
            f"strict {sizes}, 3 ms: {_used(host):.4f}, not {packed} to {packed + more:.4f}",
        )
        _check_relaxed(tally, sizes, cpus)
    for sizes, cpus in (((2, 1, 1), 4), ((4, 4), 8), ((1, 1), 2)):
        for mode in ("strict", "relaxed"):
            host = _host(sizes, cpus, cosched=mode)
            host.run(10_000 * MS)
            stopped = int(host.counters()["cstp"].sum())
            tally.check(stopped == 0, f"{mode} {sizes} on {cpus} CPUs: {stopped} ns of CSTP")
    return tally.outcome(
        "S10",
        sentences=("0.750, 0.875, 0.750, 1.000", ", ".join(shown)),
        note="strict with a threshold of 0.1 ms; within 0.5 % is a pass. Relaxed: all CPUs are "
        "used but for 0.1 %, no skew is beyond 3 ms, and CSTP is 0 of single vCPUs and where there "
        "is a CPU for each",
    )


def _check_relaxed(tally: Tally, sizes: tuple[int, ...], cpus: int) -> None:
    host = _host(sizes, cpus, cosched="relaxed")
    rows = host.counters()
    vms = [np.flatnonzero(rows["vm"] == vm) for vm in range(len(sizes))]
    most = 0
    for _ in range(5000):
        host.step()
        run = host.counters()["run"]
        most = max(most, *(int(np.ptp(run[worlds])) for worlds in vms))
    tally.check(most <= STOP, f"relaxed {sizes}: a skew of {most} ns")
    host.run(host.now_ns + 60_000 * MS)
    tally.check(_used(host) >= 0.999, f"relaxed {sizes}: {_used(host):.5f} of the CPUs are used")
    rows = host.counters()
    single = [int(rows["cstp"][worlds].sum()) for worlds in vms if len(worlds) == 1]
    tally.check(not any(single), f"relaxed {sizes}: a single vCPU has {single} ns of CSTP")

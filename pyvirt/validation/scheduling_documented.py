"""S14 and S15: CFS and Hyper-V's schedulers against the figures in their documentation."""

from __future__ import annotations

import numpy as np

from pyvirt.errors import AdmissionError
from pyvirt.sched import Cfs, HyperV, Scheduler, Topology, nice_weight
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["cfs", "hyperv"]

MS = 1_000_000


def _shares(host: Scheduler, seconds: int) -> list[float]:
    """Part of a CPU that each world has had."""
    host.run(seconds * 1000 * MS)
    return [float(share) for share in host.counters()["run"] / host.now_ns]


@experiment("S14", "CFS: the documented effect of nice values, cpu.shares and quotas")
def cfs(context: Context) -> Outcome:
    """Compare shares with those in Linux's sched-nice-design, sched-design-CFS and sched-bwc."""
    tally = Tally()
    found = []
    for nice in range(-20, 19):
        host = Scheduler(policy=Cfs())
        for each in (nice, nice + 1):
            host.add(weight=nice_weight(each))
        found.append(_shares(host, 20))
    # "one will get 55% of the CPU, the other 45%", whatever the level
    split = np.array(found)
    near = np.abs(split - [0.55, 0.45]).max(axis=1) <= 0.015
    tally.check(near, lambda i: f"nice {i - 20} beside {i - 19}: {split[i]}")
    steps = f"{split[:, 0].min():.3f} to {split[:, 0].max():.3f}"

    host = Scheduler(policy=Cfs())
    for nice in (0, 19):
        host.add(weight=nice_weight(nice))
    least = _shares(host, 60)[1]
    tally.check(abs(least - 0.015) <= 0.001, f"nice 19 beside nice 0: {least}")

    host = Scheduler(policy=Cfs(groups=True))
    host.add_vm(4, weight=2048)
    host.add_vm(1, weight=1024)
    parts = _shares(host, 30)
    twice = sum(parts[:4]) / parts[4]
    tally.check(abs(twice - 2) <= 0.01, f"groups of 2048 and 1024: {twice} times")

    host = Scheduler(policy=Cfs())
    host.add(limit=(10 * MS, 50 * MS))
    host.add()
    quota = _shares(host, 10)[0]
    tally.check(abs(quota - 0.2) <= 0.001, f"a quota of 10 in 50 ms: {quota}")
    return tally.outcome(
        "S14",
        sentences=(
            "a nice step 0.55, nice 19 0.015, groups of 2048 and 1024 2 to 1, 10 in 50 ms 0.2",
            f"a nice step {steps}, nice 19 {least:.4f}, groups of 2048 and 1024 {twice:.3f} to 1, "
            f"10 in 50 ms {quota:.3f}",
        ),
        note="a step is right within 0.015: the kernel's weights themselves give 0.545 to 0.561",
    )


@experiment("S15", "Hyper-V: documented weights, reserves and limits; one VM on a core")
def hyperv(context: Context) -> Outcome:
    """Compare shares with Microsoft's examples, and look at the cores after each event."""
    tally = Tally()
    period = 50 * MS

    # "weights are 100, 200, and 700 ... approximately 10%, 20%, and 70%"
    host = Scheduler(policy=HyperV("classic", period_ns=period))
    for weight in (100, 200, 700):
        host.add_vm(1, weight=weight)
    weights = _shares(host, 10)
    tally.check(
        np.abs(np.array(weights) - [0.1, 0.2, 0.7]) <= 0.005, f"weights 100, 200, 700: {weights}"
    )

    # "0.75, or 75% of a logical processor": against any weight; a cap holds on an idle one, too
    host = Scheduler(policy=HyperV("classic", period_ns=period))
    host.add_vm(1, weight=1, reserve=75)
    for _ in range(3):
        host.add_vm(1, weight=10_000)
    reserve = _shares(host, 10)[0]
    tally.check(reserve >= 0.75, f"a reserve of 75 %: {reserve}")

    host = Scheduler(policy=HyperV("classic", period_ns=period))
    host.add_vm(1, maximum=50)
    limit = _shares(host, 10)[0]
    tally.check(limit == 0.5, f"a limit of 50 %: {limit}")

    # "The total reserves for all virtual processors cannot exceed the number of logical processors"
    host = Scheduler(4, policy=HyperV())
    host.add_vm(4, reserve=75)
    host.add_vm(2, reserve=50)
    kept = len(host.counters()) == 6
    try:
        host.add_vm(1, reserve=1)
        refused = False
    except AdmissionError:
        refused = True
    tally.check(kept and refused, "reserves up to the logical processors, and 1 % more")

    mixed = _mixed_cores(context, tally)
    return tally.outcome(
        "S15",
        sentences=(
            "0.10, 0.20, 0.70; a reserve of 0.75 kept; a limit of 0.5; "
            "reserves above 4 processors refused; no core with two VMs",
            ", ".join(f"{w:.2f}" for w in weights)
            + f"; a reserve of 0.75 {'kept' if reserve >= 0.75 else 'not kept'}; "
            f"a limit of {limit:.1f}; reserves above 4 processors "
            f"{'refused' if refused else 'taken'}; "
            f"{mixed or 'no'} core{'s' * (mixed > 1)} with two VMs",
        ),
    )


def _mixed_cores(context: Context, tally: Tally) -> int:
    """Count the cores that two machines were on at once under the core scheduler."""
    host = Scheduler(topology=Topology(cores=4, threads=2), policy=HyperV("core"))
    vm_of = {}
    for number in range(6):
        vm = host.add_vm(1 + number % 4, threads=1 + number % 2)
        vm_of.update(dict.fromkeys(vm.worlds, number))
    mixed = 0
    for _ in range(20_000):
        host.step()
        running = host.cpu_counters()["world"].reshape(-1, 2)
        for pair in running.tolist():
            mixed += len({vm_of[world] for world in pair if world >= 0}) > 1
    tally.check(mixed == 0, f"{mixed} times a core with two VMs")
    return mixed

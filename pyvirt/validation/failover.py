"""C4: HA admission by slots and by percentage, as vSphere Availability works it out."""

from __future__ import annotations

import numpy as np

from pyvirt.cluster import (
    Cluster,
    FailoverError,
    Headroom,
    Percentage,
    Slots,
    admit,
    headroom,
    what_if,
)
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["admission"]

GB = 1 << 30
EXPECTED = "slots 4, 3, 3, capacity 1; 70.8 % and 71.4 % free; 448 GB of 560"
SEED = 4
CLUSTERS = 200


@experiment("C4", "HA admission: documented examples, and no VM lost")
def admission(context: Context) -> Outcome:
    """Work out the examples; then start VMs as slots allow, and let every host fail."""
    tally = Tally()
    cluster = Cluster.from_tables(
        {"cpu_mhz": [9000, 9000, 6000], "memory_bytes": [9 * GB, 6 * GB, 6 * GB]},
        {
            "host": [0, 0, 1, 1, 2],
            "reservation_cpu_mhz": [2000, 2000, 1000, 1000, 1000],
            "reservation_memory_bytes": [GB, GB, 2 * GB, GB, GB],
        },
    )
    slots = headroom(cluster, Slots(1))
    parts = headroom(cluster, Percentage(25, 25))
    eight = Cluster.from_tables({"cpu_mhz": [1] * 8, "memory_bytes": [70 * GB] * 8}, {"host": []})
    usable = headroom(eight, Percentage(20, 20)).usable[1] * 4096 / GB
    each = ", ".join(str(n) for n in slots.host_slots)
    cpu, memory = (f"{part:.1f} %" for part in parts.free_percent)
    measured = (
        f"slots {each}, capacity {slots.failover_capacity}; {cpu} and {memory} free; "
        f"{usable:g} GB of {headroom(eight, Slots(1)).total[1] * 4096 // GB}"
    )
    tally.check(slots.host_slots == [4, 3, 3], "slots of the three hosts")
    tally.check(slots.failover_capacity == 1, "failover capacity")
    tally.check(slots.slot == (2_000_000, 2 * GB // 4096), f"the slot is {slots.slot}")
    tally.check(_exact(parts), f"free parts are {parts.free_percent}")
    tally.check(usable == 448, f"{usable} GB are usable")
    admitted = _no_vm_is_lost(tally)
    return tally.outcome(
        "C4",
        sentences=(EXPECTED, measured),
        note=f"no VM of {admitted:,} in {CLUSTERS} clusters lost under any tolerated failure",
    )


def _exact(parts: Headroom) -> bool:
    """Whether (24 - 7) / 24 and (21 - 6) / 21 came out."""
    (cpu, memory), (need_cpu, need_memory) = parts.total, parts.required
    return (cpu - need_cpu) * 24 == cpu * 17 and (memory - need_memory) * 21 == memory * 15


def _no_vm_is_lost(tally: Tally) -> int:
    rng = np.random.default_rng(SEED)
    admitted = 0
    for number in range(CLUSTERS):
        hosts, vms = int(rng.integers(3, 9)), int(rng.integers(5, 60))
        tolerated = 1 + number % 2
        size = rng.integers(1, 9, 2) * 500_000
        cluster = Cluster.from_arrays(
            {"capacity": rng.integers(2, 40, (2, hosts)) * 500_000},
            {
                "host": np.full(vms, -1),
                "on": np.zeros(vms, np.int64),
                "reservation": np.repeat(size[:, None], vms, axis=1),
            },
        )
        for vm in range(vms):
            free = cluster.hosts.capacity - cluster.sum_on_hosts(cluster.vms.reservation)
            able = np.flatnonzero((free >= size[:, None]).all(axis=0))
            try:
                admit(cluster, Slots(tolerated), vm)
            except FailoverError:
                break
            if able.size:
                cluster.vms.host[vm] = rng.choice(able)
                cluster.vms.on[vm] = 1
                admitted += 1
        for failures in range(1, tolerated + 1):
            lost = what_if(cluster, failures).table["lost"]
            tally.check(lost == 0, f"cluster {number} loses a VM under {failures} failures")
    return admitted

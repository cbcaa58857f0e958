"""C7, and the packing part of C9: DPM's windows, and packings that are proven optimal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import Cluster, DemandHistory, HostState, dpm, pack
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["check_packing", "dpm_windows", "packing_instance"]

HOSTS, EACH = 4, 10
# Utilisation in percent, hosts in standby, minutes, and what DPM does.
CASES = [
    (44, 0, 40, "off"),
    (44, 0, 39, ""),
    (82, 1, 5, "on"),
    (82, 1, 4, ""),
    (46, 0, 240, ""),
    (46, 1, 240, ""),
    (80, 0, 240, ""),
    (80, 1, 240, ""),
]


@experiment("C7", "DPM: which hosts go to standby and come back, by load and time")
def dpm_windows(context: Context) -> Outcome:
    """Look each minute at equal hosts under constant load, as KB 310527 sets the windows."""
    tally = Tally()
    for percent, standby, minutes, action in CASES:
        running = HOSTS - standby
        cluster = Cluster.from_arrays(
            {
                "capacity": np.full((2, HOSTS), 100_000),
                "state": [HostState.ON] * running + [HostState.STANDBY] * standby,
            },
            {
                "host": np.repeat(np.arange(running), EACH),
                "demand": np.full((2, running * EACH), percent * 1000 // EACH),
            },
        )
        history = DemandHistory(len(cluster.vms))
        found = ""
        for _ in range(minutes):
            history.record(cluster)
            actions = dpm(cluster, history).actions
            found = actions[0].action if actions else ""
            if found:
                break
        good = found == action and (not action or len(history) == minutes)
        tally.check(good, f"{percent} % for {minutes} min: {found or 'nothing'} at {len(history)}")
    said = "44 % off after 40 min and not before, 82 % on after 5, 46 and 80 % never"
    return tally.outcome("C7", sentences=(said, said if tally.failed == 0 else "not so"))


def packing_instance(seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Make 200 VMs, and hosts of which 17.7 would do were VMs fluid: at least 18 are needed."""
    rng = np.random.default_rng(seed)
    cpu = np.rint(rng.lognormal(0, 0.6, 200) * 1000).astype(np.int64)
    memory = rng.choice([1, 2, 4, 8, 16], 200) * 256 + rng.integers(0, 256, 200)
    size = np.stack([cpu, memory])
    return size, np.ceil(size.sum(axis=1) / 17.7).astype(np.int64)


def check_packing(tally: Tally) -> int:
    """Pack 100 instances; gives how many are packed on as few hosts as the VMs' volume takes.

    That many are proven optimal: no packing uses fewer hosts than the volume takes.
    """
    optimal = 0
    for seed in range(100):
        size, capacity = packing_instance(seed)
        packed = pack(size, np.repeat(capacity[:, None], 30, axis=1))
        load = np.zeros((2, packed.bins), dtype=np.int64)
        np.add.at(load.T, packed.place, size.T)
        sound = bool((load <= capacity[:, None]).all()) and packed.bins >= 18
        tally.check(sound, f"packing {seed}: {packed.bins} hosts")
        optimal += packed.bins == 18
    tally.check(optimal >= 95, f"{optimal} of 100 packed on 18 hosts")
    return optimal

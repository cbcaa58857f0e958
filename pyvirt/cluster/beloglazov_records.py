"""The records that the kernels of the replay work on: hosts, VMs, and the run itself."""

from __future__ import annotations

import numpy as np

__all__ = ["HOST", "MIGRATION", "POLICIES", "RUN", "SELECTIONS", "STEP", "VM"]

#: Codes of what decides that a host is overloaded.
POLICIES = {"npa": 0, "dvfs": 1, "thr": 2, "iqr": 3, "mad": 4, "lr": 5, "lrr": 6}
#: Codes of what decides which VM leaves an overloaded host.
SELECTIONS = {"mmt": 0, "mu": 1, "rs": 2, "mc": 3}

HOST = np.dtype(
    [
        ("total", "f8"),  # MIPS of all cores
        ("core", "f8"),  # MIPS of one core
        ("memory", "f8"),  # MB
        ("kind", "i8"),  # row of the power curves, and of the VMs' shares of a host
        ("count", "i8"),  # entries of its list, on paper too
        ("kept", "i8"),  # entries of its list while the list is changed on paper
        ("kept_at", "i8"),  # where they are kept, if it is overloaded
        ("free", "f8"),  # MIPS that are not shared out
        ("granted", "f8"),  # MIPS: sum of grants in the order of the list
        ("wanted", "f8"),  # MIPS: sum of demands in the order of the list
        ("memory_used", "f8"),  # MB: sum over the list
        ("util", "f8"),  # at the last refresh
        ("power", "f8"),  # W at that utilisation
        ("charge", "f8"),  # W that a VM coming here is not charged for
        ("forecast", "f8"),  # MIPS: regression's forecasts of its VMs, added up
        ("oldest", "i8"),  # first step of the window at which one of its VMs was not idle
        ("active", "i8"),  # whether it counted as on at the last refresh
        ("shut", "i8"),  # on paper: no destination
        ("full", "i8"),  # on paper: not to be emptied
        ("dirty", "i8"),  # has lost or got a VM at this instant
        ("when", "f8"),  # s: time of the last entry of its history; below 0: none
        ("entry_active", "i8"),  # that entry: whether on
        ("entry_short", "i8"),  # that entry: whether on, and less was used than requested
        ("was_active", "i8"),  # the entry before
        ("since", "f8"),  # s: when it was last switched on
        ("on_s", "f8"),  # time on
        ("over_s", "f8"),  # time on with less than was requested
    ],
    align=True,
)

VM = np.dtype(
    [
        ("mips", "f8"),  # what it wants at 100 %
        ("memory", "f8"),  # MB
        ("host", "i8"),  # where it is registered
        ("alive", "i8"),  # whether it has not been regarded as finished
        ("moving", "i8"),  # whether it is in migration
        ("idle_until", "i8"),  # first step of the window at which it was not idle
        ("forecast", "f8"),  # MIPS: what the line through its demand forecasts
        ("scatter", "f8"),  # squared deviations of its utilisation in the window
        ("when", "f8"),  # s: time of the last entry of its history; below 0: none
        ("entry_grant", "f8"),  # that entry: MIPS granted
        ("entry_demand", "f8"),  # that entry: MIPS demanded
        ("entry_moving", "i8"),  # that entry: whether in migration
        ("was_moving", "i8"),  # the entry before
        ("since", "f8"),  # s: when the migration, or the stay, began that is being timed
        ("asked", "f8"),  # MIPS s demanded
        ("given", "f8"),  # MIPS s granted
        ("lost", "f8"),  # MIPS s missing during migrations
        ("short", "f8"),  # sum of the fractions that were missing
        ("short_count", "i8"),  # how many intervals that were
    ],
    align=True,
)

RUN = np.dtype(
    [
        ("policy", "i8"),  # one of POLICIES
        ("selection", "i8"),  # one of SELECTIONS
        ("parameter", "f8"),
        ("weighted_regression", "i8"),  # the seven repairs, see Corrections
        ("memory", "i8"),
        ("idle_vms", "i8"),
        ("destination_power", "i8"),
        ("whole_day", "i8"),
        ("single_moves", "i8"),
        ("migration_intervals", "i8"),
        ("record", "i8"),  # whether steps, migrations and utilisation are kept
        ("speed", "f8"),  # MB/s of a migration
        ("state", "u8"),  # of the random numbers
        ("step", "i8"),  # index of the present step; -1 before the first
        ("window", "i8"),  # index of the oldest step that histories reach back to
        ("accounted", "f8"),  # s: up to when energy is accounted for
        ("energy", "f8"),  # J
        ("migrations", "i8"),
        ("alive", "i8"),  # VMs that are not finished
        ("status", "i8"),  # 0: fine; 1: a list is full; 2: migrations are; 3: a VM has no host
        ("culprit", "i8"),  # that VM
        ("downs", "i8"),  # shutdowns: number, mean time before, squared deviations
        ("down_mean", "f8"),
        ("down_square", "f8"),
        ("trips", "i8"),  # migrations timed: number, mean, squared deviations
        ("trip_mean", "f8"),
        ("trip_square", "f8"),
    ],
    align=True,
)

#: One step of a recorded replay.
STEP = np.dtype(
    [
        ("time_s", "f8"),
        ("hosts_on", "i8"),  # hosts whose utilisation is above 0 at the start of the step
        ("energy_kwh", "f8"),  # since the beginning
        ("migrations", "i8"),  # begun in this step
        ("vms", "i8"),  # not finished
    ]
)

#: One migration of a recorded replay, in the order in which they began.
MIGRATION = np.dtype(
    [("time_s", "f8"), ("vm", "i8"), ("source", "i8"), ("destination", "i8")]
)  # time at which it begins

"""C1 to C3: replays of Beloglazov and Buyya's policies, beside CloudSim 3.0.3 and themselves."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import (
    Corrections,
    ReplayRecord,
    ReplayResult,
    ReplaySetup,
    beloglazov,
)
from pyvirt.errors import TraceFormatError
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["cloudsim", "faults", "made_up_day", "non_power_aware"]

Ints = npt.NDArray[np.int64]

FOLDER = "planetlab"
NPA_KWH = 2410.802800  # of 288 samples: 400 x 117 W and 400 x 135 W over 86100.1 s
EQUAL = ("migrations", "host_shutdowns", "vms_left", "hosts_in_use_at_end")
# What the data's MODEL.md found to agree, section 11.
ABSOLUTE = {"energy_kwh": 1e-6, "slatah": 1e-8}
RELATIVE = 1e-5
UNCHANGED = [("dvfs", "mmt"), ("thr", "mmt"), ("iqr", "mu"), ("mad", "mc"), ("lr", "mmt")]


def _days(context: Context) -> dict[str, Path]:
    """Give the days of the data folder by name."""
    if context.data is None:
        return {}
    return {path.stem: path for path in sorted((context.data / FOLDER).glob("*.npz"))}


def _util(path: Path) -> npt.NDArray[Any]:
    try:
        with np.load(path) as file:
            util: npt.NDArray[Any] = file["util"]
    except (OSError, ValueError, KeyError) as error:
        raise TraceFormatError(f"{path.name}: {error}") from None
    return util


def _reference(context: Context) -> list[dict[str, str]]:
    if context.data is None:
        return []
    path = context.data / FOLDER / "cloudsim_reference.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def made_up_day(seed: int, vms: int = 120, samples: int = 288) -> Ints:
    """Draw a day: demand that wanders, bursts, stays the same, or ends for good, in percent."""
    rng = np.random.default_rng([7, seed])
    kind = rng.integers(4, size=(vms, 1))
    wander = np.cumsum(rng.integers(-6, 7, (vms, samples)), axis=1) + 20
    burst = rng.integers(1, 8, (vms, samples)) + 80 * (rng.random((vms, samples)) < 0.1)
    still = np.broadcast_to(rng.choice([5, 10, 20], (vms, 1)), (vms, samples))
    end = rng.integers(samples // 8, samples, (vms, 1))
    ends = np.where(np.arange(samples) < end, rng.integers(1, 30, (vms, samples)), 0)
    chosen = np.choose(kind, [wander, burst, still, ends])
    return np.clip(chosen, 0, 100).astype(np.int64)


@experiment("C1", "replay: all hosts at full power all day")
def non_power_aware(context: Context) -> Outcome:
    """Compare the energy of days under NPA with one number; days made up have the same."""
    tally = Tally()
    days: dict[str, Any] = {f"made up {seed}": made_up_day(seed) for seed in range(2)}
    found = _days(context)
    days |= found
    off = 0.0
    for name, util in days.items():
        context.report(name)
        energy = beloglazov(_util(util) if isinstance(util, Path) else util, "npa").energy_kwh
        off = max(off, abs(energy - NPA_KWH))
        tally.check(abs(energy - NPA_KWH) <= 1e-6, f"{name}: {energy:.6f} kWh")
    figure = f"{NPA_KWH + (off if off > 1e-6 else 0):.6f} kWh"
    return tally.outcome(
        "C1",
        sentences=(f"{NPA_KWH:.6f} kWh on {len(days)} days", f"{figure} on {len(days)} days"),
        note="" if found else "days made up; there is no day of PlanetLab to replay",
    )


def _agrees(name: str, ours: float, theirs: float) -> bool:
    if name in EQUAL:
        return ours == theirs
    if math.isnan(theirs):
        return math.isnan(ours)
    return abs(ours - theirs) <= ABSOLUTE.get(name, RELATIVE * abs(theirs))


@experiment("C2", "replay: CloudSim's figures of every policy that is not random")
def cloudsim(context: Context) -> Outcome:
    """Compare all figures of each row of CloudSim's table with a faithful replay."""
    tally = Tally()
    days = _days(context)
    random = 0
    rows = 0
    good = Counter[str]()
    cache: dict[str, npt.NDArray[Any]] = {}
    for row in _reference(context):
        day, policy, selection = row["day"], row["policy"], row["selection"]
        if selection == "rs":
            random += 1
            continue
        if day not in days:
            tally.missing(f"{day} has no traces")
            continue
        if day not in cache:
            cache = {day: _util(days[day])}
        context.report(f"{day} {policy} {selection}".rstrip())
        result = beloglazov(
            cache[day],
            policy,
            selection or "mmt",
            float(row["parameter"]) if row["parameter"] else None,
            setup=ReplaySetup.planetlab(hosts=int(row["hosts"])),
        )
        rows += 1
        for name, ours in result.as_dict().items():
            theirs = float(row[name])
            ok = _agrees(name, ours, theirs)
            good[name] += ok
            where = f"{day} {policy} {selection} {name}"
            tally.check(ok, f"{where}: {ours}, CloudSim {theirs}")
    names = [field.name for field in fields(ReplayResult) if field.name != "record"]
    for name in names:
        tally.figure(name, rows, good[name])
    missing = context.missing if context.data is None else f"no table in {context.data / FOLDER}"
    return tally.outcome(
        "C2",
        skip=missing,
        note=f"{random} rows of a random selection are left out" if random and rows else "",
    )


def _memory_peak(record: ReplayRecord, memory: Ints, hosts: int, speed: float) -> float:
    """The most memory on a host; a VM that moves takes it at both ends."""
    held = np.bincount(record.placement, memory, hosts)
    peak = float(held.max())
    changes = []
    for time, vm, source, target in record.migrations.tolist():
        changes.append((time, 1, target, memory[vm]))
        changes.append((time + memory[vm] / speed, 0, source, -memory[vm]))
    for _, _, host, amount in sorted(changes):
        held[host] += amount
        peak = max(peak, float(held[host]))
    return peak


def _intervals(record: ReplayRecord, memory: Ints, speed: float) -> float:
    """Mean time from the end of a VM's migration, or the beginning, to its next."""
    last: dict[int, float] = {}
    waits = []
    for time, vm, _, _ in record.migrations.tolist():
        waits.append(time - last.get(vm, 0.0))
        last[vm] = time + memory[vm] / speed
    return float(np.mean(waits))


def _switched_on(record: ReplayRecord) -> int:
    """How many VMs went to a host on which there was nothing."""
    held = Counter(record.placement.tolist())
    count = 0
    for _, _, source, target in record.migrations.tolist():
        count += held[target] == 0
        held[source] -= 1
        held[target] += 1
    return count


def _twice(record: ReplayRecord) -> int:
    """How many moves were not the first of that VM in a step."""
    pairs = Counter((time, vm) for time, vm, _, _ in record.migrations.tolist())
    return sum(count - 1 for count in pairs.values())


def _same(one: ReplayResult, two: ReplayResult) -> bool:
    return all(
        x == y or (math.isnan(x) and math.isnan(y))
        for x, y in zip(one.as_dict().values(), two.as_dict().values(), strict=True)
    )


@experiment("C3", "replay: the seven faults of the reference model, each with a switch")
def faults(context: Context) -> Outcome:
    """Look for each fault without its repair, and for its absence with it."""
    tally = Tally()
    small = ReplaySetup.planetlab(hosts=120)
    days: dict[str, tuple[Any, ReplaySetup]] = {"made up": (made_up_day(2), small)}
    tabled = {row["day"] for row in _reference(context)}
    found = {name: path for name, path in _days(context).items() if name in tabled}
    days |= {name: (path, ReplaySetup.planetlab()) for name, path in found.items()}
    seen: Counter[str] = Counter()
    for name, (source, setup) in days.items():
        util = _util(source) if isinstance(source, Path) else source
        for case, ok in _fault_cases(context, name, util, setup).items():
            tally.check(ok, f"{name}: {case}")
            seen[case] += ok
    for case, count in seen.items():
        tally.figure(f"days where {case}", len(days), count)
    return tally.outcome("C3", note="" if found else "a day made up; there is no other")


def _fault_cases(context: Context, name: str, util: Any, setup: ReplaySetup) -> dict[str, bool]:
    """Say for each fault whether it is there without its repair, and gone with it."""

    def replayed(policy: str, selection: str = "mmt", **switches: bool) -> ReplayResult:
        return beloglazov(
            util,
            policy,
            selection,
            fidelity="corrected",
            corrections=Corrections(**switches),
            setup=setup,
            record=True,
        )

    def record_of(**switches: bool) -> ReplayRecord:
        record = replayed("thr", "mmt", single_moves=True, **switches).record
        assert record is not None
        return record

    cases = {}
    context.report(f"{name}: switches off")
    faithful = {which: beloglazov(util, *which, setup=setup, record=True) for which in UNCHANGED}
    cases["switches that are off change nothing"] = all(
        _same(result, replayed(*which)) for which, result in faithful.items()
    )
    context.report(f"{name}: switches on")
    lr = faithful["lr", "mmt"], replayed("lr", weighted_regression=True)
    lrr = replayed("lrr"), replayed("lrr", weighted_regression=True)
    cases["LR and LRR are the same until they are weighted"] = _same(lr[0], lrr[0]) and not _same(
        lr[1], lrr[1]
    )
    kinds = setup.kinds_of_vms(len(util))
    memory = np.array([int(vm.memory_mb) for vm in setup.vm_types])[kinds]
    speed = setup.migration_mb_s
    most = min(host.memory_mb for host in setup.host_types)
    peaks = [
        _memory_peak(record_of(idle_vms=True, memory=counts), memory, setup.hosts, speed)
        for counts in (False, True)
    ]
    cases["memory is exceeded until it counts"] = peaks[1] <= most < peaks[0]
    thr = faithful["thr", "mmt"]
    cases["VMs vanish until they may idle"] = (
        thr.vms_left < len(util) == replayed("thr", idle_vms=True).vms_left
    )
    starts = [_switched_on(record_of(destination_power=counts)) for counts in (False, True)]
    cases["hosts are switched on less often once that costs power"] = starts[1] < starts[0]
    watts = np.array([host.power.watts[10] for host in setup.host_types])
    total = float(watts[setup.kinds_of_hosts()].sum())
    seconds = np.array([300.0 * (len(util[0]) - 1) + 0.1, 300.0 * len(util[0])])
    energy = [replayed("npa", whole_day=whole).energy_kwh for whole in (False, True)]
    cases["the day is cut until it is whole"] = bool(
        np.allclose(energy, seconds * total / 3.6e6, rtol=1e-12, atol=0)
    )
    single = replayed("thr", single_moves=True, migration_intervals=True)
    assert thr.record is not None
    assert single.record is not None
    cases["VMs move twice in a step until they may not"] = (
        _twice(thr.record) > 0 == _twice(single.record)
    )
    waits = _intervals(single.record, memory, speed)
    cases["times before migrations are durations until they are intervals"] = (
        thr.mean_time_before_vm_migration_s <= memory.max() / speed < waits
        and math.isclose(waits, single.mean_time_before_vm_migration_s, rel_tol=1e-9)
    )
    return cases

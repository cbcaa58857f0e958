"""What a described workload asks of a host: worlds' work, rates of events, an address stream."""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import times
from pyvirt.sched.demand import Demand
from pyvirt.sched.workloads import (
    Always,
    Barrier,
    Jobs,
    Lock,
    OnOff,
    Periodic,
    Poisson,
    Workload,
)
from pyvirt.spec import VMSpec, WorkloadSpec

__all__ = [
    "CONSOLE_DEVICES",
    "cpu_work",
    "device_cores",
    "device_rates",
    "device_work",
    "event_rates",
    "going_on",
    "idle",
    "scaled",
    "turn",
    "work_until",
]

SECOND = 1_000_000_000
#: Demand comes in parts of this length: up to 100 wake-ups a second for each vCPU.
GRAIN_NS = 10_000_000
#: A steady demand is described for so long, and begins again.
LONG_NS = 3600 * SECOND
#: Draws of an on-off demand with a speed, which then begin again.
DRAWS = 1000
MOST_NS = 1 << 50

#: Rates of a description, by the events of `pyvirt.machine.techniques`.
RATES = {
    "syscalls": "syscall",
    "page_faults": "page_fault",
    "context_switches": "context_switch",
    "page_table_updates": "page_table_update",
    "tlb_flushes": "invlpg",
    "io": "io",
    "interrupts": "interrupt",
    "timers": "msr",
    "cpuids": "cpuid",
    "halts": "halt",
    "privileged": "interrupt_flag",
}


@functools.cache
def device_table() -> dict[str, Any]:
    """Give the costs of devices, with their sources."""
    path = Path(__file__).with_name("device_data") / "devices.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


#: Devices that the Service Console serves.
CONSOLE_DEVICES = ("cd", "usb", "serial", "floppy")


def idle() -> Workload:
    """Give a workload that never wants the CPU of itself."""
    return Jobs()


def event_rates(workload: WorkloadSpec | None) -> dict[str, float]:
    """Give events per second of guest CPU time, those left out that do not happen."""
    if workload is None:
        return {}
    rates = {event: float(getattr(workload.rates, name)) for name, event in RATES.items()}
    return {event: rate for event, rate in rates.items() if rate}


def cpu_work(spec: VMSpec, mhz: float, factor: float, latency_ns: int = 0) -> list[Workload]:
    """Give what each vCPU of a virtual machine does.

    Parameters
    ----------
    spec : VMSpec
        With a workload, or with ``cpu_demand``; without either it is idle.
    mhz : float
        Speed of a CPU.
    factor : float
        Cycles that a cycle of the guest's takes: 1 and the overhead of its monitor.
    latency_ns : int
        Of a request that a vCPU waits for.

    Returns
    -------
    list
        One for each vCPU.

    Notes
    -----
    Work that is not done in time waits: a machine that did not get what it demanded makes up for
    it later. A demand that is always more than all vCPUs can do is one for all of them. Who waits
    for its disk has nothing to make up for: a vCPU computes and waits in turn (`turn`).
    """
    found = turn(spec, mhz, factor, latency_ns)
    if found is not None:
        work, wait = found
        return [OnOff(work, wait, "fixed", "fixed") if wait else Always()] * spec.vcpus
    if spec.workload is None:
        if not spec.cpu_demand:
            return [idle()] * spec.vcpus
        return _steady(spec.cpu_demand, spec, mhz, factor)
    if spec.workload.guest is not None:
        from pyvirt.machine.programs import demand_mhz  # needed by such machines alone

        return _steady(demand_mhz(spec), spec, mhz, factor)
    cpu = spec.workload.cpu
    if cpu.kind == "constant":
        if cpu.mhz is None:
            return [Always()] * spec.vcpus
        return _steady(cpu.mhz, spec, mhz, factor)
    if cpu.kind == "trace":
        return _traced(spec, mhz, factor)
    if cpu.mhz is None:
        kind = "fixed" if cpu.distribution == "fixed" else "exponential"
        if not cpu.off_ns:
            return [Always()] * spec.vcpus
        one = OnOff(cpu.on_ns, cpu.off_ns, kind, kind)  # type: ignore[arg-type]
        return [scaled(one, factor)] * spec.vcpus
    rng = np.random.default_rng(0 if cpu.seed is None else cpu.seed)
    lengths = np.array([[cpu.on_ns, cpu.off_ns]], np.float64)
    if cpu.distribution == "exponential":
        lengths = rng.exponential(1.0, (DRAWS, 2)) * lengths
    whole = np.maximum(np.rint(lengths).astype(np.int64), [1, 0]).ravel()
    demands = np.tile([cpu.mhz, 0.0], len(whole) // 2)[whole > 0]
    bounds = np.concatenate([[0], np.cumsum(whole[whole > 0])])
    return _split(bounds, demands, spec, mhz, factor)


def turn(spec: VMSpec, mhz: float, factor: float, latency_ns: int) -> tuple[int, int] | None:
    """Give the CPU time for which a vCPU computes, and the time for which it waits then, in ns.

    It waits for the request; if less than all of a vCPU is demanded, at least as long as makes the
    demand. None: it waits for no request, or demands nothing. Arguments are those of `cpu_work`.
    """
    work = spec.workload
    if work is None or not work.disk.think_ns or work.cpu.mhz == 0:
        return None
    think = work.disk.think_ns
    computes, waits = think * factor, float(latency_ns)
    if work.cpu.mhz is not None:
        waits = max(waits, think * spec.vcpus * mhz / work.cpu.mhz - computes)
    return _ns(1, computes), min(MOST_NS, round(waits))


def _steady(demand: float, spec: VMSpec, mhz: float, factor: float) -> list[Workload]:
    return _split(np.array([0, LONG_NS]), np.array([demand]), spec, mhz, factor)


def _traced(spec: VMSpec, mhz: float, factor: float) -> list[Workload]:
    assert spec.workload is not None
    cpu = spec.workload.cpu
    written = os.stat(cpu.file).st_mtime_ns
    bounds, rows, names = _demands(cpu.file, written, cpu.interval_ns, bool(cpu.column))
    row = 0
    if names:
        name = cpu.column or (spec.name if len(names) > 1 else next(iter(names)))
        if name not in names:
            raise InvalidValueError(
                f"column of the demand of VM {spec.name!r:.80} must be a machine of {cpu.file}, "
                f"got {name!r:.80}; there are {', '.join(list(names)[:8])}"
            )
        row = names[name]
    each = spec.vcpus * mhz if cpu.mhz is None else cpu.mhz
    return _split(bounds, rows[row] * each, spec, mhz, factor)


@functools.lru_cache(maxsize=16)
def _demands(
    file: str, written_ns: int, interval_ns: int, named: bool
) -> tuple[Any, Any, dict[str, int]]:
    """Read a file of demands once, as long as it stays as it is; no names: one of one machine."""
    from pyvirt import traces  # needed by machines that have a trace alone
    from pyvirt.traces.demand import headings

    kind = Path(file).suffix
    if named or kind in (".npz", ".parquet") or (kind != ".npy" and len(headings(file)) > 2):
        bounds, rows, names = traces.read_demands(file, interval_ns=interval_ns)
        return bounds, rows, {name: row for row, name in enumerate(names)}
    bounds, values = traces.read_demand(file, interval_ns=interval_ns)
    return bounds, [values], {}


def _split(bounds: Any, demands: Any, spec: VMSpec, mhz: float, factor: float) -> list[Workload]:
    """Divide a demand in MHz among the vCPUs."""
    cpus = np.minimum(np.asarray(demands, np.float64) * factor / mhz, float(spec.vcpus))
    if len(cpus) == 1 and cpus[0] >= spec.vcpus:
        return [Always()] * spec.vcpus
    return list(Demand(bounds, cpus, GRAIN_NS, "queue", True).split(spec.vcpus))


def device_rates(
    spec: VMSpec, mhz: float, factor: float = 1.0, latency_ns: int = 0
) -> list[tuple[str, float, str]]:
    """Give name, requests a second and kind of each device that is asked something.

    Those that vCPUs wait for are as many as if these had CPUs for themselves. Arguments are those
    of `cpu_work`.
    """
    if spec.workload is None:
        return []
    disk, network = spec.workload.disk, spec.workload.network
    made = []
    requests = disk.reads_per_s + disk.writes_per_s
    found = turn(spec, mhz, factor, latency_ns)
    if found is not None:
        requests += spec.vcpus * SECOND / sum(found)
    names = [one.name for one in spec.disks] or ["disk"]
    made += [(name, requests / len(names), "disk_request") for name in names]
    packets = (network.send_mbps + network.receive_mbps) * 1e6 / 8 / network.packet_size
    cards = [one.name for one in spec.nics if one.connected] or ["nic"]
    made += [(name, packets / len(cards), "network_packet") for name in cards]
    return [one for one in made if one[1] > 0]


def device_cores(spec: VMSpec, mhz: float, factor: float = 1.0, latency_ns: int = 0) -> float:
    """Give the CPUs that the worlds of all its devices take; arguments are those of `cpu_work`."""
    table = device_table()["vmkernel"]
    rates = device_rates(spec, mhz, factor, latency_ns)
    cycles = sum(rate * table[kind]["cycles"] for _, rate, kind in rates)
    return float(cycles / (mhz * 1e6))


def device_work(rate: float, kind: str, mhz: float) -> Workload | None:
    """Give what a device's world of the VMkernel does, or None if nothing.

    Parameters
    ----------
    rate : float
        Requests a second.
    kind : {"disk_request", "network_packet"}
        What a request is.
    mhz : float
        Speed of a CPU.
    """
    share = rate * device_table()["vmkernel"][kind]["cycles"] / (mhz * 1e6)
    if share <= 0:
        return None
    return Demand(np.array([0, LONG_NS]), np.array([min(share, 1.0)]), GRAIN_NS, "queue", True)


def going_on(workload: Workload, elapsed_ns: int) -> Workload:
    """Give the rest of a workload of which some time is over.

    Parameters
    ----------
    workload : workload
        Of `pyvirt.sched`; one that is no `Demand` begins anew.
    elapsed_ns : int
        The time.
    """
    if not isinstance(workload, Demand) or not elapsed_ns:
        return workload
    bounds = np.asarray(workload.times_ns, np.int64)
    parts, period = workload.integers(), int(bounds[-1])
    if not workload.repeat and elapsed_ns >= period:
        return idle()
    past = elapsed_ns % period
    at = int(np.searchsorted(bounds, past, side="right")) - 1
    starts = np.append(0, bounds[at + 1 :] - past)
    rest = parts[at:]
    if workload.repeat and past:
        # then the beginning, up to here
        starts = np.concatenate([starts, bounds[1 : at + 1] + period - past])
        rest = np.concatenate([rest, parts[:at]])
        if past > bounds[at]:
            starts, rest = np.append(starts, period), np.append(rest, parts[at])
    return replace(workload, times_ns=starts, cpus=rest / SECOND, parts=rest)


def work_until(workload: Workload, time_ns: int) -> int | None:
    """Give the work in ns that came with a `Demand` up to a time; None for others."""
    if not isinstance(workload, Demand):
        return None
    bounds, parts = np.asarray(workload.times_ns, np.int64), workload.integers()
    whole, rest = divmod(time_ns, int(bounds[-1])) if workload.repeat else (0, time_ns)
    total = 0
    lengths = np.diff(bounds).tolist()
    if whole:
        total = whole * sum(a * b for a, b in zip(lengths, parts.tolist(), strict=True))
    for begin, length, part in zip(bounds.tolist(), lengths, parts.tolist(), strict=False):
        if begin >= rest:
            break
        total += min(length, rest - begin) * part
    return total // SECOND


def scaled(workload: Workload, factor: float) -> Workload:
    """Give a workload whose work takes so many times the CPU time; waits and gaps stay.

    Parameters
    ----------
    workload : workload
        Of `pyvirt.sched`.
    factor : float
        1 and the overhead.
    """
    if factor == 1.0 or isinstance(workload, (Always, Jobs)):
        return workload
    if isinstance(workload, Demand):
        parts = np.rint(workload.integers() * factor).astype(np.int64)
        return replace(workload, parts=parts)
    if isinstance(workload, Lock):
        section = _longer(workload.section_ns, factor)
        return replace(workload, work_ns=_longer(workload.work_ns, factor), section_ns=section)
    if isinstance(workload, (OnOff, Poisson, Periodic, Barrier)):
        return replace(workload, work_ns=_longer(workload.work_ns, factor))
    raise InvalidTypeError(f"workload must be one of pyvirt.sched's, got {workload!r:.80}")


def _longer(time: Any, factor: float) -> Any:
    """Give a time, or a distribution of times, so many times as long."""
    if isinstance(time, times.Fixed):
        return times.Fixed(_ns(time.time_ns, factor))
    if isinstance(time, times.Exponential):
        return times.Exponential(_ns(time.mean_ns, factor))
    if isinstance(time, times.Between):
        return times.Between(_ns(time.low_ns, factor), _ns(time.high_ns, factor))
    if isinstance(time, times.LogNormal):
        return times.LogNormal(_ns(time.mean_ns, factor), time.sigma)
    if isinstance(time, times.BoundedPareto):
        return times.BoundedPareto(_ns(time.low_ns, factor), _ns(time.high_ns, factor), time.alpha)
    if isinstance(time, times.Empirical):
        values = np.asarray(time.values_ns, np.int64)
        return times.Empirical(np.maximum(1, np.rint(values * factor)).astype(np.int64))
    return _ns(time, factor)


def _ns(time: int, factor: float) -> int:
    return min(MOST_NS, max(1, round(time * factor)))

"""Conservation laws that the result of every run keeps: CPU time, machines, pages, energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import PyvirtError
from pyvirt.machine.scenario.result import VM_STATES, Result

__all__ = ["ConservationError", "check"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
PAGE = 4096
ON = VM_STATES.index("on")
#: Events by which a machine comes to a host, and where they name it.
ARRIVALS = {"power-on": "host", "resume": "host", "restarted": "host", "migrated": "to"}
#: Hosts that divide time round what each machine runs to ns: together it may be more than all.
ROUNDING = 1e-9


class ConservationError(PyvirtError, AssertionError):
    """A result breaks a law; the message names the law, the row and the sample."""


def check(result: Result) -> None:
    """Check that a result keeps all conservation laws.

    Of machines, in each sample: the states of vCPUs add up to vCPUs times the time for which it was
    on, to the nanosecond; waiting is at least being idle and waiting for pages; it was on and down
    no longer than the sample lasts, and stunned no longer than on. Of hosts: their CPUs ran for as
    long as their machines, the worlds of devices, the console and migrations did, which is checked
    for a sample if no machine moved in it, and for the whole run in total; no longer than their
    capacity; their machines are those that are there; pages are backed once; energy is between
    that of an idle and of a full host, and none while a host is off.

    Parameters
    ----------
    result : Result
        Of `Scenario.run`.

    Raises
    ------
    ConservationError
        Names the law, the row and the sample where it is broken first.
    """
    _check_vcpus(result)
    _check_presence(result)
    _check_hosts(result)
    _check_pages(result)
    _check_energy(result)


def _refuse(law: str, names: tuple[str, ...], bad: Bools, detail: npt.NDArray[Any]) -> None:
    """Raise for the first row and sample that is bad."""
    if bad.any():
        row, sample = (int(one) for one in np.argwhere(bad)[0])
        raise ConservationError(
            f"{law}: {names[row]!r:.80}, sample {sample}, off by {detail[row, sample]}"
        )


def _check_vcpus(result: Result) -> None:
    vms, names = result.vms, result.vm_names
    for column in (one for one in vms if one.endswith("_ns")):
        _refuse(f"{column} is not negative", names, vms[column] < 0, vms[column])
    vcpus = np.array([vm.vcpus for vm in result.spec.cluster.vms], np.int64)[:, None]
    states = ("run_ns", "ready_ns", "costop_ns", "limited_ns", "wait_ns")
    extra = sum((vms[one] for one in states), np.zeros_like(vms["on_ns"])) - vcpus * vms["on_ns"]
    _refuse("states of vCPUs add up to the time that it is on", names, extra != 0, extra)
    extra = vms["idle_ns"] + vms["swap_wait_ns"] - vms["wait_ns"]
    _refuse("idle and waiting for pages are parts of waiting", names, extra > 0, extra)
    extra = vms["overhead_ns"] - vms["run_ns"]
    _refuse("the monitor's part is a part of running", names, extra > 0, extra)
    lasted = result.intervals_ns
    extra = vms["on_ns"] + vms["down_ns"] - lasted
    _refuse("on and down are parts of the sample", names, extra > 0, extra)
    extra = vms["stunned_ns"] - vms["on_ns"]
    _refuse("stunned is a part of on", names, extra > 0, extra)


def _check_presence(result: Result) -> None:
    vms = result.vms
    on = vms["state"] == ON
    lost = on != (vms["host"] >= 0)
    _refuse("who is on has a host, and nobody else", result.vm_names, lost, vms["host"])
    count = np.zeros_like(result.hosts["vms"])
    rows, samples = np.nonzero(on)
    np.add.at(count, (vms["host"][rows, samples], samples), 1)
    extra = result.hosts["vms"] - count
    _refuse("machines on hosts are those that are on", result.host_names, extra != 0, extra)


def _check_hosts(result: Result) -> None:
    hosts, names = result.hosts, result.host_names
    exact = result.spec.mode == "exact"
    for column in (one for one in hosts if one.endswith("_ns")):
        _refuse(f"{column} is not negative", names, hosts[column] < 0, hosts[column])
    extra = hosts["on_ns"] - result.intervals_ns
    _refuse("a host is on for a part of the sample", names, extra > 0, extra)
    capacity = result.capacity_ns[:, None] // 10**9 * hosts["on_ns"]
    extra = hosts["run_ns"] - capacity
    slack = 0 if exact else len(result.vm_names) + ROUNDING * capacity
    _refuse("CPUs run no longer than they are on", names, extra > slack, extra)
    own = hosts["migration_ns"] + hosts["console_ns"]
    machines = result.vms["run_ns"] + result.vms["device_run_ns"]
    made, unsure = own.copy(), np.zeros(own.shape, bool)
    for vm, sample, places in _stays(result):
        if len(places) == 1:
            made[places[0], sample] += machines[vm, sample]
        else:
            unsure[places, sample] = True
    extra = hosts["run_ns"] - made
    law = "CPUs run for machines, devices, the console and migrations"
    _refuse(law, names, (extra != 0) & ~unsure, extra)
    total = int(hosts["run_ns"].sum()) - int(own.sum()) - int(machines.sum())
    if total:
        raise ConservationError(f"{law}: over the whole run, off by {total}")


def _stays(result: Result) -> list[tuple[int, int, list[int]]]:
    """Give the hosts at which each machine was in each sample, where it was on."""
    vms = result.vms
    rows = {name: row for row, name in enumerate(result.vm_names)}
    hosts = {name: row for row, name in enumerate(result.host_names)}
    begins = result.times_ns - result.intervals_ns
    came: dict[tuple[int, int], set[int]] = {}
    for event in result.events:
        if event.what in ARRIVALS:
            place = hosts[event.to if ARRIVALS[event.what] == "to" else event.host]
            # what happens at the end of a sample belongs to both
            first = int(np.searchsorted(result.times_ns, event.time_ns))
            last = int(np.searchsorted(begins, event.time_ns, side="right"))
            for sample in range(first, last):
                came.setdefault((rows[event.vm], sample), set()).add(place)
    made = []
    for vm, sample in np.argwhere(vms["on_ns"] > 0).tolist():
        places = set(came.get((vm, sample), ()))
        places |= {int(vms["host"][vm, sample])} if vms["host"][vm, sample] >= 0 else set()
        if sample and vms["host"][vm, sample - 1] >= 0:
            places.add(int(vms["host"][vm, sample - 1]))
        made.append((vm, sample, sorted(places)))
    return made


def _check_pages(result: Result) -> None:
    vms, names = result.vms, result.vm_names
    pages = np.array([vm.memory // PAGE for vm in result.spec.cluster.vms], np.int64)[:, None]
    for column in (one for one in vms if one.endswith("_pages")):
        extra = vms[column] - pages
        bad = (vms[column] < 0) | (extra > 0)
        _refuse(f"{column} are pages of the machine", names, bad, extra)
    places = ("mapped_pages", "compressed_pages", "swapped_pages", "balloon_pages")
    extra = sum((vms[one] for one in places), np.zeros_like(vms["mapped_pages"])) - pages
    _refuse("each page is in one place", names, extra > 0, extra)
    extra = vms["shared_pages"] - vms["mapped_pages"]
    _refuse("shared pages are mapped", names, extra > 0, extra)
    hosts = result.hosts
    managed = hosts["memory_state"] >= 0
    total, free = hosts["total_pages"], hosts["free_pages"]
    bad = managed & ((free < 0) | (free > total))
    _refuse("free pages are pages of the host", result.host_names, bad, free)
    kept = [host.memory_for_host // PAGE for host in result.spec.cluster.hosts]
    taken = np.repeat(np.array(kept, np.int64)[:, None], total.shape[1], axis=1)
    rows, samples = np.nonzero(vms["host"] >= 0)
    own = (vms["mapped_pages"] - vms["shared_pages"])[rows, samples]
    np.add.at(taken, (vms["host"][rows, samples], samples), own)
    extra = taken - (total - free)
    law = "pages that machines have alone are not free"
    _refuse(law, result.host_names, managed & (extra > 0), extra)


def _check_energy(result: Result) -> None:
    joules, names = result.hosts["joules"], result.host_names
    on = result.hosts["on_ns"] / 1e9
    drawing = on + _coming(result) / 1e9
    least = result.power_watts.min(axis=1)[:, None] * on
    most = result.power_watts.max(axis=1)[:, None] * drawing
    slack = 1e-9 * (1.0 + most)
    _refuse("a host draws what an idle one does", names, joules < least - slack, least - joules)
    _refuse("a host draws what a full one does", names, joules > most + slack, joules - most)


def _coming(result: Result) -> Ints:
    """Give for how long each host came out of standby, in ns of each sample."""
    made = np.zeros(result.hosts["on_ns"].shape, np.int64)
    begins = result.times_ns - result.intervals_ns
    for row, name in enumerate(result.host_names):
        since: int | None = None
        mine = [event for event in result.events if event.host == name and not event.vm]
        for what, time in [*((one.what, one.time_ns) for one in mine), ("", result.duration_ns)]:
            if what == "host-coming":
                since = time
            elif since is not None and what in ("host-on", "host-failed", ""):
                low, high = np.maximum(begins, since), np.minimum(result.times_ns, time)
                made[row] += np.maximum(high - low, 0)
                since = None
    return made

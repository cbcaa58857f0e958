"""Hosts that divide the CPU time of each step among their virtual machines, by entitlement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import NONE, Cluster
from pyvirt.cluster.described import claims_of
from pyvirt.cluster.shares import (
    BUSY,
    CORE,
    DEMAND,
    FLOOR,
    GIVEN,
    LIMIT,
    ON,
    SHARE,
    STILL,
    HostShares,
)
from pyvirt.machine.admission import Admission
from pyvirt.machine.loads import device_cores, device_table
from pyvirt.machine.monitors import Monitors
from pyvirt.machine.paths.latency import Latencies
from pyvirt.machine.profile import load
from pyvirt.machine.scenario.fleet import HOST_TIMES, VM_TIMES
from pyvirt.machine.scenario.guests import derived
from pyvirt.machine.scenario.pooled import PooledTime
from pyvirt.machine.scenario.wanted import Wanted
from pyvirt.machine.scheduling import check_pools
from pyvirt.machine.vm import VM
from pyvirt.machine.vmm import VMM
from pyvirt.spec import HostSpec, PoolSpec, VMSpec

__all__ = ["DemandFleet"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SECOND = 1_000_000_000
#: Steps whose demands are found at once.
BLOCK = 512
KINDS = ("run_ns", "ready_ns", "limited_ns", "swap_wait_ns", "device_run_ns", "overhead_ns")


class DemandFleet:
    """See `Fleet`.

    What a machine wants and does not get is lost, and does not wait as under an exact scheduler. A
    host's CPU time goes to its machines between reservation and limit by their shares
    (`pyvirt.cluster.kernels.share`), over its resource pools if there are any (`PooledTime`), after
    what migrations, devices and the console take. Limits come first: what they keep from a machine,
    its own and those of its pools, counts as limited, and what is missing beyond that as ready.

    Parameters
    ----------
    hosts : sequence of HostSpec
    pools : sequence of sequence of PoolSpec
        For each host.
    cluster : Cluster
        With shares, reservations and limits; no machine is on yet.
    seed : int
    step_ns : int
        Of the scenario.
    pool_names : sequence of str
        The pool of each machine; empty: none.
    latencies : Latencies or None
        For how long vCPUs wait for requests to disks.

    Raises
    ------
    InvalidValueError
        Pools on a host whose scheduler knows of none, as under `ExactFleet`.
    """

    def __init__(
        self,
        hosts: Sequence[HostSpec],
        pools: Sequence[Sequence[PoolSpec]],
        cluster: Cluster,
        seed: int,
        step_ns: int,
        pool_names: Sequence[str],
        latencies: Latencies | None = None,
    ) -> None:
        self._hosts, self._step, self._latencies = list(hosts), step_ns, latencies
        self._state = [host.state for host in hosts]
        self._admission = [Admission(h, p) for h, p in zip(hosts, pools, strict=True)]
        self._monitors = [Monitors(h, load(h), seed=derived(seed, h.name)) for h in hosts]
        for host, admission in zip(hosts, self._admission, strict=True):
            if host.console_cpu_mhz:
                admission.reserve("(console)", "", host.console_cpu_mhz, 0)
        self.capacity_ns = np.array([host.cores * SECOND for host in hosts], np.int64)
        nowhere = cluster.copy()
        nowhere.vms.on[:], nowhere.vms.host[:] = 1, NONE
        self._shares = HostShares(nowhere, 0.0)
        self._core = self._shares.host[CORE, :-1].astype(np.float64)  # kHz
        self._pooled: PooledTime | None = None
        if any(pools):
            for host, mine in zip(hosts, pools, strict=True):
                check_pools(host, load(host), mine)
            self._pooled = PooledTime(pools, self._shares, pool_names)
        vms = len(cluster.vms)
        self._vcpus = cluster.vms.vcpus.astype(np.float64)
        self._limit = np.where(
            cluster.vms.limit[0] < 0, np.inf, cluster.vms.limit[0].astype(np.float64)
        )
        self._now = 0
        self._end = 0
        self._on = np.zeros(vms, bool)
        self._still = np.zeros(vms, bool)
        self._home = np.zeros(vms, np.int64)
        self._factor = np.ones(vms)
        self._began = np.zeros(vms, np.int64)
        self._wish = np.zeros(vms)  # kHz, with the monitor's part
        self._waiting = np.zeros(vms)  # part of its time that each vCPU waits for pages
        self._device = np.zeros(vms)  # cores
        self._console = np.zeros(vms)
        self._running: dict[int, VMM] = {}
        self._wanted: dict[int, Wanted] = {}
        self._table = np.zeros((vms, 0))
        self._table_from = 0
        self._sums = {name: np.zeros(vms, np.int64) for name in KINDS}
        self._total = np.zeros(vms, np.int64)  # time of vCPUs
        self._host_sums = {name: np.zeros(len(hosts), np.int64) for name in HOST_TIMES}
        self._burdens: list[dict[int, float]] = [{} for _ in hosts]
        self._last = 0

    # --- time ---

    def advance(self, to_ns: int) -> None:
        """Let time pass: what was divided holds."""
        dt = to_ns - self._now
        if not dt:
            return
        self._now = to_ns
        if self._pooled is not None:
            self._pooled.divide(self._on, self._home)
        on = self._on & ~self._still
        home = self._home
        core = self._core[home]
        most = self._vcpus * core
        given = np.where(on, self._shares.vm[GIVEN], 0) / core
        wish = np.minimum(self._wish, most)
        within = np.minimum(wish, self._limit)
        able = np.minimum(within, most * (1.0 - self._waiting))
        cut = wish - within
        if self._pooled is not None:
            allowed = np.minimum(able, self._pooled.allowed)
            cut, able = cut + (able - allowed), allowed
        rest = self._vcpus * (1.0 - self._waiting) - able / core
        parts = {
            "run_ns": given,
            "ready_ns": np.where(on, np.maximum(able / core - given, 0.0), 0.0),
            "limited_ns": np.where(on, np.minimum(cut / core, rest), 0.0),
            "swap_wait_ns": np.where(on, self._vcpus * self._waiting, 0.0),
        }
        # whole ns, of which none is counted twice
        total = np.where(self._on, self._vcpus.astype(np.int64) * dt, 0)
        self._total += total
        took = {}
        for name, values in parts.items():
            took[name] = np.minimum(np.rint(values * dt).astype(np.int64), total)
            total -= took[name]
            self._sums[name] += took[name]
        part = 1.0 - 1.0 / self._factor
        self._sums["overhead_ns"] += np.rint(took["run_ns"] * part).astype(np.int64)
        self._serve(dt, on, took["run_ns"])

    def _serve(self, dt: int, on: npt.NDArray[np.bool_], run: Ints) -> None:
        """Let devices, the console and migrations, in this order, have what machines leave them."""
        home, count = self._home, len(self._hosts)
        used = _sums(home, run, count)
        room = np.maximum(self.capacity_ns // SECOND * dt - used, 0)
        device = np.where(on, self._device * dt, 0.0)
        wanted = np.bincount(home, device, count)
        scale = np.divide(room, wanted, out=np.ones(count), where=wanted > room)
        served = np.floor(device * scale[home]).astype(np.int64)
        self._sums["device_run_ns"] += served
        used += _sums(home, served, count)
        borne = np.array([sum(burdens.values()) for burdens in self._burdens])
        console = np.bincount(home, np.where(on, self._console, 0.0), count)
        for name, cores in (("console_ns", console), ("migration_ns", borne)):
            room = np.maximum(self.capacity_ns // SECOND * dt - used, 0)
            took = np.minimum(np.rint(cores * dt).astype(np.int64), room)
            self._host_sums[name] += took
            used += took
        self._host_sums["run_ns"] += used

    def begin_step(self, now_ns: int, end_ns: int) -> None:
        """Take over the demands of a step."""
        at = (now_ns - self._table_from) // self._step
        if at >= self._table.shape[1]:
            self._table_from, at = now_ns, 0
            edges = now_ns + np.arange(BLOCK + 1) * self._step
            self._table = np.zeros((len(self._on), BLOCK))
            for row, wanted in self._wanted.items():
                self._table[row] = wanted.mean(np.maximum(edges - self._began[row], 0))
        self._end = end_ns
        rows = np.flatnonzero(self._on)
        self._wish[rows] = self._table[rows, at] * self._core[self._home[rows]] * self._factor[rows]
        self._divide()

    def _divide(self, *hosts: int) -> None:
        """Divide anew what hosts have, or all of them."""
        s = self._shares
        core = self._core[self._home]
        able = np.minimum(self._wish, self._vcpus * core * (1.0 - self._waiting))
        demand = np.rint(able).astype(np.int64)
        self._burden_hosts(hosts)
        if hosts:
            s.vm[DEMAND] = demand
            s.refresh(*hosts)
        else:
            s.new_demand(demand, 0)
        if self._pooled is not None:
            self._pooled.stale.update(hosts or range(len(self._hosts)))

    def _burden_hosts(self, hosts: Sequence[int]) -> None:
        own = np.bincount(
            self._home,
            np.where(self._on & ~self._still, self._device + self._console, 0.0),
            len(self._hosts),
        )
        for host in hosts or range(len(self._hosts)):
            cores = own[host] + sum(self._burdens[host].values())
            self._shares.host[BUSY, host] = round(cores * self._core[host])

    # --- hosts and machines ---

    def set_state(self, host: int, state: str) -> None:
        """Say what a host is doing."""
        self._state[host] = state
        self._shares.host[ON, host] = state in ("on", "maintenance")
        self._divide(host)

    def prepare(self, vm: VM, host: int) -> VMM:
        """Set aside what a machine reserves on a host."""
        spec = vm.spec
        self._monitors[host].check(spec, self._state[host])
        vmm = self._monitors[host].make(vm)
        self._admission[host].reserve(
            spec.name, spec.pool, spec.cpu_reservation, vmm.memory_reserved
        )
        vmm.cpu_reservation = spec.cpu_reservation
        return vmm

    def forget(self, vmm: VMM, host: int) -> None:
        """Give that back."""
        self._admission[host].release(vmm.vm.spec.pool, vmm.cpu_reservation, vmm.memory_reserved)

    def start(self, row: int, vmm: VMM, host: int, elapsed_ns: int, backlog: list[int]) -> None:
        """Let a machine run; there is no backlog."""
        spec, there = vmm.vm.spec, self._hosts[host]
        self._running[row] = vmm
        self._home[row], self._factor[row] = host, 1.0 + vmm.overhead
        self._began[row] = self._now - elapsed_ns
        factor = float(self._factor[row])
        wait = 0 if self._latencies is None else self._latencies.of(there.name, spec)
        self._device[row] = device_cores(spec, there.mhz, factor, wait)
        self._console[row] = _console_cores(spec, there)
        self._waiting[row] = 0.0
        wanted = self._wanted[row] = Wanted(spec, there.mhz, factor, wait)
        edges = self._table_from + np.arange(self._table.shape[1] + 1) * self._step
        if self._table.shape[1]:
            self._table[row] = wanted.mean(np.maximum(edges - self._began[row], 0))
        self._on[row], self._still[row] = True, False
        if self._end > self._now:
            rest = wanted.mean(np.array([self._now, self._end]) - self._began[row])
            self._wish[row] = rest[0] * self._core[host] * self._factor[row]
        self._shares.vm[STILL, row] = 0
        self._shares.shift(row, self._shares.nowhere, host)
        self._regroup(host)
        self._divide(host)

    def stop(self, row: int) -> list[int]:
        """Let a machine no longer run."""
        host = int(self._home[row])
        self._on[row] = False
        self._shares.shift(row, host, self._shares.nowhere)
        del self._wanted[row]
        self.forget(self._running.pop(row), host)
        self._regroup(host)
        self._divide(host)
        return []

    def _regroup(self, host: int) -> None:
        if self._pooled is not None:
            self._pooled.changed(host)

    def stun(self, row: int) -> None:
        """Let a machine stand still."""
        self._still[row] = True
        self._shares.vm[STILL, row] = 1
        self._divide(int(self._home[row]))

    def go_on(self, row: int) -> None:
        """End what `stun` began."""
        self._still[row] = False
        self._shares.vm[STILL, row] = 0
        self._divide(int(self._home[row]))

    def reconfigure(self, row: int, spec: VMSpec) -> None:
        """Give a machine other shares and bounds."""
        host, vmm = int(self._home[row]), self._running.get(row)
        if vmm is not None:
            before = (vmm.cpu_reservation, vmm.memory_reserved)
            memory, _ = self._monitors[host].memory_needed(spec, vmm.mode)
            after = (spec.cpu_reservation, memory)
            self._admission[host].change(spec.name, spec.pool, before, after)
            vmm.cpu_reservation, vmm.memory_reserved = after
        claims = claims_of([spec])
        limit = int(claims["limit"][0, 0])
        self._shares.vm[LIMIT, row], self._limit[row] = limit, np.inf if limit < 0 else limit
        self._shares.vm[FLOOR, row] = claims["reservation"][0, 0]
        self._shares.vm[SHARE, row] = claims["shares"][0, 0]
        if vmm is not None:
            self._regroup(host)
            self._divide(host)

    def set_pools(self, pools: Sequence[Sequence[PoolSpec]]) -> None:
        """Give the pools of each host other shares and bounds."""
        made = [one.with_pools(mine) for one, mine in zip(self._admission, pools, strict=True)]
        self._admission = made
        if self._pooled is not None:
            self._pooled.set_pools(pools)

    def burden(self, host: int, cores: float) -> int:
        """Let a migration take so many cores."""
        self._last += 1
        self._burdens[host][self._last] = cores
        self._divide(host)
        return self._last

    def relieve(self, host: int, burden: int) -> None:
        """End that."""
        self._burdens[host].pop(burden, None)
        self._divide(host)

    def wait_for_pages(self, waits: list[tuple[int, int]], step_ns: int) -> None:
        """Let machines wait, up to the next step of the memory, for as long as in the last."""
        before = np.flatnonzero(self._waiting)
        self._waiting[:] = 0.0
        for row, wait in waits:
            self._waiting[row] = min(1.0, wait / (self._vcpus[row] * step_ns))
        changed = np.union1d(before, np.flatnonzero(self._waiting))
        if len(changed):
            self._divide(*np.unique(self._home[changed]).tolist())

    def see_paths(self) -> None:
        """Nothing: requests to disks cost CPU time, whatever the paths."""

    # --- counters ---

    def vm_times(self) -> dict[str, Ints]:
        """Give the times of all machines since the start."""
        made = {name: np.zeros(len(self._on), np.int64) for name in VM_TIMES}
        for name, values in self._sums.items():
            made[name] = values.copy()
        made["wait_ns"] = self._total - made["run_ns"] - made["ready_ns"] - made["limited_ns"]
        made["idle_ns"] = made["wait_ns"] - made["swap_wait_ns"]
        return made

    def host_times(self) -> dict[str, Ints]:
        """Give the times of all hosts since the start."""
        return {name: values.copy() for name, values in self._host_sums.items()}


def _sums(homes: Ints, values: Ints, count: int) -> Ints:
    """Add up numbers by their hosts."""
    made = np.zeros(count, np.int64)
    np.add.at(made, homes, values)
    return made


def _console_cores(spec: Any, host: HostSpec) -> float:
    if not host.console_cpu_mhz:
        return 0.0
    table = device_table()["console"]
    rates = (table[one]["requests_per_s"] * table[one]["cycles"] for one in spec.devices)
    return float(sum(rates)) / (host.mhz * 1e6)

"""Hosts whose schedulers are exact to the nanosecond: a VMkernel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.machine.paths.latency import Latencies
from pyvirt.machine.scenario.fleet import HOST_TIMES, VM_TIMES
from pyvirt.machine.scenario.guests import derived
from pyvirt.machine.vm import VM
from pyvirt.machine.vmkernel import VMkernel
from pyvirt.machine.vmm import VMM
from pyvirt.sched.demand import Demand
from pyvirt.spec import Claimant, HostSpec, NetworkSpec, PoolSpec, VMSpec
from pyvirt.spec.base import fields_of

__all__ = ["ExactFleet"]

Ints = npt.NDArray[np.int64]
SECOND = 1_000_000_000
#: Counters of a scheduler, by our names.
COUNTERS = {
    "run_ns": "run",
    "ready_ns": "rdy",
    "costop_ns": "cstp",
    "limited_ns": "mlmtd",
    "wait_ns": "wait",
    "idle_ns": "idle",
    "swap_wait_ns": "swpwt",
}


class ExactFleet:
    """See `Fleet`.

    Parameters
    ----------
    hosts : sequence of HostSpec
    pools : sequence of sequence of PoolSpec
        For each host.
    vms : int
        How many machines there are in all.
    seed : int
    paths : PathEngine or None
        Which somebody else lets go on.
    threads : int
        Hosts run in so many; the result does not depend on it.
    site : Site or None
        What the paths are of.
    networks : sequence of NetworkSpec
        Those of the cluster.
    latencies : Latencies or None
        For how long vCPUs wait for requests to disks.
    """

    def __init__(
        self,
        hosts: Sequence[HostSpec],
        pools: Sequence[Sequence[PoolSpec]],
        vms: int,
        seed: int,
        paths: Any,
        threads: int,
        site: Any = None,
        networks: Sequence[NetworkSpec] = (),
        latencies: Latencies | None = None,
    ) -> None:
        self.kernels = [
            VMkernel(host, pools=mine, seed=derived(seed, host.name), paths=paths, alone=False)
            for host, mine in zip(hosts, pools, strict=True)
        ]
        for kernel in self.kernels:
            kernel.latencies = latencies
        if site is not None:
            for kernel in self.kernels:
                found = {one.name: site.team.get((kernel.name, one.switch)) for one in networks}
                teams = {name: team for name, team in found.items() if team is not None}
                kernel.wire(teams, site.port)
        self.capacity_ns = np.array([host.cpus * SECOND for host in hosts], np.int64)
        self._threads = min(threads, len(hosts))
        self._where: dict[int, tuple[int, VMM]] = {}
        self._gone = {name: np.zeros(vms, np.int64) for name in VM_TIMES}
        self._burdens: list[dict[int, list[int]]] = [{} for _ in hosts]
        self._borne = np.zeros(len(hosts), np.int64)
        self._last = 0

    def advance(self, to_ns: int) -> None:
        """Let time pass on all hosts, in threads if there are several."""
        if self._threads < 2 or to_ns - self.kernels[0].now_ns < SECOND // 100:
            for kernel in self.kernels:
                kernel.advance(to_ns)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(lambda kernel: kernel.advance(to_ns), self.kernels))

    def set_state(self, host: int, state: str) -> None:
        """Say what a host is doing."""
        kernel = self.kernels[host]
        kernel.state = state
        if kernel.console is not None:
            # what it has not done it does when the host is back
            if state in ("on", "maintenance"):
                kernel.scheduler.wake(kernel.console.world)
            else:
                kernel.scheduler.block(kernel.console.world)

    def prepare(self, vm: VM, host: int) -> VMM:
        """Set aside what a machine reserves on a host."""
        return self.kernels[host].prepare(vm)

    def forget(self, vmm: VMM, host: int) -> None:
        """Give that back."""
        self.kernels[host].forget(vmm)

    def start(self, row: int, vmm: VMM, host: int, elapsed_ns: int, backlog: list[int]) -> None:
        """Let a machine run."""
        self.kernels[host].receive(vmm, elapsed_ns=elapsed_ns, backlog=backlog)
        self._where[row] = (host, vmm)

    def stop(self, row: int) -> list[int]:
        """Let a machine no longer run."""
        host, vmm = self._where[row]
        kernel = self.kernels[host]
        rows = kernel.scheduler.counters()
        for name, values in self._counted(rows, [vmm]).items():
            self._gone[name][row] += int(values[0])
        left = kernel.send(vmm)
        del self._where[row]
        return left

    def stun(self, row: int) -> None:
        """Let a machine stand still."""
        host, vmm = self._where[row]
        self.kernels[host].stun(vmm)

    def go_on(self, row: int) -> None:
        """End what `stun` began."""
        host, vmm = self._where[row]
        self.kernels[host].go_on(vmm)

    def reconfigure(self, row: int, spec: VMSpec) -> None:
        """Give a machine other shares and bounds."""
        if row in self._where:
            host, vmm = self._where[row]
            claims = {name: getattr(spec, name) for name in fields_of(Claimant) if name != "name"}
            self.kernels[host].reconfigure(vmm, **claims)

    def set_pools(self, pools: Sequence[Sequence[PoolSpec]]) -> None:
        """Give the pools of each host other shares and bounds."""
        for kernel, mine in zip(self.kernels, pools, strict=True):
            kernel.admission.with_pools(mine)
        for kernel, mine in zip(self.kernels, pools, strict=True):
            kernel.set_pools(mine)

    def burden(self, host: int, cores: float) -> int:
        """Let a migration take so many cores, by worlds of the VMkernel."""
        scheduler = self.kernels[host].scheduler
        self._last += 1
        if cores <= 0:
            return self._last
        count = min(max(1, math.ceil(cores)), scheduler.cpus)
        share = min(cores / count, 1.0)
        work = Demand([0, 3600 * SECOND], [share], repeat=True)
        # the shares of a VM of so many vCPUs
        made = scheduler.add_vm(count, [work] * count, weight=1000 * count)
        self._burdens[host][self._last] = list(made.worlds)
        return self._last

    def relieve(self, host: int, burden: int) -> None:
        """End that."""
        worlds = self._burdens[host].pop(burden, [])
        scheduler = self.kernels[host].scheduler
        if worlds:
            self._borne[host] += int(scheduler.counters()[worlds]["run"].sum())
        for world in worlds:
            scheduler.remove(world)

    def begin_step(self, now_ns: int, end_ns: int) -> None:
        """Nothing: workloads bring their work by themselves."""

    def wait_for_pages(self, waits: list[tuple[int, int]], step_ns: int) -> None:
        """Let machines' vCPUs wait for pages."""
        for row, wait in waits:
            host, vmm = self._where[row]
            self.kernels[host].wait_for_pages(vmm, wait, step_ns)

    def see_paths(self) -> None:
        """Look at the storage paths anew."""
        for kernel in self.kernels:
            kernel.see_paths()

    def vm_times(self) -> dict[str, Ints]:
        """Give the times of all machines since the start."""
        made = {name: values.copy() for name, values in self._gone.items()}
        there: list[list[tuple[int, VMM]]] = [[] for _ in self.kernels]
        for row, (host, vmm) in self._where.items():
            there[host].append((row, vmm))
        for kernel, mine in zip(self.kernels, there, strict=True):
            if mine:
                vms = [row for row, _ in mine]
                found = self._counted(kernel.scheduler.counters(), [vmm for _, vmm in mine])
                for name, values in found.items():
                    made[name][vms] += values
        return made

    def host_times(self) -> dict[str, Ints]:
        """Give the times of all hosts since the start."""
        made = {name: np.zeros(len(self.kernels), np.int64) for name in HOST_TIMES}
        for at, kernel in enumerate(self.kernels):
            made["run_ns"][at] = int(np.asarray(kernel.scheduler.cpu_counters()["run"]).sum())
            made["migration_ns"][at] = self._borne[at]
            worlds = [world for worlds in self._burdens[at].values() for world in worlds]
            rows = kernel.scheduler.counters()
            if worlds:
                made["migration_ns"][at] += int(rows[worlds]["run"].sum())
            if kernel.console is not None:
                made["console_ns"][at] = int(rows[kernel.console.world]["run"])
        return made

    @staticmethod
    def _counted(rows: Any, vmms: list[VMM]) -> dict[str, Ints]:
        """Add up what the worlds of machines did."""
        sizes = [len(vmm.worlds) for vmm in vmms]
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        mine = rows[[world for vmm in vmms for world in vmm.worlds]]
        made: dict[str, Ints] = {
            name: np.add.reduceat(mine[column].astype(np.int64), first)
            for name, column in COUNTERS.items()
        }
        made["device_run_ns"] = np.array(
            [int(rows[list(vmm.device_worlds.values())]["run"].sum()) for vmm in vmms], np.int64
        )
        part = np.array([vmm.overhead / (1.0 + vmm.overhead) for vmm in vmms])
        made["overhead_ns"] = np.rint(made["run_ns"] * part).astype(np.int64)
        return made

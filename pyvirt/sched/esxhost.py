"""A host under the ESX policy: pools, admission control, amounts in MHz."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyvirt.entitlement import Client, Entitlements, Ledger, Pool, Shares, solve
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.esx import Esx, per_second, pool_rows, speed
from pyvirt.sched.scheduler import Scheduler, SchedulerSnapshot
from pyvirt.sched.workloads import Workload

__all__ = ["EsxHost", "EsxVM"]


@dataclass(frozen=True, slots=True)
class EsxVM:
    """A VM that is powered on; amounts in MHz.

    Attributes
    ----------
    name, pool : str
        Its name, and the path of its pool.
    number : int
        Of the VM in the scheduler.
    worlds : tuple of int
        Of its vCPUs.
    shares : int
    reservation_mhz, limit_mhz : float
        An infinite limit is none.
    """

    name: str
    pool: str
    number: int
    worlds: tuple[int, ...]
    shares: int
    reservation_mhz: float
    limit_mhz: float


class EsxHost(Scheduler):
    """A host with the ESX policy: pools, admission control, amounts in MHz.

    Parameters
    ----------
    cpus : int
        Number of CPUs.
    mhz : float
        Speed of each; the capacity of the host is `cpus` times that.
    pools : Pool, optional
        Tree of resource pools without clients; its root stands for the host. Default: the root.
    rng : int or numpy.random.Generator, optional
        As for `Scheduler`.
    **policy
        Parameters of `Esx`.

    Raises
    ------
    AdmissionError
        The pools reserve more than there is.

    Examples
    --------
    >>> from pyvirt.entitlement import Pool
    >>> from pyvirt.sched import EsxHost
    >>> tree = Pool("host", [Pool("prod", shares=2000), Pool("test", shares=1000, limit=500)])
    >>> host = EsxHost(cpus=1, mhz=3000, pools=tree)
    >>> web = host.power_on("web", pool="host/prod")
    >>> ci = host.power_on("ci", pool="host/test")
    >>> host.run(3_000_000_000) > 0
    True
    >>> [round(host.used_mhz(vm)) for vm in (web, ci)]
    [2500, 500]
    """

    def __init__(
        self,
        cpus: int,
        *,
        mhz: float,
        pools: Pool | None = None,
        rng: int | np.random.Generator | None = None,
        **policy: Any,
    ) -> None:
        self.mhz = speed(mhz)
        self.pools = Pool("host") if pools is None else pools
        if not isinstance(self.pools, Pool):
            raise InvalidTypeError(f"pools must be a Pool, not {pools!r:.80}")
        if "pools" in policy:
            raise InvalidTypeError("pools must be a Pool")
        rows = pool_rows(self.pools, self.mhz)
        self._numbers = _pool_numbers(self.pools, self.mhz)
        super().__init__(cpus, policy=Esx(pools=[row for _, row in rows], **policy), rng=rng)
        self._ledger = Ledger(self.pools, cpus * self.mhz)
        self._vms: dict[str, EsxVM] = {}

    def power_on(
        self,
        name: str,
        *,
        vcpus: int = 1,
        workload: Workload | Sequence[Workload | None] | None = None,
        shares: int | Shares = Shares.NORMAL,
        reservation_mhz: float = 0.0,
        limit_mhz: float = math.inf,
        pool: str | None = None,
        affinity: Iterable[int] | None = None,
        responses: bool = False,
        wakes: bool = False,
    ) -> EsxVM:
        """Add a VM at the present time, if its reservation is to be had.

        Parameters
        ----------
        name : str
            Unlike those of the other VMs on the host.
        vcpus : int, default 1
            At most as many as the host has CPUs.
        workload : Workload or sequence of Workload, optional
            What its vCPUs do: one for all, or one for each; default: they always want a CPU.
        shares : int or Shares, default Shares.NORMAL
            Of the VM; a level counts for each vCPU.
        reservation_mhz, limit_mhz : float
            Set aside for it; what it never gets more than.
        pool : str, optional
            Path of its pool; default: the root.
        affinity : iterable of int, optional
            CPUs that its vCPUs may run on.
        responses, wakes : bool, default False
            Whether response times and wake-ups of its vCPUs are recorded: `Scheduler.add_vm`.

        Returns
        -------
        EsxVM

        Raises
        ------
        AdmissionError
            What is missing, and in which pool. Nothing is changed then.
        InvalidValueError, InvalidTypeError
            For what cannot be.
        """
        if not name or "/" in name:
            raise InvalidValueError(f"name must be a text without a slash, got {name!r:.80}")
        if name in self._vms:
            raise InvalidValueError(f"a VM called {name!r:.80} is powered on already")
        path = self.pools.name if pool is None else pool
        if path not in self._numbers:
            some = ", ".join(list(self._numbers)[:8])
            raise InvalidValueError(f"no pool has the path {path!r:.80}; there are {some}")
        if isinstance(vcpus, bool) or not isinstance(vcpus, (int, np.integer)):
            raise InvalidTypeError(f"vcpus must be an integer, not {vcpus!r:.80}")
        if not 1 <= vcpus <= self.cpus:
            raise InvalidValueError(
                f"vcpus must be 1 to {self.cpus}, the CPUs of the host, got {vcpus}"
            )
        weight = int(shares.number("cpu", vcpus)) if isinstance(shares, Shares) else shares
        # checks what the numbers have in common
        Client(name, float(weight), reservation_mhz, limit_mhz)
        if limit_mhz == 0:
            raise InvalidValueError(f"limit of VM {name!r} must be positive, got 0")
        self._ledger.reserve(path, reservation_mhz)
        try:
            vm = self.add_vm(
                int(vcpus),
                workload,
                weight=weight,
                reservation=per_second(reservation_mhz, self.mhz),
                limit=None if limit_mhz == math.inf else per_second(limit_mhz, self.mhz),
                affinity=affinity,
                responses=responses,
                wakes=wakes,
                pool=self._numbers[path],
            )
        except BaseException:
            self._ledger.release(path, reservation_mhz)
            raise
        made = EsxVM(name, path, vm.number, tuple(vm.worlds), weight, reservation_mhz, limit_mhz)
        self._vms[name] = made
        return made

    def power_off(self, vm: EsxVM | str) -> None:
        """Remove a VM, and give back what it reserved."""
        gone = self._vm_named(vm)
        for world in gone.worlds:
            self.remove(world)
        self._ledger.release(gone.pool, gone.reservation_mhz)
        del self._vms[gone.name]

    def vms(self) -> tuple[EsxVM, ...]:
        """Give the VMs that are powered on."""
        return tuple(self._vms.values())

    def available_mhz(self, pool: str | None = None) -> float:
        """Give the largest reservation that a new VM in a pool can have."""
        return self._ledger.available(self.pools.name if pool is None else pool)

    def used_mhz(self, vm: EsxVM | str) -> float:
        """Give the mean speed that a VM was run at, over the time since it was powered on."""
        rows = self.counters()[list(self._vm_named(vm).worlds)]
        elapsed = int(rows["elapsed"][0])
        return float(rows["run"].sum() / elapsed * self.mhz) if elapsed else 0.0

    def entitlements(self) -> Entitlements:
        """Give what pools and VMs are entitled to now, in MHz, by path.

        A VM demands a CPU for each of its worlds that does not wait.
        """
        waiting = self.counters()["state"] == 1
        clients: dict[str, list[Client]] = {}
        for vm in self._vms.values():
            demand = float(np.count_nonzero(~waiting[list(vm.worlds)])) * self.mhz
            clients.setdefault(vm.pool, []).append(
                Client(vm.name, float(vm.shares), vm.reservation_mhz, vm.limit_mhz, demand=demand)
            )
        tree = _with_clients(self.pools, self.pools.name, clients)
        return solve(tree, self.cpus * self.mhz, overcommit="scale")

    # --- state ---

    def snapshot(self) -> SchedulerSnapshot:
        """Give the state of the scheduler, and of what is powered on and reserved."""
        base = super().snapshot()
        book = (self.mhz, self.pools, copy.deepcopy(self._ledger), dict(self._vms))
        return _HostSnapshot(base._made, (base._state, book))

    def restore(self, snapshot: SchedulerSnapshot) -> None:
        """Go back to a snapshot of this host, or of one with the same pools and policy."""
        if not isinstance(snapshot, _HostSnapshot):
            raise InvalidTypeError(f"snapshot must be of an EsxHost, got {snapshot!r:.80}")
        state, (mhz, pools, ledger, vms) = snapshot._state
        super().restore(SchedulerSnapshot(snapshot._made, state))
        self.mhz, self.pools = mhz, pools
        self._numbers = _pool_numbers(pools, mhz)
        self._ledger, self._vms = copy.deepcopy(ledger), dict(vms)

    def _vm_named(self, vm: EsxVM | str) -> EsxVM:
        name = vm.name if isinstance(vm, EsxVM) else vm
        found = self._vms.get(name)
        if found is None or (isinstance(vm, EsxVM) and vm != found):
            raise InvalidValueError(f"no VM called {name!r:.80} is powered on")
        return found


class _HostSnapshot(SchedulerSnapshot):
    """Of an EsxHost: with VMs and reservations."""

    __slots__ = ()


def _pool_numbers(pools: Pool, mhz: float) -> dict[str, int]:
    return {path: number for number, (path, _) in enumerate(pool_rows(pools, mhz))}


def _with_clients(pool: Pool, path: str, clients: dict[str, list[Client]]) -> Pool:
    children: list[Pool | Client] = [
        _with_clients(child, f"{path}/{child.name}", clients)
        for child in pool.children
        if isinstance(child, Pool)
    ]
    return Pool(
        pool.name,
        [*children, *clients.get(path, [])],
        pool.shares,
        pool.reservation,
        pool.limit,
        pool.expandable,
    )

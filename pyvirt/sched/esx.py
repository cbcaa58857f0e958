"""The ESX policy: consumed over entitled, over a tree of pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from pyvirt._core.sched.policies.esx import Esx as _Esx
from pyvirt.entitlement import Pool, Shares
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.numa import Numa

__all__ = ["Cosched", "Esx", "PoolRow", "per_second", "pool_rows", "speed"]

Cosched: TypeAlias = Literal["none", "balance", "strict", "relaxed"]
PoolRow: TypeAlias = tuple[int, float, int, int]

SECOND = 1_000_000_000
ONE_POOL: Sequence[PoolRow] = ((0, 1.0, 0, -1),)


class Esx(_Esx):
    """The policy of ESX: whoever has had least of what it is entitled to runs next.

    Parameters
    ----------
    quantum_ns : int, default 50 ms
        Longest timeslice. VMware's white papers name 50 ms; real slices end earlier.
    resolve_ns : int, default 1 s
        Time between two computations of the entitlements.
    resolve_on_wake : bool, default True
        Whether they are also computed when a world begins or ceases to demand a CPU, not only when
        VMs come, go or change. If not, a VM that demanded nothing at the last computation still
        makes a new one necessary when it wakes.
    limit_period_ns : int, default 100 ms
        Limits hold in each period of this length; the periods begin at multiples of it.
    credit_ns : int, default 0
        Virtual time that a world which wakes may be behind the least that competes: how much of
        what it did not use is saved up. ESX's own way is not published. With 0 it waits for its
        turn; with a quantum, whoever sleeps much gets a CPU at once.
    wake_ns : int, default 0
        A world that comes to wait for a CPU takes it from one whose virtual time is more than so
        much above its own.
    pull_ns : int, default 50 ms
        A CPU takes a world that waits for another one if its virtual time is more than so much
        below those that wait here. An idle CPU takes the least whatever the difference.
    cosched : {"none", "balance", "strict", "relaxed"}, default "relaxed"
        See Notes.
    skew_stop_ns, skew_start_ns : int, default 3 ms and 2 ms
        Skews at which a vCPU is stopped, and may start again. `skew_stop_ns` is also the threshold
        of strict co-scheduling.
    laggard_ns : int, default 50 ms
        Virtual time that a vCPU which waits for a CPU and holds a sibling back is given in advance.
    pools : Pool or sequence of (int, float, int, int), optional
        The tree of resource pools, without clients: amounts in MHz. Or for each pool the number of
        its parent, shares, and reservation and limit (-1: none) in ns of CPU time a second, in
        breadth-first order, the root first.
    mhz : float, optional
        Speed of a CPU, if `pools` is in MHz.
    charge_used : bool, default True
        Whether a world beside busy threads of its core is charged for what it gets of the core
        (%USED, see `Topology`), not for its time on the CPU (%RUN).
    balance_ns : int, default 0
        Time between two looks at all queues, which even them out; 0: none. CPUs pull in any case.
    imbalance_percent : int, default 25
        What the longest queue may have more than the shortest one, in each last-level cache, node,
        socket and the host, up to 10,000, before it gives worlds away.
    numa : Numa, optional
        Home nodes; default: none. Where a VM's memory is counts with its parameter ``memory_mb``
        (default 0: it has none that could be remote).

    Notes
    -----
    The VMs' entitlements are those of `pyvirt.entitlement.solve`: a VM demands a CPU for each of
    its worlds that is not waiting, within its limit, and its weight is its shares. They are divided
    equally among its worlds that demand one. A world's virtual time grows by the CPU time it uses
    over its entitlement, and the least runs: what it consumed over what it is entitled to ("The CPU
    Scheduler in VMware vSphere 5.1"). A world that wakes is not more than `credit_ns` behind
    the least that competes.

    Each CPU has a queue. A world that comes to compete goes to an idle CPU, its last one or one
    near it (`Topology`), else to the queue with the fewest worlds. A VM is in the pool that its
    parameter ``pool`` names by number.

    Limits of VMs and of pools are budgets of CPU time in each period for all worlds below: while k
    of them run and r ns are left, the limit ends r // k ns later. Then they are in the state
    ``limited`` until the next period.

    Co-scheduling: ``balance`` puts siblings on distinct CPUs where it can, and does no more
    (Sukwong and Kim, EuroSys 2011). The others follow the progress of the vCPUs of a VM, which
    grows while a vCPU runs or is halted; a halted one is not carried beyond the furthest sibling
    that would run. ``relaxed``: a vCPU that is `skew_stop_ns` ahead of the slowest of its
    siblings is in state ``costop`` until it is no more than `skew_start_ns` ahead. ``strict``
    (ESX 2): if a vCPU that would run and does not is `skew_stop_ns` behind one that runs, all
    stop, and start again only when there is a CPU for each at once: one that is idle, picks at
    that moment, or runs a world whose virtual time is above the mean of the VM's. Their progress
    is equal then. A VM that could not have a CPU for each vCPU if it were alone is not held to
    that.

    With home nodes, worlds wait for CPUs of their VM's node, or of their part's, alone. What a node
    is owed is reckoned by the VMs' shares, without pools and reservations (`Numa`).

    Not modelled: time spent in the hypervisor, frequency scaling. Progress and limits count the
    time on a CPU, whatever a busy thread of the same core leaves of it.
    """

    def __init__(
        self,
        quantum_ns: int = 50_000_000,
        resolve_ns: int = SECOND,
        resolve_on_wake: bool = True,
        limit_period_ns: int = 100_000_000,
        credit_ns: int = 0,
        wake_ns: int = 0,
        pull_ns: int = 50_000_000,
        cosched: Cosched = "relaxed",
        skew_stop_ns: int = 3_000_000,
        skew_start_ns: int = 2_000_000,
        laggard_ns: int = 50_000_000,
        pools: Pool | Sequence[PoolRow] = ONE_POOL,
        mhz: float | None = None,
        charge_used: bool = True,
        balance_ns: int = 0,
        imbalance_percent: int = 25,
        numa: Numa | None = None,
    ) -> None:
        if isinstance(pools, Pool):
            if mhz is None:
                raise InvalidValueError("mhz must be given for pools in MHz")
            pools = [row for _, row in pool_rows(pools, speed(mhz))]
        super().__init__(
            quantum_ns,
            resolve_ns,
            resolve_on_wake,
            limit_period_ns,
            credit_ns,
            wake_ns,
            pull_ns,
            cosched,
            skew_stop_ns,
            skew_start_ns,
            laggard_ns,
            pools,
            charge_used,
            balance_ns,
            imbalance_percent,
            numa,
        )


def speed(mhz: Any) -> float:
    """Check the speed of a CPU."""
    if isinstance(mhz, bool) or not isinstance(mhz, (int, float, np.integer, np.floating)):
        raise InvalidTypeError(f"mhz must be a number, not {mhz!r:.80}")
    if not 0 < mhz < math.inf:
        raise InvalidValueError(f"mhz must be positive and finite, got {mhz}")
    return float(mhz)


def per_second(amount: float, mhz: float) -> int:
    """Give ns of CPU time a second for MHz."""
    return round(amount / mhz * SECOND)


def pool_rows(root: Pool, mhz: float) -> list[tuple[str, PoolRow]]:
    """Give path and figures of each pool, breadth-first."""
    waiting = [(root, root.name, 0)]
    rows: list[tuple[str, PoolRow]] = []
    for number, (pool, path, parent) in enumerate(waiting):
        limit = -1 if pool.limit == math.inf else per_second(pool.limit, mhz)
        shares = pool.shares
        if isinstance(shares, Shares):
            shares = shares.number("cpu", 4)
        rows.append((path, (parent, float(shares), per_second(pool.reservation, mhz), limit)))
        for child in pool.children:
            if not isinstance(child, Pool):
                raise InvalidValueError(
                    f"pools must not contain clients, got {child.name!r:.80}: power VMs on instead"
                )
            waiting.append((child, f"{path}/{child.name}", number))
    return rows

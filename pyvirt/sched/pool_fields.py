"""Resource pools, as a scenario file has them, and who may reserve how much in them.

CPU time is in ns per second of time throughout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyvirt.entitlement import Client, Pool, Shares, admit
from pyvirt.sched.fields import Fields

__all__ = ["ScenarioPool", "admit_all", "cpu_time", "pool_rows", "read_pools"]

SECOND = 1_000_000_000
LEVELS = {level.value: level for level in Shares}
MOST_SHARES = 1 << 30
PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ScenarioPool:
    """A resource pool.

    Attributes
    ----------
    name : str
        Of which the scenario has one.
    parent : str or None
        The pool that it is in; None: the host.
    shares : float
        Among its siblings.
    reservation : int
        CPU time in ns per second of time.
    limit : int or None
        Likewise.
    expandable : bool
        Whether what its VMs reserve beyond its reservation comes from its parent.
    """

    name: str
    parent: str | None = None
    shares: float = 4000
    reservation: int = 0
    limit: int | None = None
    expandable: bool = True


def cpu_time(fields: Fields, key: str) -> int | None:
    """Read a part of CPUs, such as ``"150%"`` of one."""
    text = fields.text(key)
    if text is None:
        return None
    found = PERCENT.fullmatch(text)
    if found is None:
        fields.refuse(key, 'a part of CPUs as percent of one, such as "150%"')
    return round(float(found[1]) * SECOND / 100)


def read_pools(top: Fields) -> tuple[ScenarioPool, ...]:
    """Read the [[pool]] tables, and give them breadth-first: first those in the host."""
    pools: dict[str, ScenarioPool] = {}
    places: dict[str, Fields] = {}
    for fields in top.tables("pool"):
        name = fields.text("name", "its name") or ""
        if name in pools:
            fields.refuse("name", "a name that no other pool has")
        shares = fields.raw("shares")
        if shares is None or isinstance(shares, str):
            level = fields.choice("shares", LEVELS) or "normal"
            # a pool with a level counts as a VM of 4 vCPUs (vSphere Resource Management)
            shares = LEVELS[level].number("cpu", 4)
        else:
            shares = fields.integer("shares", 1, MOST_SHARES)
        expandable = fields.flag("expandable") if "expandable" in fields else True
        reservation = cpu_time(fields, "reservation") or 0
        limit = cpu_time(fields, "limit")
        if limit is not None and limit < reservation:
            fields.refuse("limit", f"at least the reservation, {fields.raw('reservation')}")
        parent = fields.text("parent")
        pools[name] = ScenarioPool(name, parent, shares, reservation, limit, expandable)
        places[name] = fields
        fields.finish("a pool")
    ordered: list[ScenarioPool] = []
    ready: set[str | None] = {None}
    left = list(pools.values())
    for pool in left:
        if pool.parent is not None and pool.parent not in pools:
            places[pool.name].choice("parent", pools)
    while left:
        layer = [pool for pool in left if pool.parent in ready]
        if not layer:
            places[left[0].name].refuse("parent", "a pool that is not below this one")
        ordered += layer
        ready = {pool.name for pool in layer}
        left = [pool for pool in left if pool not in layer]
    return tuple(ordered)


def pool_rows(pools: Sequence[ScenarioPool]) -> list[tuple[int, float, int, int]]:
    """Give the number of the parent, shares, reservation and limit (-1: none); the host first."""
    numbers = {pool.name: i for i, pool in enumerate(pools, 1)}
    rows = [(0, 1.0, 0, -1)]
    for pool in pools:
        parent = 0 if pool.parent is None else numbers[pool.parent]
        limit = -1 if pool.limit is None else pool.limit
        rows.append((parent, float(pool.shares), pool.reservation, limit))
    return rows


def admit_all(
    pools: Sequence[ScenarioPool], clients: Sequence[tuple[str, str | None, int]], cpus: int
) -> None:
    """Refuse reservations that cannot be met.

    Parameters
    ----------
    pools : sequence of ScenarioPool
        The pools.
    clients : sequence of (str, str or None, int)
        Name, pool and reservation of each VM.
    cpus : int
        What there is to reserve from.

    Raises
    ------
    AdmissionError
        What is missing where, in percent of one CPU.
    """

    def percent(ns: int) -> float:
        return 100 * ns / SECOND

    def tree(name: str | None) -> list[Pool | Client]:
        children: list[Pool | Client] = [
            Pool(
                pool.name,
                tree(pool.name),
                reservation=percent(pool.reservation),
                limit=math.inf if pool.limit is None else percent(pool.limit),
                expandable=pool.expandable,
            )
            for pool in pools
            if pool.parent == name
        ]
        return children + [
            Client(vm, reservation=percent(reservation))
            for vm, pool, reservation in clients
            if pool == name
        ]

    admit(Pool("host", tree(None)), 100.0 * cpus)

"""What resource pools make of the CPU time of hosts that divide it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.shares import (
    BUSY,
    CAPACITY,
    DEMAND,
    FLOOR,
    GIVEN,
    LIMIT,
    ON,
    SHARE,
    STILL,
    HostShares,
)
from pyvirt.entitlement import Client, Pool, PoolTrees
from pyvirt.machine.admission import pool_of
from pyvirt.spec import PoolSpec

__all__ = ["PooledTime"]

Ints = npt.NDArray[np.int64]
MHZ = 1000.0  # kHz
#: What a kHz may lack for rounding.
NEARLY = 1e-6


class PooledTime:
    """Divides the CPU of each host over its tree of pools, as `pyvirt.entitlement.solve` does.

    Parameters
    ----------
    pools : sequence of sequence of PoolSpec
        For each host; a pool stands after its parent.
    shares : HostShares
        Where machines' shares, reservations, limits and demands stand, in kHz, and what each is
        given.
    names : sequence of str
        Of the machines' pools, by row; empty: the host itself.

    Attributes
    ----------
    stale : set of int
        Hosts that are to be divided anew before time passes.
    allowed : ndarray of float64, shape (V,)
        kHz that each machine would be given were limits all that it is held back by.
    """

    def __init__(
        self, pools: Sequence[Sequence[PoolSpec]], shares: HostShares, names: Sequence[str]
    ) -> None:
        self._shares, self._names = shares, names
        self._trees: dict[int, tuple[Ints, PoolTrees]] = {}
        self.stale: set[int] = set()
        self.allowed = np.full(len(names), np.inf)
        self.set_pools(pools)

    def set_pools(self, pools: Sequence[Sequence[PoolSpec]]) -> None:
        """Know other shares and bounds of the pools."""
        self._pools = pools
        self._limited = [any(one.cpu_limit is not None for one in mine) for mine in pools]
        self._trees.clear()
        self.stale.update(range(len(pools)))

    def changed(self, host: int) -> None:
        """Know that other machines are on a host now."""
        self._trees.pop(host, None)

    def divide(self, on: npt.NDArray[np.bool_], home: Ints) -> None:
        """Give the machines on hosts that are stale their parts.

        Parameters
        ----------
        on : ndarray of bool, shape (V,)
            Which machines run.
        home : ndarray of int64, shape (V,)
            Their hosts.
        """
        for host in sorted(self.stale):
            rows = np.flatnonzero(on & (home == host))
            if len(rows):
                self._divide(host, rows)
        self.stale.clear()

    def _divide(self, host: int, rows: Ints) -> None:
        if host not in self._trees:
            trees = PoolTrees(self._tree(host, rows))
            order = [int(trees.names[one].rpartition(" ")[2]) for one in trees.clients]
            self._trees[host] = np.array(order, np.int64), trees
        columns, trees = self._trees[host]
        vm, table = self._shares.vm, self._shares.host
        wanted = np.where(vm[STILL, columns] > 0, 0, vm[DEMAND, columns]) / MHZ
        room = max(0, table[CAPACITY, host] - table[BUSY, host]) if table[ON, host] == 1 else 0
        most = [[room / MHZ]]
        if self._limited[host]:
            # and what it would be with room for all
            most.append([float(wanted.sum())])
        found = trees.solve(most, demand=wanted, overcommit="scale")
        given = found[:, trees.clients] * MHZ
        vm[GIVEN, columns] = np.floor(given[0] + NEARLY)
        self.allowed[columns] = given[1] if self._limited[host] else np.inf

    def _tree(self, host: int, rows: Ints) -> Pool:
        """Make the tree of a host, in MHz; names are numbers, for those given may be alike."""
        vm, specs = self._shares.vm, self._pools[host]
        names = ("", *(one.name for one in specs))
        inside: dict[str, list[Pool | Client]] = {name: [] for name in names}
        for row in rows.tolist():
            limit = math.inf if vm[LIMIT, row] < 0 else float(vm[LIMIT, row]) / MHZ
            shares, floor = float(max(1, vm[SHARE, row])), float(vm[FLOOR, row]) / MHZ
            inside[self._names[row]].append(Client(f"vm {row}", shares, floor, limit))
        # those below come before those above
        for at, spec in reversed(list(enumerate(specs))):
            pool = pool_of(spec, inside[spec.name], "cpu")
            inside[spec.parent].append(replace(pool, name=f"pool {at}"))
        return Pool("host", tuple(inside[""]))

"""Entitlements of the nodes of a tree, and of many trees and demands at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt._core.pooltree import solve_trees
from pyvirt.entitlement.pools import (
    LEAST_SHARES,
    MOST_SHARES,
    Client,
    Pool,
    Resource,
    check_resource,
    shares_of,
)
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError

__all__ = ["Entitlements", "PoolTrees", "solve"]

Floats = npt.NDArray[np.float64]
Overcommit = Literal["error", "scale"]


@dataclass(frozen=True, slots=True, eq=False)
class Entitlements:
    """What each node of a tree gets.

    Attributes
    ----------
    names : tuple of str
        Paths such as ``"root/production/web"``, breadth-first: the root first, then its children,
        then the children of each of those.
    given : ndarray of float64
        The entitlement of each, in the unit of the capacity.
    floor : ndarray of float64
        What it gets at least: the part of its reservation that it keeps.
    demand : ndarray of float64
        What it gets at most: its demand within its limit, of a pool that of its children.
    level : ndarray of float64
        Of a pool: what one share is worth to those of its children that are between floor and
        demand; infinite if all children have what they demand. NaN for clients.
    """

    names: tuple[str, ...]
    given: Floats
    floor: Floats
    demand: Floats
    level: Floats

    def __getitem__(self, name: str) -> float:
        """Give the entitlement of a node by its path, or by its last part if that is unique."""
        if name in self.names:
            return float(self.given[self.names.index(name)])
        found = [i for i, path in enumerate(self.names) if path.rpartition("/")[2] == name]
        if len(found) != 1:
            what = f"{len(found)} nodes are" if found else "no node is"
            raise InvalidValueError(f"{what} called {name!r:.80}; the paths are {self._some()}")
        return float(self.given[found[0]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def as_dict(self) -> dict[str, float]:
        """Give the entitlements by path."""
        return dict(zip(self.names, self.given.tolist(), strict=True))

    def _some(self) -> str:
        return ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")


class PoolTrees:
    """Trees as flat arrays, to be solved for many demands and capacities without Python objects.

    Parameters
    ----------
    trees : Pool or sequence of Pool
        The roots.
    resource : {"cpu", "memory"}, default "cpu"
        What levels of shares count.

    Attributes
    ----------
    names : tuple of str
        Paths of all nodes, in breadth-first order over all trees: the roots first.
    parent : ndarray of int64
        Index of each node's pool; -1 for roots.
    first : ndarray of int64
        The children of node i are those from ``first[i]`` to ``first[i + 1] - 1``.
    shares, reservation, limit : ndarray of float64
        Of each node. They may be changed in place, within what `Pool` and `Client` accept.
    clients : ndarray of int64
        Nodes that are clients, in the order of the columns of `demand` and `touched`.
    demand, touched : ndarray of float64
        What the clients had when the trees were given; NaN in `touched` for None.
    """

    def __init__(self, trees: Pool | Sequence[Pool], *, resource: Resource = "cpu") -> None:
        check_resource(resource)
        roots = [trees] if isinstance(trees, Pool) else list(trees)
        for root in roots:
            if not isinstance(root, Pool):
                raise InvalidTypeError(f"a tree must be a Pool, not {root!r:.80}")
        nodes: list[Pool | Client] = list(roots)
        names = [root.name for root in roots]
        parent = [-1] * len(roots)
        first = [len(roots)]
        at = 0
        while at < len(nodes):
            node = nodes[at]
            if isinstance(node, Pool):
                nodes += node.children
                names += [f"{names[at]}/{child.name}" for child in node.children]
                parent += [at] * len(node.children)
            first.append(len(nodes))
            at += 1
        self.roots = len(roots)
        self.names = tuple(names)
        self.parent = np.array(parent, dtype=np.int64)
        self.first = np.array(first, dtype=np.int64)
        self.shares = np.array([shares_of(node, resource) for node in nodes], dtype=np.float64)
        self.reservation = np.array([node.reservation for node in nodes], dtype=np.float64)
        self.limit = np.array([node.limit for node in nodes], dtype=np.float64)
        leaves = [(i, node) for i, node in enumerate(nodes) if isinstance(node, Client)]
        self.clients = np.array([i for i, _ in leaves], dtype=np.int64)
        self.demand = np.array([node.demand for _, node in leaves], dtype=np.float64)
        self.touched = np.array(
            [math.nan if node.touched is None else node.touched for _, node in leaves],
            dtype=np.float64,
        )
        for fixed in (self.parent, self.first, self.clients):
            fixed.flags.writeable = False

    def __len__(self) -> int:
        return len(self.names)

    def solve(
        self,
        capacity: npt.ArrayLike,
        *,
        demand: npt.ArrayLike | None = None,
        touched: npt.ArrayLike | None = None,
        overcommit: Overcommit = "error",
    ) -> Floats:
        """Solve for one demand, or for many.

        Parameters
        ----------
        capacity : float or array
            What each tree divides: one number for all, shape (trees,), or (rows, trees).
        demand, touched : array of float, optional
            Of the clients: shape (clients,), or (rows, clients). By default those of the trees.
        overcommit : {"error", "scale"}, default "error"
            What happens where floors exceed what there is, see `solve`.

        Returns
        -------
        ndarray of float64
            Entitlements, shape (nodes,), or (rows, nodes) if an argument has rows.
        """
        rows, given = self._solve(capacity, demand, touched, overcommit)
        return given[0] if rows else given[0][0]

    def entitlements(
        self, capacity: npt.ArrayLike, *, overcommit: Overcommit = "error"
    ) -> Entitlements:
        """Solve once, for the demands of the trees, with names and bounds."""
        _, (given, floor, cap, level) = self._solve(capacity, None, None, overcommit)
        return Entitlements(self.names, given[0], floor[0], cap[0], level[0])

    def _solve(
        self, capacity: Any, demand: Any, touched: Any, overcommit: str
    ) -> tuple[bool, tuple[Floats, Floats, Floats, Floats]]:
        if overcommit not in ("error", "scale"):
            raise InvalidValueError(
                f'overcommit must be "error" or "scale", got {overcommit!r:.80}'
            )
        self._check_nodes()
        m = len(self.clients)
        demands = self._rows(self.demand if demand is None else demand, "demand", m)
        marks = self._rows(self.touched if touched is None else touched, "touched", m)
        totals = self._rows(capacity, "capacity", self.roots)
        _refuse(~(demands >= 0), demands, "demand", "not negative")
        _refuse(marks < 0, marks, "touched", "not negative")
        _refuse(~((totals >= 0) & (totals < np.inf)), totals, "capacity", "finite and not negative")
        counts = {array.shape[0] for array in (demands, marks, totals) if array.ndim == 2}
        if len(counts) > 1:
            raise InvalidValueError(
                f"demand, touched and capacity must have equally many rows, got {sorted(counts)}"
            )
        rows = next(iter(counts), 1)
        given, floor, cap, level, row, node = solve_trees(
            self.first,
            self.shares,
            self.reservation,
            self.limit,
            self.clients,
            _repeated(demands, rows),
            _repeated(marks, rows),
            _repeated(totals, rows),
            overcommit == "scale",
        )
        if node >= 0:
            below = slice(self.first[node], self.first[node + 1])
            needed = float(floor[row, below].sum())
            raise AdmissionError(self.names[node], needed, float(given[row, node]))
        return bool(counts), (given, floor, cap, level)

    def _check_nodes(self) -> None:
        """Refuse what was changed into something that the compiled solver must not see."""
        for name in ("shares", "reservation", "limit"):
            if getattr(self, name).shape != (len(self),):
                raise InvalidTypeError(f"{name} must have shape ({len(self)},)")
        bad = ~((self.shares == 0) | ((self.shares >= LEAST_SHARES) & (self.shares <= MOST_SHARES)))
        bad |= ~((self.reservation >= 0) & (self.reservation <= self.limit))
        bad |= self.reservation == np.inf
        if bad.any():
            at = int(bad.argmax())
            raise InvalidValueError(
                "each node must have shares of 0 or in [1e-12, 1e15], and 0 <= reservation <= "
                f"limit with a finite reservation, got shares {self.shares[at]:g}, reservation "
                f"{self.reservation[at]:g}, limit {self.limit[at]:g} of {self.names[at]!r}"
            )

    @staticmethod
    def _rows(values: Any, name: str, columns: int) -> Floats:
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"{name} must be numbers, not {values!r:.80}") from error
        if array.ndim == 0:
            array = np.full(columns, array)
        if array.ndim > 2 or array.shape[-1] != columns:
            raise InvalidTypeError(
                f"{name} must have shape ({columns},) or (rows, {columns}), got {array.shape}"
            )
        return array


def _repeated(array: Floats, rows: int) -> Floats:
    return np.ascontiguousarray(np.broadcast_to(array, (rows, array.shape[-1])))


def _refuse(bad: npt.NDArray[np.bool_], values: Floats, name: str, accepted: str) -> None:
    if bad.any():
        raise InvalidValueError(f"{name} must be {accepted}, got {values[bad][0]}")


def solve(
    tree: Pool,
    capacity: float,
    *,
    resource: Resource = "cpu",
    overcommit: Overcommit = "error",
) -> Entitlements:
    """Divide a capacity over a tree of pools.

    A node among its siblings gets ``clip(level * shares, floor, demand)``, with the one level at
    which all that the pool has is given away, or all demand is met: weighted max-min fairness. The
    floor of a client is the part of its reservation that it keeps (see `Client.touched`), that of
    a pool the larger of its own reservation and its children's floors, as far as they demand it.
    Reservations that are not used are given to others.

    Parameters
    ----------
    tree : Pool
        The root pool. Its shares say nothing.
    capacity : float
        What there is to divide, in the unit of reservations, limits and demands.
    resource : {"cpu", "memory"}, default "cpu"
        What levels of shares count: vCPUs or MB.
    overcommit : {"error", "scale"}, default "error"
        Admission control makes it impossible that floors exceed what a pool has. Where they do
        for all that, such as after the loss of hosts, raise, or give each child a part of its
        floor, the same part to all.

    Returns
    -------
    Entitlements

    Raises
    ------
    AdmissionError
        Floors exceed what a pool has, and `overcommit` is ``"error"``.

    Examples
    --------
    >>> from pyvirt.entitlement import Client, Pool, solve
    >>> tree = Pool("host", [
    ...     Client("a", shares=2000),
    ...     Client("b", shares=1000, reservation=2000),
    ...     Client("c", shares=1000, limit=500),
    ... ])
    >>> solve(tree, 6000).as_dict()
    {'host': 6000.0, 'host/a': 3500.0, 'host/b': 2000.0, 'host/c': 500.0}
    """
    if not isinstance(tree, Pool):
        raise InvalidTypeError(f"tree must be a Pool, not {tree!r:.80}")
    if isinstance(capacity, (bool, str)) or np.ndim(capacity) != 0:
        raise InvalidTypeError(f"capacity must be a number, not {capacity!r:.80}")
    return PoolTrees(tree, resource=resource).entitlements(capacity, overcommit=overcommit)

"""The whole-number state of a balance, from a cluster: what the kernels of DRS work on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.migration_cost import MigrationCost
from pyvirt.cluster.tables import CPU, MEMORY, NONE, PAGE, Automation, HostState

if TYPE_CHECKING:
    from pyvirt.cluster.kernels.balance import Balance
    from pyvirt.cluster.kernels.index import Rows
    from pyvirt.cluster.model import Cluster
    from pyvirt.cluster.reach import Reach

__all__ = ["State", "contention_weights"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MOST_BITS = 40
"""A VM of 2**-40 of a host is nothing."""


def contention_weights(loads: Floats, *, contended: int = 3) -> tuple[int, int]:
    """Give the weights of CPU and memory in the imbalance.

    Parameters
    ----------
    loads : ndarray of float64, shape (2, n)
        Normalised entitlements of the hosts that are up.
    contended : int, default 3
        Weight of a resource that some host has too little of, where this is so of one alone
        (recalled from Gulati et al. 2012, not verified).

    Returns
    -------
    tuple of int
        1 and 1 unless one is contended; 0 for a resource that nobody is entitled to.
    """
    tight = [bool((loads[r] > 1).any()) for r in (CPU, MEMORY)]
    weights = [contended if tight[r] and not tight[1 - r] else 1 for r in (CPU, MEMORY)]
    weights = [w if loads[r].any() else 0 for r, w in enumerate(weights)]
    return weights[0], weights[1]


class State:
    """Loads, sums and lists of VMs of one cluster, as `pyvirt.cluster.kernels.balance` has them.

    The cluster is left as it is; moves happen in the state's own arrays.

    Parameters
    ----------
    cluster : Cluster
        Its present placement.
    reach : Reach
        Of this cluster.
    amount : ndarray of int64, shape (2, V)
        Entitlements.
    cost : MigrationCost, optional
        What migrations cost; None: costs are not asked for.
    where : ndarray of int64, shape (V,), optional
        Where the VMs are, if not where the cluster has them.
    weights : tuple of int, optional
        Of CPU and memory; by default `contention_weights`.

    Attributes
    ----------
    balance : Balance
        For kernels.
    bits : int
        k: loads are in 2**-k of a host.
    """

    balance: Balance

    def __init__(
        self,
        cluster: Cluster,
        reach: Reach,
        amount: Ints,
        cost: MigrationCost | None = None,
        *,
        where: Ints | None = None,
        weights: tuple[int, int] | None = None,
    ) -> None:
        from pyvirt.cluster.kernels import balance as kernel

        vms, hosts = cluster.vms, cluster.hosts
        placed = np.where(vms.on == 1, vms.host if where is None else where, NONE)
        up = np.flatnonzero(hosts.state == HostState.ON)
        size, order, start = _sizes(hosts.capacity, up)
        raw = _sums(amount, placed, len(hosts))
        free = hosts.capacity - _sums(reach.arrays.need, placed, len(hosts))
        capacity = hosts.capacity.astype(np.float64)
        # A host that has none of a resource counts as empty.
        loads = np.divide(raw, capacity, out=np.zeros_like(capacity), where=capacity > 0)[:, up]
        self.weights = contention_weights(loads) if weights is None else weights
        sizes = capacity[:, order[start[:-1]]]
        self.bits = _bits(loads, amount, sizes, self.weights)
        scale = np.divide(2.0**self.bits, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        movable = (vms.automation != Automation.DISABLED) & (placed != NONE)
        movable[movable] = size[placed[movable]] >= 0
        self.balance = kernel.Balance(
            **_with_nowhere(reach),
            **_prices(cluster, up, cost),
            where=placed,
            free=free,
            amount=np.ascontiguousarray(amount),
            movable=movable.astype(np.uint8),
            host=order,
            size_start=start,
            size=size,
            scale=scale,
            weight=np.array(self.weights, dtype=np.int64),
            raw=np.zeros_like(raw),
            load=np.zeros_like(raw),
            sums=np.zeros((2, 2), dtype=np.int64),
            node=np.zeros((len(vms), 4), dtype=np.int64),
            head=np.full(len(hosts), -1, dtype=np.int64),
        )
        mean = loads.mean(axis=1) if up.size else np.zeros(2)
        self.origin = np.rint(mean * 2.0**self.bits).astype(np.int64)
        kernel.fill(self.balance, self.origin)

    def restart(self, where: Ints) -> None:
        """Put all VMs where they were."""
        from pyvirt.cluster.kernels import balance as kernel

        b = self.balance
        b.where[:] = where
        b.free[:] = b.capacity.astype(np.int64) - _sums(b.need, where, b.head.size)
        kernel.fill(b, self.origin)

    def rows(self) -> Rows:
        """Make the index of the best moves of each host."""
        from pyvirt.cluster.kernels import index

        b = self.balance
        count = b.head.size
        made = index.Rows(
            value=np.zeros(count, dtype=np.int64),
            vm=np.full(count, index.BOUND, dtype=np.int64),
            target=np.full(count, NONE, dtype=np.int64),
            largest=np.zeros((2, count), dtype=np.int64),
            front=np.zeros(b.host.size, dtype=np.int64),
            front_end=np.zeros(b.size_start.size - 1, dtype=np.int64),
            ideal=np.zeros((2, b.size_start.size - 1), dtype=np.int64),
            hint=np.full(count, NONE, dtype=np.int64),
            refused=np.zeros(b.where.size, dtype=np.int64),
        )
        index.build(b, made)
        return made

    def imbalance(self, spread: int | None = None) -> float:
        """Give the weighted imbalance, of the present state or of a given J.

        Returns
        -------
        float
            Root of the weighted mean of the resources' variances.
        """
        from pyvirt.cluster.kernels import balance as kernel

        total = sum(self.weights)
        count = self.balance.host.size
        if total == 0 or count == 0:
            return 0.0
        value = int(kernel.spread_of(self.balance)) if spread is None else int(spread)
        return math.sqrt(value / total) / count / 2.0**self.bits

    def imbalances(self, spreads: Ints) -> Floats:
        """Give the imbalance of each J of an array."""
        scale = max(sum(self.weights), 1) ** 0.5 * max(self.balance.host.size, 1) * 2.0**self.bits
        return np.sqrt(spreads.astype(np.float64)) / scale

    def spread(self, imbalance: float) -> int:
        """Give the largest J whose imbalance is not above a given one."""
        scaled = imbalance * self.balance.host.size * 2.0**self.bits
        return int(min(scaled * scaled * sum(self.weights), 2.0**62))


def _with_nowhere(reach: Reach) -> dict[str, Any]:
    """Give the arrays of a reach with one more class at the end, of VMs that may be nowhere."""
    arrays = reach.arrays._asdict()
    for key in ("must", "should"):
        none = np.zeros((1, arrays[key].shape[1]), dtype=np.uint64)
        arrays[key] = np.concatenate([arrays[key], none])
    arrays["klass"] = arrays["klass"].copy()
    return arrays


def _sums(amount: Ints, placed: Ints, hosts: int) -> Ints:
    here = np.flatnonzero(placed >= 0)
    where = placed[here]
    # Exact: each amount and each sum is a whole number below 2**53.
    return np.stack(
        [np.bincount(where, weights=row[here], minlength=hosts) for row in amount]
    ).astype(np.int64)


def _sizes(capacity: Ints, up: Ints) -> tuple[Ints, Ints, Ints]:
    """Number the capacities of the hosts that are up: of each host, hosts in order, starts."""
    size = np.full(capacity.shape[1], -1, dtype=np.int64)
    _, number = np.unique(capacity[:, up], axis=1, return_inverse=True)
    number = number.ravel()
    size[up] = number
    order = up[np.argsort(number, kind="stable")]
    counts = np.bincount(number)
    return size, order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _bits(loads: Floats, amount: Ints, sizes: Floats, weights: tuple[int, int]) -> int:
    """Choose k such that no sum of a balance, and no candidate's gain, leaves 62 bits.

    A descent never raises J, so the sums of squares at the start bound all later ones; a candidate
    adds a VM to one host.
    """
    hosts = loads.shape[1]
    if hosts == 0 or not any(weights):
        return 0
    most = 0.0
    for resource, weight in enumerate(weights):
        least = sizes[resource][sizes[resource] > 0].min(initial=np.inf)
        largest = amount[resource].max(initial=0) / least if np.isfinite(least) else 0.0
        off = np.abs(loads[resource] - loads[resource].mean())
        reach = off.max() + largest + 1e-3
        # S1 is at most H times the deviation, S1**2 at most H times the sum of squares.
        most += weight * hosts * (2 * (off**2).sum() + 8 * reach**2 + 8 * reach * hosts**0.5)
    return int(min(max((62 - math.ceil(math.log2(most))) // 2, 1), _MOST_BITS))


def _prices(cluster: Cluster, up: Ints, cost: MigrationCost | None) -> dict[str, Any]:
    hosts, vms = cluster.hosts, cluster.vms
    capacity = hosts.capacity.astype(np.float64)
    known = MigrationCost() if cost is None else cost
    core = np.minimum(hosts.core_khz, hosts.capacity[CPU] // np.maximum(hosts.cores, 1))
    used = np.where(vms.consumed > 0, vms.consumed, vms.memory)
    return {
        "asked": np.array(
            [
                float(cost is not None),
                known.stable_s,
                known.demand_spread,
                known.downtime_s,
                known.benefit_over_cost,
            ]
        ),
        "capacity": capacity,
        "mean_capacity": capacity[:, up].mean(axis=1) if up.size else np.zeros(2),
        "pages_s": hosts.link_mbps * (1e6 / 8 / PAGE),
        "migration_khz": known.cores(hosts.link_mbps) * core,
        "copied": (used + vms.overhead).astype(np.float64),
        "dirty": vms.dirty_pages_s.astype(np.float64),
    }

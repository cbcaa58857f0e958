"""A score for each VM, as DRS has it from vSphere 7 on: our model of what is not published.

Documented are a score of 0 to 100 % for each VM, buckets of 20, and a cluster's score that is a
weighted mean; not the formula (VMware, "vSphere 7: A closer look at the VM DRS score", 2020). Here
the score is the part of its demand that a VM can expect to get on its host: of CPU or memory,
whichever is scarcer, with demand spread as `MigrationCost.demand_spread` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.migration_cost import MigrationCost
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.rules import consistent
from pyvirt.cluster.tables import CPU, NONE, PAGE, Automation
from pyvirt.errors import InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["ScoreMove", "VMScores", "improve_scores", "vm_scores"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VMScores:
    """Scores of the VMs that are on and have a host.

    Attributes
    ----------
    vm : ndarray of float64, shape (V,)
        0 to 100; NaN for others.
    cluster : float
        The mean, weighted by demand for CPU; 100 for no VM.
    buckets : ndarray of int64, shape (5,)
        VMs with scores up to 20, 40, 60, 80 and 100.
    """

    vm: Floats
    cluster: float
    buckets: Ints


@dataclass(frozen=True, slots=True)
class ScoreMove:
    """A migration after which a VM has a better score.

    Attributes
    ----------
    vm, source, target : int
        Rows.
    before, after : float
        The VM's score; after it, with what the migration costs taken off.
    reason : str
        In words.
    """

    vm: int
    source: int
    target: int
    before: float
    after: float
    reason: str


def vm_scores(cluster: Cluster, *, demand_spread: float = 1.0) -> VMScores:
    """Score each VM where it is.

    Parameters
    ----------
    cluster : Cluster
        VMs on hosts that are not on have the score of a host that delivers as if it were.
    demand_spread : float, default 1
        See `MigrationCost`.

    Returns
    -------
    VMScores
    """
    MigrationCost(demand_spread=demand_spread)  # checks it
    delivered = _delivered(cluster.load(), cluster.hosts.capacity, demand_spread)
    return _scores(cluster, _placed(cluster), delivered)


def improve_scores(
    cluster: Cluster,
    *,
    max_moves: int = 10,
    least_gain: float = 1.0,
    slowdown: float = 0.1,
    cost: MigrationCost = MigrationCost(),  # noqa: B008  (frozen)
) -> list[ScoreMove]:
    """Find moves that improve scores: the VM with the lowest score first, to its best host.

    Parameters
    ----------
    cluster : Cluster
        Is not changed.
    max_moves : int, default 10
        At most.
    least_gain : float, default 1
        Points that a VM must gain, and by which the cluster's score must not fall.
    slowdown : float, default 0.1
        What a VM loses of its speed while it migrates (our choice).
    cost : MigrationCost, optional
        Its downtime, and the time lost by the slowdown, count as a part of the time for which
        demand is stable.

    Returns
    -------
    list of ScoreMove
        In the order in which they are to be made. Rules, reservations and automation are kept.
    """
    if max_moves < 0 or least_gain < 0:
        raise InvalidValueError("max_moves and least_gain must not be negative")
    if not 0 <= slowdown <= 1:
        raise InvalidValueError(f"slowdown must be in [0, 1], got {slowdown!r}")
    after = cluster.copy()
    after.rules.enabled[:] = consistent(cluster)[0]
    reach = Reach(after)
    hosts, vms = after.hosts, after.vms
    made: list[ScoreMove] = []
    tried: set[int] = set()
    while len(made) < max_moves:
        now = vm_scores(after, demand_spread=cost.demand_spread)
        free = (vms.automation != Automation.DISABLED) & ~np.isnan(now.vm)
        free[list(tried)] = False
        if not free.any():
            break
        vm = int(np.argmin(np.where(free, now.vm, np.inf)))
        tried.add(vm)
        source = int(vms.host[vm])
        best: tuple[float, int, float] | None = None
        for target in range(len(hosts)):
            if target == source or reach.refusal(vm, target):
                continue
            vms.host[vm] = target
            then = vm_scores(after, demand_spread=cost.demand_spread)
            vms.host[vm] = source
            mbps = min(hosts.link_mbps[source], hosts.link_mbps[target])
            pages = vms.consumed[vm] if vms.consumed[vm] > 0 else vms.memory[vm]
            seconds = float(pages) * PAGE * 8 / (float(mbps) * 1e6)
            lost = 100.0 * min(
                1.0, (cost.downtime_s + slowdown * seconds) / max(cost.stable_s, 1e-9)
            )
            score = float(then.vm[vm]) - lost
            fair = then.cluster >= now.cluster
            enough = fair and score >= now.vm[vm] + least_gain
            if enough and (best is None or score > best[0]):
                best = (score, target, then.cluster)
        if best is None:
            continue
        score, target, whole = best
        vms.host[vm] = target
        reason = (
            f"its score rises from {now.vm[vm]:.1f} to {score:.1f}, migration counted, "
            f"and the cluster's from {now.cluster:.1f} to {whole:.1f}"
        )
        made.append(ScoreMove(vm, source, target, float(now.vm[vm]), score, reason))
    return made


def _placed(cluster: Cluster) -> npt.NDArray[np.bool_]:
    return (cluster.vms.on == 1) & (cluster.vms.host != NONE)


def _delivered(load: Ints, capacity: Ints, spread: float) -> Floats:
    """Give the part of each host's demand that it delivers on average, shape (2, H)."""
    wanted = np.divide(load, capacity, out=np.ones(load.shape), where=capacity > 0)
    most, least = wanted * (1 + spread), wanted * (1 - spread)
    width = np.where(most > least, most - least, 1.0)
    between = np.maximum(most - 1, 0) ** 2 / (2 * width)
    short = np.where(most <= 1, 0.0, np.where(least >= 1, wanted - 1, between))
    part = 1 - np.divide(short, wanted, out=np.zeros_like(short), where=wanted > 0)
    return np.where((capacity > 0) | (load == 0), part, 0.0)


def _scores(cluster: Cluster, placed: npt.NDArray[np.bool_], delivered: Floats) -> VMScores:
    vms = cluster.vms
    scores = np.full(len(vms), np.nan)
    rows = np.flatnonzero(placed)
    there = delivered[:, vms.host[rows]]
    scores[rows] = 100 * np.where(vms.demand[:, rows] > 0, there, 1.0).min(axis=0)
    weight = vms.demand[CPU, rows] + 1.0
    mean = float((scores[rows] * weight).sum() / weight.sum()) if rows.size else 100.0
    places = np.clip(np.ceil(scores[rows] / 20).astype(np.int64) - 1, 0, 4)
    return VMScores(scores, mean, np.bincount(places, minlength=5).astype(np.int64))

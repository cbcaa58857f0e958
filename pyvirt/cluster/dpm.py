"""Distributed power management: hosts go to standby when load is low, and come back in time.

Thresholds and windows are VMware's (KB 310527: a host is to be used 63 % plus or minus 18; power on
by the last 5 minutes, off by the last 40). Scores and the two what-if loops follow Gulati et al.,
"VMware Distributed Resource Management", VMware Technical Journal 1(1), 2012; what of them is not
published is ours and a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.placement import place
from pyvirt.cluster.repair import Repair, evacuate
from pyvirt.cluster.spread import spread
from pyvirt.cluster.tables import CPU, MEMORY, NONE, HostState
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.history import DemandHistory
    from pyvirt.cluster.model import Cluster

__all__ = ["DPMOptions", "PowerAction", "PowerPlan", "dpm"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SECOND = 10**9


@dataclass(frozen=True, slots=True)
class DPMOptions:
    """What DPM goes by.

    Attributes
    ----------
    target, tolerance : float
        A host's demand over its capacity is to be within ``target`` plus or minus ``tolerance``
        (DemandCapacityRatioTarget and DemandCapacityRatioToleranceHost, KB 310527).
    on_window_ns, off_window_ns : int
        What demand goes by (VmDemandHistorySecsHostOn and VmDemandHistorySecsHostOff).
    sigmas : float
        Standard deviations that are added to mean demand (recalled).
    ratio : float
        How many times the energy saved must exceed what the change costs
        (PowerPerformanceRatio, recalled).
    stable_ns : int
        How long a host is taken to stay off (ours).
    least_on : int
        Hosts that stay on at least.
    least_cpu_khz, least_memory : int
        Capacity that stays on at least, in kHz and pages (MinPoweredOnCpuCapacity and
        MinPoweredOnMemCapacity).
    spare : int
        Hosts whose loss the hosts that stay on must be able to bear, by reservations: what HA
        needs; 0 where HA is off.
    off_above : float
        Watts that a host saves at least before it is looked at.
    """

    target: float = 0.63
    tolerance: float = 0.18
    on_window_ns: int = 300 * SECOND
    off_window_ns: int = 2400 * SECOND
    sigmas: float = 2.0
    ratio: float = 40.0
    stable_ns: int = 3600 * SECOND
    least_on: int = 1
    least_cpu_khz: int = 1
    least_memory: int = 1
    spare: int = 0
    off_above: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidTypeError(f"{name} must be a number, not {value!r:.80}")
            if not 0 <= value < float("inf"):
                raise InvalidValueError(f"{name} must be finite and not negative, got {value}")
        if not 0 <= self.tolerance <= self.target <= 1 - self.tolerance:
            raise InvalidValueError(
                "target - tolerance and target + tolerance must be within 0 and 1, "
                f"got {self.target} and {self.tolerance}"
            )
        if self.least_on < 1:
            raise InvalidValueError(f"least_on must be at least 1, got {self.least_on}")


@dataclass(frozen=True, slots=True)
class PowerAction:
    """A host to power on or off.

    Attributes
    ----------
    host : int
        The row.
    name : str
        Of the host.
    action : {"on", "off"}
        What to do.
    priority : int
        1: without it VMs cannot run, or the floor is not kept; else 2 to 5, by the part of the
        score that it takes away.
    reason : str
        In words.
    watts : float
        What is saved, negative for a host that is powered on; 0 where power is not known.
    score_before, score_after : float
        Of the high scores for on, of the low scores for off.
    moves : Repair or None
        What empties the host.
    """

    host: int
    name: str
    action: Literal["on", "off"]
    priority: int
    reason: str
    watts: float
    score_before: float
    score_after: float
    moves: Repair | None = None


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """What DPM recommends, in order.

    Attributes
    ----------
    cluster : Cluster
        Which is not changed until `apply`.
    actions : tuple of PowerAction
        In order; each is judged with those before it done.
    refused : tuple of (str, str)
        Hosts that were looked at for standby, and why they stay on.
    after : Cluster
        The cluster with all done.
    """

    cluster: Cluster
    actions: tuple[PowerAction, ...]
    refused: tuple[tuple[str, str], ...]
    after: Cluster

    def apply(self) -> None:
        """Power hosts on and off, and move VMs."""
        self.cluster.hosts.state[:] = self.after.hosts.state
        self.cluster.vms.host[:] = self.after.vms.host


def dpm(cluster: Cluster, history: DemandHistory, options: DPMOptions | None = None) -> PowerPlan:
    """Decide which hosts to power on, or if none, which to put into standby.

    Parameters
    ----------
    cluster : Cluster
        Is not changed.
    history : DemandHistory
        Demand so far. Hosts are powered on going by as much of the window as there is, and off only
        where the whole window is covered.
    options : DPMOptions, optional

    Returns
    -------
    PowerPlan

    Examples
    --------
    Two hosts that are little used for 40 minutes:

    >>> import numpy as np
    >>> from pyvirt.cluster import Cluster, DemandHistory, dpm
    >>> cluster = Cluster.from_tables(
    ...     {"name": ["a", "b"], "cpu_mhz": [10_000] * 2, "memory_bytes": [64 << 30] * 2},
    ...     {"host": [0, 1], "demand_cpu_mhz": [2000, 3000]},
    ... )
    >>> history = DemandHistory(2)
    >>> for minute in range(40):
    ...     history.record(cluster)
    >>> [(each.action, each.name) for each in dpm(cluster, history).actions]
    [('off', 'a')]
    """
    chosen = DPMOptions() if options is None else options
    state = _State(cluster.copy(), chosen)
    actions = _power_on(state, history)
    refused: list[tuple[str, str]] = []
    if not actions and history.covers(chosen.off_window_ns):
        actions, refused = _power_off(state, history)
    return PowerPlan(cluster, tuple(actions), tuple(refused), state.cluster)


class _State:
    """The cluster as it would be, and how its hosts would be used."""

    def __init__(self, cluster: Cluster, options: DPMOptions) -> None:
        self.cluster, self.options = cluster, options

    def used(self, demand: Ints, cluster: Cluster | None = None) -> Floats:
        """Demand over capacity of each host and resource; NaN where a host is not on."""
        c = self.cluster if cluster is None else cluster
        wanted = demand.copy()
        wanted[MEMORY] += c.vms.overhead
        on = (c.hosts.state == HostState.ON) & (c.hosts.capacity > 0)
        sums = c.sum_on_hosts(wanted).astype(np.float64)
        return np.divide(sums, c.hosts.capacity, out=np.full(sums.shape, np.nan), where=on)

    def high(self, used: Floats) -> Floats:
        """How far hosts above the range are from the target, for each resource."""
        o = self.options
        far = np.where(used > _edge(o.target + o.tolerance), used - o.target, 0.0)
        return np.sqrt((far**2).sum(axis=1))

    def low(self, used: Floats) -> float:
        """How far hosts that are below the range with both resources are from the target."""
        o = self.options
        below = (used < _edge(o.target - o.tolerance)).all(axis=0)
        return float(np.sqrt(np.where(below, (o.target - used) ** 2, 0.0).sum()))

    def floor(self, without: int) -> str:
        """Say which floor the hosts that are on would be below without one of them."""
        o, hosts = self.options, self.cluster.hosts
        on = hosts.state == HostState.ON
        on[without] = False
        if on.sum() < o.least_on:
            return f"{o.least_on} hosts are to stay on"
        capacity = hosts.capacity[:, on].sum(axis=1)
        if capacity[CPU] < o.least_cpu_khz:
            return f"{o.least_cpu_khz / 1000:g} MHz are to stay on"
        if capacity[MEMORY] < o.least_memory:
            return f"{o.least_memory} pages are to stay on"
        return ""

    def spared(self, cluster: Cluster) -> bool:
        """Whether reservations would still be met after the loss of the largest hosts."""
        o, hosts, vms = self.options, cluster.hosts, cluster.vms
        if o.spare == 0:
            return True
        on = np.flatnonzero(hosts.state == HostState.ON)
        if on.size <= o.spare:
            return False
        need = vms.reservation[:, vms.on == 1].sum(axis=1)
        need[MEMORY] += vms.overhead[vms.on == 1].sum()
        left = [np.sort(row[on])[: on.size - o.spare].sum() for row in hosts.capacity]
        return bool((need <= np.array(left)).all())

    def idle_watts(self, host: int) -> float:
        """What a host draws that does nothing."""
        return float(self.cluster.power_tables[self.cluster.hosts.power[host], 0])


def _edge(threshold: float) -> float:
    """Keep a threshold from being missed by the rounding of a decimal fraction."""
    return round(threshold, 9)


def _priority(before: float, after: float) -> int:
    """2 where most of a score goes away, to 5 where little does."""
    part = 1 - after / before if before > 0 else 1.0
    return 5 - min(3, int(part * 4))


def _standby(state: _State) -> list[int]:
    """Hosts that can be powered on: the largest first."""
    hosts = state.cluster.hosts
    rows = np.flatnonzero(hosts.state == HostState.STANDBY)
    return [int(row) for row in rows[np.argsort(-hosts.capacity[CPU, rows], kind="stable")]]


def _power_on(state: _State, history: DemandHistory) -> list[PowerAction]:
    options = state.options
    actions = []
    for host in _standby(state):
        c = state.cluster
        waiting = place(c)
        tried = c.copy()
        tried.hosts.state[host] = HostState.ON
        more = place(tried)
        if more.unplaced.size < waiting.unplaced.size:
            count = waiting.unplaced.size - more.unplaced.size
            more.apply()
            actions.append(_on(state, host, 1, f"{count} VMs have no host without it", 0.0, 0.0))
            state.cluster = tried
    if len(history) == 0 or not history.covers(options.on_window_ns):
        return actions
    demand = history.expected(options.on_window_ns, options.sigmas)
    for host in _standby(state):
        before = state.high(state.used(demand))
        if not before.any():
            break
        tried = state.cluster.copy()
        tried.hosts.state[host] = HostState.ON
        spread(tried, demand)
        after = state.high(state.used(demand, tried))
        better = (after < before).any() and (after <= before).all()
        if not better:
            continue
        resource = CPU if before[CPU] - after[CPU] >= before[MEMORY] - after[MEMORY] else MEMORY
        used = state.used(demand)[resource]
        most = int(np.nanargmax(used))
        reason = (
            f"{('CPU', 'memory')[resource]} of {state.cluster.hosts.name[most]!r} is used "
            f"{100 * used[most]:.0f} %, above {100 * (options.target + options.tolerance):.0f} %"
        )
        one, other = float(np.linalg.norm(before)), float(np.linalg.norm(after))
        actions.append(_on(state, host, _priority(one, other), reason, one, other))
        # Only that a host comes on is recommended; balancing is DRS's, once it is there.
        state.cluster.hosts.state[host] = HostState.ON
        spread(state.cluster, demand)
    return actions


def _on(
    state: _State, host: int, priority: int, reason: str, before: float, after: float
) -> PowerAction:
    return PowerAction(
        host,
        state.cluster.hosts.name[host],
        "on",
        priority,
        reason,
        -state.idle_watts(host),
        before,
        after,
    )


def _power_off(
    state: _State, history: DemandHistory
) -> tuple[list[PowerAction], list[tuple[str, str]]]:
    options = state.options
    demand = history.expected(options.off_window_ns, options.sigmas)
    recent = history.expected(options.on_window_ns, options.sigmas)
    actions: list[PowerAction] = []
    refused: list[tuple[str, str]] = []
    lower = _edge(options.target - options.tolerance)
    if not (np.nan_to_num(state.used(demand), nan=0.0) < lower).all():
        return [], []
    for host in _candidates(state, demand):
        name = state.cluster.hosts.name[host]
        before = state.low(state.used(demand))
        if before == 0:
            break
        why, moves, tried = _what_if_off(state, host, demand, recent)
        if why or tried is None:
            refused.append((name, why))
            continue
        after = state.low(state.used(demand, tried))
        used = 100 * float(np.nanmax(state.used(demand)[:, host]))
        count = 0 if moves is None else len(moves)
        reason = f"it is used {used:.0f} %, below {100 * lower:.0f} %, and {count} moves empty it"
        actions.append(
            PowerAction(
                host,
                name,
                "off",
                _priority(before, after),
                reason,
                state.idle_watts(host),
                before,
                after,
                moves,
            )
        )
        state.cluster = tried
        if not (np.nan_to_num(state.used(demand), nan=0.0) < lower).all():
            break
    return actions, refused


def _candidates(state: _State, demand: Ints) -> list[int]:
    """Hosts that are on: those with the least on them first, then the smaller."""
    hosts = state.cluster.hosts
    rows = np.flatnonzero(hosts.state == HostState.ON)
    load = state.cluster.sum_on_hosts(demand)[CPU, rows]
    order = np.lexsort((rows, hosts.capacity[CPU, rows], load))
    return [int(row) for row in rows[order] if state.idle_watts(row) >= state.options.off_above]


def _what_if_off(
    state: _State, host: int, demand: Ints, recent: Ints
) -> tuple[str, Repair | None, Cluster | None]:
    """Try a host in standby: why it must stay on, or what empties it, and the cluster after."""
    options = state.options
    why = state.floor(host)
    if why:
        return why, None, None
    asked = state.cluster.copy()
    asked.vms.demand[:] = demand
    fixed = np.flatnonzero((asked.vms.host == host) & (asked.vms.on == 0))
    moves = evacuate(asked, [host])
    if moves.left.size:
        vm = int(moves.left[0])
        return f"{asked.vms.name[vm]!r} cannot leave it", None, None
    tried = state.cluster.copy()
    for vm, target in zip(moves.vm, moves.target, strict=True):
        tried.vms.host[vm] = target
    # VMs that are off are only registered there, and can be elsewhere.
    tried.vms.host[fixed] = NONE
    tried.hosts.state[host] = HostState.STANDBY
    if not state.spared(tried):
        return f"HA needs it: the loss of {options.spare} hosts could not be borne", None, None
    for window in (demand, recent):
        if (state.high(state.used(window, tried)) > state.high(state.used(window))).any():
            return "other hosts would be used above the range", None, None
    saved = state.idle_watts(host) * max(
        options.stable_ns - int(state.cluster.hosts.standby_ns[host]), 0
    )
    cost = _cost(state, moves)
    if saved < options.ratio * cost:
        ratio = saved / cost if cost else float("inf")
        why = f"what it saves is {ratio:.1f} times what it costs, not {options.ratio:g}"
        return why, None, None
    return (
        "",
        Repair(
            state.cluster,
            moves.vm,
            moves.source,
            moves.target,
            moves.flaw,
            moves.left,
            moves.conflicts,
        ),
        tried,
    )


def _cost(state: _State, moves: Repair) -> float:
    """Energy that moving takes, in W ns: one core at work while memory crosses the network.

    That a migration takes a core on a network of 10 GbE is recalled. A core's power is its part of
    what the host draws between idle and full load.
    """
    c = state.cluster
    total = 0.0
    for vm, source in zip(moves.vm.tolist(), moves.source.tolist(), strict=True):
        table = c.power_tables[c.hosts.power[source]]
        core = (table[-1] - table[0]) / max(int(c.hosts.cores[source]), 1)
        bits = float(max(c.vms.memory[vm], c.vms.consumed[vm])) * 4096 * 8
        total += core * bits / (float(c.hosts.link_mbps[source]) * 1e6) * SECOND
    return total

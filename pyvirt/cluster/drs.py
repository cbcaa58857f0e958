"""DRS: which migrations would balance a cluster, why, and at what cost.

A model after Gulati et al., "VMware Distributed Resource Management: Design, Implementation, and
Lessons Learned", VMware Technical Journal 1(1), 2012, as recalled, with the documented priorities
and levels. What the vendor does not publish is a parameter here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.balance import State
from pyvirt.cluster.drs_levels import priorities, target_imbalance
from pyvirt.cluster.drs_polish import polish
from pyvirt.cluster.migration_cost import MigrationCost
from pyvirt.cluster.reach import Reach
from pyvirt.cluster.repair import repair
from pyvirt.cluster.rules import Conflict
from pyvirt.cluster.tables import PAGE, Automation, HostState
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["Balancing", "Recommendation", "drs"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

POLISHED = 16
"""Up to so many moves are looked at again, one by one and in pairs."""

BOUND_ROUNDS = 200
BOUND_WORK = 20_000_000
"""Rounds of the lower bound, and tests of a VM and a host in them: one round at least."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One migration that DRS recommends.

    Attributes
    ----------
    vm, source, target : str
        Names.
    priority : int
        1 (must be done) to 5.
    reason : str
        In words.
    before, after : float
        Imbalance without and with it, after those that come before it.
    seconds : float
        How long it takes.
    cpu_mhz_s : float
        CPU that it costs on both hosts, MHz times seconds.
    memory_bytes : int
        What is on both hosts meanwhile.
    cost, benefit : float
        In seconds of all that a mean host can deliver; see `MigrationCost`.
    applied : bool
        Whether DRS makes it without being asked.
    exchanged_with : str
        The VM that takes its place in the same exchange; empty for a single move.
    """

    vm: str
    source: str
    target: str
    priority: int
    reason: str
    before: float
    after: float
    seconds: float
    cpu_mhz_s: float
    memory_bytes: int
    cost: float
    benefit: float
    applied: bool
    exchanged_with: str = ""

    @property
    def gain(self) -> float:
        """By how much the imbalance falls."""
        return self.before - self.after


@dataclass(frozen=True)
class Balancing:
    """What one pass of DRS recommends.

    Attributes
    ----------
    cluster : Cluster
        Which is not changed until `apply`.
    vm, source, target : ndarray of int64, shape (n,)
        Moves in the order in which they are to be made.
    priority : ndarray of int64, shape (n,)
        1 for those that must be done, which come first.
    before, after : ndarray of float64, shape (n,)
        Imbalance without and with each move.
    figures : ndarray of float64, shape (n, 4)
        Seconds, CPU in kHz s, cost and benefit of each.
    applied : ndarray of bool, shape (n,)
        Which ones DRS makes without being asked.
    partner : ndarray of int64, shape (n,)
        The other move of an exchange, which stands beside it; -1 for single moves.
    goal : float
        The imbalance up to which nothing is done.
    imbalance_before, imbalance_after : float
        Of the hosts that are on.
    left : ndarray of int64
        VMs for which something is wrong that no move puts right.
    conflicts : list of Conflict
        Rules that older rules contradict; these do not count.
    """

    cluster: Cluster
    vm: Ints
    source: Ints
    target: Ints
    priority: Ints
    before: Floats
    after: Floats
    figures: Floats
    applied: npt.NDArray[np.bool_]
    partner: Ints
    goal: float
    imbalance_before: float
    imbalance_after: float
    left: Ints
    conflicts: list[Conflict]
    _state: State = field(repr=False)
    _reach: Reach = field(repr=False)
    _start: Ints = field(repr=False)
    _wrong: list[str] = field(repr=False)
    _most: int = field(repr=False)

    def __len__(self) -> int:
        return self.vm.size

    def __repr__(self) -> str:
        return (
            f"<Balancing: {len(self)} moves, imbalance {self.imbalance_before:.4f} to "
            f"{self.imbalance_after:.4f}>"
        )

    @cached_property
    def recommendations(self) -> tuple[Recommendation, ...]:
        """The moves with names and reasons."""
        return tuple(self._recommendation(move) for move in range(len(self)))

    def apply(self, everything: bool = False) -> int:
        """Make the moves in the cluster.

        Parameters
        ----------
        everything : bool, default False
            Whether those are made, too, that DRS would ask about.

        Returns
        -------
        int
            How many were made. A move that counts on another that was not made is not made
            either, if rules or reservations forbid it now; nor is one half of an exchange.
        """
        from pyvirt.cluster.kernels.reach import may_run, move

        arrays = self._reach.arrays
        where = np.where(self.cluster.vms.on == 1, self.cluster.vms.host, -1)
        free = self._reach.free()
        made = 0
        for i in range(len(self)):
            together = [i] if self.partner[i] < 0 else [i, int(self.partner[i])]
            if together[-1] < i or not (everything or self.applied[together].all()):
                continue
            done: list[int] = []
            for each in together:
                vm, target = int(self.vm[each]), int(self.target[each])
                if where[vm] != self.source[each]:
                    break
                if not (self.priority[each] == 1 or may_run(arrays, where, free, vm, target)):
                    break
                move(arrays, where, free, vm, target)
                done.append(each)
            if len(done) < len(together):
                for each in done:
                    move(arrays, where, free, int(self.vm[each]), int(self.source[each]))
                continue
            self.cluster.vms.host[self.vm[together]] = self.target[together]
            made += len(together)
        return made

    @cached_property
    def lower_bound(self) -> float:
        """What the imbalance cannot get below by as many moves as were allowed for balancing.

        From the placement after the moves that must be done. Reservations and rules between VMs
        are left out of account, so it may be lower than what can be reached, never higher.
        """
        from pyvirt.cluster.kernels.bound import lower_bound

        state, b = self._state, self._state.balance
        total = sum(state.weights)
        hosts = b.host
        if total == 0 or hosts.size == 0:
            return 0.0
        place = np.full(b.size.size, -1, dtype=np.int64)
        place[hosts] = np.arange(hosts.size)
        capacity = self.cluster.hosts.capacity[:, hosts].astype(np.float64)
        sizes = np.divide(1.0, capacity, out=np.zeros_like(capacity), where=capacity > 0)
        amount = b.amount.astype(np.float64)
        loads = []
        for where in (self._start, b.where):
            here = np.flatnonzero(where >= 0)
            here = here[place[where[here]] >= 0]
            sums = [
                np.bincount(place[where[here]], weights=row[here], minlength=hosts.size)
                for row in b.amount
            ]
            loads.append(np.stack(sums) * sizes)
        source = np.full(self._start.size, -1, dtype=np.int64)
        moves = (b.movable == 1) & (self._start >= 0)
        source[moves] = place[self._start[moves]]
        bits = b.must[b.klass][:, hosts >> 6] >> (hosts & 63).astype(np.uint64)
        work = max(1, source.size * hosts.size)
        rounds = int(min(max(BOUND_WORK // work, 1), BOUND_ROUNDS))
        value = lower_bound(
            loads[0],
            loads[1],
            sizes,
            np.array(state.weights, dtype=np.float64),
            amount,
            source,
            (bits & np.uint64(1)).astype(np.bool_),
            self._most,
            rounds,
        )
        # Sums of floats may be off by a hair; the bound must not be.
        return math.sqrt(max(value * (1 - 1e-9), 0.0) / total / hosts.size) * (1 - 1e-6)

    @property
    def gap(self) -> float:
        """How far the imbalance is above `lower_bound`, as a part of that; infinite above 0."""
        excess = self.imbalance_after - self.lower_bound
        if self.lower_bound > 0:
            return excess / self.lower_bound
        return 0.0 if excess <= 0 else math.inf

    def _recommendation(self, i: int) -> Recommendation:
        vms, hosts = self.cluster.vms, self.cluster.hosts
        seconds, cpu, cost, benefit = (float(x) for x in self.figures[i])
        vm = int(self.vm[i])
        mate = int(self.partner[i])
        if i < len(self._wrong):
            reason = self._wrong[i]
        elif mate >= 0:
            first, last = min(i, mate), max(i, mate)
            reason = (
                f"in exchange for {vms.name[self.vm[mate]]}; together they lower the imbalance "
                f"from {self.before[first]:.4f} to {self.after[last]:.4f}, the goal being "
                f"{self.goal:.4f}"
            )
        else:
            reason = (
                f"it lowers the imbalance from {self.before[i]:.4f} to {self.after[i]:.4f}, "
                f"the goal being {self.goal:.4f}"
            )
        return Recommendation(
            vm=vms.name[vm],
            source=hosts.name[self.source[i]],
            target=hosts.name[self.target[i]],
            priority=int(self.priority[i]),
            reason=reason,
            before=float(self.before[i]),
            after=float(self.after[i]),
            seconds=seconds,
            cpu_mhz_s=cpu / 1000,
            memory_bytes=int(self._state.balance.copied[vm]) * PAGE,
            cost=cost,
            benefit=benefit,
            applied=bool(self.applied[i]),
            exchanged_with="" if mate < 0 else vms.name[self.vm[mate]],
        )


def drs(
    cluster: Cluster,
    *,
    level: int = 3,
    max_moves: int = 500,
    cost: MigrationCost | None = MigrationCost(),  # noqa: B008  (frozen)
    min_goodness: float = 0.01,
    goal: float | None = None,
    automation: Automation = Automation.FULL,
    entitlement: Ints | None = None,
    weights: tuple[int, int] | None = None,
    indexed: bool = True,
) -> Balancing:
    """Recommend migrations: what must be done, then what balances the hosts' load.

    The imbalance is the standard deviation of N over the hosts that are on, N being the sum of
    entitlements on a host over its capacity; of CPU and memory the variances are averaged, by
    weights. While it is above the goal, the move is taken after which it is lowest, among those
    that keep must rules, reservations, and what a host offers and reaches, that break no should
    rule which the VM keeps now, and whose benefit exceeds their cost. Where no such move is left,
    two VMs are exchanged, the pair being taken after which the imbalance is lowest, under the same
    conditions, which hold between its two moves as well.

    Parameters
    ----------
    cluster : Cluster
        Is not changed. Rules that older ones contradict do not count, and are reported.
    level : int, default 3
        1 (only what must be done) to 5; see `target_imbalance`.
    max_moves : int, default 500
        For balance. Up to 16 moves are looked at again in pairs, where they are all that is
        allowed.
    cost : MigrationCost, optional
        None: costs are not weighed.
    min_goodness : float, default 0.01
        A move must lower the variance by this part of one host's share of it, and an exchange by
        twice as much (our choice; that there is such a threshold is documented, its value is not).
    goal : float, optional
        An imbalance in place of the level's.
    automation : Automation, default FULL
        Of the cluster; a VM's own may be less. Below FULL, migrations are recommended but not
        applied. DISABLED VMs are not moved for balance.
    entitlement : ndarray of int64, shape (2, V), optional
        By default `Cluster.entitlement`.
    weights : tuple of int, optional
        Of CPU and memory; by default 1 and 1, or 3 for one that alone is contended (recalled).
    indexed : bool, default True
        Whether moves are found by an index; else all are looked at. The result is the same.

    Returns
    -------
    Balancing

    Examples
    --------
    >>> from pyvirt.cluster import Cluster, drs
    >>> cluster = Cluster.from_tables(
    ...     {"cpu_mhz": [10_000, 10_000], "memory_bytes": [64 << 30] * 2},
    ...     {"name": ["a", "b", "c"], "host": [0, 0, 0], "vcpus": [4, 4, 4],
    ...      "demand_cpu_mhz": [4000, 3000, 2500]},
    ... )
    >>> plan = drs(cluster)
    >>> [(move.vm, move.target, move.priority) for move in plan.recommendations]
    [('a', 'host1', 2)]
    >>> round(plan.imbalance_before, 3), round(plan.imbalance_after, 3)
    (0.475, 0.075)
    """
    up = int((cluster.hosts.state == HostState.ON).sum())
    limit = target_imbalance(level, max(up, 1))
    _check(max_moves, min_goodness, goal, cost)
    if goal is not None and level > 1:
        limit = float(goal)
    amount = _amounts(cluster, entitlement)
    fixes = repair(cluster)
    active = cluster.rules.enabled == 1
    active[[conflict.rule for conflict in fixes.conflicts]] = False
    after = cluster.vms.host.copy()
    for vm, target in zip(fixes.vm, fixes.target, strict=True):
        after[vm] = target
    reach = Reach(cluster, active)
    state = State(cluster, reach, amount, cost, where=after, weights=weights)
    start = state.balance.where.copy()
    before = State(cluster, reach, amount, cost, weights=state.weights) if len(fixes) else state
    first = before.imbalance()
    found = _descend(state, limit, max_moves, min_goodness, indexed)
    moves, spreads, figures, mates = found
    bounds = state.imbalances(spreads)
    n = len(fixes)
    # Both moves of an exchange are as urgent as the first one.
    first_of = np.arange(mates.size)
    first_of = np.where(mates < 0, first_of, np.minimum(first_of, mates))
    urgent = priorities(bounds[first_of, 0], max(up, 1))
    vm = np.concatenate([fixes.vm, moves[:, 0]])
    partner = np.concatenate([np.full(n, -1, dtype=np.int64), np.where(mates < 0, -1, mates + n)])
    own = cluster.vms.automation[vm] == Automation.FULL
    own &= own[np.where(partner < 0, np.arange(vm.size), partner)]
    return Balancing(
        cluster=cluster,
        vm=vm,
        source=np.concatenate([fixes.source, moves[:, 1]]),
        target=np.concatenate([fixes.target, moves[:, 2]]),
        priority=np.concatenate([np.ones(n, dtype=np.int64), urgent]),
        before=np.concatenate([np.full(n, first), bounds[:, 0]]),
        after=np.concatenate([np.full(n, _fixed(bounds, state)), bounds[:, 1]]),
        figures=np.concatenate([_costs(before, fixes.vm, fixes.source, fixes.target), figures]),
        applied=own & (automation == Automation.FULL),
        partner=partner,
        goal=limit,
        imbalance_before=first,
        imbalance_after=state.imbalance(),
        left=fixes.left,
        conflicts=fixes.conflicts,
        _state=state,
        _reach=reach,
        _start=start,
        _wrong=[fixes.reason(i) for i in range(n)],
        _most=max_moves if level > 1 else 0,
    )


def _fixed(bounds: Floats, state: State) -> float:
    """Give the imbalance after what must be done and before what balances."""
    return float(bounds[0, 0]) if bounds.size else state.imbalance()


def _descend(
    state: State, limit: float, most: int, goodness: float, indexed: bool
) -> tuple[Ints, Ints, Floats, Ints]:
    from pyvirt.cluster.kernels import moves as kernel

    made = np.zeros((most, 3), dtype=np.int64)
    spreads = np.zeros((most, 2), dtype=np.int64)
    figures = np.zeros((most, 4))
    partner = np.full(most, -1, dtype=np.int64)
    if math.isinf(limit) or most == 0 or state.balance.host.size < 2:
        return made[:0], spreads[:0], figures[:0], partner[:0]
    start = state.balance.where.copy()
    enough = state.spread(limit)
    if indexed:
        count = kernel.descend(state.balance, state.rows(), enough, goodness, made, partner)
    else:
        count = _look_at_all(state, enough, goodness, made, partner)
    plain, partner = made[:count].copy(), partner[:count]
    chosen = plain.copy()
    alone = bool((partner < 0).all()) and np.unique(chosen[:, 0]).size == count
    if 0 < count == most <= POLISHED and alone:
        polish(state, chosen)
    # Moves are made once more, now to know each one's figures, and that each is possible in turn.
    for moves in (chosen, plain):
        state.restart(start)
        if kernel.follow(state.balance, moves, spreads, figures) == count:
            return moves, spreads[:count], figures[:count], partner
    raise AssertionError("a move that was found cannot be made")


def _look_at_all(state: State, enough: int, goodness: float, moves: Ints, partner: Ints) -> int:
    """Descend as the kernel does, but without an index."""
    from pyvirt.cluster.kernels.balance import bring, scan, spread_of
    from pyvirt.cluster.kernels.exchange import exchange

    b = state.balance
    count = 0
    while count < len(moves):
        spread = int(spread_of(b))
        least = goodness * float(spread) / b.host.size
        if spread <= enough:
            break
        gained, vm, target = scan(b)
        made = [(vm, target)]
        if vm < 0 or float(gained) < least:
            gained, vm, mate = exchange(b, math.ceil(2 * least))
            if vm < 0 or count + 2 > len(moves):
                break
            made = [(vm, int(b.where[mate])), (mate, int(b.where[vm]))]
            partner[count : count + 2] = count + 1, count
        for one, to in made:
            moves[count] = one, b.where[one], to
            bring(b, one, to)
            count += 1
    return count


def _costs(state: State, vm: Ints, source: Ints, target: Ints) -> Floats:
    """Give seconds, CPU, cost and benefit of moves that must be done; benefit is not asked for."""
    from pyvirt.cluster.kernels.balance import price

    made = np.zeros((vm.size, 4))
    for i in range(vm.size):
        made[i, :3] = price(state.balance, int(vm[i]), int(source[i]), int(target[i]))
    return made


def _amounts(cluster: Cluster, given: Ints | None) -> Ints:
    if given is None:
        return cluster.entitlement()
    amounts = np.asarray(given)
    if amounts.dtype.kind not in "iu" or amounts.shape != (2, len(cluster.vms)):
        raise InvalidTypeError(
            f"entitlement must be whole numbers of shape (2, {len(cluster.vms)}), got {given!r:.80}"
        )
    if (amounts < 0).any():
        raise InvalidValueError(f"entitlement must not be negative, got {amounts.min()}")
    return amounts.astype(np.int64)


def _check(max_moves: Any, min_goodness: Any, goal: Any, cost: Any) -> None:
    if isinstance(max_moves, bool) or not isinstance(max_moves, int) or max_moves < 0:
        raise InvalidValueError(f"max_moves must be an integer of at least 0, got {max_moves!r}")
    for name, value in (("min_goodness", min_goodness), ("goal", 0.0 if goal is None else goal)):
        if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
            raise InvalidValueError(f"{name} must be finite and not negative, got {value!r:.80}")
    if cost is not None and not isinstance(cost, MigrationCost):
        raise InvalidTypeError(f"cost must be a MigrationCost or None, not {cost!r:.80}")

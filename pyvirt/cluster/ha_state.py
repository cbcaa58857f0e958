"""Where VMs are, what hosts have free, and what is planned, while HA works."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.ft import Protection
from pyvirt.cluster.ha_admission import FailoverHosts
from pyvirt.cluster.ha_rules import HAEvent, HARules
from pyvirt.cluster.ha_whatif import kept_hosts, reach_of, restart_order
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import NONE, HostState

__all__ = ["State"]

Ints = npt.NDArray[np.int64]

# A VM: as it was and off, running, down but not known to be, to be started, being started, given up
OFF, RUNNING, DOWN, QUEUED, STARTING, LOST = range(6)
NEVER = 2**62


class State:
    """What `Engine` changes, and the questions that it asks of it."""

    def __init__(
        self,
        cluster: Cluster,
        rules: HARules,
        policy: FailoverHosts | None,
        before: dict[int, list[int]],
        protection: Protection | None,
    ) -> None:
        self.cluster = cluster
        self.rules = rules
        self.before = before
        self.ft = protection
        hosts, vms = len(cluster.hosts), len(cluster.vms)
        self.kept = kept_hosts(cluster, policy)
        self.up = (cluster.hosts.state == HostState.ON).astype(np.uint8)
        # each reason why a host takes no VM: it failed, it is isolated
        self.hindered = np.zeros(hosts, np.int64)
        self.life = [0] * hosts  # grows when a host fails or comes back
        self.where = np.where(cluster.vms.on == 1, cluster.vms.host, NONE)
        self.status = [RUNNING if host != NONE else OFF for host in self.where.tolist()]
        self.syncs = [0] * vms  # secondaries begun
        self.token = [0] * vms  # grows when a VM stops, so that what was planned for it lapses
        self.died_on = [NONE] * vms
        self.down_since = [0] * vms
        self.downtime: Ints = np.zeros(vms, np.int64)
        self.first_try = [NEVER] * vms
        self.next_try = [0] * vms
        self.tries = [0] * vms
        self.placed_at = [0] * vms
        self.met_at = [NEVER] * vms
        # secondaries that have the primary's memory
        self.ready = np.zeros(vms, bool) if protection is None else protection.secondary != NONE
        self.busy = [0] * hosts
        self.line: list[deque[int]] = [deque() for _ in range(hosts)]
        order = restart_order(cluster)
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        self.rank: list[int] = rank.tolist()
        self.priority = self._priorities()
        self.waiting: set[int] = set()  # QUEUED
        self.opened: set[int] = set()  # started, and others may wait for it
        self.record: list[tuple[int, int, int, int]] = []
        self.texts: list[str] = []
        self.plan: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.number = 0
        self.now = 0
        self._reach()

    def _priorities(self) -> list[int]:
        """Raise what others wait for to their priority, or they would wait for each other."""
        priority: list[int] = self.cluster.vms.restart.tolist()
        todo = sorted(self.before, key=lambda vm: (-priority[vm], vm))
        while todo:
            vm = todo.pop()
            for first in self.before.get(vm, ()):
                if priority[first] < priority[vm]:
                    priority[first] = priority[vm]
                    todo.append(first)
        return priority

    def _reach(self) -> None:
        """Read anew what hosts reach, and what is free."""
        self.reach = reach_of(self.cluster, self.rules.separate)
        need = self.reach.arrays.need
        placed = np.flatnonzero(self.where != NONE)
        self.free = self.cluster.hosts.capacity.copy()
        for resource in (0, 1):
            np.subtract.at(self.free[resource], self.where[placed], need[resource, placed])
        if self.ft is not None:
            self.free -= self.ft.reserved(need, len(self.cluster.hosts))

    def _at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.plan, (time, self.number, call, arguments))
        self.number += 1

    def _note(self, what: HAEvent, vm: int = NONE, host: int = NONE, text: str = "") -> None:
        self.record.append((self.now, int(what), vm, host))
        self.texts.append(text)

    def _wake(self) -> None:
        """Something to wait for is over: `run` looks at the queue."""

    def _hinder(self, host: int, by: int) -> None:
        self.hindered[host] += by
        on = self.cluster.hosts.state[host] == HostState.ON
        self.up[host] = int(on and self.hindered[host] == 0)

    def _running_on(self, host: int) -> list[int]:
        there = np.flatnonzero(self.where == host).tolist()
        return [v for v in there if self.status[v] in (RUNNING, STARTING)]

    def _choose(self, vm: int, banned: npt.NDArray[np.bool_] | None = None) -> int:
        from pyvirt.cluster.kernels.restart import choose

        up = self.up if banned is None else np.where(banned, 0, self.up).astype(np.uint8)
        return int(
            choose(
                self.reach.arrays,
                vm,
                self.where,
                self.free,
                self.cluster.hosts.capacity,
                self.kept,
                up,
                self.rules.placement == "first_fit",
            )
        )

    def _why(self, vm: int) -> str:
        """Say how many hosts do not take a VM for which reason."""
        hosts = self.cluster.hosts
        need, row = (
            self.reach.arrays.need[:, vm],
            self.reach.arrays.must[self.reach.arrays.klass[vm]],
        )
        allowed = np.array(
            [bool(int(row[h >> 6]) >> (h & 63) & 1) for h in range(len(hosts))], dtype=bool
        )
        up = self.up == 1
        fits = (need[:, None] <= self.free).all(axis=0)
        parts = (
            (int((~up).sum()), "not available"),
            (
                int((up & ~allowed).sum()),
                "out of reach of what it needs or excluded by a must rule",
            ),
            (int((up & allowed & ~fits).sum()), "without what it reserves"),
            (int((up & allowed & fits).sum()), "with a VM from which a rule keeps it apart"),
        )
        return f"of {len(hosts)} hosts: " + ", ".join(f"{n} {text}" for n, text in parts if n)

    def _as_it_is(self) -> Cluster:
        """The cluster with its VMs where they are now."""
        self.cluster.vms.host = self.where
        return self.cluster

"""Migrations under way: they share links and budgets, so each that comes may slow the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyvirt.cluster.budgets import Kind, Site, schedule_migrations
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import PAGE

__all__ = ["Moves"]


@dataclass(slots=True)
class _Move:
    vm: int
    source: int
    target: int
    submitted: int
    start: int
    end: int
    downtime: int
    task: int
    begun: bool = False


class Moves:
    """The vMotions of one busy time, scheduled anew whenever one is asked for.

    `schedule_migrations` is causal: what is asked for later changes nothing before.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._all: list[_Move] = []
        self._done: set[int] = set()

    def __contains__(self, vm: int) -> bool:
        return any(move.vm == vm and move.task not in self._done for move in self._all)

    def busy(self, host: int) -> bool:
        """Say whether a migration from or to a host is not over."""
        return any(
            host in (move.source, move.target) and move.task not in self._done for move in self._all
        )

    def ask(self, vm: int, source: int, target: int, now: int, task: int) -> None:
        """Ask for a migration."""
        if len(self._done) == len(self._all):
            self._all, self._done = [], set()
        self._all.append(_Move(vm, source, target, now, -1, -1, 0, task))
        vms, hosts = self._cluster.vms, self._cluster.hosts
        rows = np.array([move.vm for move in self._all])
        size = np.maximum(np.maximum(vms.memory[rows], vms.consumed[rows]), 1) * PAGE
        plan = schedule_migrations(
            Site(
                hosts.link_mbps,
                network_mbps=(1_000 if int(hosts.link_mbps.max()) < 10_000 else 10_000,),
            ),
            Kind.VMOTION,
            [move.source for move in self._all],
            size,
            destination=[move.target for move in self._all],
            submit_ns=[move.submitted for move in self._all],
            dirty_bytes_s=(vms.dirty_pages_s[rows] * PAGE).astype(np.int64),
            working_set_bytes=vms.working_set[rows] * PAGE,
        ).table
        for move, row in zip(self._all, plan, strict=True):
            move.start, move.end = int(row["start_ns"]), int(row["end_ns"])
            move.downtime = int(row["downtime_ns"])

    def next_ns(self) -> int | None:
        """Give when a migration next begins or ends."""
        times = [
            move.end if move.begun else move.start
            for move in self._all
            if move.task not in self._done
        ]
        return min(times, default=None)

    def pop(self, now: int) -> tuple[str, int, int, int, int, int] | None:
        """Take what happens at a time: what, task, VM, source, target, downtime; or nothing."""
        for move in self._all:
            if move.task in self._done:
                continue
            what = ""
            if not move.begun and move.start <= now:
                move.begun, what = True, "begin"
            elif move.begun and move.end <= now:
                self._done.add(move.task)
                what = "end"
            if what:
                return what, move.task, move.vm, move.source, move.target, move.downtime
        return None

"""The course of failures and restarts, event by event."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from pyvirt.cluster.ft import Protection
from pyvirt.cluster.ha_admission import FailoverHosts
from pyvirt.cluster.ha_rules import HAEvent, HARules, HostFailure, Incident, Isolation, StorageLoss
from pyvirt.cluster.ha_state import DOWN, LOST, NEVER, OFF, QUEUED, RUNNING, STARTING, State
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import NONE, HostState

__all__ = ["Engine"]


class Engine(State):
    """Runs incidents over a copy of a cluster; see `recover` for what the parameters mean."""

    def __init__(
        self,
        cluster: Cluster,
        incidents: Sequence[Incident],
        rules: HARules,
        policy: FailoverHosts | None,
        before: dict[int, list[int]],
        protection: Protection | None,
    ) -> None:
        super().__init__(cluster, rules, policy, before, protection)
        for one in incidents:
            self._begin(one)

    def run(self, until: int) -> None:
        """Go on until nothing is planned, or to a time."""
        while self.plan and self.plan[0][0] <= until:
            self.now = self.plan[0][0]
            while self.plan and self.plan[0][0] == self.now:
                _, _, call, arguments = heapq.heappop(self.plan)
                call(*arguments)
            if self.waiting:
                self._dispatch()

    # Incidents

    def _begin(self, one: Incident) -> None:
        if isinstance(one, HostFailure):
            self._at(one.at_ns, self._host_fails, one.host)
            if one.back_ns is not None:
                self._at(one.back_ns, self._host_back, one.host)
        elif isinstance(one, Isolation):
            self._at(one.at_ns, self._isolated, one)
        else:
            self._at(one.at_ns, self._storage_lost, one)

    def _host_fails(self, host: int) -> None:
        if self.cluster.hosts.state[host] != HostState.ON:
            return
        self.cluster.hosts.state[host] = HostState.FAILED
        self._hinder(host, 1)
        self.life[host] += 1
        self._note(HAEvent.HOST_FAILED, host=host)
        if self.ft is not None:
            for vm in np.flatnonzero(self.ft.secondary == host).tolist():
                self._drop_secondary(vm)
        for vm in self._running_on(host):
            self._stop(vm, HAEvent.VM_STOPPED)
        self.busy[host] = 0
        self.line[host].clear()
        rules = self.rules
        wait = rules.dead_ns + (rules.election_ns if host == rules.master else 0)
        self._at(self.now + wait, self._declared_dead, host, self.life[host])

    def _declared_dead(self, host: int, life: int) -> None:
        if self.life[host] != life:
            return
        self._note(HAEvent.HOST_DECLARED_DEAD, host=host)
        self._queue_from(host)

    def _host_back(self, host: int) -> None:
        if self.cluster.hosts.state[host] != HostState.FAILED:
            return
        self.cluster.hosts.state[host] = HostState.ON
        self._hinder(host, -1)
        self.life[host] += 1
        self._note(HAEvent.HOST_BACK, host=host)
        # it was not missed for long enough, but its VMs are down
        self._queue_from(host)
        self._try_all()

    def _queue_from(self, host: int) -> None:
        """Start what stopped with a host; VMs that lost a secondary get a new one."""
        for vm in range(len(self.status)):
            if self.status[vm] == DOWN and self.died_on[vm] == host:
                self._queue(vm)
        self._seconds()

    def _try_all(self) -> None:
        for vm in self.waiting:
            self.next_try[vm] = self.now
        self._seconds()

    def _isolated(self, one: Isolation) -> None:
        host = one.host
        if self.cluster.hosts.state[host] != HostState.ON:
            return
        self._hinder(host, 1)
        self._note(HAEvent.HOST_ISOLATED, host=host)
        rules = self.rules
        known = rules.master_isolated_ns if host == rules.master else rules.isolated_ns
        end = NEVER if one.back_ns is None else one.back_ns
        if self.now + known < end:
            self._at(self.now + known, self._isolation_known, host, self.life[host], end)
        if end < NEVER:
            self._at(end, self._isolation_ends, host)

    def _isolation_known(self, host: int, life: int, end: int) -> None:
        if self.life[host] != life:
            return
        self._note(HAEvent.ISOLATION_DECLARED, host=host)
        when = self.now + self.rules.isolation_delay_ns
        if when < end and self.rules.isolation_response != "leave_on":
            self._at(when, self._isolation_response, host, life)

    def _isolation_response(self, host: int, life: int) -> None:
        if self.life[host] != life:
            return
        rules = self.rules
        for vm in self._running_on(host):
            if rules.isolation_response == "power_off":
                self._respond(vm, HAEvent.VM_POWERED_OFF)
                continue
            clean = rules.shutdown_ns <= rules.shutdown_timeout_ns
            what = HAEvent.VM_SHUT_DOWN if clean else HAEvent.VM_POWERED_OFF
            wait = min(rules.shutdown_ns, rules.shutdown_timeout_ns)
            self._at(self.now + wait, self._respond_later, vm, self.token[vm], what)

    def _isolation_ends(self, host: int) -> None:
        self._hinder(host, -1)
        if self.cluster.hosts.state[host] == HostState.ON:
            self._note(HAEvent.HOST_BACK, host=host)
        self._try_all()

    def _storage_lost(self, one: StorageLoss) -> None:
        hosts = self.cluster.hosts
        word, bit = divmod(one.datastore, 64)
        mask = np.uint64(1 << bit)
        if not hosts.datastores[one.host, word] & mask:
            return
        hosts.datastores[one.host, word] &= ~mask
        self._reach()
        self._note(HAEvent.STORAGE_LOST, host=one.host, text=f"{one.kind}, {one.datastore}")
        rules = self.rules
        end = NEVER if one.back_ns is None else one.back_ns
        if one.kind == "PDL":
            if rules.pdl_response == "restart":
                self._storage_response(one, True)
        elif self.now + rules.apd_timeout_ns < end:
            self._at(self.now + rules.apd_timeout_ns, self._paths_down, one, end)
        if end < NEVER:
            self._at(end, self._storage_back, one)

    def _users(self, one: StorageLoss) -> list[int]:
        word, bit = divmod(one.datastore, 64)
        masks = self.cluster.vms.datastores
        if word >= masks.shape[1]:
            return []
        return [v for v in self._running_on(one.host) if int(masks[v, word]) >> bit & 1]

    def _paths_down(self, one: StorageLoss, end: int) -> None:
        self._note(HAEvent.STORAGE_TIMED_OUT, host=one.host, text=f"APD, {one.datastore}")
        when = self.now + self.rules.apd_delay_ns
        if when < end and self.rules.apd_response != "events":
            self._at(when, self._storage_response, one, self.rules.apd_response == "aggressive")

    def _storage_response(self, one: StorageLoss, always: bool) -> None:
        users = self._users(one)
        for vm in sorted(users, key=self.rank.__getitem__):
            host = int(self.where[vm])
            if not always:
                self.where[vm] = NONE
                able = self._choose(vm) != NONE
                self.where[vm] = host
                if not able:
                    text = "stays on: " + self._why(vm)
                    self._note(HAEvent.REFUSED, vm, host, text)
                    continue
            self._respond(vm, HAEvent.VM_POWERED_OFF)
            if not always:
                # the next one asks what this one leaves
                self._dispatch()

    def _storage_back(self, one: StorageLoss) -> None:
        word, bit = divmod(one.datastore, 64)
        self.cluster.hosts.datastores[one.host, word] |= np.uint64(1 << bit)
        self._reach()
        self._note(HAEvent.STORAGE_BACK, host=one.host, text=f"{one.datastore}")
        self._try_all()

    # VMs that stop

    def _stop(self, vm: int, what: HAEvent) -> None:
        host = int(self.where[vm])
        self._note(what, vm, host)
        if self.status[vm] == STARTING:
            self._leave_line(vm, host)
        else:
            self.down_since[vm] = self.now
        self.token[vm] += 1
        self.opened.discard(vm)
        self.met_at[vm] = NEVER
        self.died_on[vm] = host
        self.free[:, host] += self.reach.arrays.need[:, vm]
        self.where[vm] = NONE
        self.status[vm] = DOWN
        second = NONE if self.ft is None else int(self.ft.secondary[vm])
        if second == NONE or self.ft is None:
            return
        self.ft.secondary[vm] = NONE
        if not self.ready[vm]:
            self.free[:, second] += self.reach.arrays.need[:, vm]
        else:
            # its reservation is the primary's now
            self.where[vm] = second
            self.status[vm] = RUNNING
            wait = self.ft.rules.takeover_ns
            self.downtime[vm] += wait
            self._at(self.now + wait, self._taken_over, vm, self.token[vm], second)

    def _taken_over(self, vm: int, token: int, host: int) -> None:
        if self.token[vm] == token:
            self._note(HAEvent.TAKEN_OVER, vm, host)

    def _leave_line(self, vm: int, host: int) -> None:
        if vm in self.line[host]:
            self.line[host].remove(vm)
        elif self.busy[host] > 0:
            self._next_in_line(host)

    def _respond(self, vm: int, what: HAEvent) -> None:
        """Power a VM off and start it elsewhere."""
        self._stop(vm, what)
        if self.status[vm] == DOWN:
            self._queue(vm)
        else:
            self._seconds()

    def _respond_later(self, vm: int, token: int, what: HAEvent) -> None:
        if self.token[vm] == token and self.status[vm] in (RUNNING, STARTING):
            self._respond(vm, what)

    # Restarts

    def _queue(self, vm: int) -> None:
        self.status[vm] = QUEUED
        self.waiting.add(vm)
        self.first_try[vm] = NEVER
        self.next_try[vm] = self.now
        self.placed_at[vm] = self.now
        self.tries[vm] = 0

    def _met(self, vm: int) -> int:
        """When others need not wait for a VM any more; NEVER: it depends on what comes."""
        if self.status[vm] in (OFF, LOST) or (vm not in self.opened and vm not in self.waiting):
            return 0
        over = self.placed_at[vm] + self.rules.wait_timeout_ns
        return min(over, self.met_at[vm] + self.rules.wait_delay_ns)

    def _dispatch(self) -> None:
        """Place what may be started now, the most important first."""
        barrier = -1
        for vm in sorted(self.opened):
            when = self._met(vm)
            if when <= self.now:
                self.opened.discard(vm)
            else:
                barrier = max(barrier, self.priority[vm])
        ready = [vm for vm in self.waiting if self.next_try[vm] <= self.now]
        for vm in sorted(ready, key=lambda vm: (-self.priority[vm], self.rank[vm])):
            if self.priority[vm] < barrier:
                break
            until = max((self._met(first) for first in self.before.get(vm, ())), default=0)
            if until > self.now:
                barrier = max(barrier, self.priority[vm])
                if until < NEVER:
                    self._at(until, self._wake)
                continue
            self._try(vm)
            if vm in self.opened and self._met(vm) > self.now:
                barrier = max(barrier, self.priority[vm])

    def _try(self, vm: int) -> None:
        rules = self.rules
        banned = None
        if self.ft is not None and self.ft.protected[vm]:
            banned = self.ft.full(self._as_it_is(), vm)
        host = self._choose(vm, banned)
        self.tries[vm] += 1
        if self.first_try[vm] == NEVER:
            self.first_try[vm] = self.now
        if host == NONE:
            self._note(HAEvent.REFUSED, vm, text=self._why(vm))
            if self.tries[vm] >= rules.attempts:
                self._note(HAEvent.GIVEN_UP, vm, text=f"after {self.tries[vm]} attempts")
                self.status[vm] = LOST
                self.waiting.discard(vm)
                return
            later = self.first_try[vm] + rules.retry(self.tries[vm])
            self.next_try[vm] = max(later, self.now + 1)
            self._at(self.next_try[vm], self._wake)
            return
        self.waiting.discard(vm)
        self.opened.add(vm)
        self.status[vm] = STARTING
        self.where[vm] = host
        self.free[:, host] -= self.reach.arrays.need[:, vm]
        self.placed_at[vm] = self.now
        self._note(HAEvent.PLACED, vm, host)
        self._at(self.now + rules.wait_timeout_ns, self._wake)
        if rules.wait_for == "allocated":
            self._reached(vm)
        if self.busy[host] < rules.concurrent:
            self._power_on(vm, host)
        else:
            self.line[host].append(vm)

    def _reached(self, vm: int) -> None:
        self.met_at[vm] = self.now
        self._at(self.now + self.rules.wait_delay_ns, self._wake)

    def _power_on(self, vm: int, host: int) -> None:
        self.busy[host] += 1
        self._at(self.now + self.rules.power_on_ns, self._powered_on, vm, self.token[vm], host)

    def _next_in_line(self, host: int) -> None:
        self.busy[host] -= 1
        if self.line[host]:
            self._power_on(self.line[host].popleft(), host)

    def _powered_on(self, vm: int, token: int, host: int) -> None:
        if self.token[vm] != token:
            return
        self.status[vm] = RUNNING
        self.downtime[vm] += self.now - self.down_since[vm]
        self._note(HAEvent.POWERED_ON, vm, host)
        self._next_in_line(host)
        if self.rules.wait_for == "powered_on":
            self._reached(vm)
        self._at(self.now + self.rules.boot_ns, self._beats, vm, token, host)
        self._seconds()

    def _beats(self, vm: int, token: int, host: int) -> None:
        if self.token[vm] != token:
            return
        self._note(HAEvent.HEARTBEAT, vm, host)
        if self.rules.wait_for == "heartbeat":
            self._reached(vm)

    # Fault tolerance

    def _drop_secondary(self, vm: int) -> None:
        if self.ft is None:
            return
        host = int(self.ft.secondary[vm])
        self.free[:, host] += self.reach.arrays.need[:, vm]
        self.ft.secondary[vm] = NONE
        self._note(HAEvent.SECONDARY_LOST, vm, host)

    def _seconds(self) -> None:
        """Give each protected VM that runs without a secondary a new one, if a host has room."""
        if self.ft is None:
            return
        alone = self.ft.protected & (self.ft.secondary == NONE)
        for vm in sorted(np.flatnonzero(alone).tolist(), key=self.rank.__getitem__):
            if self.status[vm] != RUNNING:
                continue
            banned = self.ft.full(self._as_it_is(), vm)
            banned[self.where[vm]] = True
            host = self._choose(vm, banned)
            if host == NONE:
                continue
            self.free[:, host] -= self.reach.arrays.need[:, vm]
            self.ft.secondary[vm] = host
            self.ready[vm] = False
            ready = self.now + self.ft.rules.sync_ns(int(self.cluster.vms.memory[vm]))
            self.syncs[vm] += 1
            self._at(ready, self._second_ready, vm, self.syncs[vm], host)

    def _second_ready(self, vm: int, sync: int, host: int) -> None:
        if self.ft is not None and self.syncs[vm] == sync and self.ft.secondary[vm] == host:
            self.ready[vm] = True
            self._note(HAEvent.SECONDARY_STARTED, vm, host)

"""Energy and missed CPU of a replay, worked out again from the events that it recorded.

Piece by piece between events, host by host, with Python's integers and fractions. It knows nothing
of how the replay decides; it reads what happened, and what the VMs wanted.
"""

from fractions import Fraction

MS = 1_000_000
END, STOP, FAIL, DOWN, CANCEL, REPAIR, READY, RESTART, POWER_ON, POWER_OFF, START, REFUSED = range(
    12
)


def watts_at(table, used, capacity):
    """Between the points of the table, in fractions."""
    u = Fraction(used, capacity) * 10
    at = min(int(u), 9)
    low, high = Fraction(table[at]), Fraction(table[at + 1])
    return low + (high - low) * (u - at)


class Recount:
    """The state of hosts and VMs between two events."""

    def __init__(self, hosts, vms, tables, core_busy, standby_watts):
        self.hosts, self.vms, self.tables = hosts, vms, tables
        self.core_busy, self.standby = core_busy, standby_watts
        self.where = list(vms["host"])
        self.up = [{0: "on", 1: "standby", 2: "on", 3: "failed"}[s] for s in hosts["state"]]
        self.was = list(self.up)
        self.moving = {}
        self.still = set()
        self.joules = [Fraction(0) for _ in self.up]
        self.wanted = self.delivered = self.on_ms = self.short_ms = 0
        self.missed = [0] * len(self.where)
        self.migrations = self.cancelled = self.restarts = 0
        self.migration_ms = self.downtime_ms = 0

    def pass_time(self, demand, time):
        """Add up what happens in `time` ms."""
        for v, where in enumerate(self.where):
            if self.vms["on"][v] and where < 0:
                wish = self.wish(v, demand)
                self.wanted += wish * time
                self.missed[v] += wish * time
        for h, state in enumerate(self.up):
            capacity = self.hosts["capacity"][h]
            mine = [v for v, w in enumerate(self.where) if w == h and self.vms["on"][v]]
            wishes = [self.wish(v, demand) for v in mine]
            self.wanted += sum(wishes) * time
            if state == "failed":
                continue
            if state == "standby":
                self.joules[h] += Fraction(self.standby) * time / 1000
                continue
            table = self.tables[self.hosts["power"][h]]
            if state == "starting":
                self.joules[h] += Fraction(table[0]) * time / 1000
                continue
            busy = self.core_busy[h] * sum(h in ends[:2] for ends in self.moving.values())
            core = min(self.hosts["core"][h], capacity)
            can = [
                0 if v in self.still else min(wish, self.vms["vcpus"][v] * core)
                for v, wish in zip(mine, wishes, strict=True)
            ]
            got = min(sum(can), max(0, capacity - busy))
            self.delivered += got * time
            self.on_ms += time
            self.short_ms += time if got < sum(wishes) else 0
            if got == sum(can):
                for v, wish, part in zip(mine, wishes, can, strict=True):
                    self.missed[v] += (wish - part) * time
            used = got + min(busy, capacity)
            self.joules[h] += watts_at(table, used, capacity) * time / 1000

    def wish(self, v, demand):
        limit = self.vms["limit"][v]
        return min(demand[v], limit) if limit >= 0 else demand[v]

    def happen(self, when, kind, vm, source, target):
        if kind == START:
            assert vm not in self.moving
            assert self.where[vm] == source
            assert self.up[source] == self.up[target] == "on"
            self.moving[vm] = (source, target, when, None)
        elif kind == STOP:
            self.still.add(vm)
            self.moving[vm] = (*self.moving[vm][:3], when)
        elif kind == END:
            _, _, begin, stop = self.moving.pop(vm)
            self.still.discard(vm)
            self.where[vm] = target
            self.migrations += 1
            self.migration_ms += when - begin
            self.downtime_ms += when - (begin if stop is None else stop)
        elif kind == CANCEL:
            del self.moving[vm]
            self.still.discard(vm)
            self.cancelled += 1
        elif kind == FAIL:
            self.was[source], self.up[source] = self.up[source], "failed"
        elif kind == DOWN:
            assert self.up[source] == "failed"
            self.where[vm] = -1
        elif kind == REPAIR:
            self.up[target] = "standby" if self.was[target] == "starting" else self.was[target]
        elif kind == READY:
            self.up[target] = "on"
        elif kind == RESTART:
            assert self.where[vm] == -1
            assert self.up[target] == "on"
            self.where[vm] = target
            self.restarts += 1
        elif kind == POWER_ON:
            self.up[target] = "starting"
        elif kind == POWER_OFF:
            assert not any(
                on and where == source for on, where in zip(self.vms["on"], self.where, strict=True)
            )
            assert not any(source in ends[:2] for ends in self.moving.values())
            self.up[source] = "standby"


def recount(hosts, vms, tables, core_busy, standby_watts, demand, interval_ms, events):
    """Go through a replay's events; `demand` has a row for each interval."""
    state = Recount(hosts, vms, tables, core_busy, standby_watts)
    waiting = [tuple(int(x) for x in event) for event in events.tolist()]
    at = 0
    for step, row in enumerate(demand):
        now, end = step * interval_ms, (step + 1) * interval_ms
        while now < end:
            while at < len(waiting) and waiting[at][0] == now * MS:
                when, kind, _, vm, source, target = waiting[at]
                if kind != REFUSED:
                    state.happen(when // MS, kind, vm, source, target)
                at += 1
            then = min(end, waiting[at][0] // MS) if at < len(waiting) else end
            assert then > now or at == len(waiting) or waiting[at][0] // MS == now
            state.pass_time(row, then - now)
            now = then
    return state

"""Hyper-V's classic and core scheduler with exact fractions, from Microsoft's documentation."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from oracle.slowsched.plugged import SlowPolicy

UNIT = 1 << 10


class Group:
    """Virtual processors of one machine that are scheduled together: one, or a core's worth."""

    def __init__(self, vm, places: int, weight: int) -> None:
        self.vm = vm
        self.members: list = [None] * places
        self.weight = weight
        self.v = Fraction(0)
        self.settled = 0
        self.reserve = self.limit = 0  # what is left of them in this period
        self.capped = False
        self.active: set = set()  # members that are ready or run
        self.seat = None

    @property
    def id(self) -> int:
        return next(w.id for w in self.members if w is not None)


class Seat:
    """Hardware threads that only one group uses at a time: one thread, or those of a core."""

    def __init__(self, cpus: list) -> None:
        self.cpus = cpus
        self.group: Group | None = None
        self.until = 0
        self.over = False


class HyperV(SlowPolicy):
    vm_params = {  # noqa: RUF012
        "reserve": (0, 0, 100),
        "maximum": (100, 1, 100),
        "threads": (0, 0, 8),
    }

    def __init__(self, quantum: int, period: int, core: bool = False) -> None:
        self.quantum, self.period, self.core = quantum, period, core

    def begin(self) -> None:
        cpus = list(range(self.cpu_count))
        cores = [self.host.shape.core(cpu) if self.core else [cpu] for cpu in cpus]
        self.seats = [Seat(core) for cpu, core in enumerate(cores) if core[0] == cpu]
        self.at = {cpu: seat for seat in self.seats for cpu in seat.cpus}
        self.groups: list = []
        self.queued: set = set()
        self.v = Fraction(0)
        self.timer = self.period

    # --- accounts ---

    def settle(self, g: Group) -> None:
        if g.seat is not None:
            dt = self.now - g.settled
            g.v += Fraction(dt, g.weight)
            g.reserve -= dt
            g.limit -= dt
        g.settled = self.now

    def param(self, vm, name: str) -> int:
        return vm.param[list(self.vm_params).index(name)]

    def part(self, vm, name: str, time: int) -> int:
        return time * self.param(vm, name) // 100

    def rank(self, g: Group) -> tuple:
        if g.reserve > 0:
            return 0, -g.reserve, g.id
        return 1, floor(g.v * UNIT), g.id

    def virtual_time(self) -> Fraction:
        """The least of those that sit, or wait without a reserve; it never goes back."""
        seen = [g for g in self.groups if g.seat is not None]
        seen += [g for g in self.queued if g.reserve <= 0]
        for g in seen:
            self.settle(g)
        if seen:
            self.v = max(self.v, min(Fraction(floor(g.v * UNIT), UNIT) for g in seen))
        return self.v

    # --- who sits where ---

    def able(self, g: Group, seat: Seat) -> list:
        """CPUs of the seat that a member would use."""
        pairs = zip(g.members, seat.cpus, strict=False)
        return [c for w, c in pairs if w in g.active and c in w.cpus]

    def first(self, seat: Seat) -> Group | None:
        fit = [g for g in self.queued if self.able(g, seat)]
        return min(fit, key=self.rank, default=None)

    def sit(self, g: Group, seat: Seat) -> None:
        self.queued.remove(g)
        seat.group, g.seat = g, seat
        seat.over = False
        g.settled = self.now
        slice = self.quantum
        if g.reserve > 0:
            slice = min(slice, g.reserve)
        if self.param(g.vm, "maximum") < 100:
            slice = min(slice, g.limit)
        seat.until = self.now + max(1, slice)

    def stand(self, g: Group) -> None:
        """Off its seat, and into the queue if it has something to do."""
        self.settle(g)
        g.seat.group = g.seat = None
        if g.active:
            self.queued.add(g)

    def find_seat(self, g: Group) -> None:
        free = [s for s in self.seats if s.group is None and self.first(s) is g]
        if free:
            seat = min(free, key=lambda seat: self.cost(g, seat))
            self.sit(g, seat)
            for cpu in self.able(g, seat):
                self.ask(cpu)
            return
        if g.reserve <= 0:
            return
        worse = []
        for number, seat in enumerate(self.seats):
            if seat.group is not None and not seat.over and self.able(g, seat):
                self.settle(seat.group)
                if seat.group.reserve <= 0:
                    worse.append((floor(seat.group.v * UNIT), -number))
        if worse:
            seat = self.seats[-max(worse)[1]]
            seat.over = True
            self.ask(seat.cpus[0])

    def cost(self, g: Group, seat: Seat) -> tuple:
        """The last seat, one on a wholly idle core, the nearest, the first."""
        last = next((w.cpu for w in g.members if w is not None and w.cpu is not None), None)
        cpu = seat.cpus[0]
        core = self.host.shape.core(cpu)
        alone = all(self.running(c) is None and c not in self.host.asked for c in core)
        if last is None:
            return True, not alone, 0, cpu
        return last not in seat.cpus, not alone, self.host.shape.distance(last, cpu), cpu

    # --- hooks ---

    def add(self, id: int) -> None:
        w = self.world(id)
        vm = self.vm(w.vm)
        most = max(len(seat.cpus) for seat in self.seats)
        places = min(self.param(vm, "threads") or most, most)
        free = [g for g in self.groups if g.vm is vm and None in g.members]
        if free:
            g = min(free, key=lambda g: g.id)
        else:
            g = Group(vm, places, vm.weight)
            rest = self.timer - self.now
            g.reserve, g.limit = self.part(vm, "reserve", rest), self.part(vm, "maximum", rest)
            self.groups.append(g)
        g.members[g.members.index(None)] = w
        w.group = g

    def remove(self, id: int) -> None:
        w = self.world(id)
        g = w.group
        g.members[g.members.index(w)] = None
        if not any(g.members):
            self.groups.remove(g)

    def change(self, id: int) -> None:
        w = self.world(id)
        g = w.group
        self.settle(g)
        if g.weight != g.vm.weight:
            g.weight, g.v = g.vm.weight, Fraction(floor(g.v * UNIT), UNIT)

    def enqueue(self, id: int, why: str) -> None:
        w = self.world(id)
        g = w.group
        self.settle(g)
        if not g.capped and self.is_used_up(g):
            self.leave(w)
            self.cap(g)
        if g.capped:
            self.park(w.id)
            return
        if why in ("slice", "preempt"):
            # Its group may have moved to another seat while it still ran here.
            for place, cpu in enumerate(g.seat.cpus if g.seat else ()):
                if place == g.members.index(w) and cpu != w.cpu:
                    self.ask(cpu)
            return
        if not g.active:
            if why in ("wake", "new"):
                g.v = max(g.v, self.virtual_time())
                rest = self.part(g.vm, "reserve", self.timer - self.now)
                g.reserve = min(g.reserve, rest)
            g.active.add(w)
            self.queued.add(g)
            self.find_seat(g)
            return
        g.active.add(w)
        if g.seat is None:
            self.find_seat(g)
        else:
            for place, cpu in enumerate(g.seat.cpus):
                if place == g.members.index(w) and cpu in w.cpus:
                    self.ask(cpu)

    def is_used_up(self, g: Group) -> bool:
        return self.param(g.vm, "maximum") < 100 and g.limit <= 0

    def cap(self, g: Group) -> None:
        g.capped = True
        while g.active:
            self.park(min(w.id for w in g.active))

    def dequeue(self, id: int) -> None:
        w = self.world(id)
        self.leave(w)

    def stopped(self, id: int, why: str) -> None:
        self.leave(self.world(id))

    def leave(self, w) -> None:
        g = w.group
        self.settle(g)
        if w not in g.active:
            return
        g.active.remove(w)
        if g.active:
            if self.is_used_up(g):
                self.cap(g)
            return
        if g.seat is not None:
            self.stand(g)
        self.queued.discard(g)
        if not any(each.active for each in self.groups):
            self.v = max(self.v, Fraction(floor(g.v * UNIT), UNIT))

    def pick(self, cpu: int) -> int | None:
        seat = self.at[cpu]
        g = seat.group
        now = self.now
        if g is None or seat.over or now >= seat.until or not self.able(g, seat):
            if g is not None:
                self.stand(g)
            best = self.first(seat)
            if best is not None:
                self.sit(best, seat)
            for other in seat.cpus:
                busy = self.running(other) is not None
                if other != cpu and (busy or (best and other in self.able(best, seat))):
                    self.ask(other)
            if g is not None and g in self.queued:
                self.find_seat(g)
            g = best
        if g is None or cpu not in self.able(g, seat):
            return None
        member = g.members[seat.cpus.index(cpu)]
        return member.id if member.state == "ready" else None

    def timeslice(self, cpu: int, id: int) -> int:
        return self.at[cpu].until - self.now

    def timed(self) -> None:
        self.timer = self.now + self.period
        parked = []
        for g in self.groups:
            self.settle(g)
            g.reserve, g.limit = (self.part(g.vm, n, self.period) for n in ("reserve", "maximum"))
            if g.capped:
                g.capped = False
                parked += [w for w in g.members if w is not None]
        for w in sorted(parked, key=lambda w: w.id):
            self.unpark(w.id)
        for g in sorted(self.queued, key=self.rank):
            if g in self.queued and g.reserve > 0:
                self.find_seat(g)

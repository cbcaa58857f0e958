"""Xen's credit scheduler, as described; each step looks through everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from oracle.slowsched.plugged import SlowPolicy

BOOST, UNDER, OVER, IDLE = range(4)


@dataclass(eq=False)
class Unit:
    id: int
    credit: int = 0
    carry: int = 0
    rank: int = UNDER
    queued_rank: int = UNDER
    home: int | None = None
    active: bool = False
    out: bool = False  # used up its cap


class Credit(SlowPolicy):
    vm_params: ClassVar = {"cap": (0, 0, 1_000_000)}

    def __init__(self, timeslice_ns, ticks_per_timeslice, credit_ns, ratelimit_ns, balance_ns):
        self.timeslice_ns = timeslice_ns
        self.tick = timeslice_ns // ticks_per_timeslice
        self.ticks = ticks_per_timeslice
        self.credit_ns = credit_ns
        self.period = timeslice_ns // credit_ns
        self.ratelimit_ns = ratelimit_ns
        self.balance_ns = balance_ns

    def begin(self):
        self.units = {}
        cpus = self.cpu_count
        self.queues = [[] for _ in range(cpus)]
        self.was = [None] * cpus  # what ran until now
        self.held = [False] * cpus  # it goes on, because of the rate limit
        self.rest = [0] * cpus
        self.balanced = [None] * cpus
        self.serving = None
        self.active_vms = []
        self.balance = 0

    # --- what a world is ---

    def add(self, id):
        self.units[id] = Unit(id)

    def remove(self, id):
        if self.units[id].active:
            self.leave(self.units[id])
        del self.units[id]

    def active(self, vm):
        return [self.units[id] for id in vm.worlds if self.units[id].active]

    def vm_of(self, u):
        return self.vm(self.world(u.id).vm)

    def leave(self, u):
        u.active = False
        if not self.active(self.vm_of(u)):
            self.active_vms.remove(self.vm_of(u))

    def running_unit(self, cpu):
        id = self.running(cpu)
        return None if id is None else self.units[id]

    # --- queues ---

    def put(self, u):
        """Behind the others of its rank; ranks that changed count from the next accounting on."""
        u.queued_rank = u.rank
        queue = self.queues[u.home]
        behind = [i for i, each in enumerate(queue) if each.queued_rank > u.rank]
        queue.insert(behind[0] if behind else len(queue), u)

    def picks(self, cpu):
        return cpu == self.serving or self.asked(cpu)

    def idle_cpu(self, u):
        """The lowest idle CPU that is not about to pick."""
        for cpu in range(self.cpu_count):
            if self.allowed(u.id, cpu) and self.running(cpu) is None and not self.picks(cpu):
                return cpu
        return None

    def find_home(self, u):
        """An idle CPU, or that with the fewest worlds, unless it has one."""
        if u.home is not None and self.allowed(u.id, u.home):
            return
        u.home = self.idle_cpu(u)
        if u.home is None:
            u.home = min(
                (cpu for cpu in range(self.cpu_count) if self.allowed(u.id, cpu)),
                key=lambda cpu: len(self.queues[cpu]) + (self.running(cpu) is not None),
            )

    def enqueue(self, id, why):
        u = self.units[id]
        self.start_timer()
        if why in ("preempt", "slice"):
            self.requeue(u, why)
            return
        if u.out:
            self.park(id)
            return
        self.find_home(u)
        if why == "wake" and u.rank == UNDER:
            u.rank = BOOST
        self.put(u)
        current = self.running_unit(u.home)
        idle = self.idle_cpu(u)
        if current is None and not self.picks(u.home):
            self.ask(u.home)
        elif idle is not None:
            self.ask(idle)
        elif current is not None and u.rank < current.rank:
            idle = self.idle_cpu(current)
            if idle is not None:
                current.home = idle
            self.ask(u.home)

    def requeue(self, u, why):
        cpu = self.world(u.id).cpu
        self.serving = cpu
        self.was[cpu] = u
        self.find_home(u)
        self.put(u)
        if u.home != cpu:
            self.ask(u.home)
            return
        young = self.now - self.began(cpu) < self.ratelimit_ns
        self.held[cpu] = why == "preempt" and young
        idle = self.idle_cpu(u)
        if sum(map(len, self.queues)) > 1 and idle is not None:
            self.ask(idle)

    def dequeue(self, id):
        self.queues[self.units[id].home].remove(self.units[id])

    # --- credits ---

    def charge(self, id, dt):
        u = self.units[id]
        u.carry += dt
        credits = (2 * u.carry + self.credit_ns) // (2 * self.credit_ns)
        u.credit -= credits
        u.carry -= credits * self.credit_ns

    def start_timer(self):
        if self.timer is None:
            self.timer = (self.now // self.tick + 1) * self.tick

    def timed(self):
        for cpu in range(self.cpu_count):
            if self.running(cpu) is not None:
                self.tick_of(cpu, self.running_unit(cpu))
        if self.now // self.tick % self.ticks == 0:
            self.settle()
        self.timer = None
        if self.active_vms or any(self.running(cpu) is not None for cpu in range(self.cpu_count)):
            self.start_timer()

    def tick_of(self, cpu, u):
        self.account(cpu)
        if u.rank == BOOST:
            u.rank = UNDER
        if not u.active:
            if not self.active(self.vm_of(u)):
                self.active_vms.insert(0, self.vm_of(u))
            u.active = True
        elif self.queues[cpu]:
            idle = self.idle_cpu(u)
            if idle is not None:
                u.home = idle
                self.ask(cpu)

    def settle(self):
        """Give out the credits of a period."""
        weights = {vm.number: vm.weight * len(self.active(vm)) for vm in self.active_vms}
        total = left = sum(weights.values())
        credits = self.cpu_count * self.period - min(self.balance, 0)
        self.balance = 0
        room = False
        for vm in list(self.active_vms):
            units = self.active(vm)
            left -= weights[vm.number]
            peak = len(units) * self.period
            whole = up(vm.param[0] * self.period, 100)
            if vm.param[0]:
                peak = min(peak, whole)
            fair = up(credits * weights[vm.number], total)
            if fair < peak:
                room = True
            else:
                if left:
                    credits += up((fair - peak) * total, left)
                if room:
                    self.active_vms.remove(vm)
                    self.active_vms.insert(0, vm)
                fair = peak
            for u in units:
                self.pay(u, up(fair, len(units)), up(whole, len(units)))
        for queue in self.queues:
            for u in queue:
                u.queued_rank = u.rank
            queue.sort(key=lambda u: u.rank)  # stable: first in, first out

    def pay(self, u, credits, cap):
        u.credit += credits
        if u.credit < 0:
            u.rank = OVER
            if cap and u.credit < -cap and not u.out:
                u.out = True
                self.park(u.id)
            u.credit = max(u.credit, -self.period)
        else:
            u.rank = UNDER
            if u.out:
                u.out = False
                self.unpark(u.id)
            if u.credit > self.period:
                self.leave(u)
                u.credit //= 2
        self.balance += u.credit

    # --- the choice ---

    def pick(self, cpu):
        self.serving = cpu
        was, self.was[cpu] = self.was[cpu], None
        u = self.choose(cpu, was)
        if u is not None:
            self.queues[u.home].remove(u)
            u.home = cpu
            if was is None:
                self.offer()
        self.serving = None
        return None if u is None else u.id

    def choose(self, cpu, was):
        self.rest[cpu] = 0
        if self.held[cpu]:
            self.held[cpu] = False
            self.rest[cpu] = self.began(cpu) + self.ratelimit_ns - self.now
            return was
        queue = self.queues[cpu]
        rank = queue[0].queued_rank if queue else IDLE
        last = self.balanced[cpu]
        free = last is None or self.now - last >= self.balance_ns
        if rank == IDLE or (rank == OVER and free):
            if rank == OVER:
                self.balanced[cpu] = self.now
            for k in range(1, self.cpu_count):
                for u in self.queues[(cpu + k) % self.cpu_count]:
                    if u.queued_rank < rank and self.allowed(u.id, cpu):
                        return u
        return queue[0] if queue else None

    def offer(self):
        """An idle CPU took one: another that still waits may have an idle CPU of its own."""
        for u in [u for queue in self.queues for u in queue]:
            idle = self.idle_cpu(u)
            if idle is not None:
                self.ask(idle)
                return

    def timeslice(self, cpu, id):
        return self.rest[cpu] or self.timeslice_ns


def up(a, b):
    """Quotient, rounded up."""
    return -(-a // b)

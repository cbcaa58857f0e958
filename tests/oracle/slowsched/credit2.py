"""Xen's credit2 scheduler, as described; each step looks through everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from oracle.slowsched.plugged import SlowPolicy

ONE = 1 << 18  # the load of a world that always wants the CPU


@dataclass(eq=False)
class Unit:
    id: int
    credit: int
    residue: int = 0
    kept: int = 0  # what was clipped while it waits
    budget: int = 0
    rq: RunQueue | None = None
    competes: bool = False
    out: bool = False  # its VM's pool is empty
    load: int = ONE // 2
    since: int = 0  # of the load


@dataclass(eq=False)
class RunQueue:
    number: int
    cpus: set
    units: list  # that belong here, in whatever state
    waiting: list
    load: int = 0
    since: int = 0


@dataclass(eq=False)
class Pool:
    cap: int
    left: int
    spent: bool = False


class Credit2(SlowPolicy):
    vm_params: ClassVar = {"cap": (0, 0, 1_000_000)}

    def __init__(self, runqueue="all", **constants):
        self.runqueue = runqueue
        self.__dict__.update(constants)
        self.most_credit = self.credit_ns + self.carryover_ns

    def begin(self):
        cpus = self.cpu_count
        parts = [{cpu} for cpu in range(cpus)] if self.runqueue == "cpu" else [set(range(cpus))]
        self.queues = [RunQueue(i, part, [], []) for i, part in enumerate(parts)]
        self.units = {}
        self.pools = {}
        self.spent = []
        self.was = [None] * cpus  # what ran until now, and whether for its whole timeslice
        self.serving = None

    def queue_of(self, cpu):
        return next(q for q in self.queues if cpu in q.cpus)

    def vm_of(self, u):
        return self.vm(self.world(u.id).vm)

    def units_of(self, vm):
        return [self.units[id] for id in vm.worlds]

    def weight(self, u):
        return self.vm_of(u).weight

    def most(self, q):
        return max((self.weight(u) for u in q.units), default=1)

    def cpus_of(self, u):
        return {cpu for cpu in range(self.cpu_count) if self.allowed(u.id, cpu)}

    # --- load ---

    def mixed(self, load, present, dt):
        """The mean over the window, in which the present value held for the last `dt`."""
        window = self.load_window_ns
        if dt >= window:
            return present * ONE
        return (load * (window - dt) + present * ONE * dt) // window

    def update(self, q):
        q.load = self.mixed(q.load, sum(u.competes for u in q.units), self.now - q.since)
        q.since = self.now

    def update_unit(self, u):
        u.load = self.mixed(u.load, int(u.competes), self.now - u.since)
        u.since = self.now

    def compete(self, u, competes):
        if u.competes != competes:
            self.update(u.rq)
            self.update_unit(u)
            u.competes = competes

    def assign(self, u, q):
        self.update_unit(u)
        for each in (u.rq, q):
            if each is not None:
                self.update(each)
        if u.rq is not None:
            u.rq.units.remove(u)
            u.rq.load = max(0, u.rq.load - u.load)
        u.rq = q
        if q is not None:
            q.units.append(u)
            q.load += u.load

    def least_loaded(self, u):
        queues = [q for q in self.queues if q.cpus & self.cpus_of(u)]
        for q in queues:
            self.update(q)
        return min(queues, key=lambda q: (q.load, q.number))

    # --- worlds and VMs ---

    def add(self, id):
        self.units[id] = Unit(id, self.credit_ns, since=self.now)
        vm = self.vm(self.world(id).vm)
        if vm.worlds == [id]:
            self.pools[vm.number] = Pool(vm.param[0], self.total(vm))

    def remove(self, id):
        u = self.units[id]
        if u.rq is not None:
            self.assign(u, None)
        vm = self.vm_of(u)
        if vm.worlds == [id]:
            del self.pools[vm.number]
            self.spent = [each for each in self.spent if each is not vm]
        del self.units[id]

    def change(self, id):
        self.units[id].residue = 0
        vm = self.vm_of(self.units[id])
        pool = self.pools[vm.number]
        if pool.cap == vm.param[0]:
            return
        pool.cap, pool.left = vm.param[0], self.total(vm)
        for u in self.units_of(vm):
            u.budget = 0
            if self.world(u.id).state == "run":
                self.ask(self.world(u.id).cpu)
        self.release(vm)

    # --- credits ---

    def burned(self, u, dt):
        return divmod(dt * self.most(u.rq) + u.residue, self.weight(u))

    def charge(self, id, dt):
        u = self.units[id]
        burned, u.residue = self.burned(u, dt)
        u.credit = max(u.credit - burned, -self.credit_ns)
        u.budget -= dt

    def credit_now(self, u):
        """Of a running world."""
        dt = self.now - self.world(u.id).since
        return max(u.credit - self.burned(u, dt)[0], -self.credit_ns)

    def reset(self, q, chosen):
        more = self.credit_ns if chosen.credit > -self.credit_ns else 2 * self.credit_ns
        for cpu in range(self.cpu_count):
            if self.running(cpu) is not None and self.units[self.running(cpu)].rq is q:
                self.account(cpu)
        for u in q.units:
            u.credit += more
            over = max(0, u.credit - self.most_credit)
            u.credit -= over
            u.kept += over

    def order(self, u):
        """Credit; what is clipped while it waits does not change its place."""
        return -(u.credit + u.kept), u.id

    # --- caps ---

    def total(self, vm):
        return vm.param[0] * self.cap_period_ns // 100

    def has_budget(self, u):
        """Take a part of the pool if there is need and any is left."""
        vm = self.vm_of(u)
        pool = self.pools[vm.number]
        if not pool.cap:
            return True
        if u.budget <= 0:
            if not pool.spent:
                pool.spent = True
                self.spent.insert(0, vm)
            if self.timer is None:
                self.timer = (self.now // self.cap_period_ns + 1) * self.cap_period_ns
            part = max(self.total(vm) // len(vm.worlds), self.min_run_ns)
            u.budget = min(part, pool.left)
            pool.left -= u.budget
        return u.budget > 0

    def give_back(self, u):
        rest, u.budget = u.budget, 0
        vm = self.vm_of(u)
        if self.pools[vm.number].cap and rest > 0:
            self.pools[vm.number].left += rest
            self.release(vm)

    def release(self, vm):
        for u in self.units_of(vm):
            if u.out:
                u.out = False
                self.unpark(u.id)

    def timed(self):
        self.timer = None
        spent, self.spent = self.spent, []
        for vm in spent:
            pool = self.pools[vm.number]
            pool.spent = False
            pool.left = self.total(vm)
            for u in self.units_of(vm):
                runs = self.world(u.id).state == "run"
                if runs:
                    self.account(self.world(u.id).cpu)
                u.budget = 0
                if runs and not self.has_budget(u):
                    self.ask(self.world(u.id).cpu)
            self.release(vm)

    # --- queues ---

    def idle_cpu(self, u):
        idle = [
            cpu
            for cpu in sorted(self.cpus_of(u) & u.rq.cpus)
            if self.running(cpu) is None and not self.asked(cpu) and cpu != self.serving
        ]
        last = self.world(u.id).cpu
        return last if last in idle else min(idle, default=None)

    def put(self, u):
        u.kept = 0
        u.rq.waiting.append(u)

    def tickle(self, u):
        idle = self.idle_cpu(u)
        if idle is not None:
            self.ask(idle)
            return
        scores = []
        for cpu in self.cpus_of(u) & u.rq.cpus:
            young = self.now - self.began(cpu) < self.ratelimit_ns
            if self.running(cpu) is None or self.asked(cpu) or young:
                continue
            score = u.credit - self.credit_now(self.units[self.running(cpu)])
            here = cpu == self.world(u.id).cpu
            if not here:
                score -= self.migrate_resist_ns
            if score > 0:
                scores.append((score, here, -cpu))
        if scores:
            self.ask(-max(scores)[2])

    def enqueue(self, id, why):
        u = self.units[id]
        cpu = self.world(id).cpu
        again = why in ("preempt", "slice")
        if again:
            self.serving = cpu
            self.was[cpu] = u, why == "slice"
        if u.rq is None or not u.rq.cpus & self.cpus_of(u):
            self.assign(u, self.least_loaded(u))
        u.out = False
        self.compete(u, True)
        self.put(u)
        if not again or cpu not in u.rq.cpus:
            self.tickle(u)
        elif len(u.rq.waiting) > 1 and self.idle_cpu(u) is not None:
            self.ask(self.idle_cpu(u))

    def dequeue(self, id):
        u = self.units[id]
        u.rq.waiting.remove(u)
        self.compete(u, False)

    def stopped(self, id, why):
        self.compete(self.units[id], False)
        self.give_back(self.units[id])

    # --- the choice ---

    def best(self, cpu, q, was, sliced):
        """Whom to run, if there is budget."""
        young = self.now - self.began(cpu) < self.ratelimit_ns
        if was is not None and not sliced and young:
            return was
        for u in sorted(q.waiting, key=self.order):
            if u is was or not self.allowed(u.id, cpu):
                continue
            if was is None:
                return u
            if u.credit <= was.credit:
                break
            here = self.world(u.id).cpu == cpu
            if here or u.credit >= was.credit + self.migrate_resist_ns:
                return u
        return was

    def choose(self, cpu, q, was, sliced):
        if was is not None and (was.rq is not q or not self.allowed(was.id, cpu)):
            was = None
        while True:
            u = self.best(cpu, q, was, sliced)
            if u is None or self.has_budget(u):
                return u
            if u is was:
                was = None
            u.out = True
            self.park(u.id)

    def pick(self, cpu):
        self.serving = cpu
        q = self.queue_of(cpu)
        was, sliced = self.was[cpu] or (None, False)
        self.was[cpu] = None
        u = self.choose(cpu, q, was, sliced)
        if was is not None and u is not was:
            self.give_back(was)
        if u is not None:
            q.waiting.remove(u)
            if was is None:
                self.offer(q)
            if u.credit <= 0:
                self.reset(q, u)
                self.balance(q, u)
            last = self.world(u.id).cpu
            if u is not was and last is not None and last != cpu:
                u.credit += self.migrate_compensation_ns
        self.serving = None
        return None if u is None else u.id

    def offer(self, q):
        """An idle CPU took one: another that still waits may have an idle CPU of its own."""
        for u in sorted(q.waiting, key=self.order):
            idle = self.idle_cpu(u)
            if idle is not None:
                self.ask(idle)
                return

    def timeslice(self, cpu, id):
        u = self.units[id]
        least = max(self.min_run_ns, self.began(cpu) + self.ratelimit_ns - self.now)
        until = max(0, max((each.credit for each in u.rq.waiting), default=0))
        time = (u.credit - until) * self.weight(u) // self.most(u.rq)
        time = max(time, least) if u.credit > until else least
        time = min(time, max(self.max_run_ns, least))
        return min(time, u.budget) if self.pools[self.vm_of(u).number].cap else time

    # --- between queues ---

    def balance(self, q, chosen):
        """Push, pull or swap what brings the loads of two queues closest together."""
        if len(self.queues) == 1:
            return
        for each in self.queues:
            self.update(each)
        others = [each for each in self.queues if each is not q]
        other = min(others, key=lambda each: (-abs(each.load - q.load), each.number))
        cpus = max(len(q.cpus), len(other.cpus))
        free = max(q.load, other.load) < cpus * ONE
        apart = q.load - other.load
        if abs(apart) < ONE * 2.0 ** (self.balance_under if free else self.balance_over):
            return
        pairs = [
            (abs(apart - 2 * (load(i) - load(j))), number(i), number(j), i, j)
            for i in self.movable(q, other, chosen)
            for j in self.movable(other, q, chosen)
        ]
        _, _, _, push, pull = min(pairs, key=lambda pair: pair[:3])
        if push is not None:
            self.move(push, other)
        if pull is not None:
            self.move(pull, q)

    def movable(self, a, b, chosen):
        found = [u for u in a.units if u is not chosen and b.cpus & self.cpus_of(u)]
        for u in found:
            self.update_unit(u)
        return [None, *found]

    def move(self, u, q):
        state = self.world(u.id).state
        waits = u in u.rq.waiting
        if waits:
            u.rq.waiting.remove(u)
        elif state == "run":
            self.account(self.world(u.id).cpu)
        self.assign(u, q)
        u.residue = 0
        if waits:
            self.put(u)
            self.tickle(u)
        elif state == "run":
            self.ask(self.world(u.id).cpu)


def load(u):
    return 0 if u is None else u.load


def number(u):
    return -1 if u is None else u.id

"""The ESX policy from its rules: everything is searched for anew, entitlements are fractions."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf

from oracle.slowfill import slow_fill
from oracle.slowsched.numa import SlowNuma
from oracle.slowsched.plugged import SlowPolicy

SECOND = 10**9  # entitlements are ns of CPU time a second
LEAST = 1000
UNIT = 1 << 10  # virtual time is in 2**-10 ns of a world that is entitled to a CPU
MOST_AHEAD = 1 << 60


@dataclass
class SlowPool:
    """A pool, by the number of its parent; the root is number 0 and its own parent."""

    parent: int
    shares: float
    reservation: int
    limit: int  # -1: none


@dataclass(eq=False)
class Bucket:
    """The limit of a VM or pool: what it used in this period."""

    quota: int | None = None
    used: int = 0
    running: int = 0
    since: int = 0
    spent: bool = False

    def advance(self, now: int) -> None:
        self.used += self.running * (now - self.since)
        self.since = now


@dataclass(eq=False)
class Part:
    """What the policy knows of a world."""

    vt: int = 0
    rate: float = 0.0
    progress: int = 0
    mode: str = "idle"  # "run", "stalled"
    laggard: bool = False
    queue: int | None = None


@dataclass(eq=False)
class Whole:
    """What it knows of a VM."""

    bucket: Bucket
    rate: float = 0.0
    entitled: bool = False
    since: int = 0
    due: float = inf
    busy: bool = False
    fits: bool = True
    pool: int = 0


class Esx(SlowPolicy):
    def __init__(
        self,
        quantum_ns=50_000_000,
        resolve_ns=1_000_000_000,
        resolve_on_wake=True,
        limit_period_ns=100_000_000,
        credit_ns=0,
        wake_ns=0,
        pull_ns=50_000_000,
        cosched="relaxed",
        skew_stop_ns=3_000_000,
        skew_start_ns=2_000_000,
        laggard_ns=50_000_000,
        pools=(),
        charge_used=True,
        balance_ns=0,
        imbalance_percent=25,
        numa=None,
    ) -> None:
        self.quantum, self.resolve, self.resolve_on_wake = quantum_ns, resolve_ns, resolve_on_wake
        self.period = limit_period_ns
        self.credit = credit_ns * UNIT
        self.wake, self.pull, self.laggard = wake_ns * UNIT, pull_ns * UNIT, laggard_ns * UNIT
        self.cosched, self.skew_stop, self.skew_start = cosched, skew_stop_ns, skew_start_ns
        self.pools = [SlowPool(*each) for each in pools] or [SlowPool(0, 1.0, 0, -1)]
        self.charge_used, self.balance, self.percent = charge_used, balance_ns, imbalance_percent
        self.numa = numa and SlowNuma(self, numa)
        self.vm_params = {
            "pool": (0, 0, len(self.pools) - 1),
            "memory_mb": (0, 0, (1 << 24) - 1),
        }

    def begin(self) -> None:
        self.pool_buckets = [Bucket(self.quota(p.limit)) for p in self.pools]
        self.parts: dict = {}
        self.wholes: dict = {}
        self.reserved: dict = {}  # CPU: the world of a gang that is to run there
        self.first: dict = {}  # CPU: the world that ran there, or came while it was idle
        self.v = 0
        self.stale = True
        self.starting = False
        self.parking = False
        self.next_solve = self.resolve
        self.next_refill = inf
        smt = len(set(self.host.shape.numbers[0])) < len(self.host.cpus)
        self.by_use = self.charge_used and smt
        self.next_balance = self.host.now + self.balance if self.balance else inf
        if self.numa:
            self.numa.begin()
        self.tend_refill()

    def vm_of(self, w):
        return self.host.vms[w.vm]

    # --- entitlement ---

    def quota(self, limit: int) -> int | None:
        return None if limit < 0 else max(1, limit * self.period // SECOND)

    def members(self, vm) -> list:
        worlds = [self.host.worlds[id] for id in vm.worlds]
        return [w for w in worlds if w in self.parts]

    def solve(self) -> None:
        """Demands go up the tree of pools, capacity comes down."""
        self.stale = False
        capacity = SECOND * len(self.host.cpus)
        vms = list(self.wholes)
        wants = {vm: sum(w.state != "wait" for w in self.members(vm)) for vm in vms}
        inside: list[list] = [[] for _ in self.pools]
        for number, pool in enumerate(self.pools):
            if number:
                inside[pool.parent].append(number)
        for vm in vms:
            inside[self.wholes[vm].pool].append(vm)
        bounds: dict = {}
        for vm in vms:
            cap = wants[vm] * SECOND if vm.limit < 0 else min(vm.limit, wants[vm] * SECOND)
            bounds[vm] = (vm.weight, min(vm.reservation, cap), cap)
        for number in reversed(range(len(self.pools))):
            pool = self.pools[number]
            cap = sum(bounds[child][2] for child in inside[number])
            if pool.limit >= 0:
                cap = min(cap, pool.limit)
            low = sum(bounds[child][1] for child in inside[number])
            bounds[number] = (pool.shares, min(max(pool.reservation, low), cap), cap)
        given = {0: min(capacity, bounds[0][2])}
        for number in range(len(self.pools)):
            columns = list(zip(*(bounds[child] for child in inside[number]), strict=True))
            if columns:
                parts = slow_fill(*columns, given[number])
                given.update(zip(inside[number], parts, strict=True))
        for vm in vms:
            whole = self.wholes[vm]
            whole.entitled = wants[vm] > 0
            each = floor(float(given[vm]) / max(1, wants[vm]) + 0.515625)
            whole.rate = UNIT * float(SECOND) / max(LEAST, each)
            for w in self.members(vm):
                self.parts[w].rate = whole.rate

    # --- limits ---

    def chain(self, pool: int) -> list[Bucket]:
        found = [self.pool_buckets[pool]]
        while pool:
            pool = self.pools[pool].parent
            found.append(self.pool_buckets[pool])
        return found

    def buckets(self, vm) -> list[Bucket]:
        """Those that count what a VM uses, its own first."""
        return [self.wholes[vm].bucket, *self.chain(self.wholes[vm].pool)]

    def limits(self) -> list[Bucket]:
        found = [whole.bucket for whole in self.wholes.values()] + self.pool_buckets
        return [b for b in found if b.quota is not None]

    def spent(self, vm) -> bool:
        return any(b.spent for b in self.buckets(vm))

    def park_all(self, worlds) -> None:
        """Park those that would run and are under a limit that is used up."""
        self.parking = True
        for w in worlds:
            if w.state in ("run", "ready") and self.spent(self.vm_of(w)):
                self.drop(w)
                self.park(w.id)
        self.parking = False

    def unpark_all(self) -> None:
        for w in sorted(self.parts, key=lambda w: w.id):
            if w.parked and not self.spent(self.vm_of(w)):
                self.unpark(w.id)

    def spend(self) -> None:
        """Limits end that cannot give each world that runs another nanosecond."""
        vms = sorted(self.wholes, key=lambda vm: vm.number)
        for bucket in self.pool_buckets:
            self.use_up(bucket)
        for vm in vms:
            self.park_all(self.members(vm))
        for vm in vms:
            if self.use_up(self.wholes[vm].bucket):
                self.park_all(self.members(vm))

    def use_up(self, bucket: Bucket) -> bool:
        bucket.advance(self.host.now)
        if bucket.quota is None or not bucket.running:
            return False
        ends = bucket.quota - bucket.used < bucket.running
        bucket.spent |= ends
        return ends

    def tend_refill(self) -> None:
        if self.limits() and self.next_refill == inf:
            self.next_refill = (self.host.now // self.period + 1) * self.period

    # --- progress ---

    def sync(self, vm) -> None:
        """Let progress be what it is now: that of the idle ones not beyond who is furthest."""
        whole, now = self.wholes[vm], self.host.now
        dt = now - whole.since
        parts = {w: self.parts[w] for w in self.members(vm)}
        idle = {w: dt for w, part in parts.items() if part.mode == "idle"}
        others = [part for part in parts.values() if part.mode != "idle"]
        for w, part in parts.items():
            if part.mode == "run":
                part.progress += dt
            elif part.mode == "stalled" and w.state == "wait":
                # taken out of its queue by the caller, since when it is idle
                idle[w] = now - max(w.since, whole.since)
                part.mode = "idle"
        whole.since = now
        lead = max((part.progress for part in others), default=inf)
        for w, time in idle.items():
            parts[w].progress = min(parts[w].progress + time, max(parts[w].progress, lead))

    def skew(self, w) -> int:
        least = min(self.parts[each].progress for each in self.members(self.vm_of(w)))
        return self.parts[w].progress - least

    def see_fit(self, vm) -> None:
        """Whether all its vCPUs find a CPU each when nothing else is there."""
        cpus = set(range(len(self.host.cpus)))
        self.wholes[vm].fits = self.assign(self.members(vm), cpus, set()) is not None

    def assign(self, worlds: list, free: set, taken: set) -> dict | None:
        """CPUs for worlds: their last or the lowest free one, else of those to be taken."""
        free, taken, result = set(free), set(taken), {}
        for w in worlds:
            for cpus in (free, taken):
                allowed = sorted(cpus & self.able(w))
                if allowed:
                    result[w] = w.cpu if w.cpu in allowed else allowed[0]
                    cpus.remove(result[w])
                    break
            else:
                return None
        return result

    def evaluate(self, vm) -> None:
        """Stop who is too far ahead, start who is no longer, and say when to look again."""
        whole, worlds = self.wholes[vm], self.members(vm)
        if whole.busy or self.cosched not in ("relaxed", "strict"):
            return
        if len(worlds) < 2 and not any(w.state == "costop" for w in worlds):
            whole.due = inf
            return
        self.sync(vm)
        whole.busy = True
        stop: list = []
        if self.cosched == "relaxed":
            for w in worlds:
                if w.state == "costop" and self.skew(w) <= self.skew_start:
                    self.costart(w.id)
            stop = [w for w in worlds if self.skew(w) >= self.skew_stop]
        elif self.strict_skew(vm) >= self.skew_stop and whole.fits:
            stop = worlds
        for w in stop:
            if w.state in ("run", "ready"):
                self.drop(w)
                self.costop(w.id)
                if w.state == "limited":  # its own limit ended at this moment, and keeps it
                    self.costart(w.id)
        whole.busy = False
        self.mark_laggards(vm)
        self.look_later(vm)

    def look_later(self, vm) -> None:
        self.wholes[vm].due = self.host.now + self.until_due(vm)

    def together(self, vm) -> bool:
        return self.cosched in ("relaxed", "strict") and len(self.members(vm)) > 1

    def strict_skew(self, vm) -> float:
        """How far the furthest of the others is ahead of who should run and does not."""
        parts = [self.parts[w] for w in self.members(vm)]
        stalled = [p.progress for p in parts if p.mode == "stalled"]
        running = [p.progress for p in parts if p.mode == "run"]
        return max(running) - min(stalled) if stalled and running else -inf

    def until_due(self, vm) -> float:
        """Time to the next crossing of a threshold, if who runs goes on and the rest stands."""
        worlds, parts = self.members(vm), self.parts
        still = [parts[w].progress for w in worlds if parts[w].mode == "stalled"]
        running = [parts[w].progress for w in worlds if parts[w].mode == "run"]
        moving = [parts[w].progress for w in worlds if parts[w].mode != "stalled"]
        found = [inf]
        if still and running and (self.cosched == "relaxed" or self.wholes[vm].fits):
            found.append(max(0, self.skew_stop - (max(running) - min(still))))
        stopped = [parts[w].progress for w in worlds if w.state == "costop"]
        if self.cosched == "relaxed" and stopped and moving:
            nearest = min(stopped)
            if nearest - min(still) <= self.skew_start:
                found.append(max(0, nearest - min(moving) - self.skew_start))
        return min(found)

    def mark_laggards(self, vm) -> None:
        """Who waits for a CPU and holds a sibling back goes before its turn."""
        if self.cosched != "relaxed":
            return
        worlds, parts = self.members(vm), self.parts
        ahead = max((parts[w].progress for w in worlds if w.state == "costop"), default=-inf)
        for w in worlds:
            parts[w].laggard = (
                parts[w].queue is not None and ahead - parts[w].progress > self.skew_start
            )

    # --- queues ---

    def key(self, w) -> int:
        part = self.parts[w]
        return part.vt - (self.laggard if part.laggard else 0)

    def rank(self, w) -> tuple:
        return self.key(w), self.parts[w].queue, w.id

    def waiting(self, cpu: int | None = None) -> list:
        found = [w for w, part in self.parts.items() if part.queue is not None]
        return [w for w in found if cpu is None or self.parts[w].queue == cpu]

    def able(self, w) -> set:
        """CPUs of its affinity and its home node."""
        home = self.numa and self.numa.home(w.id)
        return set(w.cpus if home is None else w.cpus & set(self.numa.cpus(home)))

    def rate(self, w) -> float:
        """How fast its virtual time grows while it runs beside the threads that are busy."""
        speeds = self.host.shape.speeds if self.by_use else [1.0] * (w.threads + 1)
        return self.parts[w].rate * float(speeds[w.threads])

    def runs_with(self, w) -> int:
        """Virtual time of a running world, with what it has used and was not charged for."""
        return self.parts[w].vt + int((self.host.now - w.since) * self.rate(w))

    def least(self) -> None:
        """Virtual time of the host: the least of those that compete, and never less than it was."""
        running = [self.runs_with(c.running) for c in self.host.cpus if c.running]
        self.v = max(self.v, min([self.key(w) for w in self.waiting()] + running, default=0))

    def is_idle(self, cpu: int) -> bool:
        return (
            self.host.cpus[cpu].running is None
            and not self.waiting(cpu)
            and self.reserved.get(cpu) is None
        )

    def idle_cpu(self, w) -> int | None:
        cpus = range(len(self.host.cpus))
        free = {cpu for cpu in cpus if self.host.cpus[cpu].running is None} - self.host.asked
        able = [cpu for cpu in sorted(self.able(w)) if self.is_idle(cpu)]
        return self.host.shape.choose_idle(free, able, w.cpu)

    def has_sibling(self, cpu: int, w) -> bool:
        return any(
            each is not w and (self.parts[each].queue == cpu or self.host.cpus[cpu].running is each)
            for each in self.members(self.vm_of(w))
        )

    def place(self, w) -> int:
        cpu = self.idle_cpu(w)
        if cpu is not None:
            return cpu
        allowed = sorted(self.able(w))
        if self.cosched == "balance":
            allowed = [c for c in allowed if not self.has_sibling(c, w)] or allowed

        def load(cpu):
            return len(self.waiting(cpu)) + (self.host.cpus[cpu].running is not None)

        return min(allowed, key=lambda cpu: (load(cpu), cpu != w.cpu, cpu))

    def settle(self, w, cpu: int) -> None:
        """Let a world that has just come wait for a CPU, which it may take from one with more."""
        if self.is_idle(cpu):
            self.first[cpu] = w
        self.parts[w].queue = cpu
        running = self.host.cpus[cpu].running
        if running is None or self.key(w) + self.wake < self.runs_with(running):
            self.ask(cpu)

    # --- homes, and queues that are evened out ---

    def rehomed(self, id: int) -> None:
        w = self.world(id)
        self.see_fit(self.vm_of(w))
        if w.state == "ready":
            laggard = self.parts[w].laggard
            self.drop(w)
            self.parts[w].laggard = laggard
            self.settle(w, self.place(w))
        elif w.state == "run":
            self.ask(w.cpu)

    def load(self, cpu: int) -> int:
        busy = self.host.cpus[cpu].running is not None
        return len(self.waiting(cpu)) + busy + (self.reserved.get(cpu) is not None)

    def push(self) -> None:
        cpus = range(len(self.host.cpus))
        before = None
        for numbers in (*self.host.shape.numbers[1:], [0] * len(cpus)):
            if max(numbers) == before:
                continue  # the same parts of the host as one level below
            before = max(numbers)
            for group in range(max(numbers) + 1):
                self.even_out([cpu for cpu in cpus if numbers[cpu] == group])

    def even_out(self, cpus: list[int]) -> None:
        for _ in self.host.cpus:
            most = min(cpus, key=lambda cpu: (-self.load(cpu), cpu))
            least = min(cpus, key=lambda cpu: (self.load(cpu), cpu))
            high, low = self.load(most), self.load(least)
            if 100 * (high - low) <= self.percent * low or high - low < 2:
                return
            able = [
                w
                for w in self.waiting(most)
                if least in self.able(w)
                and not (self.cosched == "balance" and self.has_sibling(least, w))
            ]
            if not able:
                return
            w = min(able, key=self.rank)
            if self.first.get(most) is w:
                del self.first[most]
            self.parts[w].queue = None
            self.settle(w, least)

    # --- hooks ---

    def add(self, id: int) -> None:
        w = self.world(id)
        vm, now = self.vm_of(w), self.host.now
        if vm not in self.wholes:
            bucket = Bucket(self.quota(vm.limit), since=now)
            self.wholes[vm] = Whole(bucket, since=now, pool=vm.param[0])
        self.sync(vm)
        others = [self.parts[each] for each in self.members(vm)]
        if len(others) == 1:
            others[0].progress = 0
        first = min((each.progress for each in others), default=0)
        self.parts[w] = Part(rate=self.wholes[vm].rate, progress=first)
        self.stale = True
        self.see_fit(vm)
        self.tend_refill()

    def remove(self, id: int) -> None:
        w = self.world(id)
        if self.numa:
            self.numa.remove(id)
        self.sync(self.vm_of(w))
        del self.parts[w]
        self.stale = True
        if self.members(self.vm_of(w)):
            self.see_fit(self.vm_of(w))
            self.evaluate(self.vm_of(w))
        else:
            del self.wholes[self.vm_of(w)]
        self.ask_idle()

    def change(self, id: int) -> None:
        w = self.world(id)
        vm, whole = self.vm_of(w), self.wholes[self.vm_of(w)]
        self.stale = True
        if self.numa:
            self.numa.change(w.vm)
        bucket, quota = whole.bucket, self.quota(vm.limit)
        if bucket.quota != quota:
            bucket.advance(self.host.now)
            if bucket.quota is None:
                bucket.used = 0
            bucket.quota = quota
            bucket.spent = quota is not None and quota - bucket.used < max(1, bucket.running)
            self.park_all(self.members(vm))
            self.unpark_all()
        if whole.pool != vm.param[0]:
            for sign, pool in ((-1, whole.pool), (1, vm.param[0])):
                for each in self.chain(pool):
                    each.advance(self.host.now)
                    each.running += sign * bucket.running
            whole.pool = vm.param[0]
            self.park_all(self.members(vm))
            self.unpark_all()
        self.see_fit(vm)
        self.tend_refill()

    def set_pool(self, number: int, shares, reservation, limit) -> None:
        """Other bounds of a pool: what ran under it is known, whether there was a limit or not."""
        pool, bucket = self.pools[number], self.pool_buckets[number]
        pool.shares = pool.shares if shares is None else shares
        pool.reservation = pool.reservation if reservation is None else reservation
        pool.limit = pool.limit if limit is None else limit
        self.stale = True
        quota = self.quota(pool.limit)
        if bucket.quota == quota:
            return
        bucket.advance(self.host.now)
        if bucket.quota is None:
            bucket.used = 0
        bucket.quota = quota
        bucket.spent = quota is not None and quota - bucket.used < max(1, bucket.running)
        for vm in sorted(self.wholes, key=lambda vm: vm.number):
            self.park_all(self.members(vm))
        self.unpark_all()
        self.tend_refill()

    def enqueue(self, id: int, why: str) -> None:
        w = self.world(id)
        part = self.parts[w]
        if why in ("slice", "preempt"):
            self.leave(w, "stalled")
            if w.cpu in self.able(w) or not self.numa:
                part.queue = w.cpu
                self.first[w.cpu] = w
            else:
                self.settle(w, self.place(w))
            self.evaluate(self.vm_of(w))
            return
        if self.starting:
            part.mode = "stalled"
            return
        if self.numa and self.numa.home(id) is None:
            self.numa.place(w.vm, 256 * self.vm_of(w).param[1])
            self.see_fit(self.vm_of(w))
        if why in ("wake", "new", "refill"):
            self.least()
            part.vt = max(part.vt, self.v - self.credit)
        self.sync(self.vm_of(w))
        part.mode = "stalled"
        if why in ("wake", "new"):
            part.rate = self.wholes[self.vm_of(w)].rate
            if self.resolve_on_wake or not self.wholes[self.vm_of(w)].entitled:
                self.stale = True
        if self.spent(self.vm_of(w)):
            self.park(w.id)
        elif len(self.members(self.vm_of(w))) > 1 and (
            self.skew(w) >= self.skew_stop
            if self.cosched == "relaxed"
            else any(each.state == "costop" for each in self.members(self.vm_of(w)))
        ):
            self.costop(w.id)
        else:
            self.settle(w, self.place(w))
        self.evaluate(self.vm_of(w))

    def drop(self, w) -> None:
        """It does not wait any more, wherever it did."""
        part = self.parts[w]
        part.laggard = False
        waited = part.queue is not None
        part.queue = None
        for held in (self.first, self.reserved):
            for cpu in [c for c, each in held.items() if each is w]:
                del held[cpu]
                waited = True
        if waited:
            self.last_goes(w)

    def last_goes(self, w) -> None:
        runs = any(part.mode == "run" for part in self.parts.values())
        if not self.waiting() and not self.reserved and not runs:
            self.v = max(self.v, self.parts[w].vt)

    def dequeue(self, id: int) -> None:
        w = self.world(id)
        self.drop(w)
        if not self.parking and not self.wholes[self.vm_of(w)].busy:
            if self.resolve_on_wake:
                self.stale = True
            if self.together(self.vm_of(w)):
                self.wholes[self.vm_of(w)].due = self.host.now

    def charge(self, id: int, dt: int) -> None:
        if self.stale:
            self.solve()
        w = self.world(id)
        part = self.parts[w]
        part.vt = min(part.vt + int(dt * self.rate(w)), self.v + MOST_AHEAD)

    def leave(self, w, mode: str) -> None:
        """A world no longer runs."""
        self.sync(self.vm_of(w))
        self.parts[w].mode = mode
        for bucket in self.buckets(self.vm_of(w)):
            bucket.advance(self.host.now)
            bucket.running -= 1

    def stopped(self, id: int, why: str) -> None:
        w = self.world(id)
        mode = "idle" if w.state == "wait" else "stalled"
        if self.parts[w].mode == "run":
            self.leave(w, mode)
        else:
            self.sync(self.vm_of(w))
            self.parts[w].mode = mode
        self.last_goes(w)
        if mode == "idle":
            if self.resolve_on_wake:
                self.stale = True
            self.ask_idle()
        self.evaluate(self.vm_of(w))

    def ask_idle(self) -> None:
        """Let an idle CPU see whether a gang can start."""
        idle = [cpu for cpu in range(len(self.host.cpus)) if self.is_idle(cpu)]
        if self.cosched == "strict" and idle:
            self.ask(idle[0])

    def pick(self, cpu: int):
        w = self.reserved.pop(cpu, None)
        if w is None:
            w = self.choose(cpu)
        if w is not None:
            self.parts[w].queue = None
        before = self.first.pop(cpu, None)
        if before is not None and before is not w and self.parts[before].queue == cpu:
            other = self.idle_cpu(before)
            if other is not None and other != cpu:
                self.parts[before].queue = other
                self.first[other] = before
                self.ask(other)
        if w is None:
            return None
        self.sync(self.vm_of(w))
        part = self.parts[w]
        part.laggard, part.mode = False, "run"
        for bucket in self.buckets(self.vm_of(w)):
            bucket.advance(self.host.now)
            bucket.running += 1
        if self.together(self.vm_of(w)):
            self.look_later(self.vm_of(w))
        return w.id

    def choose(self, cpu: int):
        best = min(self.waiting(cpu), key=self.rank, default=None)
        others = [
            w
            for w in self.waiting()
            if self.parts[w].queue != cpu
            and cpu in self.able(w)
            and not (self.cosched == "balance" and self.has_sibling(cpu, w))
        ]
        other = min(others, key=self.rank, default=None)
        if other and (best is None or self.key(other) + self.pull < self.key(best)):
            best = other
        if self.cosched == "strict":
            for passed, _, gang in sorted(self.gangs()):
                if best is not None and passed >= self.key(best):
                    break
                assigned = self.assign(gang, *self.available(cpu, passed))
                if assigned is None:
                    continue
                self.sync(self.vm_of(gang[0]))
                parts = [self.parts[w] for w in self.members(self.vm_of(gang[0]))]
                most = max(part.progress for part in parts)
                for part in parts:
                    part.progress = most
                mine = self.start(assigned, cpu)
                if mine is not None:
                    return mine
        return best

    def gangs(self) -> list:
        """Stopped VMs: mean virtual time, number, worlds that are stopped."""
        found = []
        for vm in self.wholes:
            gang = [w for w in self.members(vm) if w.state == "costop"]
            if gang and not self.spent(vm):
                found.append((sum(self.parts[w].vt for w in gang) // len(gang), vm.number, gang))
        return found

    def available(self, cpu: int, passed: int) -> tuple[set, set]:
        """CPUs that are free, the one that picks among them, and those to be taken."""
        free, taken = {cpu}, set()
        for other, c in enumerate(self.host.cpus):
            if other == cpu or self.reserved.get(other) is not None:
                continue
            if c.running is None:
                free.add(other)
            elif self.runs_with(c.running) > passed:
                taken.add(other)
        return free, taken

    def start(self, assigned: dict, cpu: int):
        """Start a gang; give the world for the CPU that picks."""
        mine = None
        self.starting = True
        for w, where in assigned.items():
            self.costart(w.id)
            if where == cpu:
                mine = w
            else:
                self.reserved[where] = w
                self.ask(where)
        self.starting = False
        return mine

    def timeslice(self, cpu: int, id: int) -> int:
        return self.quantum

    # --- time ---

    def timed(self) -> None:
        now = self.host.now
        if now >= self.next_refill:
            for bucket in self.limits():
                bucket.advance(now)
                bucket.used, bucket.spent = 0, False
            self.unpark_all()
            self.next_refill = inf
            self.tend_refill()
        self.spend()
        due = [vm for vm, whole in self.wholes.items() if whole.due <= now]
        if now >= self.next_solve:
            self.least()
            self.stale = True
            self.next_solve += self.resolve
        for vm in sorted(due, key=lambda vm: vm.number):
            self.evaluate(vm)
        if now >= self.next_balance:
            self.push()
            self.next_balance = now + self.balance
        if self.numa and self.numa.due is not None and now >= self.numa.due:
            self.numa.timed()
        self.ask_idle()

    @property
    def timer(self) -> float:
        found = [self.next_solve, self.next_refill, self.next_balance]
        found += [whole.due for whole in self.wholes.values()]
        if self.numa and self.numa.due is not None:
            found.append(self.numa.due)
        for bucket in self.limits():
            if bucket.running:
                left = max(0, bucket.quota - bucket.used)
                found.append(bucket.since + left // bucket.running)
        return min(found)

    @timer.setter
    def timer(self, value) -> None:
        """It follows from the rest."""

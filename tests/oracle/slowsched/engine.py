"""The engine: one event at a time, everything searched for anew."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from oracle.slowsched.policies import POLICIES, Queue
from oracle.slowsched.topology import FULL, Shape
from oracle.slowsched.workloads import Team, drawn, parts, second_seed
from oracle.slowsched.worlds import Random, Vm, World


class Cpu:
    def __init__(self) -> None:
        self.running: World | None = None
        self.slice_end = 0
        self.idle = 0
        self.idle_since = 0
        self.switches = 0
        self.began = 0


class SlowScheduler:
    def __init__(
        self, cpus: int, policy: str, seed: int = 1, tick: int | None = None, numbers=None
    ) -> None:
        self.now = 0
        self.shape = Shape(cpus, numbers)
        self.random = Random(seed)
        self.cpus = [Cpu() for _ in range(cpus)]
        self.worlds: dict[int, World] = {}
        self.free: list[int] = []
        self.teams: dict[int, Team] = {}
        self.next_id = 0
        self.queues: dict[frozenset, Queue] = {}
        self.served: dict[frozenset, int] = {}  # CPU time used by worlds of the queue
        self.tick = tick
        self.vms: dict[int, Vm] = {}
        self.free_vms: list[int] = []
        self.next_vm = 0
        self.policy = POLICIES[policy](self) if isinstance(policy, str) else policy
        self.queue(frozenset(range(cpus)))

    # --- queues ---

    def queue(self, cpus: frozenset) -> Queue:
        self.served.setdefault(cpus, 0)
        return self.queues.setdefault(cpus, Queue(cpus))

    def consumed(self, q: Queue) -> int:
        """CPU time that the queue's worlds used up to now."""
        return self.served[q.cpus] + sum(self.now - w.since for w in q.members("run"))

    # --- steps ---

    def charge(self, w: World) -> None:
        dt = self.now - w.since
        w.count(self.now)
        self.served[w.cpus] += dt
        self.policy.charge(w, dt)
        self.spend(w, dt)

    def spend(self, w: World, dt: int) -> None:
        work = w.progress(dt)
        w.budget -= dt
        if w.phase == "spin":
            w.spin += dt
            w.spin_left = w.spin_left and w.spin_left - dt
            w.window_left = w.window_left and w.window_left - dt
        else:
            w.left -= work

    def rearm(self, w: World) -> None:
        """The work of a world has changed: if it runs, the CPU looks at its limit, too."""
        if w.state == "run" and w.limit:
            w.refresh(self.now)

    def enter(self, w: World, why: str) -> None:
        q = self.queue(w.cpus)
        self.policy.join(q, w)
        q.worlds.add(w)
        self.policy.queued(w)
        w.state = "ready"
        self.policy.entered(q)

    def stop(self, w: World, state: str) -> None:
        q = self.queue(w.cpus)
        w.count(self.now)
        if w.state == "ready":
            w.woken = False
        self.policy.leave(q, w)
        q.worlds.remove(w)
        w.state = state

    def fill(self, number: int, before: World | None) -> None:
        cpu = self.cpus[number]
        queues = [q for q in self.queues.values() if number in q.cpus]
        w = self.policy.pick(queues, number)
        was_idle = cpu.running is None
        if w is None:
            if not was_idle:
                cpu.running = None
                cpu.idle_since = self.now
                self.settle_core(number)
            return
        cpu.running = w
        if was_idle:
            cpu.idle += self.now - cpu.idle_since
            self.settle_core(number)
        if w is not before:
            if w.woken:
                w.woken = False
                w.wakes.append(self.now - w.since)
            w.switches += 1
            cpu.switches += 1
            self.moved_to(w, number)
        w.count(self.now)
        w.cpu = number
        w.state = "run"
        cpu.slice_end = self.now + self.policy.timeslice(w)
        self.set_speed(w)
        if w.team:
            w.team.got_cpu(w)

    def busy(self, number: int) -> int:
        """Threads of the CPU's core with a world."""
        return sum(self.cpus[cpu].running is not None for cpu in self.shape.core(number))

    def set_speed(self, w: World) -> None:
        """Of a world that runs and is charged, from now on; its limit's period is looked at."""
        w.threads = self.busy(w.cpu)
        speed = int(self.shape.speeds[w.threads] * FULL) * w.memory >> 16
        w.speed = Fraction(speed or 1, FULL)
        if w.limit:
            w.refresh(self.now)

    def settle_core(self, number: int) -> None:
        """The other threads' worlds go on at another speed."""
        if not self.shape.paced:
            return
        for other in self.shape.core(number):
            w = self.cpus[other].running
            if other != number and w is not None and w.state == "run":
                self.charge(w)
                self.set_speed(w)

    def moved_to(self, w: World, number: int) -> None:
        if w.cpu not in (None, number):
            w.migrations += 1
            far = self.shape.distance(w.cpu, number)
            w.moves[far] += 1
            w.stall = max(w.stall, self.shape.costs[far])

    def place(self, w: World) -> None:
        idle = {i for i, cpu in enumerate(self.cpus) if cpu.running is None}
        cpu = self.shape.choose_idle(idle, w.cpus, w.cpu)
        if cpu is not None:
            self.fill(cpu, None)

    def make_runnable(self, w: World) -> None:
        w.count(self.now)
        if w.limit:
            w.refresh(self.now)
            if w.budget <= 0:
                w.state, w.refill = "limited", w.period_end
                return
        w.woken = True
        self.enter(w, "wake")
        self.place(w)

    # --- events ---

    def cpu_due(self, cpu: Cpu) -> int:
        """The next event of a CPU with a world."""
        w = cpu.running
        due = [cpu.slice_end]
        if w.team:
            due += w.team.due(w)
        elif w.source is not None:
            due.append(w.since + w.time_left())
        if w.limit:
            due += [w.since + w.budget, w.period_end]
        return min(due)

    def due(self) -> list[tuple]:
        """Everything that is to come, as (time, timers first, number)."""
        found = []
        for w in self.worlds.values():
            found += [(t, 0, w.id) for t in (w.arrival, w.refill, w.pause_end) if t is not None]
        for number, cpu in enumerate(self.cpus):
            if cpu.running:
                found.append((self.cpu_due(cpu), 1, number))
        return found

    def next_event_time(self) -> int | None:
        return min(self.due(), default=(None,))[0]

    def step(self) -> bool:
        found = self.due()
        if not found:
            return False
        self.now, kind, number = min(found)
        if kind:
            self.cpu_event(number)
        else:
            self.timer_event(self.worlds[number])
        return True

    def timer_event(self, w: World) -> None:
        if w.refill == self.now:
            w.refill = None
            w.refresh(self.now)
            w.count(self.now)
            self.enter(w, "refill")
            self.place(w)
            return
        if w.pause_end == self.now:
            w.count(self.now)
            w.pause_end = None
        else:
            self.job_event(w)
        if w.state == "wait" and w.may_compete:
            self.make_runnable(w)

    def job_event(self, w: World) -> None:
        if w.state == "run" and (w.trace or not w.jobs):
            self.charge(w)  # its present work changes
            self.rearm(w)
        w.halted = False
        w.arrival = None
        if w.team:
            w.jobs = [(self.now, 0)]
            w.team.begin_round(w)
            return
        if w.trace:
            self.part_comes(w)
        else:
            self.job_comes(w, drawn(w.random, *w.job))
            if w.source == "open":
                w.arrival = self.now + drawn(w.random_gap, *w.gap)
        if not w.has_work and w.state != "wait":
            self.halt(w, "wait")

    def job_comes(self, w: World, work: int) -> None:
        w.jobs.append((self.now, work))
        if len(w.jobs) == 1:
            w.left += work

    def part_comes(self, w: World) -> None:
        (_, work), coming = w.coming, next(w.parts, None)
        w.coming = coming
        w.arrival = coming and coming[0]
        if w.trace[4] and w.jobs:
            w.dropped += w.left
            w.dropped_jobs += 1
            w.jobs, w.left = [], 0
        w.demanded += work
        if work:
            self.job_comes(w, work)

    def work_done(self, w: World) -> None:
        """A running world that is charged may have done its work, or spun for long enough."""
        if w.phase == "spin":
            if w.spin_left == 0:
                w.phase = "sleep"
            elif w.window_left == 0:
                w.window_left = w.team.window
                w.yields += 1
                self.cpus[w.cpu].slice_end = self.now
        elif w.source is not None and w.left == 0:
            w.team.end_of_phase(w) if w.team else self.end_of_work(w)

    def end_of_work(self, w: World) -> None:
        """The present work is done; without more it has no work then."""
        w.left = 0
        if not w.jobs:
            return
        arrival, _ = w.jobs.pop(0)
        w.done += 1
        w.responses.append(self.now - arrival)
        if w.source == "closed":
            w.arrival = self.now + drawn(w.random_gap, *w.gap)
        if w.jobs:
            w.left = w.jobs[0][1]

    def cpu_event(self, number: int) -> None:
        cpu = self.cpus[number]
        w = cpu.running
        self.charge(w)
        self.work_done(w)
        if not w.has_work:
            self.stop(w, "wait")
            self.fill(number, None)
            return
        if w.limit:
            w.refresh(self.now)
            if w.budget <= 0:
                self.stop(w, "limited")
                w.refill = w.period_end
                self.fill(number, None)
                return
        if self.now >= cpu.slice_end:
            w.state = "ready"
            self.policy.queued(w)
            self.policy.entered(self.queue(w.cpus))
            self.fill(number, w)
            if w.state == "ready":
                self.place(w)

    # --- changes from outside ---

    def add_team(self, number: int, kind: str, spin, window, seed: int) -> None:
        self.teams[number] = Team(self, kind, spin, window, seed)

    def add(self, weight, slice_ns, affinity, load, limit) -> int:
        _, (id,) = self.add_vm(weight, None, None, (), slice_ns, affinity, [load], limit)
        return id

    def add_vm(
        self, weight, reservation, most, params, slice_ns, affinity, loads, limit
    ) -> tuple[int, list]:
        """A virtual machine of one world for each load, with equal parts of its weight."""
        if self.free_vms:
            number = self.free_vms.pop()
        else:
            number, self.next_vm = self.next_vm, self.next_vm + 1
        self.vms[number] = vm = Vm(
            number, weight, reservation or 0, -1 if most is None else most, self.params(params)
        )
        part = max(1, weight // len(loads))
        cpus = frozenset(range(len(self.cpus)) if affinity is None else affinity)
        self.queue(cpus).make_room(len(loads))
        vm.worlds = []
        for load in loads:
            world = self.new(part, slice_ns, affinity, load)
            world.vm = number
            vm.worlds.append(world.id)
            self.policy_new(world)
        ids = list(vm.worlds)
        for id in ids:
            w = self.worlds[id]
            if w.source is None:
                self.enter(w, "new")
                self.place(w)
            else:
                w.arrival, w.first = w.first, None
            if limit:
                self.limit(w, limit)
        self.serve()
        return number, ids

    def params(self, given) -> list:
        assert not given
        return [0] * 4

    def new(self, weight, slice_ns, affinity, load) -> World:
        """A world that does nothing yet."""
        if self.free:
            id = self.free.pop()
        else:
            id, self.next_id = self.next_id, self.next_id + 1
        cpus = frozenset(range(len(self.cpus)) if affinity is None else affinity)
        self.worlds[id] = w = World(id, weight, slice_ns, cpus, self.now)
        self.queue(cpus).join(w)
        if load is not None:
            source, work, work_kind, gap, gap_kind, start, seed, *more = load
            w.source = source or "none"
            w.job, w.gap = (work_kind, work), (gap_kind, gap)
            w.random, w.random_gap = Random(seed), Random(second_seed(seed))
            self.describe(w, start, **(more[0] if more else {}))
            if start is not None:
                w.first = self.now + start
            elif source is not None:
                w.first = self.now + drawn(w.random_gap, *w.gap)
        return w

    def policy_new(self, w: World) -> None:
        self.policy.new(w)

    def serve(self) -> None:
        """Of plug-in policies: see `plugged`."""

    def describe(
        self, w, start, work=None, gap=None, section=None, trace=None, team=None, responses=False
    ):
        w.job, w.gap, w.section = work or w.job, gap or w.gap, section
        if trace:
            w.trace, w.parts = trace, parts(trace, self.now + start)
            w.coming = next(w.parts)
        if team is not None:
            w.team = self.teams[team]
            w.team.members.append(w)

    def halt(self, w: World, state: str) -> None:
        cpu = w.cpu
        ran = w.state == "run"
        if ran:
            self.charge(w)
        if w.state in ("run", "ready"):
            self.stop(w, state)
            if ran:
                self.fill(cpu, None)
        else:
            w.count(self.now)
            w.refill = None
            w.state = state

    def remove(self, id: int) -> None:
        w = self.worlds[id]
        self.halt(w, "wait")
        self.queue(w.cpus).part(w)
        del self.worlds[id]
        if w.team:
            w.team.leave(w)
        self.free.append(id)
        vm = self.vms[w.vm]
        vm.worlds.remove(id)
        if not vm.worlds:
            del self.vms[w.vm]
            self.free_vms.append(w.vm)

    def block(self, id: int) -> None:
        w = self.worlds[id]
        if not w.held:
            self.halt(w, "wait")
            w.held = True

    def wake(self, id: int) -> None:
        w = self.worlds[id]
        if w.held:
            w.count(self.now)
            w.held = False
            if w.may_compete:
                self.make_runnable(w)

    def pause(self, id: int, ns: int, kind: str) -> None:
        w = self.worlds[id]
        self.halt(w, "wait")
        w.pause = kind
        w.pause_end = (self.now if w.pause_end is None else w.pause_end) + ns
        self.serve()

    def wait_swap(self, id: int, ns: int) -> None:
        self.pause(id, ns, "swap")

    def wait_device(self, id: int, ns: int) -> None:
        self.pause(id, ns, "device")

    def halt_guest(self, id: int) -> None:
        self.halt(self.worlds[id], "wait")
        self.worlds[id].halted = True
        self.serve()

    def interrupt(self, id: int, work: int = 0) -> None:
        w = self.worlds[id]
        if w.state == "run":
            self.charge(w)
        w.interrupts += 1
        w.halted = False
        w.left += work
        self.rearm(w)
        if w.state == "wait" and w.may_compete:
            self.make_runnable(w)
        self.serve()

    def submit(self, id: int, work: int) -> None:
        w = self.worlds[id]
        if w.state == "run":
            self.charge(w)
        w.halted = False
        w.left += work
        if not w.jobs:
            w.jobs = [(self.now, 0)]
        self.rearm(w)
        if w.state == "wait" and w.may_compete:
            self.make_runnable(w)

    def set_weight(self, id: int, weight: int) -> None:
        w = self.worlds[id]
        q = self.queue(w.cpus)
        active = w in q.worlds
        if w.state == "run":
            self.charge(w)
        if active:
            self.policy.leave(q, w)
            q.worlds.remove(w)
        old, w.weight = w.weight, weight
        if len(self.vms[w.vm].worlds) == 1:
            self.vms[w.vm].weight = weight
        self.policy.reweighed(w, old)
        if active:
            self.policy.join(q, w)
            q.worlds.add(w)
        if w.state == "ready":
            self.policy.entered(q)

    def set_vm(self, number: int, weight, reservation, limit, params) -> None:
        vm = self.vms[number]
        vm.reservation = vm.reservation if reservation is None else reservation
        vm.limit = vm.limit if limit is None else limit
        if weight is not None:
            vm.weight = weight
            for id in vm.worlds:
                self.set_weight(id, max(1, weight // len(vm.worlds)))

    def set_affinity(self, id: int, affinity: Iterable[int] | None) -> None:
        w = self.worlds[id]
        cpus = frozenset(range(len(self.cpus)) if affinity is None else affinity)
        self.queue(cpus).make_room()
        cpu = w.cpu
        before = w.state
        if before == "run":
            self.charge(w)
        if before in ("run", "ready"):
            self.stop(w, "wait")
        self.queue(w.cpus).part(w)
        w.cpus = cpus
        self.queue(w.cpus).join(w)
        if before in ("run", "ready"):
            self.enter(w, "move")
        if before == "run":
            self.fill(cpu, w)
        if w.state == "ready":
            self.place(w)

    def set_limit(self, id: int, limit: tuple | None) -> None:
        self.limit(self.worlds[id], limit)

    def limit(self, w: World, limit: tuple | None) -> None:
        if w.state == "run":
            self.charge(w)
        w.limit = limit
        if limit:
            w.budget, w.period_end = limit[0], self.now + limit[1]
        if w.state == "limited":
            w.refill = None
            w.count(self.now)
            self.enter(w, "refill")
            self.place(w)

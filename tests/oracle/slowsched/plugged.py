"""The engine under plug-in policies: hooks, CPUs that are asked, parking and co-stopping.

A policy is a `SlowPolicy`. It sees worlds by number and the host through the methods of its base
class, which are those of `pyvirt.sched.PythonPolicy`, so that it may run on both.
"""

from __future__ import annotations

from typing import ClassVar

from oracle.slowsched.engine import SlowScheduler
from oracle.slowsched.worlds import World

NEVER = None


class SlowPolicy:
    """Hooks that do nothing, and what a policy may ask for."""

    vm_params: ClassVar[dict] = {}
    timer: int | None = NEVER
    host: SlowPlugged

    def begin(self) -> None: ...

    def add(self, id: int) -> None: ...

    def remove(self, id: int) -> None: ...

    def change(self, id: int) -> None: ...

    def charge(self, id: int, dt: int) -> None: ...

    def stopped(self, id: int, why: str) -> None: ...

    def timed(self) -> None: ...

    def enqueue(self, id: int, why: str) -> None:
        raise NotImplementedError

    def dequeue(self, id: int) -> None:
        raise NotImplementedError

    def pick(self, cpu: int) -> int | None:
        raise NotImplementedError

    def timeslice(self, cpu: int, id: int) -> int:
        return self.host.worlds[id].slice

    # --- services ---

    @property
    def now(self) -> int:
        return self.host.now

    @property
    def cpu_count(self) -> int:
        return len(self.host.cpus)

    def world(self, id: int) -> World:
        """Its weight, vm, state, cpu."""
        return self.host.worlds[id]

    def vm(self, number: int):
        return self.host.vms[number]

    def running(self, cpu: int) -> int | None:
        w = self.host.cpus[cpu].running
        return None if w is None else w.id

    def began(self, cpu: int) -> int:
        return self.host.cpus[cpu].began

    def allowed(self, id: int, cpu: int) -> bool:
        return cpu in self.host.worlds[id].cpus

    def ask(self, cpu: int) -> None:
        self.host.asked.add(cpu)

    def asked(self, cpu: int) -> bool:
        return cpu in self.host.asked

    def account(self, cpu: int) -> None:
        w = self.host.cpus[cpu].running
        if w is not None:
            self.host.charge(w)

    def park(self, id: int) -> None:
        self.host.hold(self.host.worlds[id], "parked")

    def unpark(self, id: int) -> None:
        self.host.release(self.host.worlds[id], "parked", "unpark")

    def costop(self, id: int) -> None:
        self.host.hold(self.host.worlds[id], "costopped")

    def costart(self, id: int) -> None:
        self.host.release(self.host.worlds[id], "costopped", "costart")


class SlowPlugged(SlowScheduler):
    def __init__(self, cpus: int, policy: SlowPolicy, seed: int = 1, numbers=None) -> None:
        self.asked: set[int] = set()
        self.moved: dict[int, World] = {}  # CPU -> what ran there until its affinity changed now
        super().__init__(cpus, policy, seed, None, numbers)
        policy.host = self
        policy.begin()
        self.serve()

    def params(self, given) -> list:
        values = [default for default, _, _ in self.policy.vm_params.values()]
        for name, value in dict(given).items():
            values[list(self.policy.vm_params).index(name)] = value
        return values + [0] * (4 - len(values))

    # --- steps ---

    def charge(self, w: World) -> None:
        dt = self.now - w.since
        w.count(self.now)
        self.spend(w, dt)
        if dt:
            self.policy.charge(w.id, dt)

    def policy_new(self, w: World) -> None:
        self.policy.add(w.id)

    def place(self, w: World) -> None:
        """The policy does that."""

    def enter(self, w: World, why: str) -> None:
        """Its time so far is counted."""
        if w.parked or w.refill is not None:
            w.state = "limited"
        elif w.costopped:
            w.state = "costop"
        else:
            w.state = "ready"
            self.queue_up(w, why)

    def queue_up(self, w: World, why: str) -> None:
        self.policy.enqueue(w.id, why)
        if w.state == "ready":
            w.queued = True

    def unqueue(self, w: World) -> None:
        if w.queued:
            w.queued = False
            self.policy.dequeue(w.id)

    def vacate(self, number: int) -> None:
        """The CPU's world no longer runs."""
        self.cpus[number].running = None
        self.cpus[number].idle_since = self.now

    def stop(self, w: World, state: str, why: str) -> None:
        """To `state`: from running, when it is charged, or any other."""
        before = w.state
        if before == "ready":
            self.unqueue(w)
            w.woken = False
        elif before == "run":
            self.vacate(w.cpu)
            self.asked.add(w.cpu)
        w.count(self.now)
        w.state = state
        if state == "wait":
            w.parked = w.costopped = w.queued = False
        if before != "ready":
            self.policy.stopped(w.id, why)

    def stops(self, w: World) -> bool:
        """Whether a running world's work is done, or its limit used up."""
        self.work_done(w)
        if w.state != "run":
            return True
        if not w.has_work:
            self.stop(w, "wait", "block")
            return True
        if w.limit:
            w.refresh(self.now)
            if w.budget <= 0:
                w.refill = w.period_end
                self.stop(w, "limited", "limit")
                return True
        return False

    def pick(self, number: int, before: World | None) -> None:
        cpu = self.cpus[number]
        self.asked.discard(number)
        id = self.policy.pick(number)
        if id is None:
            return
        w = self.worlds[id]
        assert (w.state, w.queued) == ("ready", True)
        assert number in w.cpus
        w.queued = False
        cpu.idle += self.now - cpu.idle_since
        if w is not before:
            if w.woken:
                w.woken = False
                w.wakes.append(self.now - w.since)
            w.switches += 1
            cpu.switches += 1
            cpu.began = self.now
            self.moved_to(w, number)
        w.count(self.now)
        w.cpu = number
        w.state = "run"
        cpu.running = w
        cpu.slice_end = self.now
        slice_ns = self.policy.timeslice(number, id)
        if cpu.running is w:
            cpu.slice_end = self.now + slice_ns
            self.set_speed(w)
            if w.team:
                w.team.got_cpu(w)

    def requeue(self, number: int, why: str) -> None:
        w = self.cpus[number].running
        self.vacate(number)
        w.state = "ready"
        self.queue_up(w, why)
        self.pick(number, w)

    def serve(self) -> None:
        while self.asked or self.off_speed():
            if not self.asked:
                self.settle()
                continue
            number = min(self.asked)
            self.asked.remove(number)
            w = self.cpus[number].running
            if w is None:
                self.pick(number, self.moved.pop(number, None))
                continue
            self.charge(w)
            if self.cpus[number].running is not w or self.stops(w):
                continue
            over = self.now >= self.cpus[number].slice_end
            self.requeue(number, "slice" if over else "preempt")
        self.moved = {}

    def off_speed(self) -> list[World]:
        """Worlds that run beside another number of busy threads than when they began."""
        if not self.shape.paced:
            return []
        return [w for cpu in self.cpus if (w := cpu.running) and w.threads != self.busy(w.cpu)]

    def settle(self) -> None:
        for w in self.off_speed():
            if self.cpus[w.cpu].running is w and w.threads != self.busy(w.cpu):
                self.charge(w)
                if self.cpus[w.cpu].running is w:
                    self.set_speed(w)

    # --- events ---

    def due(self) -> list[tuple]:
        found = [(t, 2 * kind, number) for t, kind, number in super().due()]
        if self.policy.timer is not NEVER:
            found.append((self.policy.timer, 1, 0))
        return found

    def step(self) -> bool:
        found = self.due()
        if not found:
            return False
        self.now, kind, number = min(found)
        if kind == 0:
            self.timer_event(self.worlds[number])
        elif kind == 1:
            self.policy.timer = NEVER
            self.policy.timed()
        else:
            w = self.cpus[number].running
            self.charge(w)
            if (
                self.cpus[number].running is w
                and not self.stops(w)
                and self.now >= self.cpus[number].slice_end
            ):
                self.requeue(number, "slice")
        self.serve()
        return True

    # --- parking and co-stopping ---

    def hold(self, w: World, mark: str) -> None:
        if w.state == "wait" or getattr(w, mark):
            return
        setattr(w, mark, True)
        if w.state == "run":
            self.charge(w)
            if w.state == "run" and self.stops(w):
                return
        if not getattr(w, mark):
            return
        if w.state in ("run", "ready"):
            why = "park" if mark == "parked" else "costop"
            self.stop(w, "limited" if mark == "parked" else "costop", why)
        elif w.state != "wait":
            w.count(self.now)
            self.enter(w, "unpark")

    def release(self, w: World, mark: str, why: str) -> None:
        if getattr(w, mark):
            setattr(w, mark, False)
            if w.state in ("limited", "costop"):
                w.count(self.now)
                self.enter(w, why)

    # --- changes from outside ---

    def halt(self, w: World, state: str) -> None:
        if w.state == "run":
            self.charge(w)
            if w.state == "run":
                self.stops(w)
        w.refill = None
        if w.state == "wait":
            w.count(self.now)
        else:
            self.stop(w, state, "block")

    def remove(self, id: int) -> None:
        self.halt(self.worlds[id], "wait")
        self.policy.remove(id)
        super().remove(id)
        self.serve()

    def block(self, id: int) -> None:
        super().block(id)
        self.serve()

    def wake(self, id: int) -> None:
        super().wake(id)
        self.serve()

    def submit(self, id: int, work: int) -> None:
        super().submit(id, work)
        self.serve()

    def change(self, worlds: list, apply) -> None:
        """Ready worlds are out of their queues while parameters change."""
        for w in worlds:
            if w.state == "run":
                self.charge(w)
            if w.state == "ready":
                self.unqueue(w)
        apply()
        for w in worlds:
            self.policy.change(w.id)
            if w.state == "ready" and not w.queued:
                self.queue_up(w, "move")
        self.serve()

    def set_weight(self, id: int, weight: int) -> None:
        w = self.worlds[id]
        vm = self.vms[w.vm]

        def apply() -> None:
            w.weight = weight
            if len(vm.worlds) == 1:
                vm.weight = weight

        self.change([w], apply)

    def set_vm(self, number: int, weight, reservation, limit, params) -> None:
        vm = self.vms[number]
        worlds = [self.worlds[id] for id in vm.worlds]

        def apply() -> None:
            vm.weight = vm.weight if weight is None else weight
            vm.reservation = vm.reservation if reservation is None else reservation
            vm.limit = vm.limit if limit is None else limit
            for name, value in params:
                vm.param[list(self.policy.vm_params).index(name)] = value
            if weight is not None:
                for w in worlds:
                    w.weight = max(1, weight // len(worlds))

        self.change(worlds, apply)

    def set_affinity(self, id: int, affinity) -> None:
        w = self.worlds[id]
        cpus = frozenset(range(len(self.cpus)) if affinity is None else affinity)
        if w.state == "run":
            self.charge(w)
        before = w.state
        if before in ("run", "ready"):
            self.stop(w, "wait", "move")
        self.queue(w.cpus).part(w)
        w.cpus = cpus
        self.queue(w.cpus).join(w)
        self.policy.change(id)
        if before in ("run", "ready"):
            w.count(self.now)
            self.enter(w, "move")
        if before == "run":
            self.moved = {w.cpu: w}
        self.serve()

    def limit(self, w: World, limit: tuple | None) -> None:
        if w.state == "run":
            self.charge(w)
        w.limit = limit
        if limit:
            w.budget, w.period_end = limit[0], self.now + limit[1]
        if w.refill is not None:
            w.refill = None
            w.count(self.now)
            self.enter(w, "refill")

    def set_limit(self, id: int, limit: tuple | None) -> None:
        self.limit(self.worlds[id], limit)
        self.serve()

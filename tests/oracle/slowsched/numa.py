"""NUMA home nodes, from their rules."""

from __future__ import annotations

from fractions import Fraction
from math import floor

FULL = 1 << 16


class Part:
    def __init__(self, worlds: list[int], pages: int, home: int) -> None:
        self.worlds, self.all_pages, self.home = worlds, pages, home
        self.pages = {home: pages}  # of each node
        self.entitled = self.owed = 0  # CPUs in 2**-16


class SlowNuma:
    def __init__(self, policy, numa) -> None:
        self.policy, self.numa = policy, numa
        self.penalty = floor(Fraction(numa.remote_penalty) * FULL)
        self.vms: dict[int, list[Part]] = {}
        self.moves = 0

    @property
    def now(self) -> int:
        return self.policy.now

    def begin(self) -> None:
        shape = self.policy.host.shape
        self.node = shape.numbers[2]
        self.nodes = sorted(set(self.node))
        cores = [{shape.numbers[0][c] for c in self.cpus(node)} for node in self.nodes]
        self.cores = [len(each) for each in cores]
        on = 2 <= len(self.nodes) <= 16 and sum(self.cores) >= 4 and min(self.cores) >= 2
        self.on = on
        self.next_rebalance = self.now + self.numa.rebalance_ns if on else None
        self.next_drain: int | None = None

    @property
    def due(self) -> int | None:
        times = (self.next_drain, self.next_rebalance)
        return min((t for t in times if t is not None), default=None)

    def cpus(self, node: int) -> list[int]:
        return [cpu for cpu, at in enumerate(self.node) if at == node]

    def part(self, id: int) -> Part | None:
        parts = self.vms.get(self.policy.world(id).vm, [])
        return next((p for p in parts if id in p.worlds), None)

    def home(self, id: int) -> int | None:
        part = self.part(id)
        return part and part.home

    def at_home(self, id: int, cpu: int) -> bool:
        part = self.part(id)
        return part is None or part.home == self.node[cpu]

    def parts(self) -> list[Part]:
        return [p for vm in sorted(self.vms) for p in self.vms[vm]]

    # --- memory ---

    def set_memory(self, part: Part, remote: int) -> None:
        host = self.policy.host
        for id in part.worlds:
            w = self.policy.world(id)
            if w.state == "run" and w.since < self.now:
                host.charge(w)
            w.remote_time += w.remote * (self.now - w.remote_since) >> 16
            w.remote, w.remote_since = remote, self.now
            w.memory = FULL - (self.penalty * remote >> 16)
            if w.state == "run":
                host.set_speed(w)

    def share(self, part: Part) -> int:
        away = part.all_pages - part.pages.get(part.home, 0)
        return (away << 16) // part.all_pages if away else 0

    def drain(self) -> None:
        self.next_drain = None
        for part in self.parts():
            if part.pages.get(part.home, 0) == part.all_pages:
                continue
            rest = self.numa.drain_pages
            for node in sorted(part.pages):
                if node != part.home:
                    some = min(rest, part.pages[node])
                    part.pages[node] -= some
                    part.pages[part.home] = part.pages.get(part.home, 0) + some
                    rest -= some
            self.set_memory(part, self.share(part))
            if part.pages[part.home] < part.all_pages:
                self.next_drain = self.now + self.numa.drain_ns

    # --- homes ---

    def pinned(self, vm: int) -> bool:
        worlds = self.policy.vm(vm).worlds
        return any(len(self.policy.world(id).cpus) < self.policy.cpu_count for id in worlds)

    def place(self, vm: int, pages: int) -> None:
        if not self.on or vm in self.vms or self.pinned(vm):
            return
        worlds = list(self.policy.vm(vm).worlds)
        sizes = [len(self.cpus(node)) for node in self.nodes]
        size = min(sizes if self.numa.prefer_threads else self.cores)
        count = min(-(-len(worlds) // size), len(self.nodes), 8)
        made = self.vms[vm] = []
        for i in range(count):
            mine = worlds[len(worlds) * i // count : len(worlds) * (i + 1) // count]
            memory = pages * (i + 1) // count - pages * i // count
            part = Part(mine, memory, self.emptiest(made))
            self.measured(part)
            made.append(part)

    def emptiest(self, own: list[Part]) -> int:
        def order(node: int) -> tuple:
            load = sum(len(p.worlds) for p in self.parts() if p.home == node)
            return any(p.home == node for p in own), Fraction(load, len(self.cpus(node))), node

        return min(self.nodes, key=order)

    def change(self, vm: int) -> None:
        if vm in self.vms and self.pinned(vm):
            for part in self.vms[vm]:
                self.set_memory(part, 0)
            del self.vms[vm]

    def remove(self, id: int) -> None:
        part = self.part(id)
        if part is None:
            return
        part.worlds.remove(id)
        self.measured(part)
        vm = self.policy.world(id).vm
        if len(self.policy.vm(vm).worlds) == 1:
            del self.vms[vm]

    # --- the rebalancer ---

    def spent(self, part: Part, state: str) -> int:
        total = 0
        for id in part.worlds:
            w = self.policy.world(id)
            total += w.times[state] + (self.now - w.since if w.state == state else 0)
        return total

    def measured(self, part: Part) -> None:
        part.run, part.rdy = self.spent(part, "run"), self.spent(part, "ready")
        part.measured = self.now

    def measure(self) -> None:
        asked = {}
        for number, vm in self.policy.host.vms.items():
            if number in self.vms:
                asked[number] = sum(self.ask(part) for part in self.vms[number])
            else:
                states = [self.policy.world(id).state for id in vm.worlds]
                asked[number] = FULL * (states.count("run") + states.count("ready"))
        entitled = self.share_out(asked)
        for number, parts in self.vms.items():
            count = len(self.policy.vm(number).worlds)
            for part in parts:
                part.entitled = min(entitled[number] * len(part.worlds) // count, part.asked)
                part.owed = part.entitled - part.used

    def ask(self, part: Part) -> int:
        over = self.now - part.measured
        run = self.spent(part, "run") - part.run
        rdy = self.spent(part, "ready") - part.rdy
        part.used = (run << 16) // over if over else 0
        part.asked = (run + rdy << 16) // over if over else 0
        self.measured(part)
        return part.asked

    def share_out(self, asked: dict[int, int]) -> dict[int, int]:
        """By weight, and none more than it asked for."""
        weight = {number: vm.weight for number, vm in self.policy.host.vms.items()}
        rest, found = self.policy.cpu_count * FULL, {}
        while True:
            total = sum(weight[vm] for vm in asked if vm not in found)
            part = {vm: rest * weight[vm] // total for vm in asked if vm not in found}
            content = {vm: asked[vm] for vm in part if asked[vm] <= part[vm]}
            if not content:
                return found | part
            found |= content
            rest -= sum(content.values())

    def rebalance(self) -> None:
        self.measure()
        owed, load = (
            [sum(getattr(p, what) for p in self.parts() if p.home == node) for node in self.nodes]
            for what in ("owed", "entitled")
        )
        source = min(self.nodes, key=lambda node: (-owed[node], node))
        to = min(self.nodes, key=lambda node: (owed[node], load[node], node))
        cpus, others = len(self.cpus(source)), len(self.cpus(to))
        threshold = self.numa.threshold_percent * min(cpus, others) << 16
        if 100 * (owed[source] - owed[to]) <= threshold:
            return
        best = None
        least = Fraction(load[source], cpus) - Fraction(load[to], others)
        for vm in sorted(self.vms):
            for part in self.vms[vm]:
                if part.home != source or len(part.worlds) > others:
                    continue
                if any(other.home == to for other in self.vms[vm]):
                    continue
                from_load = Fraction(load[source] - part.entitled, cpus)
                after = abs(from_load - Fraction(load[to] + part.entitled, others))
                if after < least:
                    best, least = part, after
        if best is not None:
            self.moves += 1
            best.home = to
            self.set_memory(best, self.share(best))
            if best.pages.get(to, 0) < best.all_pages and self.next_drain is None:
                self.next_drain = self.now + self.numa.drain_ns
            for id in list(best.worlds):
                self.policy.world(id).home_moves += 1
                self.policy.rehomed(id)

    def timed(self) -> None:
        if self.next_drain == self.now:
            self.drain()
        if self.next_rebalance == self.now:
            self.next_rebalance = self.now + self.numa.rebalance_ns
            self.rebalance()

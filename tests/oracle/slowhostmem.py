"""The memory of one host, slowly: a dictionary for each VM, contents as sets, no arrays.

It shares with pyvirt only the division of pages into targets, which has an oracle of its own.
"""

import math

from pyvirt.hostmem import targets

MASK = (1 << 64) - 1
HIGH, CLEAR, SOFT, HARD, LOW = range(5)


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def touched_of_sample(seed, key, period, part):
    word = mix(mix(seed ^ mix(key)) ^ period)
    numbers = []
    while len(numbers) < 100:
        word = mix(word)
        numbers += [word >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    return sum(number < int(part * 65536) for number in numbers)


def share_of(whole, part, of):
    return min(int(whole * part / of), whole) if of > 0 else 0


class SlowVM:
    """Pages by where they are; `known` are the contents that were scanned, by class."""

    def __init__(self, key, memory, classes, **inputs):
        self.key, self.memory = key, memory
        self.__dict__.update(inputs)
        self.untouched, self.mapped, self.zipped, self.swapped, self.ballooned = memory, 0, 0, 0, 0
        self.large = self.zipped_active = self.swapped_active = self.last_active = 0
        self.known = [0] * classes
        self.base = [0] * classes
        self.content = [0] * classes
        self.cursor = self.period = 0
        self.fast = self.slow = 0.75
        self.peak = self.running = 0.0
        self.estimate = memory * 3 // 4
        self.target, self.balloon_target, self.swap_target, self.starved = memory, 0, 0, 0
        self.unzip_rest = self.swap_in_rest = self.balloon_rest = self.deflate_rest = 0.0
        self.scan_rest = 0.0
        self.shared = 0
        self.counts = dict.fromkeys(
            (
                "swap_out", "swap_in", "zip", "unzip", "balloon_in", "balloon_out", "double_paged",
                "unshared", "broken", "swap_wait_ns", "blocked_ns",
            ),
            0,
        )  # fmt: skip

    @property
    def scanned(self):
        return sum(self.known)

    @property
    def own(self):
        return self.mapped - self.shared + math.ceil(self.zipped / 2)

    @property
    def ceiling(self):
        return self.memory if self.limit < 0 else min(self.memory, self.limit)

    @property
    def touched(self):
        return self.mapped + self.zipped + self.swapped

    @property
    def held(self):
        return min(self.used, self.memory - self.ballooned)

    def set_active(self, active):
        old = self.last_active
        if active > old:
            idle, more = self.touched - old, active - old
            z = share_of(self.zipped - self.zipped_active, more, idle)
            s = share_of(self.swapped - self.swapped_active, more, idle)
            self.zipped_active += z
            self.swapped_active += s
        elif active < old:
            self.zipped_active = share_of(self.zipped_active, active, old)
            self.swapped_active = share_of(self.swapped_active, active, old)
        self.last_active = active

    def unmap(self, pages):
        small = self.mapped - self.scanned - self.large
        while pages > small:  # break one large page after the other
            self.large -= 512
            self.counts["broken"] += 512
            small += 512
        self.mapped -= pages

    def give(self, pages, paging):
        """Pages for the balloon out of touched ones: idle ones, then any."""
        given = 0
        mapped = self.mapped - self.scanned
        resident = max(self.last_active - self.zipped_active - self.swapped_active, 0)
        pools = [
            (
                max(mapped - resident, 0),
                self.zipped - self.zipped_active,
                self.swapped - self.swapped_active,
            ),
            None,
        ]
        for pool in pools:
            if pool is None:
                pool = (self.mapped - self.scanned, self.zipped, self.swapped)
            a, b, c = pool
            want = min(pages - given, a + b + c)
            if want <= 0:
                continue
            from_b, from_c = share_of(b, want, a + b + c), share_of(c, want, a + b + c)
            from_a = want - from_b - from_c
            while from_a > a:
                from_a -= 1
                if from_b < b:
                    from_b += 1
                else:
                    from_c += 1
            self.unmap(from_a)
            self.zipped -= from_b
            self.swapped -= from_c
            self.zipped_active = min(self.zipped_active, self.zipped)
            self.swapped_active = min(self.swapped_active, self.swapped)
            if paging:
                self.counts["double_paged"] += from_c
                self.counts["swap_in"] += from_c
            given += want
        return given

    def inflate(self, pages):
        taken = self.give(min(pages, max(self.touched - self.held, 0)), False)
        fresh = min(pages - taken, self.untouched)
        self.untouched -= fresh
        taken += fresh
        taken += self.give(pages - taken, True)
        self.ballooned += taken
        self.counts["balloon_in"] += taken
        if self.last_active > self.touched:
            self.set_active(self.touched)

    def push_out(self, wanted, quota, cache_part):
        available = self.mapped - self.scanned
        wanted = min(wanted, available)
        if wanted <= 0:
            return
        resident = max(self.last_active - self.zipped_active - self.swapped_active, 0)
        mapped = self.mapped
        room = int(cache_part * self.memory) * 2 - self.zipped
        zipped = max(min(wanted * self.compressible // 1000, room), 0)
        cost = math.ceil((self.zipped + zipped) / 2) - math.ceil(self.zipped / 2)
        written = min(wanted - zipped + cost, available - zipped, quota)
        self.zipped += zipped
        self.zipped_active += min(share_of(resident, zipped, mapped), zipped)
        self.swapped += written
        self.swapped_active += min(share_of(resident, written, mapped), written)
        self.counts["zip"] += zipped
        self.counts["swap_out"] += written
        self.unmap(zipped + written)


class SlowHost:
    """One host; constants are the defaults of pyvirt's, thresholds are given in pages."""

    def __init__(self, total, enter, leave, break_below, goal, actions, *, tax, seed, cache_part):
        self.total, self.enter, self.leave = total, enter, leave
        self.break_below, self.goal, self.actions = break_below, goal, actions
        self.tax, self.seed, self.cache_part = tax, seed, cache_part
        self.vms = []
        self.state, self.now = HIGH, 0
        self.copies = 0

    @property
    def free(self):
        return self.total - self.copies - sum(vm.own + vm.overhead for vm in self.vms)

    def count_copies(self):
        """Put contents side by side: each VM has its first so many of a class."""
        holders = {}
        for vm in self.vms:
            for kind, pages in enumerate(vm.known):
                for number in range(pages):
                    content = (vm.group, kind, number if kind else 0)
                    holders.setdefault(content, []).append(vm)
        self.copies = 0
        for vm in self.vms:
            vm.shared = 0
        for owners in holders.values():
            if len(owners) > 1:
                self.copies += 1
                for vm in owners:
                    vm.shared += 1

    def change_state(self, free):
        for state in (LOW, HARD, SOFT, CLEAR):
            if state > self.state and free < self.enter[state - 1]:
                self.state = state
                return
        while self.state > HIGH and free >= self.leave[self.state - 1]:
            self.state -= 1

    def step(self, dt):
        room = self.free
        for vm in self.vms:
            for kind, pages in enumerate(vm.content):
                lost = min(max(vm.known[kind] - pages, 0), room)
                vm.known[kind] -= lost
                vm.counts["unshared"] += lost
                room -= lost
                vm.base[kind] = min(vm.base[kind], vm.known[kind])
        self.count_copies()
        free = self.free
        action = self.actions[self.state]
        for vm in self.vms:
            vm.wants = {"unzip": 0, "read": 0, "grow": 0}
            if "block" in action and vm.own > vm.target:
                vm.counts["blocked_ns"] += dt
            else:
                self.ask(vm, dt)
            self.sample(vm, dt)
            free -= sum(vm.wants.values())
        self.change_state(max(free, 0))
        action = self.actions[self.state]
        self.set_targets()
        self.reclaim(action, dt)
        self.serve(dt)
        self.break_large()
        for vm in self.vms:
            self.scan(vm, "share" in action, dt)
        self.count_copies()
        self.change_state(self.free)
        self.now += dt

    def ask(self, vm, dt):
        vm.set_active(min(vm.active, vm.held, vm.touched))
        vm.wants["grow"] = max(vm.held - vm.touched, 0)
        if not vm.zipped_active and not vm.swapped_active:
            return
        part = 1 - math.exp(-dt / vm.touch_ns)
        for what, pages, rest in (
            ("unzip", vm.zipped_active, "unzip_rest"),
            ("read", vm.swapped_active, "swap_in_rest"),
        ):
            exact = pages * part + getattr(vm, rest)
            vm.wants[what] = min(int(exact), pages)
            setattr(vm, rest, min(exact - vm.wants[what], 1.0))
        vm.wants["read"] = min(vm.wants["read"], int(vm.vcpus * dt / 5e6) + 1)

    def sample(self, vm, dt):
        part = vm.last_active / vm.memory
        length, end = 30 * 10**9, self.now + dt
        if part > vm.peak:
            vm.peak = part
            vm.running = touched_of_sample(self.seed, vm.key, vm.period, part) / 100
        while vm.period < end // length:
            vm.fast += 0.5 * (vm.running - vm.fast)
            vm.slow += 0.1 * (vm.running - vm.slow)
            vm.period += 1
            vm.peak = part if end > vm.period * length else 0.0
            vm.running = touched_of_sample(self.seed, vm.key, vm.period, vm.peak) / 100
        vm.estimate = min(int(max(vm.fast, vm.slow, vm.running) * vm.memory + 0.5), vm.memory)

    def set_targets(self):
        amount = self.total - self.copies - self.goal - sum(vm.overhead for vm in self.vms)
        amount = max(amount, 0)
        most = []
        for vm in self.vms:
            paged_by_guest = min(max(vm.used - (vm.memory - vm.ballooned), 0), vm.ballooned)
            most.append(min(vm.own + sum(vm.wants.values()) + paged_by_guest, vm.ceiling))
        least = [min(vm.reservation, m) for vm, m in zip(self.vms, most, strict=True)]
        if sum(most) <= amount:
            least, most = most, [vm.ceiling for vm in self.vms]
        given = targets(
            [vm.shares for vm in self.vms], [vm.estimate for vm in self.vms], most, amount,
            least=least, tax=self.tax,
        )  # fmt: skip
        for vm, pages in zip(self.vms, given.tolist(), strict=True):
            vm.target = pages

    def reclaim(self, action, dt):
        needs = []
        for vm in self.vms:
            wanted = vm.own + sum(vm.wants.values())
            excess = wanted - vm.target
            ample = "balloon" not in action and "swap" not in action
            if ample and excess > 0:
                excess = max(min(excess, wanted - vm.ceiling), 0)
            vm.balloon_target = vm.ballooned
            need = 0
            if excess > 0:
                need = self.by_balloon(vm, excess, dt) if "swap" not in action else excess
            elif excess < 0 and "swap" not in action:
                self.deflate(vm, -excess, dt)
            vm.swap_target = vm.swapped + need
            needs.append(need)
        quota = int(25600.0 * dt * 1e-9)
        for vm, need in zip(self.vms, needs, strict=True):
            if need > 0:
                vm.push_out(need, int(quota * need / sum(needs)), self.cache_part)

    def by_balloon(self, vm, excess, dt):
        most = vm.balloon_max if vm.balloon_max >= 0 else int(0.65 * vm.memory)
        most = max(min(most, vm.memory), vm.ballooned) if vm.tools else vm.ballooned
        vm.balloon_target = min(vm.ballooned + excess, most)
        wanted = vm.balloon_target - vm.ballooned
        vm.balloon_rest += 2048.0 * dt * 1e-9
        pages = min(wanted, int(vm.balloon_rest))
        vm.balloon_rest -= int(vm.balloon_rest)
        before = vm.counts["double_paged"]
        vm.inflate(pages)
        vm.counts["swap_wait_ns"] += int((vm.counts["double_paged"] - before) * 5e6)
        return excess - wanted

    def deflate(self, vm, slack, dt):
        wanted = min(vm.ballooned, slack)
        vm.balloon_target = vm.ballooned - wanted
        vm.deflate_rest += 16384.0 * dt * 1e-9
        pages = min(wanted, int(vm.deflate_rest))
        vm.deflate_rest -= int(vm.deflate_rest)
        vm.ballooned -= pages
        vm.untouched += pages
        vm.counts["balloon_out"] += pages

    def serve(self, dt):
        free = max(self.free, 0)
        for vm in self.vms:
            vm.wants["unzip"] = min(vm.wants["unzip"], vm.zipped_active)
            vm.wants["read"] = min(vm.wants["read"], vm.swapped_active)
            vm.wants["grow"] = min(vm.wants["grow"], max(vm.held - vm.touched, 0))
            vm.starved = sum(vm.wants.values())
            vm.room = max(vm.ceiling - vm.own, 0)
        whole = sum(min(vm.starved, vm.room) for vm in self.vms)
        for vm in self.vms:
            wanted = vm.starved
            if not wanted:
                continue
            part = min(wanted, vm.room)
            if whole > free:
                part = min(int(part * free / whole), part)
            unzip = min(vm.wants["unzip"], part)
            read = min(vm.wants["read"], part - unzip)
            grow = min(vm.wants["grow"], part - unzip - read)
            vm.zipped -= unzip
            vm.zipped_active -= unzip
            vm.swapped -= read
            vm.swapped_active -= read
            vm.untouched -= grow
            vm.mapped += unzip + read + grow
            vm.counts["unzip"] += unzip
            vm.counts["swap_in"] += read
            if vm.large_pages and free - whole >= self.break_below:
                vm.large += grow // 512 * 512
            vm.starved = wanted - part
            wait = read * 5e6 + unzip * 2e4
            wait += float(vm.vcpus) * dt * (wanted - part) / wanted
            vm.counts["swap_wait_ns"] += int(min(wait, float(vm.vcpus) * dt))

    def break_large(self):
        lacking = self.break_below - self.free
        candidates = [vm for vm in self.vms if vm.sharing and vm.large]
        whole = sum(vm.large for vm in candidates)
        if lacking <= 0 or not whole:
            return
        part = min(1.0, lacking / whole)
        for vm in candidates:
            hidden = sum(max(c - k, 0) for c, k in zip(vm.content, vm.known, strict=True))
            hidden -= vm.mapped - vm.large - vm.scanned
            hidden = min(max(hidden, 0), int(part * vm.large) + 1)
            pages = min(math.ceil(hidden / 512) * 512, vm.large)
            vm.large -= pages
            vm.counts["broken"] += pages

    def scan(self, vm, forced, dt):
        if not vm.sharing:
            return
        vm.scan_rest += min(vm.memory / 3.6e12, 1024.0 * 1e-9) * dt
        steps = int(vm.scan_rest)
        vm.scan_rest -= steps
        cursor = vm.cursor + steps
        passed = forced or cursor >= vm.memory
        vm.cursor = 0 if forced else cursor % vm.memory
        room = vm.mapped - vm.large - vm.scanned
        for kind, pages in enumerate(vm.content):
            fresh = pages - vm.base[kind]
            upto = vm.base[kind] + (fresh if passed else int(fresh * (cursor / vm.memory)))
            found = min(max(upto - vm.known[kind], 0), room)
            vm.known[kind] += found
            room -= found
            if passed:
                vm.base[kind] = vm.known[kind]

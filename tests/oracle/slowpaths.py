"""Paths in plain Python: lists, objects, and one loop that searches for what is first.

Written from the rules in the documentation of `PathEngine`, with nothing of its code: no links, no
heap, no tokens; whatever can be computed anew from the state is.
"""

FOREVER = 2**62


class Request:
    def __init__(self, number, at, device, nbytes, work, vm, key):
        self.number, self.at, self.device, self.nbytes = number, at, device, nbytes
        self.work, self.vm, self.key = work, vm, key
        self.path = self.last_path = None
        self.hop = 0
        self.detour = 0
        self.first_issue = self.end = -1
        self.issued = self.device_ns = self.tries = 0
        self.outcome = "pending"


class Path:
    def __init__(self, number, device, components, processor, dead_after):
        self.number, self.device, self.components = number, device, components
        self.processor, self.dead_after = processor, dead_after
        self.seen, self.disabled = True, False
        self.requests = []
        self.issued = 0


class Device:
    def __init__(self, number, **options):
        self.number = number
        self.__dict__.update(options)
        self.queue = []
        self.active = []
        self.state = "on"
        self.current = None
        self.used_ios = self.used_bytes = 0
        self.bounced = 0
        self.lost = False


class SlowPaths:
    def __init__(self, plan, apd_timeout=140 * 10**9, back_after=0, window=30 * 10**9, percent=75):
        self.now = self.sequence = 0
        self.apd_timeout, self.back_after = apd_timeout, back_after
        self.window, self.percent = window, percent
        self.parts = plan.components
        self.down = [0] * len(self.parts)
        self.serving = [None] * len(self.parts)
        self.waiting = [[] for _ in self.parts]
        self.owner = [owner for _, owner in plan.volumes]
        self.moving = [None] * len(plan.volumes)
        self.lost = [False] * len(plan.volumes)
        self.devices, self.paths = [], []
        for number, one in enumerate(plan.devices):
            device = Device(number, **one)
            rows = range(one["first"], one["first"] + one["count"])
            device.paths = [
                Path(
                    p,
                    device,
                    plan.paths[p].components,
                    plan.paths[p].processor,
                    dict(zip(plan.paths[p].components, plan.paths[p].dead_after, strict=True)),
                )
                for p in rows
            ]
            self.paths += device.paths
            if device.team:
                device.slot = device.paths[: device.slots]
                device.current = device.paths[0]
                device.port_path = [None] * device.ports
                device.port_bytes = [0] * device.ports
                device.window_planned = False
            else:
                hand = one["preferred"]
                device.by_hand = hand is not None
                device.preferred = device.paths[hand] if device.by_hand else None
            self.devices.append(device)
        self.events, self.requests, self.todo = [], [], []
        for device in self.devices:
            if not device.team:
                self.look_at(device)
        self.settle()

    # what comes from outside

    def plan(self, time, rank, what, *arguments):
        self.events.append([time, rank, self.sequence, what, arguments])
        self.sequence += 1

    def fail(self, part, at):
        self.plan(at, 0, self.change, part, 1)

    def repair(self, part, at):
        self.plan(at, 0, self.change, part, -1)

    def lose(self, volume, at):
        self.plan(at, 0, self.lose_volume, volume)

    def lose_device(self, device, at):
        self.plan(at, 0, self.lose_one, self.devices[device])

    def disable(self, device, path, at, disabled=True):
        self.plan(at, 0, self.set_disabled, self.devices[device].paths[path], disabled)

    def submit(self, at, device, nbytes, work, vm, key):
        request = Request(len(self.requests), at, self.devices[device], nbytes, work, vm, key)
        self.requests.append(request)
        self.events.append([at, 2, request.number, self.arrive, (request,)])

    def run(self, until=FOREVER):
        while self.events:
            first = min(self.events, key=lambda event: tuple(event[:3]))
            if first[0] > until:
                return
            self.events.remove(first)
            self.now = first[0]
            first[3](*first[4])
            self.settle()

    def drop(self, what, *arguments):
        """Forget what is planned with these arguments."""
        self.events = [e for e in self.events if not (e[3] == what and e[4] == arguments)]

    # paths

    def broken(self, path):
        return any(self.down[part] > 0 for part in path.components)

    def state(self, path):
        device = path.device
        if path.disabled:
            return "disabled"
        if not path.seen:
            return "dead"
        if device.team or device.kind.name == "ACTIVE_ACTIVE" or path.processor < 0:
            return "active"
        if path.processor == self.owner[device.volume]:
            return "active"
        return "standby" if device.kind.name == "ACTIVE_PASSIVE" else "unoptimized"

    def of_state(self, device, *states):
        return [path for path in device.paths if self.state(path) in states]

    def best(self, device):
        for state in ("active", "unoptimized", "standby"):
            for path in self.of_state(device, state):
                return path
        return None

    def ask_for(self, device, path, really):
        if path is None or self.state(path) != "standby":
            return path
        if really and self.moving[device.volume] is None:
            self.moving[device.volume] = path
            self.plan(self.now + device.activation, 1, self.moved, device.volume)
        return None

    def choose(self, device, really):
        if device.policy.name == "ROUND_ROBIN":
            return self.round_robin(device, really)
        if device.policy.name == "FIXED":
            path = device.preferred
            if path is None or self.state(path) in ("dead", "disabled"):
                path = device.current
                if path is None or self.state(path) not in ("active", "unoptimized"):
                    path = self.best(device)
                if path is not None and not device.by_hand:
                    device.preferred = path
        else:
            path = device.current
            good = self.of_state(device, "active")
            if path in good:
                return path
            if path is None or self.state(path) != "unoptimized" or good:
                path = self.best(device)
        path = self.ask_for(device, path, really)
        if path is not None:
            device.current = path
        return path

    def round_robin(self, device, really):
        able = self.of_state(device, "active")
        if not able or device.use_unoptimized:
            able = self.of_state(device, "active", "unoptimized")
        if not able:
            return self.ask_for(device, self.best(device), really)
        spent = device.used_ios >= device.switch_ios or (
            device.switch_bytes and device.used_bytes >= device.switch_bytes
        )
        if device.current in able and not spent:
            return device.current
        if device.current is None:
            device.current = able[0]
        else:
            at = device.current.number
            device.current = ([p for p in able if p.number > at] + able)[0]
        device.used_ios = device.used_bytes = 0
        return device.current

    # requests on their way

    def service(self, request, part):
        one = self.parts[part]
        time = max(one.per_io, -(-request.nbytes * one.ps // 1000))
        last = request.hop == len(request.path.components) - 1
        return time + (request.work if last else 0)

    def begin_service(self, part, request):
        self.serving[part] = request
        self.plan(self.now + self.service(request, part), 1, self.served, part)

    def next_service(self, part):
        if self.serving[part] is None and self.waiting[part]:
            self.begin_service(part, self.waiting[part].pop(0))

    def served(self, part):
        request = self.serving[part]
        self.serving[part] = None
        self.next_service(part)
        self.after(request, part)

    def after(self, request, part):
        delay = self.parts[part].delay
        if request.hop == len(request.path.components) - 1:
            delay += request.detour
        if delay:
            self.plan(self.now + delay, 1, self.go_on, request)
        else:
            self.go_on(request)

    def go_on(self, request):
        request.hop += 1
        self.enter(request)

    def enter(self, request):
        if request.hop == len(request.path.components):
            self.leave_path(request)
            request.device.active.remove(request)
            self.finish(request, "done")
            self.look_at(request.device)
            return
        part = request.path.components[request.hop]
        if self.serving[part] is not None:
            self.waiting[part].append(request)
        elif self.service(request, part) > 0:
            self.begin_service(part, request)
        else:
            self.after(request, part)

    def leave_path(self, request):
        request.path.requests.remove(request)
        request.device_ns += self.now - request.issued
        request.path = None

    def stop(self, request):
        """Whatever a request is doing on its path ends."""
        self.drop(self.go_on, request)
        for part in range(len(self.parts)):
            if request in self.waiting[part]:
                self.waiting[part].remove(request)
            if self.serving[part] is request:
                self.serving[part] = None
                self.drop(self.served, part)

    def restart(self):
        for part in range(len(self.parts)):
            self.next_service(part)

    def finish(self, request, outcome):
        request.outcome, request.end = outcome, self.now

    # hosts

    def look_at(self, device):
        if device not in self.todo:
            self.todo.append(device)

    def settle(self):
        while self.todo:
            device = self.todo[0]
            if not device.team and device.state == "on":
                if not device.queue and device.policy.name != "ROUND_ROBIN":
                    self.choose(device, False)
                while device.queue and len(device.active) < device.depth:
                    path = self.choose(device, True)
                    if path is None:
                        break
                    self.issue(device.queue.pop(0), path)
            self.todo.remove(device)

    def issue(self, request, path):
        device = request.device
        device.used_ios += 1
        device.used_bytes += request.nbytes
        device.active.append(request)
        path.issued += 1
        if request.first_issue < 0:
            request.first_issue = self.now
        request.issued, request.path, request.last_path, request.hop = self.now, path, path, 0
        request.tries += 1
        request.detour = 0
        if not device.team and self.state(path) == "unoptimized":
            request.detour = device.detour
        path.requests.append(request)
        if not self.broken(path):
            self.enter(request)

    def arrive(self, request):
        device = request.device
        if device.team:
            self.count(device, request.key, request.nbytes)
            path = self.uplink(device, request.key)
            if path is None:
                self.finish(request, "lost")
            elif self.broken(path):
                request.last_path, request.first_issue = path, self.now
                self.finish(request, "lost")
            else:
                self.issue(request, path)
        elif device.state == "pdl":
            self.finish(request, "pdl")
        elif device.state == "timeout" and not request.vm:
            self.finish(request, "apd")
        else:
            device.queue.append(request)
            self.look_at(device)

    def bounce(self, path):
        back = list(path.requests)
        for request in back:
            self.stop(request)
            self.leave_path(request)
            path.device.active.remove(request)
            request.last_path = None
        path.device.bounced += len(back)
        path.device.queue[:0] = back

    def give_up(self, path, outcome):
        for request in list(path.requests):
            self.stop(request)
            self.leave_path(request)
            path.device.active.remove(request)
            self.finish(request, outcome)

    def refresh(self, device):
        if device.state == "pdl":
            return
        if device.team:
            alive = (
                device.current is not None
                if device.policy.name == "EXPLICIT"
                else any(path is not None for path in device.slot)
            )
        else:
            able = self.of_state(device, "active", "unoptimized", "standby")
            alive = bool(able)
            if (device.lost or self.lost[device.volume]) and any(
                not self.broken(path) for path in able
            ):
                device.state = "pdl"
                self.drop(self.time_out, device)
                for path in device.paths:
                    self.give_up(path, "pdl")
                for request in device.queue:
                    self.finish(request, "pdl")
                device.queue = []
                self.restart()
                return
        if not alive and device.state == "on":
            device.state = "apd"
            if not device.team and self.apd_timeout is not None:
                self.plan(self.now + self.apd_timeout, 1, self.time_out, device)
        elif alive and device.state != "on":
            device.state = "on"
            self.drop(self.time_out, device)
        self.look_at(device)

    def time_out(self, device):
        device.state = "timeout"
        for request in device.queue:
            if not request.vm:
                self.finish(request, "apd")
        device.queue = [request for request in device.queue if request.vm]

    # faults

    def change(self, part, by):
        before = self.down[part] > 0
        self.down[part] += by
        after = self.down[part] > 0
        through = [path for path in self.paths if part in path.components]
        others = {
            path: any(self.down[other] > 0 for other in path.components if other != part)
            for path in through
        }
        if after and not before:
            for path in through:
                if not others[path]:
                    if path.device.team:
                        self.give_up(path, "lost")
                    else:
                        for request in path.requests:
                            self.stop(request)
                    self.drop(self.see_up, path)
                wait = path.dead_after[part]
                if path.seen and wait < FOREVER:
                    self.plan(self.now + wait, 1, self.see_dead, path)
            self.restart()
        elif before and not after:
            for path in through:
                if others[path]:
                    continue
                self.drop(self.see_dead, path)
                if not path.seen:
                    self.plan(self.now + self.back_after, 1, self.see_up, path)
                    continue
                for request in list(path.requests):
                    request.hop = 0
                    self.enter(request)
                self.refresh(path.device)

    def see_dead(self, path):
        self.drop(self.see_dead, path)
        path.seen = False
        if not path.disabled:
            self.gone(path)

    def see_up(self, path):
        path.seen = True
        if not path.disabled:
            self.back(path)

    def gone(self, path):
        if path.device.team:
            self.give_up(path, "lost")
            self.replace_uplink(path.device, path)
        else:
            self.bounce(path)
        self.restart()
        self.refresh(path.device)

    def back(self, path):
        if path.device.team:
            self.uplink_back(path.device, path)
        self.refresh(path.device)

    def set_disabled(self, path, disabled):
        if path.disabled == disabled:
            return
        path.disabled = disabled
        if disabled:
            self.gone(path)
        elif path.seen:
            self.back(path)

    def moved(self, volume):
        path, self.moving[volume] = self.moving[volume], None
        those = [device for device in self.devices if device.volume == volume]
        if not self.broken(path) and not self.lost[volume] and self.state(path) == "standby":
            self.owner[volume] = path.processor
            for device in those:
                for other in self.of_state(device, "standby"):
                    if not self.broken(other):
                        self.bounce(other)
            self.restart()
        for device in those:
            self.look_at(device)

    def lose_volume(self, volume):
        self.lost[volume] = True
        for device in self.devices:
            if device.volume == volume:
                self.refresh(device)

    def lose_one(self, device):
        device.lost = True
        self.refresh(device)

    # teams

    def spare(self, device, paths):
        for path in paths:
            if path.seen and not path.disabled and path not in device.slot:
                return path
        return None

    def first_working(self, device):
        for path in device.paths:
            if path.seen and not path.disabled:
                return path
        return None

    def replace_uplink(self, device, path):
        if device.policy.name == "EXPLICIT":
            if device.failback or path is device.current or device.current is None:
                device.current = self.first_working(device)
        elif path in device.slot:
            device.slot[device.slot.index(path)] = self.spare(device, device.paths)

    def uplink_back(self, device, path):
        if device.policy.name == "EXPLICIT":
            if device.failback or device.current is None:
                device.current = self.first_working(device)
            return
        home = device.paths.index(path)
        if device.failback and home < device.slots:
            device.slot[home] = path
        for at in range(device.slots):
            if device.slot[at] is None:
                works = any(one is not None for one in device.slot)
                some = device.paths[device.slots :] if works and not device.failback else None
                device.slot[at] = self.spare(device, device.paths if some is None else some)

    def uplink(self, device, key):
        if device.policy.name == "EXPLICIT":
            return device.current
        if device.policy.name == "LOAD_BASED":
            path = device.port_path[key]
            if path is not None and path in device.slot:
                return path
        path = device.slot[key % device.slots]
        if path is not None:
            return path
        working = [one for one in device.slot if one is not None]
        return working[key // device.slots % len(working)] if working else None

    def count(self, device, port, nbytes):
        if device.policy.name != "LOAD_BASED" or not nbytes:
            return
        device.port_path[port] = self.uplink(device, port)
        device.port_bytes[port] += nbytes
        if not device.window_planned:
            device.window_planned = True
            end = (self.now // self.window + 1) * self.window
            self.plan(end, 1, self.balance, device)

    def balance(self, device):
        device.window_planned = False

        def busy(path, nbytes):
            return -(-nbytes * self.parts[path.components[0]].ps // 1000)

        def load(path):
            ports = range(device.ports)
            return busy(
                path, sum(device.port_bytes[k] for k in ports if device.port_path[k] is path)
            )

        most = self.percent * self.window
        used = [path for path in device.slot if path is not None]
        if used:
            hot, cool = max(used, key=load), min(used, key=load)
            fits = [
                k
                for k in range(device.ports)
                if device.port_path[k] is hot
                and device.port_bytes[k] > 0
                and (load(cool) + busy(cool, device.port_bytes[k])) * 100 <= most
            ]
            if hot is not cool and load(hot) * 100 > most and fits:
                device.port_path[max(fits, key=lambda k: device.port_bytes[k])] = cool
        device.port_bytes = [0] * device.ports

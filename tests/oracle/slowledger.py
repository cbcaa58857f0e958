"""What machines and hosts did, found again from the events of a run alone, one at a time."""

import math
from fractions import Fraction

PAGE = 4096
MIB = 1 << 20
#: Space that growing disks do not get.
KEPT = {"vmfs": 100 * MIB, "nfs": 0, "local": 100 * MIB}
OFF, ON, SUSPENDED, DOWN = "off", "on", "suspended", "down"
STARTS = ("power-on", "resume", "restarted")
STOPS = {
    "power-off": OFF,
    "reset": OFF,
    "suspend": SUSPENDED,
    "vm-failed": DOWN,
    "vm-shut-down": DOWN,
    "vm-powered-off": DOWN,
}
HOST_ON = {
    "host-on": True,
    "host-back": True,
    "host-maintenance": True,
    "host-standby": False,
    "host-failed": False,
}
STATES = (OFF, ON, SUSPENDED, DOWN)


class Ledger:
    """Intervals of each state of each machine and host, from `Result.events`."""

    def __init__(self, result):
        self.end = result.duration_ns
        cluster = result.spec.cluster
        #: name -> list of (from, state, host)
        self.vms = {vm.name: [(0, OFF, "")] for vm in cluster.vms}
        #: name -> list of (from, is on, comes out of standby)
        self.hosts = {
            host.name: [(0, host.state in ("on", "maintenance"), False)] for host in cluster.hosts
        }
        #: name -> list of (begin, end) at which it stood still: for its disks, for anything else
        self.paused = {vm.name: [] for vm in cluster.vms}
        self.still = {vm.name: [] for vm in cluster.vms}
        self._moving, self._copying = {}, {}
        #: name -> {reason: since when} of what has not ended, and its disks without room
        self._stuns = {vm.name: {} for vm in cluster.vms}
        self._full = {vm.name: set() for vm in cluster.vms}
        self._snapshots = {vm.name: {} for vm in cluster.vms}
        for event in result.events:
            if event.vm:
                self._of_vm(event)
            elif event.host:
                self._of_host(event)
        for name, reasons in self._stuns.items():
            for reason in list(reasons):
                self._goes_on(name, reason, self.end)
        #: name -> since when it may have stood still without an event: the run ends while it moves
        self.unknown = {}
        for name, since in [*self._copying.items(), *self._moving.items()]:
            self.unknown[name] = min(since, self.unknown.get(name, since))

    def _of_vm(self, event):
        mine = self.vms[event.vm]
        state = mine[-1][1]
        now, stuns = event.time_ns, self._stuns[event.vm]
        if event.what in STARTS:
            assert state != ON, event
            mine.append((now, ON, event.host))
            # a disk that waits for room waits still
            stuns |= dict.fromkeys(self._full[event.vm], now)
        elif event.what in STOPS:
            assert event.what == "power-off" or state == ON, event
            mine.append((now, STOPS[event.what], ""))
            for reason in list(stuns):
                self._goes_on(event.vm, reason, now)
        elif event.what == "migration":
            self._moving[event.vm] = now
        elif event.what == "migration-cancelled":
            self._moving.pop(event.vm, None)
            self.still[event.vm].append((now - int(event.value), now))
        elif event.what == "migrated":
            del self._moving[event.vm]
            assert (state, mine[-1][2]) == (ON, event.host), event
            mine.append((now, ON, event.to))
            self.still[event.vm].append((now - int(event.value), now))
        elif event.what == "storage-migration":
            assert event.vm not in self._copying, event
            self._copying[event.vm] = now
        elif event.what == "storage-migrated" or (
            event.what == "refused" and event.text.startswith("storage migration") and event.value
        ):
            del self._copying[event.vm]
            self._switched(event.vm, now - int(event.value), now)
        elif event.what == "guest-failed":
            stuns.setdefault("guest", now)
        elif event.what == "disk-full":
            disk = event.text.rpartition(" on ")[0]
            self._full[event.vm].add(disk)
            stuns[disk] = now
        elif event.what == "disk-goes-on":
            self._full[event.vm].remove(event.text)
            if event.text in stuns:
                self._goes_on(event.vm, event.text, now)
        elif event.what == "snapshot":
            # of a machine that is on or suspended its memory is in it
            self._snapshots[event.vm].setdefault(event.text, state in (ON, SUSPENDED))
        elif event.what == "revert":
            kept = self._snapshots[event.vm][event.text]
            mine.append((event.time_ns, SUSPENDED if kept else OFF, ""))

    def _goes_on(self, name, reason, now):
        kind = self.still if reason == "guest" else self.paused
        kind[name].append((self._stuns[name].pop(reason), now))

    def _switched(self, name, since, now):
        """A machine that ran then stood still while its disks were switched, or up to its stop."""
        mine = self.vms[name]
        state = [one for one in mine if one[0] <= since][-1][1]
        stop = next((one[0] for one in mine if one[0] > since and one[1] != ON), now)
        if state == ON:
            self.still[name].append((since, min(stop, now)))

    def stands(self, name, begin, end):
        """Add up for how long, within an interval, a machine stood still for one reason or more."""
        total, last = 0, begin
        for since, until in sorted(self.still[name] + self.paused[name]):
            low, high = max(since, last), min(until, end)
            if high > low:
                total, last = total + high - low, high
        return total

    def still_at(self, name, time):
        """Say whether it stands still after a time, for anything but its disks."""
        return any(since <= time < until for since, until in self.still[name])

    def _of_host(self, event):
        mine = self.hosts[event.host]
        if event.what in HOST_ON:
            mine.append((event.time_ns, HOST_ON[event.what], False))
        elif event.what == "host-coming":
            mine.append((event.time_ns, mine[-1][1], True))

    def lasted(self, line, begin, end, wanted):
        """Add up for how long, within an interval, what is wanted was so."""
        total = 0
        for (since, *what), after in zip(line, [*line[1:], (self.end,)], strict=True):
            if wanted(*what):
                total += max(0, min(after[0], end) - max(since, begin))
        return total

    @staticmethod
    def at(line, time):
        """Give all that was so at a time: before it, and after each event of that time."""
        first = max(i for i, one in enumerate(line) if one[0] < time or i == 0)
        return [tuple(one[1:]) for i, one in enumerate(line) if i == first or one[0] == time]


def compare(result):
    """Raise AssertionError where the arrays of a result are not what its events say."""
    ledger = Ledger(result)
    _compare_space(result, ledger)
    begin = 0
    for sample, end in enumerate(result.times_ns.tolist()):
        for row, name in enumerate(result.vm_names):
            _compare_vm(result, ledger, row, name, sample, begin, end)
        for row, name in enumerate(result.host_names):
            _compare_host(result, ledger, row, name, sample, begin, end)
        begin = end


def _compare_vm(result, ledger, row, name, sample, begin, end):
    line, vms = ledger.vms[name], result.vms
    on = ledger.lasted(line, begin, end, lambda state, host: state == ON)
    down = ledger.lasted(line, begin, end, lambda state, host: state == DOWN)
    place = int(vms["host"][row, sample])
    there = (STATES[vms["state"][row, sample]], result.host_names[place] if place >= 0 else "")
    assert vms["on_ns"][row, sample] == on, ("on", name, sample, on)
    assert vms["down_ns"][row, sample] == down, ("down", name, sample, down)
    assert there in ledger.at(line, end), ("where", name, sample, there)
    if end <= ledger.unknown.get(name, end):
        still = ledger.stands(name, begin, end)
        assert vms["stunned_ns"][row, sample] == still, ("stunned", name, sample, still)


def _compare_host(result, ledger, row, name, sample, begin, end):
    line, hosts = ledger.hosts[name], result.hosts
    on = ledger.lasted(line, begin, end, lambda on, coming: on)
    assert hosts["on_ns"][row, sample] == on, ("host on", name, sample, on)
    watts = result.power_watts[row]
    idle, step = float(watts[0]), float(watts[-1] - watts[0])
    if any(abs(watts[i] - idle - step * i / 10) > 1e-9 for i in range(11)):
        return
    # where power is a straight line it does not matter when the CPU was used
    drawn = ledger.lasted(line, begin, end, lambda on, coming: on or coming)
    used = int(hosts["run_ns"][row, sample]) / int(result.capacity_ns[row])
    joules = idle * drawn / 1e9 + step * used
    found = float(hosts["joules"][row, sample])
    assert math.isclose(found, joules, rel_tol=1e-9, abs_tol=1e-6), ("J", name, sample, joules)


# --- space ---


class Space:
    """Datastores with their disks, one at a time, in whole MiB."""

    def __init__(self, cluster):
        self.free, self.disks, self.waiting = {}, {}, []
        for store in cluster.datastores:
            self.free[store.name] = store.capacity - min(KEPT[store.kind], store.capacity)
        for vm in cluster.vms:
            for disk in vm.disks:
                if disk.datastore in self.free:
                    thin = disk.provisioning == "thin"
                    used = (disk.used or 0) if thin else disk.size
                    row = {"store": disk.datastore, "size": disk.size, "used": used, "thin": thin}
                    self.disks[vm.name, disk.name] = row
                    self.free[disk.datastore] -= blocks(used)

    def write(self, key, size):
        """Let new bytes be written if there is room for them."""
        disk = self.disks[key]
        used = min(disk["used"] + size, disk["size"])
        more = blocks(used) - blocks(disk["used"])
        if more > max(0, self.free[disk["store"]]):
            return False
        self.free[disk["store"]] -= more
        disk["used"] = used
        return True

    def retry(self):
        """Give the disks that go on, in the order in which they stopped."""
        going = [one for one in list(self.waiting) if self.write(*one)]
        self.waiting = [one for one in self.waiting if one not in going]
        return [key for key, _ in going]

    def move(self, vm, store):
        for (name, _), disk in self.disks.items():
            if name == vm and disk["store"] != store:
                self.free[disk["store"]] += blocks(disk["used"])
                self.free[store] -= blocks(disk["used"])
                disk["store"] = store


def blocks(size):
    return -(-size // MIB) * MIB


def growth(cluster):
    """Give thin disks that grow, in the order of the machines, and by how many bytes a second."""
    made = []
    for vm in cluster.vms:
        load = vm.workload and vm.workload.disk
        for disk in vm.disks if load else ():
            written = Fraction(load.writes_per_s) * load.request_size * Fraction(load.write_growth)
            if disk.provisioning == "thin" and written:
                made.append((vm.name, disk.name, written / len(vm.disks)))
    return made


def _compare_space(result, ledger):
    """Find again which disks found no room, and went on, at which step."""
    cluster, step = result.spec.cluster, result.spec.step_ns
    if not cluster.datastores:
        return
    space = Space(cluster)
    rates = [one for one in growth(cluster) if one[:2] in space.disks]
    rest = dict.fromkeys(rates, Fraction(0))
    kinds = ("disk-full", "disk-goes-on")
    told = [one for one in result.events if one.what in kinds]
    made = []

    def go_on(time):
        made.extend((time, "disk-goes-on", vm, f"{vm}/{disk}") for vm, disk in space.retry())

    moved = [one for one in result.events if one.what == "storage-migrated"]
    times = {one.time_ns for one in moved} | set(range(step, ledger.end + 1, step))
    unsure = min(ledger.unknown.values(), default=ledger.end + 1)
    for time in sorted(times):
        for event in (one for one in moved if one.time_ns == time):
            space.move(event.vm, event.text.removeprefix("to "))
            go_on(time)
        if time % step or time >= unsure:
            continue
        for vm, disk, rate in rates:
            state = ledger.at(ledger.vms[vm], time)[-1][0]
            waits = any(name == vm for (name, _), _ in space.waiting)
            if state != ON or waits:
                continue
            if ledger.still_at(vm, time):
                continue
            rest[vm, disk, rate] += rate * step / 10**9
            whole = int(rest[vm, disk, rate])
            rest[vm, disk, rate] -= whole
            if whole and not space.write((vm, disk), whole):
                space.waiting.append(((vm, disk), whole))
                store = space.disks[vm, disk]["store"]
                made.append((time, "disk-full", vm, f"{vm}/{disk} on {store}"))
        if rates:
            go_on(time)
    found = [(one.time_ns, one.what, one.vm, one.text) for one in told if one.time_ns < unsure]
    assert [one for one in made if one[0] < unsure] == found, "space"

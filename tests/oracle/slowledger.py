"""What machines and hosts did, found again from the events of a run alone, one at a time."""

import math

PAGE = 4096
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
        #: name -> list of (begin, end) at which it moved, and stood still for it
        self.still = {vm.name: [] for vm in cluster.vms}
        #: machines that stood still for anything whose times no event tells
        self.unknown = set()
        self._moving = set()
        self._snapshots = {vm.name: {} for vm in cluster.vms}
        for event in result.events:
            if event.vm:
                self._of_vm(event)
            elif event.host:
                self._of_host(event)
        # the run may end while one stands still to move
        self.unknown |= self._moving

    def _of_vm(self, event):
        mine = self.vms[event.vm]
        state = mine[-1][1]
        if event.what in STARTS:
            assert state != ON, event
            mine.append((event.time_ns, ON, event.host))
        elif event.what in STOPS:
            assert event.what == "power-off" or state == ON, event
            mine.append((event.time_ns, STOPS[event.what], ""))
        elif event.what == "migration":
            self._moving.add(event.vm)
        elif event.what == "migrated":
            self._moving.discard(event.vm)
            assert (state, mine[-1][2]) == (ON, event.host), event
            mine.append((event.time_ns, ON, event.to))
            self.still[event.vm].append((event.time_ns - int(event.value), event.time_ns))
        elif event.what == "snapshot":
            # of a machine that is on or suspended its memory is in it
            self._snapshots[event.vm].setdefault(event.text, state in (ON, SUSPENDED))
        elif event.what == "revert":
            kept = self._snapshots[event.vm][event.text]
            mine.append((event.time_ns, SUSPENDED if kept else OFF, ""))
        elif event.what in ("guest-failed", "disk-full", "migration-cancelled") or (
            event.what.startswith("storage-migra")
        ):
            self.unknown.add(event.vm)

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
    if name not in ledger.unknown:
        still = sum(max(0, min(b, end) - max(a, begin)) for a, b in ledger.still[name])
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

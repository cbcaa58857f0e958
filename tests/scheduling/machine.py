"""Random scenarios, run on the engine and on the slow one, compared after each event."""

from copy import copy

import numpy as np

from oracle.slowsched import SlowPlugged, SlowScheduler
from oracle.slowsched.bvt import Bvt as SlowBvt
from oracle.slowsched.cfs import Cfs as SlowCfs
from oracle.slowsched.esx import Esx as SlowEsx
from oracle.slowsched.fixed import Fixed
from oracle.slowsched.hyperv import HyperV as SlowHyperV
from oracle.slowsched.percpu import PerCpu as SlowPerCpu
from pyvirt._core.sched.engine import STATES, SchedCore
from pyvirt.sched import Bvt, Cfs, Esx, FixedPriority, HyperV, Numa, PerCpu, Topology
from scheduling.churn import FastChurn, SlowChurn


def esx(cosched: str, wake: bool, quantum: int = 10, **more) -> tuple:
    """The ESX policy at the scale of the scenarios, both ways.

    With a short quantum most turns end before a limit or a skew can matter.
    """
    parameters = {
        "cosched": cosched,
        "resolve_on_wake": wake,
        "credit_ns": 7 * wake,
        "wake_ns": 3 * wake,
        "quantum_ns": quantum,
        "resolve_ns": 100,
        "limit_period_ns": 30,
        "pull_ns": 12,
        "skew_stop_ns": 5 if quantum == 10 else 3 * quantum,
        "skew_start_ns": 2,
        "laggard_ns": 20,
        "pools": ((0, 1.0, 0, -1), (0, 2.0, 10**8, -1), (0, 1.0, 0, 3 * 10**8)),
        **more,
    }
    return lambda: Esx(**parameters), lambda: SlowEsx(**parameters), "numa" not in more


NAMES = {"run": "run", "rdy": "ready", "mlmtd": "limited", "cstp": "costop", "wait": "wait"}
WORK = ["spin", "waits", "wait_time", "yields", "holder_preempted", "holder_off"]
WORK += ["waiter_preempted", "demanded", "dropped", "dropped_jobs"]

# Of each plug-in policy: it, its slow version, and whether no CPU idles beside a ready world.
PLUGS = {
    "fixed": (FixedPriority, Fixed, True),
    "esx": esx("relaxed", True),
    "esx, strict": esx("strict", True),
    "esx, short": esx("relaxed", True, 2),
    "esx, strict, short": esx("strict", False, 3),
    "esx, balance": esx("balance", False),
    "esx, none": esx("none", False),
    "esx, even": esx("relaxed", True, balance_ns=17, charge_used=False),
    "esx, balance, even": esx("balance", True, balance_ns=23, imbalance_percent=60),
    "esx, numa": esx("relaxed", True, numa=Numa(40, 5, 0.5, 100, 7), balance_ns=29),
    "esx, strict, numa": esx("strict", False, numa=Numa(30, 5, 0.5, 100, 7), balance_ns=29),
    "fixed, 3": (lambda: FixedPriority(timeslice_ns=3), lambda: Fixed(3), True),
    "bvt": (lambda: Bvt(allowance_ns=8), lambda: SlowBvt(8), True),
    "cfs": (lambda: Cfs(24, 3, 4, 2, 37), lambda: SlowCfs(24, 3, 4, 2, 37), True),
    "cfs, groups": (
        lambda: Cfs(30, 7, 1, 5, 21, 100, groups=True),
        lambda: SlowCfs(30, 7, 1, 5, 21, 100, groups=True),
        True,
    ),
    "hyperv": (lambda: HyperV("classic", 6, 29, False), lambda: SlowHyperV(6, 29), True),
    "hyperv, core": (
        lambda: HyperV("core", 4, 41, False),
        lambda: SlowHyperV(4, 41, core=True),
        False,
    ),
    "churn": (FastChurn, SlowChurn, False),
    "percpu, numa": (
        lambda: PerCpu(5, 17, 25, Numa(40, 5, 0.5, 100, 7)),
        lambda: SlowPerCpu(5, 17, 25, Numa(40, 5, 0.5, 100, 7)),
        False,
    ),
    "percpu": (lambda: PerCpu(5, 17, 25), lambda: SlowPerCpu(5, 17, 25), True),
}


def bucket_of(times: list[int]) -> list[int]:
    """Up to 64 ns one a nanosecond, then 32 for each power of two."""
    shifts = [max(0, t.bit_length() - 6) for t in times]
    return [32 * shift + (t >> shift) for t, shift in zip(times, shifts, strict=True)]


def same_times(counts, times: list[int]) -> None:
    """A histogram is of just these times."""
    assert counts.sum() == len(times)
    buckets, numbers = np.unique(np.array(bucket_of(times), int), return_counts=True)
    assert counts[buckets].tolist() == numbers.tolist()


def recorded(load: tuple | None) -> tuple | None:
    """With response times."""
    if load is None:
        return None
    return (*load[:7], {**(load[7] if len(load) == 8 else {}), "responses": True})


class Both:
    """Two schedulers that are told the same."""

    policies: tuple = ()

    def __init__(
        self, cpus: int, policy: str, seed: int = 12345, topology: Topology | None = None
    ) -> None:
        parts = topology and (topology._array(), topology._speeds(), topology._costs())
        shape = parts and [each.tolist() for each in parts]
        self.conserving = True
        if policy in PLUGS:
            plug, slow, self.conserving = PLUGS[policy]
            self.policies = plug(), slow()
            self.fast = SchedCore(self.policies[0], cpus, seed, 1, None, parts)
            self.slow = SlowPlugged(cpus, self.policies[1], seed, shape)
            return
        policy, _, way = policy.partition(", ")
        tick = int(way) if way else None
        self.fast = SchedCore(policy, cpus, seed, 1, tick, parts)
        self.slow = SlowScheduler(cpus, policy, seed, tick, shape)

    def add(self, weight, slice_ns, affinity=None, load=None, limit=None) -> int:
        load = recorded(load)
        id = self.fast._add(weight, slice_ns, affinity, load, limit, True)
        assert id == self.slow.add(weight, slice_ns, affinity, load, limit)
        return id

    def add_team(self, kind, spin, window, seed) -> int:
        team = self.fast._add_team(kind, spin, window, seed)
        self.slow.add_team(team, kind, spin, window, seed)
        return team

    def halt(self, id: int) -> None:
        self.fast.halt(id)
        self.slow.halt_guest(id)

    def add_vm(self, *arguments) -> tuple:
        *others, loads, limit = arguments
        arguments = (*others, [recorded(load) for load in loads], limit)
        made = self.fast._add_vm(*arguments, True)
        assert made == self.slow.add_vm(*arguments)
        return made

    def set_vm(self, vm, weight, reservation, limit, params) -> None:
        self.fast._set_vm(vm, weight, reservation, limit, params)
        self.slow.set_vm(vm, weight, reservation, limit, params)

    def tell(self, name: str, *arguments) -> None:
        getattr(self.fast, name)(*arguments)
        getattr(self.slow, name)(*arguments)

    def advance(self, to: int) -> None:
        """Event by event, then to a time between events."""
        while True:
            when = self.fast.next_event_time()
            assert when == self.slow.next_event_time()
            if when is None or when > to:
                break
            assert self.fast.step() is True
            self.slow.step()
            self.compare()
        self.fast._run(to, None)
        self.slow.now = to
        self.compare()

    def compare(self) -> None:
        fast, slow = self.fast, self.slow
        assert fast.now_ns == slow.now
        running = [c.running.id if c.running else -1 for c in slow.cpus]
        cpus = fast.cpu_counters()
        assert cpus["world"].tolist() == running, slow.now
        idle = [c.idle + (slow.now - c.idle_since if c.running is None else 0) for c in slow.cpus]
        assert cpus["idle"].tolist() == idle
        assert cpus["switches"].tolist() == [c.switches for c in slow.cpus]
        rows = fast.counters()
        works = fast.work_counters()
        v = fast.virtual_times()
        speeds = fast.speed_counters()
        assert {int(i) for i in np.flatnonzero(rows["state"])} == set(slow.worlds)
        for id, w in slow.worlds.items():
            row = rows[id]
            assert STATES[row["state"]] == w.state, (id, slow.now)
            times = dict(w.times)
            times[w.state] += slow.now - w.since
            assert {name: row[name] for name in NAMES} == {n: times[m] for n, m in NAMES.items()}
            assert sum(times.values()) == row["elapsed"]
            assert row["cpu"] == (-1 if w.cpu is None else w.cpu)
            assert (row["switches"], row["migrations"]) == (w.switches, w.migrations), id
            assert (row["jobs"], row["jobs_done"]) == (len(w.jobs), w.done)
            self.compare_work(row, works[id], w)
            assert (row["wakes"], row["wake_time"]) == (len(w.wakes), sum(w.wakes))
            assert row["wake_most"] == max(w.wakes, default=0)
            self.compare_speed(row, speeds[id], copy(w))
            assert v[id] == w.v // 1, (id, slow.now)
            assert row["vm"] == w.vm
        for number, vm in slow.vms.items():
            weight, reservation, limit, params, worlds = fast._vm_values(number)
            assert (weight, reservation, worlds) == (vm.weight, vm.reservation, vm.worlds)
            assert limit == (None if vm.limit < 0 else vm.limit)
            assert list(params.values()) == vm.param[: len(params)]
        self.compare_times()
        self.laws(rows, cpus)
        self.logs()

    def compare_times(self) -> None:
        """Histograms of who has more times than before: of its own, and with its siblings."""
        # of each world: how many times its histograms had
        counted = self.__dict__.setdefault("counted", {})
        changed = set()
        for w in self.slow.worlds.values():
            counts = len(w.wakes), len(w.responses)
            if counted.get(w) != counts:
                counted[w] = counts
                changed.add(w.vm)
                same_times(self.fast.wake_counts(w.id), w.wakes)
                if w.source is not None:
                    same_times(self.fast.response_counts(w.id), w.responses)
        for number in changed:
            worlds = self.slow.vms[number].worlds
            every = [time for id in worlds for time in self.slow.worlds[id].wakes]
            same_times(self.fast.wake_counts(worlds), every)

    def logs(self) -> None:
        """Policies that keep a log were called alike."""
        logs = [policy.log for policy in self.policies if hasattr(policy, "log")]
        if logs:
            assert logs[0] == logs[1]
            for log in logs:
                log.clear()

    def compare_speed(self, row, speed, w) -> None:
        if w.state == "run":
            w.progress(self.slow.now - w.since)
        assert row["used"] == speed["used"] == w.work // 1 <= row["run"]
        assert speed["stalled"] == w.stalled <= row["run"]
        numa = getattr(self.slow.policy, "numa", None)
        home = numa and numa.home(w.id)
        assert speed["home"] == (-1 if home is None else home)
        assert (speed["home_moves"], speed["remote"]) == (w.home_moves, w.remote / 65536)
        late = w.remote * (self.slow.now - w.remote_since) >> 16
        assert speed["remote_time"] == w.remote_time + late
        if any(self.slow.shape.costs) or self.slow.shape.speeds[-1] < 1:
            assert speed["moves"].tolist() == w.moves[1:]
            assert sum(w.moves) == w.migrations

    def compare_work(self, row, work, w) -> None:
        now = self.slow.now
        waits = {w.waits_for: now - w.since}
        assert row["idle"] == w.idle + waits.get("idle", 0), (w.id, now)
        assert row["swpwt"] == w.swpwt + waits.get("swpwt", 0), (w.id, now)
        assert row["interrupts"] == w.interrupts
        spins = now - w.since if w.state == "run" and w.phase == "spin" else 0
        expected = [w.spin + spins, *(getattr(w, name) for name in WORK[1:])]
        assert work[WORK].tolist() == tuple(expected), (w.id, now)
        assert work["spin"] + work["useful"] == row["run"]
        if w.source is not None:
            assert work["response_most"] == max(w.responses, default=0)

    def laws(self, rows, cpus) -> None:
        """What holds in every state, whatever the policy."""
        running = cpus["world"][cpus["world"] >= 0]
        assert len(set(running.tolist())) == len(running)
        idle = {int(i) for i in np.flatnonzero(cpus["world"] < 0)}
        for id, w in self.slow.worlds.items():
            if rows["state"][id] == STATES.index("run"):
                assert rows["cpu"][id] in w.cpus
            if self.conserving and rows["state"][id] == STATES.index("ready"):
                assert not idle & w.cpus, "a ready world beside an idle CPU of its"
        assert (cpus["run"] + cpus["idle"] == self.fast.now_ns).all()

"""Plug-in policies: preemption, virtual machines, parking, faults, policies in Python."""

import copy
import pickle

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError, PolicyError
from pyvirt.sched import STATES, FixedPriority, Jobs, OnOff, Periodic, PythonPolicy, Scheduler
from scheduling.churn import FastChurn


class Line(PythonPolicy):
    """Round robin on all CPUs."""

    def __init__(self):
        self.line = []

    def enqueue(self, id, why):
        self.line.append(id)
        for cpu in range(self.cpu_count):
            if self.running(cpu) is None and not self.asked(cpu):
                self.ask(cpu)
                break

    def dequeue(self, id):
        self.line.remove(id)

    def pick(self, cpu):
        for id in self.line:
            if self.allowed(id, cpu):
                self.line.remove(id)
                return id
        return None


def states(host):
    return [STATES[state] for state in host.counters()["state"]]


# --- preemption ---


def test_a_woken_world_of_higher_priority_runs_at_once():
    host = Scheduler(policy="fixed", quantum_ns=1000)
    low = host.add(weight=1)
    high = host.add(Periodic(work_ns=10, period_ns=100, start_ns=50), weight=2)
    host.run(10_000)
    rows = host.counters()
    assert rows["wake_most"].tolist() == [0, 0]
    assert rows["run"].tolist() == [9000, 1000]
    assert rows["rdy"][low] == 1000
    assert rows["jobs_done"][high] == 100


def test_without_preemption_it_would_wait():
    host = Scheduler(policy="stride", quantum_ns=1000)
    host.add(weight=1)
    high = host.add(Periodic(work_ns=10, period_ns=100, start_ns=50), weight=2)
    host.run(10_000)
    assert host.counters()["wake_most"][high] > 100


def test_who_is_preempted_stays_first_in_line():
    """POSIX: a preempted thread is the head of its list, and who used its slice the tail."""
    host = Scheduler(policy=FixedPriority(timeslice_ns=100))
    first, second = host.add(weight=1), host.add(weight=1)
    high = host.add(Jobs(), weight=2)
    host.run(50)
    host.submit(high, 5)
    host.run(60)
    assert host.cpu_counters()["world"].tolist() == [first]
    host.run(155)  # a whole slice anew
    assert host.cpu_counters()["world"].tolist() == [second]


def test_the_world_of_lowest_priority_is_preempted():
    host = Scheduler(cpus=3, policy="fixed", quantum_ns=1000)
    for weight in (5, 2, 4):
        host.add(weight=weight)
    host.add(weight=3)
    assert host.cpu_counters()["world"].tolist() == [0, 3, 2]
    host.set_weight(0, 1)
    assert host.cpu_counters()["world"].tolist() == [1, 3, 2]


# --- virtual machines ---


def test_a_vm_shares_its_weight():
    host = Scheduler(cpus=1, policy="stride", quantum_ns=10)
    single = host.add(weight=600)
    vm = host.add_vm(3, weight=600)
    assert vm.worlds == [1, 2, 3]
    host.run(1_200_000)
    run = host.counters()["run"]
    assert abs(run[single] - 600_000) <= 20
    assert abs(run[vm.worlds].sum() - 600_000) <= 60
    host.set_vm(vm, weight=1200)
    assert host.counters()["weight"].tolist() == [600, 400, 400, 400]
    assert host.counters()["vm"].tolist() == [0, 1, 1, 1]


def test_numbers_of_vms_are_given_again():
    host = Scheduler(policy="fixed")
    vm = host.add_vm(2)
    host.remove(0)
    assert host.counters()["vm"].tolist() == [0, 0]
    host.remove(1)
    with pytest.raises(InvalidValueError, match="VM 0 was removed"):
        host.set_vm(vm, weight=2)
    assert host.add_vm(1).number == 0


def test_each_world_of_a_vm_has_its_own_work():
    host = Scheduler(cpus=2, policy="fixed")
    host.add_vm(2, [Periodic(work_ns=100, period_ns=200), None])
    host.run(1000)
    assert host.counters()["run"].tolist() == [500, 1000]


@pytest.mark.parametrize(
    ("error", "arguments", "options"),
    [
        (InvalidTypeError, ("2",), {}),
        (InvalidTypeError, (True,), {}),
        (InvalidValueError, (0,), {}),
        (InvalidValueError, (1 << 21,), {}),
        (InvalidValueError, (2, [None]), {}),
        (InvalidValueError, (1,), {"weight": 0}),
        (InvalidValueError, (1,), {"weight": 1 << 21}),
        (InvalidValueError, (1,), {"reservation": -1}),
        (InvalidValueError, (1,), {"limit": -2}),
        (InvalidTypeError, (1,), {"cap": 50}),
    ],
)
def test_bad_vms_are_not_added(error, arguments, options):
    host = Scheduler(policy="fixed")
    with pytest.raises(error):
        host.add_vm(*arguments, **options)
    assert len(host.counters()) == 0
    assert host.add_vm(1).number == 0


def test_parameters_of_vms_are_those_that_the_policy_declares():
    class Capped(Line):
        vm_params = {"cap": (0, 0, 100), "warp": (7, -10, 10)}  # noqa: RUF012
        seen = ()

        def add(self, id):
            self.seen = (*self.seen, self.vm(self.world(id).vm).params)

        change = add

    policy = Capped()
    host = Scheduler(policy=policy)
    vm = host.add_vm(1, cap=40)
    host.add()
    host.set_vm(vm, warp=-3)
    assert policy.seen == ((40, 7), (0, 7), (40, -3))
    with pytest.raises(InvalidValueError, match="cap"):
        host.add_vm(1, cap=101)
    with pytest.raises(InvalidTypeError, match="knows cap, warp"):
        host.add_vm(1, period=1)


# --- parking and co-stopping ---


def test_parked_and_costopped_time_is_counted_apart():
    class Keeper(Line):
        def begin(self):
            self.timer = 100

        def timed(self):
            if self.now == 100:
                self.park(0)
                self.costop(1)
                self.timer = 250
            else:
                self.unpark(0)
                self.costart(1)

    host = Scheduler(cpus=2, policy=Keeper(), quantum_ns=10_000)
    host.add()
    host.add()
    host.run(200)
    assert states(host) == ["limited", "costop"]
    host.run(1000)
    rows = host.counters()
    assert states(host) == ["run", "run"]
    assert (rows["mlmtd"].tolist(), rows["cstp"].tolist()) == ([150, 0], [0, 150])
    assert rows["run"].tolist() == [850, 850]
    assert host.cpu_counters()["idle"].tolist() == [150, 150]


# --- faults ---


class Faulty(Line):
    """Round robin until it is told what to return."""

    wrong = None
    what = ""

    def pick(self, cpu):
        return super().pick(cpu) if self.what != "pick" else self.wrong

    def timeslice(self, cpu, id):
        return 10 if self.what != "timeslice" else self.wrong


@pytest.mark.parametrize(
    ("hook", "value", "rule"),
    [
        ("pick", 7, "no such world"),
        ("pick", -1, "no such world"),
        ("pick", 1 << 70, "no such world"),
        ("pick", 2, "not ready"),
        ("pick", 3, "affinity"),
        ("timeslice", 0, "at least 1 ns"),
        ("timeslice", -(1 << 80), "at least 1 ns"),
    ],
)
def test_nonsense_is_a_policy_error(hook, value, rule):
    policy = Faulty()
    host = Scheduler(cpus=2, policy=policy)
    for _ in range(2):
        host.add()
    host.add(Jobs())
    host.run(15)
    policy.what, policy.wrong = hook, value
    host.add(affinity=[1])
    kept = host.snapshot()
    with pytest.raises(PolicyError, match=rule) as caught:
        host.run(100)
    error = caught.value
    assert (error.policy, error.hook) == ("Faulty", hook)
    assert (error.when_ns, error.cpu) == (20, 0)
    assert error.value == max(-(2**63) + 1, min(2**63 - 1, value))
    assert pickle.loads(pickle.dumps(error)).value == error.value
    # what was is still to be seen, nothing happens any more, and a snapshot leads back
    assert host.now_ns == 20
    rows = host.counters()
    assert (rows["run"] + rows["rdy"] + rows["wait"] == rows["elapsed"]).all()
    assert host.next_event_time() is None
    for act in (lambda: host.run(200), host.step, host.add, lambda: host.block(0)):
        with pytest.raises(PolicyError):
            act()
    host.restore(kept)
    policy.what = ""
    assert host.run(100) > 0


def test_timers_in_the_past_are_a_policy_error():
    class Late(Line):
        def charge(self, id, dt):
            self.timer = self.now - 1

    host = Scheduler(policy=Late(), quantum_ns=10)
    host.add()
    with pytest.raises(PolicyError, match=r"past, .* got 9") as caught:
        host.run(100)
    assert (caught.value.hook, caught.value.when_ns) == ("charge", 10)


@pytest.mark.parametrize("what", ["ask", "timer", "nest"])
def test_a_policy_that_never_ends_is_stopped(what):
    class Endless(Line):
        def timeslice(self, cpu, id):
            if what == "ask":
                self.ask(cpu)
            elif what == "timer":
                self.timer = self.now
            return 10

        def timed(self):
            self.timer = self.now

        def stopped(self, id, why):
            self.unpark(id)

        def enqueue(self, id, why):
            super().enqueue(id, why)
            if what == "nest":
                self.park(id)
                self.unpark(id)

    host = Scheduler(policy=Endless())

    def live() -> None:
        host.add()
        host.run(10)

    with pytest.raises(PolicyError, match="without end"):
        live()


def test_exceptions_of_hooks_come_out():
    class Broken(Line):
        def charge(self, id, dt):
            raise KeyError("mine")

    host = Scheduler(policy=Broken(), quantum_ns=10)
    host.add()
    with pytest.raises(KeyError, match="mine"):
        host.run(100)
    assert host.now_ns == 10
    with pytest.raises(PolicyError, match="raised"):
        host.run(100)


def test_a_policy_without_its_hooks_is_refused():
    class Half(PythonPolicy):
        def pick(self, cpu):
            return None

    with pytest.raises(InvalidValueError, match="enqueue, dequeue"):
        Scheduler(policy=Half())


def test_services_are_for_hooks():
    policy = Line()
    host = Scheduler(policy=policy)
    host.add()
    for call in (lambda: policy.now, lambda: policy.ask(0), lambda: policy.park(0)):
        with pytest.raises(InvalidValueError, match="hooks"):
            call()
    with pytest.raises(InvalidValueError, match="another scheduler"):
        Scheduler(policy=policy)


def test_hooks_cannot_change_the_host():
    class Meddler(Line):
        host = None

        def charge(self, id, dt):
            self.host.add()

    policy = Meddler()
    host = policy.host = Scheduler(policy=policy, quantum_ns=10)
    host.add()
    with pytest.raises(InvalidValueError, match="runs"):
        host.run(100)


# --- state as a value ---


@pytest.mark.parametrize("make", [lambda: FixedPriority(timeslice_ns=3), lambda: FastChurn(5)])
def test_snapshots_copies_and_pickles_go_on_alike(make):
    host = Scheduler(cpus=2, policy=make(), rng=4)
    for weight in (1, 2, 2):
        host.add(OnOff(20, 5, "exponential", "uniform"), weight=weight, limit=(7, 30))
    host.add_vm(2, weight=3)
    host.run(500)
    kept = host.snapshot()
    twins = [copy.copy(host), copy.deepcopy(host), pickle.loads(pickle.dumps(host))]
    host.run(2000)
    for twin in twins:
        twin.run(2000)
        assert twin.counters().tobytes() == host.counters().tobytes()
        assert twin.cpu_counters().tobytes() == host.cpu_counters().tobytes()
    after = host.counters()
    host.restore(kept)
    host.run(2000)
    np.testing.assert_array_equal(host.counters(), after)
    with pytest.raises(InvalidValueError, match="other arguments"):
        Scheduler(cpus=2, policy="fixed").restore(kept)

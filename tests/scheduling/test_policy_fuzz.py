"""Policies that do nonsense: never a crash, but an exception, and the state can be read."""

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import PolicyError, PyvirtError
from pyvirt.sched import Jobs, OnOff, PythonPolicy, Scheduler

HOSTILE = [
    *(None, -1, 0, 1, 2, 3, 7, 1 << 16, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63),
    *(-(1 << 63), 1 << 200, -(1 << 200), True, 0.5, float("nan"), "1", b"", (), [], {}, object),
]
SERVICES = ["ask", "asked", "account", "park", "unpark", "costop", "costart", "world", "vm"]


class BoomError(Exception):
    """What the policy raises by itself."""


class Nonsense(PythonPolicy):
    """Does what its numbers say; in one of `sane` calls out of 100 nonsense."""

    vm_params = {"cap": (0, 0, 100)}  # noqa: RUF012

    def __init__(self, seed, sane):
        self.random, self.sane = random.Random(seed), sane
        self.line = []

    def mad(self):
        return self.random.randrange(1000) >= self.sane

    def meddle(self):
        """Call something with something."""
        for _ in range(self.random.randrange(3)):
            act = self.random.randrange(16)
            if act == 0:
                raise BoomError
            if act == 1:
                self.timer = self.random.choice([*HOSTILE, self.now, self.now + 3])
            elif act == 2:
                self.host.add()
            elif act == 3:
                self.host.run(self.now + 10)
            elif act == 4:
                self.host.snapshot()
            elif act == 5:
                getattr(self, self.random.choice(SERVICES))(self.random.choice(HOSTILE))
            else:
                getattr(self, self.random.choice(SERVICES))(self.random.randrange(4))

    def hook(self):
        if self.mad():
            try:
                self.meddle()
            except (PyvirtError, TypeError):
                if self.mad():
                    raise

    def begin(self):
        self.timer = self.random.choice([None, 0, 5])

    def add(self, id):
        self.hook()

    def remove(self, id):
        self.hook()

    def change(self, id):
        self.hook()

    def charge(self, id, dt):
        self.hook()

    def stopped(self, id, why):
        self.hook()

    def timed(self):
        self.hook()
        self.timer = self.now + self.random.randrange(5)

    def enqueue(self, id, why):
        self.hook()
        if not self.mad():
            self.line.append(id)
        self.ask(self.random.randrange(self.cpu_count))

    def dequeue(self, id):
        self.hook()
        if id in self.line and not self.mad():
            self.line.remove(id)

    def pick(self, cpu):
        self.hook()
        if self.mad():
            return self.random.choice(HOSTILE)
        able = [id for id in self.line if self.allowed(id, cpu)]
        if able:
            self.line.remove(able[0])
        return able[0] if able else None

    def timeslice(self, cpu, id):
        self.hook()
        return self.random.choice(HOSTILE) if self.mad() else self.random.randrange(1, 9)


def readable(host):
    """Whatever happened, times add up and the state can be read and copied."""
    rows, cpus = host.counters(), host.cpu_counters()
    times = rows["run"] + rows["rdy"] + rows["mlmtd"] + rows["cstp"] + rows["wait"]
    assert (times == rows["elapsed"]).all()
    assert (cpus["run"] + cpus["idle"] == host.now_ns).all()
    running = cpus["world"][cpus["world"] >= 0].tolist()
    assert len(set(running)) == len(running)
    assert sorted(running) == [i for i, state in enumerate(rows["state"]) if state == 3]
    host.latency_counts()
    host.next_event_time()


def act(host, kind, at):
    """One call from outside; a world that is not there is refused."""
    if kind == "add":
        host.add(affinity=[at % host.cpus] if at % 3 == 0 else None, weight=1 + at)
    elif kind == "add_vm":
        host.add_vm(1 + at % 3, OnOff(3, 4), cap=at % 100)
    elif kind == "jobs":
        host.submit(host.add(Jobs()), 1 + at)
    elif kind == "set_vm":
        host.set_vm(at % 4, weight=1 + at, cap=at % 100)
    elif kind == "set_limit":
        host.set_limit(at % 6, (1 + at % 3, 5) if at % 2 else None)
    elif kind == "set_affinity":
        host.set_affinity(at % 6, [at % host.cpus])
    elif kind == "set_weight":
        host.set_weight(at % 6, 1 + at)
    elif kind == "run":
        host.run(host.now_ns + at, events=500)
    elif kind == "copy":
        pickle.loads(pickle.dumps(host)).run(host.now_ns + at, events=100)
    else:
        getattr(host, kind)(at % 6)


ACTIONS = [
    *("add", "add_vm", "jobs", "set_vm", "set_limit", "set_affinity", "set_weight"),
    *("run", "run", "run", "copy", "block", "wake", "remove"),
]


@given(
    seed=st.integers(0, 1 << 32),
    sane=st.sampled_from([400, 900, 980, 995]),
    cpus=st.integers(1, 70),
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 40)), max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_nonsense_never_crashes(seed, sane, cpus, steps):
    policy = Nonsense(seed, sane)
    host = policy.host = Scheduler(cpus, policy=policy)
    policy.host = HostOf(host)
    kept = host.snapshot()
    for kind, at in steps:
        try:
            act(host, kind, at)
        except (PyvirtError, BoomError, TypeError, AttributeError):
            readable(host)
    readable(host)
    host.restore(kept)
    readable(host)
    assert host.now_ns == 0
    assert len(host.counters()) == 0


class HostOf:
    """The policy's way to its host, which copies of the policy do not follow."""

    def __init__(self, host):
        self.host = host

    def __getattr__(self, name):
        return getattr(self.host, name)

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return HostOf, (None,)


@pytest.mark.parametrize("hook", ["add", "enqueue", "charge", "pick", "timeslice", "stopped"])
def test_interrupts_come_out(hook):
    """Also what is no Exception: Ctrl-C while a hook runs."""

    def interrupt(self, *arguments):
        raise KeyboardInterrupt

    kind = type("Interrupted", (Nonsense,), {hook: interrupt})
    host = Scheduler(policy=kind(1, 1000), quantum_ns=10)

    def live():
        world = host.add(OnOff(3, 4))
        host.run(100)
        host.block(world)
        host.run(200)

    with pytest.raises(KeyboardInterrupt):
        live()
    readable(host)
    with pytest.raises(PolicyError, match="raised"):
        host.run(300)

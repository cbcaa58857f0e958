"""Policies that are asked once for each slice do what they do when they are asked four times."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt.sched as ps
from pyvirt.errors import PolicyError
from scheduling.test_forward import seen
from scheduling.test_slices import change, scenarios

POLICIES = Path(__file__).parents[2] / "docs" / "guide" / "policies"
# A wheel is tested without the documentation beside it.
if not POLICIES.exists():
    pytest.skip("the examples are not here", allow_module_level=True)


@pytest.fixture(scope="module")
def hooks():
    sys.path.insert(0, str(POLICIES))
    try:
        from jitstride import jit_stride
    finally:
        sys.path.remove(str(POLICIES))
    return jit_stride().hooks


def policy(hooks, **others):
    """The policy with other hooks; `turns` is built around one `requeue` and goes with that."""
    if "requeue" in others:
        others.setdefault("turns", None)
    return ps.NativePolicy("jitstride", {**hooks, **others}, own=bytes(16), world=24, trees=1)


def host(plug, cpus=2, quantum_ns=10, weights=(1, 2, 3, 4, 5)) -> ps.Scheduler:
    made = ps.Scheduler(cpus, policy=plug, quantum_ns=quantum_ns)
    for weight in weights:
        made.add(weight=weight)
    return made


@given(scenario=scenarios(), lengths=st.lists(st.integers(3, 10), max_size=5), jobs=st.booleans())
@settings(max_examples=60, deadline=None)
def test_as_four_hooks(hooks, scenario, lengths, jobs):
    cpus, slice_ns, first, steps = scenario
    once, inlined = hooks["requeue"], hooks["turns"]
    made_by = [(once, None), (None, inlined), (None, None)]
    hosts = [
        host(policy(hooks, requeue=each, turns=loop), cpus, slice_ns, first)
        for each, loop in made_by
    ]
    worlds = [list(range(len(first))) for _ in hosts]
    for made in hosts:
        for length in lengths:
            made.add(weight=3, slice_ns=max(1, slice_ns * length // 10))
        if jobs:
            made.add(ps.OnOff(slice_ns, 40 * slice_ns, "fixed", "exponential"))
    for gap, (name, *arguments) in steps:
        until = hosts[0].now_ns + gap * slice_ns // 10
        hosts[0].run(until)
        hosts[1].run(until)
        while hosts[2].run(until, events=1):
            pass
        assert seen(hosts[0]) == seen(hosts[1]) == seen(hosts[2])
        for made, ids in zip(hosts, worlds, strict=True):
            change(
                lambda name, *more, made=made: getattr(made, name)(*more),
                lambda weight, made=made: made.add(weight=weight),
                ids,
                name,
                *arguments,
            )
        assert seen(hosts[0]) == seen(hosts[1]) == seen(hosts[2])


def test_snapshots_contain_the_trees(hooks):
    made = host(policy(hooks))
    made.run(1234)
    kept = made.snapshot()
    made.run(50_000)
    expected = seen(made)
    made.add(weight=7)
    made.run(60_000)
    made.restore(kept)
    made.run(50_000)
    assert seen(made) == expected


@pytest.fixture(scope="module")
def wrong():
    """Functions that give what they must not, as both hooks."""
    from numba import cfunc, njit

    from pyvirt.sched.jit import HOOKS, ask, host, turns

    @njit
    def no_world(s, cpu, id, dt):
        return np.uint32(99), 10

    @njit
    def running(s, cpu, id, dt):
        return np.uint32(id ^ np.uint32(1)), 10

    @njit
    def no_slice(s, cpu, id, dt):
        return id, 0

    @njit
    def no_cpu(s, cpu, id, dt):
        ask(s, np.uint32(host(s).cpu_count))
        return id, 10

    def hooks_of(body):
        @cfunc(HOOKS["requeue"])
        def requeue(s, cpu, id, dt, slice_ns):
            best, slice_ns[0] = body(s, cpu, id, dt)
            return best

        @cfunc(HOOKS["turns"])
        def loop(s, stretch):
            turns(s, stretch, body)

        return {"requeue": requeue, "turns": loop}

    return {each.__name__: hooks_of(each) for each in (no_world, running, no_slice, no_cpu)}


@pytest.mark.parametrize("hook", ["requeue", "turns"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_world", "in requeue for CPU 0 at 10 ns: there is no such world, got 99"),
        ("running", "in requeue for CPU 0 at 10 ns: that world is not ready and queued, got 1"),
        ("no_slice", "in requeue for CPU 0 at 10 ns: a timeslice is at least 1 ns, got 0"),
        ("no_cpu", "in requeue for CPU 2 at 10 ns: it named a world or CPU that does not exist"),
    ],
)
def test_nonsense_is_a_policy_error(hooks, wrong, name, message, hook):
    instead = {"requeue": None, "turns": None, hook: wrong[name][hook]}
    made = host(policy(hooks, **instead), weights=(1, 1))
    with pytest.raises(PolicyError, match=message):
        made.run(10_000)
    assert made.now_ns == 10
    rows = made.counters()
    assert (rows["run"] + rows["rdy"] == 10).all()
    with pytest.raises(PolicyError, match=message):
        made.run(20_000)


def test_a_cpu_may_be_left_idle(hooks):
    from numba import cfunc

    from pyvirt.sched.jit import HOOKS

    @cfunc(HOOKS["requeue"])
    def nothing(s, cpu, id, dt, slice_ns):
        return 0xFFFFFFFF

    made = host(policy(hooks, requeue=nothing), weights=(1, 1))
    made.run(10_000)
    # from then on a CPU is idle, and the other one is asked hook by hook
    assert made.cpu_counters()["world"][0] == -1
    assert made.cpu_counters()["idle"].tolist() == [9990, 0]
    assert made.counters()["run"].sum() == 10 + 10_000


def test_asked_cpus_pick_after_the_slice(hooks):
    """A policy that asks all other CPUs at each end of a slice, with and without the hook."""
    from numba import cfunc

    from pyvirt.sched.jit import HOOKS, ask
    from pyvirt.sched.jit import host as host_of

    sys.path.insert(0, str(POLICIES))
    try:
        import jitstride as parts
    finally:
        sys.path.remove(str(POLICIES))

    @cfunc(HOOKS["enqueue"])
    def enqueue(s, id, why):
        at = parts.place_of(s)
        w, own = parts.mine(at, id), parts.own_of(at)
        if why != parts.SLICE and why != parts.PREEMPT:
            w.passed = max(w.passed, own.now)
        parts.enter(s, at, id)
        if why != parts.PREEMPT:
            for cpu in range(host_of(s).cpu_count):
                ask(s, np.uint32(cpu))

    @cfunc(HOOKS["requeue"])
    def requeue(s, cpu, id, dt, slice_ns):
        at = parts.place_of(s)
        parts.use(s, at, id, dt)
        parts.enter(s, at, id)
        for other in range(host_of(s).cpu_count):
            if other != cpu:
                ask(s, np.uint32(other))
        best = parts.take(s, at, cpu)
        slice_ns[0] = parts.world(s, best).slice
        return best

    both = [
        host(policy(hooks, enqueue=enqueue, requeue=each), cpus=3, weights=(1, 2, 3, 4, 5, 9))
        for each in (requeue, None)
    ]
    for made in both:
        made.add(weight=2, slice_ns=7)
        made.run(20_000)
    assert seen(both[0]) == seen(both[1])

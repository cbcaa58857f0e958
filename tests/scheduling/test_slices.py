"""Long stretches of ends of slices give what event after event gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.sched import Always, OnOff, Scheduler
from scheduling.machine import Both
from scheduling.test_forward import seen

LONGEST = (1 << 32) - 1
weights = st.one_of(st.integers(1, 5), st.integers(1, 1 << 20), st.sampled_from([1, 1 << 20]))
slices = st.one_of(st.integers(1, 50), st.just(10), st.just(LONGEST))
gaps = st.integers(1, 600)  # in tenths of a slice, for each CPU
world = st.integers(0, 30)
changes = st.one_of(
    st.tuples(st.just("add"), weights),
    st.tuples(st.just("remove"), world),
    st.tuples(st.just("block"), world),
    st.tuples(st.just("wake"), world),
    st.tuples(st.just("set_weight"), world, weights),
    st.tuples(st.just("set_affinity"), world, st.sampled_from([None, frozenset([0])])),
)


@st.composite
def scenarios(draw):
    cpus = draw(st.sampled_from([1, 2, 3, 4, 7]))
    first = draw(st.lists(weights, min_size=cpus, max_size=cpus + 12))
    later = draw(st.lists(st.tuples(gaps, changes), max_size=12))
    return cpus, draw(slices), first, [*later, (600, ("wake", 0))]


def change(tell, add, worlds: list[int], name: str, *arguments) -> None:
    """`worlds` are there; removals and blocks leave the CPUs busy in most cases."""
    if name == "add":
        worlds.append(add(arguments[0]))
    elif worlds:
        id = worlds[arguments[0] % len(worlds)]
        tell(name, id, *arguments[1:])
        if name == "remove":
            worlds.remove(id)


@given(scenario=scenarios(), jobs=st.booleans())
@settings(max_examples=300, deadline=None)
def test_as_event_by_event(scenario, jobs):
    cpus, slice_ns, first, steps = scenario
    both = [Scheduler(cpus, policy="stride", quantum_ns=slice_ns) for _ in range(2)]
    worlds = [[made.add(weight=weight) for weight in first] for made in both]
    for made in both:
        made.fast_forward = False
        if jobs:
            # wakes up between long stretches, as a world that was not always there
            made.add(OnOff(slice_ns, 40 * slice_ns, "fixed", "exponential"))
    for gap, (name, *arguments) in steps:
        until = both[0].now_ns + gap * slice_ns // 10
        both[0].run(until)
        while both[1].run(until, events=1):
            pass
        assert seen(both[0]) == seen(both[1])
        for made, ids in zip(both, worlds, strict=True):
            change(
                lambda name, *more, made=made: getattr(made, name)(*more),
                lambda weight, made=made: made.add(weight=weight),
                ids,
                name,
                *arguments,
            )
        assert seen(both[0]) == seen(both[1])


@given(scenario=scenarios())
@settings(max_examples=40, deadline=None)
def test_as_the_slow_engine(scenario):
    cpus, slice_ns, first, steps = scenario
    both = Both(cpus, "stride")
    worlds = [both.add(weight, slice_ns) for weight in first]
    for gap, (name, *arguments) in steps:
        until = both.slow.now + gap * slice_ns // 10
        both.fast._run(until, None)
        while (when := both.slow.next_event_time()) is not None and when <= until:
            both.slow.step()
        both.slow.now = until
        both.compare()
        change(both.tell, lambda weight: both.add(weight, slice_ns), worlds, name, *arguments)
        both.compare()


@pytest.mark.parametrize("cpus", [1, 5, 64])
def test_cut_anywhere(cpus):
    """However a run is cut, what follows is the same."""
    whole, parts = (Scheduler(cpus, policy="stride", quantum_ns=1000) for _ in range(2))
    for made in (whole, parts):
        made.fast_forward = False
        for i in range(3 * cpus + 2):
            made.add(Always(), weight=1 + i * i % 37)
    for most in range(1, 12 * cpus):
        assert parts.run(1 << 50, events=most) == most
    for until in range(parts.now_ns, parts.now_ns + 60_000, 777):
        parts.run(until)
    whole.run(parts.now_ns)
    assert seen(whole) == seen(parts)


def test_more_events_than_are_kept_apart():
    """Virtual time of a queue is exact over more than 2**20 events at once."""
    made = Scheduler(2, policy="stride", quantum_ns=LONGEST)
    made.fast_forward = False
    for weight in (1, 1 << 20, 3):
        made.add(weight=weight)
    assert made.run(1 << 60, events=(1 << 21) + 5) == (1 << 21) + 5
    rows = made.counters()
    assert (rows["run"] + rows["rdy"] == made.now_ns).all()
    late = made.add(weight=1)  # joins one stride ahead of what the queue was served
    service = int(rows["run"].sum())
    assert service == 2 * made.now_ns
    assert made.virtual_times()[late] - made.virtual_times()[:3].min() >= 0


def test_slices_that_end_and_begin_at_the_same_moment():
    """Of two slices that end at once, that of the lower CPU does first, whichever began first."""
    both = [Scheduler(2, policy="stride", quantum_ns=10) for _ in range(2)]
    for made in both:
        made.fast_forward = False
        made.add(weight=2)
        made.wait_swap(made.add(weight=3), 30)  # takes CPU 1 at 30, when a slice of CPU 0 ends
        assert made.run(1000, events=3) == 3
        assert made.now_ns == made.next_event_time() == 30
        made.add(weight=5)
    both[0].run(1000)
    while both[1].run(1000, events=1):
        pass
    assert seen(both[0]) == seen(both[1])

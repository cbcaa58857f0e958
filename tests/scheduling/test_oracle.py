"""Random scenarios agree with the slow engine, event by event."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling.machine import PLUGS, Both

POLICIES = ["rr", "stride", "eevdf", "eevdf, 7", "lottery", "hstride", *PLUGS]
KINDS = ["fixed", "exponential", "uniform"]
times = st.integers(1, 40)
loads = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(["open", "closed"]),
        times,
        st.sampled_from(KINDS),
        times,
        st.sampled_from(KINDS),
        st.one_of(st.none(), st.integers(0, 20)),
        st.integers(1, 2**64 - 1),
    ),
    st.just((None, 0, "fixed", 0, "fixed", None, 1)),
)
limits = st.one_of(st.none(), st.tuples(st.integers(1, 12), st.integers(1, 30)))


@st.composite
def actions(draw, cpus):
    affinity = st.one_of(
        st.none(), st.frozensets(st.integers(0, cpus - 1), min_size=1, max_size=cpus)
    )
    weights = st.one_of(st.integers(1, 5), st.integers(1, 1 << 20))
    slices = st.one_of(st.integers(1, 10), st.just(10))
    world = st.integers(0, 7)
    new = st.tuples(st.just("add"), weights, slices, affinity, loads, limits)
    reservations = st.one_of(st.none(), st.integers(0, 10**9))
    most = st.one_of(st.none(), st.integers(1, 10**9))
    machine = st.tuples(
        st.just("add_vm"),
        weights,
        reservations,
        most,
        st.just(()),
        slices,
        affinity,
        st.lists(loads, min_size=1, max_size=3),
        limits,
    )
    action = st.one_of(
        new,
        machine,
        st.tuples(st.just("set_vm"), world, st.one_of(st.none(), weights), reservations, most),
        st.tuples(st.just("remove"), world),
        st.tuples(st.just("block"), world),
        st.tuples(st.just("wake"), world),
        st.tuples(st.just("submit"), world, times),
        st.tuples(st.just("set_weight"), world, weights),
        st.tuples(st.just("set_affinity"), world, affinity),
        st.tuples(st.just("set_limit"), world, limits),
    )
    first = draw(st.lists(new, min_size=1, max_size=5))
    later = draw(st.lists(st.tuples(st.integers(0, 60), action), max_size=20))
    return [(0, a) for a in first] + later


@st.composite
def scenarios(draw):
    cpus = draw(st.integers(1, 4))
    return cpus, draw(actions(cpus))


def play(policy, scenario):
    cpus, steps = scenario
    act(Both(cpus, policy), steps)


def act(both, steps):
    for gap, (name, *arguments) in steps:
        if gap:
            both.advance(both.slow.now + gap)
        if name == "add":
            both.add(*arguments)
        elif name == "add_vm":
            both.add_vm(*arguments)
        elif name == "set_vm":
            if both.slow.vms:
                vm = sorted(both.slow.vms)[arguments[0] % len(both.slow.vms)]
                both.set_vm(vm, *arguments[1:], ())
        else:
            worlds = both.slow.worlds
            if not worlds:
                continue
            id = sorted(worlds)[arguments[0] % len(worlds)]
            if name == "submit" and worlds[id].source != "none":
                continue
            both.tell(name, id, *arguments[1:])
        both.compare()
    both.advance(both.slow.now + 200)


@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios())
@settings(max_examples=25, deadline=None)
def test_agrees(policy, scenario):
    play(policy, scenario)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios())
@settings(max_examples=3000, deadline=None)
def test_agrees_on_many(policy, scenario):
    play(policy, scenario)


@pytest.mark.parametrize(
    "policy", ["rr", "stride", "eevdf", "eevdf, 1000000000", "lottery", "hstride"]
)
def test_weights_that_no_cpus_can_serve(policy):
    """Ranks grow apart up to the bound, and the rule there is the same."""
    both = Both(2, policy)
    for weight in (1 << 20, 1, 1):
        both.add(weight, (1 << 32) - 1)
    both.advance(100 << 32)
    both.tell("set_weight", 2, 1 << 20)
    both.advance(200 << 32)

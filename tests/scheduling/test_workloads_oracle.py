"""Traces, barriers, locks, pauses and interrupts agree with the slow engine, event by event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling.machine import Both

POLICIES = ["rr", "stride", "eevdf", "eevdf, 7", "lottery", "hstride", "fixed, 3", "churn"]
times = st.integers(1, 40)
seeds = st.integers(1, 2**64 - 1)
distributions = st.one_of(
    st.tuples(st.sampled_from(["fixed", "exponential", "uniform"]), times),
    st.tuples(st.just("between"), st.integers(1, 20), st.integers(20, 60)),
    st.tuples(st.just("lognormal"), times, st.floats(0.1, 2)),
    st.tuples(st.just("pareto"), st.integers(1, 20), st.integers(21, 900), st.floats(0.3, 3)),
    st.tuples(st.just("empirical"), st.lists(times, min_size=1, max_size=5).map(np.array)),
)


@st.composite
def traces(draw):
    """Times, demands in 10**-9 CPUs, grain, whether it repeats, whether it drops."""
    steps = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    demands = [draw(st.one_of(st.just(0), st.integers(1, 4 * 10**9))) for _ in steps]
    grain = draw(st.integers(1, 40))
    starts = [0, *np.cumsum(steps).tolist()]
    return (starts, demands, grain, draw(st.booleans()), draw(st.booleans()))


def load(source: str, start, seed: int):
    return (source, 5, "fixed", 5, "fixed", start, seed)


weights = st.integers(1, 5)
slices = st.one_of(st.integers(1, 10), st.just(10))
limits = st.one_of(st.none(), st.none(), st.tuples(st.integers(1, 12), st.integers(1, 30)))
singles = st.one_of(
    st.builds(
        lambda source, start, seed, work, gap: (
            *load(source, start, seed),
            {"work": work, "gap": gap},
        ),
        st.sampled_from(["open", "closed"]),
        st.one_of(st.none(), st.integers(0, 20)),
        seeds,
        distributions,
        distributions,
    ),
    st.builds(
        lambda trace, start, seed: (*load("trace", start, seed), {"trace": trace}),
        traces(),
        st.integers(0, 20),
        seeds,
    ),
    st.builds(lambda seed: (None, 0, "fixed", 0, "fixed", None, seed), seeds),
    st.none(),
)


@st.composite
def scenarios(draw):
    cpus = draw(st.integers(1, 3))
    affinity = st.one_of(
        st.none(), st.none(), st.frozensets(st.integers(0, cpus - 1), min_size=1, max_size=cpus)
    )
    world = st.integers(0, 9)
    single = st.tuples(st.just("single"), weights, slices, affinity, singles, limits)
    member = st.tuples(weights, slices, affinity, st.integers(0, 5), limits, seeds)
    team = st.tuples(
        st.just("team"),
        st.sampled_from(["barrier", "ticket", "test_and_set"]),
        st.one_of(st.none(), st.just(0), st.integers(1, 30)),
        st.one_of(st.none(), st.integers(1, 10)),
        seeds,
        st.tuples(distributions, distributions),
        st.lists(member, min_size=1, max_size=4),
    )
    actions = st.one_of(
        single,
        team,
        st.tuples(st.sampled_from(["remove", "block", "wake", "wake", "halt"]), world),
        st.tuples(
            st.sampled_from(["wait_swap", "wait_device", "interrupt", "submit"]), world, times
        ),
        st.tuples(st.just("interrupt"), world, st.just(0)),
        st.tuples(st.just("set_weight"), world, weights),
        st.tuples(st.just("set_affinity"), world, affinity),
        st.tuples(st.just("set_limit"), world, limits),
    )
    first = draw(st.lists(st.one_of(single, team), min_size=1, max_size=4))
    later = draw(st.lists(st.tuples(st.integers(0, 60), actions), max_size=20))
    return cpus, [(0, a) for a in first] + later


def add_team(both: Both, kind, spin, window, seed, dists, members) -> None:
    team = both.add_team(kind, spin, window, seed)
    for weight, slice_ns, affinity, start, limit, seed in members:
        more = {"work": dists[0], "section": dists[1], "team": team}
        both.add(weight, slice_ns, affinity, (*load("team", start, seed), more), limit)


def refused(w, name: str, arguments: list) -> bool:
    """What the engine does not accept."""
    if name == "submit":
        return w.source != "none"
    if name == "interrupt":
        return bool(arguments[0]) and w.source in (None, "team")
    if name == "halt":
        return w.source == "team"
    other = {"wait_swap": "device", "wait_device": "swap"}
    return name in other and w.pause_end is not None and w.pause == other[name]


def play(policy, scenario):
    cpus, steps = scenario
    both = Both(cpus, policy)
    for gap, (name, *arguments) in steps:
        if gap:
            both.advance(both.slow.now + gap)
        if name == "single":
            both.add(*arguments)
        elif name == "team":
            add_team(both, *arguments)
        else:
            worlds = both.slow.worlds
            if not worlds:
                continue
            id = sorted(worlds)[arguments[0] % len(worlds)]
            if refused(worlds[id], name, arguments[1:]):
                continue
            if name == "halt":
                both.halt(id)
            else:
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
@settings(max_examples=2000, deadline=None)
def test_agrees_on_many(policy, scenario):
    play(policy, scenario)


@pytest.mark.parametrize(("start", "other"), [(4, 4), (0, 2)])
def test_a_barrier_opens_while_its_policy_stops_members(start, other):
    """Its policy parks the last to arrive while another is charged, or takes a mark back."""
    members = [(1, 10, frozenset([1]), at, (10, 17), 1) for at in (start, other)]
    team = ("team", "barrier", None, None, 1, (("fixed", 40), ("fixed", 1)), members)
    play("churn", (2, [(0, team), (6, ("set_affinity", 0, None))]))

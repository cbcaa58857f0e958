"""Xen's policies agree with their slow versions, event by event, with VMs and their parameters.

Times are some nanoseconds, so that everything that can happen does within a scenario.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.slowsched import SlowPlugged, credit, credit2, rtds
from pyvirt._core.sched.engine import SchedCore
from pyvirt._core.sched.policies.credit import Credit
from pyvirt._core.sched.policies.credit2 import Credit2
from pyvirt._core.sched.policies.rtds import Rtds
from pyvirt.sched import Topology
from scheduling.machine import Both
from scheduling.test_oracle import limits, loads, times

caps = st.one_of(st.just(()), st.tuples(st.tuples(st.just("cap"), st.integers(0, 250))))
servers = st.tuples(
    st.tuples(st.just("period_ns"), st.integers(1, 30)),
    st.tuples(st.just("budget_ns"), st.integers(1, 30)),
    st.tuples(st.just("extratime"), st.integers(0, 1)),
)
credit_constants = st.fixed_dictionaries(
    {
        "timeslice_ns": st.sampled_from([3, 9, 30]),
        "ticks_per_timeslice": st.sampled_from([1, 3]),
        "credit_ns": st.sampled_from([1, 2]),
        "ratelimit_ns": st.sampled_from([0, 2, 5]),
        "balance_ns": st.sampled_from([0, 4]),
    }
)
credit2_constants = st.fixed_dictionaries(
    {
        "runqueue": st.sampled_from(["cpu", "core", "llc", "node", "socket", "all"]),
        "credit_ns": st.sampled_from([10, 25]),
        "carryover_ns": st.sampled_from([0, 2]),
        "min_run_ns": st.sampled_from([1, 2]),
        "max_run_ns": st.sampled_from([2, 10, 30]),
        "ratelimit_ns": st.sampled_from([0, 1, 4]),
        "cap_period_ns": st.sampled_from([5, 10, 20]),
        "migrate_resist_ns": st.sampled_from([0, 2]),
        "migrate_compensation_ns": st.sampled_from([0, 1]),
        "load_window_ns": st.sampled_from([8, 64]),
        "balance_under": st.sampled_from([-2, 0]),
        "balance_over": st.sampled_from([-3, 0]),
    }
)
TOPOLOGIES = [
    None,
    None,
    Topology(cores=2, threads=2),
    Topology(sockets=2, cores=2),
    Topology(sockets=2, threads=2),
    Topology(cores=4, llcs_per_node=2, migration_ns=(1, 1, 2, 3, 4)),
    Topology(sockets=2, nodes_per_socket=2, cores=2, threads=1),
]
# of each policy: constants, parameters of VMs, it and its slow version
KINDS = {
    "credit": (credit_constants, caps, Credit, credit.Credit),
    "credit2": (credit2_constants, caps, Credit2, credit2.Credit2),
    "rtds": (st.just({}), servers, Rtds, rtds.Rtds),
}


@st.composite
def scenarios(draw, policy):
    constants, params, _, _ = KINDS[policy]
    topology = draw(st.sampled_from(TOPOLOGIES))
    cpus = topology.cpus if topology else draw(st.integers(1, 4))
    affinity = st.one_of(
        st.none(), st.frozensets(st.integers(0, cpus - 1), min_size=1, max_size=cpus)
    )
    weights = st.one_of(st.integers(1, 5), st.integers(1, 1 << 20))
    world = st.integers(0, 7)
    new = st.tuples(
        st.just("add_vm"),
        weights,
        st.just(0),
        st.just(-1),
        params,
        st.just(1),
        affinity,
        st.lists(loads, min_size=1, max_size=3),
        st.one_of(st.none(), limits),
    )
    actions = st.one_of(
        new,
        st.tuples(st.just("set_vm"), world, st.one_of(st.none(), weights), params),
        st.tuples(st.just("remove"), world),
        st.tuples(st.just("block"), world),
        st.tuples(st.just("wake"), world),
        st.tuples(st.just("submit"), world, times),
        st.tuples(st.just("set_weight"), world, weights),
        st.tuples(st.just("set_affinity"), world, affinity),
        st.tuples(st.just("set_limit"), world, limits),
    )
    first = draw(st.lists(new, min_size=1, max_size=5))
    later = draw(st.lists(st.tuples(st.integers(0, 60), actions), max_size=20))
    return draw(constants), cpus, topology, [(0, a) for a in first] + later


class Pair(Both):
    def __init__(self, cpus, fast, slow, conserving, topology):
        parts = topology and (topology._array(), topology._speeds(), topology._costs())
        self.conserving = conserving
        self.policies = ()
        self.fast = SchedCore(fast, cpus, 1, 1, None, parts)
        self.slow = SlowPlugged(cpus, slow, 1, parts and [each.tolist() for each in parts])


def play(policy, scenario):
    constants, cpus, topology, steps = scenario
    _, _, fast, slow = KINDS[policy]
    conserving = constants.get("runqueue", "all") == "all"
    both = Pair(cpus, fast(**constants), slow(**constants), conserving, topology)
    for gap, (name, *arguments) in steps:
        if gap:
            both.advance(both.slow.now + gap)
        if name == "add_vm":
            both.add_vm(*arguments)
        elif name == "set_vm":
            if both.slow.vms:
                vm = sorted(both.slow.vms)[arguments[0] % len(both.slow.vms)]
                both.set_vm(vm, arguments[1], None, None, arguments[2])
        elif both.slow.worlds:
            worlds = both.slow.worlds
            id = sorted(worlds)[arguments[0] % len(worlds)]
            if name == "submit" and worlds[id].source != "none":
                continue
            both.tell(name, id, *arguments[1:])
        both.compare()
    both.advance(both.slow.now + 300)


@pytest.mark.parametrize("policy", KINDS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_agrees(policy, data):
    play(policy, data.draw(scenarios(policy)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", KINDS)
@given(data=st.data())
@settings(max_examples=3000, deadline=None)
def test_agrees_on_many(policy, data):
    play(policy, data.draw(scenarios(policy)))
